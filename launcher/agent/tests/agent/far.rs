//! A run folder that is elsewhere: what is needed is brought before anybody hears of it, what is kept is sent before the head hears.

use crate::harness::{Head, Wish, call, check};
use crate::objects::put;
use bridgehead_agent::FarFolder;
use bridgehead_spec::Digest;
use bridgehead_wire::{
    AgentToHead, CancelTasks, FailureCause, FileRef, Outcome, Persist, Persisted, PutFunction, TaskCall, TaskOutcome,
    Value,
};
use bytes::Bytes;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock};

/// A folder that stands in for the head's.
struct Fake {
    far: tempfile::TempDir,
    here: OnceLock<PathBuf>,
    /// Whether it answers.
    open: Mutex<bool>,
    changed: Condvar,
}

impl Fake {
    fn new() -> Arc<Self> {
        let far = tempfile::TempDir::new().expect("a folder");
        for folder in ["results", "blobs"] {
            std::fs::create_dir(far.path().join(folder)).expect("a folder");
        }
        Arc::new(Self {
            far,
            here: OnceLock::new(),
            open: Mutex::new(true),
            changed: Condvar::new(),
        })
    }

    fn write(&self, name: &str, text: &[u8]) {
        std::fs::write(self.far.path().join(name), text).expect("a file");
    }

    fn answers(&self, open: bool) {
        *self.open.lock().expect("no panic") = open;
        self.changed.notify_all();
    }

    fn copy(&self, from: &Path, to: &Path) -> io::Result<()> {
        let open = self.open.lock().expect("no panic");
        drop(self.changed.wait_while(open, |open| !*open).expect("no panic"));
        std::fs::create_dir_all(to.parent().expect("a folder"))?;
        std::fs::copy(from, to).map(drop)
    }
}

impl FarFolder for Fake {
    fn bring(&self, relative: &Path) -> io::Result<()> {
        let here = self.here.get().expect("the case has begun");
        self.copy(&self.far.path().join(relative), &here.join(relative))
    }

    fn send(&self, relative: &Path) -> io::Result<()> {
        let here = self.here.get().expect("the case has begun");
        self.copy(&here.join(relative), &self.far.path().join(relative))
    }
}

fn elsewhere(fake: &Arc<Fake>, case: impl AsyncFnOnce(&mut Head)) {
    let wish = Wish {
        far: Some(fake.clone()),
        ..Wish::default()
    };
    check(wish, async |head| {
        fake.here.set(head.dir.path().join("run")).expect("one case");
        case(head).await;
        fake.answers(true); // Its threads can end.
    });
}

fn file(path: &str) -> Value {
    Value::file(FileRef {
        path: path.to_owned(),
        len: 5,
    })
}

fn with_file(task: u64, path: &str) -> TaskCall {
    TaskCall {
        args: Some(file(path)),
        ..call(task, 1, "")
    }
}

async fn persisted(head: &mut Head, path: &str) -> Persisted {
    let object = Some(put(head).await);
    let path = path.to_owned();
    head.send(Persist { task: 1, object, path });
    head.wait(|message| match message {
        AgentToHead::Persisted(persisted) => Some(persisted.clone()),
        _ => None,
    })
    .await
}

#[test]
fn a_result_is_in_the_head_s_folder_before_the_head_hears_of_it() {
    let fake = Fake::new();
    elsewhere(&fake, async |head| {
        let told = persisted(head, "results/1.bhv").await;
        assert_eq!((told.error.as_str(), told.len), ("", 1 << 20));
        let there = std::fs::read(fake.far.path().join("results/1.bhv")).expect("it was sent");
        assert!(there == vec![7; 1 << 20]);
    });
}

#[test]
fn a_result_that_the_head_s_folder_does_not_take_is_not_persisted() {
    let fake = Fake::new();
    std::fs::create_dir(fake.far.path().join("results/1.bhv")).expect("something in the way");
    elsewhere(&fake, async |head| {
        let told = persisted(head, "results/1.bhv").await;
        assert!(
            told.error.contains("could not be sent") && told.len == 0,
            "{}",
            told.error
        );
    });
}

#[test]
fn a_call_begins_once_its_files_are_here_and_others_do_not_wait_for_it() {
    let fake = Fake::new();
    fake.write("blobs/args", b"value");
    fake.answers(false);
    elsewhere(&fake, async |head| {
        head.function(1, "echo");
        head.send(with_file(1, "blobs/args"));
        let mut input = call(2, 1, "arg");
        input.inputs = vec![file("blobs/args")];
        head.send(input);
        head.send(call(3, 1, "other"));
        assert_eq!(head.text(3).await, "other");
        assert!(!head.dir.path().join("run/blobs/args").exists());
        fake.answers(true);
        assert_eq!(head.text(1).await, "value");
        assert_eq!(head.text(2).await, "arg");
        head.send(with_file(4, "blobs/args")); // It is here.
        assert_eq!(head.text(4).await, "value");
    });
}

#[test]
fn a_call_whose_file_cannot_be_had_fails_with_its_name_and_burns_no_try_of_the_user_s() {
    let fake = Fake::new();
    elsewhere(&fake, async |head| {
        head.function(1, "echo");
        head.send(with_file(1, "results/none"));
        let failure = head.failure(1).await;
        assert_eq!(
            (failure.kind.as_str(), failure.cause()),
            ("object-lost", FailureCause::LostNode)
        );
        assert!(failure.message.contains("results/none"), "{}", failure.message);
    });
}

#[test]
fn a_call_that_waits_for_its_file_can_be_cancelled_and_tried_again() {
    let fake = Fake::new();
    fake.write("blobs/args", b"value");
    fake.answers(false);
    elsewhere(&fake, async |head| {
        head.function(1, "echo");
        head.send(with_file(1, "blobs/args"));
        head.send(CancelTasks {
            tasks: vec![1],
            reason: "not now".to_owned(),
            ..CancelTasks::default()
        });
        head.cancelled(1).await;
        head.send(TaskCall {
            attempt: 2,
            ..with_file(1, "blobs/args")
        });
        fake.answers(true);
        let done = head.done(1).await;
        assert_eq!(done.attempt, 2);
    });
}

#[test]
fn a_function_s_code_is_brought_when_it_is_not_here() {
    let fake = Fake::new();
    let digest = Digest::of(b"echo");
    fake.write(&format!("blobs/{digest}"), b"echo");
    elsewhere(&fake, async |head| {
        let learn = |index, digest: Digest| PutFunction {
            index,
            digest: Bytes::copy_from_slice(&digest.0),
            name: "f".to_owned(),
            code: Bytes::new(),
        };
        head.send(learn(1, digest));
        head.send(call(1, 1, "text"));
        assert_eq!(head.text(1).await, "text");
        head.send(learn(2, Digest::of(b"nobody has it")));
        head.send(call(2, 2, "text"));
        let failure = head.failure(2).await;
        assert_eq!(failure.kind, "unknown-function");
        assert!(
            failure.message.contains("cannot bring the code of f"),
            "{}",
            failure.message
        );
    });
}

#[test]
fn what_a_worker_s_task_gave_is_here_before_the_worker_hears_of_it() {
    let fake = Fake::new();
    fake.write("results/9", b"value");
    elsewhere(&fake, async |head| {
        head.function(1, "submit");
        for (task, path, word) in [(1, "results/9", "value"), (2, "results/none", "results/none")] {
            head.send(call(task, 1, "inner"));
            let submit = head
                .wait(|message| match message {
                    AgentToHead::Submit(submit) => Some(submit.clone()),
                    _ => None,
                })
                .await;
            head.send(TaskOutcome {
                token: submit.token,
                task: 100 + task,
                outcome: Some(Outcome::value(file(path))),
                for_worker: submit.from_worker,
                ..TaskOutcome::default()
            });
            let text = head.text(task).await;
            assert!(text.contains(word), "{text}");
        }
    });
}
