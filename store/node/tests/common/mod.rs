//! What the suites of a node's store share: bytes that are known by a number, and waiting for a condition.

use std::time::{Duration, Instant};

/// Bytes that differ by seed and place.
pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|i| (i.wrapping_mul(31).wrapping_add(seed * 7) >> 3) as u8)
        .collect()
}

/// Waits until it holds, no longer than `limit`.
pub fn wait_until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "in vain waited until {what}");
        std::thread::yield_now();
    }
}
