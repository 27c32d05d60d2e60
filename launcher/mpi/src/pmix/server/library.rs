//! The opening of libpmix and the table of what is called of it. Owns the names; no behaviour beyond turning a status to words.

use super::sys;
use libloading::os::unix::{Library as Opened, RTLD_GLOBAL, RTLD_NOW};
use std::ffi::CStr;
use std::path::Path;

/// libpmix, opened for ever: its threads run until the process ends.
pub struct Library {
    pub init: sys::ServerInit,
    pub regex: sys::Generate,
    pub ppn: sys::Generate,
    pub register_nspace: sys::RegisterNspace,
    pub deregister_nspace: sys::DeregisterNspace,
    pub register_client: sys::RegisterClient,
    pub setup_fork: sys::SetupFork,
    pub dmodex_request: sys::DmodexRequest,
    error_string: sys::ErrorString,
}

impl Library {
    /// Opens the library at this path.
    pub fn open(path: &Path) -> Result<Self, String> {
        let wrong = |error: libloading::Error| format!("{} is no libpmix that can be used: {error}", path.display());
        // SAFETY: opening runs the library's initialisers; it is the one that the user's own MPI loads. Its modules look for its
        // symbols, so they are global.
        let opened = unsafe { Opened::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.map_err(wrong)?;
        macro_rules! symbol {
            ($name:literal) => {
                // SAFETY: the type is that of the function of this name in the headers of PMIx 3 to 5, see `sys`.
                *unsafe { opened.get($name.as_bytes()) }.map_err(wrong)?
            };
        }
        let library = Self {
            init: symbol!("PMIx_server_init"),
            regex: symbol!("PMIx_generate_regex"),
            ppn: symbol!("PMIx_generate_ppn"),
            register_nspace: symbol!("PMIx_server_register_nspace"),
            deregister_nspace: symbol!("PMIx_server_deregister_nspace"),
            register_client: symbol!("PMIx_server_register_client"),
            setup_fork: symbol!("PMIx_server_setup_fork"),
            dmodex_request: symbol!("PMIx_server_dmodex_request"),
            error_string: symbol!("PMIx_Error_string"),
        };
        // Closing it would take the code from under its threads.
        std::mem::forget(opened);
        Ok(library)
    }

    /// Success, or a sentence of what was wanted.
    pub fn check(&self, status: sys::Status, wanted: &str) -> Result<(), String> {
        if status == sys::SUCCESS || status == sys::OPERATION_SUCCEEDED {
            return Ok(());
        }
        // SAFETY: it gives a string of the library that is never freed, for every number.
        let words = unsafe { CStr::from_ptr((self.error_string)(status)) };
        Err(format!(
            "libpmix refused {wanted}: {} ({status})",
            words.to_string_lossy()
        ))
    }
}
