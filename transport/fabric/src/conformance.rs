//! The laws that every fabric keeps, as functions over a group of fabrics; `laws!` makes a test of each. They panic where a law
//! is broken. They wait on completions, never on time, and any thread may do a fabric's work.

use crate::{
    Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, Reason, RegionKey, RemoteKey, RemoteSlice,
};
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);
const MIB: usize = 1 << 20;

/// What a law needs of the fabrics of its group.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Operations in flight with a peer before `Busy`.
    pub max_in_flight: usize,
    /// Bytes of messages that may wait for one peer.
    pub max_queued: usize,
    /// After how long a silent peer is lost.
    pub timeout: Duration,
    /// Whether the law will freeze one of them.
    pub freezes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_in_flight: 64,
            max_queued: MIB,
            timeout: Duration::from_secs(30),
            freezes: false,
        }
    }
}

/// Fabrics 0, 1, 2, ... with these numbers as their peers' ids, that do not know each other yet.
pub trait Group {
    /// One of them, as long as it lives.
    fn fabric(&self, at: usize) -> Arc<dyn Fabric>;
    /// Ends one at once, as if its process were killed. Its `Arc`s were given back before.
    fn kill(&mut self, at: usize);
    /// Stops one, as if its process were stopped: nothing that it sends arrives, and nothing reaches it.
    fn freeze(&mut self, at: usize);
    /// Lets it go on.
    fn thaw(&mut self, at: usize);
}

/// Makes a group of as many fabrics.
pub type Factory = fn(usize, &Settings) -> Box<dyn Group>;

/// Makes a test of each law over the factory.
#[macro_export]
macro_rules! laws {
    ($factory:expr) => {
        $crate::laws!(@each $factory;
            reads_and_writes_of_all_sizes, slices_move_exactly_their_bytes, many_operations_in_flight,
            messages_arrive_in_order, a_full_queue_is_busy_and_recovers, messages_wait_for_a_slow_receiver,
            a_killed_peer_fails_what_is_pending, a_frozen_peer_is_given_up, late_data_touches_nothing,
            a_removed_peer_is_refused, wrong_requests_fail_where_they_are_made, deregistered_while_in_flight,
            both_directions_at_once, sixteen_threads, waking_ends_a_wait, a_lost_peer_can_be_added_again);
    };
    (@each $factory:expr; $($law:ident),*) => {
        $(#[test]
        fn $law() {
            $crate::conformance::$law($factory);
        })*
    };
}

/// One fabric as a law sees it: what completed, each operation once.
struct Side {
    fabric: Arc<dyn Fabric>,
    news: VecDeque<Completion>,
    done: HashMap<OpId, Result<(), Reason>>,
    next: u64,
}

impl Side {
    fn new(group: &dyn Group, at: usize) -> Self {
        Self {
            fabric: group.fabric(at),
            news: VecDeque::new(),
            done: HashMap::new(),
            next: 0,
        }
    }

    fn op(&mut self) -> OpId {
        self.next += 1;
        OpId(self.next)
    }

    /// Takes what there is; whether there was anything.
    fn take(&mut self) -> bool {
        let mut out = Vec::new();
        let count = self.fabric.poll(&mut out);
        assert_eq!(count, out.len(), "poll says how many it gave");
        for completion in out {
            let (op, result) = match completion {
                Completion::Done { op } => (op, Ok(())),
                Completion::Failed { op, reason } => (op, Err(reason)),
                other => {
                    self.news.push_back(other);
                    continue;
                }
            };
            assert!(self.done.insert(op, result).is_none(), "{op:?} completed twice");
        }
        count > 0
    }

    fn until<T>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Option<T>) -> T {
        let end = Instant::now() + PATIENCE;
        loop {
            while self.take() {}
            if let Some(found) = found(self) {
                return found;
            }
            assert!(
                Instant::now() < end,
                "{}: no {what}; there is {:?} {:?}",
                self.fabric.name(),
                self.news,
                self.done
            );
            self.fabric.wait(Duration::from_millis(100));
        }
    }

    fn result(&mut self, op: OpId) -> Result<(), Reason> {
        self.until(&format!("completion of {op:?}"), |side| side.done.get(&op).cloned())
    }

    fn message(&mut self) -> (PeerId, Bytes) {
        self.until("message", |side| match side.news.pop_front()? {
            Completion::Message { peer, message } => Some((peer, message)),
            _ => None,
        })
    }

    fn lost(&mut self, lost: PeerId) {
        self.until("loss", |side| {
            side.news
                .drain(..)
                .any(|news| matches!(news, Completion::PeerLost { peer, .. } if peer == lost))
                .then_some(())
        });
    }

    fn ready(&mut self, ready: PeerId) {
        self.until("room", |side| {
            side.news
                .drain(..)
                .any(|news| news == Completion::Ready { peer: ready })
                .then_some(())
        });
    }

    fn register(&self, bytes: Vec<u8>, access: Access) -> (Arc<Buffer>, RegionKey) {
        let buffer = Arc::new(Buffer::from_bytes(bytes));
        let key = self
            .fabric
            .register(buffer.clone(), access)
            .expect("a buffer can be registered");
        (buffer, key)
    }

    fn read(&mut self, peer: u32, from: &RegionKey, into: &RegionKey, offset: u64, len: usize) -> OpId {
        let op = self.op();
        let posted = self
            .fabric
            .read(op, PeerId(peer), remote(from, offset, len), local(into, offset, len));
        assert_eq!(posted, Posted::Accepted);
        op
    }

    fn write(&mut self, peer: u32, from: &RegionKey, into: &RegionKey, offset: u64, len: usize) -> OpId {
        let op = self.op();
        let posted = self
            .fabric
            .write(op, PeerId(peer), local(from, offset, len), remote(into, offset, len));
        assert_eq!(posted, Posted::Accepted);
        op
    }
}

fn remote(key: &RegionKey, offset: u64, len: usize) -> RemoteSlice {
    RemoteSlice {
        region: key.remote(),
        offset,
        len: len as u64,
    }
}

fn local(key: &RegionKey, offset: u64, len: usize) -> LocalSlice {
    LocalSlice {
        region: key.clone(),
        offset,
        len: len as u64,
    }
}

/// Bytes that tell their place and seed.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 24).to_le_bytes()
    };
    let mut bytes: Vec<u8> = std::iter::repeat_with(&mut next)
        .take(len.div_ceil(8))
        .flatten()
        .collect();
    bytes.truncate(len);
    bytes
}

fn meet(sides: &[&Side]) {
    for (at, side) in sides.iter().enumerate() {
        for (other, peer) in sides.iter().enumerate().filter(|(other, _)| *other != at) {
            let id = PeerId(u32::try_from(other).expect("few fabrics"));
            side.fabric
                .add_peer(id, &peer.fabric.address())
                .expect("an address of the same fabric");
        }
    }
}

fn pair(factory: Factory, settings: &Settings) -> (Box<dyn Group>, Side, Side) {
    let group = factory(2, settings);
    let (a, b) = (Side::new(&*group, 0), Side::new(&*group, 1));
    meet(&[&a, &b]);
    (group, a, b)
}

/// Reads and writes of any size move the bytes.
pub fn reads_and_writes_of_all_sizes(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    for len in [0, 1, 4096, 65_535, 65_536, 65_537, MIB, 32 * MIB] {
        let (source, from) = b.register(pattern(len as u64, len), Access::ALL);
        let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
        let op = a.read(1, &from, &into, 0, len);
        assert_eq!(a.result(op), Ok(()), "read of {len}");
        assert!(
            copy.bytes(0, len) == source.bytes(0, len),
            "read of {len} gives other bytes"
        );
        copy.fill(0, &pattern(7, len));
        let op = a.write(1, &into, &from, 0, len);
        assert_eq!(a.result(op), Ok(()), "write of {len}");
        assert!(
            copy.bytes(0, len) == source.bytes(0, len),
            "write of {len} gives other bytes"
        );
        a.fabric.deregister(&into);
        b.fabric.deregister(&from);
    }
}

/// Nothing outside of a slice changes.
pub fn slices_move_exactly_their_bytes(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    let len = 700_000;
    let (source, from) = b.register(pattern(1, len), Access::ALL);
    let (copy, into) = a.register(vec![9; len], Access::LOCAL_WRITE);
    for (offset, part) in [(0, 1), (1, 4095), (4096, 262_145), (600_000, 100_000)] {
        let op = a.read(1, &from, &into, offset, part);
        assert_eq!(a.result(op), Ok(()));
    }
    let mut expected = source.bytes(0, len);
    expected[266_241..600_000].fill(9);
    assert!(copy.bytes(0, len) == expected, "bytes outside of the slices changed");
    let op = a.write(1, &into, &from, 266_241, 300_000);
    assert_eq!(a.result(op), Ok(()));
    let mut expected = pattern(1, len);
    expected[266_241..566_241].fill(9);
    assert!(source.bytes(0, len) == expected, "a write changed other bytes");
}

/// As many operations as the limit allows, of mixed sizes, all complete with the right bytes.
pub fn many_operations_in_flight(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    let len = 64 * 100_000;
    let (source, from) = b.register(pattern(3, len), Access::REMOTE_READ);
    let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    for _ in 0..3 {
        copy.fill(0, &vec![0; len]);
        let ops: Vec<OpId> = (0..64)
            .map(|at| a.read(1, &from, &into, at * 100_000, 100_000))
            .collect();
        assert!(ops.into_iter().all(|op| a.result(op) == Ok(())));
        assert!(copy.bytes(0, len) == source.bytes(0, len), "bytes went astray");
    }
}

/// Messages of one sender arrive in order, each once, whatever their sizes.
pub fn messages_arrive_in_order(factory: Factory) {
    let (_group, a, mut b) = pair(
        factory,
        &Settings {
            max_queued: 64 * MIB,
            ..Settings::default()
        },
    );
    let limit = a.fabric.capabilities().max_message;
    let text = |at: u64| {
        Bytes::from(pattern(
            at,
            [0, 1, 100, 5000, limit][usize::try_from(at % 5).expect("below 5")],
        ))
    };
    for at in 0..200 {
        assert_eq!(a.fabric.send(PeerId(1), text(at)), Posted::Accepted);
    }
    for at in 0..200 {
        assert!(b.message() == (PeerId(0), text(at)), "message {at}");
    }
    let refused = a.fabric.send(PeerId(1), Bytes::from(vec![0; limit + 1]));
    assert_eq!(
        refused,
        Posted::Refused(Reason::TooLong {
            len: limit as u64 + 1,
            limit: limit as u64
        })
    );
    assert_eq!(
        a.fabric.send(PeerId(9), Bytes::new()),
        Posted::Refused(Reason::UnknownPeer)
    );
}

/// The limit of operations is kept, is a value, and room is told of.
pub fn a_full_queue_is_busy_and_recovers(factory: Factory) {
    let (_group, mut a, b) = pair(
        factory,
        &Settings {
            max_in_flight: 4,
            ..Settings::default()
        },
    );
    let (_source, from) = b.register(pattern(3, MIB), Access::REMOTE_READ);
    let (_copy, into) = a.register(vec![0; MIB], Access::LOCAL_WRITE);
    let mut busy = 0;
    let mut ops = Vec::new();
    while busy < 20 {
        let op = a.op();
        match a
            .fabric
            .read(op, PeerId(1), remote(&from, 0, MIB), local(&into, 0, MIB))
        {
            Posted::Accepted => ops.push(op),
            Posted::Busy => {
                busy += 1;
                a.ready(PeerId(1));
            }
            Posted::Refused(reason) => panic!("refused: {reason}"),
        }
        assert!(ops.len() < 10_000, "the limit of 4 is never reached");
    }
    assert!(ops.into_iter().all(|op| a.result(op) == Ok(())));
}

/// Who sends more than is taken hears `Busy` before memory fills; nothing is lost.
pub fn messages_wait_for_a_slow_receiver(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let text = |at: u64| Bytes::from(pattern(at, 65_536));
    let (mut taken, mut busy) = (0, 0);
    let mut sent = 0;
    while sent < 1_500 {
        match a.fabric.send(PeerId(1), text(sent)) {
            Posted::Accepted => sent += 1,
            Posted::Busy => {
                busy += 1;
                while taken < sent {
                    assert!(b.message().1 == text(taken), "message {taken}");
                    taken += 1;
                }
                a.ready(PeerId(1));
            }
            Posted::Refused(reason) => panic!("refused: {reason}"),
        }
    }
    assert!(busy > 0, "94 MiB were accepted while nobody took them");
}

/// A killed peer fails what is pending, each operation once, is reported, and fails what comes after.
pub fn a_killed_peer_fails_what_is_pending(factory: Factory) {
    let (mut group, mut a, b) = pair(factory, &Settings::default());
    let len = 8 * MIB;
    let (source, from) = b.register(pattern(5, len), Access::ALL);
    let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let (_, out) = a.register(vec![1; len], Access::LOCAL_READ);
    let first = a.read(1, &from, &into, 0, len);
    let others: Vec<OpId> = (0..10).map(|_| a.read(1, &from, &into, 0, len)).collect();
    let writes: Vec<OpId> = (0..10).map(|_| a.write(1, &out, &from, 0, 1)).collect();
    assert_eq!(a.result(first), Ok(()));
    assert!(
        copy.bytes(1, len - 1) == source.bytes(1, len - 1),
        "a completed read has its bytes"
    );
    drop(b);
    group.kill(1);
    for op in others.into_iter().chain(writes) {
        assert!(
            matches!(a.result(op), Ok(()) | Err(Reason::PeerLost(_))),
            "{:?}",
            a.done[&op]
        );
    }
    a.lost(PeerId(1));
    let op = a.read(1, &from, &into, 0, 1);
    assert!(matches!(a.result(op), Err(Reason::PeerLost(_))));
    assert!(matches!(
        a.fabric.send(PeerId(1), Bytes::new()),
        Posted::Refused(Reason::PeerLost(_))
    ));
}

/// A peer that stops in the middle is given up after the time limit.
pub fn a_frozen_peer_is_given_up(factory: Factory) {
    let (mut group, mut a, b) = pair(factory, &brief());
    let (_source, from) = b.register(pattern(5, MIB), Access::ALL);
    let (_copy, into) = a.register(vec![0; MIB], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, MIB);
    assert_eq!(a.result(op), Ok(()));
    group.freeze(1);
    let ops = [
        a.read(1, &from, &into, 0, MIB),
        a.read(1, &from, &into, 0, 1),
        a.write(1, &into, &from, 0, MIB),
    ];
    for op in ops {
        assert!(a.result(op).is_err(), "an operation with a frozen peer succeeded");
    }
    a.lost(PeerId(1));
}

/// Bytes that come after an operation has failed are not stored.
pub fn late_data_touches_nothing(factory: Factory) {
    let group = &mut *factory(3, &brief());
    let (mut a, b, c) = (Side::new(group, 0), Side::new(group, 1), Side::new(group, 2));
    meet(&[&a, &b, &c]);
    let len = 4 * MIB;
    let (_source, from) = b.register(pattern(5, len), Access::REMOTE_READ);
    let (_other, also) = c.register(pattern(6, len), Access::REMOTE_READ);
    let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let (_beside, aside) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, len);
    group.freeze(1);
    let first = a.result(op);
    let op = a.read(1, &from, &into, 0, len);
    assert!(
        a.result(op).is_err(),
        "an operation with a frozen peer succeeded after {first:?}"
    );
    copy.fill(0, &vec![0xaa; len]);
    group.thaw(1);
    for _ in 0..20 {
        let op = a.read(2, &also, &aside, 0, len);
        assert_eq!(a.result(op), Ok(()), "another peer is not concerned");
    }
    assert!(copy.bytes(0, len) == vec![0xaa; len], "late data was stored");
}

fn brief() -> Settings {
    Settings {
        timeout: Duration::from_millis(500),
        freezes: true,
        ..Settings::default()
    }
}

/// Removing a peer fails all that is pending before it returns; the peer is refused until it is added again.
pub fn a_removed_peer_is_refused(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let len = 8 * MIB;
    let (_source, from) = b.register(pattern(5, len), Access::REMOTE_READ);
    let (copy, into) = a.register(vec![0; len], Access::ALL);
    let ops: Vec<OpId> = (0..8).map(|_| a.read(1, &from, &into, 0, len)).collect();
    a.fabric.remove_peer(PeerId(1));
    copy.fill(0, &vec![0xaa; len]);
    while a.take() {}
    for op in ops {
        let result = a.done.get(&op).cloned();
        assert!(
            matches!(result, Some(Ok(()) | Err(Reason::PeerRemoved))),
            "{op:?} is {result:?} after the removal"
        );
    }
    let op = a.read(1, &from, &into, 0, 1);
    assert_eq!(a.result(op), Err(Reason::UnknownPeer));
    assert!(copy.bytes(0, len) == vec![0xaa; len], "data came after the removal");
    let (_, aside) = b.register(vec![0; 1], Access::ALL);
    b.fabric.add_peer(PeerId(0), &a.fabric.address()).expect("an address");
    let op = b.read(0, &into, &aside, 0, 1);
    assert!(b.result(op).is_err(), "a peer that was removed can still read");
    a.fabric.add_peer(PeerId(1), &b.fabric.address()).expect("an address");
    b.fabric.add_peer(PeerId(0), &a.fabric.address()).expect("an address");
    let op = b.read(0, &into, &aside, 0, 1);
    assert_eq!(b.result(op), Ok(()), "a peer that was added again can read");
}

/// What is asked wrongly fails with its reason at the one who asks; the target goes on.
pub fn wrong_requests_fail_where_they_are_made(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let (_source, from) = b.register(pattern(5, 1000), Access::ALL);
    let (_secret, closed) = b.register(pattern(5, 1000), Access::LOCAL_READ);
    let (_copy, into) = a.register(vec![0; 1000], Access::LOCAL_WRITE);
    let (_fixed, sealed) = a.register(vec![0; 1000], Access::REMOTE_READ);
    let (_, gone) = b.register(vec![0; 1000], Access::ALL);
    b.fabric.deregister(&gone);
    let odd = |bytes: &'static [u8]| RemoteSlice {
        region: RemoteKey(Bytes::from_static(bytes)),
        offset: 0,
        len: 10,
    };
    let (all, ten) = (remote(&from, 0, 1000), local(&into, 0, 10));
    let cases = [
        (remote(&from, 991, 10), ten.clone(), Reason::RemoteOutOfRange),
        (remote(&from, u64::MAX, 10), ten.clone(), Reason::RemoteOutOfRange),
        (remote(&from, 0, 10), local(&into, 991, 10), Reason::LocalOutOfRange),
        (
            remote(&from, 0, 10),
            local(&into, u64::MAX, 10),
            Reason::LocalOutOfRange,
        ),
        (
            all,
            ten.clone(),
            Reason::LengthsDiffer {
                local: 10,
                remote: 1000,
            },
        ),
        (remote(&gone, 0, 10), ten.clone(), Reason::UnknownRemoteRegion),
        (
            remote(&closed, 0, 10),
            ten.clone(),
            Reason::AccessDenied { side: "remote" },
        ),
        (odd(b""), ten.clone(), Reason::UnknownRemoteRegion),
        (odd(&[0xff; 17]), ten.clone(), Reason::UnknownRemoteRegion),
        (odd(&[7; 300]), ten, Reason::UnknownRemoteRegion),
    ];
    for (far, near, expected) in cases {
        let (read, write) = (a.op(), a.op());
        assert_eq!(
            a.fabric.read(read, PeerId(1), far.clone(), near.clone()),
            Posted::Accepted
        );
        assert_eq!(a.fabric.write(write, PeerId(1), near, far), Posted::Accepted);
        assert_eq!(a.result(read), Err(expected.clone()));
        assert_eq!(a.result(write), Err(expected));
    }
    let op = a.read(1, &from, &sealed, 0, 10);
    assert_eq!(a.result(op), Err(Reason::AccessDenied { side: "local" }));
    let op = a.read(7, &from, &into, 0, 10);
    assert_eq!(a.result(op), Err(Reason::UnknownPeer));
    a.fabric.deregister(&into);
    let op = a.read(1, &from, &into, 0, 10);
    assert_eq!(a.result(op), Err(Reason::UnknownLocalRegion));
    a.fabric.deregister(&into);
    let (_, again) = b.register(vec![0; 1000], Access::ALL);
    let op = b.read(0, &sealed, &again, 0, 1000);
    assert_eq!(b.result(op), Ok(()), "the target goes on");
    for address in [&b""[..], &[0; 5], &[0xff; 400]] {
        assert!(
            a.fabric.add_peer(PeerId(5), address).is_err(),
            "{address:?} is no address"
        );
    }
}

/// Memory that was taken back is not touched, at either end, and operations on it complete once.
pub fn deregistered_while_in_flight(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    let len = 4 * MIB;
    for round in 0..20 {
        let (source, from) = b.register(pattern(round, len), Access::ALL);
        let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
        let (_, out) = a.register(pattern(round, len), Access::LOCAL_READ);
        let reads = [a.read(1, &from, &into, 0, len), a.read(1, &from, &into, 0, len)];
        let write = a.write(1, &out, &from, 0, len);
        if round % 4 > 1 {
            a.take();
        }
        if round % 2 == 0 {
            a.fabric.deregister(&into);
            copy.fill(0, &vec![0xaa; len]);
            a.fabric.deregister(&out);
        } else {
            b.fabric.deregister(&from);
            source.fill(0, &vec![0xbb; len]);
        }
        for op in reads {
            let result = a.result(op);
            assert!(
                matches!(result, Ok(()) | Err(Reason::Deregistered | Reason::UnknownRemoteRegion)),
                "{result:?}"
            );
        }
        let wrote = a.result(write);
        assert!(
            matches!(wrote, Ok(()) | Err(Reason::Deregistered | Reason::UnknownRemoteRegion)),
            "{wrote:?}"
        );
        if round % 2 == 0 {
            assert!(
                copy.bytes(0, len) == vec![0xaa; len],
                "memory was written after it was taken back"
            );
        } else {
            assert!(
                source.bytes(0, len) == vec![0xbb; len],
                "the peer's memory was written after it was taken back"
            );
            let whole = a.done[&reads[1]].is_err() || copy.bytes(0, len) == pattern(round, len);
            assert!(whole, "a read of memory that was taken back succeeded with other bytes");
        }
        b.fabric.deregister(&from);
    }
    let (_, from) = b.register(pattern(1, len), Access::ALL);
    let (_, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, len);
    assert_eq!(a.result(op), Ok(()), "the peers go on");
}

/// Both sides read and write a lot at once, and neither waits for the other for ever.
pub fn both_directions_at_once(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let len = 8 * MIB;
    let (of_a, at_a) = a.register(pattern(1, 2 * len), Access::ALL);
    let (of_b, at_b) = b.register(pattern(2, 2 * len), Access::ALL);
    let mut ops: [Vec<OpId>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        // First halves are read by the other side, second halves are written by their own.
        ops[0].push(a.op());
        let posted = a.fabric.read(
            ops[0][ops[0].len() - 1],
            PeerId(1),
            remote(&at_b, 0, len),
            local(&at_a, len as u64, len),
        );
        assert_eq!(posted, Posted::Accepted);
        ops[1].push(b.op());
        let posted = b.fabric.read(
            ops[1][ops[1].len() - 1],
            PeerId(0),
            remote(&at_a, 0, len),
            local(&at_b, len as u64, len),
        );
        assert_eq!(posted, Posted::Accepted);
    }
    ops[0].iter().for_each(|op| assert_eq!(a.result(*op), Ok(())));
    ops[1].iter().for_each(|op| assert_eq!(b.result(*op), Ok(())));
    assert!(of_a.bytes(len, len) == of_b.bytes(0, len) && of_b.bytes(len, len) == of_a.bytes(0, len));
    let (write, back) = (
        a.write(1, &at_a, &at_b, 0, len),
        b.write(0, &at_b, &at_a, len as u64, len),
    );
    assert_eq!((a.result(write), b.result(back)), (Ok(()), Ok(())));
    assert!(of_b.bytes(0, len) == of_a.bytes(0, len));
}

/// Two fabrics serve sixteen threads; whoever polls gets everybody's completions.
pub fn sixteen_threads(factory: Factory) {
    type Shared = Mutex<HashMap<OpId, Completion>>;
    let (_group, a, b) = pair(factory, &Settings::default());
    let len = 200_000;
    let (source_a, at_a) = a.register(pattern(1, len), Access::REMOTE_READ);
    let (source_b, at_b) = b.register(pattern(2, len), Access::REMOTE_READ);
    let inboxes = [Shared::default(), Shared::default()];
    let worker = |thread: u64| {
        let (side, peer, from, source, inbox) = if thread.is_multiple_of(2) {
            (&a, 1, &at_b, &source_b, &inboxes[0])
        } else {
            (&b, 0, &at_a, &source_a, &inboxes[1])
        };
        let (copy, into) = side.register(vec![0; len], Access::LOCAL_WRITE);
        for round in 0..30 {
            let op = OpId(thread << 32 | round);
            let size = usize::try_from(1 + round * 6_000).expect("small");
            while side
                .fabric
                .read(op, PeerId(peer), remote(from, round, size), local(&into, round, size))
                != Posted::Accepted
            {
                collect(side, inbox);
            }
            let end = Instant::now() + PATIENCE;
            while inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&op)
                .is_none()
            {
                assert!(Instant::now() < end, "no completion of {op:?}");
                collect(side, inbox);
            }
            let at = usize::try_from(round).expect("small");
            assert!(copy.bytes(at, size) == source.bytes(at, size));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let worker = &worker;
            scope.spawn(move || worker(thread));
        }
    });

    fn collect(side: &Side, inbox: &Shared) {
        side.fabric.wait(Duration::from_millis(1));
        let mut out = Vec::new();
        side.fabric.poll(&mut out);
        for completion in out {
            match completion {
                Completion::Done { op } => drop(
                    inbox
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(op, completion),
                ),
                Completion::Ready { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

/// `wake` ends a present or the next wait, once.
pub fn waking_ends_a_wait(factory: Factory) {
    let (_group, a, _b) = pair(factory, &Settings::default());
    a.fabric.wake();
    assert!(a.fabric.wait(PATIENCE), "a wake before the wait counts");
    assert!(!a.fabric.wait(Duration::ZERO), "it counts once");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.fabric.wait(PATIENCE));
        a.fabric.wake();
        assert!(
            waiting.join().expect("waiting does not panic"),
            "a wake during the wait counts"
        );
    });
}

/// A peer that was lost works again after both sides added it.
pub fn a_lost_peer_can_be_added_again(factory: Factory) {
    let (mut group, mut a, mut b) = pair(factory, &brief());
    let (_source, from) = b.register(pattern(5, 1000), Access::REMOTE_READ);
    let (_copy, into) = a.register(vec![0; 1000], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, 1000);
    assert_eq!(a.result(op), Ok(()));
    assert_eq!(
        b.fabric.send(PeerId(0), Bytes::from_static(b"before")),
        Posted::Accepted
    );
    assert!(a.message().1 == "before");
    group.freeze(1);
    let op = a.read(1, &from, &into, 0, 1000);
    assert!(a.result(op).is_err());
    a.lost(PeerId(1));
    group.thaw(1);
    b.lost(PeerId(0));
    meet(&[&a, &b]);
    let op = a.read(1, &from, &into, 0, 1000);
    assert_eq!(a.result(op), Ok(()));
    assert_eq!(b.fabric.send(PeerId(0), Bytes::from_static(b"again")), Posted::Accepted);
    assert!(a.message().1 == "again");
}
