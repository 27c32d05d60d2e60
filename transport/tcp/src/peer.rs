//! What this side knows of a peer: where it is, its connections, what is pending with it. Owns the counters of back-pressure.

use crate::address::Address;
use crate::connection::Connection;
use bridgehead_fabric::{PeerId, Reason};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a connection carries. Each is a connection of its own, so that nothing small waits behind bulk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Messages,
    /// Operations up to `SMALL`.
    Small,
    /// Longer operations; there may be several.
    Bulk(usize),
}

/// Operations up to this many bytes take the lane for small ones.
pub(crate) const SMALL: u64 = 64 << 10;

impl Lane {
    pub fn index(self) -> usize {
        match self {
            Self::Messages => 0,
            Self::Small => 1,
            Self::Bulk(at) => 2 + at,
        }
    }

    /// Its number in the handshake.
    pub fn byte(self) -> u8 {
        u8::try_from(self.index().min(2)).expect("at most 2")
    }

    /// Bytes that are received at once where no payload is expected: a bulk lane never stages a payload.
    pub fn stage(byte: u8) -> usize {
        if byte >= 2 { 0 } else { 32 << 10 }
    }
}

/// How the caller regards a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It came by itself and was not added yet.
    Stranger,
    Known,
    Lost(Reason),
    Removed,
}

pub(crate) struct State {
    pub standing: Standing,
    pub address: Option<Address>,
    /// Connections that this side began, by `Lane::index`.
    pub lanes: Vec<Option<Arc<Connection>>>,
    /// Connections that the peer began.
    pub inbound: Vec<Arc<Connection>>,
    /// Which bulk lane is next.
    pub turn: usize,
}

pub(crate) struct Peer {
    pub id: PeerId,
    in_flight: AtomicUsize,
    starved: AtomicBool,
    undelivered: AtomicUsize,
    state: Mutex<State>,
    /// Held while all connections are taken down, so that whoever asks for the same waits until it is done.
    pub closing: Mutex<()>,
}

impl Peer {
    pub fn new(id: PeerId) -> Self {
        let state = State {
            standing: Standing::Stranger,
            address: None,
            lanes: Vec::new(),
            inbound: Vec::new(),
            turn: 0,
        };
        Self {
            id,
            in_flight: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
            undelivered: AtomicUsize::new(0),
            state: Mutex::new(state),
            closing: Mutex::new(()),
        }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for an operation, if there is one; else the peer is starved and hears when there is.
    pub fn take_place(&self, limit: usize) -> bool {
        if self.try_place(limit) {
            return true;
        }
        self.starved.store(true, Ordering::SeqCst);
        // A place may have become free before the mark was set.
        self.try_place(limit)
    }

    fn try_place(&self, limit: usize) -> bool {
        self.in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |count| {
                (count < limit).then_some(count + 1)
            })
            .is_ok()
    }

    /// Gives a place back.
    pub fn free_place(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Notes that the caller was told to come back.
    pub fn starve(&self) {
        self.starved.store(true, Ordering::SeqCst);
    }

    /// Whether the caller waits to hear of room; says so once.
    pub fn take_starved(&self) -> bool {
        self.starved.load(Ordering::Relaxed) && self.starved.swap(false, Ordering::SeqCst)
    }

    /// Counts bytes of messages that wait to be polled; the new sum.
    pub fn add_undelivered(&self, bytes: usize) -> usize {
        self.undelivered.fetch_add(bytes, Ordering::SeqCst) + bytes
    }

    /// The inverse.
    pub fn sub_undelivered(&self, bytes: usize) -> usize {
        self.undelivered.fetch_sub(bytes, Ordering::SeqCst) - bytes
    }

    pub fn undelivered(&self) -> usize {
        self.undelivered.load(Ordering::SeqCst)
    }
}
