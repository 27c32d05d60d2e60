//! A client's connection to the head. Owns the hand-over between the background reader and threads that wait for a result
//! themselves. Hot path: `submit` and `pump`.

use crate::convert;
use crate::inbox::{Got, Inbox, wait_readable};
use crate::outbox::Outbox;
use bridgehead_spec::RunFolder;
use bridgehead_wire::{
    CancelTasks, ClientToHead, Close, CloseMode, Fetch, HeadToClient, PutFunction, ReleaseObjects, Subscribe,
    TaskSubmit, Welcome,
};
use bytes::Bytes;
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyConnectionError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the background reader leaves the socket to a thread that waits for a result, after it last did.
const LEAVE: Duration = Duration::from_millis(2);
/// The longest that a waiting thread stays away from the interpreter: signals must get through.
const SLICE: Duration = Duration::from_millis(50);

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    /// For waiting without the lock on the inbox.
    wait: UnixStream,
    foreground: AtomicU32,
    last_foreground_us: AtomicU64,
    closed: AtomicBool,
    epoch: Instant,
}

impl Shared {
    fn foreground_is_near(&self) -> bool {
        let now = self.epoch.elapsed().as_micros();
        let last = u128::from(self.last_foreground_us.load(Ordering::Relaxed));
        self.foreground.load(Ordering::Acquire) > 0 || now.saturating_sub(last) < LEAVE.as_micros()
    }
}

/// A connection to the head of a run.
#[pyclass(frozen)]
#[derive(Debug)]
pub(crate) struct Client {
    outbox: Outbox,
    shared: Arc<Shared>,
    welcome: Welcome,
}

enum Message {
    Known(HeadToClient),
    End,
}

/// Takes all whole messages out of the inbox.
fn drain(inbox: &mut Inbox, out: &mut Vec<Message>) {
    loop {
        match inbox.next_frame() {
            Ok(Some((kind, body))) => match HeadToClient::decode(kind, body) {
                Ok(message) => out.push(Message::Known(message)),
                Err(_) => return out.push(Message::End),
            },
            Ok(None) => return,
            Err(_) => return out.push(Message::End),
        }
    }
}

/// The tuple of a message, see `_bridgehead.pyi`.
fn to_python<'py>(py: Python<'py>, message: &Message) -> PyResult<Bound<'py, PyAny>> {
    match message {
        Message::Known(HeadToClient::Outcome(o)) => {
            let (kind, payload) = convert::outcome(py, o.outcome.as_ref())?;
            (o.token, kind, payload, o.attempts, o.elapsed_ns).into_bound_py_any(py)
        }
        Message::Known(HeadToClient::Fetched(f)) => {
            let (kind, payload) = convert::outcome(py, f.outcome.as_ref())?;
            ("fetched", f.token, kind, payload).into_bound_py_any(py)
        }
        Message::Known(HeadToClient::Progress(p)) => {
            ("progress", p.waiting, p.running, p.finished, p.failed, p.cancelled).into_bound_py_any(py)
        }
        Message::Known(HeadToClient::RunEnd(end)) => ("end", &end.phase, &end.message).into_bound_py_any(py),
        Message::Known(HeadToClient::Refused(r)) => ("refused", &r.kind, &r.message).into_bound_py_any(py),
        Message::Known(HeadToClient::Status(s)) => ("status", &s.json).into_bound_py_any(py),
        Message::Known(HeadToClient::Welcome(_)) => ("welcome",).into_bound_py_any(py),
        Message::End => ("gone",).into_bound_py_any(py),
    }
}

fn list<'py>(py: Python<'py>, messages: &[Message]) -> PyResult<Bound<'py, PyList>> {
    let list = PyList::empty(py);
    for message in messages {
        list.append(to_python(py, message)?)?;
    }
    Ok(list)
}

#[pymethods]
impl Client {
    /// Waits for the head that was started as `pid` for `attempt` (0, 0: one that runs already) and connects.
    #[new]
    fn new(py: Python<'_>, run_dir: PathBuf, attempt: u32, pid: u32, owner: bool) -> PyResult<Self> {
        let folder = RunFolder::new(run_dir);
        let connected = py.detach(|| {
            if pid == 0 {
                bridgehead_local::Client::connect(&folder, owner)
            } else {
                bridgehead_local::Client::wait(&folder, attempt, pid, owner)
            }
        });
        let (stream, frames, welcome) = connected
            .map_err(|e| PyConnectionError::new_err(e.to_string()))?
            .into_parts();
        stream.set_read_timeout(None)?;
        let shared = Shared {
            inbox: Mutex::new(Inbox::new(stream.try_clone()?, frames)),
            wait: stream.try_clone()?,
            foreground: AtomicU32::new(0),
            last_foreground_us: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            epoch: Instant::now(),
        };
        Ok(Self {
            outbox: Outbox::new(stream),
            shared: Arc::new(shared),
            welcome,
        })
    }

    /// What the head said: (run, store socket, cpu millis, agents, node, inline limit).
    #[getter]
    fn welcome(&self) -> (String, String, u64, u32, u32, u32) {
        let w = &self.welcome;
        let millis = w.total.as_ref().map_or(0, |t| t.cpu_millis);
        (
            w.run.clone(),
            w.store_socket.clone(),
            millis,
            w.agents,
            w.node,
            w.inline_limit,
        )
    }

    /// Sends a function; `index` names it in later submits.
    fn put_function(&self, index: u32, digest: &[u8], name: String, code: &[u8]) -> PyResult<()> {
        let (digest, code) = (Bytes::copy_from_slice(digest), Bytes::copy_from_slice(code));
        self.send(
            &PutFunction {
                index,
                digest,
                name,
                code,
            }
            .into(),
        )
    }

    /// Submits a task of one core with inline arguments: the common case.
    fn submit(&self, token: u64, function: u32, args: &Bound<'_, PyBytes>) -> PyResult<()> {
        let args = bridgehead_wire::Value::inline(Bytes::copy_from_slice(args.as_bytes()));
        let submit = TaskSubmit {
            token,
            function,
            args: Some(args),
            ..TaskSubmit::default()
        };
        self.send(&submit.into())
    }

    /// Submits any task; `options` is a JSON object.
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
        self.send(&submit.into())
    }

    /// Cancels tasks by their tokens, or all.
    fn cancel(&self, tokens: Vec<u64>, all: bool, reason: String) -> PyResult<()> {
        self.send(
            &CancelTasks {
                tasks: tokens,
                all,
                reason,
                from_worker: None,
            }
            .into(),
        )
    }

    /// Gives back holds that outcomes brought.
    fn release(&self, objects: Vec<(u64, u64, u64, u32, u64, u64)>) -> PyResult<()> {
        let objects = objects.into_iter().map(convert::to_object).collect();
        self.send(&ReleaseObjects { objects }.into())
    }

    /// Asks for an object to be brought to the head's node.
    fn fetch(&self, token: u64, object: (u64, u64, u64, u32, u64, u64)) -> PyResult<()> {
        self.send(
            &Fetch {
                token,
                object: Some(convert::to_object(object)),
            }
            .into(),
        )
    }

    /// Asks for progress, and for the outcomes of the pipeline's tasks.
    fn subscribe(&self, progress: bool, outcomes: bool) -> PyResult<()> {
        self.send(&Subscribe { progress, outcomes }.into())
    }

    /// Asks for the status.
    fn request_status(&self) -> PyResult<()> {
        self.send(&bridgehead_wire::StatusRequest {}.into())
    }

    /// Leaves: `detach`, `drain` or `cancel`.
    fn close_run(&self, mode: &str) -> PyResult<()> {
        let mode = match mode {
            "detach" => CloseMode::Detach,
            "drain" => CloseMode::Drain,
            "cancel" => CloseMode::Cancel,
            other => {
                return Err(PyValueError::new_err(format!(
                    "{other:?} is not detach, drain or cancel"
                )));
            }
        };
        self.send(&Close { mode: mode.into() }.into())
    }

    /// Waits up to `timeout` seconds (below 0: for ever) for messages, on behalf of the calling thread, and returns them.
    /// While a thread is in here the background reader stays away. Returns early and empty now and then.
    fn pump<'py>(&self, py: Python<'py>, timeout: f64) -> PyResult<Bound<'py, PyList>> {
        let limit = if timeout < 0.0 {
            SLICE
        } else {
            Duration::try_from_secs_f64(timeout).unwrap_or(SLICE).min(SLICE)
        };
        let messages = py.detach(|| self.wait(limit));
        list(py, &messages)
    }

    /// Waits for messages as the background reader: sleeps, and stays away while another thread pumps.
    fn pump_behind<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let messages = py.detach(|| self.wait_behind());
        list(py, &messages)
    }

    /// Sends what is pending and closes the connection.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            self.shared.closed.store(true, Ordering::Release);
            self.outbox.close();
        });
    }
}

impl Client {
    fn send(&self, message: &ClientToHead) -> PyResult<()> {
        if self.outbox.push(|out| message.encode(out)) {
            return Ok(());
        }
        Err(PyConnectionError::new_err(
            "the head of this run is gone: look at logs/head.log in the run folder",
        ))
    }

    fn wait(&self, limit: Duration) -> Vec<Message> {
        let shared = &self.shared;
        shared.foreground.fetch_add(1, Ordering::AcqRel);
        let mut out = Vec::new();
        if let Ok(mut inbox) = shared.inbox.try_lock() {
            drain(&mut inbox, &mut out);
            if out.is_empty() {
                let got = inbox.read(Some(limit));
                drain(&mut inbox, &mut out);
                if got == Got::End {
                    out.push(Message::End);
                }
            }
        } else {
            // Another thread reads; what it finds may be for this one.
            std::thread::sleep(limit.min(Duration::from_micros(100)));
        }
        let now = u64::try_from(shared.epoch.elapsed().as_micros()).unwrap_or(u64::MAX);
        shared.last_foreground_us.store(now, Ordering::Relaxed);
        shared.foreground.fetch_sub(1, Ordering::AcqRel);
        out
    }

    fn wait_behind(&self) -> Vec<Message> {
        let shared = &self.shared;
        let mut out = Vec::new();
        while !shared.closed.load(Ordering::Acquire) {
            if shared.foreground_is_near() {
                std::thread::sleep(LEAVE / 2);
                continue;
            }
            if !wait_readable(&shared.wait, Some(Duration::from_millis(200))) || shared.foreground_is_near() {
                continue;
            }
            let mut inbox = shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            let got = inbox.try_read();
            drain(&mut inbox, &mut out);
            if got == Got::End {
                out.push(Message::End);
            }
            if !out.is_empty() {
                return out;
            }
        }
        out.push(Message::End);
        out
    }
}
