//! Registered regions: range checks, and the only place that turns their memory into slices.
#![allow(unsafe_code)] // Registered memory is raw memory under the contract of `bridgehead_fabric::Memory`.

use bridgehead_fabric::{Access, Memory};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// One registered region.
pub(crate) struct Region {
    memory: Arc<dyn Memory>,
    pub access: Access,
    gone: AtomicBool,
}

impl Region {
    /// Whether the region was deregistered.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::SeqCst)
    }

    /// Whether the range lies inside.
    pub fn contains(&self, offset: u64, len: u64) -> bool {
        offset
            .checked_add(len)
            .is_some_and(|end| end <= self.memory.len() as u64)
    }

    /// Address of the byte at `offset`, which starts a range of `len` bytes.
    pub fn at(&self, offset: u64, len: usize) -> *mut u8 {
        assert!(
            self.contains(offset, len as u64),
            "ranges are checked before they are used"
        );
        // SAFETY: the range lies inside the memory, which is mapped as long as the `Arc` lives.
        unsafe {
            self.memory
                .as_ptr()
                .add(usize::try_from(offset).expect("inside memory"))
        }
    }

    /// The range as bytes, to compute codes of.
    pub fn bytes(&self, offset: u64, len: usize) -> &[u8] {
        // SAFETY: `at` checked the range; the contract of `Memory` makes it readable for the life of `self`. A peer or a local
        // writer that breaks the caller's promise may change bytes meanwhile, which at worst makes a code mismatch.
        unsafe { std::slice::from_raw_parts(self.at(offset, len), len) }
    }

    /// The range as bytes that were just received, to check and decrypt them.
    #[allow(clippy::mut_from_ref)] // The region is raw memory; the receiving connection is the only one to use this range.
    pub fn bytes_mut(&self, offset: u64, len: usize) -> &mut [u8] {
        // SAFETY: as in `bytes`; the region was registered for writing, which was checked before the range was accepted.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset, len), len) }
    }

    /// Copies `bytes` to `offset`.
    pub fn fill(&self, offset: u64, bytes: &[u8]) {
        // SAFETY: `at` checked the range, and `bytes` is a staging buffer outside of all regions.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset, bytes.len()), bytes.len()) };
    }
}

/// All regions of a fabric by number.
#[derive(Default)]
pub(crate) struct Regions {
    next: AtomicU64,
    table: RwLock<HashMap<u64, Arc<Region>>>,
}

impl Regions {
    pub fn add(&self, memory: Arc<dyn Memory>, access: Access) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let region = Arc::new(Region {
            memory,
            access,
            gone: AtomicBool::new(false),
        });
        self.table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, region);
        number
    }

    pub fn get(&self, number: u64) -> Option<Arc<Region>> {
        self.table
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    /// Takes the region out and marks it, so that whoever still holds it stops at the next check.
    pub fn remove(&self, number: u64) -> Option<Arc<Region>> {
        let region = self
            .table
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number)?;
        region.gone.store(true, Ordering::SeqCst);
        Some(region)
    }
}
