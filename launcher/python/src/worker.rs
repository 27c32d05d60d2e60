//! A worker's loop: takes calls from its agent, runs them, sends what came of them in batches.
//! Hot path: `run_call` and what it calls, once a task. What goes on beside a running task is `watchdog.rs`.

use crate::asking::{self, Connection, Says};
use crate::draft::Draft;
use crate::futures::{Raw, Table, Wanted, is_done, new_future};
use crate::home::{Home, Kept, Role};
use crate::named::Asked;
use crate::options::Options;
use crate::pack::{self, pack_call};
use crate::python::api;
use crate::receive::{Pumped, Reader};
use crate::shared::{Current, Shared};
use crate::watchdog;
use bridgehead_guest::link::{Link, lock};
use bridgehead_wire::{
    Blocked, CancelTasks, Failure, FailureCause, GangCall, LogText, Mpi, Outcome, PlaceObjects, PutFunction, TaskCall,
    TaskDone, TaskSubmit, Value, WorkerReady, WorkerToAgent, value,
};
use bytes::Bytes;
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Results wait this long for company before they are sent.
const TOGETHER: Duration = Duration::from_micros(100);
/// A wait for a name gives nothing back to the node before it has lasted this long, seconds: most answers are there sooner.
const SHORT: f64 = 0.001;
/// Signals are looked at this often while the worker waits.
const LOOK: Duration = Duration::from_millis(500);

/// What Python is told of the running call.
type Running = (u64, u32, String, Vec<u32>, u64, u64, u64, (u32, u32));

/// The worker's side of its connection to the agent.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
pub struct Worker {
    shared: Arc<Shared>,
    functions: Mutex<HashMap<u32, Py<PyAny>>>,
    devices: Mutex<Vec<u32>>,
    next_token: AtomicU64,
    next_function: AtomicU32,
}

#[pymethods]
impl Worker {
    /// Takes over the socket that is this process's standard input.
    #[new]
    fn new() -> PyResult<Self> {
        let stream = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let link = Arc::new(Link::new(stream)?);
        let shared = Arc::new(Shared {
            home: Home::new(link.clone(), Role::Worker),
            link,
            reader: Reader::default(),
            futures: Table::default(),
            queue: Mutex::default(),
            new_functions: Mutex::default(),
            config: Mutex::default(),
            current: Mutex::default(),
            logs: Mutex::default(),
            printed: Mutex::default(),
            note: std::sync::OnceLock::new(),
            stop: AtomicBool::new(false),
            watchdog: watchdog::Parking::default(),
        });
        watchdog::start(&shared)?;
        Ok(Self {
            shared,
            functions: Mutex::default(),
            devices: Mutex::default(),
            next_token: AtomicU64::new(0),
            next_function: AtomicU32::new(0),
        })
    }

    /// Waits for the configuration: (run, agent, worker, `sys.path` entries, run folder).
    fn config(&self, py: Python<'_>) -> PyResult<(String, u32, u32, Vec<String>, String)> {
        loop {
            if let Some(c) = &*lock(&self.shared.config) {
                return Ok((c.run.clone(), c.agent, c.worker, c.sys_path.clone(), c.run_dir.clone()));
            }
            self.pump(py, LOOK)?;
        }
    }

    /// Says that this worker is up.
    fn ready(&self, py: Python<'_>, python: String) -> PyResult<()> {
        self.shared.add(WorkerReady {
            pid: std::process::id(),
            python,
        });
        self.flush(py)
    }

    /// Runs calls until the agent ends this worker or is gone.
    fn run(&self, py: Python<'_>) -> PyResult<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let call = lock(&self.shared.queue).pop_front();
            match call {
                Some(call) => self.run_call(py, call)?,
                None => {
                    self.shared.add_late_logs();
                    self.flush(py)?;
                    let shared = &*self.shared;
                    // The watchdog, which read for the last call, may have taken the next one, or the word to end.
                    self.pump_unless(py, LOOK, || {
                        shared.stop.load(Ordering::SeqCst) || !lock(&shared.queue).is_empty()
                    })?;
                }
            }
        }
        Ok(())
    }

    /// In a forked child: it takes no calls, and says nothing over its parent's connection.
    fn forsake(&self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.link.forsake();
    }

    /// Text that the running task printed to `stream`.
    fn log(&self, stream: &str, text: &str) {
        let Some((task, attempt)) = self.running() else { return };
        let mut logs = lock(&self.shared.logs);
        if let Some(last) = logs.last_mut()
            && last.stream == stream
            && last.task == task
        {
            last.text.push_str(text);
            return;
        }
        logs.push(LogText {
            task,
            attempt,
            stream: stream.to_owned(),
            text: text.to_owned(),
        });
    }

    /// The running call: (task, attempt, name, devices, time limit in milliseconds, start, end of the allocation, rank and ranks).
    /// Times are nanoseconds since the epoch; a limit or an end of 0 is none.
    fn current(&self) -> Option<Running> {
        let config = lock(&self.shared.config);
        let end_ns = config.as_ref().map_or(0, |config| config.allocation_end_ns);
        drop(config);
        let current = lock(&self.shared.current);
        let Current { call, started_ns, .. } = current.as_ref()?;
        let name = call.name.clone();
        Some((
            call.task,
            call.attempt,
            name,
            call.devices.clone(),
            call.timeout_ms,
            *started_ns,
            end_ns,
            call.gang.as_ref().map_or((0, 1), |gang| (gang.rank, gang.size())),
        ))
    }

    /// Sends a pickled function; its index on this connection.
    fn put_function(&self, digest: &[u8], name: String, code: &[u8]) -> u32 {
        let index = self.next_function.fetch_add(1, Ordering::Relaxed);
        self.shared.add(PutFunction {
            index,
            digest: Bytes::copy_from_slice(digest),
            name,
            code: Bytes::copy_from_slice(code),
        });
        index
    }

    /// Adds a task to the run; its future.
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
            parent: this.running().map(|(task, _)| task),
            ..TaskSubmit::default()
        };
        if let Some(options) = options {
            options.get().apply(&mut submit);
        }
        let future = new_future(slf.as_any(), token)?;
        this.shared.futures.insert(Wanted::Task(token), future.clone().unbind());
        let _passed = call.args.pass(&this.shared.home);
        this.shared.add(submit);
        this.flush(slf.py())?;
        Ok(future)
    }

    /// Puts a value for later use: into the store of this node if it is large.
    fn put(&self, py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<Kept> {
        let kept = pack::keep(value, &self.shared.home)?;
        self.flush(py)?;
        Ok(kept)
    }

    /// Room in the store for an array like this one; `None` for a small one.
    fn create(&self, like: &Bound<'_, PyAny>) -> PyResult<Option<Draft>> {
        Draft::new(like, &self.shared.home)
    }

    /// Seals what was filled.
    fn seal(&self, py: Python<'_>, draft: &Draft) -> PyResult<Kept> {
        let kept = draft.seal(py)?;
        self.flush(py)?;
        Ok(kept)
    }

    /// Puts an array for later use into the store of this node, however small it is.
    fn put_array(&self, py: Python<'_>, array: &Bound<'_, PyAny>) -> PyResult<Kept> {
        let kept = pack::keep_array(array, &self.shared.home)?;
        self.flush(py)?;
        Ok(kept)
    }

    /// Brings the value of an answer, which lies on another node, to this one: a future of it.
    fn fetch<'py>(slf: &Bound<'py, Self>, raw: &Raw) -> PyResult<Bound<'py, PyAny>> {
        asking::fetch(slf, raw)
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

    /// Waits for a future of this worker, up to `seconds`; meanwhile what the running task holds is free for others.
    #[pyo3(signature = (future, seconds=None))]
    fn wait(&self, py: Python<'_>, future: &Bound<'_, PyAny>, seconds: Option<f64>) -> PyResult<()> {
        if is_done(future)? {
            return Ok(());
        }
        let token: u64 = future.getattr(intern!(py, "_token"))?.extract()?;
        if self.shared.futures.has(Wanted::Name(token)) {
            self.flush(py)?;
            self.wait_for(py, future, Some(seconds.map_or(SHORT, |s| s.min(SHORT))))?;
            if is_done(future)? || seconds.is_some_and(|s| s <= SHORT) {
                return Ok(());
            }
        }
        let task = self.running().map(|(task, _)| task);
        if let Some(task) = task {
            self.shared.return_queued(Duration::ZERO);
            self.shared.add(Blocked { task, blocked: true });
        }
        self.flush(py)?;
        let result = self.wait_for(py, future, seconds);
        if let Some(task) = task {
            self.shared.add(Blocked { task, blocked: false });
            self.flush(py)?;
        }
        result
    }

    /// Cancels tasks that this worker added.
    fn cancel(&self, py: Python<'_>, tokens: Vec<u64>, reason: String) -> PyResult<()> {
        self.shared.add(CancelTasks {
            tasks: tokens,
            all: false,
            reason,
            from_worker: None,
        });
        self.flush(py)
    }

    /// Forgets the future of a cancelled task.
    fn forget(&self, token: u64) {
        self.shared.futures.remove(Wanted::Task(token));
    }
}

impl Connection for Worker {
    fn token(&self) -> u64 {
        self.next_token.fetch_add(1, Ordering::Relaxed)
    }

    fn home(&self) -> &Arc<Home> {
        &self.shared.home
    }

    fn futures(&self) -> &Table {
        &self.shared.futures
    }

    fn task(&self) -> Option<u64> {
        self.running().map(|(task, _)| task)
    }
}

impl<M> Says<M> for Worker
where
    WorkerToAgent: From<M>,
{
    fn say(&self, py: Python<'_>, message: M) -> PyResult<()> {
        self.shared.add(WorkerToAgent::from(message));
        self.flush(py)
    }
}

impl Worker {
    /// This process's place in the run.
    pub fn home(&self) -> &Arc<Home> {
        &self.shared.home
    }

    fn running(&self) -> Option<(u64, u32)> {
        lock(&self.shared.current)
            .as_ref()
            .map(|c| (c.call.task, c.call.attempt))
    }

    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        let all = self.shared.link.write_some().map_err(gone)?;
        if !all {
            py.detach(|| self.shared.link.write_all()).map_err(gone)?;
        }
        Ok(())
    }

    /// Reads once. An agent that is gone ends the worker.
    fn pump(&self, py: Python<'_>, limit: Duration) -> PyResult<bool> {
        self.pump_unless(py, limit, || false)
    }

    /// As `pump`, unless what it would wait for is `there`.
    fn pump_unless(&self, py: Python<'_>, limit: Duration, there: impl FnOnce() -> bool + Send) -> PyResult<bool> {
        let shared = &*self.shared;
        let pumped = py.detach(|| shared.reader.pump_unless(&shared.link, shared, Some(limit), there));
        match pumped {
            Pumped::Answers(answers) => shared.deliver(py, answers)?,
            Pumped::Closed(reason) => return Err(gone(reason)),
            Pumped::Taken => return Ok(false),
            Pumped::Nothing => py.check_signals()?,
        }
        Ok(true)
    }

    fn wait_for(&self, py: Python<'_>, future: &Bound<'_, PyAny>, seconds: Option<f64>) -> PyResult<()> {
        let end = seconds.and_then(|s| Instant::now().checked_add(Duration::try_from_secs_f64(s.max(0.0)).ok()?));
        while !is_done(future)? {
            let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()).min(LOOK));
            if left.is_zero() || !self.pump(py, left)? {
                break;
            }
            self.shared.return_queued(Duration::ZERO);
            self.flush(py)?;
        }
        Ok(())
    }

    fn run_call(&self, py: Python<'_>, call: TaskCall) -> PyResult<()> {
        let (task, attempt) = (call.task, call.attempt);
        let (function, devices) = (call.function, call.devices.clone());
        let (args, inputs, lazy) = (call.args.clone(), call.inputs.clone(), call.lazy.clone());
        let gang = call.gang.clone();
        let since = Instant::now();
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let started_ns = u64::try_from(epoch.as_nanos()).unwrap_or(u64::MAX);
        *lock(&self.shared.current) = Some(Current {
            call,
            since,
            started_ns,
        });
        self.shared.note_running(task);
        self.shared.watchdog.wake();
        // What the value names is held by what the task made until its end has been told.
        let (outcome, _named, shard) = self
            .evaluate(py, (function, gang), args, (inputs, lazy), &devices)
            .unwrap_or_else(|e| (failed(py, &e), None, None));
        self.shared.add_logs();
        let elapsed = since.elapsed();
        let ended = lock(&self.shared.current).take();
        drop(ended);
        let waited = self.shared.add(TaskDone {
            task,
            attempt,
            outcome: Some(outcome),
            started_ns,
            elapsed_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
            worker: 0,
            shards: shard.into_iter().collect(),
        });
        if waited.max(elapsed) > TOGETHER {
            self.flush(py)?;
        }
        Ok(())
    }

    fn evaluate(
        &self,
        py: Python<'_>,
        (function, gang): (u32, Option<GangCall>),
        args: Option<Value>,
        (inputs, lazy): (Vec<Value>, Vec<u32>),
        devices: &[u32],
    ) -> PyResult<(Outcome, Option<Py<PyAny>>, Option<Value>)> {
        self.show_devices(py, devices)?;
        let function = self.function(py, function)?;
        let inputs = (0..)
            .zip(&inputs)
            .map(|(position, value)| self.input(py, value, lazy.contains(&position)))
            .collect::<PyResult<Vec<_>>>()?;
        let result = match args.and_then(|v| v.kind) {
            Some(value::Kind::Inline(bytes)) if gang.is_none() && pack::is_empty_call(&bytes) => {
                function.bind(py).call0()?
            }
            Some(kind) => {
                let args = Value {
                    kind: Some(kind),
                    ..Value::default()
                };
                let both = pack::unpack_value_with(py, &args, inputs, Some(&self.shared.home))?;
                let (args, kwargs): (Bound<'_, PyTuple>, Bound<'_, PyDict>) = both.extract()?;
                match gang {
                    Some(gang) => return self.evaluate_rank(py, function.bind(py), (args, kwargs), &gang),
                    None => function.bind(py).call(args, Some(&kwargs))?,
                }
            }
            None => return Err(PyRuntimeError::new_err("the call came without arguments")),
        };
        // Its range is this process's until the agent hears of it, so the lease is not needed any longer.
        let value = pack::pack(&result, Some(&self.shared.home))?.value();
        let named = (!value.refs.is_empty()).then(|| result.unbind());
        Ok((Outcome::value(value), named, None))
    }

    /// As `evaluate`, for one rank of a gang: its value, and its shard of the task's where ranks return shards.
    fn evaluate_rank(
        &self,
        py: Python<'_>,
        function: &Bound<'_, PyAny>,
        arguments: (Bound<'_, PyTuple>, Bound<'_, PyDict>),
        gang: &GangCall,
    ) -> PyResult<(Outcome, Option<Py<PyAny>>, Option<Value>)> {
        let ranks = py.import(intern!(py, "bridgehead._ranks"))?;
        let mpi = gang.ranks.mpi() != Mpi::None;
        let shape = (gang.rank, gang.size(), mpi, gang.ranks.shards);
        let both = ranks.call_method1(intern!(py, "run"), (function, arguments.0, arguments.1, shape))?;
        let (result, shard): (Bound<'_, PyAny>, Option<Bound<'_, Kept>>) = both.extract()?;
        let value = pack::pack(&result, Some(&self.shared.home))?.value();
        let shard = shard.and_then(|kept| Some(Value::stored(kept.get().object()?.0.clone())));
        Ok((Outcome::value(value), Some(both.unbind()), shard))
    }

    /// What a placeholder stands for: a value, or a reference where the call says so.
    fn input(&self, py: Python<'_>, value: &Value, lazy: bool) -> PyResult<Py<PyAny>> {
        match value.object().filter(|_| lazy) {
            Some(object) => Ok(Bound::new(py, Kept::adopted(&self.shared.home, object.clone()))?
                .into_any()
                .unbind()),
            None => {
                let home = &self.shared.home;
                Ok(pack::reading(home, || pack::unpack_value(py, value, Some(home)))?.unbind())
            }
        }
    }

    /// The function under `index`, unpickled at its first call.
    fn function(&self, py: Python<'_>, index: u32) -> PyResult<Py<PyAny>> {
        if let Some(function) = lock(&self.functions).get(&index) {
            return Ok(function.clone_ref(py));
        }
        let put = lock(&self.shared.new_functions).remove(&index);
        let Some(put) = put else {
            return Err(PyRuntimeError::new_err("the function of this call was never sent"));
        };
        let loaded = api(py)?
            .pickling
            .bind(py)
            .call_method1(intern!(py, "load_function"), (put.name.as_str(), &*put.code))?
            .unbind();
        lock(&self.functions).insert(index, loaded.clone_ref(py));
        Ok(loaded)
    }

    fn show_devices(&self, py: Python<'_>, devices: &[u32]) -> PyResult<()> {
        {
            let mut shown = lock(&self.devices);
            if *shown == devices {
                return Ok(());
            }
            devices.clone_into(&mut shown);
        }
        let shown = devices.to_vec();
        api(py)?
            .failures
            .bind(py)
            .call_method1(intern!(py, "show_devices"), (shown,))?;
        Ok(())
    }
}

fn gone(reason: impl std::fmt::Display) -> PyErr {
    PyConnectionError::new_err(format!("the agent is gone: {reason}"))
}

/// Words an exception as the outcome of its task.
fn failed(py: Python<'_>, error: &PyErr) -> Outcome {
    let described = api(py).and_then(|api| {
        let fields = api
            .failures
            .bind(py)
            .call_method1(intern!(py, "describe"), (error.clone_ref(py).into_value(py),))?;
        fields.extract::<(i32, String, String, String, Vec<u8>)>()
    });
    let failure = match described {
        Ok((cause, kind, message, traceback, pickled)) => Failure {
            cause,
            kind,
            message,
            traceback,
            pickled: pickled.into(),
            ..Failure::default()
        },
        Err(second) => Failure::new(
            FailureCause::User,
            "exception",
            format!("it raised {error}, which could not be described: {second}"),
        ),
    };
    Outcome::failure(failure)
}
