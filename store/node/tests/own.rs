//! Laws of writable copies of objects: they begin as the object, what is written to one nobody else sees, and what they hold
//! comes free with them. `launcher/python/tests/test_writable.py` has those of the values made of them.

use bridgehead_store_node::{Client, Node, NodeOptions, Own, new_id};
use bridgehead_wire::ObjectRef;
use std::time::Duration;

struct Bench {
    node: Node,
    client: Client,
    _folder: tempfile::TempDir,
}

fn start(limit: u64) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let options = NodeOptions {
        patience: Duration::from_millis(100),
        ..NodeOptions::new(4, folder.path(), limit)
    };
    let node = Node::start(options).expect("a store");
    let client = Client::connect(&folder.path().join("store.sock")).expect("a connection");
    Bench {
        node,
        client,
        _folder: folder,
    }
}

impl Bench {
    fn put(&self, seed: u8, len: usize) -> ObjectRef {
        let mut reservation = self.client.reserve(len).expect("room");
        reservation.bytes().copy_from_slice(&pattern(seed, len));
        let (object, _) = reservation.seal(new_id().expect("randomness"));
        self.node.publish(&object).expect("it was granted");
        object
    }

    fn own(&self, object: &ObjectRef) -> Own {
        self.client.lease(object).expect("it is here").own()
    }

    /// The object is as it was written, and so is a new copy of it.
    fn check(&self, object: &ObjectRef, seed: u8) {
        let lease = self.client.lease(object).expect("it is here");
        assert!(lease.bytes() == pattern(seed, lease.bytes().len()), "object {seed}");
        let own = lease.clone().own();
        assert!(bytes(&own) == lease.bytes(), "a copy of object {seed}");
    }
}

fn pattern(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|i| (i / 7) as u8 ^ seed).collect()
}

#[allow(unsafe_code)]
#[allow(clippy::mut_from_ref)] // The test has one slice of it at a time.
fn bytes(own: &Own) -> &mut [u8] {
    // SAFETY: the copy is this test's alone, it uses one slice of it at a time, and it lives as long as the slice.
    unsafe { std::slice::from_raw_parts_mut(own.as_mut_ptr(), own.len()) }
}

#[test]
fn what_is_written_to_one_copy_is_in_no_other_and_not_in_the_store() {
    let bench = start(64 << 20);
    for (len, mapped) in [
        (0, false),
        (1, false),
        (100_000, false),
        (512 << 10, true),
        ((3 << 20) + 5, true),
    ] {
        let seed = (len % 251) as u8;
        // Neighbours on the same pages, before and behind.
        let objects = [bench.put(1, 100), bench.put(seed, len), bench.put(2, 100)];
        let (first, second) = (bench.own(&objects[1]), bench.own(&objects[1]));
        assert_eq!((first.is_mapped(), first.len()), (mapped, len));
        bytes(&first).fill(0xaa);
        assert!(bytes(&second) == pattern(seed, len), "the other copy of {len} bytes");
        bytes(&second).fill(0x55);
        assert!(bytes(&first).iter().all(|&byte| byte == 0xaa));
        for (object, seed) in objects.iter().zip([1, seed, 2]) {
            bench.check(object, seed);
        }
    }
}

#[test]
fn a_copy_stays_what_it_is_while_its_object_is_released_and_others_need_room() {
    let bench = start(4 << 20);
    let object = bench.put(3, 1 << 20);
    let own = bench.own(&object);
    bytes(&own)[0] = 0xff;
    bench.node.release(object.id());
    let others: Vec<_> = (0..8).map(|seed| bench.put(seed, 1 << 20)).collect();
    assert!(bench.node.usage().spilled > 0, "they need more room than there is");
    assert!(bytes(&own)[0] == 0xff && bytes(&own)[1..] == pattern(3, 1 << 20)[1..]);
    for (object, seed) in others.iter().zip(0..) {
        bench.check(object, seed);
        bench.node.release(object.id());
    }
    assert_eq!(bench.node.usage().objects, 1, "the one that the copy needs");
    drop(own);
    assert_eq!(bench.node.usage().objects, 0);
}
