//! A block on its way to another process of the node, and opened there for reading. Owns the bytes of an export
//! (`docs/formats/store-memory.md`, "Memory of GPUs") and the mapping of a stand-in's block.

use crate::driver::{Driver, HANDLE, Imported, UUID};
use crate::{DeviceError, failed, stand_in};
use rustix::fs::{SealFlags, fcntl_get_seals, fstat};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::os::fd::OwnedFd;
use std::ptr::NonNull;

const CUDA: u8 = 1;
const HOST: u8 = 2;
/// Kind, GPU, length.
const HEAD: usize = 1 + 4 + 8;

/// What another process of this node needs to read a block where it is: bytes, and a descriptor where it is host memory.
#[derive(Debug)]
pub struct Export {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// Goes beside the bytes.
    pub descriptor: Option<OwnedFd>,
}

impl Export {
    fn head(kind: u8, gpu: u32, len: u64) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend_from_slice(&gpu.to_le_bytes());
        bytes.extend_from_slice(&len.to_le_bytes());
        bytes
    }

    pub(crate) fn host(gpu: u32, len: u64, fd: OwnedFd) -> Self {
        Self {
            bytes: Self::head(HOST, gpu, len),
            descriptor: Some(fd),
        }
    }

    pub(crate) fn cuda(gpu: u32, len: u64, uuid: [u8; UUID], handle: [u8; HANDLE]) -> Self {
        let mut bytes = Self::head(CUDA, gpu, len);
        bytes.extend_from_slice(&uuid);
        bytes.extend_from_slice(&handle);
        Self {
            bytes,
            descriptor: None,
        }
    }
}

/// A block of another process, open for reading.
#[derive(Debug)]
pub struct Opened {
    gpu: u32,
    len: u64,
    memory: Memory,
}

#[derive(Debug)]
enum Memory {
    Cuda(Imported),
    Host(Mapped),
}

/// Opens a block that another process of this node exported and keeps for as long as this lives.
///
/// # Errors
/// The bytes are no export, this process does not see the GPU, or the driver failed.
pub fn open(export: Export) -> Result<Opened, DeviceError> {
    let bad = || DeviceError::Refused("these bytes are no block of a GPU's memory".to_owned());
    let Export { bytes, descriptor } = export;
    let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(bad)?;
    let gpu = u32::from_le_bytes(head[1..5].try_into().expect("four bytes"));
    let len = u64::from_le_bytes(head[5..].try_into().expect("eight bytes"));
    let memory = match (head[0], descriptor) {
        (HOST, Some(fd)) if rest.is_empty() => Memory::Host(Mapped::new(&fd, gpu, len)?),
        (CUDA, None) if rest.len() == UUID + HANDLE => {
            let (uuid, handle) = rest.split_at(UUID);
            let uuid = uuid.try_into().expect("its length was looked at");
            let handle = handle.try_into().expect("its length was looked at");
            Memory::Cuda(Driver::get()?.import(gpu, uuid, handle)?)
        }
        _ => return Err(bad()),
    };
    Ok(Opened { gpu, len, memory })
}

impl Opened {
    /// The number of the GPU on its node, as the agent counts them.
    #[must_use]
    pub fn gpu(&self) -> u32 {
        self.gpu
    }

    /// Bytes of the block.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether it is host memory that stands in for the GPU's.
    #[must_use]
    pub fn is_stand_in(&self) -> bool {
        matches!(self.memory, Memory::Host(_))
    }

    /// The number of the GPU as CUDA counts those that this process sees; 0 for host memory.
    #[must_use]
    pub fn ordinal(&self) -> i32 {
        match &self.memory {
            Memory::Cuda(imported) => imported.ordinal(),
            Memory::Host(_) => 0,
        }
    }

    /// The address of its first byte: of the GPU's memory, or of this process's for a stand-in. Good while this lives; the
    /// block must not be written.
    #[must_use]
    pub fn address(&self) -> u64 {
        match &self.memory {
            Memory::Cuda(imported) => imported.address(),
            Memory::Host(mapped) => mapped.start.as_ptr() as u64,
        }
    }

    /// Copies bytes from `offset` on to host memory.
    ///
    /// # Errors
    /// The range lies outside, or the driver failed.
    pub fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        crate::inside(offset, into.len(), self.len)?;
        match &self.memory {
            Memory::Cuda(imported) => imported.read(offset, into),
            Memory::Host(mapped) => {
                mapped.copy(offset, into);
                Ok(())
            }
        }
    }
}

/// A stand-in's block, mapped for reading. It is sealed, so it neither changes nor shrinks.
#[derive(Debug)]
struct Mapped {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is only ever read: its file is sealed against writes, which was looked at before it was mapped.
#[allow(unsafe_code)]
unsafe impl Send for Mapped {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Mapped {}

impl Mapped {
    #[allow(unsafe_code)]
    fn new(fd: &OwnedFd, gpu: u32, len: u64) -> Result<Self, DeviceError> {
        let doing = || failed(format!("map a block of {}", stand_in::name(gpu)));
        let seals = fcntl_get_seals(fd).map_err(std::io::Error::from).map_err(doing())?;
        let size = fstat(fd).map_err(std::io::Error::from).map_err(doing())?.st_size;
        let whole = u64::try_from(size).is_ok_and(|size| size == len);
        if !seals.contains(SealFlags::SHRINK | SealFlags::WRITE) || !whole {
            return Err(DeviceError::Refused(format!(
                "a block of {} is not sealed, or has not the {len} bytes that it should have",
                stand_in::name(gpu)
            )));
        }
        let len = usize::try_from(len).map_err(|_| doing()(std::io::ErrorKind::OutOfMemory.into()))?;
        // Of a sealed file that only a private mapping is always allowed: older kernels refuse a shared one even for reading.
        // Nothing is copied, since it is never written.
        // SAFETY: a new mapping at an address of the kernel's choice changes no memory of this process.
        let start = unsafe {
            mmap(
                std::ptr::null_mut(),
                len.max(1),
                ProtFlags::READ,
                MapFlags::PRIVATE,
                fd,
                0,
            )
        };
        let start = start.map_err(std::io::Error::from).map_err(doing())?;
        let start = NonNull::new(start.cast()).ok_or_else(|| doing()(std::io::ErrorKind::OutOfMemory.into()))?;
        Ok(Self { start, len })
    }

    #[allow(unsafe_code)]
    fn copy(&self, offset: u64, into: &mut [u8]) {
        if into.is_empty() {
            return;
        }
        // SAFETY: the caller has seen that the range lies inside; the file is sealed, so its bytes neither change nor go away.
        let bytes = unsafe { std::slice::from_raw_parts(self.start.as_ptr().add(offset as usize), into.len()) };
        into.copy_from_slice(bytes);
    }
}

impl Drop for Mapped {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nothing borrows it. A failure leaves it mapped, which is safe.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len.max(1)) };
    }
}
