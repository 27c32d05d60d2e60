//! The context: libucp with its settings, the devices that it found, and registered memory. Owns how UCX is set up and why.
#![allow(unsafe_code)] // Calls of a C library.

use crate::options::Moving;
use bridgehead_ucx_sys::{
    Config, Context as RawContext, FEATURE_AM, FEATURE_RMA, FEATURE_WAKEUP, File, LOG_LEVEL_ERROR, LOG_LEVEL_WARN,
    LOG_STOP, MEM_MAP_PARAM_FIELD_ADDRESS, MEM_MAP_PARAM_FIELD_LENGTH, MEM_MAP_PARAM_FIELD_PROT, MemMapParams,
    Memory as RawMemory, OK, PARAM_FIELD_FEATURES, Params, Status, Ucp,
};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::{Arc, Once};

/// The release whose interface `bridgehead-ucx-sys` declares.
const API: (c_uint, c_uint) = (1, 13);

/// A transport of UCX on a device, as its own tools name them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// "rc_mlx5", "posix", "tcp", ...
    pub transport: String,
    /// "mlx5_0:1", "memory", "eth0", ...
    pub device: String,
}

impl Device {
    /// Whether it reads and writes the peer's memory over a network without its processor.
    #[must_use]
    pub fn is_rdma(&self) -> bool {
        ["rc", "dc", "ud", "gga", "srd"].iter().any(|family| {
            let rest = self.transport.strip_prefix(family);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
        })
    }
}

/// A libucp and what it sees on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Major, minor, patch.
    pub version: (u32, u32, u32),
    /// What it could use.
    pub devices: Vec<Device>,
}

/// The first release whose laws hold on every run with `Moving::Messages`.
const SOUND: (u32, u32, u32) = (1, 22, 0);

impl Found {
    /// Whether it would use RDMA.
    #[must_use]
    pub fn has_rdma(&self) -> bool {
        self.devices.iter().any(Device::is_rdma)
    }

    /// Whether the loss and the return of a peer may end this process: UCX's wire-up can fail an assertion then (seen in 1.13.1 over shared
    /// memory, not seen in 1.22.0).
    #[must_use]
    pub fn is_fragile(&self) -> bool {
        self.version < SOUND && !self.has_rdma()
    }
}

/// Whether it must not close an endpoint while it answers emulated reads on it: it purges answers as if they were requests, and reads memory that
/// is not there. 1.22.0 does so rarely, 1.13.1 mostly.
pub(crate) fn closes_unsafely(version: (u32, u32, u32)) -> bool {
    version < SOUND
}

/// Opens libucp, and asks it what it sees. Afterwards this process can open no other copy of it.
///
/// # Errors
/// It is not there, or cannot be set up; the text says why and what to do.
pub fn probe(libraries: &[PathBuf]) -> Result<Found, String> {
    let context = Context::new(libraries, None, None, Moving::Messages)?;
    Ok(Found {
        path: context.ucp.path.clone(),
        version: context.ucp.version(),
        devices: context.devices(),
    })
}

pub(crate) struct Context {
    pub ucp: &'static Ucp,
    pub raw: *mut RawContext,
}

// SAFETY: UCX's contexts may be used by any thread; the calls that must not run beside each other are made under the worker's lock,
// and registering takes UCX's own.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    pub fn new(
        libraries: &[PathBuf],
        transports: Option<&str>,
        devices: Option<&str>,
        moving: Moving,
    ) -> Result<Arc<Self>, String> {
        let ucp = Ucp::open(libraries).map_err(|error| error.to_string())?;
        redirect_log(ucp);
        let mut settings = settings(ucp.version());
        settings.extend(transports.map(|value| ("TLS", value)));
        settings.extend(devices.map(|value| ("NET_DEVICES", value)));
        let config = configure(ucp, &settings)?;
        // SAFETY: all zero is a valid value; the mask says that only the features are set.
        let mut params: Params = unsafe { std::mem::zeroed() };
        params.field_mask = PARAM_FIELD_FEATURES;
        params.features = FEATURE_AM | FEATURE_WAKEUP;
        if moving == Moving::OneSided {
            // Without it UCP installs no handler that emulates gets and puts for peers.
            params.features |= FEATURE_RMA;
        }
        let mut raw = null_mut();
        // SAFETY: the arguments live for the call, and the configuration is given back once.
        let status = unsafe {
            let status = (ucp.init_version)(API.0, API.1, &raw const params, config, &raw mut raw);
            (ucp.config_release)(config);
            status
        };
        check(ucp, status, "UCX cannot be set up")?;
        Ok(Arc::new(Self { ucp, raw }))
    }

    /// What it could use.
    pub fn devices(&self) -> Vec<Device> {
        // SAFETY: the context is alive, and the stream lives for the call.
        let text = text_of(|file| unsafe { (self.ucp.context_print_info)(self.raw, file) });
        parse_devices(&text)
    }

    /// Registers memory; nothing where there is no byte.
    pub fn map(self: &Arc<Self>, address: *mut u8, length: usize, prot: c_uint) -> Result<Option<Mapped>, String> {
        if length == 0 {
            return Ok(None);
        }
        // SAFETY: all zero is a valid value.
        let mut params: MemMapParams = unsafe { std::mem::zeroed() };
        params.field_mask = MEM_MAP_PARAM_FIELD_ADDRESS | MEM_MAP_PARAM_FIELD_LENGTH | MEM_MAP_PARAM_FIELD_PROT;
        (params.address, params.length, params.prot) = (address.cast(), length, prot);
        let mut raw = null_mut();
        // SAFETY: the range is mapped, and stays so until it is unmapped here, because the region keeps it alive.
        let status = unsafe { (self.ucp.mem_map)(self.raw, &raw const params, &raw mut raw) };
        check(self.ucp, status, "UCX cannot register the memory")?;
        Ok(Some(Mapped {
            context: self.clone(),
            raw,
        }))
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: workers and memory hold an `Arc` of the context, so they are gone.
        unsafe { (self.ucp.cleanup)(self.raw) };
    }
}

/// Registered memory.
pub(crate) struct Mapped {
    context: Arc<Context>,
    pub raw: *mut RawMemory,
}

// SAFETY: a handle that is only handed to UCX, under the worker's lock.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// What a peer needs to reach it.
    pub fn pack(&self) -> Result<Vec<u8>, String> {
        let (mut buffer, mut size) = (null_mut(), 0);
        let ucp = self.context.ucp;
        // SAFETY: UCX writes the two, and the buffer is copied before it is given back.
        unsafe {
            let status = (ucp.rkey_pack)(self.context.raw, self.raw, &raw mut buffer, &raw mut size);
            check(ucp, status, "UCX cannot pack the key of the memory")?;
            let bytes = std::slice::from_raw_parts(buffer.cast::<u8>(), size).to_vec();
            (ucp.rkey_buffer_release)(buffer);
            Ok(bytes)
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the last operation on it has ended, because each holds the region.
        let status = unsafe { (self.context.ucp.mem_unmap)(self.context.raw, self.raw) };
        if status != OK {
            tracing::warn!(reason = self.context.ucp.text(status), "UCX did not take memory back");
        }
    }
}

pub(crate) fn check(ucp: &Ucp, status: Status, what: &str) -> Result<(), String> {
    if status == OK {
        return Ok(());
    }
    Err(format!("{what}: {}", ucp.text(status)))
}

/// Names and values that differ from UCX's own defaults.
fn settings(version: (u32, u32, u32)) -> Vec<(&'static str, &'static str)> {
    // Endpoints that report the loss of a peer use no shared memory otherwise, and say nothing.
    let mut settings = vec![("MM_ERROR_HANDLING", "y"), ("KEEPALIVE_INTERVAL", "1s")];
    // With its own segments of 8 KiB a transfer over TCP is some four times slower. Up to 1.13 a setting of a transport is changed without
    // the transport's name in front of it; with it the call succeeds and nothing changes.
    let segments = if version < (1, 14, 0) {
        [("TX_SEG_SIZE", "512k"), ("RX_SEG_SIZE", "512k")]
    } else {
        [("TCP_TX_SEG_SIZE", "512k"), ("TCP_RX_SEG_SIZE", "512k")]
    };
    settings.extend(segments);
    settings
}

fn configure(ucp: &Ucp, settings: &[(&str, &str)]) -> Result<*mut Config, String> {
    let mut config = null_mut();
    // SAFETY: no prefix and no file are allowed; UCX writes the pointer.
    let status = unsafe { (ucp.config_read)(null(), null(), &raw mut config) };
    check(ucp, status, "UCX's settings cannot be read")?;
    for (name, value) in settings {
        let (c_name, c_value) = (CString::new(*name), CString::new(*value));
        let (Ok(c_name), Ok(c_value)) = (c_name, c_value) else {
            return Err(format!("{name}={value} is no setting of UCX"));
        };
        // SAFETY: both texts live for the call.
        let status = unsafe { (ucp.config_modify)(config, c_name.as_ptr(), c_value.as_ptr()) };
        check(ucp, status, &format!("UCX does not take {name}={value}"))?;
    }
    Ok(config)
}

/// What UCX prints into a stream.
pub(crate) fn text_of(print: impl FnOnce(*mut File)) -> String {
    let (mut text, mut size): (*mut c_char, usize) = (null_mut(), 0);
    // SAFETY: the stream is closed before its text is read, and the text is given back once.
    unsafe {
        let stream = libc::open_memstream(&raw mut text, &raw mut size);
        if stream.is_null() {
            return String::new();
        }
        print(stream.cast());
        libc::fclose(stream);
        let copy = String::from_utf8_lossy(std::slice::from_raw_parts(text.cast(), size)).into_owned();
        libc::free(text.cast());
        copy
    }
}

/// Lines of the form `resource 1 : md 1 dev 1 flags -- tcp/lo`.
fn parse_devices(text: &str) -> Vec<Device> {
    let resources = text.lines().filter(|line| line.contains(" resource "));
    let named = resources.filter_map(|line| line.split_whitespace().last()?.split_once('/'));
    named
        .map(|(transport, device)| Device {
            transport: transport.to_owned(),
            device: device.to_owned(),
        })
        .collect()
}

/// UCX writes its log to standard output, where it would spoil what a command prints; from now on it goes to ours.
fn redirect_log(ucp: &Ucp) {
    static ONCE: Once = Once::new();
    // SAFETY: the handler is a function of this program and stays.
    ONCE.call_once(|| unsafe { (ucp.log_push_handler)(log) });
}

unsafe extern "C" {
    fn vsnprintf(into: *mut c_char, size: usize, format: *const c_char, arguments: *mut c_void) -> c_int;
}

unsafe extern "C" fn log(
    _file: *const c_char,
    _line: c_uint,
    _function: *const c_char,
    level: c_uint,
    _component: *const c_void,
    message: *const c_char,
    arguments: *mut c_void,
) -> c_int {
    let mut line = [0; 512];
    // SAFETY: `message` and `arguments` are a format and its values, by the contract of a log handler; the result ends in a zero.
    let text = unsafe {
        vsnprintf(line.as_mut_ptr(), line.len(), message, arguments);
        CStr::from_ptr(line.as_ptr()).to_string_lossy()
    };
    // The fabric reports by its completions what UCX calls an error: a peer that ended, mostly.
    match level {
        0 => tracing::error!("UCX: {text}"),
        LOG_LEVEL_ERROR | LOG_LEVEL_WARN => tracing::debug!("UCX: {text}"),
        _ => tracing::trace!("UCX: {text}"),
    }
    LOG_STOP
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_from_what_ucx_prints() {
        let text = "# UCP context\n#            md 1  :  component 1  tcp\n#      resource 0  :  md 0  dev 0  flags -- self/memory0\n\
            #      resource 1  :  md 1  dev 1  flags -- rc_mlx5/mlx5_0:1\n";
        let found = parse_devices(text);
        let names: Vec<_> = found
            .iter()
            .map(|d| (d.transport.as_str(), d.device.as_str(), d.is_rdma()))
            .collect();
        assert_eq!(names, [("self", "memory0", false), ("rc_mlx5", "mlx5_0:1", true)]);
    }

    #[test]
    fn only_whole_names_of_rdma_transports_count() {
        let is = |transport: &str| {
            Device {
                transport: transport.into(),
                device: String::new(),
            }
            .is_rdma()
        };
        assert!(is("dc_mlx5") && is("ud_verbs") && is("rc") && !is("tcp") && !is("udp") && !is("rcache"));
    }

    #[test]
    fn segments_are_named_as_the_release_wants() {
        let has = |version, name| settings(version).iter().any(|(found, _)| *found == name);
        assert!(has((1, 13, 1), "TX_SEG_SIZE") && has((1, 22, 0), "TCP_TX_SEG_SIZE"));
    }
}
