//! libcuda, opened at run time: the functions of the driver's interface that the store needs, declared by hand after `cuda.h`
//! (CUDA 12.9; all of them are in drivers since 11.4), and safe calls of them. Owns the library and one primary context a device,
//! which both stay for the life of the process, as the runtime library's own do.

#![allow(unsafe_code)] // Calls of a C library; each site says why it is sound.

use crate::DeviceError;
use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Names the library's file, where the loader does not find it.
const NAMED: &str = "BRIDGEHEAD_CUDA";
const LIBRARY: &str = "libcuda.so.1";
/// Bytes of a device's UUID.
pub(crate) const UUID: usize = 16;
/// Bytes of a handle for other processes (`CU_IPC_HANDLE_SIZE`).
pub(crate) const HANDLE: usize = 64;

/// `CUresult`.
type Status = c_int;
const SUCCESS: Status = 0;
const OUT_OF_MEMORY: Status = 2;
/// `CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS`, the only flag, which has to be given.
const LAZY: c_uint = 1;

/// `CUdevice`: its number among those that this process sees.
type Ordinal = c_int;
/// `CUdeviceptr`, on machines of 64 bits.
type Address = u64;

/// `CUcontext`.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
struct Context(*mut c_void);

// SAFETY: a context may be current on several threads at once, and may be used from any.
unsafe impl Send for Context {}

/// `CUipcMemHandle`, which C passes by value.
#[derive(Clone, Copy)]
#[repr(C)]
struct Handle([u8; HANDLE]);

macro_rules! table {
    ($($name:ident: $symbol:ident($($arg:ty),*);)*) => {
        struct Table {
            $($name: unsafe extern "C" fn($($arg),*) -> Status,)*
        }

        impl Table {
            fn fill(library: &Library) -> Result<Self, DeviceError> {
                Ok(Self {
                    $(
                        // SAFETY: the type is that of cuda.h; the library is never closed, so the pointer stays good.
                        $name: *unsafe { library.get(stringify!($symbol).as_bytes()) }.map_err(|_| {
                            let old = concat!("it has no function ", stringify!($symbol), ": CUDA 11.4 or newer is needed");
                            DeviceError::Absent(old.to_owned())
                        })?,
                    )*
                })
            }
        }
    };
}

table! {
    init: cuInit(c_uint);
    error_string: cuGetErrorString(Status, *mut *const c_char);
    count: cuDeviceGetCount(*mut c_int);
    device: cuDeviceGet(*mut Ordinal, c_int);
    name: cuDeviceGetName(*mut c_char, c_int, Ordinal);
    uuid: cuDeviceGetUuid_v2(*mut [u8; UUID], Ordinal);
    total: cuDeviceTotalMem_v2(*mut usize, Ordinal);
    retain: cuDevicePrimaryCtxRetain(*mut Context, Ordinal);
    push: cuCtxPushCurrent_v2(Context);
    pop: cuCtxPopCurrent_v2(*mut Context);
    synchronize: cuCtxSynchronize();
    info: cuMemGetInfo_v2(*mut usize, *mut usize);
    alloc: cuMemAlloc_v2(*mut Address, usize);
    free: cuMemFree_v2(Address);
    to_device: cuMemcpyHtoD_v2(Address, *const c_void, usize);
    to_host: cuMemcpyDtoH_v2(*mut c_void, Address, usize);
    handle: cuIpcGetMemHandle(*mut Handle, Address);
    open: cuIpcOpenMemHandle_v2(*mut Address, Handle, c_uint);
    close: cuIpcCloseMemHandle(Address);
}

/// The open library.
pub(crate) struct Driver {
    table: Table,
    contexts: Mutex<HashMap<Ordinal, Context>>,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("libcuda")
    }
}

impl Driver {
    /// The library, opened and initialised by the first call; an answer stays what it is for the life of the process.
    pub(crate) fn get() -> Result<&'static Self, DeviceError> {
        static OPEN: OnceLock<Result<Driver, DeviceError>> = OnceLock::new();
        OPEN.get_or_init(Self::load).as_ref().map_err(Clone::clone)
    }

    fn load() -> Result<Self, DeviceError> {
        let path = std::env::var_os(NAMED).unwrap_or_else(|| LIBRARY.into());
        // SAFETY: opening a library runs its initialisers, as linking it would; it is the driver that the user named.
        let library = unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_LOCAL) };
        let library = library.map_err(|error| {
            let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            DeviceError::Absent(format!("CUDA's driver cannot be opened: {why}"))
        })?;
        let table = Table::fill(&library)?;
        std::mem::forget(library); // Threads of the driver may run until the process ends.
        let driver = Self {
            table,
            contexts: Mutex::default(),
        };
        // SAFETY: a plain call; the flags must be 0.
        driver.check("start CUDA", unsafe { (driver.table.init)(0) })?;
        Ok(driver)
    }

    fn check(&self, doing: &str, status: Status) -> Result<(), DeviceError> {
        if status == SUCCESS {
            return Ok(());
        }
        let mut text = std::ptr::null();
        // SAFETY: the pointer is written to, or left as it is for a number that the driver does not know.
        let known = unsafe { (self.table.error_string)(status, &raw mut text) } == SUCCESS && !text.is_null();
        let words = if known {
            // SAFETY: the driver's own text, ended by a NUL, good for the life of the process.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        } else {
            "an error that the driver does not name".to_owned()
        };
        Err(DeviceError::Failed {
            doing: doing.to_owned(),
            why: format!("{words} (CUDA error {status})"),
        })
    }

    /// Devices that this process sees.
    pub(crate) fn count(&self) -> Result<u32, DeviceError> {
        let mut count = 0;
        // SAFETY: the number is written to.
        self.check("count the GPUs", unsafe { (self.table.count)(&raw mut count) })?;
        Ok(u32::try_from(count).unwrap_or(0))
    }

    /// The device of that number, if this process sees so many.
    pub(crate) fn device(&self, gpu: u32) -> Result<Ordinal, DeviceError> {
        let count = self.count()?;
        if gpu >= count {
            return Err(DeviceError::Absent(format!(
                "CUDA has {count} GPUs that this process sees, and none of number {gpu}"
            )));
        }
        let mut device = 0;
        let number = c_int::try_from(gpu).unwrap_or(c_int::MAX);
        // SAFETY: the number is written to.
        self.check("find a GPU", unsafe { (self.table.device)(&raw mut device, number) })?;
        Ok(device)
    }

    pub(crate) fn name(&self, device: Ordinal) -> Result<String, DeviceError> {
        let mut text: [c_char; 128] = [0; 128];
        // SAFETY: at most as many bytes as are said are written, with a NUL at the end.
        let status = unsafe { (self.table.name)(text.as_mut_ptr(), 127, device) };
        self.check("read a GPU's name", status)?;
        // SAFETY: the last byte is 0 whatever was written.
        Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
    }

    pub(crate) fn uuid(&self, device: Ordinal) -> Result<[u8; UUID], DeviceError> {
        let mut uuid = [0; UUID];
        // SAFETY: `CUuuid` is these sixteen bytes.
        self.check("read a GPU's UUID", unsafe { (self.table.uuid)(&raw mut uuid, device) })?;
        Ok(uuid)
    }

    pub(crate) fn total(&self, device: Ordinal) -> Result<u64, DeviceError> {
        let mut bytes = 0;
        // SAFETY: the number is written to.
        let status = unsafe { (self.table.total)(&raw mut bytes, device) };
        self.check("read the size of a GPU's memory", status)?;
        Ok(bytes as u64)
    }

    /// Runs `work` with the device's primary context, the one that the runtime library and what stands on it use too.
    fn within<T>(
        &self,
        device: Ordinal,
        doing: &str,
        work: impl FnOnce(&Table) -> (Status, T),
    ) -> Result<T, DeviceError> {
        let context = {
            let mut contexts = self.contexts.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(context) = contexts.get(&device) {
                *context
            } else {
                let mut context = Context(std::ptr::null_mut());
                // SAFETY: the pointer is written to. The context is never given back: others in this process may use it.
                let status = unsafe { (self.table.retain)(&raw mut context, device) };
                self.check("take the context of a GPU", status)?;
                contexts.insert(device, context);
                context
            }
        };
        // SAFETY: a context that is held; it is popped below on this thread.
        self.check(doing, unsafe { (self.table.push)(context) })?;
        let (status, value) = work(&self.table);
        let mut popped = Context(std::ptr::null_mut());
        // SAFETY: what was pushed above on this thread; the pointer is written to.
        let after = unsafe { (self.table.pop)(&raw mut popped) };
        self.check(doing, status)?;
        self.check(doing, after)?;
        Ok(value)
    }

    pub(crate) fn available(&self, device: Ordinal) -> Result<u64, DeviceError> {
        let (mut free, mut total) = (0, 0);
        self.within(device, "ask how much of a GPU's memory is free", |table| {
            // SAFETY: both numbers are written to.
            (unsafe { (table.info)(&raw mut free, &raw mut total) }, ())
        })?;
        Ok(free as u64)
    }

    /// Memory of the device; `None` where it has no room.
    pub(crate) fn allocate(&self, device: Ordinal, len: u64) -> Result<Option<Address>, DeviceError> {
        let Ok(size) = usize::try_from(len.max(1)) else {
            return Ok(None);
        };
        let mut address = 0;
        let status = self.within(device, "allocate memory of a GPU", |table| {
            // SAFETY: the address is written to.
            (SUCCESS, unsafe { (table.alloc)(&raw mut address, size) })
        })?;
        if status == OUT_OF_MEMORY {
            return Ok(None);
        }
        self.check("allocate memory of a GPU", status)?;
        Ok(Some(address))
    }

    /// Gives memory back that `allocate` gave out and that nothing uses any more.
    pub(crate) fn free(&self, device: Ordinal, address: Address) -> Result<(), DeviceError> {
        self.within(device, "free memory of a GPU", |table| {
            // SAFETY: the caller owns the allocation and drops it.
            (unsafe { (table.free)(address) }, ())
        })
    }

    /// Copies to an address; the caller has seen that the range lies in an allocation of its own.
    pub(crate) fn write(&self, device: Ordinal, address: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        self.within(device, "copy to a GPU", |table| {
            // SAFETY: the slice is readable, and the range is the caller's.
            let copied = unsafe { (table.to_device)(address, bytes.as_ptr().cast(), bytes.len()) };
            if copied != SUCCESS {
                return (copied, ());
            }
            // A copy from pageable memory may return before its last part has reached the device.
            // SAFETY: a plain call, with the context current.
            (unsafe { (table.synchronize)() }, ())
        })
    }

    /// Copies from an address; the caller has seen that the range lies in an allocation that it holds.
    pub(crate) fn read(&self, device: Ordinal, address: Address, into: &mut [u8]) -> Result<(), DeviceError> {
        self.within(device, "copy from a GPU", |table| {
            // SAFETY: the slice is writable, and the range is held by the caller.
            (
                unsafe { (table.to_host)(into.as_mut_ptr().cast(), address, into.len()) },
                (),
            )
        })
    }

    /// What another process needs to open an allocation.
    pub(crate) fn handle(&self, device: Ordinal, address: Address) -> Result<[u8; HANDLE], DeviceError> {
        let mut handle = Handle([0; HANDLE]);
        self.within(device, "share memory of a GPU", |table| {
            // SAFETY: the handle is written to; the address is the start of an allocation.
            (unsafe { (table.handle)(&raw mut handle, address) }, ())
        })?;
        Ok(handle.0)
    }

    /// Opens memory that another process of this node allocated on the device with that UUID.
    pub(crate) fn import(
        &'static self,
        gpu: u32,
        uuid: [u8; UUID],
        handle: [u8; HANDLE],
    ) -> Result<Imported, DeviceError> {
        for number in 0..self.count()? {
            let device = self.device(number)?;
            if self.uuid(device)? != uuid {
                continue;
            }
            let mut address = 0;
            self.within(device, "open shared memory of a GPU", |table| {
                // SAFETY: the address is written to; a handle of other bytes is refused by the driver.
                (unsafe { (table.open)(&raw mut address, Handle(handle), LAZY) }, ())
            })?;
            return Ok(Imported {
                driver: self,
                device,
                address,
            });
        }
        Err(DeviceError::Absent(format!(
            "this process does not see GPU {gpu} of its node (CUDA_VISIBLE_DEVICES hides it): ask for the value on the host, or \
             run where that GPU is the task's"
        )))
    }
}

/// Memory of another process, open here until this is dropped.
#[derive(Debug)]
pub(crate) struct Imported {
    driver: &'static Driver,
    device: Ordinal,
    address: Address,
}

impl Imported {
    pub(crate) fn ordinal(&self) -> Ordinal {
        self.device
    }

    pub(crate) fn address(&self) -> Address {
        self.address
    }

    /// As `Driver::read`, from an offset.
    pub(crate) fn read(&self, offset: u64, into: &mut [u8]) -> Result<(), DeviceError> {
        self.driver.read(self.device, self.address + offset, into)
    }
}

impl Drop for Imported {
    fn drop(&mut self) {
        let address = self.address;
        // What fails here at the end of a process is closed with it.
        let _ = self
            .driver
            .within(self.device, "close shared memory of a GPU", |table| {
                // SAFETY: opened by this value and used by nobody any more.
                (unsafe { (table.close)(address) }, ())
            });
    }
}
