//! Programs: executables started without a shell and without Python. Owns threads that start one, read what it prints
//! and wait for it. Hot path: `run_one`, once a program: one `posix_spawn`, no allocation worth naming.

use bridgehead_wire::{
    Failure, FailureCause, LogText, Outcome, Pair, ProgramCall, ProgramResult, TaskCall, Value, value,
};
use bytes::Bytes;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Captured output beyond this many bytes a stream is counted, not kept.
const CAPTURE: usize = 1 << 20;

/// What every program of a run shares.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// Working folder where a program names none.
    pub cwd: PathBuf,
    /// Variables of the run, with the agent's mark.
    pub env: Vec<(String, String)>,
}

/// A program that was handed over; `kill` ends it whenever it runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Handle(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    pid: Option<Pid>,
    killed: bool,
}

impl Handle {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the program's process group, now or as soon as it has been started.
    pub(crate) fn kill(&self) {
        let mut state = self.lock();
        state.killed = true;
        if let Some(pid) = state.pid {
            let _ = kill_process_group(pid, Signal::KILL); // Its end may be on its way already.
        }
    }

    /// From now on the group may be killed.
    fn started(&self, pid: Pid) {
        let mut state = self.lock();
        state.pid = Some(pid);
        if state.killed {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    /// The process is about to be reaped: its number may belong to another from now on.
    fn ended(&self) {
        self.lock().pid = None;
    }
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub task: u64,
    pub attempt: u32,
    pub outcome: Outcome,
    pub logs: Vec<LogText>,
    pub started_ns: u64,
    pub elapsed_ns: u64,
}

struct Job {
    call: TaskCall,
    handle: Handle,
    surroundings: Arc<Surroundings>,
}

/// Threads that run programs, as many as ever ran at a time.
pub(crate) struct Programs {
    queue: mpsc::Sender<Job>,
    shared: Arc<Mutex<mpsc::Receiver<Job>>>,
    threads: usize,
    report: Arc<dyn Fn(Ended) + Send + Sync>,
}

impl Programs {
    /// No thread yet; `report` is called from them.
    pub(crate) fn new(report: impl Fn(Ended) + Send + Sync + 'static) -> Self {
        let (queue, receiver) = mpsc::channel();
        Self {
            queue,
            shared: Arc::new(Mutex::new(receiver)),
            threads: 0,
            report: Arc::new(report),
        }
    }

    /// Starts a program; `running` are at work already.
    pub(crate) fn start(&mut self, call: TaskCall, surroundings: Arc<Surroundings>, running: usize) -> Handle {
        if running >= self.threads {
            self.add_thread();
        }
        let handle = Handle::default();
        let _ = self.queue.send(Job {
            call,
            handle: handle.clone(),
            surroundings,
        }); // The receiver lives here.
        handle
    }

    fn add_thread(&mut self) {
        let (shared, report) = (self.shared.clone(), self.report.clone());
        self.threads += 1;
        std::thread::spawn(move || {
            loop {
                let job = shared.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(job) = job else { return };
                report(run_one(&job));
            }
        });
    }
}

fn run_one(job: &Job) -> Ended {
    let call = &job.call;
    let started = Instant::now();
    let started_ns = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    let program = call.program.clone().unwrap_or_default();
    let mut logs = Vec::new();
    let outcome = match spawn(&program, call, &job.surroundings) {
        Ok(child) => wait(child, job, &program, &mut logs),
        Err(failure) => Outcome::failure(failure),
    };
    Ended {
        task: call.task,
        attempt: call.attempt,
        outcome,
        logs,
        started_ns: u64::try_from(started_ns).unwrap_or(0),
        elapsed_ns: u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX),
    }
}

fn working_folder<'a>(program: &'a ProgramCall, surroundings: &'a Surroundings) -> &'a Path {
    if program.cwd.is_empty() {
        &surroundings.cwd
    } else {
        Path::new(&program.cwd)
    }
}

fn spawn(program: &ProgramCall, call: &TaskCall, surroundings: &Surroundings) -> Result<Child, Failure> {
    let Some((executable, arguments)) = program.argv.split_first() else {
        return Err(Failure::new(
            FailureCause::System,
            "not-found",
            "the program's argv is empty",
        ));
    };
    let cwd = working_folder(program, surroundings);
    let mut command = Command::new(executable);
    command
        .args(arguments)
        .current_dir(cwd)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.process_group(0);
    command.envs(surroundings.env.iter().map(|(k, v)| (k, v)));
    command.envs(program.env.iter().map(|pair| (&pair.key, &pair.value)));
    command.env("BRIDGEHEAD_TASK", call.task.to_string());
    if !call.devices.is_empty() {
        let devices: Vec<String> = call.devices.iter().map(u32::to_string).collect();
        command.env("CUDA_VISIBLE_DEVICES", devices.join(","));
    }
    command.spawn().map_err(|error| not_started(executable, cwd, &error))
}

fn not_started(executable: &str, cwd: &Path, error: &std::io::Error) -> Failure {
    let place = if cwd.is_dir() {
        let path = std::env::var("PATH").unwrap_or_default();
        format!("PATH is {path}; give the program's full path, or load its module before the run")
    } else {
        format!("its working folder {} does not exist", cwd.display())
    };
    let message = format!("cannot start {executable}: {error}; {place}");
    Failure::new(FailureCause::User, "not-found", message)
}

fn wait(mut child: Child, job: &Job, program: &ProgramCall, logs: &mut Vec<LogText>) -> Outcome {
    let pid = i32::try_from(child.id())
        .ok()
        .and_then(Pid::from_raw)
        .expect("a child has a process id");
    job.handle.started(pid);
    let stderr = child.stderr.take();
    let (out, err) = std::thread::scope(|scope| {
        // A second thread only where the program has both streams to fill, which one reader could block on.
        let err = scope.spawn(|| stderr.map(capture).unwrap_or_default());
        let out = child.stdout.take().map(capture).unwrap_or_default();
        (out, err.join().unwrap_or_default())
    });
    let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT); // Ended, but still ours.
    job.handle.ended();
    let status = child.wait();
    add_logs(&job.call, &out, &err, logs);
    match status {
        Ok(status) => judge(status, program, &job.surroundings, out, err),
        Err(e) => Outcome::failure(Failure::new(
            FailureCause::System,
            "wait",
            format!("cannot wait for it: {e}"),
        )),
    }
}

#[derive(Debug, Default)]
struct Captured {
    kept: Vec<u8>,
    dropped: u64,
}

fn capture(mut stream: impl Read) -> Captured {
    let mut captured = Captured::default();
    let mut buffer = [0u8; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return captured,
            Ok(n) => {
                let keep = n.min(CAPTURE - captured.kept.len());
                captured.kept.extend_from_slice(&buffer[..keep]);
                captured.dropped += (n - keep) as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(_) => return captured,
        }
    }
}

fn add_logs(call: &TaskCall, out: &Captured, err: &Captured, logs: &mut Vec<LogText>) {
    for (stream, captured) in [("stdout", out), ("stderr", err)] {
        if !captured.kept.is_empty() {
            logs.push(LogText {
                task: call.task,
                attempt: call.attempt,
                stream: stream.to_owned(),
                text: String::from_utf8_lossy(&captured.kept).into_owned(),
            });
        }
    }
}

fn judge(status: ExitStatus, program: &ProgramCall, around: &Surroundings, out: Captured, err: Captured) -> Outcome {
    let last = last_lines(&err.kept);
    let name = program.argv.first().map_or("the program", String::as_str);
    if let Some(signal) = status.signal() {
        let mut failure = Failure::new(
            FailureCause::User,
            "signal",
            format!("{name} was ended by signal {signal}{last}"),
        );
        failure.signal = Some(signal);
        return Outcome::failure(failure);
    }
    let code = status.code().unwrap_or(-1);
    if code != 0 {
        let mut failure = Failure::new(
            FailureCause::User,
            "exit-code",
            format!("{name} exited with {code}{last}"),
        );
        failure.exit_code = Some(code);
        return Outcome::failure(failure);
    }
    let cwd = working_folder(program, around);
    let mut outputs = Vec::with_capacity(program.outputs.len());
    for pair in &program.outputs {
        let path = cwd.join(&pair.value);
        if !path.exists() {
            let message = format!("{name} exited with 0 but left no {} at {}", pair.key, path.display());
            return Outcome::failure(Failure::new(FailureCause::User, "missing-output", message));
        }
        outputs.push(Pair {
            key: pair.key.clone(),
            value: path.display().to_string(),
        });
    }
    let result = ProgramResult {
        exit_code: code,
        stdout: Bytes::from(out.kept),
        stderr: Bytes::from(err.kept),
        outputs,
        dropped: out.dropped + err.dropped,
    };
    Outcome::value(Value {
        kind: Some(value::Kind::Program(result)),
    })
}

fn last_lines(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(5)..].join("\n");
    if last.is_empty() {
        "; it printed nothing on standard error".to_owned()
    } else {
        format!("; its last words: {last}")
    }
}
