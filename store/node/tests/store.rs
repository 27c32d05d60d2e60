//! Laws of a node's store, over its real socket and real shared memory, with clients in threads of this process.

mod common;
#[path = "common/outside.rs"]
mod outside;

use bridgehead_spec::ObjectId;
use bridgehead_store_node::{Arena, Client, ClientError, Lease, Node, NodeOptions, new_id};
use bridgehead_wire::ObjectRef;
use common::{pattern, wait_until};
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Nothing takes so long unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

struct Bench {
    node: Node,
    folder: tempfile::TempDir,
}

fn start_with(limit: u64, patience_ms: u64, spill: Option<&Path>) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = NodeOptions {
        patience: Duration::from_millis(patience_ms),
        ..NodeOptions::new(4, folder.path(), limit)
    };
    if let Some(spill) = spill {
        options.spill_dir = spill.to_owned();
    }
    let node = Node::start(options).expect("a store");
    Bench { node, folder }
}

fn start(limit: u64) -> Bench {
    start_with(limit, 2_000, None)
}

impl Bench {
    fn client(&self) -> Client {
        Client::connect(&self.folder.path().join("store.sock")).expect("a connection")
    }

    fn spilled_files(&self) -> usize {
        std::fs::read_dir(self.folder.path().join("spill/4/life")).map_or(0, Iterator::count)
    }
}

fn write(client: &Client, seed: u64, len: usize) -> Result<(ObjectRef, Lease), ClientError> {
    let mut reservation = client.reserve(len)?;
    reservation.bytes().copy_from_slice(&pattern(seed, len));
    Ok(reservation.seal(new_id().expect("randomness")))
}

fn put(bench: &Bench, client: &Client, seed: u64, len: usize) -> ObjectRef {
    let (object, _) = write(client, seed, len).expect("room");
    bench.node.publish(&object).expect("it was granted");
    object
}

/// The object reads as what was written under `seed`.
fn check(client: &Client, object: &ObjectRef, seed: u64) -> Lease {
    let lease = client.lease(object).expect("the object is here");
    assert!(
        lease.bytes() == pattern(seed, lease.bytes().len()),
        "object {seed} has the bytes that were written"
    );
    assert_eq!(lease.bytes().len() as u64, object.len);
    lease
}

#[test]
fn what_one_process_puts_another_one_reads() {
    let bench = start(64 << 20);
    let (writer, reader) = (bench.client(), bench.client());
    for (seed, len) in [0, 1, 63, 64, 65, 4096, (1 << 20) - 1, 1 << 20, 9 << 20]
        .into_iter()
        .enumerate()
    {
        let object = put(&bench, &writer, seed as u64, len);
        drop(check(&reader, &object, seed as u64));
        drop(check(&writer, &object, seed as u64));
    }
    assert_eq!(bench.node.usage().objects, 9);
}

#[test]
fn a_reference_that_names_an_old_place_still_finds_the_object() {
    let bench = start(8 << 20);
    let client = bench.client();
    let mut object = put(&bench, &client, 1, 5000);
    object.slot = u64::MAX;
    object.offset = 0;
    check(&client, &object, 1);
    object.id_lo ^= 1;
    assert!(
        matches!(client.lease(&object), Err(ClientError::Never(_))),
        "an unknown object is refused"
    );
}

#[test]
fn released_bytes_stay_while_a_reader_has_a_lease_and_not_longer() {
    let bench = start(2 << 20);
    let client = bench.client();
    let object = put(&bench, &client, 3, 1_500_000);
    let lease = check(&client, &object, 3);
    bench.node.release(object.id());
    assert!(
        matches!(client.lease(&object), Err(ClientError::Never(_))),
        "nobody new can read it"
    );
    assert!(bench.node.usage().used >= 1_500_000);
    assert_eq!(lease.bytes(), pattern(3, 1_500_000), "the reader still can");
    drop(lease);
    wait_until(LIMIT, "its bytes are free", || bench.node.usage().used < 1_500_000);
}

/// The reader of the next test, in a process of its own: takes a lease, says so, and waits to be killed.
#[test]
fn reader_process() {
    let Ok(order) = std::env::var("STORE_TEST_READER") else {
        return; // Only the next test gives it work.
    };
    let mut words = order.split(' ');
    let mut word = || words.next().expect("socket, id, slot");
    let client = Client::connect(Path::new(word())).expect("a connection");
    let id = ObjectId(word().parse().expect("an id"));
    let _lease = client.lease(&ObjectRef::new(id, 0, 4, 0, 0)).expect("it is here");
    println!("leased");
    std::io::stdin().read_line(&mut String::new()).expect("nothing comes");
}

#[test]
fn a_reader_that_is_killed_takes_its_leases_with_it() {
    let bench = start(2 << 20);
    let object = put(&bench, &bench.client(), 3, 1_500_000);
    let order = format!("{} {}", bench.folder.path().join("store.sock").display(), object.id().0);
    let mut reader = outside::start("reader_process", "STORE_TEST_READER", order, "leased");
    bench.node.release(object.id());
    assert!(bench.node.usage().used >= 1_500_000, "its bytes stay for the reader");
    reader.kill().expect("it runs");
    reader.wait().expect("it ends");
    wait_until(LIMIT, "its bytes are free", || bench.node.usage().used < 1_500_000);
}

#[test]
fn more_than_memory_holds_goes_to_disk_and_comes_back() {
    let bench = start(4 << 20);
    let client = bench.client();
    let objects: Vec<_> = (0..12).map(|seed| put(&bench, &client, seed, 1 << 20)).collect();
    assert!(bench.spilled_files() >= 8, "eight of twelve have no room in memory");
    for (seed, object) in objects.iter().enumerate() {
        drop(check(&client, object, seed as u64));
    }
    let usage = bench.node.usage();
    assert_eq!(usage.objects, 12);
    assert!(usage.spilled >= 8 << 20 && usage.used <= usage.total, "{usage:?}");
    for object in &objects {
        bench.node.release(object.id());
    }
    assert_eq!(bench.node.usage().spilled, 0);
    assert_eq!(bench.spilled_files(), 0, "no file is left of what is released");
}

#[test]
fn leased_and_pinned_objects_are_never_moved() {
    let bench = start_with(4 << 20, 100, None);
    let client = bench.client();
    let objects: Vec<_> = (0..3).map(|seed| put(&bench, &client, seed, 1 << 20)).collect();
    let leases: Vec<_> = objects[..2]
        .iter()
        .zip(0..)
        .map(|(object, seed)| check(&client, object, seed))
        .collect();
    bench.node.pin(objects[2].id()).expect("it is in memory");
    let refused = write(&client, 9, 2 << 20).expect_err("no room");
    assert!(
        matches!(&refused, ClientError::Full(text) if text.contains("larger store")),
        "{refused}"
    );
    drop(leases);
    bench.node.unpin(objects[2].id());
    assert!(write(&client, 9, 2 << 20).is_ok(), "there is room once they are let go");
}

#[test]
fn what_is_larger_than_the_store_is_refused_at_once() {
    let bench = start_with(1 << 20, 60_000, None);
    let refused = bench.client().reserve(2 << 20).expect_err("no room");
    assert!(
        matches!(&refused, ClientError::Never(text) if text.contains("2097152")),
        "{refused}"
    );
}

#[test]
fn a_put_waits_for_room_that_comes() {
    let bench = start_with(4 << 20, 20_000, None);
    let client = bench.client();
    let object = put(&bench, &client, 1, 3 << 20);
    bench.node.pin(object.id()).expect("it is in memory");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bench.client().reserve(3 << 20).is_ok());
        bench.node.release(object.id());
        bench.node.unpin(object.id());
        assert!(waiting.join().expect("it ends"), "room came and was taken");
    });
}

#[test]
fn a_disk_that_cannot_be_written_loses_nothing_and_is_named() {
    let bench = start_with(4 << 20, 100, Some(Path::new("/proc/no-such-folder")));
    let client = bench.client();
    let objects: Vec<_> = (0..3).map(|seed| put(&bench, &client, seed, 1 << 20)).collect();
    let refused = write(&client, 9, 3 << 20).expect_err("no room");
    assert!(
        matches!(&refused, ClientError::Full(text) if text.contains("to disk failed")),
        "{refused}"
    );
    for (seed, object) in objects.iter().enumerate() {
        check(&client, object, seed as u64);
    }
}

#[test]
fn a_writer_that_dies_gives_back_what_it_had_not_published() {
    let bench = start(4 << 20);
    let writer = bench.client();
    let published = put(&bench, &writer, 1, 100_000);
    let (lost, lease) = write(&writer, 2, 3 << 20).expect("room");
    drop(lease);
    drop(writer);
    wait_until(LIMIT, "its ranges are free", || bench.node.usage().granted == 0);
    assert!(bench.node.publish(&lost).is_err(), "too late");
    check(&bench.client(), &published, 1);
}

#[test]
fn results_are_written_whole_from_memory_and_from_disk() {
    let bench = start(2 << 20);
    let client = bench.client();
    let objects: Vec<_> = (0..4).map(|seed| put(&bench, &client, seed, 1_000_000)).collect();
    for (seed, object) in objects.iter().enumerate() {
        let path = bench.folder.path().join(format!("results/{seed}"));
        let (sender, answer) = channel();
        bench.node.persist(
            object.id(),
            &path,
            Box::new(move |written| sender.send(written).expect("we wait")),
        );
        assert_eq!(answer.recv().expect("an answer"), Ok(1_000_000));
        assert_eq!(std::fs::read(&path).expect("a file"), pattern(seed as u64, 1_000_000));
    }
    let (sender, answer) = channel();
    let nowhere = Path::new("/proc/nowhere/file");
    bench.node.persist(
        objects[0].id(),
        nowhere,
        Box::new(move |written| sender.send(written).expect("we wait")),
    );
    let error = answer.recv().expect("an answer").expect_err("it cannot be written");
    assert!(error.contains("/proc/nowhere/file"), "{error}");
}

#[test]
fn nonsense_on_the_socket_ends_that_connection_only() {
    use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketType, connect, send, socket};
    let bench = start(1 << 20);
    let address = SocketAddrUnix::new(bench.folder.path().join("store.sock")).expect("a path");
    let mut state = 7_u64;
    for len in [0, 1, 40, 41, 300, 4096] {
        let stranger = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
        connect(&stranger, &address).expect("a connection");
        for _ in 0..50 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            if send(&stranger, &bytes, SendFlags::NOSIGNAL).is_err() {
                break;
            }
        }
    }
    let client = bench.client();
    let object = put(&bench, &client, 1, 100_000);
    check(&client, &object, 1);
}

#[test]
fn many_writers_and_readers_under_pressure_never_see_wrong_bytes() {
    let bench = start_with(6 << 20, 20_000, None);
    std::thread::scope(|scope| {
        for worker in 0..4_u64 {
            let bench = &bench;
            scope.spawn(move || {
                let client = bench.client();
                let mut mine: Vec<(u64, ObjectRef)> = Vec::new();
                for round in 0..60 {
                    let seed = worker * 1_000 + round;
                    let len = 1 + (seed as usize * 7_919) % 700_000;
                    mine.push((seed, put(bench, &client, seed, len)));
                    let (seed, object) = &mine[(round as usize * 13) % mine.len()];
                    drop(check(&client, object, *seed));
                    if mine.len() > 8 {
                        let (_, object) = mine.remove((round as usize * 5) % 8);
                        bench.node.release(object.id());
                    }
                }
                for (_, object) in mine {
                    bench.node.release(object.id());
                }
            });
        }
    });
    let usage = bench.node.usage();
    assert_eq!((usage.objects, usage.spilled), (0, 0), "{usage:?}");
}

#[test]
fn ids_of_one_process_differ() {
    let ids: std::collections::HashSet<ObjectId> = (0..1000).map(|_| new_id().expect("randomness")).collect();
    assert_eq!(ids.len(), 1000);
}

/// Two arenas: one of the NUMA node that this test runs on, one of a node that the machine does not have.
fn start_in_two(limit: u64) -> Bench {
    let folder = tempfile::tempdir().expect("a folder");
    let arena = |numa, nearest: [usize; 2]| Arena {
        numa: Some(numa),
        len: limit / 2,
        nearest: nearest.to_vec(),
    };
    let options = NodeOptions {
        arenas: vec![arena(1000, [0, 1]), arena(0, [1, 0])],
        patience: Duration::from_millis(2_000),
        ..NodeOptions::new(4, folder.path(), limit)
    };
    let node = Node::start(options).expect("a store");
    Bench { node, folder }
}

fn used(bench: &Bench) -> Vec<u64> {
    bench
        .node
        .usage_by_arena()
        .into_iter()
        .map(|(_, used, _)| used)
        .collect()
}

/// Brings an object to the memory with this number: where it lies then.
fn bring_near(bench: &Bench, object: &ObjectRef, turn: u32) -> ObjectRef {
    let (done, arrived) = channel();
    let answer = move |arrival| done.send(arrival).expect("the test waits");
    bench.node.bring_near(object, turn, Box::new(answer));
    let place = arrived.recv_timeout(Duration::from_secs(20)).expect("in time");
    let place = place.expect("the object is here");
    bench.node.unpin(place.id());
    place
}

#[test]
fn a_process_writes_in_the_memory_of_the_numa_node_that_it_runs_on() {
    if std::fs::exists("/sys/devices/system/node/node1").unwrap_or(false) {
        return eprintln!("skipped: this machine has several NUMA nodes, the test is for one");
    }
    let bench = start_in_two(32 << 20);
    let refused: Vec<_> = bench
        .node
        .bindings()
        .iter()
        .map(|b| (b.numa, b.refused.is_some()))
        .collect();
    assert_eq!(refused, [(1000, true), (0, false)]);
    let client = bench.client();
    put(&bench, &client, 1, 2 << 20);
    assert_eq!(used(&bench), [0, 2 << 20]);
    put(&bench, &client, 2, 15 << 20);
    assert_eq!(used(&bench), [15 << 20, 2 << 20], "the next nearest has room");
    put(&bench, &client, 3, 14 << 20);
    let whole = put(&bench, &client, 4, 20 << 20);
    check(&client, &whole, 4);
}

#[test]
fn an_object_moves_to_the_memory_that_is_wanted_and_leaves_readers_what_they_look_at() {
    let bench = start_in_two(32 << 20);
    let client = bench.client();
    let object = put(&bench, &client, 1, 3 << 20);
    let before = check(&client, &object, 1);
    let first = bring_near(&bench, &object, 2);
    assert_eq!(
        (first.numa, first.id()),
        (1001, object.id()),
        "the number counts modulo the arenas"
    );
    assert_eq!(used(&bench), [3 << 20, 3 << 20], "a reader keeps what it looks at");
    drop(check(&client, &object, 1)); // The old reference finds the new place.
    drop(check(&client, &first, 1));
    assert_eq!(bring_near(&bench, &object, 0), first, "it is there already");
    assert!(before.bytes() == pattern(1, 3 << 20));
    drop(before);
    wait_until(LIMIT, "what was left is free", || {
        let _ = bench.node.usage(); // Looks whether anybody still holds it.
        used(&bench) == [3 << 20, 0]
    });
    let second = bring_near(&bench, &object, 1);
    assert_eq!(second.numa, 1);
    bench.node.release(object.id());
    wait_until(LIMIT, "all is free", || bench.node.usage().used == 0);
}

#[test]
fn what_a_task_uses_is_not_moved_and_that_is_said_in_time() {
    let bench = start_in_two(32 << 20);
    let client = bench.client();
    let object = put(&bench, &client, 1, 1 << 20);
    let pinned = bench.node.pin(object.id()).expect("it is here");
    let (done, arrived) = channel();
    let other = u32::from(pinned.offset >= 16 << 20) ^ 1;
    let answer = move |arrival| done.send(arrival).expect("the test waits");
    bench.node.bring_near(&object, other, Box::new(answer));
    let answer = arrived.recv_timeout(Duration::from_secs(20)).expect("in time");
    assert!(answer.expect_err("it is in use").contains("tasks use it"));
    bench.node.unpin(object.id());
    assert_ne!(bring_near(&bench, &object, other).offset, pinned.offset);
}
