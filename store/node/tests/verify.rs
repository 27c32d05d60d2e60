//! Laws of sums: bytes that are not those that were written are given to nobody, whether a file or another node has them; the
//! error names the object, both sums and the place; and another node's good bytes take their place where there are some.

mod common;

use bridgehead_fabric::Fabric;
use bridgehead_fabric::sim::{Network, Options};
use bridgehead_spec::ObjectId;
use bridgehead_store_node::{Arrival, Client, ClientError, Node, NodeOptions, new_id, sum_of};
use bridgehead_tcp::TcpFabric;
use bridgehead_wire::ObjectRef;
use common::{pattern, wait_until};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

const MIB: usize = 1 << 20;
/// Nothing takes so long unless it hangs.
const LIMIT: Duration = Duration::from_secs(50);

struct Side {
    agent: u32,
    node: Node,
    client: Client,
    folder: tempfile::TempDir,
}

/// Stores of so many nodes that know one another, over each of the networks.
fn each(count: usize, law: impl Fn(&[Side])) {
    for over_tcp in [false, true] {
        let network = Network::new(5, count, Options::default());
        let fabrics: Vec<Arc<dyn Fabric>> = (0..count as u32)
            .map(|agent| match over_tcp {
                false => network.fabric(agent),
                true => {
                    let options = bridgehead_tcp::Options::new(agent, [7; 32], IpAddr::V4(Ipv4Addr::LOCALHOST));
                    Arc::new(TcpFabric::start(options).expect("a network"))
                }
            })
            .collect();
        let addresses: Vec<_> = (0..).zip(fabrics.iter().map(|fabric| fabric.address())).collect();
        let sides: Vec<_> = (0..).zip(fabrics).map(|(agent, fabric)| start(agent, fabric)).collect();
        for side in &sides {
            side.node.set_peers(addresses.clone());
        }
        law(&sides);
    }
}

fn start(agent: u32, fabric: Arc<dyn Fabric>) -> Side {
    let folder = tempfile::tempdir().expect("a folder");
    let options = NodeOptions {
        patience: Duration::from_secs(20),
        verify: true,
        ..NodeOptions::new(agent, folder.path(), 8 << 20)
    };
    let mut node = Node::start(options).expect("a store");
    node.connect(fabric).expect("a network");
    let client = Client::connect(&folder.path().join("store.sock")).expect("a connection");
    Side {
        agent,
        node,
        client,
        folder,
    }
}

impl Side {
    fn put_as(&self, id: ObjectId, bytes: &[u8]) -> ObjectRef {
        let mut reservation = self.client.reserve(bytes.len()).expect("room");
        reservation.bytes().copy_from_slice(bytes);
        let (object, _) = reservation.seal(id);
        self.node.publish(&object).expect("it was granted");
        object
    }

    fn put(&self, seed: usize, len: usize) -> ObjectRef {
        self.put_as(new_id().expect("randomness"), &pattern(seed as u64, len))
    }

    fn bring(&self, object: &ObjectRef) -> Arrival {
        let (sender, arrival) = channel();
        self.node
            .bring(object, Box::new(move |arrived| drop(sender.send(arrived))));
        arrival.recv_timeout(LIMIT).expect("an answer in bounded time")
    }

    fn persist(&self, object: &ObjectRef, name: &str) -> (Result<u64, String>, PathBuf) {
        let path = self.folder.path().join(name);
        let (sender, answer) = channel();
        let done = move |written| drop(sender.send(written));
        self.node.persist(object.id(), &path, Box::new(done));
        (answer.recv_timeout(LIMIT).expect("an answer in bounded time"), path)
    }

    /// Puts others until the object is in a file, and flips a bit of that.
    fn spoil(&self, object: &ObjectRef) -> PathBuf {
        let name = format!("{:032x}.bhs", object.id().0);
        let path = self.folder.path().join(format!("spill/{}/life/{name}", self.agent));
        loop {
            // More than the store holds, so that the object, the longest unused, goes to its file.
            for _ in 0..3 {
                self.put(9, 3 * MIB);
            }
            if self.node.pin(object.id()).is_none() {
                break;
            }
            self.node.unpin(object.id());
        }
        let mut bytes = std::fs::read(&path).expect("the file");
        let at = bytes.len() / 2;
        bytes[at] ^= 4;
        std::fs::write(&path, bytes).expect("the file");
        path
    }
}

/// An error names the object, both sums and the place.
fn check_error(text: &str, object: &ObjectRef, found: u64, place: &str) {
    for part in [
        object.id().to_string(),
        format!("{:016x}", object.sum),
        format!("{found:016x}"),
    ] {
        assert!(text.contains(&part), "{part} in: {text}");
    }
    assert!(text.contains(place), "{place} in: {text}");
}

/// The object that has come reads as what was written under `seed`.
fn check(side: &Side, arrival: Arrival, seed: usize, len: usize) {
    let object = arrival.expect("it can be had");
    let lease = side.client.lease(&object).expect("it is here");
    assert!(
        lease.bytes() == pattern(seed as u64, len),
        "object {seed} of {len} bytes"
    );
    drop(lease);
    side.node.unpin(object.id());
}

/// Sizes below and above what comes inline with an answer.
const SIZES: [usize; 3] = [1000, 70_000, 2 * MIB + 3];

#[test]
fn sums_are_those_of_the_bytes_and_travel_with_copies() {
    each(2, |sides| {
        for len in SIZES {
            let object = sides[1].put(1, len);
            assert_eq!(object.sum, sum_of(&pattern(1, len)));
            let here = sides[0].bring(&object).expect("it can be had");
            assert_eq!((here.sum, here.node), (object.sum, 0));
            check(&sides[0], Ok(here), 1, len);
        }
    });
}

#[test]
fn a_file_with_a_flipped_bit_is_given_to_nobody() {
    each(1, |sides| {
        let object = sides[0].put(1, MIB);
        let path = sides[0].spoil(&object);
        let found = sum_of(&std::fs::read(&path).expect("the file"));
        let place = path.display().to_string();
        for _ in 0..2 {
            let refused = sides[0].client.lease(&object).expect_err("it is damaged");
            assert!(matches!(refused, ClientError::Never(_)), "{refused}");
            check_error(&refused.to_string(), &object, found, &place);
            check_error(&sides[0].bring(&object).expect_err("damaged"), &object, found, &place);
        }
        let (written, path) = sides[0].persist(&object, "result");
        check_error(&written.expect_err("damaged"), &object, found, &place);
        assert!(!path.exists(), "nothing damaged is a result");
        sides[0].node.release(object.id());
        assert!(!path.exists());
    });
}

#[test]
fn a_replica_takes_the_place_of_a_spoiled_file() {
    each(3, |sides| {
        let object = sides[0].put(1, MIB);
        check(&sides[2], sides[2].bring(&object), 1, MIB);
        sides[0].spoil(&object);
        let lease = sides[0].client.lease(&object).expect("the replica");
        assert!(lease.bytes() == pattern(1, MIB));
        drop(lease);
        // And from then on it is here, and others get it from here.
        assert!(sides[0].node.has(object.id()));
        check(&sides[1], sides[1].bring(&object), 1, MIB);
        let (written, path) = sides[0].persist(&object, "result");
        assert_eq!(written, Ok(MIB as u64));
        assert!(std::fs::read(path).expect("the file") == pattern(1, MIB));
    });
}

#[test]
fn what_a_lying_peer_sends_is_given_to_nobody() {
    each(2, |sides| {
        for len in SIZES {
            let id = new_id().expect("randomness");
            let object = sides[1].put_as(id, &pattern(2, len));
            // What its writer wrote was something else.
            let told = ObjectRef {
                sum: sum_of(&pattern(1, len)),
                ..object
            };
            let refused = sides[0].bring(&told).expect_err("damaged");
            check_error(&refused, &told, sum_of(&pattern(2, len)), "from node 1");
            assert!(!sides[0].node.has(id), "it is not here");
        }
        wait_until(LIMIT, "room and pins are given back", || {
            sides.iter().all(|side| side.node.usage().pinned == 0) && sides[0].node.usage().used == 0
        });
    });
}

#[test]
fn a_replica_takes_the_place_of_what_a_lying_peer_sends() {
    each(4, |sides| {
        for len in SIZES {
            let id = new_id().expect("randomness");
            let object = sides[1].put_as(id, &pattern(1, len));
            sides[2].put_as(id, &pattern(2, len));
            sides[3].put_as(id, &pattern(3, len / 2));
            for liar in [2, 3] {
                let told = object.at(liar);
                check(&sides[0], sides[0].bring(&told), 1, len);
                sides[0].node.release(id);
            }
        }
    });
}

#[test]
fn a_part_of_an_object_with_a_sum_comes_with_the_whole() {
    each(2, |sides| {
        let object = sides[1].put(1, MIB);
        let (sender, arrival) = channel();
        let done = move |arrived| drop(sender.send(arrived));
        sides[0].node.bring_range(&object, 100, 5000, Box::new(done));
        let arrived = arrival.recv_timeout(LIMIT).expect("an answer in bounded time");
        assert_eq!(arrived.as_ref().map(ObjectRef::id), Ok(object.id()));
        check(&sides[0], arrived, 1, MIB);
    });
}

#[test]
fn memory_that_was_overwritten_is_no_result() {
    each(2, |sides| {
        let id = new_id().expect("randomness");
        let wrong = sides[0].put_as(id, &pattern(2, MIB));
        sides[0].node.release(id);
        let right = sides[1].put_as(id, &pattern(1, MIB));
        // The store of node 0 publishes bytes that are not those of the sum that comes with them.
        let mut reservation = sides[0].client.reserve(MIB).expect("room");
        reservation.bytes().copy_from_slice(&pattern(2, MIB));
        let (object, _) = reservation.seal(id);
        let told = ObjectRef {
            sum: right.sum,
            ..object
        };
        sides[0].node.publish(&told).expect("it was granted");
        let (written, path) = sides[0].persist(&told, "result");
        assert_eq!(written, Ok(MIB as u64), "the other node has the right bytes");
        assert!(std::fs::read(path).expect("the file") == pattern(1, MIB));
        sides[1].node.release(id);
        let (written, path) = sides[0].persist(&told, "second");
        check_error(&written.expect_err("damaged"), &told, wrong.sum, "memory of this node");
        assert!(!path.exists());
        assert_eq!(sides[0].node.usage().objects, 1, "the copy is gone again");
    });
}
