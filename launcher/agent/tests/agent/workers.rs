//! Workers: calls reach them, their deaths are named, what waited in them goes elsewhere.

use crate::harness::{Head, Wish, call, check, shell};
use bridgehead_spec::{Digest, Resources};
use bridgehead_wire::{
    AgentToHead, Amounts, CancelTasks, FailureCause, Fetch, ObjectRef, Outcome, Persist, PutFunction, Shutdown,
    TaskOutcome, Value,
};
use bytes::Bytes;

fn run(case: impl AsyncFnOnce(&mut Head)) {
    check(Wish::default(), case);
}

fn one_core(case: impl AsyncFnOnce(&mut Head)) {
    let wish = Wish {
        resources: Resources::default(),
        ..Wish::default()
    };
    check(wish, case);
}

#[test]
fn many_calls_all_end_once_with_their_own_values() {
    run(async |head| {
        head.function(1, "echo");
        for task in 0..500 {
            head.send(call(task, 1, &format!("value {task}")));
        }
        for task in 0..500 {
            assert_eq!(head.text(task).await, format!("value {task}"));
        }
    });
}

#[test]
fn a_function_that_did_not_travel_is_read_from_the_run_folder() {
    run(async |head| {
        let digest = Digest::of(b"echo");
        let folder = bridgehead_spec::RunFolder::new(head.dir.path().join("run"));
        std::fs::write(folder.blob(&digest), "echo").expect("a blob");
        let put = |index, digest: Digest| PutFunction {
            index,
            digest: Bytes::copy_from_slice(&digest.0),
            name: "f".to_owned(),
            code: Bytes::new(),
        };
        head.send(put(1, digest));
        head.send(call(1, 1, "read"));
        assert_eq!(head.text(1).await, "read");
        let damaged = Digest::of(b"other");
        std::fs::write(folder.blob(&damaged), "echo").expect("a blob");
        head.send(put(2, damaged));
        head.send(call(2, 2, ""));
        let failure = head.failure(2).await;
        assert_eq!(failure.kind, "unknown-function");
        assert!(failure.message.contains("damaged"), "{}", failure.message);
    });
}

#[test]
fn a_worker_that_dies_is_named_and_the_others_go_on() {
    one_core(async |head| {
        for (index, code) in ["echo", "exit", "abort", "kill", "nonsense"].iter().enumerate() {
            head.function(u32::try_from(index).expect("few"), code);
        }
        head.send(call(1, 1, "3"));
        head.send(call(2, 2, ""));
        head.send(call(3, 3, ""));
        head.send(call(4, 4, ""));
        head.send(call(5, 0, "still here"));
        let exit = head.failure(1).await;
        assert_eq!((exit.kind.as_str(), exit.exit_code), ("worker-died", Some(3)));
        let abort = head.failure(2).await;
        assert_eq!((abort.signal, abort.cause()), (Some(6), FailureCause::User));
        assert!(abort.message.contains("SIGABRT") && abort.message.contains("about to abort"));
        let kill = head.failure(3).await;
        assert_eq!(
            (kill.kind.as_str(), kill.cause()),
            ("worker-killed", FailureCause::LostNode)
        );
        assert_eq!(head.failure(4).await.signal, Some(9));
        assert_eq!(head.text(5).await, "still here");
    });
}

#[test]
fn calls_that_waited_in_a_worker_that_is_ended_run_elsewhere() {
    one_core(async |head| {
        head.function(1, "hang");
        head.function(2, "echo");
        head.send(call(1, 1, ""));
        for task in 2..20 {
            head.send(call(task, 2, "ran"));
        }
        head.started(1).await;
        let reason = "enough".to_owned();
        head.send(CancelTasks {
            tasks: vec![1, 7],
            all: false,
            reason,
            from_worker: None,
        });
        assert_eq!(head.cancelled(1).await, "enough");
        assert_eq!(head.cancelled(7).await, "enough");
        for task in (2..20).filter(|&task| task != 7) {
            assert_eq!(head.text(task).await, "ran");
        }
    });
}

#[test]
fn a_call_over_its_limit_is_ended() {
    one_core(async |head| {
        head.function(1, "hang");
        head.function(2, "echo");
        let mut slow = call(1, 1, "");
        slow.timeout_ms = 100;
        head.send(slow);
        head.send(call(2, 2, "next"));
        let failure = head.failure(1).await;
        assert_eq!(
            (failure.kind.as_str(), failure.cause()),
            ("timeout", FailureCause::Walltime)
        );
        assert_eq!(head.text(2).await, "next");
    });
}

#[test]
fn a_long_call_does_not_hold_up_short_ones() {
    run(async |head| {
        head.function(1, "until");
        head.function(2, "echo");
        let file = head.work().join("go");
        head.send(call(0, 1, &file.display().to_string()));
        for task in 1..40 {
            head.send(call(task, 2, "short"));
        }
        for task in 1..40 {
            assert_eq!(head.text(task).await, "short");
        }
        std::fs::write(&file, "").expect("a file");
        assert_eq!(head.text(0).await, "there");
    });
}

#[test]
fn an_interpreter_that_does_not_come_up_fails_the_calls_with_its_words() {
    let wish = Wish {
        python: Some("/bin/false".to_owned()),
        ..Wish::default()
    };
    check(wish, async |head| {
        head.function(1, "echo");
        head.send(call(1, 1, ""));
        head.send(shell(2, "echo programs run all the same"));
        let failure = head.failure(1).await;
        assert_eq!(
            (failure.kind.as_str(), failure.cause()),
            ("no-worker", FailureCause::System)
        );
        assert!(failure.message.contains("exit code 1"), "{}", failure.message);
        assert_eq!(head.program(2).await.exit_code, 0);
    });
    let wish = Wish {
        python: Some("/no/such/python".to_owned()),
        ..Wish::default()
    };
    check(wish, async |head| {
        head.function(1, "echo");
        head.send(call(1, 1, ""));
        assert!(head.failure(1).await.message.contains("/no/such/python"));
    });
}

#[test]
fn a_task_that_waits_for_its_own_tasks_lends_its_core() {
    one_core(async |head| {
        head.function(1, "submit");
        head.function(2, "echo");
        head.send(call(1, 1, "inner"));
        let submit = head
            .wait(|message| match message {
                AgentToHead::Submit(submit) => Some(submit.clone()),
                _ => None,
            })
            .await;
        assert_eq!(submit.parent, Some(1));
        let functions = head.others.iter().find_map(|message| match message {
            AgentToHead::Functions(functions) => Some(functions.functions[0].clone()),
            _ => None,
        });
        assert_eq!(functions.expect("the function came first").index, submit.function);
        head.send(call(2, 2, "inner")); // The only core is lent to it.
        assert_eq!(head.text(2).await, "inner");
        head.send(TaskOutcome {
            token: submit.token,
            task: 2,
            outcome: Some(Outcome::value(Value::inline(Bytes::from_static(b"inner")))),
            for_worker: submit.from_worker,
            ..TaskOutcome::default()
        });
        assert!(head.text(1).await.contains("inner"));
        head.send(call(3, 2, "after"));
        assert_eq!(head.text(3).await, "after");
    });
}

#[test]
fn workers_know_how_many_threads_and_which_devices_are_theirs() {
    let resources = Resources {
        cpu_millis: 2000,
        gpus: 1,
        ..Resources::default()
    };
    let wish = Wish {
        resources,
        ..Wish::default()
    };
    check(wish, async |head| {
        head.function(1, "variable");
        head.function(2, "devices");
        let mut wide = call(1, 1, "OPENBLAS_NUM_THREADS");
        wide.resources = Some(Amounts {
            cpu_millis: 2000,
            ..Amounts::default()
        });
        head.send(wide);
        assert_eq!(head.text(1).await, "2");
        head.send(call(2, 1, "OF_THE_RUN"));
        assert_eq!(head.text(2).await, "yes");
        let mut gpu = call(3, 2, "");
        gpu.resources = Some(Amounts {
            cpu_millis: 1000,
            gpus: 1,
            ..Amounts::default()
        });
        head.send(gpu);
        assert_eq!(head.text(3).await, "[0]");
    });
}

#[test]
fn a_call_without_cores_runs_while_all_cores_are_busy() {
    one_core(async |head| {
        head.function(1, "until");
        head.function(2, "echo");
        let file = head.work().join("go");
        head.send(call(1, 1, &file.display().to_string()));
        head.started(1).await;
        let mut free = call(2, 2, "free");
        free.resources = Some(Amounts::default());
        head.send(free);
        assert_eq!(head.text(2).await, "free");
        std::fs::write(&file, "").expect("a file");
        assert_eq!(head.text(1).await, "there");
    });
}

#[test]
fn what_a_task_prints_is_logged_by_task_before_the_end() {
    run(async |head| {
        head.function(1, "say");
        head.send(call(9, 1, "hello"));
        assert_eq!(head.text(9).await, "said");
        let reason = "read the log".to_owned();
        head.send(Shutdown { reason, goes_on: false });
        while head.from_agent.recv().await.is_some() {} // It has ended when its side of the link is closed.
        let log = std::fs::read_to_string(head.dir.path().join("run/logs/tasks-0.jsonl")).expect("a log");
        let line: serde_json::Value = serde_json::from_str(log.trim()).expect("an object");
        assert_eq!((&line["task"], &line["text"]), (&9.into(), &"hello".into()));
    });
}

#[test]
fn objects_that_cannot_be_had_are_named_and_no_request_goes_unanswered() {
    run(async |head| {
        let far = ObjectRef::new(bridgehead_spec::ObjectId(77), 8, 3, 0, 0);
        head.function(1, "echo");
        let mut takes = call(1, 1, "");
        takes.inputs = vec![Value::stored(far.clone())];
        head.send(takes);
        let failure = head.failure(1).await;
        assert_eq!(
            (failure.kind.as_str(), failure.cause()),
            ("object-lost", FailureCause::LostNode)
        );
        assert!(failure.message.contains("o77"), "{}", failure.message);
        let object = Some(far);
        head.send(Fetch {
            token: 5,
            object: object.clone(),
            ..Fetch::default()
        });
        head.wait(|m| matches!(m, AgentToHead::Fetched(f) if f.token == 5).then_some(()))
            .await;
        let path = "../outside".to_owned();
        head.send(Persist { task: 1, object, path });
        let error = head.wait(|m| match m {
            AgentToHead::Persisted(p) => Some(p.error.clone()),
            _ => None,
        });
        assert!(error.await.contains("inside the run folder"));
    });
}

#[test]
fn a_worker_hears_when_the_allocation_ends() {
    check(Wish::default(), async |head| {
        head.function(1, "end of the allocation");
        head.send(call(1, 1, ""));
        assert_eq!(head.text(1).await, "7");
    });
}
