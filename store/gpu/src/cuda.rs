//! The memory of an NVIDIA GPU, over libcuda. Owns its allocations; the calls are `driver`'s.

use crate::driver::Driver;
use crate::{Block, DeviceError, DeviceMemory, Export, inside, unchanging};
use std::sync::{Mutex, PoisonError};

/// An NVIDIA GPU that this process sees.
#[derive(Debug)]
pub struct Cuda {
    driver: &'static Driver,
    gpu: u32,
    device: i32,
    model: String,
    capacity: u64,
}

impl Cuda {
    /// GPU `gpu`, as CUDA counts those that this process sees. Its context, which takes memory of the GPU, is made when memory is
    /// first allocated.
    ///
    /// # Errors
    /// There is no libcuda, it is too old, or it has no such device.
    pub fn open(gpu: u32) -> Result<Self, DeviceError> {
        let driver = Driver::get()?;
        let device = driver.device(gpu)?;
        Ok(Self {
            driver,
            gpu,
            device,
            model: driver.name(device)?,
            capacity: driver.total(device)?,
        })
    }
}

impl DeviceMemory for Cuda {
    fn name(&self) -> String {
        format!("GPU {}: {}, by CUDA", self.gpu, self.model)
    }

    fn gpu(&self) -> u32 {
        self.gpu
    }

    fn is_stand_in(&self) -> bool {
        false
    }

    fn capacity(&self) -> u64 {
        self.capacity
    }

    fn available(&self) -> Result<u64, DeviceError> {
        self.driver.available(self.device)
    }

    fn allocate(&self, len: u64) -> Result<Box<dyn Block>, DeviceError> {
        let Some(address) = self.driver.allocate(self.device, len)? else {
            return Err(DeviceError::Full {
                device: self.name(),
                len,
                free: self.available()?,
            });
        };
        Ok(Box::new(CudaBlock {
            driver: self.driver,
            gpu: self.gpu,
            device: self.device,
            address,
            len,
            exported: Mutex::default(),
        }))
    }
}

#[derive(Debug)]
struct CudaBlock {
    driver: &'static Driver,
    gpu: u32,
    device: i32,
    address: u64,
    len: u64,
    /// Held while it is written, so that no write goes on after an export.
    exported: Mutex<bool>,
}

impl Block for CudaBlock {
    fn len(&self) -> u64 {
        self.len
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        inside(offset, bytes.len(), self.len)?;
        let exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        if *exported {
            return Err(unchanging());
        }
        self.driver.write(self.device, self.address + offset, bytes)
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        inside(offset, into.len(), self.len)?;
        self.driver.read(self.device, self.address + offset, into)
    }

    fn export(&self) -> Result<Export, DeviceError> {
        *self.exported.lock().unwrap_or_else(PoisonError::into_inner) = true;
        let handle = self.driver.handle(self.device, self.address)?;
        Ok(Export::cuda(self.gpu, self.len, self.driver.uuid(self.device)?, handle))
    }
}

impl Drop for CudaBlock {
    fn drop(&mut self) {
        // A driver that fails here has lost its context, and the memory with it.
        let _ = self.driver.free(self.device, self.address);
    }
}
