//! Laws of objects in the memory of GPUs, over a node's real socket. The GPUs are host memory that stands in for them: what is
//! shown is the store's part, not CUDA's.

mod common;
#[path = "common/outside.rs"]
mod outside;

use bridgehead_spec::ObjectId;
use bridgehead_store_gpu::{Device, DeviceMemory, HostStandIn};
use bridgehead_store_node::{Arrival, Client, ClientError, DeviceView, Node, NodeOptions, new_id};
use bridgehead_wire::ObjectRef;
use common::{pattern, wait_until};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Nothing takes so long unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    node: Node,
    memory: Vec<Arc<HostStandIn>>,
    folder: tempfile::TempDir,
}

/// A store of `limit` bytes with two GPUs, of each of which objects may take half of `memory`.
fn start(limit: u64, memory: u64) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let memory: Vec<_> = (0..2).map(|gpu| Arc::new(HostStandIn::new(gpu, memory))).collect();
    let device = |memory: &Arc<HostStandIn>| Device {
        memory: memory.clone(),
        why: Some("a test".to_owned()),
    };
    let options = NodeOptions {
        patience: Duration::from_secs(2),
        devices: memory.iter().map(device).collect(),
        ..NodeOptions::new(4, folder.path(), limit)
    };
    let node = Node::start(options).expect("a store");
    Bench { node, memory, folder }
}

impl Bench {
    fn client(&self) -> Client {
        Client::connect(&self.folder.path().join("store.sock")).expect("a connection")
    }

    fn put(&self, client: &Client, seed: u64, len: usize) -> ObjectRef {
        let mut reservation = client.reserve(len).expect("room");
        reservation.bytes().copy_from_slice(&pattern(seed, len));
        let (object, _) = reservation.seal(new_id().expect("randomness"));
        self.node.publish(&object).expect("it was granted");
        object
    }

    fn move_to(&self, object: &ObjectRef, gpu: u32) -> Arrival {
        let (sender, answer) = channel();
        let done = move |arrival| sender.send(arrival).expect("we wait");
        self.node.move_to_device(object, gpu, Box::new(done));
        answer.recv().expect("an answer")
    }

    /// Bytes of objects on a GPU, which are also those that its memory has given.
    fn on(&self, gpu: usize) -> u64 {
        let used = self.node.devices()[gpu].used;
        let memory = &self.memory[gpu];
        let given = memory.capacity() - memory.available().expect("it counts");
        if used == given { used } else { u64::MAX }
    }
}

fn read(view: &DeviceView) -> Vec<u8> {
    let opened = view.opened().expect("it is open");
    let mut bytes = vec![0; opened.len() as usize];
    opened.read(0, &mut bytes).expect("inside");
    bytes
}

/// The object reads as what was written under `seed`, on the GPU and on the host.
fn check(client: &Client, object: &ObjectRef, seed: u64, gpu: u32) {
    let expected = pattern(seed, object.len as usize);
    let view = client.device_view(object, None).expect("it is on a GPU");
    let opened = view.opened().expect("it is open");
    assert_eq!((opened.gpu(), opened.is_stand_in()), (gpu, true));
    assert!(read(&view) == expected, "the bytes on the GPU are those that were put");
    assert_eq!(view.head(), &expected[..expected.len().min(2048)]);
    let lease = client.lease(object).expect("it comes back to the host");
    assert!(lease.bytes() == expected, "and so are those on the host");
}

#[test]
fn what_lies_on_a_gpu_takes_no_host_memory_and_is_read_in_both_places() {
    let bench = start(8 << 20, 16 << 20);
    let client = bench.client();
    let object = bench.put(&client, 1, 3 << 20);
    let moved = bench.move_to(&object, 1).expect("there is room");
    assert_eq!((moved.id(), moved.gpu, moved.node), (object.id(), 2, 4));
    assert_eq!((bench.on(0), bench.on(1)), (0, 3 << 20));
    let usage = bench.node.usage();
    assert_eq!(
        (usage.used - usage.granted, usage.on_devices),
        (0, 3 << 20),
        "{usage:?}"
    );
    check(&client, &object, 1, 1);
    check(&bench.client(), &moved, 1, 1);
    assert_eq!(bench.on(1), 3 << 20, "what a reader on the host gets is a copy");
    let traffic = bench.node.traffic();
    assert_eq!((traffic.to_device.operations, traffic.to_device.bytes), (1, 3 << 20));
    assert_eq!(
        (traffic.from_device.operations, traffic.from_device.bytes),
        (1, 3 << 20)
    );
    bench.node.release(object.id());
    wait_until(LIMIT, "its memory is free with it", || bench.on(1) == 0);
    assert!(
        bench.node.devices()[1]
            .name
            .contains("host memory standing in for GPU 1")
    );
}

#[test]
fn a_copy_on_the_host_leaves_without_being_written_to_disk() {
    let bench = start(4 << 20, 64 << 20);
    let client = bench.client();
    let objects = (0..12).map(|seed| {
        let object = bench.put(&client, seed, 1 << 20);
        bench.move_to(&object, (seed % 2) as u32).expect("there is room")
    });
    let objects: Vec<_> = objects.collect();
    for (seed, object) in objects.iter().enumerate() {
        check(&client, object, seed as u64, seed as u32 % 2);
    }
    let (usage, traffic) = (bench.node.usage(), bench.node.traffic());
    assert_eq!((usage.spilled, usage.on_devices), (0, 12 << 20), "{usage:?}");
    assert_eq!(traffic.spilled.operations, 0, "{traffic:?}");
    assert!(traffic.from_device.operations >= 12);
    for object in &objects {
        bench.node.release(object.id());
    }
    let all = || (bench.on(0), bench.on(1), bench.node.usage().objects);
    wait_until(LIMIT, "what was looked at is free too", || all() == (0, 0, 0));
}

#[test]
fn a_gpu_that_is_full_refuses_by_name_and_the_object_stays_on_the_host() {
    let bench = start(16 << 20, 4 << 20);
    let client = bench.client();
    let first = bench.put(&client, 1, 1 << 20);
    let second = bench.put(&client, 2, 3 << 20 >> 1);
    bench.move_to(&first, 0).expect("there is room");
    let refused = bench.move_to(&second, 0).expect_err("half of the memory is the tasks'");
    assert!(
        refused.contains("GPU 0 is full: no room for 1572864 bytes, 1048576 of the 2097152 bytes"),
        "{refused}"
    );
    assert!(refused.contains(&second.id().to_string()), "{refused}");
    assert_eq!(
        client.lease(&second).expect("it is here").bytes(),
        pattern(2, 3 << 20 >> 1)
    );
    assert!(matches!(client.device_view(&second, None), Err(ClientError::Never(text)) if text.contains("in no GPU")));
    let refused = bench.move_to(&second, 2).expect_err("there are two");
    assert!(refused.contains("there is no GPU 2: this node has 2"), "{refused}");
    bench.node.release(first.id());
    bench.move_to(&second, 0).expect("there is room now");
    check(&client, &second, 2, 0);
}

#[test]
fn an_object_moves_from_one_gpu_to_another_unless_it_is_looked_at() {
    let bench = start(8 << 20, 8 << 20);
    let client = bench.client();
    let object = bench.put(&client, 1, 1 << 20);
    bench.move_to(&object, 0).expect("there is room");
    let view = client.device_view(&object, Some(1)).expect("it is on a GPU already");
    assert_eq!(view.opened().expect("open").gpu(), 0, "where it is");
    let refused = bench.move_to(&object, 1).expect_err("it is looked at");
    assert!(refused.contains("being read in the memory of GPU 0"), "{refused}");
    bench.move_to(&object, 0).expect("it is there");
    drop(view);
    wait_until(LIMIT, "the view is given back", || bench.move_to(&object, 1).is_ok());
    assert_eq!((bench.on(0), bench.on(1)), (0, 1 << 20));
    check(&client, &object, 1, 1);
}

#[test]
fn a_view_may_ask_for_the_copy() {
    let bench = start(8 << 20, 8 << 20);
    let client = bench.client();
    let object = bench.put(&client, 1, 1 << 20);
    let view = client.device_view(&object, Some(1)).expect("there is room");
    assert!(read(&view) == pattern(1, 1 << 20));
    assert_eq!(bench.node.device_of(object.id()), Some(1));
    let unknown = ObjectRef::new(ObjectId(77), 8, 4, 0, 0);
    for gpu in [None, Some(0), Some(9)] {
        assert!(matches!(client.device_view(&unknown, gpu), Err(ClientError::Never(_))));
    }
    let other = bench.put(&client, 2, 100);
    let refused = client.device_view(&other, Some(9)).expect_err("there are two");
    assert!(refused.to_string().contains("there is no GPU 9"), "{refused}");
}

#[test]
fn released_bytes_stay_on_the_gpu_while_they_are_looked_at_and_not_longer() {
    let bench = start(8 << 20, 8 << 20);
    let client = bench.client();
    let object = bench.put(&client, 1, 1 << 20);
    bench.move_to(&object, 0).expect("there is room");
    let (one, other) = (
        client.device_view(&object, None),
        bench.client().device_view(&object, None),
    );
    bench.node.release(object.id());
    assert!(client.device_view(&object, None).is_err(), "nobody new can look at it");
    assert_eq!(bench.on(0), 1 << 20);
    drop(one);
    assert!(
        read(other.as_ref().expect("it was there")) == pattern(1, 1 << 20),
        "the other one still can"
    );
    drop(other);
    wait_until(LIMIT, "its memory is free", || bench.on(0) == 0);
    assert_eq!(bench.node.usage().objects, 0);
}

/// The reader of the next test, in a process of its own: looks at an object on a GPU, says so, and waits to be killed.
#[test]
fn viewing_process() {
    let Ok(order) = std::env::var("STORE_TEST_VIEWER") else {
        return; // Only the next test gives it work.
    };
    let (socket, id) = order.split_once(' ').expect("socket, id");
    let client = Client::connect(Path::new(socket)).expect("a connection");
    let id = ObjectId(id.parse().expect("an id"));
    let view = client
        .device_view(&ObjectRef::new(id, 0, 4, 0, 0), None)
        .expect("it is there");
    assert!(read(&view) == pattern(1, 1 << 20), "without a copy by the store");
    println!("looking");
    std::io::stdin().read_line(&mut String::new()).expect("nothing comes");
}

#[test]
fn a_reader_that_is_killed_gives_up_its_hold() {
    let bench = start(8 << 20, 8 << 20);
    let object = bench.put(&bench.client(), 1, 1 << 20);
    bench.move_to(&object, 0).expect("there is room");
    let order = format!("{} {}", bench.folder.path().join("store.sock").display(), object.id().0);
    let mut reader = outside::start("viewing_process", "STORE_TEST_VIEWER", order, "looking");
    bench.node.release(object.id());
    assert_eq!(bench.on(0), 1 << 20, "its bytes stay for the reader");
    reader.kill().expect("it runs");
    reader.wait().expect("it ends");
    wait_until(LIMIT, "its memory is free", || bench.on(0) == 0);
}

#[test]
fn many_movers_readers_and_viewers_under_pressure_never_see_wrong_bytes() {
    let bench = start(6 << 20, 24 << 20);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let bench = &bench;
            scope.spawn(move || {
                let client = bench.client();
                let mut mine: Vec<(u64, ObjectRef)> = Vec::new();
                for round in 0..40 {
                    let seed = worker * 1_000 + round;
                    let len = 1 + (seed as usize * 7_919) % 500_000;
                    let object = bench.put(&client, seed, len);
                    if round % 3 > 0 {
                        let _ = bench.move_to(&object, (round % 2) as u32); // It may be full.
                    }
                    mine.push((seed, object));
                    let (seed, object) = &mine[(round as usize * 13) % mine.len()];
                    let expected = pattern(*seed, object.len as usize);
                    if let Ok(view) = client.device_view(object, (round % 4 == 0).then_some(0)) {
                        assert!(read(&view) == expected, "object {seed} on a GPU");
                    }
                    assert!(
                        client.lease(object).expect("it is here").bytes() == expected,
                        "object {seed}"
                    );
                    if mine.len() > 8 {
                        bench.node.release(mine.remove((round as usize * 5) % 8).1.id());
                    }
                }
                for (_, object) in mine {
                    bench.node.release(object.id());
                }
            });
        }
    });
    wait_until(LIMIT, "all is free", || bench.node.usage().objects == 0);
    let usage = bench.node.usage();
    assert_eq!((usage.spilled, usage.on_devices), (0, 0), "{usage:?}");
    assert_eq!((bench.on(0), bench.on(1)), (0, 0));
}
