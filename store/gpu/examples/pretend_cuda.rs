//! A library with the interface of libcuda whose two devices are host memory, for tests on machines without a GPU: it shows that
//! the calls come in the order and with the arguments that `cuda.h` asks for. It is no GPU and shows nothing of how one behaves.
//!
//! It refuses what a driver refuses: calls without a current context, addresses that it did not give out, ranges beyond an
//! allocation, a handle opened by the process that made it.

#![allow(unsafe_code)] // The functions of a C interface; their callers keep to `cuda.h`.
#![allow(non_snake_case, missing_docs, clippy::missing_safety_doc)] // C's names and contracts, which are in `cuda.h`.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

const INVALID_VALUE: c_int = 1;
const OUT_OF_MEMORY: c_int = 2;
const NOT_INITIALIZED: c_int = 3;
const INVALID_DEVICE: c_int = 101;
const INVALID_CONTEXT: c_int = 201;
const DEVICES: c_int = 2;
const CAPACITY: u64 = 16 << 20;

static STARTED: AtomicBool = AtomicBool::new(false);
static NEXT: AtomicU64 = AtomicU64::new(0x7000_0000_0000);

struct Allocation {
    device: usize,
    len: u64,
    file: File,
    imported: u32,
}

static MEMORY: Mutex<BTreeMap<u64, Allocation>> = Mutex::new(BTreeMap::new());

thread_local! {
    static CURRENT: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

fn memory() -> MutexGuard<'static, BTreeMap<u64, Allocation>> {
    MEMORY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The device of the current context.
fn current() -> Result<usize, c_int> {
    CURRENT.with_borrow(|stack| stack.last().map(|context| context - 1).ok_or(INVALID_CONTEXT))
}

fn status(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(0)
}

fn device(number: c_int) -> Result<usize, c_int> {
    if !STARTED.load(Ordering::SeqCst) {
        return Err(NOT_INITIALIZED);
    }
    usize::try_from(number)
        .ok()
        .filter(|_| number < DEVICES)
        .ok_or(INVALID_DEVICE)
}

#[unsafe(no_mangle)]
pub extern "C" fn cuInit(flags: c_uint) -> c_int {
    STARTED.store(flags == 0, Ordering::SeqCst);
    if flags == 0 { 0 } else { INVALID_VALUE }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuGetErrorString(error: c_int, text: *mut *const c_char) -> c_int {
    let words: &'static CStr = match error {
        INVALID_VALUE => c"invalid argument",
        OUT_OF_MEMORY => c"out of memory",
        NOT_INITIALIZED => c"initialization error",
        INVALID_DEVICE => c"invalid device ordinal",
        INVALID_CONTEXT => c"invalid device context",
        _ => return INVALID_VALUE,
    };
    // SAFETY: the caller's pointer.
    unsafe { *text = words.as_ptr() };
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetCount(count: *mut c_int) -> c_int {
    // SAFETY: the caller's pointer.
    status(device(0).map(|_| unsafe { *count = DEVICES }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGet(out: *mut c_int, number: c_int) -> c_int {
    // SAFETY: the caller's pointer.
    status(device(number).map(|_| unsafe { *out = number }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetName(name: *mut c_char, len: c_int, number: c_int) -> c_int {
    let text = c"Pretended GPU";
    let size = text.count_bytes() + 1;
    if len < 0 || (len as usize) < size {
        return INVALID_VALUE;
    }
    // SAFETY: the caller's buffer is as long as it says.
    status(device(number).map(|_| unsafe { std::ptr::copy_nonoverlapping(text.as_ptr(), name, size) }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceGetUuid_v2(uuid: *mut [u8; 16], number: c_int) -> c_int {
    // SAFETY: the caller's pointer.
    status(device(number).map(|at| unsafe { *uuid = [at as u8 + 1; 16] }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDeviceTotalMem_v2(bytes: *mut usize, number: c_int) -> c_int {
    // SAFETY: the caller's pointer.
    status(device(number).map(|_| unsafe { *bytes = CAPACITY as usize }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuDevicePrimaryCtxRetain(context: *mut *mut c_void, number: c_int) -> c_int {
    // SAFETY: the caller's pointer; a context is its device's number and 1, and is never looked into.
    status(device(number).map(|at| unsafe { *context = std::ptr::without_provenance_mut(at + 1) }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxPushCurrent_v2(context: *mut c_void) -> c_int {
    if !(1..=DEVICES as usize).contains(&context.addr()) {
        return INVALID_CONTEXT;
    }
    CURRENT.with_borrow_mut(|stack| stack.push(context.addr()));
    0
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuCtxPopCurrent_v2(context: *mut *mut c_void) -> c_int {
    let popped = CURRENT.with_borrow_mut(Vec::pop).ok_or(INVALID_CONTEXT);
    // SAFETY: the caller's pointer.
    status(popped.map(|at| unsafe { *context = std::ptr::without_provenance_mut(at) }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuCtxSynchronize() -> c_int {
    status(current().map(drop))
}

fn free_bytes(device: usize) -> u64 {
    let memory = memory();
    let theirs = memory.values().filter(|a| a.device == device && a.imported == 0);
    CAPACITY - theirs.map(|a| a.len).sum::<u64>()
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> c_int {
    status(current().map(|device| {
        // SAFETY: the caller's pointers.
        unsafe { (*free, *total) = (free_bytes(device) as usize, CAPACITY as usize) };
    }))
}

fn unnamed() -> std::io::Result<File> {
    let fd = rustix::fs::memfd_create("pretended-gpu", rustix::fs::MemfdFlags::CLOEXEC)?;
    Ok(File::from(fd))
}

/// Notes an allocation: its address, which no pointer of this process equals.
fn note(device: usize, len: u64, file: File, imported: u32) -> u64 {
    let address = NEXT.fetch_add(len.next_multiple_of(512), Ordering::SeqCst);
    let allocation = Allocation {
        device,
        len,
        file,
        imported,
    };
    memory().insert(address, allocation);
    address
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemAlloc_v2(address: *mut u64, len: usize) -> c_int {
    let made = current().and_then(|device| {
        let len = len as u64;
        if len == 0 {
            return Err(INVALID_VALUE);
        }
        if len > free_bytes(device) {
            return Err(OUT_OF_MEMORY);
        }
        let file = unnamed().map_err(|_| OUT_OF_MEMORY)?;
        file.set_len(len).map_err(|_| OUT_OF_MEMORY)?;
        Ok(note(device, len, file, 0))
    });
    // SAFETY: the caller's pointer.
    status(made.map(|at| unsafe { *address = at }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuMemFree_v2(address: u64) -> c_int {
    status(current().and_then(|_| {
        let mut memory = memory();
        memory.get(&address).filter(|a| a.imported == 0).ok_or(INVALID_VALUE)?;
        memory.remove(&address);
        Ok(())
    }))
}

/// Runs `copy` with the file and the offset of a range of one allocation.
fn within(address: u64, len: usize, copy: impl FnOnce(&File, u64) -> std::io::Result<()>) -> Result<(), c_int> {
    current()?;
    let memory = memory();
    let (&start, allocation) = memory.range(..=address).next_back().ok_or(INVALID_VALUE)?;
    let offset = address - start;
    if offset + len as u64 > allocation.len {
        return Err(INVALID_VALUE);
    }
    copy(&allocation.file, offset).map_err(|_| INVALID_VALUE)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyHtoD_v2(to: u64, from: *const c_void, len: usize) -> c_int {
    status(within(to, len, |file, offset| {
        // SAFETY: the caller's buffer is as long as it says.
        file.write_all_at(unsafe { std::slice::from_raw_parts(from.cast(), len) }, offset)
    }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuMemcpyDtoH_v2(to: *mut c_void, from: u64, len: usize) -> c_int {
    status(within(from, len, |file, offset| {
        // SAFETY: the caller's buffer is as long as it says.
        file.read_exact_at(unsafe { std::slice::from_raw_parts_mut(to.cast(), len) }, offset)
    }))
}

/// `CUipcMemHandle`.
#[repr(C)]
pub struct Handle([u8; 64]);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcGetMemHandle(handle: *mut Handle, address: u64) -> c_int {
    let made = current().and_then(|_| {
        let memory = memory();
        let allocation = memory.get(&address).ok_or(INVALID_VALUE)?;
        let mut bytes = [0; 64];
        bytes[..4].copy_from_slice(&std::process::id().to_le_bytes());
        bytes[4..8].copy_from_slice(&allocation.file.as_raw_fd().to_le_bytes());
        bytes[8..16].copy_from_slice(&allocation.len.to_le_bytes());
        Ok(Handle(bytes))
    });
    // SAFETY: the caller's pointer.
    status(made.map(|made| unsafe { *handle = made }))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuIpcOpenMemHandle_v2(address: *mut u64, handle: Handle, flags: c_uint) -> c_int {
    let word = |at: usize| u32::from_le_bytes(handle.0[at..at + 4].try_into().expect("four bytes"));
    let len = u64::from_le_bytes(handle.0[8..16].try_into().expect("eight bytes"));
    let opened = current().and_then(|device| {
        if flags != 1 {
            return Err(INVALID_VALUE);
        }
        if word(0) == std::process::id() {
            return Err(INVALID_CONTEXT);
        }
        let file = File::open(format!("/proc/{}/fd/{}", word(0), word(4))).map_err(|_| INVALID_VALUE)?;
        if file.metadata().map_or(0, |m| m.len()) != len {
            return Err(INVALID_VALUE);
        }
        Ok(note(device, len, file, 1))
    });
    // SAFETY: the caller's pointer.
    status(opened.map(|at| unsafe { *address = at }))
}

#[unsafe(no_mangle)]
pub extern "C" fn cuIpcCloseMemHandle(address: u64) -> c_int {
    status(current().and_then(|_| {
        let mut memory = memory();
        memory.get(&address).filter(|a| a.imported == 1).ok_or(INVALID_VALUE)?;
        memory.remove(&address);
        Ok(())
    }))
}
