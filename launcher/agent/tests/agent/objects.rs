//! Objects: an agent lays them into the memory that the head wants them in. GPUs are host memory that stands in for them, unless
//! this machine has some.

use crate::harness::{Head, Wish, check};
use bridgehead_spec::{AgentId, Resources};
use bridgehead_store_node::{Client, new_id};
use bridgehead_topology::NumaNode;
use bridgehead_wire::{AgentToHead, Fetch, Memory, ObjectRef, Outcome, PutObject, outcome};

/// A machine with the NUMA node that this test runs on and one that the kernel does not know.
fn two_nodes() -> Vec<NumaNode> {
    let node = |node| NumaNode {
        node,
        processors: "0-1".parse().expect("a set"),
        memory: 1 << 30,
        free: 1 << 30,
        distances: Vec::new(),
        allowed: true,
    };
    vec![node(0), node(1000)]
}

/// An object of this process in the agent's store, published.
pub async fn put(head: &mut Head) -> ObjectRef {
    head.wait(|message| matches!(message, AgentToHead::Join(_)).then_some(()))
        .await;
    let socket = head
        .dir
        .path()
        .join("sockets")
        .join(format!("store-{}.sock", AgentId(0).0));
    let client = Client::connect(&socket).expect("the store listens");
    let mut room = client.reserve(1 << 20).expect("room");
    room.bytes().fill(7);
    let (object, _) = room.seal(new_id().expect("randomness"));
    head.send(PutObject {
        object: Some(object.clone()),
    });
    object
}

/// Where the object lies after the head wanted it in the memory of this turn.
async fn fetch(head: &mut Head, object: &ObjectRef, memory: Memory, token: u64, turn: u32) -> Outcome {
    head.send(Fetch {
        token,
        object: Some(object.clone()),
        memory: memory.into(),
        turn,
        ..Fetch::default()
    });
    let answer = head.wait(|message| match message {
        AgentToHead::Fetched(fetched) if fetched.token == token => fetched.outcome.clone(),
        _ => None,
    });
    answer.await
}

#[test]
fn an_object_goes_to_the_numa_node_whose_turn_it_is() {
    let wish = Wish {
        numa: two_nodes(),
        ..Wish::default()
    };
    check(wish, async |head| {
        let object = put(head).await;
        for (turn, numa) in [(0, 0), (1, 1000), (2, 0), (3, 1000)] {
            let outcome = fetch(head, &object, Memory::Numa, 10 + u64::from(turn), turn).await;
            let place = outcome.object().expect("it is there");
            assert_eq!((place.id(), place.numa), (object.id(), numa + 1));
        }
        let missing = ObjectRef::new(new_id().expect("randomness"), 8, 0, 0, 0);
        let outcome = fetch(head, &missing, Memory::Numa, 20, 0).await;
        let Some(outcome::Kind::Failure(failure)) = outcome.kind else {
            panic!("there is no such object");
        };
        assert_eq!(failure.kind, "object-lost");
        let named = format!("object {} cannot be had", missing.id());
        assert!(failure.message.starts_with(&named), "{}", failure.message);
    });
}

#[test]
fn an_object_goes_to_the_gpu_whose_turn_it_is_and_without_one_it_is_refused() {
    let resources = |gpus| Resources {
        gpus,
        ..Resources::default()
    };
    let wish = |gpus| Wish {
        resources: resources(gpus),
        ..Wish::default()
    };
    check(wish(2), async |head| {
        let object = put(head).await;
        for (turn, gpu) in [(0, 0), (1, 1), (2, 0), (2, 0), (5, 1)] {
            let outcome = fetch(head, &object, Memory::Gpu, 10 + u64::from(turn), turn).await;
            let place = outcome.object().expect("it is there");
            assert_eq!((place.id(), place.gpu), (object.id(), gpu + 1));
        }
    });
    check(wish(0), async |head| {
        let object = put(head).await;
        let outcome = fetch(head, &object, Memory::Gpu, 10, 0).await;
        let Some(outcome::Kind::Failure(failure)) = outcome.kind else {
            panic!("there is no GPU");
        };
        assert!(failure.message.contains("node 0 has no GPU"), "{}", failure.message);
    });
}
