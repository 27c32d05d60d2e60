//! Wakes a thread that waits in `poll`. Owns one eventfd.

use crate::bootstrap::BootError;
use rustix::event::{EventfdFlags, eventfd};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

pub(crate) struct Waker {
    fd: OwnedFd,
}

impl Waker {
    pub fn new() -> Result<Self, BootError> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let fd = fd.map_err(|e| BootError::System {
            what: "no eventfd for a gang",
            source: e.into(),
        })?;
        Ok(Self { fd })
    }

    /// The descriptor is readable from now on.
    pub fn wake(&self) {
        // It fails only when it was woken very often and not cleared: then it is readable.
        let _ = rustix::io::write(&self.fd, &1_u64.to_ne_bytes());
    }

    /// It is not, until it is woken again. What it stands for is looked at after this.
    pub fn clear(&self) {
        let _ = rustix::io::read(&self.fd, &mut [0_u8; 8]);
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
