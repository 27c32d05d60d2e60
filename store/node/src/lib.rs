//! The store of one node: arenas in shared memory, index, leases, spill, remote reads.
