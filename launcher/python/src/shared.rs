//! What a worker's loop and its watchdog share: the socket, the calls that wait, the call that runs, what was printed.

use crate::futures::{Answer, Raw, Table, Wanted};
use crate::link::{Link, lock};
use crate::printed::{Below, Measure};
use crate::receive::{Reader, Sink};
use crate::watchdog;
use bridgehead_spec::{RunFolder, running_note};
use bridgehead_wire::{
    AgentToWorker, FrameError, LogText, PutFunction, ReturnedTasks, TaskCall, WorkerConfig, WorkerToAgent,
};
use pyo3::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
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
    pub link: Link,
    pub reader: Reader,
    pub futures: Table,
    pub queue: Mutex<VecDeque<TaskCall>>,
    pub new_functions: Mutex<HashMap<u32, PutFunction>>,
    pub config: Mutex<Option<WorkerConfig>>,
    /// Locked while queued calls are returned, so that the agent hears of them before it hears that this call is done.
    pub current: Mutex<Option<Current>>,
    pub logs: Mutex<Vec<LogText>>,
    pub printed: Mutex<(Option<Below>, Measure)>,
    /// Where the agent finds which call ran when this process died.
    pub note: OnceLock<File>,
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
                answers.push((Wanted::Task(o.token), Raw::new(o.outcome, o.attempts, o.elapsed_ns)));
            }
            AgentToWorker::Fetched(f) => answers.push((Wanted::Fetch(f.token), Raw::new(f.outcome, 1, 0))),
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
        lock(&self.printed).0 = Below::open(&log);
        // Without a note the agent takes the first of its calls for the one that ran.
        if let Some(note) = Path::new(&config.store_socket)
            .parent()
            .map(|dir| running_note(dir, config.worker))
        {
            if let Ok(file) = File::create(note) {
                let _ = self.note.set(file); // A second configuration changes nothing.
            }
        }
        *lock(&self.config) = Some(config);
    }

    /// Says where the agent can read it after this process's death: this call runs, those before it have ended.
    pub fn note_running(&self, task: u64) {
        if let Some(file) = self.note.get() {
            let _ = file.write_at(&task.to_le_bytes(), 0); // A wrong note only blames another call of this worker.
        }
    }

    /// Moves what was printed into the outgoing frames.
    pub fn add_logs(&self) {
        let mut texts = std::mem::take(&mut *lock(&self.logs));
        let mut printed = lock(&self.printed);
        let (below, measure) = &mut *printed;
        if let Some(text) = below.as_mut().and_then(Below::take) {
            let current = lock(&self.current);
            texts.extend(current.as_ref().map(|Current { call, .. }| LogText {
                task: call.task,
                attempt: call.attempt,
                stream: "output".to_owned(),
                text,
            }));
        }
        for text in texts {
            measure.cut(text, |piece| {
                self.add(piece);
            });
        }
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
