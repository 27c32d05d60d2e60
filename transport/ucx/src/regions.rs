//! Registered regions: range checks, the registration, and the counter of operations that use them.
#![allow(unsafe_code)] // Registered memory is raw memory under the contract of `bridgehead_fabric::Memory`.

use crate::context::{Context, Mapped};
use bridgehead_fabric::{Access, Memory};
use bridgehead_ucx_sys as sys;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// One registered region. UCX's handle goes before the memory does.
pub(crate) struct Region {
    mapped: Option<Mapped>,
    memory: Arc<dyn Memory>,
    pub access: Access,
    /// Operations of this side that UCX has.
    in_use: AtomicUsize,
}

impl Region {
    pub fn new(context: &Arc<Context>, memory: Arc<dyn Memory>, access: Access) -> Result<Self, String> {
        let rights = [
            (Access::LOCAL_READ, sys::MEM_MAP_PROT_LOCAL_READ),
            (
                Access::LOCAL_WRITE,
                sys::MEM_MAP_PROT_LOCAL_READ | sys::MEM_MAP_PROT_LOCAL_WRITE,
            ),
            (Access::REMOTE_READ, sys::MEM_MAP_PROT_REMOTE_READ),
            // A device that lets peers write lets this side write too, by InfiniBand's rules.
            (
                Access::REMOTE_WRITE,
                sys::MEM_MAP_PROT_LOCAL_WRITE | sys::MEM_MAP_PROT_REMOTE_WRITE,
            ),
        ];
        let prot = rights
            .iter()
            .filter(|(right, _)| access.contains(*right))
            .fold(0, |prot, (_, bits)| prot | bits);
        let mapped = context.map(memory.as_ptr(), memory.len(), prot)?;
        Ok(Self {
            mapped,
            ..Self::unmapped(memory, access)
        })
    }

    /// One that UCX need not know, because all that goes to it and comes from it is copied.
    pub fn unmapped(memory: Arc<dyn Memory>, access: Access) -> Self {
        Self {
            mapped: None,
            memory,
            access,
            in_use: AtomicUsize::new(0),
        }
    }

    /// Whether peers may do anything with it.
    pub fn is_remote(&self) -> bool {
        self.access.contains(Access::REMOTE_READ) || self.access.contains(Access::REMOTE_WRITE)
    }

    /// First byte, length, and what a peer's UCX needs, which is nothing where there is no byte.
    pub fn grant(&self) -> Result<(u64, u64, Vec<u8>), String> {
        let packed = self.mapped.as_ref().map_or(Ok(Vec::new()), Mapped::pack)?;
        Ok((self.memory.as_ptr() as u64, self.memory.len() as u64, packed))
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

    /// Copies `bytes` to `offset`.
    pub fn fill(&self, offset: u64, bytes: &[u8]) {
        // SAFETY: `at` checked the range, and `bytes` is a staging or a message, outside of all regions.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.at(offset, bytes.len()), bytes.len()) };
    }

    /// Appends a copy of `len` bytes from `offset` on.
    pub fn copy(&self, offset: u64, len: usize, out: &mut Vec<u8>) {
        out.reserve_exact(len);
        let from = self.at(offset, len);
        // SAFETY: `at` checked the range, and the vector has room for it behind its last byte.
        unsafe {
            std::ptr::copy_nonoverlapping(from, out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
    }

    /// Tells UCX that the memory is registered.
    pub fn hand_over(&self, param: &mut sys::RequestParam) {
        if let Some(mapped) = &self.mapped {
            param.op_attr_mask |= sys::OP_ATTR_FIELD_MEMH;
            param.memh = mapped.raw;
        }
    }

    pub fn begin(&self) {
        self.in_use.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end(&self) {
        self.in_use.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn is_used(&self) -> bool {
        self.in_use.load(Ordering::SeqCst) > 0
    }
}
