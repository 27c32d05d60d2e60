//! Ranks that are functions are forked, not started: one Python of this node has loaded what every rank needs, and a fork of it is a rank
//! within milliseconds. Owns that process (`bridgehead/_forkserver.py`), the thread that speaks to it, and their few words. Hot path:
//! `ask`, once a rank.
//!
//! A rank is a child of that process, which keeps its number until the agent has taken note of its end, so that a number is never
//! another process's while the agent may signal it. The processes end with the thread, as those of the nursery do.

use crate::environment::{Environment, find_executable};
use crate::ranks::RankStart;
use crate::spawn::{EXTRA_FDS, End, Plan, Process, Spawner};
use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv,
    sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::oneshot;

/// Python may have to be read from a slow disk; a rank is a fork of what is there.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest answer.
const ANSWER: usize = 4096;

/// How the server is started.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub python: String,
    pub cwd: PathBuf,
    /// Without variables that would mislead a rank's MPI.
    pub env: Environment,
    /// Where it, and what C code of ranks prints before they have a log of their own, is written.
    pub log: PathBuf,
}

/// A rank that is to be.
pub(crate) struct Fork {
    pub start: RankStart,
    /// Its end of the connection to the agent.
    pub socket: UnixStream,
    pub log: File,
    pub answer: Box<dyn FnOnce(Result<Process, String>) + Send>,
}

enum Ask {
    Fork(Box<Fork>),
    Reap(Pid, oneshot::Sender<Option<End>>),
    Stop,
}

/// The way to the thread.
#[derive(Clone)]
pub(crate) struct Forks(mpsc::Sender<Ask>);

impl std::fmt::Debug for Forks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Forks")
    }
}

/// What the server is asked, with the descriptors beside it: socket, log, and its MPI's.
#[derive(Serialize)]
struct Wish<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reap: Option<i32>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    set: BTreeMap<&'a str, &'a str>,
    /// The variable that names the third descriptor.
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<&'a str>,
    processors: &'a [u32],
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Answer {
    Pid(i32),
    Code(i32),
    Error(String),
}

/// Why there is no rank.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// The server is of no use any more.
    #[error("{0}")]
    Gone(String),
    /// This rank cannot be had; the server and its other ranks go on.
    #[error("{0}")]
    Refused(String),
}

impl Forks {
    /// Starts the thread, which starts the server when it is first asked.
    ///
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn open(server: Server) -> std::io::Result<Self> {
        let (sender, asks) = mpsc::channel();
        let forks = Self(sender);
        let own = forks.clone();
        std::thread::Builder::new()
            .name("forks".to_owned())
            .spawn(move || Thread { server, own, up: None }.work(&asks))?;
        Ok(forks)
    }

    /// Asks for a rank; the answer comes from the thread.
    pub(crate) fn fork(&self, fork: Fork) {
        if let Err(mpsc::SendError(Ask::Fork(fork))) = self.0.send(Ask::Fork(Box::new(fork))) {
            (fork.answer)(Err("the thread that starts ranks is gone".to_owned()));
        }
    }

    /// The server ends, and its ranks with it.
    pub(crate) fn stop(&self) {
        let _ = self.0.send(Ask::Stop); // It has ended already.
    }

    /// The end of a rank whose process has ended: its number is free from now on. `None`: nobody can tell any more.
    pub(crate) async fn reap(&self, pid: Pid) -> Option<End> {
        let (sender, answer) = oneshot::channel();
        self.0.send(Ask::Reap(pid, sender)).ok()?;
        answer.await.ok().flatten()
    }
}

struct Thread {
    server: Server,
    own: Forks,
    up: Option<Up>,
}

/// The server while it runs.
struct Up {
    socket: OwnedFd,
    process: Process,
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = kill_process(self.process.pid, Signal::KILL); // It ends by itself as well, and its ranks with it.
        let _ = self.process.wait(); // It was just killed.
    }
}

impl Thread {
    fn work(&mut self, asks: &mpsc::Receiver<Ask>) {
        let mut spawner = Spawner::new();
        while let Ok(ask) = asks.recv() {
            match ask {
                Ask::Fork(fork) => {
                    let was_up = self.up.is_some();
                    let mut forked = self.fork(&mut spawner, &fork);
                    if matches!(forked, Err(Trouble::Gone(_))) && was_up {
                        self.up = None; // Somebody ended it between two gangs: that is no fault of this rank.
                        forked = self.fork(&mut spawner, &fork);
                    }
                    if matches!(forked, Err(Trouble::Gone(_))) {
                        self.up = None;
                    }
                    (fork.answer)(forked.map_err(|trouble| trouble.to_string()));
                }
                Ask::Reap(pid, answer) => {
                    let _ = answer.send(self.reap(pid)); // Nobody waits for it at the agent's end.
                }
                Ask::Stop => return,
            }
        }
    }

    fn fork(&mut self, spawner: &mut Spawner, fork: &Fork) -> Result<Process, Trouble> {
        let up = match &self.up {
            Some(up) => up,
            None => self.up.insert(self.server.start(spawner).map_err(Trouble::Gone)?),
        };
        let rank = &fork.start;
        let named = rank.fd.as_ref().zip(rank.fd_name.as_deref());
        let wish = Wish {
            reap: None,
            set: rank
                .env
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect(),
            fd: named.map(|(_, name)| name),
            processors: &rank.processors,
        };
        let mut fds = vec![fork.socket.as_fd(), fork.log.as_fd()];
        fds.extend(named.map(|(fd, _)| fd.as_fd()));
        let pid = match ask(&up.socket, &wish, &fds)? {
            Answer::Pid(pid) => Pid::from_raw(pid),
            Answer::Error(reason) => return Err(Trouble::Refused(reason)),
            Answer::Code(_) => None,
        };
        let pid = pid.ok_or_else(|| Trouble::Gone("the server of forks gave no process".to_owned()))?;
        // It cannot be another's number: the server keeps it until it is asked for the end.
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        let pidfd = pidfd.map_err(|e| Trouble::Refused(format!("cannot watch a rank: {e}")))?;
        let keeper = Some(self.own.clone());
        Ok(Process { pid, pidfd, keeper })
    }

    fn reap(&mut self, pid: Pid) -> Option<End> {
        let wish = Wish {
            reap: Some(pid.as_raw_nonzero().get()),
            set: BTreeMap::new(),
            fd: None,
            processors: &[],
        };
        match ask(&self.up.as_ref()?.socket, &wish, &[]) {
            Ok(Answer::Code(code)) if code < 0 => Some(End::Signal(-code)),
            Ok(Answer::Code(code)) => Some(End::Code(code)),
            _ => None,
        }
    }
}

impl Server {
    fn start(&self, spawner: &mut Spawner) -> Result<Up, String> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (ours, theirs) = pair.map_err(|e| format!("cannot make a socket for the server of forks: {e}"))?;
        rustix::net::sockopt::set_socket_timeout(&ours, rustix::net::sockopt::Timeout::Recv, Some(PATIENCE))
            .map_err(|e| format!("cannot use the socket of the server of forks: {e}"))?;
        let log = OpenOptions::new().append(true).create(true).open(&self.log);
        let log = log.map_err(|e| format!("cannot open {}: {e}", self.log.display()))?;
        let null = File::open("/dev/null").map_err(|e| format!("cannot open /dev/null: {e}"))?;
        let mut env = self.env.clone();
        env.set("BRIDGEHEAD_FORK_FD", EXTRA_FDS[0].to_string());
        let file = find_executable(&self.python, env.get("PATH"), &self.cwd);
        let file = file.unwrap_or_else(|| PathBuf::from(&self.python));
        let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| "a path has a NUL character in it".to_owned());
        let argv = [
            text(self.python.as_bytes())?,
            c"-m".into(),
            c"bridgehead._forkserver".into(),
        ];
        let none = Environment::default();
        let plan = Plan {
            path: &text(file.as_os_str().as_bytes())?,
            argv: &argv,
            envp: &env.block(&none),
            cwd: Some(&text(self.cwd.as_os_str().as_bytes())?),
            stdin: null.as_fd(),
            stdout: log.as_fd(),
            stderr: log.as_fd(),
            extra: &[theirs.as_fd()],
            processors: &[],
            session: false,
        };
        let process = spawner.spawn(&plan);
        let process = process.map_err(|e| format!("cannot start {} for ranks: {e:?}", self.python))?;
        Ok(Up { socket: ours, process })
    }
}

/// One question and its answer.
fn ask(server: &OwnedFd, wish: &Wish<'_>, fds: &[BorrowedFd<'_>]) -> Result<Answer, Trouble> {
    let text = serde_json::to_vec(wish).map_err(|e| Trouble::Refused(format!("cannot word a rank: {e}")))?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        beside.push(SendAncillaryMessage::ScmRights(fds));
    }
    let gone = |e: rustix::io::Errno| {
        let reason = "the Python that ranks are forked from does not answer";
        Trouble::Gone(format!("{reason} ({e}): see logs/forks-*.log in the run folder"))
    };
    retry_on_intr(|| sendmsg(server, &[IoSlice::new(&text)], &mut beside, SendFlags::NOSIGNAL)).map_err(gone)?;
    let mut buffer = [0u8; ANSWER];
    let (len, _) = retry_on_intr(|| recv(server, &mut buffer[..], RecvFlags::empty())).map_err(gone)?;
    if len == 0 {
        return Err(gone(rustix::io::Errno::PIPE));
    }
    serde_json::from_slice(&buffer[..len]).map_err(|e| {
        Trouble::Gone(format!(
            "the Python that ranks are forked from said what is no answer: {e}"
        ))
    })
}
