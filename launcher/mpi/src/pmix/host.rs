//! Helpers as the agent has them: one process for each libpmix and host name, started with the first gang that needs it and kept for the
//! next. Owns the process, its socket and the thread that moves frames; what they mean is `gang`'s matter.

use super::frames::{Begin, Do, Forget, Frames, Node, Order, Register, Report, Tell, frame};
use super::gang::{Gang, Out};
use crate::bootstrap::{BootError, Event, Options, RankSetup};
use crate::foreign::foreign;
use crate::waker::Waker;
use crate::world::World;
use bytes::{Buf, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A helper that has not answered by then never will: opening libpmix takes some 50 ms.
const PATIENCE: Duration = Duration::from_secs(20);
/// A helper ends by itself when its socket is closed; then it is ended.
const GRACE: Duration = Duration::from_secs(2);

type Events = Box<dyn Fn(Event) + Send + Sync>;

/// The warm helpers of an agent.
pub(crate) struct Helpers {
    folder: PathBuf,
    running: Mutex<HashMap<(PathBuf, String), Arc<Helper>>>,
}

struct Helper {
    errands: Sender<Errand>,
    waker: Arc<Waker>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the helper's thread is to do.
enum Errand {
    Begin {
        world: World,
        folder: String,
        events: Events,
        ready: Sender<Ready>,
        gang: u64,
    },
    Deliver {
        gang: u64,
        from: u32,
        bytes: Bytes,
    },
    End {
        gang: u64,
    },
    Stop,
}

type Ready = Result<Vec<Vec<String>>, String>;

/// One gang's place in a helper.
pub(crate) struct Service {
    helper: Arc<Helper>,
    gang: u64,
    first: u32,
    ready: Receiver<Ready>,
    variables: Option<Vec<Vec<String>>>,
    extra: Vec<(String, String)>,
}

impl Helpers {
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            running: Mutex::default(),
        }
    }

    /// A place for a gang in the helper for its libpmix, which is started unless it runs.
    pub fn serve(&self, world: World, options: &Options, events: Events) -> Result<Service, BootError> {
        let libpmix = options.libpmix.as_ref().ok_or_else(|| BootError::Pmix {
            reason:
                "the libpmix of the program's Open MPI is not known: name it, or install libpmix (Debian: libpmix2)"
                    .to_owned(),
        })?;
        let key = (libpmix.clone(), world.part().host.clone());
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        // One whose thread has ended lost its process; its gangs have been told.
        running.retain(|_, helper| helper.lives());
        let helper = match running.get(&key) {
            Some(helper) => helper.clone(),
            None => running
                .entry(key)
                .or_insert(self.begin(libpmix, &world.part().host, options)?)
                .clone(),
        };
        drop(running);
        let (ready, received) = channel();
        let gang = next_number();
        let (first, folder) = (world.part().first, text(&options.scratch)?);
        let extra = super::server::variables(&folder);
        helper.errand(Errand::Begin {
            world,
            folder,
            events,
            ready,
            gang,
        });
        Ok(Service {
            helper,
            gang,
            first,
            ready: received,
            variables: None,
            extra,
        })
    }

    fn begin(&self, libpmix: &Path, host: &str, options: &Options) -> Result<Arc<Helper>, BootError> {
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
        let child = command.spawn().map_err(system("the PMIx helper does not start"))?;
        let waker = Arc::new(Waker::new()?);
        let (errands, received) = channel();
        let unsent = BytesMut::from(
            &frame(&Order {
                gang: 0,
                what: Some(Do::Begin(begin)),
            })[..],
        );
        let gangs = HashMap::new();
        let server = Server {
            child,
            socket: ours,
            frames: Frames::default(),
            unsent,
            errands: received,
            waker: waker.clone(),
            gangs,
        };
        let thread = std::thread::Builder::new()
            .name("pmix".to_owned())
            .spawn(move || server.serve());
        let thread = thread.map_err(system("no thread for the PMIx helper"))?;
        Ok(Arc::new(Helper {
            errands,
            waker,
            thread: Mutex::new(Some(thread)),
        }))
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        for helper in self.running.lock().unwrap_or_else(PoisonError::into_inner).values() {
            helper.errand(Errand::Stop);
        }
        for (_, helper) in self.running.lock().unwrap_or_else(PoisonError::into_inner).drain() {
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
        // Of a thread that has ended nobody needs anything: its gangs have been told.
        if self.errands.send(errand).is_ok() {
            self.waker.wake();
        }
    }

    fn lives(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread.as_ref().is_some_and(|thread| !thread.is_finished())
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

/// The thread of one helper.
struct Server {
    child: Child,
    socket: OwnedFd,
    frames: Frames,
    unsent: BytesMut,
    errands: Receiver<Errand>,
    waker: Arc<Waker>,
    gangs: HashMap<u64, Member>,
}

struct Member {
    gang: Gang,
    events: Events,
    ready: Option<Sender<Ready>>,
}

/// Why the thread ends.
enum End {
    Told,
    Lost(String),
}

impl Server {
    fn serve(mut self) {
        let end = loop {
            if let Err(end) = self.turn() {
                break end;
            }
        };
        let status = self.reap();
        if let End::Lost(reason) = end {
            let status = status.map_or_else(|| "not ended".to_owned(), |status| status.to_string());
            let reason =
                format!("the PMIx helper is lost ({reason}; {status}): start the gang again, and see its stderr");
            for (_, member) in self.gangs {
                member.tell(
                    vec![
                        Out::Ready(Err(reason.clone())),
                        Out::Event(Event::Failed { reason: reason.clone() }),
                    ],
                    |_| {},
                );
            }
        }
    }

    /// Waits once, and does what there is to do.
    fn turn(&mut self) -> Result<(), End> {
        let mut wanted = PollFlags::IN;
        wanted.set(PollFlags::OUT, !self.unsent.is_empty());
        let mut fds = [
            PollFd::new(&*self.waker, PollFlags::IN),
            PollFd::new(&self.socket, wanted),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        let readable = fds[1]
            .revents()
            .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR);
        self.waker.clear();
        while let Ok(errand) = self.errands.try_recv() {
            self.run(errand)?;
        }
        if readable {
            self.read()?;
        }
        self.flush()
    }

    fn run(&mut self, errand: Errand) -> Result<(), End> {
        match errand {
            Errand::Begin {
                world,
                folder,
                events,
                ready,
                gang,
            } => {
                let node = |node: &crate::NodePart| Node {
                    host: node.host.clone(),
                    first: node.first,
                    count: node.count,
                };
                let nodes = world.nodes.iter().map(node).collect();
                let register = Register {
                    name: world.name.clone(),
                    nodes,
                    here: world.here as u32,
                    folder,
                };
                self.order(gang, Do::Register(register));
                self.gangs.insert(
                    gang,
                    Member {
                        gang: Gang::new(world),
                        events,
                        ready: Some(ready),
                    },
                );
            }
            Errand::Deliver { gang, from, bytes } => {
                let outs = self.gangs.get_mut(&gang).map(|member| member.gang.peer(from, bytes));
                self.carry_out(gang, outs.unwrap_or_default());
            }
            Errand::End { gang } => {
                if self.gangs.remove(&gang).is_some() {
                    self.order(gang, Do::Forget(Forget {}));
                }
            }
            Errand::Stop => return Err(End::Told),
        }
        Ok(())
    }

    fn read(&mut self) -> Result<(), End> {
        let mut buffer = [0_u8; 64 << 10];
        match rustix::io::read(&self.socket, &mut buffer) {
            Ok(0) => return Err(End::Lost("it closed its socket".to_owned())),
            Ok(count) => self.frames.feed(&buffer[..count]),
            Err(Errno::INTR | Errno::AGAIN) => return Ok(()),
            Err(error) => return Err(End::Lost(error.to_string())),
        }
        while let Some(report) = self
            .frames
            .next::<Report>()
            .map_err(|garbage| End::Lost(garbage.to_string()))?
        {
            match (report.gang, report.what) {
                (0, Some(Tell::Failed(reason))) => return Err(End::Lost(reason)),
                (gang, Some(tell)) => {
                    let outs = self.gangs.get_mut(&gang).map(|member| member.gang.report(tell));
                    self.carry_out(gang, outs.unwrap_or_default());
                }
                (_, None) => return Err(End::Lost("it sends what this build does not know".to_owned())),
            }
        }
        Ok(())
    }

    fn carry_out(&mut self, gang: u64, outs: Vec<Out>) {
        let mut orders = Vec::new();
        if let Some(member) = self.gangs.get_mut(&gang) {
            let ready = outs.iter().any(|out| matches!(out, Out::Ready(_)));
            member.tell(outs, |order| orders.push(order));
            if ready {
                member.ready = None;
            }
        }
        orders.into_iter().for_each(|order| self.order(gang, order));
    }

    fn order(&mut self, gang: u64, what: Do) {
        self.unsent.extend_from_slice(&frame(&Order { gang, what: Some(what) }));
    }

    fn flush(&mut self) -> Result<(), End> {
        while !self.unsent.is_empty() {
            match send(&self.socket, &self.unsent, SendFlags::NOSIGNAL) {
                Ok(count) => self.unsent.advance(count),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(End::Lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// Closes the socket, by which the helper ends, and waits for that.
    fn reap(&mut self) -> Option<ExitStatus> {
        // Its other end may be closed already.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Some(status);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // It may have ended in this moment; then the wait below says how.
        let _ = self.child.kill();
        self.child.wait().ok()
    }
}

impl Member {
    fn tell(&self, outs: Vec<Out>, mut order: impl FnMut(Do)) {
        for out in outs {
            match out {
                Out::Event(event) => (self.events)(event),
                Out::Order(what) => order(what),
                // Nobody waits any more where the gang was dropped meanwhile.
                Out::Ready(ready) => drop(self.ready.as_ref().map(|sender| sender.send(ready))),
            }
        }
    }
}
