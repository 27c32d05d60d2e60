//! The laws that every fabric keeps, as functions over a group of fabrics; `laws!` makes a test of each. They panic where a law
//! is broken. They wait on completions, never on time, and any thread may do a fabric's work.

mod moving;
mod peers;

pub use moving::*;
pub use peers::*;

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

/// Makes a test of each law over the factory. With `when`, a function that gives the reason why there is nothing to test, if so: it is
/// printed, and the law counts as skipped.
#[macro_export]
macro_rules! laws {
    ($factory:expr) => {
        $crate::laws!($factory, when || Ok(()));
    };
    ($factory:expr, when $ready:expr) => {
        $crate::laws!(@each $factory, $ready;
            reads_and_writes_of_all_sizes, slices_move_exactly_their_bytes, many_operations_in_flight,
            messages_arrive_in_order, a_full_queue_is_busy_and_recovers, messages_wait_for_a_slow_receiver,
            a_killed_peer_fails_what_is_pending, a_frozen_peer_is_given_up, late_data_touches_nothing,
            a_removed_peer_is_refused, wrong_requests_fail_where_they_are_made, deregistered_while_in_flight,
            both_directions_at_once, sixteen_threads, waking_ends_a_wait, a_lost_peer_can_be_added_again);
    };
    (@each $factory:expr, $ready:expr; $($law:ident),*) => {
        $(#[test]
        fn $law() {
            let ready: fn() -> Result<(), String> = $ready;
            match ready() {
                Ok(()) => $crate::conformance::$law($factory),
                Err(reason) => println!("skipped 1: {}: {reason}", stringify!($law)),
            }
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

fn brief() -> Settings {
    Settings {
        timeout: Duration::from_secs(2),
        freezes: true,
        ..Settings::default()
    }
}
