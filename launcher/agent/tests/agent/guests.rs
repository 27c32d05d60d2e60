//! Guests: a process of a program takes part as a worker does, is refused with a reason where it is none, and leaves nothing
//! behind. The guest is this process; its program is a shell.

use crate::harness::{Head, Wish, check, shell};
use bridgehead_store_node::{Client, new_id};
use bridgehead_wire::{
    AgentToGuest, AgentToHead, Fetch, Frames, GuestHello, GuestToAgent, NameOp, NameReply, NameRequest, ObjectRef,
    Outcome, PutObject, Value, WorkerConfig,
};
use bytes::Bytes;
use std::path::Path;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

/// This process's side of a connection.
struct Guest {
    stream: UnixStream,
    frames: Frames,
}

impl Guest {
    async fn connect(head: &Head) -> Self {
        let path = head.dir.path().join("sockets/programs-0.sock");
        let stream = UnixStream::connect(path).await.expect("the agent listens");
        Self {
            stream,
            frames: Frames::new(),
        }
    }

    async fn send(&mut self, message: impl Into<GuestToAgent>) {
        let mut bytes = Vec::new();
        message.into().encode(&mut bytes);
        self.stream.write_all(&bytes).await.expect("the agent reads");
    }

    /// The next message; `None` when the agent has ended the connection.
    async fn next(&mut self) -> Option<AgentToGuest> {
        loop {
            if let Some((kind, body)) = self.frames.next_frame().expect("frames") {
                return Some(AgentToGuest::decode(kind, body).expect("a message"));
            }
            self.stream.readable().await.expect("a socket");
            match self.stream.try_read(self.frames.space(4096)) {
                Ok(0) => return None,
                Ok(n) => self.frames.filled(n),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
        }
    }

    /// A guest of attempt 1 of this task.
    async fn of(head: &Head, task: u64) -> (Self, WorkerConfig) {
        let mut guest = Self::connect(head).await;
        guest.send(hello(task, 1)).await;
        match guest.next().await {
            Some(AgentToGuest::Config(config)) => (guest, config),
            other => panic!("expected a configuration, got {other:?}"),
        }
    }
}

fn hello(task: u64, attempt: u32) -> GuestHello {
    GuestHello {
        task,
        attempt,
        rank: None,
        pid: std::process::id(),
    }
}

/// Runs `case` with a program, task 1, that ends when the file `end` is in its folder.
fn with_program(case: impl AsyncFnOnce(&mut Head)) {
    check(Wish::default(), async |head| {
        head.send(shell(
            1,
            "while [ ! -e end ]; do sleep 0.01; done; echo $BRIDGEHEAD_SOCKET",
        ));
        head.started(1).await;
        case(head).await;
    });
}

/// Lets the program end: what it printed.
async fn end(head: &mut Head) -> String {
    std::fs::write(head.work().join("end"), "").expect("a file");
    String::from_utf8_lossy(&head.program(1).await.stdout).trim().to_owned()
}

async fn asked(head: &mut Head, op: NameOp) -> NameRequest {
    head.wait(|message| match message {
        AgentToHead::Name(request) if request.op() == op => Some(request.clone()),
        _ => None,
    })
    .await
}

/// An object of this process in the store that `config` names.
fn object(config: &WorkerConfig) -> ObjectRef {
    let client = Client::connect(Path::new(&config.store_socket)).expect("the store listens");
    let mut room = client.reserve(1 << 20).expect("room");
    room.bytes().fill(7);
    room.seal(new_id().expect("randomness")).0
}

#[test]
fn a_guest_asks_the_table_of_names_and_gets_its_answers() {
    with_program(async |head| {
        let (mut guest, config) = Guest::of(head, 1).await;
        assert_eq!((config.run.as_str(), config.inline_limit), ("test", 16 << 10));
        let request = NameRequest {
            token: 5,
            op: NameOp::Get.into(),
            name: "field".to_owned(),
            task: Some(99),
            ..NameRequest::default()
        };
        guest.send(request).await;
        let request = asked(head, NameOp::Get).await;
        assert_eq!((request.from_worker, request.task), (Some(config.worker), Some(1)));
        let outcome = Outcome::value(Value::inline(Bytes::from_static(b"v")));
        let reply = NameReply {
            token: 5,
            outcome: Some(outcome),
            version: 3,
            for_worker: Some(config.worker),
            ..NameReply::default()
        };
        head.send(reply.clone());
        assert_eq!(guest.next().await, Some(reply.into()));
        drop(guest);
        assert_eq!(asked(head, NameOp::Gone).await.from_worker, Some(config.worker));
        let socket = end(head).await;
        assert!(socket.ends_with("sockets/programs-0.sock"), "{socket}");
    });
}

#[test]
fn what_a_guest_put_is_published_and_what_it_held_is_given_back_when_it_dies() {
    with_program(async |head| {
        let (mut guest, config) = Guest::of(head, 1).await;
        let object = object(&config);
        let put = PutObject {
            object: Some(object.clone()),
        };
        guest.send(put.clone()).await;
        head.wait(|message| matches!(message, AgentToHead::Put(told) if *told == put).then_some(()))
            .await;
        let fetch = Fetch {
            token: 8,
            object: Some(object.clone()),
            ..Fetch::default()
        };
        guest.send(fetch).await;
        match guest.next().await {
            Some(AgentToGuest::Fetched(fetched)) => {
                let place = fetched.outcome.as_ref().and_then(Outcome::object).map(ObjectRef::id);
                assert_eq!((fetched.token, place), (8, Some(object.id())));
            }
            other => panic!("expected the object, got {other:?}"),
        }
        drop(guest);
        let released = head.wait(|message| match message {
            AgentToHead::Release(release) => Some(release.objects.clone()),
            _ => None,
        });
        assert_eq!(released.await, [object]);
    });
}

#[test]
fn who_is_no_process_of_a_running_program_is_refused_with_the_reason() {
    with_program(async |head| {
        for (task, attempt, why) in [(2, 1, "no program of task 2"), (1, 2, "attempt 1 of task 1 runs")] {
            let mut guest = Guest::connect(head).await;
            guest.send(hello(task, attempt)).await;
            match guest.next().await {
                Some(AgentToGuest::Refused(refused)) => assert!(refused.message.contains(why), "{}", refused.message),
                other => panic!("expected a refusal, got {other:?}"),
            }
            assert_eq!(guest.next().await, None);
        }
    });
}

#[test]
fn nonsense_ends_its_connection_and_nothing_else() {
    with_program(async |head| {
        let (mut well, config) = Guest::of(head, 1).await;
        let mut random = 11_u64;
        for len in [1, 8, 60, 5000] {
            let mut guest = Guest::connect(head).await;
            let noise: Vec<u8> = (0..len)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (random >> 56) as u8
                })
                .collect();
            let _ = guest.stream.write_all(&noise).await; // It may be thrown out in the middle.
            let _ = guest.stream.shutdown().await;
            assert_eq!(guest.next().await, None);
        }
        let mut early = Guest::connect(head).await;
        early.send(NameRequest::default()).await;
        assert_eq!(early.next().await, None, "nobody asks before it has said who it is");
        let (mut twice, _) = Guest::of(head, 1).await;
        twice.send(hello(1, 1)).await;
        assert_eq!(twice.next().await, None, "it is who it is");
        let (mut gone, _) = Guest::of(head, 1).await;
        let op = NameOp::Gone.into();
        gone.send(NameRequest {
            op,
            ..NameRequest::default()
        })
        .await;
        assert_eq!(gone.next().await, None, "who has gone is the agent's to say");
        well.send(NameRequest {
            op: NameOp::List.into(),
            ..NameRequest::default()
        })
        .await;
        assert_eq!(asked(head, NameOp::List).await.from_worker, Some(config.worker));
    });
}

#[test]
fn a_guest_goes_with_its_program_and_all_that_it_said_is_heard() {
    with_program(async |head| {
        let (mut guest, config) = Guest::of(head, 1).await;
        let object = object(&config);
        let put = PutObject {
            object: Some(object.clone()),
        };
        guest.send(put.clone()).await;
        end(head).await;
        assert_eq!(guest.next().await, None);
        let said = |message: &AgentToHead| matches!(message, AgentToHead::Put(told) if *told == put).then_some(());
        if !head.others.iter().any(|message| said(message).is_some()) {
            head.wait(said).await;
        }
        head.wait(|message| matches!(message, AgentToHead::Release(r) if r.objects == [object.clone()]).then_some(()))
            .await;
    });
}
