//! What a store has moved, by lane: views of its own memory, other nodes, disk, GPUs. Owns the counts, which only grow.

use std::sync::atomic::{AtomicU64, Ordering};

/// Operations and bytes of one lane.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    operations: AtomicU64,
    bytes: AtomicU64,
}

impl Lane {
    pub(crate) fn add(&self, bytes: u64) {
        self.operations.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn get(&self) -> Moved {
        Moved {
            operations: self.operations.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }
}

/// The lanes of a store, as they are counted.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    pub(crate) local: Lane,
    pub(crate) remote: Lane,
    pub(crate) lent: Lane,
    pub(crate) spilled: Lane,
    pub(crate) restored: Lane,
    pub(crate) to_device: Lane,
    pub(crate) from_device: Lane,
}

/// What went over a lane since the store began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// How often.
    pub operations: u64,
    /// Bytes together.
    pub bytes: u64,
}

/// What a store has moved since it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Objects that calls took or processes asked for, and that were in this node's memory.
    pub local: Moved,
    /// Read from other nodes.
    pub remote: Moved,
    /// Given to other nodes.
    pub lent: Moved,
    /// Written to disk because memory was full.
    pub spilled: Moved,
    /// Read back from there.
    pub restored: Moved,
    /// Copied to the memory of GPUs.
    pub to_device: Moved,
    /// Copied back from there for readers on the host.
    pub from_device: Moved,
    /// Views that processes took without asking, modulo 2^32 for each process.
    pub views: u64,
}

impl Lanes {
    pub(crate) fn traffic(&self, views: u64) -> Traffic {
        Traffic {
            local: self.local.get(),
            remote: self.remote.get(),
            lent: self.lent.get(),
            spilled: self.spilled.get(),
            restored: self.restored.get(),
            to_device: self.to_device.get(),
            from_device: self.from_device.get(),
            views,
        }
    }
}
