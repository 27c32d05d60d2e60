//! Opens libucp and finds its functions. A library that was opened stays for the life of the process, and there is one at most:
//! UCX's libraries have one name each in all releases, so that a second copy would be tied to parts of the first.

use crate::types::*;
use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY, RTLD_LOCAL, RTLD_NOW};
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use thiserror::Error;

/// The name under which the loader knows it.
const NAME: &str = "libucp.so.0";
/// What libucp needs, in order. Opened from its own folder first, so that no other copy is taken.
const BESIDE: [&str; 3] = ["libucm.so.0", "libucs.so.0", "libuct.so.0"];

/// Why UCX is not there.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum OpenError {
    /// No file could be opened.
    #[error(
        "UCX's library {NAME} was not found: {}. Install it (Debian: libucx0, or `pip install libucx-cu12`), load the site's UCX \
         module, or name the file in BRIDGEHEAD_UCX",
        tried.join("; ")
    )]
    NotFound {
        /// Each attempt with the loader's answer.
        tried: Vec<String>,
    },
    /// A file that was opened lacks a function.
    #[error("{path} has no function {function}: UCX 1.13 or newer is needed")]
    TooOld {
        /// Which file.
        path: String,
        /// Which function.
        function: &'static str,
    },
    /// Another copy is open.
    #[error("{wanted} cannot be opened: this process already uses {open}")]
    Other {
        /// What was asked for.
        wanted: String,
        /// What is open.
        open: String,
    },
}

/// Where to look, in order: the file or folder that was named (and nowhere else then), the wheel `libucx` of a Python, the loader's
/// own search.
#[must_use]
pub fn candidates(named: Option<&Path>, site_packages: Option<&Path>) -> Vec<PathBuf> {
    if let Some(named) = named {
        return vec![file(named)];
    }
    let wheel = site_packages.map(|folder| folder.join("libucx/lib").join(NAME));
    let wheel = wheel.filter(|path| path.exists());
    wheel.into_iter().chain([PathBuf::from(NAME)]).collect()
}

/// The file itself, where a folder was named.
fn file(named: &Path) -> PathBuf {
    if named.is_dir() {
        named.join(NAME)
    } else {
        named.to_owned()
    }
}

macro_rules! table {
    ($($name:ident: $symbol:ident($($arg:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of an open library, by C's names without their prefix.
        #[derive(Debug)]
        pub struct Ucp {
            /// The file, as it was asked for.
            pub path: PathBuf,
            $(
                #[doc = concat!("`", stringify!($symbol), "`.")]
                pub $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,
            )*
        }

        impl Ucp {
            fn fill(library: &Library, path: &Path) -> Result<Self, OpenError> {
                Ok(Self {
                    path: path.to_owned(),
                    $(
                        // SAFETY: the type is that of UCX's headers; the pointer is used no longer than the library is
                        // open, which is for ever.
                        $name: *unsafe { library.get(stringify!($symbol).as_bytes()) }.map_err(|_| OpenError::TooOld {
                            path: path.display().to_string(),
                            function: stringify!($symbol),
                        })?,
                    )*
                })
            }
        }
    };
}

table! {
    config_read: ucp_config_read(*const c_char, *const c_char, *mut *mut Config) -> Status;
    config_release: ucp_config_release(*mut Config);
    config_modify: ucp_config_modify(*mut Config, *const c_char, *const c_char) -> Status;
    get_version: ucp_get_version(*mut c_uint, *mut c_uint, *mut c_uint);
    init_version: ucp_init_version(c_uint, c_uint, *const Params, *const Config, *mut *mut Context) -> Status;
    cleanup: ucp_cleanup(*mut Context);
    context_print_info: ucp_context_print_info(*const Context, *mut File);
    worker_create: ucp_worker_create(*mut Context, *const WorkerParams, *mut *mut Worker) -> Status;
    worker_destroy: ucp_worker_destroy(*mut Worker);
    worker_query: ucp_worker_query(*mut Worker, *mut WorkerAttr) -> Status;
    worker_release_address: ucp_worker_release_address(*mut Worker, *mut Address);
    worker_progress: ucp_worker_progress(*mut Worker) -> c_uint;
    worker_get_efd: ucp_worker_get_efd(*mut Worker, *mut c_int) -> Status;
    worker_arm: ucp_worker_arm(*mut Worker) -> Status;
    worker_set_am_recv_handler: ucp_worker_set_am_recv_handler(*mut Worker, *const AmHandlerParam) -> Status;
    ep_create: ucp_ep_create(*mut Worker, *const EndpointParams, *mut *mut Endpoint) -> Status;
    ep_close_nbx: ucp_ep_close_nbx(*mut Endpoint, *const RequestParam) -> StatusPtr;
    ep_flush_nbx: ucp_ep_flush_nbx(*mut Endpoint, *const RequestParam) -> StatusPtr;
    ep_print_info: ucp_ep_print_info(*mut Endpoint, *mut File);
    mem_map: ucp_mem_map(*mut Context, *const MemMapParams, *mut *mut Memory) -> Status;
    mem_unmap: ucp_mem_unmap(*mut Context, *mut Memory) -> Status;
    rkey_pack: ucp_rkey_pack(*mut Context, *mut Memory, *mut *mut c_void, *mut usize) -> Status;
    rkey_buffer_release: ucp_rkey_buffer_release(*mut c_void);
    ep_rkey_unpack: ucp_ep_rkey_unpack(*mut Endpoint, *const c_void, *mut *mut RemoteKey) -> Status;
    rkey_destroy: ucp_rkey_destroy(*mut RemoteKey);
    am_send_nbx: ucp_am_send_nbx(*mut Endpoint, c_uint, *const c_void, usize, *const c_void, usize, *const RequestParam) -> StatusPtr;
    put_nbx: ucp_put_nbx(*mut Endpoint, *const c_void, usize, u64, *mut RemoteKey, *const RequestParam) -> StatusPtr;
    get_nbx: ucp_get_nbx(*mut Endpoint, *mut c_void, usize, u64, *mut RemoteKey, *const RequestParam) -> StatusPtr;
    request_free: ucp_request_free(*mut c_void);
    status_string: ucs_status_string(Status) -> *const c_char;
    log_push_handler: ucs_log_push_handler(LogHandler);
}

/// The one that is open.
static OPEN: Mutex<Option<&'static Ucp>> = Mutex::new(None);

impl Ucp {
    /// Opens the first of the files that can be; later calls give the same, or an error if they ask for others.
    ///
    /// # Errors
    /// None can be opened, it is older than 1.13, or another copy is open.
    pub fn open(candidates: &[PathBuf]) -> Result<&'static Self, OpenError> {
        let mut open = OPEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(open) = *open {
            if candidates.contains(&open.path) {
                return Ok(open);
            }
            return Err(OpenError::Other {
                wanted: candidates
                    .iter()
                    .map(|path| path.display().to_string())
                    .collect::<Vec<_>>()
                    .join(" or "),
                open: open.path.display().to_string(),
            });
        }
        let mut tried = Vec::new();
        for path in candidates {
            match load(path) {
                Ok(library) => {
                    let library: &'static Library = Box::leak(Box::new(library)); // Its threads and hooks outlive any use of ours.
                    let ucp: &'static Self = Box::leak(Box::new(Self::fill(library, path)?));
                    *open = Some(ucp);
                    return Ok(ucp);
                }
                Err(error) => {
                    // The loader's own words are what the error stems from.
                    let said = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                    tried.push(format!("{}: {said}", path.display()));
                }
            }
        }
        Err(OpenError::NotFound { tried })
    }

    /// Release of the library: major, minor, patch.
    #[must_use]
    pub fn version(&self) -> (u32, u32, u32) {
        let (mut major, mut minor, mut patch) = (0, 0, 0);
        // SAFETY: writes three numbers.
        unsafe { (self.get_version)(&raw mut major, &raw mut minor, &raw mut patch) };
        (major, minor, patch)
    }

    /// What a status means, in UCX's words.
    #[must_use]
    pub fn text(&self, status: Status) -> String {
        // SAFETY: gives a text that lives as long as the library, for any number.
        let text = unsafe { CStr::from_ptr((self.status_string)(status)) };
        text.to_string_lossy().into_owned()
    }
}

/// Opens libucp, and before it what it needs from the same folder if that is named. Those are open to each other and resolved late,
/// because the first needs a function of the second, which needs the first.
fn load(path: &Path) -> Result<Library, libloading::Error> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        for name in BESIDE
            .map(|name| folder.join(name))
            .into_iter()
            .filter(|path| path.exists())
        {
            // SAFETY: UCX's libraries may be opened by any thread; their initialisers only read the environment.
            std::mem::forget(unsafe { Library::open(Some(name), RTLD_LAZY | RTLD_GLOBAL) }?);
        }
    }
    // SAFETY: as above.
    unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) }
}
