//! The port itself: the trait and its words. Owns no behaviour beyond checking and printing them.

use crate::Memory;
use bytes::Bytes;
use std::fmt;
use std::ops::BitOr;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;

/// A peer's number: the number of its agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PeerId(pub u32);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}", self.0)
    }
}

/// The caller's name for an operation; the fabric only gives it back. The caller keeps those in flight apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OpId(pub u64);

/// What a region may be used for, besides being the source of this side's own writes, which is always allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access(u8);

impl Access {
    /// Only the source of this side's own writes.
    pub const LOCAL_READ: Self = Self(0);
    /// Destination of this side's own reads.
    pub const LOCAL_WRITE: Self = Self(1);
    /// Peers may read it.
    pub const REMOTE_READ: Self = Self(2);
    /// Peers may write it.
    pub const REMOTE_WRITE: Self = Self(4);
    /// All of the above.
    pub const ALL: Self = Self(7);

    /// Whether everything in `other` is allowed.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Access {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A region of this side, as `register` named it. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RegionKey {
    local: u64,
    remote: RemoteKey,
}

impl RegionKey {
    /// For implementers of `Fabric`: `local` is the number on this side, `remote` what peers need to reach it.
    #[must_use]
    pub fn new(local: u64, remote: RemoteKey) -> Self {
        Self { local, remote }
    }

    /// The number on this side.
    #[must_use]
    pub fn local(&self) -> u64 {
        self.local
    }

    /// What a peer needs to reach the region; its bytes travel in the caller's own messages.
    #[must_use]
    pub fn remote(&self) -> RemoteKey {
        self.remote.clone()
    }
}

/// A region of a peer: bytes that only the fabric understands. They come from the network, so any content is safe to use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteKey(pub Bytes);

/// A part of a peer's region.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RemoteSlice {
    /// The region's key as its owner gave it out.
    pub region: RemoteKey,
    /// First byte, from the start of the region.
    pub offset: u64,
    /// Length in bytes; may be 0.
    pub len: u64,
}

/// A part of a region of this side.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalSlice {
    /// The region.
    pub region: RegionKey,
    /// First byte, from the start of the region.
    pub offset: u64,
    /// Length in bytes; must be the length of the remote slice.
    pub len: u64,
}

/// What a fabric can do; chosen by, shown by `doctor`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// Reads and writes need nothing of the peer's threads at all (true RDMA, shared memory).
    pub one_sided: bool,
    /// Reads and writes need the peer's process to run, though none of its callers to do anything.
    pub needs_remote_progress: bool,
    /// Bytes arrive in their destination without an intermediate buffer in this process.
    pub zero_copy: bool,
    /// The death of a peer's process is noticed without an operation on it.
    pub detects_peer_death: bool,
    /// Bytes altered, replayed or cut on the way are found before the operation completes.
    pub integrity: bool,
    /// Bytes cannot be read on the way.
    pub encrypted: bool,
    /// Longest message of `send`, in bytes.
    pub max_message: usize,
    /// Longest read or write, in bytes.
    pub max_operation: u64,
    /// Operations in flight with one peer before `Posted::Busy`.
    pub max_in_flight: usize,
    /// From this many bytes on a split of a transfer costs next to nothing.
    pub preferred_chunk: usize,
}

/// What became of a request to post. Back-pressure is a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a request that was not accepted did not happen"]
pub enum Posted {
    /// It is on its way; an operation completes exactly once.
    Accepted,
    /// The queue to this peer is full. Nothing happened. `Completion::Ready` tells when to try again.
    Busy,
    /// Only for `send`, which has no completion: it can never succeed so. Nothing happened.
    Refused(Reason),
}

/// Why an operation failed or a peer was lost.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Reason {
    /// `add_peer` was never called for it, or `remove_peer` was.
    #[error("the peer is not known: add it first")]
    UnknownPeer,
    /// The connection broke or could not be made; the peer has to be added again.
    #[error("the peer is lost: {0}")]
    PeerLost(Arc<str>),
    /// The peer was removed while this was pending.
    #[error("the peer was removed while the operation was pending")]
    PeerRemoved,
    /// The peer owes an answer and has been silent for the time limit; it may live, but is given up.
    #[error("the peer was silent for {0:?} with operations pending")]
    TimedOut(Duration),
    /// The local region is not registered (any more).
    #[error("the local region is not registered")]
    UnknownLocalRegion,
    /// The peer has no region of that key, or has no more.
    #[error("the peer has no region of that key (never registered, deregistered, or of an earlier process)")]
    UnknownRemoteRegion,
    /// The region was deregistered while this was pending.
    #[error("the region was deregistered while the operation was pending")]
    Deregistered,
    /// The local slice leaves its region.
    #[error("the local slice leaves its region")]
    LocalOutOfRange,
    /// The remote slice leaves its region.
    #[error("the remote slice leaves its region")]
    RemoteOutOfRange,
    /// The region was not registered for this use.
    #[error("the {side} region was not registered for this use")]
    AccessDenied {
        /// "local" or "remote".
        side: &'static str,
    },
    /// The bytes did not match their code.
    #[error("the bytes were altered on the way, or changed at their source while they were sent")]
    Damaged,
    /// The two slices of an operation differ in length.
    #[error("the slices differ in length: local {local} bytes, remote {remote} bytes")]
    LengthsDiffer {
        /// Bytes of the local slice.
        local: u64,
        /// Bytes of the remote slice.
        remote: u64,
    },
    /// Longer than the fabric carries at once.
    #[error("{len} bytes are over the limit of {limit}")]
    TooLong {
        /// Bytes asked for.
        len: u64,
        /// Bytes allowed.
        limit: u64,
    },
}

/// What cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FabricError {
    /// The address is not one of this fabric's.
    #[error("the address of {peer} is not one of this fabric: {reason}")]
    Address {
        /// Whose address.
        peer: PeerId,
        /// What is wrong with it.
        reason: String,
    },
    /// The system refused.
    #[error("{what}: {reason}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        reason: String,
    },
}

/// News that `Fabric::poll` gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Completion {
    /// The operation is complete: the bytes of a read are in local memory, those of a write in the peer's.
    Done {
        /// Which.
        op: OpId,
    },
    /// The operation has failed and will never touch local memory again; the destination's bytes are unspecified.
    Failed {
        /// Which.
        op: OpId,
        /// Why.
        reason: Reason,
    },
    /// A message came.
    Message {
        /// From whom.
        peer: PeerId,
        /// Its bytes.
        message: Bytes,
    },
    /// After `Posted::Busy`, once: there is room again in the queue to this peer.
    Ready {
        /// Which.
        peer: PeerId,
    },
    /// The peer is gone: all its pending operations have failed, and messages may be lost. `add_peer` gives it a new chance.
    PeerLost {
        /// Which.
        peer: PeerId,
        /// Why.
        reason: Reason,
    },
}

/// A network that carries bytes between registered regions. Object safe; shared as `Arc<dyn Fabric>`; every method may be
/// called from any thread. Completions go to whoever polls.
pub trait Fabric: Send + Sync + 'static {
    /// "tcp", "sim", ...
    fn name(&self) -> &'static str;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Where peers find this side; opaque, given to them through the control channel.
    fn address(&self) -> Bytes;

    /// Makes a peer known, or gives a lost one a new chance. May connect later. A peer may send and read before it is added here.
    ///
    /// # Errors
    /// The address is not one of this fabric.
    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError>;

    /// Forgets a peer: everything pending with it fails before this returns, and it is refused until it is added again.
    fn remove_peer(&self, peer: PeerId);

    /// Makes memory reachable. It stays alive (the `Arc` is kept) until it is deregistered and the last operation on it ended.
    ///
    /// # Errors
    /// The system refused the registration.
    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError>;

    /// Takes memory back: when this returns, pending operations on it have failed or fail at the peer, and no byte of it is
    /// touched again. An unknown key is ignored.
    fn deregister(&self, key: &RegionKey);

    /// Reads `from` of the peer into `into`. Invalid slices complete as `Failed`.
    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted;

    /// Writes `from` into `into` of the peer. Invalid slices complete as `Failed`.
    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted;

    /// Sends a small message; ordered per peer.
    fn send(&self, peer: PeerId, message: Bytes) -> Posted;

    /// Appends what there is to `out` and says how many. Never blocks.
    fn poll(&self, out: &mut Vec<Completion>) -> usize;

    /// Waits until `poll` may have something, `wake` was called, or `limit` is over; says whether it was not the limit.
    fn wait(&self, limit: Duration) -> bool;

    /// Ends one present or the next `wait`.
    fn wake(&self);
}
