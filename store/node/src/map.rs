//! Shared memory: sealed memfds and their mappings. The only place of this crate that holds pointers.
//!
//! A memfd is sealed against growing and shrinking before anybody maps it, so that no mapping can ever run past its end:
//! the SIGBUS that truncated shared memory gives cannot happen. Pages are taken by `populate`, which reports a lack of
//! memory as an error where a plain write would be killed.

#![allow(unsafe_code)] // Mappings of shared memory; each site says why it is sound.

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// A sealed memfd of `len` bytes. No page of it is taken yet.
pub(crate) fn sealed(name: &str, len: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    ftruncate(&fd, len)?;
    fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(fd)
}

/// What a mapping is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    /// This process's own: what is written goes to copies of the pages.
    Private,
}

const PAGE: u64 = 4096;

/// A mapping: of a whole memfd, shared, or of some of its pages, private.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    access: Access,
}

// SAFETY: the memory is shared between processes anyhow; all that this type hands out is atomics, or ranges whose
// exclusive or read-only use the store's protocol guarantees (see `slice` and `slice_mut`).
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(fd: impl AsFd, len: u64, access: Access) -> io::Result<Self> {
        let size = usize::try_from(len).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let prot = match access {
            Access::Read => ProtFlags::READ,
            Access::Write | Access::Private => ProtFlags::READ | ProtFlags::WRITE,
        };
        // SAFETY: a new mapping at an address of the kernel's choice changes no memory of this process.
        let start = unsafe { mmap(std::ptr::null_mut(), size, prot, MapFlags::SHARED, fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        let mapping = Self {
            start,
            len: size,
            access,
        };
        // SAFETY: the range is this mapping; an advice changes no contents. Refused where the kernel has no huge pages.
        let _ = unsafe { madvise(start.as_ptr().cast(), size, Advice::LinuxHugepage) };
        Ok(mapping)
    }

    /// A private mapping of the pages that hold a range, and where in it the range begins. Memory for pages to be copied is
    /// not set aside: they are few, mostly.
    pub(crate) fn private(fd: impl AsFd, offset: u64, len: u64) -> io::Result<(Self, usize)> {
        let beyond = || io::Error::from(io::ErrorKind::OutOfMemory);
        let skip = offset % PAGE;
        let size = usize::try_from((skip + len).next_multiple_of(PAGE)).map_err(|_| beyond())?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice changes no memory of this process.
        let start = unsafe { mmap(std::ptr::null_mut(), size, prot, flags, fd, offset - skip) }?;
        let start = NonNull::new(start.cast()).ok_or_else(beyond)?;
        let access = Access::Private;
        let mapping = Self {
            start,
            len: size,
            access,
        };
        Ok((mapping, skip as usize))
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The address of a range that lies inside the mapping.
    pub(crate) fn at(&self, offset: u64, len: u64) -> *mut u8 {
        let end = offset.checked_add(len).and_then(|end| usize::try_from(end).ok());
        assert!(
            end.is_some_and(|end| end <= self.len),
            "{offset}+{len} lies outside the mapping"
        );
        // SAFETY: the range was just checked to lie inside the mapping, so `offset` fits and the sum does not wrap.
        unsafe { self.start.as_ptr().add(offset as usize) }
    }

    /// The bytes of a published object.
    ///
    /// # Safety
    /// While the slice lives, the object's bytes stay where they are and do not change: the caller holds a pin or a lease.
    pub(crate) unsafe fn slice(&self, offset: u64, len: u64) -> &[u8] {
        // SAFETY: inside the mapping by `at`; unchanged by the caller's word.
        unsafe { std::slice::from_raw_parts(self.at(offset, len), len as usize) }
    }

    /// The bytes of a granted range.
    ///
    /// # Safety
    /// The range was granted to the caller, nobody else was lent it, and no other slice of it lives.
    #[allow(clippy::mut_from_ref)] // Exclusive by grant, not by borrow.
    pub(crate) unsafe fn slice_mut(&self, offset: u64, len: u64) -> &mut [u8] {
        assert_eq!(self.access, Access::Write, "a mapping for reading cannot be written to");
        // SAFETY: inside the mapping by `at`; exclusive by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.at(offset, len), len as usize) }
    }

    /// All of it as counters of 32 bits.
    pub(crate) fn words32(&self) -> &[AtomicU32] {
        // SAFETY: page-aligned, valid for the mapping's life, and atomics may be shared between processes.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 4) }
    }

    /// All of it as words of 64 bits.
    pub(crate) fn words64(&self) -> &[AtomicU64] {
        // SAFETY: as `words32`. A mapping for reading is only ever loaded from by its owner.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len / 8) }
    }

    /// The address of the first byte, for those who register memory with a network.
    pub(crate) fn address(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// Takes pages for a range and enters them in this process's page table, so that writing it neither faults nor fails.
    pub(crate) fn populate(&self, fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
        let from = offset - offset % PAGE;
        let to = (offset + len).next_multiple_of(PAGE).min(self.len as u64);
        let size = to - from;
        // SAFETY: the range lies inside the mapping by `at`; populating changes no contents.
        match unsafe { madvise(self.at(from, size).cast(), size as usize, Advice::LinuxPopulateWrite) } {
            // Before Linux 5.14: take the pages through the file; the page table is filled by the writes.
            Err(rustix::io::Errno::INVAL) => {
                rustix::fs::fallocate(fd, rustix::fs::FallocateFlags::KEEP_SIZE, from, size)?;
                Ok(())
            }
            result => Ok(result?),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and slices of it borrow it. A failure leaves it mapped, which is safe.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Gives the pages of a range back to the system; the range reads as zeros after.
pub(crate) fn punch(fd: impl AsFd, offset: u64, len: u64) -> io::Result<()> {
    use rustix::fs::FallocateFlags;
    let how = FallocateFlags::KEEP_SIZE | FallocateFlags::PUNCH_HOLE;
    Ok(rustix::fs::fallocate(fd, how, offset, len)?)
}

/// Bytes of a memfd that take memory.
pub(crate) fn resident(fd: impl AsFd) -> io::Result<u64> {
    let blocks = rustix::fs::fstat(fd)?.st_blocks;
    Ok(u64::try_from(blocks).unwrap_or(0) * 512)
}
