//! The memory of GPUs, behind a port: blocks that are written once from host memory, read back, and opened by other processes
//! of the node without a copy. Two implementations: [`Cuda`], over libcuda opened at run time, and [`HostStandIn`], host memory
//! that says of itself that it stands in for a GPU. Knows nothing of objects.
//!
//! Hot path: `Block::write`, `Block::read`, once an object each.

mod cuda;
mod driver;
mod export;
mod stand_in;

pub use cuda::Cuda;
pub use export::{Export, Opened, open};
pub use stand_in::HostStandIn;

use std::sync::Arc;
use thiserror::Error;

/// Why memory of a device did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// It is full.
    #[error("{device} has no room for {len} bytes: {free} are free")]
    Full {
        /// The device's name.
        device: String,
        /// What was asked for.
        len: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A range lies outside its block, or the block was exported and does not change any more.
    #[error("{0}")]
    Refused(String),
    /// There is no such device, or no driver.
    #[error("{0}")]
    Absent(String),
    /// The driver or the system failed.
    #[error("cannot {doing}: {why}")]
    Failed {
        /// The verb.
        doing: String,
        /// The driver's or the system's words.
        why: String,
    },
}

pub(crate) fn failed(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> DeviceError {
    let doing = doing.into();
    move |why| DeviceError::Failed {
        doing,
        why: why.to_string(),
    }
}

/// The memory of one GPU.
pub trait DeviceMemory: Send + Sync + std::fmt::Debug {
    /// What it is, for people: the GPU's model, or that host memory stands in for it.
    fn name(&self) -> String;

    /// The number of its GPU on this node, as the agent counts them.
    fn gpu(&self) -> u32;

    /// Whether it is host memory.
    fn is_stand_in(&self) -> bool;

    /// Bytes of memory that the device has.
    fn capacity(&self) -> u64;

    /// Bytes of it that are free now; others may use it too.
    ///
    /// # Errors
    /// The driver failed.
    fn available(&self) -> Result<u64, DeviceError>;

    /// Takes `len` bytes, which are free again when the block is dropped. Their contents are undefined.
    ///
    /// # Errors
    /// There is no room, or the driver failed.
    fn allocate(&self, len: u64) -> Result<Box<dyn Block>, DeviceError>;
}

/// A range of a device's memory. Written before it is exported, never after.
pub trait Block: Send + Sync + std::fmt::Debug {
    /// Its bytes.
    fn len(&self) -> u64;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Copies `bytes` from host memory to `offset`; they are there for every process when this returns.
    ///
    /// # Errors
    /// The range lies outside, the block was exported, or the driver failed.
    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Copies bytes from `offset` on to host memory.
    ///
    /// # Errors
    /// The range lies outside, or the driver failed.
    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError>;

    /// What another process of this node needs to read the block where it is. It has to stay for as long as that does.
    ///
    /// # Errors
    /// The driver cannot share it.
    fn export(&self) -> Result<Export, DeviceError>;
}

/// Refuses a range that does not lie in a block of `whole` bytes.
pub(crate) fn inside(offset: u64, len: usize, whole: u64) -> Result<(), DeviceError> {
    if offset.checked_add(len as u64).is_some_and(|end| end <= whole) {
        return Ok(());
    }
    Err(DeviceError::Refused(format!(
        "{len} bytes from {offset} on are not all in a block of {whole} bytes"
    )))
}

pub(crate) fn unchanging() -> DeviceError {
    DeviceError::Refused("the block was exported: it does not change any more".to_owned())
}

/// A device of this node, and why host memory stands in for it where it does.
#[derive(Debug, Clone)]
pub struct Device {
    /// Its memory.
    pub memory: Arc<dyn DeviceMemory>,
    /// Why CUDA does not have it; `None` where it does.
    pub why: Option<String>,
}

/// The memory of the node's GPUs 0 to `count`: CUDA's where libcuda opens and has that device, else host memory of
/// `stand_in` bytes.
#[must_use]
pub fn devices(count: u32, stand_in: u64) -> Vec<Device> {
    let device = |gpu| match Cuda::open(gpu) {
        Ok(cuda) => Device {
            memory: Arc::new(cuda),
            why: None,
        },
        Err(error) => Device {
            memory: Arc::new(HostStandIn::new(gpu, stand_in)),
            why: Some(error.to_string()),
        },
    };
    (0..count).map(device).collect()
}

/// What CUDA says of this machine, for people: how many GPUs it has, or why there are none.
///
/// # Errors
/// There is no libcuda, or it has no device.
pub fn cuda_devices() -> Result<u32, DeviceError> {
    driver::Driver::get().and_then(driver::Driver::count)
}
