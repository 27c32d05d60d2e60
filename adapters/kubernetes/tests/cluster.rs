//! The client against a real cluster, where `BRIDGEHEAD_TEST_KUBECONFIG` names its ordinary user's kubeconfig
//! (`tests/clusters/kubernetes/up --with all`); skipped else, and said so. Each test has jobs of its own names, and none leaves one.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

#[path = "cluster/world.rs"]
mod world;

use bridgehead_backend::{BackendError, JobRef, JobState};
use bridgehead_kubernetes::Flavor;
use serde_json::json;
use std::io::{Read as _, Write as _};
use std::time::Duration;
use world::{Job, World, flavors, fresh, until};

#[test]
fn submitting_twice_makes_one_job() {
    let Some(world) = World::find() else { return };
    for flavor in flavors() {
        let job = Job::sleeping(&world, flavor, "twice", 1);
        let first = job.submit();
        let second = job.submit();
        assert_eq!(first, second, "{flavor:?}");
        assert_eq!(world.user.find(&job.manifest).unwrap(), Some(first.clone()));
        // After a crash between the job and its owner references the next try makes up for them.
        let secret = format!("{}-run", job.manifest.name);
        world.admin(&[
            "patch",
            "secret",
            &secret,
            "--type=merge",
            "-p",
            r#"{"metadata":{"ownerReferences":null}}"#,
        ]);
        assert_eq!(job.submit(), first);
        let uid = first.0.rsplit('/').next().unwrap();
        let owners = world.admin(&[
            "get",
            "secret",
            &secret,
            "-o",
            "jsonpath={.metadata.ownerReferences[*].uid}",
        ]);
        assert_eq!(owners, uid, "{flavor:?}");
        let ticket = world.admin(&["get", "secret", &secret, "-o", "jsonpath={.data.ticket}"]);
        assert_eq!(ticket, "c2VjcmV0", "{flavor:?}");
        job.cancel(&first);
    }
}

#[test]
fn a_job_of_the_same_name_and_another_hash_is_refused_and_untouched() {
    let Some(world) = World::find() else { return };
    let mut job = Job::sleeping(&world, Flavor::Volcano, "clash", 1);
    let first = job.submit();
    job.manifest.hash = "another".to_owned();
    job.manifest.job["metadata"]["annotations"]["bridgehead.dev/hash"] = "another".into();
    job.data
        .0
        .get_mut(&format!("{}-run", job.manifest.name))
        .unwrap()
        .insert("ticket".to_owned(), b"other".to_vec());
    let error = world.user.submit(&job.manifest, &job.data).unwrap_err();
    assert!(
        matches!(&error, BackendError::Refused { reason, .. } if reason.contains(&job.manifest.name)),
        "{error}"
    );
    assert_eq!(world.user.find(&job.manifest).unwrap(), None);
    let secret = format!("{}-run", job.manifest.name);
    assert_eq!(
        world.admin(&["get", "secret", &secret, "-o", "jsonpath={.data.ticket}"]),
        "c2VjcmV0"
    );
    job.cancel(&first);
}

#[test]
fn cancelling_leaves_nothing_and_again_is_no_error() {
    let Some(world) = World::find() else { return };
    for flavor in flavors() {
        let job = Job::sleeping(&world, flavor, "gone", 2);
        let there = job.submit();
        job.await_state(&there, JobState::Running);
        world.user.cancel(&there).unwrap();
        job.assert_nothing_left();
        world.user.cancel(&there).unwrap();
        assert_eq!(
            world.user.observe(&[there]).unwrap()[0].state,
            JobState::Unknown,
            "{flavor:?}"
        );
    }
}

#[test]
fn what_a_crashed_client_left_is_swept_by_name_and_what_runs_is_not() {
    let Some(world) = World::find() else { return };
    let job = Job::sleeping(&world, Flavor::Volcano, "sweep", 1);
    let there = job.submit();
    let names = [job.manifest.name.clone()];
    assert_eq!(world.user.sweep(&names).unwrap(), Vec::<String>::new());
    let secret = format!("{}-run", job.manifest.name);
    world.admin(&[
        "patch",
        "secret",
        &secret,
        "--type=merge",
        "-p",
        r#"{"metadata":{"ownerReferences":null}}"#,
    ]);
    world.admin(&[
        "delete",
        "jobs.batch.volcano.sh",
        &job.manifest.name,
        "--grace-period=1",
    ]);
    assert_eq!(world.user.sweep(&names).unwrap(), [format!("secrets/{secret}")]);
    job.cancel(&there);
}

#[test]
fn a_job_is_suspended_and_goes_on() {
    let Some(world) = World::find() else { return };
    for flavor in flavors() {
        let job = Job::sleeping(&world, flavor, "pause", 1);
        let there = job.submit();
        job.await_state(&there, JobState::Running);
        world.user.suspend(&there).unwrap();
        until("its pods are gone", || {
            world
                .admin(&["get", "pods", "-o", "name", "-l", &job.pods()])
                .is_empty()
        });
        let report = world.user.observe(std::slice::from_ref(&there)).unwrap().remove(0);
        assert_eq!(report.state, JobState::Pending, "{report:?}");
        assert!(report.reason.starts_with("suspended"), "{report:?}");
        world.user.suspend(&there).unwrap(); // It is as wished already.
        world.user.resume(&there).unwrap();
        job.await_state(&there, JobState::Running);
        job.cancel(&there);
    }
}

#[test]
fn a_job_that_kueue_queues_is_held_by_kueue() {
    let Some(world) = World::find() else { return };
    world.kueue_queue();
    for flavor in [Flavor::Kueue, Flavor::IndexedJob, Flavor::AppWrapper] {
        let mut job = Job::sleeping(&world, flavor, "queued", 1);
        job.manifest.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "team".into();
        job.manifest.job["spec"]["suspend"] = true.into();
        let there = job.submit();
        job.await_state(&there, JobState::Running);
        world.user.suspend(&there).unwrap();
        until("it holds nothing", || {
            world.user.observe(std::slice::from_ref(&there)).unwrap()[0].state == JobState::Pending
        });
        let why = world.user.why(&there).unwrap();
        assert!(why[0].starts_with("suspended"), "{flavor:?}: {why:?}");
        world.user.resume(&there).unwrap();
        job.await_state(&there, JobState::Running);
        job.cancel(&there);
        // A queue that is not there is named.
        let mut lost = Job::sleeping(&world, flavor, "lost", 1);
        lost.manifest.job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "nowhere".into();
        lost.manifest.job["spec"]["suspend"] = true.into();
        let there = lost.submit();
        until("the queue is named", || {
            world.user.why(&there).unwrap().concat().contains("no queue nowhere")
        });
        lost.cancel(&there);
    }
}

#[test]
fn a_job_is_known_by_its_uid_and_many_are_observed_at_once() {
    let Some(world) = World::find() else { return };
    let job = Job::sleeping(&world, Flavor::Volcano, "uid", 1);
    let there = job.submit();
    let (kind, _) = there.0.rsplit_once('/').unwrap();
    let other = JobRef(format!("{kind}/00000000-0000-0000-0000-000000000000"));
    job.await_state(&there, JobState::Running);
    let reports = world
        .user
        .observe(&[other.clone(), there.clone(), JobRef("12".to_owned())])
        .unwrap();
    let states: Vec<JobState> = reports.iter().map(|report| report.state).collect();
    assert_eq!(states, [JobState::Unknown, JobState::Running, JobState::Unknown]);
    // Another job of the name is not ours to end.
    world.user.cancel(&other).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(
        world.user.observe(std::slice::from_ref(&there)).unwrap()[0].state,
        JobState::Running
    );
    job.cancel(&there);
}

#[test]
fn a_gang_that_asks_for_too_much_binds_no_pod_and_is_told_what_lacks() {
    let Some(world) = World::find() else { return };
    // More than the cluster has, and a pod that no node could take.
    for (nodes, cpu) in [(3, "64"), (1, "64")] {
        let mut job = Job::sleeping(&world, Flavor::Volcano, "much", nodes);
        job.ask("cpu", cpu);
        let there = job.submit();
        until("it is told", || {
            world.user.observe(std::slice::from_ref(&there)).unwrap()[0]
                .reason
                .contains(&format!("{nodes} x"))
        });
        let reason = world
            .user
            .observe(std::slice::from_ref(&there))
            .unwrap()
            .remove(0)
            .reason;
        assert!(reason.contains("64 cores") && reason.contains("--cpus"), "{reason}");
        assert!(
            reason.contains("no right to get queues.scheduling.volcano.sh"),
            "{reason}"
        );
        let bound = world.admin(&[
            "get",
            "pods",
            "-l",
            &job.pods(),
            "-o",
            "jsonpath={.items[*].spec.nodeName}",
        ]);
        assert_eq!(bound, "");
        job.cancel(&there);
    }
    let mut job = Job::sleeping(&world, Flavor::IndexedJob, "much", 2);
    job.ask("nvidia.com/gpu", "64");
    let there = job.submit();
    until("the resource is named", || {
        let reason = world
            .user
            .observe(std::slice::from_ref(&there))
            .unwrap()
            .remove(0)
            .reason;
        reason.contains("2 x 64 nvidia.com/gpu") && reason.contains("--gpus")
    });
    job.cancel(&there);
}

#[test]
fn an_image_that_is_nowhere_is_named() {
    let Some(world) = World::find() else { return };
    let mut job = Job::sleeping(&world, Flavor::Volcano, "image", 1);
    job.container()["image"] = "localhost/none:7".into();
    let there = job.submit();
    until("the image is named", || {
        let reason = world
            .user
            .observe(std::slice::from_ref(&there))
            .unwrap()
            .remove(0)
            .reason;
        reason.contains("localhost/none:7") && reason.contains("--image")
    });
    job.cancel(&there);
}

#[test]
fn a_closed_or_missing_queue_refuses_the_job_and_nothing_is_left() {
    let Some(world) = World::find() else { return };
    let queue = json!({"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "metadata": {"name": "test-closed"},
        "spec": {"weight": 1}});
    world.apply(&queue);
    world.close_queue("test-closed");
    for (queue, word) in [("test-closed", "Open"), ("test-nowhere", "not found")] {
        let mut job = Job::sleeping(&world, Flavor::Volcano, "closed", 1);
        job.manifest.job["spec"]["queue"] = queue.into();
        let error = world.user.submit(&job.manifest, &job.data).unwrap_err();
        let BackendError::Refused { reason, .. } = &error else {
            panic!("{error:?}")
        };
        assert!(
            reason.contains(queue) && reason.contains(word) && reason.contains("--queue"),
            "{reason}"
        );
        job.assert_nothing_left();
    }
    world.admin(&["delete", "queues.scheduling.volcano.sh", "test-closed", "--wait=false"]);
}

#[test]
fn a_queue_is_seen_by_who_may_see_it() {
    let (Some(world), Some(lead)) = (World::find(), World::of("lead")) else {
        return;
    };
    assert_eq!(lead.check_rights().unwrap(), Vec::<String>::new());
    let lost = world.user.check_rights().unwrap();
    assert!(
        lost.len() == 1 && lost[0].contains("queues.scheduling.volcano.sh"),
        "{lost:?}"
    );
}

#[test]
fn rights_that_are_missing_are_all_named_before_anything_is_made() {
    let (Some(world), Some(guest)) = (World::find(), World::of("guest")) else {
        return;
    };
    let job = Job::sleeping(&world, Flavor::Volcano, "rights", 1);
    let error = guest.submit(&job.manifest, &job.data).unwrap_err();
    let BackendError::Denied { reason, .. } = &error else {
        panic!("{error:?}")
    };
    for words in [
        "delete jobs.batch.volcano.sh",
        "create, get, patch, delete secrets",
        "get, list, watch pods",
        "role.yaml",
    ] {
        assert!(reason.contains(words), "{reason}");
    }
    job.assert_nothing_left();
}

#[test]
fn a_quota_that_has_no_room_is_said() {
    let Some(world) = World::find() else { return };
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "test-none", "namespace": "hpc"},
        "spec": {"hard": {"count/jobs.batch": "0"}}});
    world.apply(&quota);
    let job = Job::sleeping(&world, Flavor::IndexedJob, "quota", 1);
    let used = || world.admin(&["get", "resourcequota", "test-none", "-o", "jsonpath={.status.hard}"]);
    until("the quota counts", || !used().is_empty());
    let error = world.user.submit(&job.manifest, &job.data).unwrap_err();
    world.admin(&["delete", "resourcequota", "test-none"]);
    assert!(
        matches!(&error, BackendError::Refused { reason, .. } if reason.contains("quota has room")),
        "{error}"
    );
    job.assert_nothing_left();
}

#[test]
fn a_port_of_the_first_pod_is_reached_without_a_listening_socket() {
    let Some(world) = World::find() else { return };
    for flavor in [Flavor::Volcano, Flavor::IndexedJob] {
        let mut job = Job::sleeping(&world, flavor, "port", 2);
        job.run("cd /tmp && echo hello > note && exec python3 -m http.server 7641");
        let there = job.submit();
        let error = fresh(&world).forward(&there, 7641).map(drop);
        assert!(
            matches!(&error, Err(BackendError::Refused { .. }) | Ok(())),
            "{error:?}"
        ); // It may run by now.
        job.await_state(&there, JobState::Running);
        let mut got = String::new();
        until("the server answers", || {
            let mut stream = world.user.forward(&there, 7641).unwrap();
            let sent = stream.write_all(b"GET /note HTTP/1.0\r\n\r\n");
            got.clear();
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            sent.is_ok() && stream.read_to_string(&mut got).is_ok() && !got.is_empty()
        });
        assert!(got.contains("200 OK") && got.ends_with("hello\n"), "{got}");
        // A port on which nothing listens ends the connection, and why is told.
        let mut stream = world.user.forward(&there, 7642).unwrap();
        let _ = stream.write_all(b"x"); // It may be gone by now.
        got.clear();
        let _ = stream.read_to_string(&mut got);
        assert_eq!(got, "");
        until("the reason is told", || {
            world.user.forward_broke().is_some_and(|words| words.contains("7642"))
        });
        job.cancel(&there);
        let error = world.user.forward(&there, 7641).unwrap_err();
        assert!(
            matches!(&error, BackendError::Refused { reason, .. } if reason.contains("no pod")),
            "{error}"
        );
    }
}

#[test]
fn what_pods_print_is_read_and_followed_to_the_end() {
    let Some(world) = World::find() else { return };
    let mut job = Job::sleeping(&world, Flavor::IndexedJob, "logs", 2);
    job.run("for i in 1 2 3 4 5; do echo line $i; sleep 0.3; done; printf last");
    let there = job.submit();
    let lines = world.user.follow_logs(&there, true).unwrap();
    let mut by_rank = std::collections::BTreeMap::<_, Vec<String>>::new();
    for line in lines {
        let line = line.unwrap();
        by_rank.entry(line.rank).or_default().push(line.text);
    }
    let whole: Vec<String> = (1..=5)
        .map(|i| format!("line {i}"))
        .chain(["last".to_owned()])
        .collect();
    assert_eq!(
        by_rank.into_iter().collect::<Vec<_>>(),
        [(Some(0), whole.clone()), (Some(1), whole)]
    );
    job.await_state(&there, JobState::Ended);
    let logs = world.user.pod_logs(&there, false).unwrap();
    assert_eq!(logs.iter().map(|log| log.rank).collect::<Vec<_>>(), [Some(0)]);
    assert!(logs[0].text.starts_with("line 1\n"), "{logs:?}");
    assert_eq!(world.user.pod_logs(&there, true).unwrap().len(), 2);
    job.cancel(&there);
}

#[test]
fn how_pods_ended_is_told() {
    let Some(world) = World::find() else { return };
    let mut job = Job::sleeping(&world, Flavor::Volcano, "end", 2);
    job.run("printf '{\"rank\": 4, \"end\": \"the solver diverged\"}' > /dev/termination-log; exit 3");
    let there = job.submit();
    job.await_state(&there, JobState::Ended);
    let report = world.user.observe(std::slice::from_ref(&there)).unwrap().remove(0);
    assert!(
        report.reason.contains("rank 4") && report.reason.contains("the solver diverged"),
        "{report:?}"
    );
    job.cancel(&there);
}
