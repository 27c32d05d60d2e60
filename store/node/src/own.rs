//! A process's own, writable copy of an object: of large ones a private mapping of their pages, of small ones a copy. Owns
//! that choice. A page of a mapping is copied when it is first written; what is not written is the store's memory still,
//! so the lease is held for as long as the mapping lives. Each copy has a mapping of its own: what one writes no other sees.

#![allow(unsafe_code)] // The memory behind a copy; each site says why it is sound.

use crate::client::Lease;
use crate::map::Mapping;

/// Objects from this many bytes on are mapped. Below, a copy costs less than making and removing a mapping
/// (`benchmarks/README.md`, "views").
const MAPPED: u64 = 512 << 10;

/// Memory of this process alone, which begins as an object's bytes. Nothing that is written to it changes the object.
#[derive(Debug)]
pub struct Own(Memory);

#[derive(Debug)]
enum Memory {
    /// The object begins so many bytes into the mapping, and is so long. Dropped before the lease that keeps its pages.
    Mapped(Mapping, usize, usize, #[allow(dead_code)] Lease), // Only held.
    /// From `Box::into_raw`.
    Copied(*mut [u8]),
}

// SAFETY: it is memory like any other; who writes it through the pointer sees to it that nobody else does at that time.
unsafe impl Send for Own {}
// SAFETY: as above; this type itself reads and writes nothing.
unsafe impl Sync for Own {}

impl Own {
    /// A copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        Self(Memory::Copied(Box::into_raw(bytes.into())))
    }

    /// The first byte, for as long as this lives.
    #[must_use]
    pub fn as_mut_ptr(&self) -> *mut u8 {
        match &self.0 {
            // The object lies inside the mapping, so this stays in it.
            Memory::Mapped(mapping, skip, ..) => mapping.address().wrapping_add(*skip),
            Memory::Copied(bytes) => bytes.cast(),
        }
    }

    /// Bytes of the object.
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.0 {
            Memory::Mapped(_, _, len, _) => *len,
            Memory::Copied(bytes) => bytes.len(),
        }
    }

    /// Whether the object is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether its pages are the store's until they are written.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Memory::Mapped(..))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Memory::Copied(bytes) = self.0 {
            // SAFETY: it came from `Box::into_raw` and goes back once; who had the pointer knows that it ends here.
            drop(unsafe { Box::from_raw(bytes) });
        }
    }
}

impl Lease {
    /// A writable copy of the object for this process.
    #[must_use]
    pub fn own(self) -> Own {
        let len = self.bytes().len();
        if len as u64 >= MAPPED {
            let (arena, offset) = self.place();
            // A process that has all the mappings it may have is given a copy.
            if let Ok((mapping, skip)) = Mapping::private(arena, offset, len as u64) {
                return Own(Memory::Mapped(mapping, skip, len, self));
            }
        }
        Own::copy_of(self.bytes())
    }
}
