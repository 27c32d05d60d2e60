//! One worker process: how it is started, what it has been given, how it is ended.

use crate::io::Outbox;
use crate::reaper::MARK;
use bridgehead_spec::{Resources, RunFolder};
use bridgehead_wire::{AgentWelcome, Outcome, TaskCall};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::{HashSet, VecDeque};
use std::fs::OpenOptions;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Instant;

/// Calls that a busy worker may have waiting.
pub(crate) const DEPTH: usize = 16;

/// A call that a worker has.
#[derive(Debug)]
pub(crate) struct Given {
    pub call: TaskCall,
    /// What the call holds; the first of a worker's calls holds it, those behind take it over.
    pub holds: Resources,
    pub devices: Vec<u32>,
}

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
    /// Why it is being killed: the outcome of its first call.
    pub killed: Option<Outcome>,
}

/// What a new worker needs.
pub(crate) struct Start<'a> {
    pub welcome: &'a AgentWelcome,
    pub folder: &'a RunFolder,
    pub agent: u32,
    pub worker: u32,
    pub incarnation: &'a str,
    pub threads: u64,
}

/// Starts a worker; its standard input is the socket to its agent.
///
/// # Errors
/// The interpreter cannot be started, with the reason.
pub(crate) fn start(s: &Start<'_>) -> Result<(Child, UnixStream, PathBuf), String> {
    let (ours, theirs) = UnixStream::pair().map_err(|e| format!("cannot make a socket for a worker: {e}"))?;
    let log = s.folder.logs().join(format!("worker-{}-{}.log", s.agent, s.worker));
    let file = OpenOptions::new().append(true).create(true).open(&log);
    let file = file.map_err(|e| format!("cannot open {}: {e}", log.display()))?;
    let copy = file
        .try_clone()
        .map_err(|e| format!("cannot open {}: {e}", log.display()))?;
    let mut command = Command::new(&s.welcome.python);
    command.args(["-m", "bridgehead._worker"]).process_group(0);
    if !s.welcome.cwd.is_empty() {
        command.current_dir(&s.welcome.cwd);
    }
    for name in ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"] {
        if std::env::var_os(name).is_none() {
            command.env(name, s.threads.to_string());
        }
    }
    command.envs(s.welcome.env.iter().map(|pair| (&pair.key, &pair.value)));
    command
        .env("BRIDGEHEAD_WORKER_FD", "0")
        .env("BRIDGEHEAD_RUN", &s.welcome.run)
        .env(MARK, s.incarnation);
    command.stdin(OwnedFd::from(theirs)).stdout(copy).stderr(file);
    let child = command
        .spawn()
        .map_err(|e| format!("cannot start {} in {}: {e}", s.welcome.python, s.welcome.cwd))?;
    ours.set_nonblocking(true)
        .map_err(|e| format!("cannot use a worker's socket: {e}"))?;
    Ok((child, ours, log))
}

impl Worker {
    /// Whether it is up and has nothing to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.ready && self.calls.is_empty() && self.killed.is_none()
    }

    /// Whether one more small call may wait in it.
    pub(crate) fn takes_more(&self) -> bool {
        let busy = self
            .calls
            .front()
            .is_some_and(|given| crate::calls::may_queue(&given.call));
        busy && self.calls.len() < DEPTH && !self.slow && !self.blocked && self.killed.is_none()
    }

    /// Ends the process and its children; `outcome` is what its first call gets.
    pub(crate) fn kill(&mut self, outcome: Outcome) {
        self.killed.get_or_insert(outcome);
        let _ = kill_process_group(self.pid, Signal::KILL); // It is ours until its exit was taken note of.
    }
}
