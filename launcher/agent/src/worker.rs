//! One worker process: how it is started, what it has been given, how it is ended.

use crate::calls::Given;
use crate::environment::{Environment, find_executable};
use crate::io::Outbox;
use crate::spawn::{EXTRA_FDS, Plan, Process, SpawnError, Spawner};
use bridgehead_spec::RunFolder;
use bridgehead_wire::Outcome;
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{HashSet, VecDeque};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Instant;

/// Calls that a busy worker may have, the one that runs included.
pub(crate) const DEPTH: usize = 16;
/// Variables by which numeric libraries are told how many threads to use.
pub(crate) const THREAD_VARIABLES: [&str; 4] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
];

/// A worker process.
#[derive(Debug)]
pub(crate) struct Worker {
    pub pid: Pid,
    pub outbox: Outbox,
    pub log: PathBuf,
    pub threads: u64,
    /// It said that it is up.
    pub ready: bool,
    /// Functions that it knows.
    pub knows: HashSet<u32>,
    /// Its calls; the first one runs.
    pub calls: VecDeque<Given>,
    /// When the first call was given or moved up.
    pub since: Instant,
    /// When the first call must be over.
    pub deadline: Option<Instant>,
    /// Whether the head was told that the first call runs.
    pub told: bool,
    /// The first call waits for tasks of its own, so what it holds was given back.
    pub blocked: bool,
    /// The first call runs long: nothing is queued behind it.
    pub slow: bool,
    /// Why it is being killed: the task that is meant, and its outcome.
    pub killed: Option<(u64, Outcome)>,
    /// It is this rank of a gang, by task, and takes no other call.
    pub rank: Option<(u64, u32)>,
}

impl Worker {
    /// Whether it is up and has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready && self.calls.is_empty() && self.killed.is_none() && self.rank.is_none()
    }

    /// Whether one more small call may wait in it.
    pub(crate) fn takes_more(&self) -> bool {
        let busy = self.calls.front().is_some_and(|given| given.small);
        busy && self.calls.len() < DEPTH && !self.slow && !self.blocked && self.killed.is_none()
    }

    /// Ends the process and its children; `outcome` is what its first call gets.
    pub(crate) fn kill(&mut self, outcome: Outcome) {
        let task = self.calls.front().map_or(u64::MAX, |given| given.call.task);
        self.killed.get_or_insert((task, outcome));
        let _ = kill_process_group(self.pid, Signal::KILL); // It is ours until its end was taken note of.
    }
}

/// What a new worker needs.
pub(crate) struct Start<'a> {
    pub python: &'a str,
    pub cwd: &'a Path,
    pub env: &'a Environment,
    pub folder: &'a RunFolder,
    pub agent: u32,
    pub worker: u32,
    pub threads: u64,
}

struct Request {
    file: CString,
    argv: [CString; 3],
    env: Environment,
    cwd: CString,
    log: File,
    socket: UnixStream,
    reply: mpsc::Sender<Result<Process, SpawnError>>,
}

/// The thread that starts all workers, so that they die with it and not with a passing one.
pub(crate) struct Nursery(mpsc::Sender<Request>);

impl Nursery {
    /// # Errors
    /// The system gives no thread.
    pub(crate) fn open() -> std::io::Result<Self> {
        let (sender, requests) = mpsc::channel::<Request>();
        std::thread::Builder::new().name("nursery".to_owned()).spawn(move || {
            let mut spawner = Spawner::new();
            for request in requests {
                let started = begin(&mut spawner, &request);
                let _ = request.reply.send(started); // The asker waits for it.
            }
        })?;
        Ok(Self(sender))
    }

    /// Starts a worker, which finds the socket to its agent at the descriptor that its environment names.
    ///
    /// # Errors
    /// The interpreter cannot be started, with the reason.
    pub(crate) fn start(&self, s: &Start<'_>) -> Result<(Process, UnixStream, PathBuf), String> {
        let log = s.folder.worker_log(s.agent, s.worker);
        let file = OpenOptions::new().append(true).create(true).open(&log);
        let file = file.map_err(|e| format!("cannot open {}: {e}", log.display()))?;
        let (ours, theirs) = UnixStream::pair().map_err(|e| format!("cannot make a socket for a worker: {e}"))?;
        ours.set_nonblocking(true)
            .map_err(|e| format!("cannot use a worker's socket: {e}"))?;
        let (reply, answer) = mpsc::channel();
        let request = request(s, file, theirs, reply).ok_or("a path of the worker has a NUL character in it")?;
        let gone = "the thread that starts workers is gone";
        self.0.send(request).map_err(|_| gone)?;
        let process = answer.recv().map_err(|_| gone)?.map_err(|error| match error {
            SpawnError::System(e) => format!("cannot start a process: {e}"),
            SpawnError::Folder(e) => format!("cannot start a worker in {}: {e}", s.cwd.display()),
            SpawnError::Executable(e) => format!("cannot start the interpreter {}: {e}", s.python),
        })?;
        Ok((process, ours, log))
    }
}

fn request(
    s: &Start<'_>,
    log: File,
    socket: UnixStream,
    reply: mpsc::Sender<Result<Process, SpawnError>>,
) -> Option<Request> {
    let mut env = s.env.clone();
    env.unset("PYTHONUNBUFFERED"); // Each print of a task would be a system call.
    for name in THREAD_VARIABLES {
        env.set_default(name, &s.threads.to_string());
    }
    env.set("BRIDGEHEAD_WORKER_FD", EXTRA_FDS[0].to_string());
    let file = find_executable(s.python, env.get("PATH"), s.cwd).unwrap_or_else(|| PathBuf::from(s.python));
    Some(Request {
        file: CString::new(file.as_os_str().as_bytes()).ok()?,
        argv: [CString::new(s.python).ok()?, c"-m".into(), c"bridgehead._worker".into()],
        cwd: CString::new(s.cwd.as_os_str().as_bytes()).ok()?,
        env,
        log,
        socket,
        reply,
    })
}

fn begin(spawner: &mut Spawner, request: &Request) -> Result<Process, SpawnError> {
    let null = File::open("/dev/null").map_err(SpawnError::System)?;
    spawner.spawn(&Plan {
        path: &request.file,
        argv: &request.argv,
        envp: &request.env.block(&Environment::default()),
        cwd: Some(&request.cwd),
        stdin: null.as_fd(),
        stdout: request.log.as_fd(),
        stderr: request.log.as_fd(),
        extra: &[request.socket.as_fd()],
        session: false,
        processors: &[],
    })
}
