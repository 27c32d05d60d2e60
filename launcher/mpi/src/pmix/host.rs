//! Helpers as the agent has them: a process each, which serves one gang at a time and is kept warm for the next. Owns which gang gets
//! which, and how a helper is started; its thread is `helper`'s matter.
//!
//! A gang has its helper alone, so what goes wrong in one touches no other. One whose gang did not end well is not used again: libpmix
//! 4.2 can lock its own thread for ever when a rank dies while it connects.

use super::frames::{Begin, Do, Frames, Node, Order, Register, frame};
use super::gang::Gang;
use super::helper::{ENDED, Errand, Events, Member, Ready, SERVES, Server, WARM};
use crate::bootstrap::{BootError, Options, RankSetup};
use crate::foreign::foreign;
use crate::leftovers::SharedFolder;
use crate::waker::Waker;
use crate::world::World;
use bytes::{Bytes, BytesMut};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU8;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A helper that has not answered by then never will: opening libpmix takes some 20 ms.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most helpers that are kept without a gang.
const SPARE: usize = 4;

/// The helpers of an agent.
pub(crate) struct Helpers {
    folder: PathBuf,
    all: Mutex<Vec<Arc<Helper>>>,
}

struct Helper {
    libpmix: PathBuf,
    host: String,
    at: Arc<AtomicU8>,
    errands: Sender<Errand>,
    waker: Arc<Waker>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// One gang's place in a helper.
pub(crate) struct Service {
    helper: Arc<Helper>,
    gang: u64,
    first: u32,
    ready: Receiver<Ready>,
    variables: Option<Vec<Vec<String>>>,
    extra: Vec<(String, String)>,
    _shared: Option<SharedFolder>,
}

impl Helpers {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            all: Mutex::default(),
        }
    }

    /// A helper for a gang: a warm one for its libpmix, or a new one.
    pub fn serve(&self, world: World, options: &Options, events: Events) -> Result<Service, BootError> {
        let libpmix = options.libpmix.as_ref().ok_or_else(|| BootError::Pmix {
            reason:
                "the libpmix of the program's Open MPI is not known: name it, or install libpmix (Debian: libpmix2)"
                    .to_owned(),
        })?;
        let (gang, first, folder) = (next_number(), world.part().first, text(&options.scratch)?);
        let shared = SharedFolder::make(&format!("{}.{}", world.name, world.here));
        let memory = shared
            .as_ref()
            .map_or(Ok(folder.clone()), |shared| text(shared.path()))?;
        let extra = super::server::variables(&folder, &memory);
        let helper = self.take(libpmix, &world.part().host, options)?;
        let (ready, received) = channel();
        let register = register_of(&world, folder.clone());
        let member = Member {
            number: gang,
            register,
            gang: Gang::new(world),
            events,
            ready: Some(ready),
            inside: HashSet::new(),
        };
        helper.errand(Errand::Begin(Box::new(member)));
        Ok(Service {
            helper,
            gang,
            first,
            ready: received,
            variables: None,
            extra,
            _shared: shared,
        })
    }

    fn take(&self, libpmix: &Path, host: &str, options: &Options) -> Result<Arc<Helper>, BootError> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|helper| helper.at.load(Acquire) != ENDED);
        let fits = |helper: &&Arc<Helper>| helper.libpmix == libpmix && helper.host == host;
        if let Some(warm) = all.iter().filter(fits).find(|helper| helper.turn(WARM, SERVES)) {
            return Ok(warm.clone());
        }
        let spare = all.iter().filter(|helper| helper.at.load(Acquire) == WARM).skip(SPARE);
        spare
            .filter(|helper| helper.turn(WARM, SERVES))
            .for_each(|helper| helper.errand(Errand::Stop));
        let new = Arc::new(self.begin(libpmix, host, options)?);
        all.push(new.clone());
        Ok(new)
    }

    fn begin(&self, libpmix: &Path, host: &str, options: &Options) -> Result<Helper, BootError> {
        let system = |what| move |source: std::io::Error| BootError::System { what, source };
        let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|e| system("no socket for the PMIx helper")(e.into()))?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(|e| system("the PMIx helper's socket waits")(e.into()))?;
        let folder = self.folder.join(format!("pmix-{}", next_number()));
        std::fs::create_dir(&folder).map_err(system("no folder for the PMIx helper"))?;
        let begin = Begin {
            libpmix: text(libpmix)?,
            folder: text(&folder)?,
            host: host.to_owned(),
        };
        let kept = options
            .helper_env
            .iter()
            .filter(|(name, _)| !foreign(&name.to_string_lossy()));
        let mut command = Command::new(&options.helper);
        command
            .arg("pmix-server")
            .env_clear()
            .envs(kept.map(|(name, value)| (name, value)));
        command
            .env("TMPDIR", &folder)
            .envs(super::server::MODULES.iter().copied());
        // Its own group: an interrupt from a terminal is the agent's matter.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .current_dir(&folder);
        let waker = Arc::new(Waker::new()?);
        let (errands, received) = channel();
        let at = Arc::new(AtomicU8::new(SERVES));
        let unsent = BytesMut::from(
            &frame(&Order {
                gang: 0,
                what: Some(Do::Begin(begin)),
            })[..],
        );
        let child = command.spawn().map_err(system("the PMIx helper does not start"))?;
        let server = Server {
            child,
            folder,
            socket: ours,
            frames: Frames::default(),
            unsent,
            errands: received,
            waker: waker.clone(),
            at: at.clone(),
            member: None,
            forgets: false,
        };
        let thread = std::thread::Builder::new()
            .name("pmix".to_owned())
            .spawn(move || server.serve());
        let thread = Mutex::new(Some(thread.map_err(system("no thread for the PMIx helper"))?));
        Ok(Helper {
            libpmix: libpmix.to_owned(),
            host: host.to_owned(),
            at,
            errands,
            waker,
            thread,
        })
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        let all = std::mem::take(&mut *self.all.lock().unwrap_or_else(PoisonError::into_inner));
        all.iter().for_each(|helper| helper.errand(Errand::Stop));
        for helper in all {
            let thread = helper.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
                // A panic of it was printed when it happened.
                let _ = thread.join();
            }
        }
    }
}

impl Helper {
    fn errand(&self, errand: Errand) {
        // Of a thread that has ended nobody needs anything: its gang has been told.
        if self.errands.send(errand).is_ok() {
            self.waker.wake();
        }
    }

    fn turn(&self, from: u8, to: u8) -> bool {
        self.at.compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }
}

fn register_of(world: &World, folder: String) -> Register {
    let node = |node: &crate::NodePart| Node {
        host: node.host.clone(),
        first: node.first,
        count: node.count,
    };
    let nodes = world.nodes.iter().map(node).collect();
    Register {
        name: world.name.clone(),
        nodes,
        here: world.here as u32,
        folder,
    }
}

impl Service {
    pub fn setup(&mut self, rank: u32) -> Result<RankSetup, BootError> {
        if self.variables.is_none() {
            let ready = self.ready.recv_timeout(PATIENCE).unwrap_or_else(|error| {
                Err(match error {
                    RecvTimeoutError::Timeout => {
                        format!("the PMIx helper has not answered in {} s", PATIENCE.as_secs())
                    }
                    RecvTimeoutError::Disconnected => "the PMIx helper has ended".to_owned(),
                })
            });
            self.variables = Some(ready.map_err(|reason| BootError::Pmix { reason })?);
        }
        let at = (rank - self.first) as usize;
        let variables = self
            .variables
            .as_ref()
            .and_then(|ranks| ranks.get(at))
            .ok_or(BootError::Rank { rank })?;
        let pairs = variables.iter().filter_map(|line| line.split_once('='));
        let pairs = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        Ok(RankSetup {
            set: self.extra.iter().cloned().chain(pairs).collect(),
            fd: None,
        })
    }

    pub fn deliver(&self, from: u32, bytes: Bytes) {
        self.helper.errand(Errand::Deliver {
            gang: self.gang,
            from,
            bytes,
        });
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.helper.errand(Errand::End { gang: self.gang });
    }
}

fn next_number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// A path as the helper is told it.
fn text(path: &Path) -> Result<String, BootError> {
    let reason = || {
        format!(
            "{} is a path that libpmix cannot be told: it is no UTF-8",
            path.display()
        )
    };
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| BootError::Pmix { reason: reason() })
}
