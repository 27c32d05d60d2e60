//! Handing out calls: to idle workers, to new ones, into busy ones; programs to their threads.

use super::{Agent, Event, RunningProgram};
use crate::calls::{asks, may_queue, threads};
use crate::io::attach;
use crate::worker::{Given, Start, Worker, start};
use bridgehead_wire::{Failure, FailureCause, Outcome, PutFunction, TaskCall, WorkerConfig};
use rustix::process::Pid;
use std::collections::{HashSet, VecDeque};
use std::time::{Duration, Instant};

/// Starts that fail one after the other before all calls are given up.
const START_TRIES: u32 = 3;
/// Workers beyond the node's cores: for calls that ask for no core, and while others wait for tasks of their own.
const SPARE_WORKERS: usize = 64;

fn deadline(call: &TaskCall) -> Option<Instant> {
    (call.timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(call.timeout_ms))
}

impl Agent {
    pub(super) fn on_call(&mut self, call: TaskCall) {
        self.queue.push_back(call);
    }

    /// Gives out what can be given out, in order of arrival; what does not fit is passed by.
    pub(super) fn dispatch(&mut self) {
        let mut at = 0;
        while at < self.queue.len() {
            if !self.room.has_core() && may_queue(&self.queue[at]) {
                break; // The same holds for all small calls behind it.
            }
            if self.begin(at) {
                continue; // The next one moved up to this place.
            }
            at += 1;
        }
        self.fill_busy_workers();
    }

    /// Begins the call at `at`, if there is room and a worker. `true` when it left the queue.
    fn begin(&mut self, at: usize) -> bool {
        let call = &self.queue[at];
        if self.cancelled.contains(&call.task) {
            return self.drop_cancelled(at);
        }
        let is_program = call.program.is_some();
        let wants = threads(call);
        let worker = if is_program { None } else { self.idle_worker(wants) };
        if !is_program && worker.is_none() {
            self.want_worker(at, wants);
            return false;
        }
        let holds = asks(&self.queue[at]);
        let Some(devices) = self.room.take(&holds) else {
            return false;
        };
        let Some(mut call) = self.queue.remove(at) else {
            return false;
        };
        call.devices.clone_from(&devices);
        let given = Given { call, holds, devices };
        match worker {
            Some(worker) => self.give(worker, given),
            None => self.start_program(given),
        }
        true
    }

    fn drop_cancelled(&mut self, at: usize) -> bool {
        let Some(call) = self.queue.remove(at) else {
            return false;
        };
        self.cancelled.remove(&call.task);
        self.report(
            call.task,
            call.attempt,
            Outcome::cancelled("cancelled before it started"),
        );
        true
    }

    fn idle_worker(&self, wants: u64) -> Option<u32> {
        self.workers
            .iter()
            .find(|(_, w)| w.is_idle() && w.threads == wants)
            .map(|(&id, _)| id)
    }

    /// Starts a worker for the call at `at` unless enough are on their way, or fails all calls if none can be started.
    fn want_worker(&mut self, at: usize, wants: u64) {
        if self.welcome.is_none() || !asks(&self.queue[at]).fits(&self.options.resources) {
            return;
        }
        let starting = self.workers.values().filter(|w| !w.ready && w.killed.is_none()).count();
        let cores = usize::try_from(self.options.resources.cpu_millis.div_ceil(1000)).unwrap_or(usize::MAX);
        let busy = self.workers.values().filter(|w| w.ready && !w.calls.is_empty()).count();
        if starting > at || (starting + busy >= cores.max(1) && self.room.has_core() && starting > 0) {
            return;
        }
        if self.workers.len() >= cores.saturating_add(SPARE_WORKERS) {
            self.retire_idle(wants);
            return;
        }
        self.start_worker(wants);
    }

    fn retire_idle(&mut self, wants: u64) {
        let idle = self.workers.values_mut().find(|w| w.is_idle() && w.threads != wants);
        if let Some(worker) = idle {
            worker.kill(Outcome::cancelled("its worker made room for another"));
        }
    }

    pub(super) fn start_worker(&mut self, threads: u64) {
        let Some(welcome) = &self.welcome else { return };
        if self.failed_starts >= START_TRIES {
            return;
        }
        let id = self.next_worker;
        self.next_worker += 1;
        let agent = self.options.agent.0;
        let (folder, incarnation) = (&self.options.folder, self.options.incarnation.as_str());
        let started = start(&Start {
            welcome,
            folder,
            agent,
            worker: id,
            incarnation,
            threads,
        });
        let (child, socket, log) = match started {
            Ok(started) => started,
            Err(reason) => return self.on_start_failed(&reason),
        };
        let socket = match tokio::net::UnixStream::from_std(socket) {
            Ok(socket) => socket,
            Err(e) => return self.on_start_failed(&e.to_string()),
        };
        let events = self.events.clone();
        let outbox = attach(socket, move |from| {
            let _ = events.send(Event::Worker(id, from)); // The loop is gone only at the end.
        });
        let pid = i32::try_from(child.id())
            .ok()
            .and_then(Pid::from_raw)
            .expect("a child has a process id");
        let config = WorkerConfig {
            run: welcome.run.clone(),
            agent,
            worker: id,
            store_socket: self
                .options
                .socket_dir
                .join(format!("store-{agent}.sock"))
                .display()
                .to_string(),
            inline_limit: welcome.inline_limit,
            sys_path: welcome.sys_path.clone(),
            run_dir: welcome.run_dir.clone(),
        };
        let mut worker = Worker {
            pid,
            outbox,
            log,
            threads,
            ready: false,
            knows: HashSet::new(),
            calls: VecDeque::new(),
            since: Instant::now(),
            deadline: None,
            told: false,
            blocked: false,
            slow: false,
            killed: None,
        };
        worker.outbox.push(config);
        self.workers.insert(id, worker);
        self.children.insert(id, child);
    }

    /// A worker could not be started: after some tries every call that needs one fails, with the reason.
    pub(super) fn on_start_failed(&mut self, reason: &str) {
        self.failed_starts += 1;
        tracing::error!(reason, tries = self.failed_starts, "a worker did not start");
        if self.failed_starts < START_TRIES {
            return;
        }
        let message = format!("no worker can be started on this node: {reason}");
        let (programs, functions): (VecDeque<_>, VecDeque<_>) =
            self.queue.drain(..).partition(|call| call.program.is_some());
        self.queue = programs;
        for call in functions {
            let failure = Failure::new(FailureCause::System, "no-worker", message.clone());
            self.report(call.task, call.attempt, Outcome::failure(failure));
        }
        self.failed_starts = 0; // Later calls may try again: the reason can pass (a full disk, a missing module).
    }

    fn give(&mut self, id: u32, given: Given) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.since = Instant::now();
        worker.deadline = deadline(&given.call);
        worker.told = false;
        worker.slow = false;
        worker.blocked = false;
        send(worker, &self.functions, given.call.clone());
        worker.calls.push_back(given);
    }

    /// Small calls that find no room wait inside busy workers, so that the next one is at hand when one ends.
    fn fill_busy_workers(&mut self) {
        while self.queue.front().is_some_and(may_queue) {
            let least = self
                .workers
                .values_mut()
                .filter(|w| w.takes_more() && w.threads == 1)
                .min_by_key(|w| w.calls.len());
            let Some(worker) = least else { return };
            let Some(call) = self.queue.pop_front() else { return };
            send(worker, &self.functions, call.clone());
            let holds = asks(&call);
            worker.calls.push_back(Given {
                call,
                holds,
                devices: Vec::new(),
            });
        }
    }

    fn start_program(&mut self, given: Given) {
        let handle = self
            .programs
            .start(given.call.clone(), self.surroundings.clone(), self.running.len());
        let deadline = deadline(&given.call);
        let task = given.call.task;
        let running = RunningProgram {
            given,
            handle,
            since: Instant::now(),
            deadline,
            told: false,
            killed: None,
        };
        self.running.insert(task, running);
    }
}

/// Sends a call, and before it the function if the worker does not know it.
fn send(worker: &mut Worker, functions: &std::collections::HashMap<u32, PutFunction>, call: TaskCall) {
    if worker.knows.insert(call.function) {
        if let Some(put) = functions.get(&call.function) {
            worker.outbox.push(put.clone());
        }
    }
    worker.outbox.push(call);
}
