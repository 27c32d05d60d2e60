//! A process of a program that uses Python: its connection to the agent, for named values. Takes no calls; that part is
//! `worker.rs`'s. Hot path: `name`, once a named value.

use crate::asking::{self, Connection, Says};
use crate::futures::{Answer, Raw, Table, Wanted, is_done};
use crate::home::{Home, Kept, Role};
use crate::named::Asked;
use crate::receive::{Pumped, Reader, Sink};
use bridgehead_guest::link::{Link, lock};
use bridgehead_guest::{Entered, GuestError, Surroundings};
use bridgehead_wire::{AgentToGuest, FrameError, GuestToAgent, NameOp, NameRequest};
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Signals are looked at this often while a thread waits.
const LOOK: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Shared {
    link: Arc<Link>,
    home: Arc<Home>,
    reader: Reader,
    futures: Table,
    /// Why the agent ends the connection.
    end: Mutex<Option<String>>,
}

impl Sink for Shared {
    fn take(&self, kind: u16, body: &[u8], answers: &mut Vec<Answer>) -> Result<(), FrameError> {
        match AgentToGuest::decode(kind, body)? {
            AgentToGuest::Name(n) => answers.push((Wanted::Name(n.token), Raw::named(n, &self.home))),
            AgentToGuest::Fetched(f) => answers.push(self.futures.fetched(f, &self.home)),
            AgentToGuest::Shutdown(shutdown) => *lock(&self.end) = Some(shutdown.reason),
            AgentToGuest::Refused(refused) => *lock(&self.end) = Some(refused.message),
            AgentToGuest::Config(_) => {} // A second one changes nothing.
        }
        Ok(())
    }
}

/// The connection of a process of a program to its agent.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
pub struct Guest {
    shared: Arc<Shared>,
    next_token: AtomicU64,
}

#[pymethods]
impl Guest {
    /// Connects as this process's variables say.
    #[new]
    fn new(py: Python<'_>) -> PyResult<Self> {
        let entered = py.detach(|| Entered::new(&Surroundings::of_this_process()?));
        let Entered { stream, frames, config } = entered.map_err(|e| match e {
            GuestError::Gone(_) => PyConnectionError::new_err(e.to_string()),
            _ => PyRuntimeError::new_err(e.to_string()),
        })?;
        let link = Arc::new(Link::new(stream)?);
        let home = Home::new(link.clone(), Role::Guest);
        home.settle(&config.store_socket, config.agent, config.inline_limit);
        Ok(Self {
            shared: Arc::new(Shared {
                link,
                home,
                reader: Reader::new(frames),
                futures: Table::default(),
                end: Mutex::default(),
            }),
            next_token: AtomicU64::new(1),
        })
    }

    /// In a forked child: nothing is said over its parent's connection.
    fn forsake(&self) {
        self.shared.link.forsake();
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

    /// Brings the value of an answer, which lies on another node, to this one: a future of it.
    fn fetch<'py>(slf: &Bound<'py, Self>, raw: &Raw) -> PyResult<Bound<'py, PyAny>> {
        asking::fetch(slf, raw)
    }

    /// Brings an object to this node: a future of its value, or of the bytes themselves where a range is asked for.
    #[pyo3(signature = (kept, offset=0, len=0))]
    fn bring<'py>(slf: &Bound<'py, Self>, kept: &Kept, offset: u64, len: u64) -> PyResult<Bound<'py, PyAny>> {
        asking::bring(slf, kept, offset, len)
    }

    /// Waits for a future of this connection, up to `seconds`.
    #[pyo3(signature = (future, seconds=None))]
    fn wait(&self, py: Python<'_>, future: &Bound<'_, PyAny>, seconds: Option<f64>) -> PyResult<()> {
        let end = seconds.and_then(|s| Instant::now().checked_add(Duration::try_from_secs_f64(s.max(0.0)).ok()?));
        while !is_done(future)? {
            let left = end.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()).min(LOOK));
            if left.is_zero() {
                break;
            }
            self.pump(py, left)?;
        }
        Ok(())
    }

    /// Takes questions back.
    #[pyo3(signature = (tokens, _reason))]
    fn cancel(&self, py: Python<'_>, tokens: Vec<u64>, _reason: String) -> PyResult<()> {
        tokens.into_iter().try_for_each(|about| {
            let op = NameOp::Forget.into();
            let forget = NameRequest {
                op,
                about,
                ..NameRequest::default()
            };
            self.send(py, forget.into())
        })
    }

    /// Forgets the future of a question.
    fn forget(&self, token: u64) {
        self.shared.futures.remove(Wanted::Name(token));
    }
}

impl Connection for Guest {
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

impl<M> Says<M> for Guest
where
    GuestToAgent: From<M>,
{
    fn say(&self, py: Python<'_>, message: M) -> PyResult<()> {
        self.send(py, message.into())
    }
}

impl Guest {
    /// This process's place in the run.
    pub fn home(&self) -> &Arc<Home> {
        &self.shared.home
    }

    fn send(&self, py: Python<'_>, message: GuestToAgent) -> PyResult<()> {
        self.shared.link.add(|out| message.encode(out));
        let written = py.detach(|| self.shared.link.write_all());
        written.map_err(|e| PyConnectionError::new_err(format!("the run is gone: {e}")))
    }

    fn pump(&self, py: Python<'_>, limit: Duration) -> PyResult<()> {
        let shared = &*self.shared;
        match py.detach(|| shared.reader.pump(&shared.link, shared, Some(limit))) {
            Pumped::Answers(answers) => {
                let result = shared.futures.complete(py, answers);
                shared.reader.delivered();
                result
            }
            Pumped::Closed(reason) => {
                let why = lock(&shared.end).clone().unwrap_or(reason);
                shared
                    .futures
                    .fail_all(py, "head-lost", &format!("the run is gone: {why}"))
            }
            Pumped::Taken => {
                py.detach(|| std::thread::sleep(Duration::from_millis(1))); // Another thread hands over all answers.
                Ok(())
            }
            Pumped::Nothing => py.check_signals(),
        }
    }
}
