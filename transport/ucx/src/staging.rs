//! Memory of the fabric's own that UCX reads into where it might keep it for longer than an operation lasts, and the pool of it.
#![allow(unsafe_code)] // UCX writes it behind the compiler's back.

use std::cell::UnsafeCell;

/// Bytes that are kept for the next operations.
const MOST: usize = 64 << 20;

/// Memory that UCX may write.
pub(crate) struct Staging(Vec<UnsafeCell<u8>>);

// SAFETY: it is written by UCX through `at` while nobody reads it, and read through `bytes` when UCX is through with it.
unsafe impl Sync for Staging {}

impl Staging {
    /// The first of so many bytes.
    pub fn at(&self, len: usize) -> *mut u8 {
        assert!(len <= self.0.len(), "a staging is as long as what goes through it");
        UnsafeCell::raw_get(self.0.as_ptr())
    }

    /// What UCX wrote; it must be through.
    pub fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: `at` checked the length; the token that kept the staging from others has come back.
        unsafe { std::slice::from_raw_parts(self.at(len), len) }
    }
}

/// Stagings that are free.
#[derive(Default)]
pub(crate) struct Pool {
    free: Vec<Staging>,
    bytes: usize,
}

impl Pool {
    /// One that holds so many bytes.
    pub fn take(&mut self, len: usize) -> Staging {
        let fitting = self
            .free
            .iter()
            .enumerate()
            .filter(|(_, staging)| staging.0.len() >= len);
        if let Some((at, _)) = fitting.min_by_key(|(_, staging)| staging.0.len()) {
            let staging = self.free.swap_remove(at);
            self.bytes -= staging.0.len();
            return staging;
        }
        let mut cells = Vec::new();
        cells.resize_with(len.next_power_of_two(), || UnsafeCell::new(0));
        Staging(cells)
    }

    /// Gives one back.
    pub fn put(&mut self, staging: Option<Staging>) {
        if let Some(staging) = staging.filter(|staging| self.bytes + staging.0.len() <= MOST) {
            self.bytes += staging.0.len();
            self.free.push(staging);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_gives_what_fits_best_and_keeps_no_more_than_its_limit() {
        let mut pool = Pool::default();
        let sizes = [100, 5000, MOST];
        let stagings: Vec<_> = sizes.map(|len| pool.take(len)).into();
        stagings.into_iter().for_each(|staging| pool.put(Some(staging)));
        assert_eq!(
            (pool.free.len(), pool.bytes),
            (2, 128 + 8192),
            "the largest would go over the limit"
        );
        assert_eq!(pool.take(101).0.len(), 128);
        assert_eq!(pool.take(101).0.len(), 8192);
        assert_eq!(pool.take(101).0.len(), 128, "made anew");
    }
}
