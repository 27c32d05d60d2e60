//! Memory of the fabric's own that UCX reads into where it might keep it for longer than an operation lasts, and the pool of it.
#![allow(unsafe_code)] // UCX writes it behind the compiler's back.

use bridgehead_fabric::{Buffer, Memory};

/// Bytes that are kept for the next operations.
const MOST: usize = 128 << 20;

/// Memory that UCX may write.
pub(crate) struct Staging(Buffer);

impl Staging {
    fn len(&self) -> usize {
        self.0.len()
    }

    /// The first of so many bytes.
    pub fn at(&self, len: usize) -> *mut u8 {
        assert!(len <= self.len(), "a staging is as long as what goes through it");
        self.0.as_ptr()
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
        let fitting = self.free.iter().enumerate().filter(|(_, staging)| staging.len() >= len);
        match fitting.min_by_key(|(_, staging)| staging.len()) {
            Some((at, _)) => {
                let staging = self.free.swap_remove(at);
                self.bytes -= staging.len();
                staging
            }
            None => Staging(Buffer::zeroed(len.next_power_of_two())),
        }
    }

    /// Gives one back. Those that were not used for longest make room for it.
    pub fn put(&mut self, staging: Option<Staging>) {
        let Some(staging) = staging.filter(|staging| staging.len() <= MOST) else {
            return;
        };
        self.bytes += staging.len();
        self.free.push(staging);
        while self.bytes > MOST {
            self.bytes -= self.free.remove(0).len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_gives_what_fits_best_and_keeps_no_more_than_its_limit() {
        let mut pool = Pool::default();
        let stagings: Vec<_> = [100, 5000].map(|len| pool.take(len)).into();
        stagings.into_iter().for_each(|staging| pool.put(Some(staging)));
        assert_eq!((pool.free.len(), pool.bytes), (2, 128 + 8192));
        assert_eq!(
            (pool.take(101).len(), pool.take(101).len()),
            (128, 8192),
            "the best first"
        );
        assert_eq!(pool.take(101).len(), 128, "made anew");
        for _ in 0..3 {
            pool.put(Some(Staging(Buffer::zeroed(MOST / 2))));
        }
        assert_eq!(pool.bytes, MOST);
    }
}
