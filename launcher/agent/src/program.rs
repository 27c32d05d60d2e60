//! Programs: executables started without a shell and without Python. Owns the threads that start one, read what it
//! prints and wait for it. Hot path: `run_one`, once a program.
//!
//! A thread whose program has ended goes on with one of those that wait `ahead`, without asking the agent first: the
//! agent's loop then need not wake up in between, and the core stays busy.

use crate::capture::follow;
use crate::environment::{Environment, find_executable};
use crate::ranks::{RankLines, RankStart};
use crate::spawn::{Plan, Process, SpawnError, Spawner};
use crate::verdict;
use bridgehead_wire::{Failure, FailureCause, LogText, Outcome, TaskCall};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What every program of a run shares.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Working folder where a program names none.
    pub cwd: PathBuf,
    /// Variables of the run, with the agent's mark.
    pub env: Environment,
    /// Names of the node's GPUs, by the number in a call's `devices`.
    pub devices: Vec<String>,
    /// Where a program finds the agent and, by it, the store.
    pub socket: PathBuf,
}

/// A program that was handed over; `kill` ends it whenever it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    pid: Option<Pid>,
    killed: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// Ends the program's process group, now or as soon as it has been started.
    pub(crate) fn kill(&self) {
        let mut state = lock(&self.0);
        state.killed = true;
        if let Some(pid) = state.pid {
            let _ = kill_process_group(pid, Signal::KILL); // Its end may be on its way already.
        }
    }

    /// The process, while it runs.
    pub(crate) fn pid(&self) -> u32 {
        let pid = lock(&self.0).pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        u32::try_from(pid).unwrap_or(0)
    }

    /// From now on the group may be killed.
    fn started(&self, pid: Pid) {
        let mut state = lock(&self.0);
        state.pid = Some(pid);
        if state.killed {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The process is about to be taken note of: its number may belong to another one from now on. What it left in its
    /// group goes with it.
    fn ended(&self) {
        if let Some(pid) = lock(&self.0).pid.take() {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub task: u64,
    pub attempt: u32,
    pub outcome: Outcome,
    pub started_ns: u64,
    pub elapsed_ns: u64,
    /// The task that its thread went on with, in its place.
    pub next: Option<u64>,
    /// The rank that it was, if it was one of a gang.
    pub rank: Option<u32>,
}

/// What the threads tell.
#[derive(Debug)]
pub(crate) enum Report {
    Printed(LogText),
    Ended(Box<Ended>),
}

struct Job {
    call: TaskCall,
    /// It is one rank of the call's gang.
    rank: Option<RankStart>,
    handle: Handle,
    surroundings: Arc<Surroundings>,
    /// Whether another one may take its place without a question.
    small: bool,
}

#[derive(Default)]
struct Queue {
    ready: VecDeque<Job>,
    ahead: VecDeque<Job>,
    idle: usize,
    closed: bool,
}

type Reporter = Arc<dyn Fn(Report) + Send + Sync>;

/// Threads that run programs, as many as ever ran at a time.
pub(crate) struct Programs {
    shared: Arc<(Mutex<Queue>, Condvar)>,
    report: Reporter,
}

impl Programs {
    /// No thread yet; `report` is called from them.
    pub(crate) fn new(report: impl Fn(Report) + Send + Sync + 'static) -> Self {
        Self {
            shared: Arc::default(),
            report: Arc::new(report),
        }
    }

    /// Starts a program.
    pub(crate) fn start(&self, call: TaskCall, small: bool, surroundings: Arc<Surroundings>) -> Handle {
        self.begin(call, None, small, surroundings)
    }

    /// Starts one rank of a gang that runs a program.
    pub(crate) fn start_rank(&self, call: TaskCall, rank: RankStart, surroundings: Arc<Surroundings>) -> Handle {
        self.begin(call, Some(rank), false, surroundings)
    }

    fn begin(&self, call: TaskCall, rank: Option<RankStart>, small: bool, surroundings: Arc<Surroundings>) -> Handle {
        let handle = Handle::default();
        let job = Job {
            call,
            rank,
            handle: handle.clone(),
            surroundings,
            small,
        };
        let mut queue = lock(&self.shared.0);
        queue.ready.push_back(job);
        if queue.ready.len() > queue.idle {
            self.add_thread();
        } else {
            self.shared.1.notify_one();
        }
        handle
    }

    /// Lays a small program ready for a thread whose own has ended.
    pub(crate) fn ahead(&self, call: TaskCall, surroundings: Arc<Surroundings>) -> Handle {
        let handle = Handle::default();
        let job = Job {
            call,
            rank: None,
            handle: handle.clone(),
            surroundings,
            small: true,
        };
        lock(&self.shared.0).ahead.push_back(job);
        handle
    }

    /// Takes a program back that lies ready, if no thread has taken it yet.
    pub(crate) fn withdraw(&self, task: u64) -> bool {
        let ahead = &mut lock(&self.shared.0).ahead;
        let at = ahead.iter().position(|job| job.call.task == task);
        at.and_then(|at| ahead.remove(at)).is_some()
    }

    /// Takes back all programs that lie ready, in order.
    pub(crate) fn withdraw_all(&self) -> Vec<TaskCall> {
        lock(&self.shared.0).ahead.drain(..).map(|job| job.call).collect()
    }

    fn add_thread(&self) {
        let (shared, report) = (self.shared.clone(), self.report.clone());
        let thread = std::thread::Builder::new().name("programs".to_owned());
        let started = thread.spawn(move || work(&shared, &report));
        if let Err(error) = started {
            tracing::error!(%error, "cannot start a thread for programs");
        }
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        lock(&self.shared.0).closed = true;
        self.shared.1.notify_all();
    }
}

fn work(shared: &(Mutex<Queue>, Condvar), report: &Reporter) {
    let mut spawner = Spawner::new();
    while let Some(mut job) = next_ready(shared) {
        loop {
            let mut ended = run_one(&job, &mut spawner, report);
            let next = if job.small {
                lock(&shared.0).ahead.pop_front()
            } else {
                None
            };
            ended.next = next.as_ref().map(|job| job.call.task);
            report(Report::Ended(Box::new(ended)));
            match next {
                Some(next) => job = next,
                None => break,
            }
        }
    }
}

fn next_ready(shared: &(Mutex<Queue>, Condvar)) -> Option<Job> {
    let mut queue = lock(&shared.0);
    loop {
        if let Some(job) = queue.ready.pop_front() {
            return Some(job);
        }
        if queue.closed {
            return None;
        }
        queue.idle += 1;
        queue = shared.1.wait(queue).unwrap_or_else(PoisonError::into_inner);
        queue.idle -= 1;
    }
}

fn run_one(job: &Job, spawner: &mut Spawner, report: &Reporter) -> Ended {
    let call = &job.call;
    let started = Instant::now();
    let started_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let outcome = match start(job, spawner) {
        Ok(running) => see_through(job, running, report),
        Err(failure) => Outcome::failure(failure),
    };
    Ended {
        task: call.task,
        attempt: call.attempt,
        outcome,
        started_ns: u64::try_from(started_ns).unwrap_or(0),
        elapsed_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
        next: None,
        rank: job.rank.as_ref().map(|rank| rank.rank),
    }
}

struct Running {
    process: Process,
    out: OwnedFd,
    err: OwnedFd,
    cwd: PathBuf,
}

fn system(doing: &str, error: &std::io::Error) -> Failure {
    Failure::new(FailureCause::System, "spawn", format!("cannot {doing}: {error}"))
}

/// Variables of one call, on top of the run's.
fn call_environment(job: &Job) -> Environment {
    let mut env = Environment::default();
    env.set("BRIDGEHEAD_TASK", job.call.task.to_string());
    env.set("BRIDGEHEAD_ATTEMPT", job.call.attempt.to_string());
    env.set("BRIDGEHEAD_SOCKET", &job.surroundings.socket);
    if !job.surroundings.devices.is_empty() {
        let names = job.call.devices.iter();
        let names: Vec<&str> = names
            .filter_map(|&device| job.surroundings.devices.get(device as usize).map(String::as_str))
            .collect();
        // A call without GPUs sees none, or it would take memory on those of others.
        for variable in verdict::DEVICE_VARIABLES {
            env.set(variable, names.join(","));
        }
    }
    for (name, value) in job.rank.iter().flat_map(|rank| &rank.env) {
        env.set(name, value);
    }
    for pair in job.call.program.iter().flat_map(|program| &program.env) {
        env.set(&pair.key, &pair.value);
    }
    env
}

fn start(job: &Job, spawner: &mut Spawner) -> Result<Running, Failure> {
    let no_program = || Failure::new(FailureCause::System, "not-found", "the program's argv is empty");
    let program = job.call.program.as_ref().ok_or_else(no_program)?;
    let name = program.argv.first().ok_or_else(no_program)?;
    let around = &job.surroundings;
    let cwd = around.cwd.join(&program.cwd); // An absolute one replaces the run's, an empty one leaves it.
    let env = call_environment(job);
    let path = env.get("PATH").or_else(|| around.env.get("PATH"));
    let executable = find_executable(name, path, &cwd);
    let executable = executable.ok_or_else(|| verdict::not_found(name, path, &cwd))?;
    let argv: Result<Vec<CString>, _> = program.argv.iter().map(|a| CString::new(a.as_bytes())).collect();
    let argv = argv.map_err(|_| verdict::bad_argument(name))?;
    let file = CString::new(executable.as_os_str().as_bytes()).map_err(|_| verdict::bad_argument(name))?;
    let folder = CString::new(cwd.as_os_str().as_bytes()).map_err(|_| verdict::bad_argument(name))?;
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|e| system("make a pipe", &e.into()));
    let ((out, child_out), (err, child_err)) = (pipe()?, pipe()?);
    for end in [&out, &err] {
        rustix::io::ioctl_fionbio(end, true).map_err(|e| system("use a pipe", &e.into()))?;
    }
    let null = File::open("/dev/null").map_err(|e| system("open /dev/null", &e))?;
    let extra: Vec<_> = (job.rank.iter().filter_map(|rank| rank.fd.as_ref()))
        .map(AsFd::as_fd)
        .collect();
    let plan = Plan {
        path: &file,
        argv: &argv,
        envp: &around.env.block(&env),
        cwd: Some(&folder),
        stdin: null.as_fd(),
        stdout: child_out.as_fd(),
        stderr: child_err.as_fd(),
        extra: &extra,
        session: job.rank.is_some(),
        processors: job.rank.as_ref().map_or(&[], |rank| &rank.processors),
    };
    let process = spawner.spawn(&plan).map_err(|error| match error {
        SpawnError::System(e) => system("start a process", &e),
        SpawnError::Folder(e) => verdict::no_folder(name, &cwd, &e),
        SpawnError::Executable(e) => verdict::not_loaded(name, &executable, path, &e),
    })?;
    job.handle.started(process.pid);
    Ok(Running { process, out, err, cwd })
}

fn see_through(job: &Job, running: Running, report: &Reporter) -> Outcome {
    let Running { process, out, err, cwd } = running;
    let mut lines = job
        .rank
        .as_ref()
        .filter(|rank| rank.named)
        .map(|rank| RankLines::new(rank.rank));
    let log = |stream: &'static str, text: String| {
        let text = lines
            .as_mut()
            .map_or_else(|| text.clone(), |lines| lines.mark(stream, &text));
        report(Report::Printed(LogText {
            task: job.call.task,
            attempt: job.call.attempt,
            stream: stream.to_owned(),
            text,
        }));
    };
    let printed = follow(&process, out, err, log);
    let ended = process.wait_unreaped();
    job.handle.ended();
    let end = ended.and_then(|()| process.wait());
    let mut program = job.call.program.clone().unwrap_or_default();
    if job.rank.is_some() {
        program.outputs.clear(); // They are looked for once all ranks have ended.
    }
    match (printed, end) {
        (Ok([out, err]), Ok(end)) => verdict::judge(end, &program, &cwd, out, err),
        (Err(e), _) | (_, Err(e)) => {
            let message = format!("cannot follow the program: {e}");
            Outcome::failure(Failure::new(FailureCause::System, "spawn", message))
        }
    }
}
