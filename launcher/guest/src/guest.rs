//! A guest's conversation with its agent: questions, answers, waiting. Any thread may ask; one of those that wait reads for
//! all. Owns the connection; what arrays have to do with it is `array.rs`'s. Hot path: `ask`, once a put or get.

use crate::enter::{Entered, Surroundings};
use crate::error::GuestError;
use crate::link::{Found, Link, lock};
use bridgehead_store_node::Client;
use bridgehead_wire::{
    AgentToGuest, Failure, Fetch, Fetched, FrameError, Frames, GuestToAgent, NameOp, NameReply, NameRequest, ObjectRef,
    Outcome, ReleaseObjects, WorkerConfig, outcome,
};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who waits looks around this often.
const LOOK: Duration = Duration::from_millis(500);

/// How long somebody wants to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// Not at all.
    None,
    /// So long.
    For(Duration),
    /// As long as it takes.
    Forever,
}

impl Patience {
    /// For a question that the table parks until it can be answered: it is told at once that nobody waits.
    pub(crate) fn bounded(self) -> Self {
        if self == Self::None {
            Self::For(Duration::ZERO)
        } else {
            self
        }
    }

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::For(time) => Instant::now().checked_add(time), // Beyond what a clock shows is for ever.
            Self::None | Self::Forever => None,
        }
    }
}

#[derive(Debug)]
enum Answer {
    Name(NameReply),
    Fetched(Fetched),
}

#[derive(Debug, Default)]
struct State {
    frames: Frames,
    /// A thread reads, and will tell.
    reading: bool,
    answers: HashMap<u64, Answer>,
    /// Why no more answers come.
    over: Option<String>,
}

/// What all parts of a guest share.
#[derive(Debug)]
pub(crate) struct Shared {
    link: Link,
    pub(crate) store: Client,
    pub(crate) config: WorkerConfig,
    state: Mutex<State>,
    changed: Condvar,
    next: AtomicU64,
    pid: u32,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.is_own() {
            self.link.close(); // What it held is given back by its agent.
        }
    }
}

impl Shared {
    /// A forked child has inherited the connection, and must not use it.
    fn is_own(&self) -> bool {
        self.pid == std::process::id()
    }

    pub(crate) fn check_own(&self) -> Result<(), GuestError> {
        if self.is_own() {
            return Ok(());
        }
        let why = "this process was forked from the one that opened the store: open it here, or use it there";
        Err(GuestError::Wrong(why.to_owned()))
    }

    pub(crate) fn token(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Says something that has no answer, with the next question or at once where there is room.
    pub(crate) fn tell(&self, message: impl Into<GuestToAgent>) {
        if self.is_own() {
            let message = message.into();
            self.link.add(|out| message.encode(out));
            let _ = self.link.write_some(); // A broken connection is noticed by who asks.
        }
    }

    /// Adds to what is sent with the next question.
    pub(crate) fn add(&self, message: impl Into<GuestToAgent>) {
        let message = message.into();
        self.link.add(|out| message.encode(out));
    }

    /// Asks the run's table of names; the answer is no failure.
    pub(crate) fn ask(&self, request: NameRequest, patience: Patience) -> Result<NameReply, GuestError> {
        self.check_own()?;
        let (token, deadline) = (request.token, patience.deadline());
        self.add(request);
        self.link.write_all()?;
        let answer = match self.wait(token, deadline)? {
            Some(answer) => answer,
            None => {
                self.add(NameRequest {
                    op: NameOp::Forget.into(),
                    about: token,
                    ..NameRequest::default()
                });
                self.link.write_all()?;
                self.wait(token, None)?.ok_or_else(mixed_up)? // It is answered now, one way or the other.
            }
        };
        let Answer::Name(reply) = answer else {
            return Err(mixed_up());
        };
        match failure_of(reply.outcome.as_ref()) {
            Some(failure) => Err(GuestError::of_failure(failure)),
            None => Ok(reply),
        }
    }

    /// Brings an object to this node: where it lies now.
    pub(crate) fn fetch(&self, object: &ObjectRef) -> Result<ObjectRef, GuestError> {
        let token = self.token();
        self.add(Fetch {
            token,
            object: Some(object.clone()),
            ..Fetch::default()
        });
        self.link.write_all()?;
        let Some(Answer::Fetched(fetched)) = self.wait(token, None)? else {
            return Err(mixed_up());
        };
        if let Some(failure) = failure_of(fetched.outcome.as_ref()) {
            return Err(GuestError::of_failure(failure));
        }
        let place = fetched.outcome.as_ref().and_then(Outcome::object).cloned();
        place.ok_or_else(mixed_up)
    }

    /// Waits for the answer under `token`; `None` when the time is over.
    fn wait(&self, token: u64, deadline: Option<Instant>) -> Result<Option<Answer>, GuestError> {
        let mut state = lock(&self.state);
        loop {
            if let Some(answer) = state.answers.remove(&token) {
                return Ok(Some(answer));
            }
            if let Some(reason) = &state.over {
                return Err(GuestError::Gone(reason.clone()));
            }
            let left = deadline.map_or(LOOK, |end| end.saturating_duration_since(Instant::now()).min(LOOK));
            if left.is_zero() {
                return Ok(None);
            }
            if state.reading {
                let waited = self.changed.wait_timeout(state, left);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            state.reading = true;
            let mut frames = std::mem::take(&mut state.frames);
            drop(state);
            let found = self.link.read_wait(&mut frames, Some(left));
            state = lock(&self.state);
            state.frames = frames;
            state.reading = false;
            state.take(found);
            self.changed.notify_all();
        }
    }
}

impl State {
    /// Files what was read.
    fn take(&mut self, found: Found) {
        loop {
            match self.frames.next_frame() {
                Ok(Some((kind, body))) => {
                    let message = AgentToGuest::decode(kind, body);
                    self.file(message);
                }
                Ok(None) => break,
                Err(error) => return self.end(error.to_string()),
            }
        }
        if found == Found::Closed {
            self.end("its agent closed the connection".to_owned());
        }
    }

    fn file(&mut self, message: Result<AgentToGuest, FrameError>) {
        match message {
            Ok(AgentToGuest::Name(reply)) => drop(self.answers.insert(reply.token, Answer::Name(reply))),
            Ok(AgentToGuest::Fetched(fetched)) => drop(self.answers.insert(fetched.token, Answer::Fetched(fetched))),
            Ok(AgentToGuest::Shutdown(shutdown)) => self.end(shutdown.reason),
            Ok(AgentToGuest::Refused(refused)) => self.end(refused.message),
            Ok(AgentToGuest::Config(_)) => {} // A second one changes nothing.
            Err(error) => self.end(error.to_string()),
        }
    }

    fn end(&mut self, reason: String) {
        self.over.get_or_insert(reason);
    }
}

fn mixed_up() -> GuestError {
    GuestError::Other("the agent answered another question".to_owned())
}

fn failure_of(outcome: Option<&Outcome>) -> Option<&Failure> {
    match outcome.and_then(|outcome| outcome.kind.as_ref()) {
        Some(outcome::Kind::Failure(failure)) => Some(failure),
        _ => None,
    }
}

/// A hold on an object of the run, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) object: ObjectRef,
    pub(crate) shared: Arc<Shared>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let objects = vec![self.object.clone()];
        self.shared.tell(ReleaseObjects { objects });
    }
}

/// This process as a part of its run. Threads may share it.
#[derive(Debug, Clone)]
pub struct Guest {
    pub(crate) shared: Arc<Shared>,
}

impl Guest {
    /// Comes into the run that started this process's program.
    ///
    /// # Errors
    /// It was started by none, or the run will not have it.
    pub fn enter(surroundings: &Surroundings) -> Result<Self, GuestError> {
        let Entered { stream, frames, config } = Entered::new(surroundings)?;
        let store = Client::connect(Path::new(&config.store_socket)).map_err(GuestError::of_reading)?;
        let state = State {
            frames,
            ..State::default()
        };
        Ok(Self {
            shared: Arc::new(Shared {
                link: Link::new(stream)?,
                store,
                config,
                state: Mutex::new(state),
                changed: Condvar::new(),
                next: AtomicU64::new(1),
                pid: std::process::id(),
            }),
        })
    }

    /// The number of its node.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.shared.config.agent
    }

    /// Waits until a version is there, the first one if none is named: its number.
    ///
    /// # Errors
    /// It is not there, or did not come in time.
    pub fn wait(&self, name: &str, version: Option<u64>, patience: Patience) -> Result<u64, GuestError> {
        let request = NameRequest {
            version,
            wait: patience != Patience::None,
            ..self.about(NameOp::Wait, name)?
        };
        self.shared.ask(request, patience).map(|reply| reply.version)
    }

    /// Makes a name a stream that keeps its newest `keep` versions (0: all); with `block` a put into a full one waits.
    ///
    /// # Errors
    /// The name was closed, or it is to wait for room without a bound.
    pub fn stream(&self, name: &str, keep: u32, block: bool) -> Result<(), GuestError> {
        if block && keep == 0 {
            let why =
                "a put cannot wait for room in a stream that keeps all versions: give the number of those to keep";
            return Err(GuestError::Wrong(why.to_owned()));
        }
        let request = NameRequest {
            keep,
            wait: block,
            ..self.about(NameOp::Stream, name)?
        };
        self.shared.ask(request, Patience::Forever).map(drop)
    }

    /// Says that no version of a name follows.
    ///
    /// # Errors
    /// There is no such name.
    pub fn close_name(&self, name: &str) -> Result<(), GuestError> {
        let request = self.about(NameOp::Close, name)?;
        self.shared.ask(request, Patience::Forever).map(drop)
    }

    /// Forgets a name with all its versions.
    ///
    /// # Errors
    /// There is no such name.
    pub fn delete(&self, name: &str) -> Result<(), GuestError> {
        let request = self.about(NameOp::Delete, name)?;
        self.shared.ask(request, Patience::Forever).map(drop)
    }

    /// Follows a name from version `start` on (0: the oldest that is there).
    #[must_use]
    pub fn watch(&self, name: &str, start: u64) -> Watch {
        Watch {
            guest: self.clone(),
            name: name.to_owned(),
            number: self.shared.token(),
            after: start.saturating_sub(1),
        }
    }

    pub(crate) fn about(&self, op: NameOp, name: &str) -> Result<NameRequest, GuestError> {
        if name.is_empty() {
            return Err(GuestError::Wrong(
                "a name has 1 to 256 bytes, this one is empty".to_owned(),
            ));
        }
        Ok(NameRequest {
            token: self.shared.token(),
            op: op.into(),
            name: name.to_owned(),
            ..NameRequest::default()
        })
    }
}

/// A name that is followed.
#[derive(Debug)]
pub struct Watch {
    pub(crate) guest: Guest,
    pub(crate) name: String,
    pub(crate) number: u64,
    /// The version that was taken last.
    pub(crate) after: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.guest.shared.tell(NameRequest {
            op: NameOp::Unwatch.into(),
            name: self.name.clone(),
            about: self.number,
            ..NameRequest::default()
        });
    }
}
