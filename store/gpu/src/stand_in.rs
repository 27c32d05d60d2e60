//! Host memory that stands in for a GPU's: one memfd a block, so that other processes read it as they would the GPU's, without
//! a copy. Owns its blocks and how many bytes they take; it says of itself what it is.

use crate::{Block, DeviceError, DeviceMemory, Export, failed, inside, unchanging};
use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::{Errno, pread, pwrite};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Host memory in a GPU's place.
#[derive(Debug)]
pub struct HostStandIn {
    gpu: u32,
    capacity: u64,
    used: Arc<AtomicU64>,
}

impl HostStandIn {
    /// For GPU `gpu`, with `capacity` bytes.
    #[must_use]
    pub fn new(gpu: u32, capacity: u64) -> Self {
        Self {
            gpu,
            capacity,
            used: Arc::default(),
        }
    }
}

/// The name of what stands in for GPU `gpu`.
pub(crate) fn name(gpu: u32) -> String {
    format!("host memory standing in for GPU {gpu}")
}

impl DeviceMemory for HostStandIn {
    fn name(&self) -> String {
        name(self.gpu)
    }

    fn gpu(&self) -> u32 {
        self.gpu
    }

    fn is_stand_in(&self) -> bool {
        true
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn available(&self) -> Result<u64, DeviceError> {
        Ok(self.capacity.saturating_sub(self.used.load(Ordering::SeqCst)))
    }

    fn allocate(&self, len: u64) -> Result<Box<dyn Block>, DeviceError> {
        let more = |used: u64| used.checked_add(len).filter(|&sum| sum <= self.capacity);
        if self
            .used
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, more)
            .is_err()
        {
            return Err(DeviceError::Full {
                device: self.name(),
                len,
                free: self.available()?,
            });
        }
        let taken = Taken(self.used.clone(), len); // Given back where what follows fails.
        let made = memfd_create("bridgehead-gpu", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .and_then(|fd| ftruncate(&fd, len).map(|()| fd))
            .and_then(|fd| fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK).map(|()| fd));
        let fd = made
            .map_err(std::io::Error::from)
            .map_err(failed(format!("make a block of {len} bytes in {}", self.name())))?;
        Ok(Box::new(HostBlock {
            gpu: self.gpu,
            fd,
            taken,
            writing: Mutex::default(),
            exported: AtomicBool::new(false),
        }))
    }
}

/// Bytes of the stand-in that a block takes, free again when it is dropped.
#[derive(Debug)]
struct Taken(Arc<AtomicU64>, u64);

impl Drop for Taken {
    fn drop(&mut self) {
        self.0.fetch_sub(self.1, Ordering::SeqCst);
    }
}

#[derive(Debug)]
struct HostBlock {
    gpu: u32,
    fd: OwnedFd,
    taken: Taken,
    /// Held while the block is written or sealed, so that no write is cut in two by an export.
    writing: Mutex<()>,
    exported: AtomicBool,
}

impl Block for HostBlock {
    fn len(&self) -> u64 {
        self.taken.1
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        inside(offset, bytes.len(), self.len())?;
        let _whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.exported.load(Ordering::SeqCst) {
            return Err(unchanging());
        }
        let mut done = 0;
        while done < bytes.len() {
            match pwrite(&self.fd, &bytes[done..], offset + done as u64) {
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(format!("write to {}", name(self.gpu)))(error.into())),
            }
        }
        Ok(())
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        inside(offset, into.len(), self.len())?;
        let mut done = 0;
        while done < into.len() {
            let got = pread(&self.fd, &mut into[done..], offset + done as u64);
            match got {
                Ok(0) => return Err(failed("read")(std::io::ErrorKind::UnexpectedEof.into())), // Sealed against shrinking.
                Ok(more) => done += more,
                Err(Errno::INTR) => {}
                Err(error) => return Err(failed(format!("read {}", name(self.gpu)))(error.into())),
            }
        }
        Ok(())
    }

    fn export(&self) -> Result<Export, DeviceError> {
        let doing = || failed(format!("share a block of {}", name(self.gpu)));
        let whole = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.exported.swap(true, Ordering::SeqCst) {
            let sealed = fcntl_add_seals(&self.fd, SealFlags::WRITE | SealFlags::SEAL);
            sealed.map_err(std::io::Error::from).map_err(doing())?;
        }
        drop(whole);
        let fd = self.fd.as_fd().try_clone_to_owned().map_err(doing())?;
        Ok(Export::host(self.gpu, self.len(), fd))
    }
}
