//! Laws of objects that go from node to node, over a simulated network and over TCP: whole or with a reason, in bounded
//! time, and whatever happens room and pins are given back on both sides.

mod common;

use bridgehead_fabric::Fabric;
use bridgehead_fabric::sim::{Network, Options};
use bridgehead_store_node::{Arrival, Client, Node, NodeOptions, new_id};
use bridgehead_tcp::TcpFabric;
use bridgehead_wire::ObjectRef;
use bytes::Bytes;
use common::{pattern, wait_until};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const MIB: usize = 1 << 20;
/// Nothing takes so long unless it hangs.
const LIMIT: Duration = Duration::from_secs(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Sim,
    Tcp,
}

/// Every law holds over each of the networks.
fn each(law: impl Fn(Wire)) {
    law(Wire::Sim);
    law(Wire::Tcp);
}

struct Side {
    node: Option<Node>,
    client: Client,
    address: Bytes,
    _folder: tempfile::TempDir,
}

impl Side {
    fn start(agent: u32, limit: usize, patience: Duration, fabric: Arc<dyn Fabric>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let options = NodeOptions {
            patience,
            ..NodeOptions::new(agent, folder.path(), limit as u64)
        };
        let mut node = Node::start(options).expect("a store");
        let address = fabric.address();
        node.connect(fabric).expect("a network");
        let client = Client::connect(&folder.path().join("store.sock")).expect("a connection");
        Self {
            node: Some(node),
            client,
            address,
            _folder: folder,
        }
    }

    fn node(&self) -> &Node {
        self.node.as_ref().expect("it was not killed")
    }

    fn put(&self, seed: usize, len: usize) -> ObjectRef {
        let mut reservation = self.client.reserve(len).expect("room");
        reservation.bytes().copy_from_slice(&pattern(seed as u64, len));
        let (object, _) = reservation.seal(new_id().expect("randomness"));
        self.node().publish(&object).expect("it was granted");
        object
    }

    fn bring(&self, object: &ObjectRef) -> Receiver<Arrival> {
        let (sender, arrival) = channel();
        let done = move |arrived| drop(sender.send(arrived));
        self.node().bring(object, Box::new(done));
        arrival
    }

    /// The object is here, reads as what was written under `seed`, and is let go.
    fn check(&self, arrival: &Receiver<Arrival>, seed: usize, len: usize) {
        let object = arrived(arrival).expect("it can be had");
        {
            let lease = self.client.lease(&object).expect("it is here");
            assert!(
                lease.bytes() == pattern(seed as u64, len),
                "object {seed} of {len} bytes"
            );
        }
        self.node().unpin(object.id());
    }

    /// Nothing is granted or pinned any more, besides the `granted` bytes that the client keeps.
    fn check_idle(&self, granted: u64) {
        wait_until(LIMIT, "room and pins are given back", || {
            let usage = self.node().usage();
            (usage.granted, usage.pinned) == (granted, 0)
        });
    }

    fn granted(&self) -> u64 {
        self.node().usage().granted
    }
}

struct Pair {
    sides: Vec<Side>,
    network: Option<Network>,
}

/// Two stores that do not know each other yet.
fn strangers(wire: Wire, limit: usize, patience: [u64; 2]) -> Pair {
    let network = (wire == Wire::Sim).then(|| Network::new(5, 2, Options::default()));
    let start = |agent: u32| {
        let fabric: Arc<dyn Fabric> = match &network {
            Some(network) => network.fabric(agent),
            None => {
                let options = bridgehead_tcp::Options::new(agent, [7; 32], IpAddr::V4(Ipv4Addr::LOCALHOST));
                Arc::new(TcpFabric::start(options).expect("a network"))
            }
        };
        Side::start(agent, limit, Duration::from_millis(patience[agent as usize]), fabric)
    };
    let sides = vec![start(0), start(1)];
    Pair { sides, network }
}

fn pair_with(wire: Wire, limit: usize, patience: [u64; 2]) -> Pair {
    let pair = strangers(wire, limit, patience);
    pair.introduce();
    pair
}

fn pair(wire: Wire, limit: usize) -> Pair {
    pair_with(wire, limit, [20_000; 2])
}

impl Pair {
    fn introduce(&self) {
        (0..self.sides.len()).for_each(|at| self.introduce_to(at));
    }

    /// The node at `at` learns of all the others.
    fn introduce_to(&self, at: usize) {
        let all: Vec<_> = (0..).zip(self.sides.iter().map(|side| side.address.clone())).collect();
        self.sides[at].node().set_peers(all);
    }

    fn kill(&mut self, at: usize) {
        if let Some(network) = &self.network {
            network.kill(u32::try_from(at).expect("few"));
        }
        drop(self.sides[at].node.take()); // Over TCP its sockets are closed by that, whatever is under way.
    }
}

fn arrived(arrival: &Receiver<Arrival>) -> Arrival {
    arrival.recv_timeout(LIMIT).expect("an answer in bounded time")
}

/// It cannot be had, and the reason has these words.
fn check_refused(arrival: &Receiver<Arrival>, words: &str) {
    let reason = arrived(arrival).expect_err("it cannot be had");
    assert!(reason.contains(words), "{reason}");
}

#[test]
fn objects_of_all_sizes_go_both_ways_at_once_for_many_askers() {
    each(|wire| {
        let pair = pair(wire, 64 * MIB);
        let sizes = [0, 1, (64 << 10) - 1, 64 << 10, (64 << 10) + 1, 5 * MIB];
        let put = |at: usize| -> Vec<_> {
            let numbered = sizes.iter().enumerate();
            numbered
                .map(|(i, &len)| (pair.sides[at].put(at * 10 + i, len), at * 10 + i, len))
                .collect()
        };
        let objects = [put(0), put(1)];
        let granted: Vec<u64> = pair.sides.iter().map(Side::granted).collect();
        let mut asked = Vec::new();
        for _ in 0..3 {
            for (at, side) in pair.sides.iter().enumerate() {
                for (object, seed, len) in &objects[1 - at] {
                    asked.push((side, side.bring(object), *seed, *len));
                }
            }
        }
        for (side, arrival, seed, len) in asked {
            side.check(&arrival, seed, len);
        }
        for (side, granted) in pair.sides.iter().zip(granted) {
            side.check_idle(granted);
            assert_eq!(
                side.node().usage().objects,
                12,
                "its own and one copy of each of the other's"
            );
        }
    });
}

#[test]
fn a_peer_that_dies_in_the_middle_is_an_error_and_room_comes_back() {
    each(|wire| {
        let mut pair = pair(wire, 64 * MIB);
        let objects: Vec<_> = (0..8).map(|seed| pair.sides[1].put(seed, 5 * MIB)).collect();
        let theirs = pair.sides[0].put(9, 5 * MIB);
        let lent = pair.sides[1].bring(&theirs);
        let arrivals: Vec<_> = objects.iter().map(|object| pair.sides[0].bring(object)).collect();
        pair.sides[0].check(&arrivals[0], 0, 5 * MIB);
        pair.kill(1);
        for (seed, arrival) in arrivals.iter().enumerate().skip(1) {
            match arrived(arrival) {
                Ok(object) => {
                    let lease = pair.sides[0].client.lease(&object).expect("it is here");
                    assert!(lease.bytes() == pattern(seed as u64, 5 * MIB), "what came is whole");
                    pair.sides[0].node().unpin(object.id());
                }
                Err(reason) => assert!(!reason.is_empty()),
            }
        }
        drop(arrived(&lent));
        pair.sides[0].check_idle(0);
    });
}

#[test]
fn an_object_that_is_released_is_refused_and_one_that_is_lent_stays_until_it_is_read() {
    each(|wire| {
        let pair = pair(wire, 32 * MIB);
        let gone = pair.sides[1].put(1, 2 * MIB);
        pair.sides[1].node().release(gone.id());
        check_refused(&pair.sides[0].bring(&gone), "is not in the store");
        for seed in 0..20 {
            let object = pair.sides[1].put(seed, 2 * MIB);
            let arrival = pair.sides[0].bring(&object);
            if seed % 2 == 0 {
                std::thread::yield_now();
            }
            pair.sides[1].node().release(object.id());
            match arrived(&arrival) {
                Ok(here) => {
                    let lease = pair.sides[0].client.lease(&here).expect("it is here");
                    assert!(lease.bytes() == pattern(seed as u64, 2 * MIB), "what came is whole");
                    pair.sides[0].node().unpin(here.id());
                    pair.sides[0].node().release(here.id());
                }
                Err(reason) => assert!(reason.contains("is not in the store"), "{reason}"),
            }
        }
        for side in &pair.sides {
            side.check_idle(0);
            wait_until(LIMIT, "nothing is left", || side.node().usage().objects == 0);
        }
    });
}

#[test]
fn room_for_what_comes_is_made_by_moving_others_to_disk() {
    each(|wire| {
        let pair = pair(wire, 16 * MIB);
        let mine: Vec<_> = (0..5).map(|seed| pair.sides[0].put(seed, 3 * MIB)).collect();
        let theirs: Vec<_> = (10..15).map(|seed| pair.sides[1].put(seed, 3 * MIB)).collect();
        let arrivals: Vec<_> = theirs.iter().map(|object| pair.sides[0].bring(object)).collect();
        for (i, arrival) in arrivals.iter().enumerate() {
            pair.sides[0].check(arrival, 10 + i, 3 * MIB);
        }
        assert!(pair.sides[0].node().usage().spilled > 0);
        for (seed, object) in mine.iter().enumerate() {
            pair.sides[0].check(&pair.sides[0].bring(object), seed, 3 * MIB);
        }
        pair.sides[0].check_idle(0);
    });
}

#[test]
fn what_comes_waits_for_room_and_without_any_it_fails_and_nothing_stays_pinned() {
    each(|wire| {
        let pair = pair_with(wire, 8 * MIB, [1_000, 20_000]);
        let holding = pair.sides[0].put(1, 6 * MIB);
        pair.sides[0].node().pin(holding.id()).expect("it is in memory");
        let theirs = [pair.sides[1].put(2, 3 * MIB), pair.sides[1].put(3, 64 << 10)];
        check_refused(&pair.sides[0].bring(&theirs[0]), "is full");
        pair.sides[1].check_idle(pair.sides[1].granted());
        let waiting = pair.sides[0].bring(&theirs[0]);
        pair.sides[0].node().unpin(holding.id());
        pair.sides[0].check(&waiting, 2, 3 * MIB);
        pair.sides[0].check(&pair.sides[0].bring(&theirs[1]), 3, 64 << 10);
        pair.sides[0].check_idle(0);
    });
}

#[test]
fn a_small_object_waits_for_room_too() {
    each(|wire| {
        let pair = pair(wire, MIB);
        let holding = pair.sides[0].put(1, MIB);
        pair.sides[0].node().pin(holding.id()).expect("it is in memory");
        let theirs = pair.sides[1].put(2, 60_000);
        let arrival = pair.sides[0].bring(&theirs);
        assert!(
            arrival.recv_timeout(Duration::from_millis(50)).is_err(),
            "there is no room yet"
        );
        pair.sides[0].node().unpin(holding.id());
        pair.sides[0].check(&arrival, 2, 60_000);
        pair.sides[0].check_idle(0);
    });
}

#[test]
fn what_is_lent_after_its_asker_has_given_up_goes_back() {
    each(|wire| {
        let pair = pair_with(wire, 8 * MIB, [100, 20_000]);
        let wanted = pair.sides[1].put(1, 3 * MIB);
        let holding = pair.sides[1].put(2, 7 * MIB); // Moves the wanted one to disk.
        pair.sides[1].node().pin(holding.id()).expect("it is in memory");
        check_refused(&pair.sides[0].bring(&wanted), "did not answer in time");
        pair.sides[1].node().unpin(holding.id());
        wait_until(LIMIT, "it is back in memory", || {
            pair.sides[1].node().usage().spilled != 3 * MIB as u64
        });
        pair.sides[1].check_idle(0);
        pair.sides[0].check_idle(0);
    });
}

#[test]
fn full_stores_that_want_everything_of_each_other_do_not_wait_for_ever() {
    each(|wire| {
        let pair = pair(wire, 16 * MIB);
        let put = |at: usize| -> Vec<_> { (0..6).map(|seed| pair.sides[at].put(at * 10 + seed, 5 * MIB)).collect() };
        let objects = [put(0), put(1)];
        let ask = |at: usize| -> Vec<_> {
            objects[1 - at]
                .iter()
                .map(|object| pair.sides[at].bring(object))
                .collect()
        };
        std::thread::scope(|scope| {
            for (at, asked) in [ask(0), ask(1)].into_iter().enumerate() {
                let side = &pair.sides[at];
                // Whatever comes first is let go first.
                for (seed, arrival) in asked.into_iter().enumerate() {
                    scope.spawn(move || side.check(&arrival, (1 - at) * 10 + seed, 5 * MIB));
                }
            }
        });
        for side in &pair.sides {
            side.check_idle(0);
        }
    });
}

#[test]
fn a_node_that_is_not_in_the_run_is_named_and_one_that_comes_late_is_waited_for() {
    each(|wire| {
        let pair = strangers(wire, 16 * MIB, [20_000; 2]);
        let object = pair.sides[1].put(1, 2 * MIB);
        let early = pair.sides[0].bring(&object);
        pair.introduce();
        pair.sides[0].check(&early, 1, 2 * MIB);
        let mut stray = pair.sides[1].put(2, 2 * MIB);
        stray.node = 7;
        check_refused(&pair.sides[0].bring(&stray), "not in the run");
        pair.sides[0].check_idle(0);
    });
}

#[test]
fn an_answer_waits_until_the_node_that_asked_is_known() {
    each(|wire| {
        let pair = strangers(wire, 16 * MIB, [20_000; 2]);
        let object = pair.sides[1].put(1, 2 * MIB);
        pair.introduce_to(0);
        let arrival = pair.sides[0].bring(&object);
        wait_until(LIMIT, "the object is lent", || pair.sides[1].node().usage().pinned > 0);
        pair.introduce_to(1);
        pair.sides[0].check(&arrival, 1, 2 * MIB);
        wait_until(LIMIT, "it is given back", || pair.sides[1].node().usage().pinned == 0);
    });
}

#[test]
fn a_reference_with_another_length_is_refused_and_nothing_stays_pinned() {
    each(|wire| {
        let pair = pair(wire, 16 * MIB);
        for (len, claimed) in [
            (2 * MIB, 3 * MIB),
            (2 * MIB, MIB),
            (10_000, 20_000),
            (10_000, 2 * MIB),
            (2 * MIB, 10_000),
        ] {
            let mut object = pair.sides[1].put(1, len);
            object.len = claimed as u64;
            check_refused(&pair.sides[0].bring(&object), "another length");
        }
        let granted = pair.sides[1].granted();
        pair.sides[0].check_idle(0);
        pair.sides[1].check_idle(granted);
    });
}

#[test]
fn a_node_that_has_left_while_its_answer_waited_for_room_is_lent_nothing() {
    each(|wire| {
        let pair = pair(wire, 4 * MIB);
        let here = &pair.sides[0];
        let small = here.put(1, 1000);
        here.node().pin(small.id()).expect("it is in memory");
        let object = here.put(2, 2 * MIB);
        let others = [3, 4].map(|seed| here.put(seed, 3 * MIB / 2));
        for other in &others {
            here.node().pin(other.id()).expect("it is in memory");
        }
        let _never = pair.sides[1].bring(&object); // On disk, and there is no room for it.
        pair.sides[1].check(&pair.sides[1].bring(&small), 1, 1000); // So the first question has come too.
        let lent = here.node().traffic().lent.operations;
        here.node().set_peers(vec![(0, here.address.clone())]);
        for other in others.iter().chain([&small]) {
            here.node().unpin(other.id());
        }
        wait_until(LIMIT, "there is an answer", || {
            here.node().traffic().lent.operations > lent
        });
        here.check_idle(here.granted());
    });
}

#[test]
fn what_several_bring_at_once_into_a_full_store_comes_to_all_of_them() {
    each(|wire| {
        let pair = pair(wire, 6 * MIB);
        let objects: Vec<_> = (0..5).map(|seed| pair.sides[1].put(seed, MIB / 2)).collect();
        for round in 0..20 {
            let asked: Vec<_> = objects
                .iter()
                .enumerate()
                .flat_map(|(seed, object)| std::iter::repeat_n((seed, object), 3))
                .map(|(seed, object)| (seed, pair.sides[0].bring(object)))
                .collect();
            // Room is wanted meanwhile, so what has come goes to disk as soon as nobody holds it.
            let others: Vec<_> = (0..6)
                .map(|seed| pair.sides[0].put(100 + round * 6 + seed, MIB))
                .collect();
            for (seed, arrival) in asked {
                pair.sides[0].check(&arrival, seed, MIB / 2);
            }
            for object in objects.iter().chain(&others) {
                pair.sides[0].node().release(object.id());
            }
        }
    });
}
