//! Handing out calls: to idle workers, to new ones, into busy ones; programs to their threads.

use super::{Agent, Event, RunningProgram};
use crate::calls::{Given, Waiting, subtract};
use crate::io::{GRACE, attach};
use crate::spawn::Process;
use crate::worker::{Start, Worker};
use bridgehead_spec::Resources;
use bridgehead_wire::{Failure, FailureCause, Outcome, PutFunction, TaskCall, WorkerConfig};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Starts that fail one after the other before all calls are given up.
const START_TRIES: u32 = 3;
/// Workers beyond the node's cores: for calls that ask for no core, and while others wait for tasks of their own.
const SPARE_WORKERS: usize = 64;

pub(super) fn deadline(call: &TaskCall) -> Option<Instant> {
    (call.timeout_ms > 0).then(|| Instant::now() + Duration::from_millis(call.timeout_ms))
}

/// Calls of one pass that have room but no worker, by the threads that their worker must have.
struct Wanted {
    free: Resources,
    workers: BTreeMap<u64, usize>,
}

impl Wanted {
    fn add(&mut self, waiting: &Waiting) {
        if waiting.asks.fits(&self.free) {
            subtract(&mut self.free, &waiting.asks);
            *self.workers.entry(waiting.threads()).or_insert(0) += 1;
        }
    }
}

impl Agent {
    /// Gives out what can be given out, in order of arrival; what does not fit is passed by.
    pub(super) fn dispatch(&mut self) {
        if self.queue.is_empty() {
            return;
        }
        let mut wanted = None;
        let mut at = 0;
        while let Some(waiting) = self.queue.get(at) {
            if (waiting.small && !self.room.has_core()) || !self.begin(at, &mut wanted) {
                at += 1; // Otherwise the next one has moved up to this place.
            }
        }
        if let Some(wanted) = wanted {
            self.start_wanted(&wanted);
        }
        self.fill();
    }

    /// Begins the call at `at`, if there is room and a worker. `true` when it left the queue.
    fn begin(&mut self, at: usize, wanted: &mut Option<Wanted>) -> bool {
        let waiting = &self.queue[at];
        if self.cancelled.contains(&waiting.call.task) {
            return self.drop_cancelled(at);
        }
        let worker = if waiting.brings_own_process() {
            None
        } else {
            let idle = self.idle_worker(waiting.threads());
            if idle.is_none() {
                let free = || self.room.free().clone();
                let workers = BTreeMap::new();
                wanted
                    .get_or_insert_with(|| Wanted { free: free(), workers })
                    .add(waiting);
                return false;
            }
            idle
        };
        let near = match waiting.asks.gpus {
            0 => Vec::new(),
            _ => self.gpus_of(&waiting.call),
        };
        let Some(devices) = self.room.take(&waiting.asks, &near) else {
            return false;
        };
        let Some(Waiting { mut call, asks, small }) = self.queue.remove(at) else {
            return false;
        };
        call.devices.clone_from(&devices);
        let given = Given {
            call,
            holds: asks,
            devices,
            small,
        };
        match worker {
            Some(worker) => self.give(worker, given),
            None if given.call.gang.is_some() => self.start_part(given),
            None => self.start_program(given),
        }
        true
    }

    fn drop_cancelled(&mut self, at: usize) -> bool {
        let Some(Waiting { call, .. }) = self.queue.remove(at) else {
            return false;
        };
        self.cancelled.remove(&call.task);
        self.report(&call, Outcome::cancelled("cancelled before it started"));
        true
    }

    fn idle_worker(&self, threads: u64) -> Option<u32> {
        let mut idle = self.workers.iter().filter(|(_, w)| w.is_idle() && w.threads == threads);
        idle.next().map(|(&id, _)| id)
    }

    /// Starts as many workers as calls could begin in, less those that are on their way.
    fn start_wanted(&mut self, wanted: &Wanted) {
        let cores = usize::try_from(self.options.resources.cpu_millis.div_ceil(1000)).unwrap_or(usize::MAX);
        for (&threads, &wanted) in &wanted.workers {
            let starting = |w: &&Worker| !w.ready && w.killed.is_none() && w.threads == threads;
            let starting = self.workers.values().filter(starting).count();
            for _ in starting..wanted {
                if self.workers.len() < cores.saturating_add(SPARE_WORKERS) {
                    self.start_worker(threads);
                } else {
                    self.retire_idle(threads);
                }
            }
        }
    }

    fn retire_idle(&mut self, threads: u64) {
        let idle = self.workers.values_mut().find(|w| w.is_idle() && w.threads != threads);
        if let Some(worker) = idle {
            worker.kill(Outcome::cancelled("its worker made room for another"));
        }
    }

    /// Starts a worker; whether it comes up is known when it says so.
    pub(super) fn start_worker(&mut self, threads: u64) {
        let (id, agent) = (self.next_worker, self.options.agent.0);
        let Some(welcome) = &self.welcome else { return };
        self.next_worker += 1;
        let started = self.nursery.start(&Start {
            python: &welcome.python,
            cwd: &self.surroundings.cwd,
            env: &self.surroundings.env,
            folder: &self.options.folder,
            agent,
            worker: id,
            threads,
        });
        let taken = started.and_then(|(process, socket, log)| self.take_in(id, process, socket, log, threads, GRACE));
        if let Err(reason) = taken {
            self.on_start_failed(&reason);
        }
    }

    /// A process has a worker's connection, a worker for any call or one rank of a gang: it is told the run, and listened to. It has
    /// `grace` to end once it has closed its connection.
    pub(super) fn take_in(
        &mut self,
        id: u32,
        process: Process,
        socket: std::os::unix::net::UnixStream,
        log: PathBuf,
        threads: u64,
        grace: Duration,
    ) -> Result<(), String> {
        let pid = process.pid;
        let taken = (self
            .config_of(id)
            .ok_or_else(|| "the run has not begun on this node".to_owned()))
        .and_then(|config| {
            Ok((
                config,
                tokio::net::UnixStream::from_std(socket).map_err(|e| e.to_string())?,
            ))
        });
        let (config, socket) = match taken {
            Ok(taken) => taken,
            Err(reason) => {
                let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
                tokio::task::spawn_local(async move { process.end().await }); // It was just killed.
                return Err(reason);
            }
        };
        let events = self.events.clone();
        let mut outbox = attach(socket, process, grace, move |from| {
            let _ = events.send(Event::Worker(id, from)); // The loop is gone only at the end.
        });
        outbox.push(config);
        self.add_worker(id, pid, outbox, log, threads);
        Ok(())
    }

    /// What a worker or a guest is told first; `None` before the run has begun.
    pub(super) fn config_of(&self, id: u32) -> Option<WorkerConfig> {
        let welcome = self.welcome.as_ref()?;
        Some(WorkerConfig {
            run: welcome.run.clone(),
            agent: self.options.agent.0,
            worker: id,
            store_socket: self.options.store_socket().display().to_string(),
            inline_limit: welcome.inline_limit,
            sys_path: welcome.sys_path.clone(),
            run_dir: self.options.folder.path().display().to_string(),
            allocation_end_ns: welcome.allocation_end_ns,
        })
    }

    fn add_worker(
        &mut self,
        id: u32,
        pid: rustix::process::Pid,
        outbox: crate::io::Outbox,
        log: PathBuf,
        threads: u64,
    ) {
        let worker = Worker {
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
            rank: None,
        };
        self.workers.insert(id, worker);
    }

    /// A worker could not be started: after some tries every call that needs one fails, with the reason.
    pub(super) fn on_start_failed(&mut self, reason: &str) {
        self.failed_starts += 1;
        tracing::error!(reason, tries = self.failed_starts, "a worker did not start");
        if self.failed_starts < START_TRIES {
            return;
        }
        let message = format!("no worker can be started on this node: {reason}");
        let (programs, functions): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(Waiting::brings_own_process);
        self.queue = programs;
        for waiting in functions {
            let failure = Failure::new(FailureCause::System, "no-worker", message.clone());
            self.report(&waiting.call, Outcome::failure(failure));
        }
        self.failed_starts = 0; // Later calls may try again: the reason can pass (a full disk, a missing module).
    }

    pub(super) fn give(&mut self, id: u32, given: Given) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.since = Instant::now();
        worker.deadline = deadline(&given.call);
        worker.told = false;
        worker.slow = false;
        worker.blocked = false;
        send(worker, &self.functions, &given);
        worker.calls.push_back(given);
    }

    /// Small calls that find no room wait inside busy workers and behind programs, so that the next one is at hand when
    /// one ends.
    fn fill(&mut self) {
        while let Some(waiting) = self.queue.front() {
            let program = waiting.brings_own_process();
            if !waiting.small || (program && !self.takes_programs()) {
                return;
            }
            let worker = if program { None } else { self.least_busy() };
            if !program && worker.is_none() {
                return;
            }
            let Some(Waiting { call, asks, small }) = self.queue.pop_front() else {
                return;
            };
            let devices = Vec::new();
            let given = Given {
                call,
                holds: asks,
                devices,
                small,
            };
            match worker.and_then(|id| self.workers.get_mut(&id)) {
                Some(worker) => {
                    send(worker, &self.functions, &given);
                    worker.calls.push_back(given);
                }
                None => self.lay_ahead(given),
            }
        }
    }

    fn least_busy(&self) -> Option<u32> {
        let open = self.workers.iter().filter(|(_, w)| w.takes_more() && w.threads == 1);
        open.min_by_key(|(_, w)| w.calls.len()).map(|(&id, _)| id)
    }

    fn takes_programs(&self) -> bool {
        let lanes = self.running.values().filter(|p| !p.ahead && p.given.small).count();
        self.ahead < lanes * crate::worker::DEPTH
    }

    fn start_program(&mut self, given: Given) {
        let around = self.surroundings.clone();
        let handle = self.programs.start(given.call.clone(), given.small, around);
        let running = RunningProgram {
            deadline: deadline(&given.call),
            handle,
            since: Instant::now(),
            ahead: false,
            told: false,
            killed: None,
            given,
        };
        self.running.insert(running.given.call.task, running);
    }

    fn lay_ahead(&mut self, given: Given) {
        self.ahead += 1;
        let running = RunningProgram {
            handle: self.programs.ahead(given.call.clone(), self.surroundings.clone()),
            since: Instant::now(),
            deadline: None,
            ahead: true,
            told: false,
            killed: None,
            given,
        };
        self.running.insert(running.given.call.task, running);
    }
}

/// Sends a call, and before it the function if the worker does not know it.
fn send(worker: &mut Worker, functions: &HashMap<u32, PutFunction>, given: &Given) {
    let function = given.call.function;
    if !worker.knows.contains(&function) {
        if let Some(put) = functions.get(&function) {
            worker.outbox.push(put.clone());
            worker.knows.insert(function);
        }
    }
    let mut call = given.call.clone();
    if given.small {
        call.resources = None; // One core is what a worker takes for granted.
    }
    worker.outbox.push(call);
}
