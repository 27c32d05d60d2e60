//! Memory that a fabric may read and write behind the compiler's back. Owns the contract, and a plain buffer that keeps it.
#![allow(unsafe_code)] // The contract of `Memory` is about raw memory; `Buffer` is its one keeper in this crate.

use std::cell::UnsafeCell;
use std::fmt;

/// Memory that can be registered with a fabric.
///
/// # Safety
/// For the whole life of the value, `as_ptr` gives the same address and `len` the same length, and that range is mapped and may
/// be read. If it is registered with `Access::LOCAL_WRITE` or `Access::REMOTE_WRITE`, it may be written as well.
/// The range may be accessed by the fabric's threads and by the kernel at any time between `register` and the drop of the last
/// `Arc`, so nobody may hold a Rust reference into a part that an operation may write, nor a `&mut` into any part. Whoever
/// writes a part while an operation reads it sends an unspecified mixture of old and new bytes, or has the operation
/// fail as `Reason::Damaged`; that is not a memory error.
pub unsafe trait Memory: Send + Sync + 'static {
    /// Address of the first byte.
    fn as_ptr(&self) -> *mut u8;

    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether there is no byte.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A plain buffer on the heap that can be registered: for tests, benchmarks and small staging areas.
pub struct Buffer(Box<[UnsafeCell<u8>]>);

// SAFETY: all access goes through raw pointers, as the contract of `Memory` demands; no reference into the cells is given out.
unsafe impl Send for Buffer {}
// SAFETY: as above.
unsafe impl Sync for Buffer {}

// SAFETY: a boxed slice neither moves nor changes its length while it is owned, and its cells may be written.
unsafe impl Memory for Buffer {
    fn as_ptr(&self) -> *mut u8 {
        UnsafeCell::raw_get(self.0.as_ptr())
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

impl Buffer {
    /// A buffer of `len` zero bytes.
    #[must_use]
    pub fn zeroed(len: usize) -> Self {
        Self::from_bytes(vec![0; len])
    }

    /// A buffer that holds `bytes`.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        let raw = Box::into_raw(bytes.into_boxed_slice());
        // SAFETY: `UnsafeCell<u8>` has the layout of `u8`, and the box was just given up.
        Self(unsafe { Box::from_raw(raw as *mut [UnsafeCell<u8>]) })
    }

    /// A copy of `len` bytes from `offset` on.
    ///
    /// # Panics
    /// The range is outside the buffer.
    #[must_use]
    pub fn bytes(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(
            offset.checked_add(len).is_some_and(|end| end <= self.len()),
            "range outside the buffer"
        );
        let mut copy = vec![0; len];
        // SAFETY: the range was checked, and `copy` is fresh.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr().add(offset), copy.as_mut_ptr(), len) };
        copy
    }

    /// Overwrites the bytes from `offset` on.
    ///
    /// # Panics
    /// The range is outside the buffer.
    pub fn fill(&self, offset: usize, bytes: &[u8]) {
        assert!(
            offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len()),
            "range outside the buffer"
        );
        // SAFETY: the range was checked; no reference into the cells exists.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.as_ptr().add(offset), bytes.len()) };
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} bytes)", self.len())
    }
}
