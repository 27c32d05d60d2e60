//! What the tests of both UCX releases share: fetching the library, and fabrics over its lanes.

mod outside;

use bridgehead_fabric::Fabric;
use bridgehead_fabric::conformance::{Group, Settings};
use bridgehead_ucx::{Options, UcxFabric};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};

/// The key of these tests' runs.
pub const KEY: [u8; 32] = [42; 32];

/// A way to a libucp: its name, the environment variable that names a file instead, and how to fetch it into a folder.
pub struct Source {
    pub name: &'static str,
    pub variable: &'static str,
    /// Runs with the folder as its working directory.
    pub fetch: &'static str,
    /// Why it is tested only where the variable asks for it, by the name of a file or by `fetch`.
    pub only_if_asked: Option<&'static str>,
    /// Where the library is then.
    pub within: fn(&Path) -> Option<PathBuf>,
}

impl Source {
    /// The library, fetched once into the build's folder.
    pub fn library(&self) -> Result<PathBuf, String> {
        match (std::env::var_os(self.variable), self.only_if_asked) {
            (Some(named), _) if named != "fetch" => return Ok(named.into()),
            (None, Some(reason)) => return Err(format!("{reason}; {}=fetch asks for it", self.variable)),
            _ => {}
        }
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("ucx-{}", self.name));
        if let Some(found) = (self.within)(&folder) {
            return Ok(found);
        }
        let parent = folder.parent().expect("a folder of a folder");
        let fresh = tempfile::tempdir_in(parent).map_err(|e| e.to_string())?;
        let out = Command::new("sh")
            .args(["-ec", self.fetch])
            .current_dir(fresh.path())
            .output();
        let out = out.map_err(|e| format!("no shell: {e}"))?;
        if !out.status.success() {
            let said = String::from_utf8_lossy(&out.stderr);
            let last = said.trim().lines().last().unwrap_or_default().to_owned();
            return Err(format!(
                "{} cannot be had ({last}); name a libucp.so.0 in {}",
                self.name, self.variable
            ));
        }
        // Another process may have been quicker; what is there then is as good.
        let _ = std::fs::rename(fresh.path(), &folder);
        (self.within)(&folder).ok_or_else(|| format!("what was fetched as {} has no libucp.so.0", self.name))
    }
}

/// The release of this test program: a process can open one only.
pub fn library() -> Result<PathBuf, String> {
    static LIBRARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    LIBRARY.get_or_init(|| crate::SOURCE.library()).clone()
}

pub fn ready() -> Result<(), String> {
    library().map(drop)
}

/// UCX's own way between two fabrics.
#[derive(Clone, Copy, Debug)]
pub enum Lane {
    Tcp,
    SharedMemory,
}

pub fn options(number: u32, lane: Lane) -> Options {
    let library = library().expect("asked only where it is there");
    let mut options = Options::new(number, KEY, vec![library]);
    let (transports, devices) = match lane {
        Lane::Tcp => ("tcp", Some("lo")),
        Lane::SharedMemory => ("posix,sysv,self", None),
    };
    options.transports = Some(transports.to_owned());
    options.devices = devices.map(ToOwned::to_owned);
    options
}

pub fn start(options: Options) -> Arc<UcxFabric> {
    Arc::new(UcxFabric::start(options).expect("a fabric over UCX"))
}

struct Ucx(Vec<Option<Arc<UcxFabric>>>);

pub fn group(count: usize, settings: &Settings, lane: Lane) -> Box<dyn Group> {
    let fabrics = (0..count).map(|number| {
        let mut options = options(u32::try_from(number).expect("few"), lane);
        options.max_in_flight = settings.max_in_flight;
        options.max_queued = settings.max_queued;
        options.timeout = settings.timeout;
        Some(start(options))
    });
    Box::new(Ucx(fabrics.collect()))
}

impl Ucx {
    fn at(&self, at: usize) -> &Arc<UcxFabric> {
        self.0[at].as_ref().expect("it lives")
    }
}

impl Group for Ucx {
    fn fabric(&self, at: usize) -> Arc<dyn Fabric> {
        self.at(at).clone()
    }

    fn kill(&mut self, at: usize) {
        let fabric = self.0[at].take().expect("it lives");
        assert_eq!(Arc::strong_count(&fabric), 1, "the last owner ends it");
    }

    fn freeze(&mut self, at: usize) {
        self.at(at).hold(true);
    }

    fn thaw(&mut self, at: usize) {
        self.at(at).hold(false);
    }
}

/// UCX 1.22.0 can end the process when an endpoint is closed on which it still answers an emulated read
/// (`ucp_request_dt_dereg` below `ucp_ep_close_nbx`; about one run in fifty of these laws on a busy machine).
fn tcp_is_asked_for() -> Result<(), String> {
    match std::env::var_os("BRIDGEHEAD_UCX_TCP") {
        Some(_) => ready(),
        None => {
            Err("UCX may crash when it loses a peer over its TCP lane; BRIDGEHEAD_UCX_TCP=1 asks for it".to_owned())
        }
    }
}

mod tcp {
    bridgehead_fabric::laws!(|count, settings| super::group(count, settings, super::Lane::Tcp), when super::tcp_is_asked_for);
}

mod shared_memory {
    bridgehead_fabric::laws!(|count, settings| super::group(count, settings, super::Lane::SharedMemory), when super::ready);
}
