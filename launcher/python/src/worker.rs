//! A worker's connection to its agent. Owns the queue of calls, the batch of results, and a watchdog that needs no
//! interpreter lock: it sends results that a long call would hold back and gives calls back that would wait behind it.
//! Hot path: `next` and `done`, once a task each.

use crate::convert;
use crate::inbox::{Got, Inbox};
use bridgehead_wire::{
    AgentToWorker, Blocked, CancelTasks, Fetch, Frames, LogText, Outcome, PutFunction, ReleaseObjects, ReturnedTasks,
    TaskCall, TaskDone, TaskSubmit, WorkerConfig, WorkerReady, WorkerToAgent,
};
use bytes::Bytes;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyConnectionError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A call that runs longer than this gets nothing queued behind it.
const LONG: Duration = Duration::from_millis(5);
/// Results wait at most about this long for company.
const BATCH: Duration = Duration::from_micros(100);
/// How often the watchdog looks while something goes on.
const LOOK: Duration = Duration::from_millis(2);
/// Looks without anything going on after which it sleeps.
const QUIET: u32 = 10;

#[derive(Debug)]
struct Incoming {
    inbox: Inbox,
    queue: VecDeque<AgentToWorker>,
    ended: bool,
}

#[derive(Debug)]
struct Outgoing {
    buffer: Vec<u8>,
    first: Option<Instant>,
}

#[derive(Debug)]
struct Shared {
    incoming: Mutex<Incoming>,
    outgoing: Mutex<Outgoing>,
    stream: Mutex<UnixStream>,
    epoch: Instant,
    /// Microseconds since `epoch` at which the present call began; 0: none.
    since: AtomicU64,
    asleep: AtomicBool,
    wake: (Mutex<()>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Incoming {
    /// Cuts what was read into messages. What is no message ends the connection.
    fn cut(&mut self) {
        loop {
            match self.inbox.next_frame() {
                Ok(Some((kind, body))) => match AgentToWorker::decode(kind, body) {
                    Ok(message) => self.queue.push_back(message),
                    Err(_) => self.ended = true,
                },
                Ok(None) => return,
                Err(_) => {
                    self.ended = true;
                    return;
                }
            }
            if self.ended {
                return;
            }
        }
    }

    fn take(&mut self, got: &Got) {
        self.ended |= *got == Got::End;
        self.cut();
    }

    /// Takes the calls out of the queue, in order; other messages stay.
    fn take_calls(&mut self) -> Vec<u64> {
        let mut calls = Vec::new();
        self.queue.retain(|message| {
            if let AgentToWorker::Call(call) = message {
                calls.push(call.task);
            }
            !matches!(message, AgentToWorker::Call(_))
        });
        calls
    }
}

impl Shared {
    fn push(&self, message: &WorkerToAgent) -> bool {
        let mut out = lock(&self.outgoing);
        message.encode(&mut out.buffer);
        let first = *out.first.get_or_insert_with(Instant::now);
        first.elapsed() > BATCH
    }

    fn flush(&self) {
        let mut stream = lock(&self.stream); // Taken first, so that batches leave in the order in which they were made.
        let bytes = {
            let mut out = lock(&self.outgoing);
            out.first = None;
            std::mem::take(&mut out.buffer)
        };
        if !bytes.is_empty() {
            let _ = stream.write_all(&bytes); // A gone agent is noticed by reading.
        }
    }

    fn begin(&self) {
        let now = u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.since.store(now.max(1), Ordering::Release);
        if self.asleep.load(Ordering::Acquire) {
            let _guard = lock(&self.wake.0);
            self.wake.1.notify_one();
        }
    }

    fn give_back(&self, incoming: &mut Incoming) {
        let tasks = incoming.take_calls();
        if !tasks.is_empty() {
            self.push(&ReturnedTasks { tasks }.into());
            self.flush();
        }
    }

    /// One look of the watchdog; `true` when something goes on.
    fn look(&self) -> bool {
        let waiting = lock(&self.outgoing).first;
        if waiting.is_some_and(|first| first.elapsed() > BATCH) {
            self.flush();
        }
        let since = self.since.load(Ordering::Acquire);
        if since == 0 {
            return waiting.is_some();
        }
        let running = self.epoch.elapsed().saturating_sub(Duration::from_micros(since));
        if running > LONG {
            if let Ok(mut incoming) = self.incoming.try_lock() {
                let got = incoming.inbox.try_read();
                incoming.take(&got);
                self.give_back(&mut incoming);
                if incoming.ended {
                    end_process_group();
                }
            }
        }
        true
    }

    fn watch(&self) {
        let mut quiet = 0;
        loop {
            std::thread::sleep(LOOK);
            quiet = if self.look() { 0 } else { quiet + 1 };
            if quiet > QUIET {
                let guard = lock(&self.wake.0);
                self.asleep.store(true, Ordering::Release);
                // A call may have begun just before the flag was seen: a bounded sleep catches that.
                let sleep = self.wake.1.wait_timeout(guard, Duration::from_millis(500));
                drop(sleep);
                self.asleep.store(false, Ordering::Release);
                quiet = 0;
            }
        }
    }
}

/// The agent is gone while a call runs: nobody wants its result, and nothing may be left behind.
fn end_process_group() {
    let _ = rustix::process::kill_process_group(rustix::process::getpgrp(), rustix::process::Signal::KILL);
}

/// A worker's connection.
#[pyclass(frozen)]
#[derive(Debug)]
pub(crate) struct Worker {
    shared: Arc<Shared>,
    config: WorkerConfig,
    running: Mutex<(u64, u32, Option<Instant>)>,
}

#[pymethods]
impl Worker {
    /// Takes over the descriptor `fd`, reads the configuration and says that the worker is up.
    #[new]
    fn new(fd: RawFd, python: String) -> PyResult<Self> {
        // SAFETY: the descriptor was made for this process by its agent and nothing else uses it; the package's start
        // module hands it over once.
        #[allow(unsafe_code)]
        let stream = UnixStream::from(unsafe { OwnedFd::from_raw_fd(fd) });
        // The agent's loop runs on its main thread, so the death of that thread is the death of the agent.
        let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
        stream.set_nonblocking(false)?;
        let mut incoming = Incoming {
            inbox: Inbox::new(stream.try_clone()?, Frames::new()),
            queue: VecDeque::new(),
            ended: false,
        };
        while incoming.queue.is_empty() && !incoming.ended {
            let got = incoming.inbox.read_blocking();
            incoming.take(&got);
        }
        let Some(AgentToWorker::Config(config)) = incoming.queue.pop_front() else {
            return Err(PyConnectionError::new_err(
                "the agent sent no configuration: is this started by an agent?",
            ));
        };
        let shared = Arc::new(Shared {
            incoming: Mutex::new(incoming),
            outgoing: Mutex::new(Outgoing {
                buffer: Vec::new(),
                first: None,
            }),
            stream: Mutex::new(stream),
            epoch: Instant::now(),
            since: AtomicU64::new(0),
            asleep: AtomicBool::new(false),
            wake: (Mutex::new(()), Condvar::new()),
        });
        shared.push(
            &WorkerReady {
                pid: std::process::id(),
                python,
            }
            .into(),
        );
        shared.flush();
        let watched = shared.clone();
        std::thread::spawn(move || watched.watch());
        Ok(Self {
            shared,
            config,
            running: Mutex::new((0, 0, None)),
        })
    }

    /// (run, agent, worker, store socket, inline limit, `sys.path` entries, run folder).
    #[getter]
    fn config(&self) -> (String, u32, u32, String, u32, Vec<String>, String) {
        let c = &self.config;
        (
            c.run.clone(),
            c.agent,
            c.worker,
            c.store_socket.clone(),
            c.inline_limit,
            c.sys_path.clone(),
            c.run_dir.clone(),
        )
    }

    /// The next message as a tuple that begins with its kind (see `_bridgehead.pyi`); `None` when the worker must end.
    fn next<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.shared.since.store(0, Ordering::Release);
        let message = match self.ready_message() {
            Some(message) => Some(message),
            None => py.detach(|| self.wait_message()),
        };
        match message {
            None | Some(AgentToWorker::Shutdown(_)) => Ok(None),
            Some(AgentToWorker::Call(call)) => {
                let tuple = call_tuple(py, &call)?;
                *lock(&self.running) = (call.task, call.attempt, Some(Instant::now()));
                self.shared.begin();
                Ok(Some(tuple))
            }
            Some(other) => other_tuple(py, &other).map(Some),
        }
    }

    /// Messages other than calls, waiting up to `timeout` seconds; calls that wait here go back to the agent. For a task
    /// that waits for tasks of its own.
    fn pump<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyList>> {
        let limit = Duration::try_from_secs_f64(timeout)
            .unwrap_or_default()
            .min(Duration::from_millis(50));
        let messages = py.detach(|| {
            self.shared.flush();
            let mut incoming = lock(&self.shared.incoming);
            if incoming.queue.is_empty() {
                let got = incoming.inbox.read(Some(limit));
                incoming.take(&got);
            }
            self.shared.give_back(&mut incoming);
            if incoming.ended {
                end_process_group();
            }
            incoming.queue.drain(..).collect::<Vec<_>>()
        });
        let list = PyList::empty(py);
        for message in &messages {
            list.append(other_tuple(py, message)?)?;
        }
        Ok(list)
    }

    /// The present call's value.
    fn done(&self, kind: u8, payload: &Bound<'_, PyAny>) -> PyResult<()> {
        let value = convert::to_value(kind, payload)?;
        self.finish(Outcome::value(value));
        Ok(())
    }

    /// The present call's failure: (cause, type, message, traceback, pickled exception).
    fn failed(&self, failure: &Bound<'_, PyAny>) -> PyResult<()> {
        let failure = convert::to_failure(failure)?;
        self.finish(Outcome::failure(failure));
        Ok(())
    }

    /// The present call's value, a program's result: (exit code, stdout, stderr, outputs).
    fn done_program(&self, exit_code: i32, stdout: Vec<u8>, stderr: Vec<u8>, outputs: Vec<(String, String)>) {
        let outputs = outputs
            .into_iter()
            .map(|(key, value)| bridgehead_wire::Pair { key, value })
            .collect();
        let (stdout, stderr) = (Bytes::from(stdout), Bytes::from(stderr));
        let result = bridgehead_wire::ProgramResult {
            exit_code,
            stdout,
            stderr,
            outputs,
            dropped: 0,
        };
        let kind = Some(bridgehead_wire::value::Kind::Program(result));
        self.finish(Outcome::value(bridgehead_wire::Value { kind }));
    }

    /// Text that the present call printed.
    fn log(&self, stream: &str, text: &str) {
        let (task, attempt, _) = *lock(&self.running);
        let text = LogText {
            task,
            attempt,
            stream: stream.to_owned(),
            text: text.to_owned(),
        };
        self.shared.push(&text.into());
    }

    /// Registers a function for submits.
    fn put_function(&self, index: u32, digest: &[u8], name: String, code: &[u8]) {
        let (digest, code) = (Bytes::copy_from_slice(digest), Bytes::copy_from_slice(code));
        self.shared.push(
            &PutFunction {
                index,
                digest,
                name,
                code,
            }
            .into(),
        );
    }

    /// Adds a task to the run.
    fn submit_with(
        &self,
        token: u64,
        function: u32,
        args: (u8, Bound<'_, PyAny>),
        inputs: &Bound<'_, PyAny>,
        options: &str,
    ) -> PyResult<()> {
        let mut submit = TaskSubmit {
            token,
            function,
            ..TaskSubmit::default()
        };
        submit.args = Some(convert::to_value(args.0, &args.1)?);
        submit.inputs = convert::to_inputs(inputs)?;
        convert::apply_options(&mut submit, options)?;
        if submit.program.is_some() {
            submit.args = None;
        }
        submit.parent = Some(lock(&self.running).0);
        self.shared.push(&submit.into());
        self.shared.flush();
        Ok(())
    }

    /// Cancels tasks that this worker added.
    fn cancel(&self, tokens: Vec<u64>, reason: String) {
        self.shared.push(
            &CancelTasks {
                tasks: tokens,
                all: false,
                reason,
                from_worker: None,
            }
            .into(),
        );
        self.shared.flush();
    }

    /// The present call waits for tasks of its own, or goes on.
    fn blocked(&self, blocked: bool) {
        let task = lock(&self.running).0;
        self.shared.push(&Blocked { task, blocked }.into());
        self.shared.flush();
    }

    /// Asks for an object to be brought to this node.
    fn fetch(&self, token: u64, object: (u64, u64, u64, u32, u64, u64)) {
        let object = Some(convert::to_object(object));
        self.shared.push(&Fetch { token, object }.into());
        self.shared.flush();
    }

    /// Gives back holds that outcomes brought.
    fn release(&self, objects: Vec<(u64, u64, u64, u32, u64, u64)>) {
        let objects = objects.into_iter().map(convert::to_object).collect();
        self.shared.push(&ReleaseObjects { objects }.into());
    }

    /// Sends what is pending.
    fn flush(&self, py: Python<'_>) {
        py.detach(|| self.shared.flush());
    }
}

impl Worker {
    fn finish(&self, outcome: Outcome) {
        let (task, attempt, started) = std::mem::take(&mut *lock(&self.running));
        let elapsed = started.map_or(Duration::ZERO, |started| started.elapsed());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        let done = TaskDone {
            task,
            attempt,
            outcome: Some(outcome),
            started_ns: nanos(now.saturating_sub(elapsed)),
            elapsed_ns: nanos(elapsed),
            worker: 0,
        };
        if self.shared.push(&done.into()) {
            self.shared.flush();
        }
    }

    /// A message that is here already, read without waiting.
    fn ready_message(&self) -> Option<AgentToWorker> {
        let mut incoming = lock(&self.shared.incoming);
        if incoming.queue.is_empty() {
            let got = incoming.inbox.try_read();
            incoming.take(&got);
        }
        incoming.queue.pop_front()
    }

    fn wait_message(&self) -> Option<AgentToWorker> {
        self.shared.flush();
        let mut incoming = lock(&self.shared.incoming);
        while incoming.queue.is_empty() && !incoming.ended {
            let got = incoming.inbox.read(None);
            incoming.take(&got);
        }
        incoming.queue.pop_front()
    }
}

fn call_tuple<'py>(py: Python<'py>, call: &TaskCall) -> PyResult<Bound<'py, PyAny>> {
    let (kind, args) = match &call.args {
        Some(args) => convert::value(py, args)?,
        None => (convert::INLINE, PyBytes::new(py, b"").into_any()),
    };
    let simple = call.inputs.is_empty() && call.resources.is_none() && call.timeout_ms == 0 && call.name.is_empty();
    if simple {
        return (0, call.task, call.attempt, call.function, kind, args).into_bound_py_any(py);
    }
    let inputs = PyList::empty(py);
    for input in &call.inputs {
        inputs.append(convert::value(py, input)?)?;
    }
    let cpus = call.resources.as_ref().map_or(1000, |r| r.cpu_millis);
    let rest = (inputs, call.name.as_str(), call.devices.clone(), call.timeout_ms, cpus);
    (0, call.task, call.attempt, call.function, kind, args, rest).into_bound_py_any(py)
}

fn other_tuple<'py>(py: Python<'py>, message: &AgentToWorker) -> PyResult<Bound<'py, PyAny>> {
    match message {
        AgentToWorker::PutFunction(put) => (1, put.index, &put.name, PyBytes::new(py, &put.code)).into_bound_py_any(py),
        AgentToWorker::Outcome(o) => {
            let (kind, payload) = convert::outcome(py, o.outcome.as_ref())?;
            (2, o.token, kind, payload, o.attempts, o.elapsed_ns).into_bound_py_any(py)
        }
        AgentToWorker::Fetched(f) => {
            let (kind, payload) = convert::outcome(py, f.outcome.as_ref())?;
            (3, f.token, kind, payload).into_bound_py_any(py)
        }
        AgentToWorker::Config(_) | AgentToWorker::Shutdown(_) | AgentToWorker::Call(_) => (4,).into_bound_py_any(py),
    }
}
