//! Both doors against a real Slurm, where TESTSLURM_STATE names one that runs (`tests/clusters/slurm/up`); skipped else, and
//! said so. Each test has its own run folder, so that they can run side by side.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_backend::{Backend, JobRef, JobState, LaunchRequest, conformance};
use bridgehead_slurm::{DoorKind, Slurm, SlurmOptions, Surroundings};
use bridgehead_spec::RunId;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The state folder of the cluster, or a word on why there is none.
fn cluster() -> Option<PathBuf> {
    let state = std::env::var_os("TESTSLURM_STATE").map(PathBuf::from);
    let up = state.filter(|state| state.join("env.sh").is_file());
    if up.is_none() {
        println!("skipped: TESTSLURM_STATE names no Slurm that runs");
    }
    up
}

/// A variable that the cluster's env.sh sets.
fn setting(state: &Path, name: &str) -> String {
    let text = std::fs::read_to_string(state.join("env.sh")).unwrap();
    let prefix = format!("export {name}=");
    let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
    value.unwrap_or_else(|| panic!("env.sh sets {name}")).to_owned()
}

fn around(state: &Path) -> Surroundings {
    let path = format!("{}:/usr/bin:/bin", state.join("bin").display());
    let vars = [
        ("PATH", path),
        ("HOME", "/root".to_owned()),
        ("USER", "root".to_owned()),
        ("SLURM_CONF", setting(state, "SLURM_CONF")),
        // What an outer job would leave: it must reach no command.
        ("SBATCH_PARTITION", "no-such-partition".to_owned()),
        ("SQUEUE_FORMAT2", "jobid".to_owned()),
    ];
    vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Options for a small job by this door.
fn options(state: &Path, door: DoorKind) -> SlurmOptions {
    let rest = door == DoorKind::Rest;
    SlurmOptions {
        door: Some(door),
        cpus: Some(1),
        memory_per_cpu: Some("100MiB".to_owned()),
        time: Some("10m".to_owned()),
        rest_url: rest.then(|| setting(state, "TESTSLURM_REST_URL")),
        token_file: rest.then(|| setting(state, "TESTSLURM_TOKEN_FILE").into()),
        ..SlurmOptions::default()
    }
}

/// A run folder that the nodes see, which goes with the value.
struct Run {
    folder: tempfile::TempDir,
    request: LaunchRequest,
}

impl Run {
    /// A run whose program is this shell text; `$1` is `node` or `after`.
    fn new(state: &Path, agents: u32, program: &str) -> Self {
        let folder = tempfile::tempdir_in(setting(state, "TESTSLURM_SHARED")).unwrap();
        // A space and a quote in the path: every word must be quoted on its whole way.
        let dir = folder.path().join("it's a run");
        std::fs::create_dir_all(dir.join("logs")).unwrap();
        let path = dir.join("program");
        std::fs::write(&path, format!("#!/bin/bash\n{program}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let name = folder
            .path()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .trim_start_matches(".tmp")
            .to_lowercase();
        let run = RunId::parse(&format!("test-{name}")).unwrap();
        let request = LaunchRequest::first(run, dir, path, agents);
        Self { folder, request }
    }

    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.request.run_dir.join(file)).unwrap_or_default()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = std::fs::read_dir(self.request.run_dir.join("logs"))
                .into_iter()
                .flatten()
                .flatten();
            for log in logs {
                println!(
                    "{:?}: {}",
                    log.path(),
                    std::fs::read_to_string(log.path()).unwrap_or_default()
                );
            }
            println!("in {}", self.folder.path().display());
        }
    }
}

/// Calls `test` with both doors of the cluster.
fn by_both_doors(test: impl Fn(&Path, &Slurm, &SlurmOptions)) {
    let Some(state) = cluster() else { return };
    for door in [DoorKind::Cli, DoorKind::Rest] {
        let options = options(&state, door);
        let slurm = Slurm::connect_in(&options, &around(&state)).unwrap();
        println!("{:?}", slurm.door());
        test(&state, &slurm, &options);
    }
}

/// Waits until `job` is in `state`; jobs of other tests may be before it.
fn until(slurm: &Slurm, job: &JobRef, state: JobState) {
    let report = || slurm.observe(std::slice::from_ref(job)).unwrap().remove(0);
    wait_for(&format!("{state:?} of {job:?}"), || report().state == state);
}

/// Runs a job to its end.
fn to_its_end(state: &Path, options: &SlurmOptions, run: &Run) {
    let slurm = Slurm::connect_in(options, &around(state)).unwrap();
    let job = slurm.submit(&slurm.render(&run.request).unwrap()).unwrap();
    until(&slurm, &job, JobState::Ended);
}

/// Waits until `done` holds.
fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(180);
    while !done() {
        assert!(Instant::now() < end, "{what} did not come about");
        std::thread::yield_now();
    }
}

#[test]
fn slurm_keeps_the_laws_of_a_backend() {
    by_both_doors(|state, slurm, _| {
        let run = Run::new(state, 2, "exec sleep 600");
        conformance::check(slurm, &run.request);
    });
}

#[test]
fn the_program_runs_once_on_each_node_and_then_looks_what_is_left() {
    by_both_doors(|state, _, options| {
        let mut run = Run::new(
            state,
            3,
            "{ echo \"$* on $(hostname) cpus $SLURM_CPUS_PER_TASK says $SAID\"; } >> \"$(dirname \"$0\")/said.$1.$(hostname)\"",
        );
        run.request.env.insert("SAID".to_owned(), "it's \"$HOME\"".to_owned());
        to_its_end(state, options, &run);
        let dir = run.request.run_dir.display();
        for node in ["n1", "n2", "n3"] {
            let expected = format!("node --run-dir {dir} --launch 1 on {node} cpus 1 says it's \"$HOME\"\n");
            assert_eq!(run.text(&format!("said.node.{node}")), expected);
        }
        let after: Vec<String> = ["n1", "n2", "n3"]
            .iter()
            .map(|n| run.text(&format!("said.after.{n}")))
            .collect();
        assert_eq!(after.concat().lines().count(), 1, "{after:?}");
    });
}

#[test]
fn whole_nodes_give_the_step_all_their_cores_and_gpus() {
    by_both_doors(|state, _, options| {
        let options = SlurmOptions {
            cpus: None,
            memory_per_cpu: None,
            gpus: Some(2),
            ..options.clone()
        };
        let program = "[ $1 = node ] && echo \"$SLURM_CPUS_ON_NODE $CUDA_VISIBLE_DEVICES\" > \"$(dirname \"$0\")/has.$SLURM_NODEID\"";
        let run = Run::new(state, 2, program);
        to_its_end(state, &options, &run);
        for node in 0..2 {
            assert_eq!(run.text(&format!("has.{node}")), "8 0,1\n");
        }
    });
}

#[test]
fn the_agents_are_told_before_the_time_limit_and_may_end_in_order() {
    by_both_doors(|state, _, options| {
        let options = SlurmOptions {
            time: Some("1m".to_owned()),
            signal_before: Some(50),
            ..options.clone()
        };
        // Each says what it got; `after` runs when the step has ended.
        let program = "say() { echo $1 >> \"$(dirname \"$0\")/$1.$SLURM_NODEID\"; }\n\
            trap 'say drained; exit 0' USR1\n[ $1 = after ] && { say after; exit 0; }\n\
            sleep 600 & wait $!; kill $!";
        let run = Run::new(state, 2, program);
        let slurm = Slurm::connect_in(&options, &around(state)).unwrap();
        let job = slurm.submit(&slurm.render(&run.request).unwrap()).unwrap();
        wait_for("the look at what is left", || run.text("after.0") == "after\n");
        assert_eq!(
            (run.text("drained.0"), run.text("drained.1")),
            ("drained\n".to_owned(), "drained\n".to_owned())
        );
        until(&slurm, &job, JobState::Ended);
        assert_eq!(slurm.observe(&[job]).unwrap()[0].word, "COMPLETED");
    });
}

/// What `scontrol show job` says of a job, without what differs from job to job or from door to door.
fn shown(state: &Path, job: &JobRef) -> Vec<String> {
    let scontrol = state.join("bin/scontrol");
    let output = std::process::Command::new(scontrol)
        .args(["show", "job", "--oneliner", &job.0])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let own = [
        "JobId=",
        "JobName=",
        "Comment=",
        "AllocNode",
        "WorkDir",
        "Command=",
        "Std",
        "Time",
        "Priority",
        "Last",
        "Scheduler",
    ];
    let words = text.split_whitespace().filter(|word| word.contains('='));
    words
        .filter(|word| !own.iter().any(|part| word.contains(part)) || word.starts_with("TimeLimit"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn both_doors_ask_for_the_same_job() {
    let Some(state) = cluster() else { return };
    let all = SlurmOptions {
        nodes: Some(2),
        cpus: Some(2),
        memory: Some("300MiB".to_owned()),
        gpus: Some(1),
        partition: Some("low".to_owned()),
        exclude: Some("n1".to_owned()),
        nodelist: Some("n[2-3]".to_owned()),
        requeue: Some(false),
        native: ["--hold", "--nice=7", "--mail-type=END", "--mail-user=ada@example.org"]
            .map(str::to_owned)
            .into(),
        ..SlurmOptions::default()
    };
    let whole = SlurmOptions {
        native: vec!["--hold".to_owned()],
        ..SlurmOptions::default()
    };
    let other_form = SlurmOptions {
        gpu_form: Some(bridgehead_slurm::GpuForm::GpusPerNode),
        native: vec!["--hold".to_owned()],
        gpus: Some(2),
        ..SlurmOptions::default()
    };
    for asked in [all, whole, other_form] {
        let run = Run::new(&state, 2, "exit 0");
        let by = |door| {
            let SlurmOptions {
                door,
                rest_url,
                token_file,
                ..
            } = options(&state, door);
            let options = SlurmOptions {
                door,
                rest_url,
                token_file,
                time: Some("7m".to_owned()),
                ..asked.clone()
            };
            let slurm = Slurm::connect_in(&options, &around(&state)).unwrap();
            let job = slurm.submit(&slurm.render(&run.request).unwrap()).unwrap();
            let words = shown(&state, &job);
            slurm.cancel(&job).unwrap();
            words
        };
        let words = by(DoorKind::Cli);
        assert!(words.iter().any(|word| word == "TimeLimit=00:07:00"), "{words:?}");
        assert_eq!(words, by(DoorKind::Rest));
    }
}

#[test]
fn an_array_is_one_job_with_elements() {
    by_both_doors(|state, _, options| {
        let options = SlurmOptions {
            array: Some("3".to_owned()),
            ..options.clone()
        };
        let program = "[ $1 = node ] && touch \"$(dirname \"$0\")/element.$SLURM_ARRAY_TASK_ID.$SLURM_NODEID\"";
        let run = Run::new(state, 6, program);
        to_its_end(state, &options, &run);
        for element in 0..3 {
            for node in 0..2 {
                let file = run.request.run_dir.join(format!("element.{element}.{node}"));
                assert!(file.exists(), "{}", file.display());
            }
        }
    });
}

#[test]
fn a_job_is_found_by_its_key_and_tells_its_end() {
    by_both_doors(|state, slurm, _| {
        let run = Run::new(state, 1, "exec sleep 600");
        assert_eq!(slurm.find(&run.request.key()).unwrap(), None);
        let job = slurm.submit(&slurm.render(&run.request).unwrap()).unwrap();
        assert_eq!(slurm.find(&run.request.key()).unwrap(), Some(job.clone()));
        until(slurm, &job, JobState::Running);
        let end = slurm.job_end(&job).unwrap().expect("a limit was asked for");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!((now + 60..now + 660).contains(&end), "{end} is ten minutes after {now}");
        slurm.cancel(&job).unwrap();
        until(slurm, &job, JobState::Ended);
        let report = slurm.observe(&[job]).unwrap().remove(0);
        assert_eq!(report.word, "CANCELLED");
        assert!(report.reason.contains("resume"), "{report:?}");
    });
}

#[test]
fn a_job_waits_for_another_and_can_be_made_to_wait_for_a_third() {
    by_both_doors(|state, slurm, _| {
        let submit = |request: &LaunchRequest| slurm.submit(&slurm.render(request).unwrap()).unwrap();
        let (first, second) = (
            Run::new(state, 1, "exec sleep 600"),
            Run::new(state, 1, "exec sleep 600"),
        );
        let (one, two) = (submit(&first.request), submit(&second.request));
        let mut third = Run::new(state, 1, "exec sleep 600");
        third.request.after = vec![one.clone()];
        let last = submit(&third.request);
        let report = || slurm.observe(std::slice::from_ref(&last)).unwrap().remove(0);
        wait_for("the reason", || report().reason.contains("another job"));
        slurm.rechain(&last, std::slice::from_ref(&two)).unwrap();
        slurm.cancel(&one).unwrap();
        until(slurm, &one, JobState::Ended);
        assert_eq!(report().state, JobState::Pending, "it waits for the second now");
        slurm.cancel(&two).unwrap();
        until(slurm, &last, JobState::Running);
        slurm.cancel(&last).unwrap();
        // Three jobs and one that is none, with one question.
        let jobs = [one, two, last, JobRef("999999".to_owned())];
        let seen = slurm.observe(&jobs).unwrap();
        assert_eq!(seen[0].state, JobState::Ended);
        assert_eq!(seen[3].state, JobState::Unknown);
    });
}

#[test]
fn what_can_never_start_is_refused_with_the_way_out_and_leaves_nothing() {
    by_both_doors(|state, slurm, options| {
        let run = Run::new(state, 1, "exec sleep 600");
        let wrong = SlurmOptions {
            partition: Some("nope".to_owned()),
            ..options.clone()
        };
        let other = Slurm::connect_in(&wrong, &around(state)).unwrap();
        let error = other
            .submit(&other.render(&run.request).unwrap())
            .unwrap_err()
            .to_string();
        assert!(error.contains("nope") && error.contains("main"), "{error}");
        let big = LaunchRequest {
            agents: 99,
            ..run.request.clone()
        };
        let error = slurm.submit(&slurm.render(&big).unwrap()).unwrap_err().to_string();
        assert!(error.contains("99 nodes"), "{error}");
        assert_eq!(slurm.find(&run.request.key()).unwrap(), None, "nothing was submitted");
    });
}

#[test]
fn a_plan_is_made_on_what_the_cluster_has() {
    by_both_doors(|_, slurm, options| {
        let profile = slurm.profile().unwrap();
        assert_eq!((profile.nodes.len(), profile.nodes[0].workers), (1, 1));
        assert_eq!(profile.nodes[0].resources.memory, 100 << 20);
        let whole = SlurmOptions {
            cpus: None,
            memory_per_cpu: None,
            nodes: Some(3),
            gpus: Some(1),
            ..options.clone()
        };
        let state = cluster().unwrap();
        let profile = Slurm::connect_in(&whole, &around(&state)).unwrap().profile().unwrap();
        assert_eq!(profile.nodes.len(), 3);
        let node = &profile.nodes[2].resources;
        assert_eq!((node.cpu_millis, node.memory, node.gpus), (8000, 16_000 << 20, 1));
    });
}

#[test]
fn a_bad_token_is_denied_with_the_way_out() {
    let Some(state) = cluster() else { return };
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "eyJhbGciOiJIUzI1NiJ9.e30.bad").unwrap();
    let options = SlurmOptions {
        token_file: Some(file.path().to_owned()),
        ..options(&state, DoorKind::Rest)
    };
    let error = Slurm::connect_in(&options, &around(&state)).unwrap_err();
    assert!(
        matches!(error, bridgehead_backend::BackendError::Denied { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("scontrol token"), "{error}");
}

#[test]
fn a_token_is_made_where_none_is_given_and_a_socket_may_need_none() {
    let Some(state) = cluster() else { return };
    let url = |name: &str| format!("unix:{}/rest/{name}.sock", state.display());
    for socket in ["slurmrestd", "slurmrestd-local"] {
        let options = SlurmOptions {
            token_file: None,
            rest_url: Some(url(socket)),
            native: vec!["--hold".to_owned()],
            ..options(&state, DoorKind::Rest)
        };
        let slurm = Slurm::connect_in(&options, &around(&state)).unwrap();
        let run = Run::new(&state, 1, "exit 0");
        let job = slurm.submit(&slurm.render(&run.request).unwrap()).unwrap();
        assert_eq!(slurm.find(&run.request.key()).unwrap(), Some(job.clone()));
        slurm.cancel(&job).unwrap();
        assert!(!format!("{slurm:?}").contains("eyJ"), "a token is shown");
    }
}

#[test]
fn a_job_that_slurm_has_forgotten_is_told_by_accounting() {
    let Some(state) = cluster() else { return };
    if std::env::var_os("TESTSLURM_FORGETS").is_none() {
        println!(
            "skipped: TESTSLURM_FORGETS does not say that the cluster has accounting and MinJobAge=2 (`up --accounting`)"
        );
        return;
    }
    by_both_doors(|_, slurm, _| {
        let run = Run::new(&state, 1, "exit 3");
        let job = slurm.submit(&slurm.render(&run.request).unwrap()).unwrap();
        until(slurm, &job, JobState::Ended);
        wait_for("forgetting", || slurm.find(&run.request.key()).unwrap().is_none());
        let report = slurm.observe(&[job]).unwrap().remove(0);
        assert_eq!((report.state, report.word.as_str()), (JobState::Ended, "FAILED"));
        println!("{report:?}");
    });
}
