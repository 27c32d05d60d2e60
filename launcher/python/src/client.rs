//! The driver's connection to the head: submits, answers, and the two threads that work while Python does.
//! Hot path: `submit` (once a task, attached) and the receiver (once a batch).

use crate::asking::{self, Connection, Says};
use crate::draft::Draft;
use crate::futures::{Answer, Raw, Table, Wanted, is_done, new_future};
use crate::home::{Home, Kept, Role};
use crate::named::Asked;
use crate::options::Options;
use crate::pack::{self, pack_call};
use crate::receive::{Pumped, Reader, Sink};
use bridgehead_guest::link::{Link, lock};
use bridgehead_spec::RunFolder;
use bridgehead_wire::{
    CancelTasks, ClientToHead, Close, CloseMode, FrameError, HeadToClient, PlaceObjects, Progress, PutFunction,
    StatusRequest, Subscribe, TaskSubmit, Welcome,
};
use bytes::Bytes;
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Signals are looked at this often while a thread waits.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct News {
    progress: Option<Progress>,
    end: Option<(String, String)>,
    refused: Option<String>,
}

/// What the threads share.
#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    home: Arc<Home>,
    reader: Reader,
    futures: Table,
    news: Mutex<News>,
    closed: AtomicBool,
}

impl Sink for Shared {
    fn take(&self, kind: u16, body: &[u8], answers: &mut Vec<Answer>) -> Result<(), FrameError> {
        match HeadToClient::decode(kind, body)? {
            HeadToClient::Outcome(o) => {
                answers.push((
                    Wanted::Task(o.token),
                    Raw::received(o.outcome, o.attempts, o.elapsed_ns, &self.home),
                ));
            }
            HeadToClient::Fetched(f) => answers.push(self.futures.fetched(f, &self.home)),
            HeadToClient::Placed(p) => answers.push((Wanted::Placed(p.token), Raw::placed(p, &self.home))),
            HeadToClient::Name(n) => answers.push((Wanted::Name(n.token), Raw::named(n, &self.home))),
            HeadToClient::Status(status) => answers.push((Wanted::Status, Raw::text(status.json))),
            HeadToClient::RunEnd(end) => {
                lock(&self.news).end = Some((end.phase.clone(), end.message));
                answers.push((Wanted::End, Raw::text(end.phase)));
            }
            HeadToClient::Progress(progress) => lock(&self.news).progress = Some(progress),
            HeadToClient::Refused(refused) => lock(&self.news).refused = Some(refused.message),
            HeadToClient::Welcome(_) => {} // A second one changes nothing.
        }
        Ok(())
    }
}

impl Shared {
    fn deliver(&self, py: Python<'_>, pumped: Pumped) -> PyResult<()> {
        match pumped {
            Pumped::Answers(answers) => {
                let result = self.futures.complete(py, answers);
                self.reader.delivered();
                result
            }
            Pumped::Closed(reason) => self.on_closed(py, &reason),
            Pumped::Nothing | Pumped::Taken => Ok(()),
        }
    }

    fn on_closed(&self, py: Python<'_>, reason: &str) -> PyResult<()> {
        self.closed.store(true, Ordering::SeqCst);
        self.link.close();
        let refused = lock(&self.news).refused.take();
        let message = refused.unwrap_or_else(|| format!("the run's head is gone: {reason}"));
        self.futures.fail_all(py, "head-lost", &message)
    }

    fn run_receiver(&self) {
        while !self.closed.load(Ordering::SeqCst) {
            let pumped = self.reader.background(&self.link, self, None);
            if matches!(pumped, Pumped::Nothing) {
                continue;
            }
            // None: the interpreter is ending, nobody can look at an answer any more.
            let Some(delivered) = Python::try_attach(|py| self.deliver(py, pumped)) else {
                return;
            };
            if let Err(e) = delivered {
                Python::try_attach(|py| e.write_unraisable(py, None));
            }
        }
    }
}

/// A connection to a head.
#[pyclass(frozen, weakref, module = "bridgehead._bridgehead")]
pub struct Client {
    shared: Arc<Shared>,
    welcome: Welcome,
    next_token: AtomicU64,
    next_function: AtomicU32,
    forsaken: AtomicBool,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

#[pymethods]
impl Client {
    /// Connects to the head of the run in `run_dir`; to one that was just started as `started` = (attempt, process id), once
    /// it is up.
    #[new]
    #[pyo3(signature = (run_dir, *, owner, started=None))]
    fn new(py: Python<'_>, run_dir: PathBuf, owner: bool, started: Option<(u32, u32)>) -> PyResult<Self> {
        let folder = RunFolder::new(run_dir);
        let connected = py.detach(|| match started {
            Some((attempt, pid)) => bridgehead_local::Client::wait(&folder, attempt, pid, owner),
            None => bridgehead_local::Client::connect(&folder, owner),
        });
        let connected = connected.map_err(|e| PyConnectionError::new_err(e.to_string()))?;
        let parts = connected.into_parts();
        let (stream, frames, welcome) = parts.expect("both ways above lead to a head of this machine");
        let link = Arc::new(Link::new(stream)?);
        let home = Home::new(link.clone(), Role::Driver);
        home.settle(&welcome.store_socket, welcome.node, welcome.inline_limit);
        let shared = Arc::new(Shared {
            link,
            home,
            reader: Reader::new(frames),
            futures: Table::default(),
            news: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let spawn = |name: &str, work: fn(&Shared)| {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || work(&shared))
        };
        let threads = vec![
            spawn("bh-send", |s| s.link.run_sender())?,
            spawn("bh-receive", Shared::run_receiver)?,
        ];
        Ok(Self {
            shared,
            welcome,
            next_token: AtomicU64::new(0),
            next_function: AtomicU32::new(0),
            forsaken: AtomicBool::new(false),
            threads: Mutex::new(threads),
        })
    }

    /// Sends a pickled function; its index on this connection.
    fn put_function(&self, py: Python<'_>, digest: &[u8], name: String, code: &[u8]) -> PyResult<u32> {
        let index = self.next_function.fetch_add(1, Ordering::Relaxed);
        let put = PutFunction {
            index,
            digest: Bytes::copy_from_slice(digest),
            name,
            code: Bytes::copy_from_slice(code),
        };
        self.send(py, put.into())?;
        Ok(index)
    }

    /// Submits a call of a function; its future.
    #[pyo3(signature = (function, args, kwargs, options=None))]
    fn submit<'py>(
        slf: &Bound<'py, Self>,
        function: u32,
        args: &Bound<'py, PyTuple>,
        kwargs: Option<&Bound<'py, PyDict>>,
        options: Option<&Bound<'py, Options>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        let call = pack_call(slf.as_any(), args, kwargs)?;
        let token = this.next_token.fetch_add(1, Ordering::Relaxed);
        let mut submit = TaskSubmit {
            token,
            function,
            args: Some(call.args.value()),
            inputs: call.inputs,
            ..TaskSubmit::default()
        };
        if let Some(options) = options {
            options.get().apply(&mut submit);
        }
        let future = new_future(slf.as_any(), token)?;
        this.shared.futures.insert(Wanted::Task(token), future.clone().unbind());
        let _passed = call.args.pass(&this.shared.home);
        if let Err(e) = this.send(slf.py(), submit.into()) {
            this.shared.futures.remove(Wanted::Task(token));
            return Err(e);
        }
        Ok(future)
    }

    /// Puts a value for later use: into the store of this node if it is large.
    fn put(&self, value: &Bound<'_, PyAny>) -> PyResult<Kept> {
        pack::keep(value, &self.shared.home)
    }

    /// Room in the store for an array like this one; `None` for a small one.
    fn create(&self, like: &Bound<'_, PyAny>) -> PyResult<Option<Draft>> {
        Draft::new(like, &self.shared.home)
    }

    /// Seals what was filled.
    #[allow(clippy::unused_self)] // As a worker's, which sends something.
    fn seal(&self, py: Python<'_>, draft: &Draft) -> PyResult<Kept> {
        draft.seal(py)
    }

    /// Puts an array for later use into the store of this node, however small it is.
    fn put_array(&self, array: &Bound<'_, PyAny>) -> PyResult<Kept> {
        pack::keep_array(array, &self.shared.home)
    }

    /// Brings the value of an answer, which lies on another node, to this one: a future of it.
    fn fetch<'py>(slf: &Bound<'py, Self>, raw: &Raw) -> PyResult<Bound<'py, PyAny>> {
        asking::fetch(slf, raw)
    }

    /// Whether a value that was put is an object of this run.
    fn owns(&self, kept: &Kept) -> bool {
        kept.object()
            .is_some_and(|(_, home)| Arc::ptr_eq(home, &self.shared.home))
    }

    /// Brings an object to this node: a future of its value, or of the bytes themselves where a range is asked for.
    #[pyo3(signature = (kept, offset=0, len=0))]
    fn bring<'py>(slf: &Bound<'py, Self>, kept: &Kept, offset: u64, len: u64) -> PyResult<Bound<'py, PyAny>> {
        asking::bring(slf, kept, offset, len)
    }

    /// Moves or copies objects to nodes of the run, or to the memory of a GPU of theirs (`gpu` is 1 + its number): a future of
    /// references to them.
    #[pyo3(signature = (kept, placing, near, replicas, gpu=0))]
    fn place<'py>(
        slf: &Bound<'py, Self>,
        kept: Vec<Bound<'py, Kept>>,
        placing: i32,
        near: Vec<u32>,
        replicas: u32,
        gpu: u32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let place = PlaceObjects {
            placing,
            near,
            replicas,
            gpu,
            ..PlaceObjects::default()
        };
        asking::place(slf, &kept, place)
    }

    /// Asks the run's table of names: a future of its answer, where there is one.
    #[pyo3(signature = (op, name, value=None, *, version=None, keep=0, wait=false, about=0))]
    #[allow(clippy::too_many_arguments)] // The fields of the message, named at each call.
    fn name<'py>(
        slf: &Bound<'py, Self>,
        op: &str,
        name: String,
        value: Option<&Bound<'py, PyAny>>,
        version: Option<u64>,
        keep: u32,
        wait: bool,
        about: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        let asked = Asked {
            op,
            name,
            version,
            keep,
            wait,
            about,
        };
        asking::name(slf, asked, value)
    }

    /// A future for the outcome of a task of the pipeline.
    fn expect<'py>(slf: &Bound<'py, Self>, task: u64) -> PyResult<Bound<'py, PyAny>> {
        let future = new_future(slf.as_any(), task)?;
        slf.get()
            .shared
            .futures
            .insert(Wanted::Task(task), future.clone().unbind());
        Ok(future)
    }

    /// A future for the run's end; its value is the phase.
    fn expect_end<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let future = new_future(slf.as_any(), 0)?;
        slf.get().shared.futures.insert(Wanted::End, future.clone().unbind());
        Ok(future)
    }

    /// A future for the status, as JSON text.
    fn status<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let future = new_future(slf.as_any(), 0)?;
        slf.get().shared.futures.insert(Wanted::Status, future.clone().unbind());
        slf.get().send(slf.py(), StatusRequest {}.into())?;
        Ok(future)
    }

    /// Asks for progress and for the outcomes of the pipeline's tasks.
    fn subscribe(&self, py: Python<'_>, progress: bool, outcomes: bool) -> PyResult<()> {
        self.send(py, Subscribe { progress, outcomes }.into())
    }

    /// Lets the calling thread read answers until `future` is done, `seconds` are over, or another thread does so already.
    #[pyo3(signature = (future, seconds=None))]
    fn wait(&self, py: Python<'_>, future: &Bound<'_, PyAny>, seconds: Option<f64>) -> PyResult<()> {
        let end = seconds.and_then(|s| Instant::now().checked_add(Duration::try_from_secs_f64(s.max(0.0)).ok()?));
        while !is_done(future)? {
            let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()).min(LOOK));
            if left.is_zero() {
                return Ok(());
            }
            let pumped = py.detach(|| {
                let _ = self.shared.link.write_some(); // What this thread waits for may not have been sent yet.
                self.shared.reader.pump(&self.shared.link, &*self.shared, Some(left))
            });
            if matches!(pumped, Pumped::Taken) {
                return Ok(());
            }
            self.shared.deliver(py, pumped)?;
            py.check_signals()?;
        }
        Ok(())
    }

    /// Cancels the tasks with these tokens; all of the run's without any.
    #[pyo3(signature = (tokens, reason))]
    fn cancel(&self, py: Python<'_>, tokens: Option<Vec<u64>>, reason: String) -> PyResult<()> {
        let message = CancelTasks {
            all: tokens.is_none(),
            tasks: tokens.unwrap_or_default(),
            reason,
            from_worker: None,
        };
        self.send(py, message.into())
    }

    /// Forgets the future of a cancelled task.
    fn forget(&self, token: u64) {
        self.shared.futures.remove(Wanted::Task(token));
    }

    /// Counts by phase: waiting, running, finished, failed, cancelled.
    fn progress(&self) -> Option<(u64, u64, u64, u64, u64)> {
        let p = lock(&self.shared.news).progress?;
        Some((p.waiting, p.running, p.finished, p.failed, p.cancelled))
    }

    /// Phase and message of the run's end, once it is known.
    fn end(&self) -> Option<(String, String)> {
        lock(&self.shared.news).end.clone()
    }

    /// Futures that are not done.
    fn pending(&self) -> usize {
        self.shared.futures.len()
    }

    /// The futures that are not done.
    fn waiting(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        self.shared.futures.all(py)
    }

    /// Whether the connection is closed.
    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    /// Says that no more tasks come; the run ends with its last one.
    fn drain(&self, py: Python<'_>) -> PyResult<()> {
        let mode = CloseMode::Drain.into();
        self.send(py, Close { mode }.into())
    }

    /// Run id, agents, CPUs in thousandths, inline limit.
    fn facts(&self) -> (String, u32, u64, u32) {
        let w = &self.welcome;
        let cpus = w.total.as_ref().map_or(0, |t| t.cpu_millis);
        (w.run.clone(), w.agents, cpus, w.inline_limit)
    }

    /// Says good-bye (`detach`, `drain` or `cancel`) and closes the connection. Futures that are not done fail.
    fn close(&self, py: Python<'_>, mode: &str) -> PyResult<()> {
        let mode = match mode {
            "detach" => CloseMode::Detach,
            "drain" => CloseMode::Drain,
            _ => CloseMode::Cancel,
        };
        if self.shared.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let bye = Close { mode: mode.into() };
        self.shared.link.add(|out| ClientToHead::from(bye).encode(out));
        py.detach(|| {
            let _ = self.shared.link.write_all(); // A head that is gone needs no good-bye.
            self.shared.link.close();
            for thread in std::mem::take(&mut *lock(&self.threads)) {
                let _ = thread.join(); // A panic of theirs was printed when it happened.
            }
        });
        self.shared
            .futures
            .fail_all(py, "closed", "the connection was closed before the answer came")
    }

    /// In a forked child: the connection is the parent's.
    fn forsake(&self) {
        self.forsaken.store(true, Ordering::SeqCst);
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.link.forsake(); // Holds that the child drops are the parent's.
    }
}

impl Connection for Client {
    fn token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    fn home(&self) -> &Arc<Home> {
        &self.shared.home
    }

    fn futures(&self) -> &Table {
        &self.shared.futures
    }
}

impl<M> Says<M> for Client
where
    ClientToHead: From<M>,
{
    fn say(&self, py: Python<'_>, message: M) -> PyResult<()> {
        self.send(py, message.into())
    }
}

impl Client {
    /// This process's place in the run.
    pub fn home(&self) -> &Arc<Home> {
        &self.shared.home
    }

    fn send(&self, py: Python<'_>, message: ClientToHead) -> PyResult<()> {
        if self.shared.closed.load(Ordering::Relaxed) {
            return Err(PyRuntimeError::new_err(
                "the connection to the run's head is closed: start a new Executor, or run the pipeline again",
            ));
        }
        if self.shared.link.send(|out| message.encode(out)) {
            py.detach(|| self.shared.link.wait_for_room());
        }
        Ok(())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.forsaken.load(Ordering::SeqCst) {
            return; // A shutdown would end the parent's connection too.
        }
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.link.close(); // The threads see it and end; joining here could wait for the interpreter's lock.
    }
}
