//! Programs: their results, and the words for each way in which they can go wrong.

use crate::harness::{Head, Wish, check, program, shell};
use bridgehead_spec::Resources;
use bridgehead_wire::{Amounts, CancelTasks, FailureCause, Pair, TaskCall};

fn with_output(mut call: TaskCall, name: &str, path: &str) -> TaskCall {
    let outputs = &mut call.program.as_mut().expect("a program").outputs;
    outputs.push(Pair {
        key: name.to_owned(),
        value: path.to_owned(),
    });
    call
}

fn run(case: impl AsyncFnOnce(&mut Head)) {
    check(Wish::default(), case);
}

#[test]
fn a_program_gives_its_output_its_files_and_its_exit_code() {
    run(async |head| {
        let line = "echo out; echo err >&2; echo $OF_THE_RUN $BRIDGEHEAD_TASK > made.txt";
        head.send(with_output(shell(1, line), "made", "made.txt"));
        let result = head.program(1).await;
        assert_eq!((&result.stdout[..], &result.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!((result.exit_code, result.dropped), (0, 0));
        let file = head.work().join("made.txt");
        assert_eq!(result.outputs[0].value, file.display().to_string());
        assert_eq!(std::fs::read_to_string(file).expect("the file"), "yes 1\n");
    });
}

#[test]
fn a_program_runs_in_its_folder_with_its_variables() {
    run(async |head| {
        let mut call = shell(1, "pwd; echo $MINE $OF_THE_RUN");
        let program = call.program.as_mut().expect("a program");
        program.cwd = "/usr".to_owned();
        program.env = [("MINE", "1"), ("OF_THE_RUN", "no")]
            .map(|(key, value)| Pair {
                key: key.to_owned(),
                value: value.to_owned(),
            })
            .to_vec();
        head.send(call);
        assert_eq!(&head.program(1).await.stdout[..], b"/usr\n1 no\n");
    });
}

#[test]
fn a_failing_program_is_named_with_its_code_and_its_last_words() {
    run(async |head| {
        head.send(shell(1, "echo because >&2; exit 3"));
        let failure = head.failure(1).await;
        assert_eq!((failure.kind.as_str(), failure.exit_code), ("exit-code", Some(3)));
        assert_eq!(failure.cause(), FailureCause::User);
        assert!(failure.message.contains("because"), "{}", failure.message);
    });
}

#[test]
fn a_missing_output_is_named() {
    run(async |head| {
        head.send(with_output(program(1, &["true"]), "field", "field.npy"));
        let failure = head.failure(1).await;
        assert_eq!(failure.kind, "missing-output");
        assert!(failure.message.contains("field.npy"), "{}", failure.message);
    });
}

#[test]
fn a_missing_program_is_named_with_the_path() {
    run(async |head| {
        head.send(program(1, &["no-such-program"]));
        let failure = head.failure(1).await;
        assert_eq!(failure.kind, "not-found");
        assert!(failure.message.contains("no-such-program") && failure.message.contains("PATH"));
        head.send(program(2, &["/no/such/program"]));
        assert_eq!(head.failure(2).await.kind, "not-found");
        head.send(program(3, &["/etc/passwd"]));
        assert_eq!(head.failure(3).await.kind, "not-executable");
        let mut call = program(4, &["true"]);
        call.program.as_mut().expect("a program").cwd = "/no/such/folder".to_owned();
        head.send(call);
        assert_eq!(head.failure(4).await.kind, "no-folder");
    });
}

#[test]
fn a_signal_is_named() {
    run(async |head| {
        head.send(shell(1, "kill -SEGV $$"));
        let failure = head.failure(1).await;
        assert_eq!((failure.kind.as_str(), failure.signal), ("signal", Some(11)));
        assert!(failure.message.contains("SIGSEGV"), "{}", failure.message);
    });
}

#[test]
fn a_program_over_its_limit_is_ended_with_its_children() {
    run(async |head| {
        let mut call = shell(1, "sleep 1000 & sleep 1000; true");
        call.timeout_ms = 100;
        head.send(call);
        let failure = head.failure(1).await;
        assert_eq!(failure.kind, "timeout");
        assert_eq!(failure.cause(), FailureCause::Walltime);
    });
}

#[test]
fn programs_are_cancelled_while_they_run_and_while_they_wait() {
    run(async |head| {
        for task in 1..=6 {
            head.send(program(task, &["sleep", "1000"]));
        }
        head.started(1).await;
        let reason = "enough".to_owned();
        let (tasks, all) = ((1..=5).collect(), false);
        head.send(CancelTasks {
            tasks,
            all,
            reason,
            from_worker: None,
        });
        for task in 1..=5 {
            assert_eq!(head.cancelled(task).await, "enough");
        }
        let reason = "all".to_owned();
        head.send(CancelTasks {
            tasks: Vec::new(),
            all: true,
            reason,
            from_worker: None,
        });
        assert_eq!(head.cancelled(6).await, "all");
    });
}

#[test]
fn many_programs_all_end_once() {
    run(async |head| {
        for task in 0..400 {
            head.send(program(task, &["true"]));
        }
        for task in 0..400 {
            assert_eq!(head.program(task).await.exit_code, 0);
        }
    });
}

#[test]
fn no_more_programs_run_than_there_are_cores() {
    run(async |head| {
        // Each leaves a file while it runs and counts those of all.
        let line = "touch run.$$; ls -d run.* | wc -l; sleep 0.02; rm run.$$";
        for task in 0..12 {
            head.send(shell(task, line));
        }
        for task in 0..12 {
            let out = head.program(task).await.stdout;
            let count: u32 = String::from_utf8_lossy(&out).trim().parse().expect("a number");
            assert!(count <= 2, "{count} at a time");
        }
    });
}

#[test]
fn the_middle_of_a_long_output_is_counted_not_kept() {
    run(async |head| {
        head.send(shell(
            1,
            "echo first; head -c 3000000 /dev/zero | tr '\\0' x; echo last",
        ));
        let result = head.program(1).await;
        assert!(result.stdout.starts_with(b"first\n") && result.stdout.ends_with(b"xlast\n"));
        assert!(result.dropped > 1_900_000 && result.stdout.len() < 1_200_000);
    });
}

#[test]
fn a_child_that_keeps_the_streams_open_is_not_waited_for() {
    run(async |head| {
        head.send(shell(1, "setsid sleep 1000 & echo started"));
        assert_eq!(&head.program(1).await.stdout[..], b"started\n");
    });
}

#[test]
fn each_program_sees_the_devices_that_are_its_own() {
    let resources = Resources {
        cpu_millis: 2000,
        gpus: 2,
        ..Resources::default()
    };
    let wish = Wish {
        resources,
        ..Wish::default()
    };
    check(wish, async |head| {
        let line = "echo $CUDA_VISIBLE_DEVICES; touch here.$$; until [ $(ls here.* | wc -l) = 2 ]; do :; done";
        for task in 1..=2 {
            let mut call = shell(task, line);
            call.resources = Some(Amounts {
                cpu_millis: 1000,
                gpus: 1,
                ..Amounts::default()
            });
            head.send(call);
        }
        let mut seen = [head.program(1).await.stdout, head.program(2).await.stdout];
        seen.sort();
        assert_eq!(seen, [&b"0\n"[..], b"1\n"]);
        head.send(shell(3, "echo none:$CUDA_VISIBLE_DEVICES"));
        assert_eq!(&head.program(3).await.stdout[..], b"none:\n");
    });
}

#[test]
fn what_a_program_prints_is_logged_by_task() {
    run(async |head| {
        head.send(shell(5, "echo hello; echo there >&2"));
        head.program(5).await;
        let log = head.dir.path().join("run/logs/tasks-0.jsonl");
        let has = |text: &str| {
            let lines = std::fs::read_to_string(&log).unwrap_or_default();
            lines.lines().any(|line| {
                let line: serde_json::Value = serde_json::from_str(line).expect("a line is an object");
                line["text"] == text && line["task"] == 5 && line["attempt"] == 1
            })
        };
        while !(has("hello\n") && has("there\n")) {
            tokio::task::yield_now().await; // The log is handed over a moment later.
        }
    });
}

#[test]
fn a_schedulers_warning_ends_no_program_that_did_not_ask_for_it() {
    run(async |head| {
        head.send(shell(1, "kill -USR1 $$; echo alive"));
        assert_eq!(&head.program(1).await.stdout[..], b"alive\n");
        let asks = "import os, signal as s; s.signal(10, lambda *_: print('asked')); os.kill(os.getpid(), 10)";
        head.send(program(2, &["python3", "-c", asks]));
        assert_eq!(&head.program(2).await.stdout[..], b"asked\n");
    });
}
