//! What a worker's loop and its watchdog share: the socket, the calls that wait, the call that runs, what was printed.

use crate::futures::{Answer, Raw, Table, Wanted};
use crate::home::Home;
use crate::note::Note;
use crate::printed::Printed;
use crate::receive::{Reader, Sink};
use crate::watchdog;
use bridgehead_guest::link::{Link, lock};
use bridgehead_spec::RunFolder;
use bridgehead_wire::{
    AgentToWorker, FrameError, LogText, PutFunction, ReturnedTasks, TaskCall, WorkerConfig, WorkerToAgent,
};
use pyo3::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// The call that runs.
#[derive(Debug)]
pub struct Current {
    pub call: TaskCall,
    pub since: Instant,
    pub started_ns: u64,
}

/// What the loop and the watchdog share.
#[derive(Debug)]
pub struct Shared {
    pub link: Arc<Link>,
    pub home: Arc<Home>,
    pub reader: Reader,
    pub futures: Table,
    pub queue: Mutex<VecDeque<TaskCall>>,
    pub new_functions: Mutex<HashMap<u32, PutFunction>>,
    pub config: Mutex<Option<WorkerConfig>>,
    /// Locked while queued calls are returned, so that the agent hears of them before it hears that this call is done.
    pub current: Mutex<Option<Current>>,
    pub logs: Mutex<Vec<LogText>>,
    pub printed: Mutex<Printed>,
    /// Where the agent finds which call ran when this process died.
    pub note: OnceLock<Note>,
    pub stop: AtomicBool,
    pub watchdog: watchdog::Parking,
}

impl Sink for Shared {
    fn take(&self, kind: u16, body: &[u8], answers: &mut Vec<Answer>) -> Result<(), FrameError> {
        match AgentToWorker::decode(kind, body)? {
            AgentToWorker::Call(call) => lock(&self.queue).push_back(call),
            AgentToWorker::PutFunction(put) => {
                lock(&self.new_functions).insert(put.index, put);
            }
            AgentToWorker::Outcome(o) => {
                answers.push((
                    Wanted::Task(o.token),
                    Raw::received(o.outcome, o.attempts, o.elapsed_ns, &self.home),
                ));
            }
            AgentToWorker::Fetched(f) => answers.push(self.futures.fetched(f, &self.home)),
            AgentToWorker::Placed(p) => answers.push((Wanted::Placed(p.token), Raw::placed(p, &self.home))),
            AgentToWorker::Name(n) => answers.push((Wanted::Name(n.token), Raw::named(n, &self.home))),
            AgentToWorker::Config(config) => self.configure(config),
            AgentToWorker::Shutdown(_) => self.stop.store(true, Ordering::SeqCst),
        }
        Ok(())
    }
}

impl Shared {
    /// Gives queued calls back to the agent if the call that runs has been running for `at_least`. `true` if it has.
    pub fn return_queued(&self, at_least: Duration) -> bool {
        let current = lock(&self.current);
        let slow = current.as_ref().is_some_and(|c| c.since.elapsed() >= at_least);
        if slow {
            let tasks: Vec<u64> = lock(&self.queue).drain(..).map(|call| call.task).collect();
            if !tasks.is_empty() {
                self.add(ReturnedTasks { tasks });
            }
        }
        slow
    }

    fn configure(&self, config: WorkerConfig) {
        let log = RunFolder::new(&config.run_dir).worker_log(config.agent, config.worker);
        lock(&self.printed).follow(&log);
        self.home
            .settle(&config.store_socket, config.agent, config.inline_limit);
        match Note::open(&config) {
            Ok(note) => drop(self.note.set(note)), // A second configuration changes nothing.
            // Without a note the agent takes the first of its calls for the one that ran.
            Err(error) => eprintln!("cannot note which task runs: {error}"),
        }
        self.home
            .settle(&config.store_socket, config.agent, config.inline_limit);
        *lock(&self.config) = Some(config);
    }

    /// Says where the agent can read it after this process's death: this call runs, those before it have ended.
    pub fn note_running(&self, task: u64) {
        if let Some(note) = self.note.get() {
            note.set(task);
        }
    }

    /// Moves what the running call printed into the outgoing frames.
    pub fn add_logs(&self) {
        let texts = std::mem::take(&mut *lock(&self.logs));
        let current = lock(&self.current)
            .as_ref()
            .map(|c| (c.call.task, c.call.attempt, c.since.elapsed()));
        let Some((task, attempt, elapsed)) = current else {
            return;
        };
        lock(&self.printed).add(texts, (task, attempt), elapsed, |text| {
            self.add(text);
        });
    }

    /// Moves what calls printed past Python and was not looked for when they ended into the outgoing frames.
    pub fn add_late_logs(&self) {
        lock(&self.printed).add_late(|text| {
            self.add(text);
        });
    }

    /// Adds a message to what is sent next; how long the oldest unsent one has been waiting.
    pub fn add(&self, message: impl Into<WorkerToAgent>) -> Duration {
        let message = message.into();
        self.link.add(|out| message.encode(out))
    }

    /// Hands answers to their futures.
    ///
    /// # Errors
    /// A future's own code raised.
    pub fn deliver(&self, py: Python<'_>, answers: Vec<Answer>) -> PyResult<()> {
        let result = self.futures.complete(py, answers);
        self.reader.delivered();
        result
    }
}
