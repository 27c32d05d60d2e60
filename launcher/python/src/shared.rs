//! What a worker's loop and its watchdog share: the socket, the calls that wait, the call that runs, what was printed.

use crate::futures::{Answer, Raw, Table, Wanted};
use crate::home::Home;
use crate::link::{Link, lock};
use crate::receive::{Reader, Sink};
use crate::watchdog;
use bridgehead_wire::{
    AgentToWorker, FrameError, LogText, PutFunction, ReturnedTasks, TaskCall, WorkerConfig, WorkerToAgent,
};
use pyo3::prelude::*;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
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
            AgentToWorker::Fetched(f) => {
                answers.push((Wanted::Fetch(f.token), Raw::fetched(f.outcome, 1, 0, &self.home)));
            }
            AgentToWorker::Config(config) => {
                self.home
                    .settle(&config.store_socket, config.agent, config.inline_limit);
                *lock(&self.config) = Some(config);
            }
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

    /// Moves what was printed into the outgoing frames.
    pub fn add_logs(&self) {
        let texts = std::mem::take(&mut *lock(&self.logs));
        for text in texts {
            self.add(text);
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
