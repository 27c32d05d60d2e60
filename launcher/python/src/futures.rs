//! Futures that wait for an answer, and how an answer reaches its future. The future's class is Python
//! (`bridgehead/_future.py`); its attributes are set here without running Python code where nobody waits on it.
//! Hot path: `new_future`, `complete`, once a task each.

use crate::home::{Held, Home, Kept, view_of};
use crate::pack;
use crate::python::api;
use bridgehead_guest::link::lock;
use bridgehead_wire::{Failure, Fetched, NameReply, ObjectRef, Outcome, Placed, outcome};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// What a future waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// The outcome of the task with this token.
    Task(u64),
    /// The object fetched under this token.
    Fetch(u64),
    /// The answer of the table of names to this token.
    Name(u64),
    /// The bytes of a range fetched under this token.
    Range(u64),
    /// Objects placed under this token.
    Placed(u64),
    /// The run's status.
    Status,
    /// The run's end.
    End,
}

impl Wanted {
    /// What is brought under `token`: an object's value, or the bytes themselves where a range of `len` of them is asked for.
    pub fn brought(token: u64, len: u64) -> Self {
        if len > 0 {
            Self::Range(token)
        } else {
            Self::Fetch(token)
        }
    }
}

/// Ended, version, versions, names.
type Listing = (bool, u64, Vec<u64>, Vec<String>);

/// An answer that has not been looked at.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
#[derive(Debug)]
pub struct Raw {
    outcome: Mutex<Option<outcome::Kind>>,
    /// Where its object would lie.
    home: Option<Arc<Home>>,
    /// The hold that came with a stored value.
    held: Mutex<Option<Held>>,
    text: Option<String>,
    /// What the table of names said, where that is no value.
    listing: Option<Listing>,
    /// Objects that were placed.
    placed: Vec<ObjectRef>,
    /// The value is the bytes themselves, not what is packed in them.
    bytes: bool,
    /// Version of a named value; 0 for others.
    #[pyo3(get)]
    version: u64,
    /// Attempts made.
    #[pyo3(get)]
    attempts: u32,
    /// Run time of the last attempt in nanoseconds.
    #[pyo3(get)]
    elapsed_ns: u64,
    #[pyo3(get)]
    kind: &'static str,
}

#[pymethods]
impl Raw {
    /// The value, for kind `value`. Large arrays in a stored one are views, or `own`: this process's.
    #[pyo3(signature = (own = false))]
    fn value<'py>(&self, py: Python<'py>, own: bool) -> PyResult<Option<Bound<'py, PyAny>>> {
        if let Some(listing) = self.listing.clone() {
            return Ok(Some(listing.into_pyobject(py)?.into_any()));
        }
        if let (false, Some(home)) = (self.placed.is_empty(), &self.home) {
            let kept = self
                .placed
                .iter()
                .map(|object| Bound::new(py, Kept::adopted(home, object.clone())));
            return Ok(Some(PyList::new(py, kept.collect::<PyResult<Vec<_>>>()?)?.into_any()));
        }
        if let Some(text) = &self.text {
            return Ok(Some(text.into_pyobject(py)?.into_any()));
        }
        if let (true, Some(object), Some(home)) = (self.bytes, self.object(), &self.home) {
            return view_of(py, home.lease(py, &object)?).map(Some);
        }
        // A copy of the message's part, not of the bytes: two threads may look at once, and both must find it. The hold on a
        // stored value goes with this answer.
        let outcome = lock(&self.outcome).clone();
        match outcome {
            Some(outcome::Kind::Value(value)) => {
                let stored = value.object().filter(|_| own).zip(self.home.as_deref());
                let read = || match stored {
                    Some((object, home)) => crate::own::unpack_lease(py, home.lease(py, object)?),
                    None => pack::unpack_value(py, &value, self.home.as_deref()),
                };
                match &self.home {
                    Some(home) => pack::reading(home, read),
                    None => read(),
                }
                .map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Whether the value lies on another node, so that it has to be fetched first.
    #[getter]
    fn away(&self) -> bool {
        let home = self.home.as_deref();
        self.object()
            .is_some_and(|object| home.is_some_and(|home| home.is_away(&object)))
    }

    /// The stored value as a reference, without bringing it here; `None` where it is not stored.
    fn reference(&self) -> Option<Kept> {
        let home = self.home.as_ref()?;
        Some(Kept::adopted(home, self.object()?))
    }

    /// The failure as a dictionary, for kind `failure`.
    fn failure<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyDict>>> {
        match &*lock(&self.outcome) {
            Some(outcome::Kind::Failure(failure)) => describe(py, failure).map(Some),
            _ => Ok(None),
        }
    }

    /// Why it was cancelled, for kind `cancelled`.
    fn reason(&self) -> Option<String> {
        match &*lock(&self.outcome) {
            Some(outcome::Kind::Cancelled(reason)) => Some(reason.clone()),
            _ => None,
        }
    }
}

fn describe<'py>(py: Python<'py>, failure: &Failure) -> PyResult<Bound<'py, PyDict>> {
    let fields = PyDict::new(py);
    fields.set_item("cause", failure.cause)?;
    fields.set_item("kind", &failure.kind)?;
    fields.set_item("message", &failure.message)?;
    fields.set_item("traceback", &failure.traceback)?;
    fields.set_item("pickled", PyBytes::new(py, &failure.pickled))?;
    fields.set_item("exit_code", failure.exit_code)?;
    fields.set_item("signal", failure.signal)?;
    fields.set_item("root", failure.root)?;
    Ok(fields)
}

impl Raw {
    /// The object that holds the value, if it is stored.
    pub fn object(&self) -> Option<ObjectRef> {
        match &*lock(&self.outcome) {
            Some(outcome::Kind::Value(value)) => value.object().cloned(),
            _ => None,
        }
    }

    /// An answer to this process, whose place in the run is `home`. A stored value comes with a hold.
    pub fn received(outcome: Option<Outcome>, attempts: u32, elapsed_ns: u64, home: &Arc<Home>) -> Self {
        let raw = Self::fetched(outcome, attempts, elapsed_ns, home);
        let held = raw.object().map(|object| Held {
            object,
            home: home.clone(),
        });
        *lock(&raw.held) = held;
        raw
    }

    /// An answer whose stored value, if it is one, comes without a hold.
    pub fn fetched(outcome: Option<Outcome>, attempts: u32, elapsed_ns: u64, home: &Arc<Home>) -> Self {
        let home = Some(home.clone());
        Self {
            home,
            ..Self::new(outcome, attempts, elapsed_ns)
        }
    }

    /// An answer that was read from the run folder.
    pub fn new(outcome: Option<Outcome>, attempts: u32, elapsed_ns: u64) -> Self {
        let outcome = outcome.and_then(|o| o.kind).unwrap_or_else(|| {
            let message = "the answer holds no outcome";
            outcome::Kind::Failure(Failure::new(
                bridgehead_wire::FailureCause::System,
                "no-outcome",
                message,
            ))
        });
        let kind = match &outcome {
            outcome::Kind::Value(_) => "value",
            outcome::Kind::Failure(_) => "failure",
            outcome::Kind::Cancelled(_) => "cancelled",
        };
        Self {
            outcome: Mutex::new(Some(outcome)),
            home: None,
            held: Mutex::default(),
            text: None,
            listing: None,
            placed: Vec::new(),
            bytes: false,
            version: 0,
            attempts,
            elapsed_ns,
            kind,
        }
    }

    /// A text that is an answer by itself.
    pub fn text(text: String) -> Self {
        Self {
            outcome: Mutex::default(),
            home: None,
            held: Mutex::default(),
            text: Some(text),
            listing: None,
            placed: Vec::new(),
            bytes: false,
            version: 0,
            attempts: 0,
            elapsed_ns: 0,
            kind: "value",
        }
    }

    /// What the table of names answered. A stored value comes with a hold.
    pub fn named(reply: NameReply, home: &Arc<Home>) -> Self {
        let NameReply { version, ended, .. } = reply;
        if reply.outcome.is_some() {
            return Self {
                version,
                ..Self::received(reply.outcome, 1, 0, home)
            };
        }
        Self {
            listing: Some((ended, version, reply.versions, reply.names)),
            ..Self::text(String::new()) // Its kind is what a listing has: a value by itself.
        }
    }

    /// Bytes that were fetched: those of a range, which come with a hold, or of the whole object.
    pub fn range(fetched: Fetched, home: &Arc<Home>) -> Self {
        let raw = if fetched.ranged {
            Self::received(fetched.outcome, 1, 0, home)
        } else {
            Self::fetched(fetched.outcome, 1, 0, home)
        };
        Self { bytes: true, ..raw }
    }

    /// Objects that were placed, or why not.
    pub fn placed(placed: Placed, home: &Arc<Home>) -> Self {
        if !placed.error.is_empty() {
            return Self::failed("not-placed", &placed.error);
        }
        Self {
            placed: placed.objects,
            home: Some(home.clone()),
            ..Self::text(String::new())
        }
    }

    /// A failure that this side words itself.
    pub fn failed(kind: &str, message: &str) -> Self {
        let failure = Failure::new(bridgehead_wire::FailureCause::System, kind, message);
        Self::new(Some(Outcome::failure(failure)), 0, 0)
    }
}

/// An answer on its way to its future.
pub type Answer = (Wanted, Raw);

/// Futures by what they wait for.
#[derive(Debug, Default)]
pub struct Table(Mutex<HashMap<Wanted, Py<PyAny>>>);

impl Table {
    /// Files a future.
    pub fn insert(&self, wanted: Wanted, future: Py<PyAny>) {
        lock(&self.0).insert(wanted, future);
    }

    /// Forgets a future.
    pub fn remove(&self, wanted: Wanted) -> Option<Py<PyAny>> {
        lock(&self.0).remove(&wanted)
    }

    /// What was fetched, for the future that asked for it: as a value, or as bytes.
    pub fn fetched(&self, fetched: Fetched, home: &Arc<Home>) -> Answer {
        let token = fetched.token;
        if self.has(Wanted::Range(token)) {
            return (Wanted::Range(token), Raw::range(fetched, home));
        }
        (Wanted::Fetch(token), Raw::fetched(fetched.outcome, 1, 0, home))
    }

    /// Whether a future waits for this.
    pub fn has(&self, wanted: Wanted) -> bool {
        lock(&self.0).contains_key(&wanted)
    }

    /// How many wait for what the run does; those that wait for a name are not among them, here and below.
    pub fn len(&self) -> usize {
        let of_run = |wanted: &&Wanted| !matches!(wanted, Wanted::Name(_));
        lock(&self.0).keys().filter(of_run).count()
    }

    /// All that wait.
    pub fn all(&self, py: Python<'_>) -> Vec<Py<PyAny>> {
        let table = lock(&self.0);
        let of_run = table.iter().filter(|(wanted, _)| !matches!(wanted, Wanted::Name(_)));
        of_run.map(|(_, future)| future.clone_ref(py)).collect()
    }

    /// Hands all answers to their futures.
    ///
    /// # Errors
    /// A future's own code raised, which only a broken interpreter makes happen.
    pub fn complete(&self, py: Python<'_>, answers: Vec<Answer>) -> PyResult<()> {
        for (wanted, raw) in answers {
            let future = self.remove(wanted); // Not within the `if`: the lock must not be held while Python runs.
            if let Some(future) = future {
                complete(future.bind(py), raw)?;
            }
        }
        Ok(())
    }

    /// Fails all futures, because no answer can come any more.
    ///
    /// # Errors
    /// As `complete`.
    pub fn fail_all(&self, py: Python<'_>, kind: &str, message: &str) -> PyResult<()> {
        let all = std::mem::take(&mut *lock(&self.0));
        for future in all.into_values() {
            complete(future.bind(py), Raw::failed(kind, message))?;
        }
        Ok(())
    }
}

/// A future that belongs to `owner` (a `Client` or `Worker`) under `token`.
///
/// # Errors
/// Out of memory.
pub fn new_future<'py>(owner: &Bound<'py, PyAny>, token: u64) -> PyResult<Bound<'py, PyAny>> {
    let py = owner.py();
    let api = api(py)?;
    let future = api.new.bind(py).call1((&api.future,))?;
    future.setattr(intern!(py, "_owner"), owner)?;
    future.setattr(intern!(py, "_token"), token)?;
    Ok(future)
}

/// Whether a future is done or cancelled.
///
/// # Errors
/// It is no future.
pub fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = future.py();
    let state = future.getattr(intern!(py, "_state"))?;
    Ok(!state.is(intern!(py, "PENDING")))
}

fn complete(future: &Bound<'_, PyAny>, raw: Raw) -> PyResult<()> {
    let py = future.py();
    let raw_kind = raw.kind;
    let raw = Bound::new(py, raw)?;
    // Nobody can wait on a future before `_waited`, and it cannot change while this thread is attached and runs no Python
    // code, so the two attributes are one step for everybody else. `__dict__` is left alone: asking for it makes one.
    if raw_kind == "cancelled" || future.getattr(intern!(py, "_waited"))?.is_truthy()? {
        future.call_method1(intern!(py, "_finish"), (raw,))?;
        return Ok(());
    }
    future.setattr(intern!(py, "_raw"), raw)?;
    future.setattr(intern!(py, "_state"), &api(py)?.finished)
}
