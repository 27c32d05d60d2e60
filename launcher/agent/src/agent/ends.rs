//! Ends: of calls, of workers, of programs, by themselves, by a limit or by a cancel; and the end of the agent.

use super::{Agent, Event};
use crate::calls::{Given, oom_kills};
use crate::logs::tail;
use crate::orphans;
use crate::program::Ended;
use crate::reaper::sweep;
use crate::spawn::End;
use crate::verdict::{death, out_of_memory};
use crate::worker::Worker;
use bridgehead_spec::running_note;
use bridgehead_wire::{
    ArenaUse, Failure, FailureCause, Heartbeat, Outcome, Shutdown, TaskCall, TaskDone, TaskStarted, WorkerToAgent,
};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc::UnboundedReceiver;

/// Workers have this long to end by themselves.
const GRACE: Duration = Duration::from_millis(500);
/// A call that runs this long is told to the head.
const WORTH_TELLING: Duration = Duration::from_millis(50);
/// Lines of a worker's log that a failure quotes.
const QUOTED: usize = 8;

pub(super) fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since the Unix epoch at `then`.
pub(super) fn epoch_ns(then: Instant) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    nanos(now.saturating_sub(then.elapsed()))
}

impl Agent {
    pub(super) fn on_done(&mut self, id: u32, mut done: TaskDone) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if let Some(rank) = worker.rank {
            return self.on_rank_done(id, rank, done);
        }
        let Some(at) = worker.calls.iter().position(|given| given.call.task == done.task) else {
            return;
        };
        let Some(given) = worker.calls.remove(at) else { return };
        done.worker = id;
        done.attempt = given.call.attempt;
        self.tell_done(done);
        self.end_call(id, at, given);
    }

    /// The call at place `at` of a worker is over; the next one takes over what it held.
    fn end_call(&mut self, id: u32, at: usize, given: Given) {
        self.cancelled.remove(&given.call.task);
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if at > 0 {
            return; // It waited behind another one and held nothing.
        }
        let blocked = std::mem::take(&mut worker.blocked);
        worker.slow = false;
        worker.deadline = None;
        worker.since = Instant::now();
        worker.told = false;
        match worker.calls.front_mut() {
            Some(next) => {
                // Both ask for one core; what was given back while the first one waited is taken again, or owed.
                next.devices = given.devices;
                worker.blocked = blocked;
            }
            None if !blocked => self.room.give(&given.holds, &given.devices),
            None => {}
        }
    }

    /// A worker gives back calls that wait in it; they go to the front, in their order.
    pub(super) fn on_returned(&mut self, id: u32, tasks: &[u64]) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        worker.slow = true;
        for task in tasks.iter().rev() {
            // The first one runs; a worker that names it is mistaken.
            let at = worker.calls.iter().skip(1).position(|given| given.call.task == *task);
            if let Some(given) = at.and_then(|at| worker.calls.remove(at + 1)) {
                self.queue.push_front(given.take_back());
            }
        }
    }

    /// A worker's call waits for tasks of its own: what it holds can be used meanwhile.
    pub(super) fn on_blocked(&mut self, id: u32, blocked: bool) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        if !blocked || worker.blocked {
            return; // Going on takes nothing back, so the node is over-committed for that moment rather than stuck.
        }
        let Some(given) = worker.calls.front() else { return };
        worker.blocked = true;
        self.room.give(&given.holds, &given.devices);
    }

    /// A worker's process has ended and all that it said was heard.
    pub(super) fn on_worker_ended(&mut self, id: u32, end: Option<End>, reason: &str) {
        let Some(mut worker) = self.workers.remove(&id) else {
            return;
        };
        self.worker_functions.retain(|&(worker, _), _| worker != id);
        self.forget_asker(id);
        if !reason.is_empty() {
            tracing::warn!(worker = id, reason, "a worker's last words could not be understood");
        }
        if let Some(rank) = worker.rank {
            let _ = std::fs::remove_file(running_note(&self.options.socket_dir, id));
            return self.on_rank_worker_ended(rank, end, &worker.log);
        }
        let log = tail(&worker.log, QUOTED);
        if !worker.ready && worker.killed.is_none() && self.stop.is_none() {
            let how = end.map_or_else(|| "went away".to_owned(), |end| format!("ended with {end}"));
            self.on_start_failed(&format!("the worker's interpreter {how} before it was up: {log}"));
        }
        if let Some(first) = worker.calls.front() {
            if !worker.blocked {
                self.room.give(&first.holds, &first.devices);
            }
        }
        let note = running_note(&self.options.socket_dir, id);
        let running = noted(&note).filter(|_| worker.killed.is_none());
        let _ = std::fs::remove_file(note); // One that never began a call has none.
        // Calls before the one that ran had ended, but their results went down with the process.
        let ended = running.and_then(|task| worker.calls.iter().position(|given| given.call.task == task));
        let unreported: Vec<Given> = worker.calls.drain(..ended.unwrap_or(0)).collect();
        let ended_by_us = worker.killed.take();
        let named = |given: &Given| ended_by_us.as_ref().is_none_or(|(task, _)| *task == given.call.task);
        // A kill that came too late, when its task had ended already, must not hit the next one.
        let first = if worker.calls.front().is_some_and(named) {
            worker.calls.pop_front()
        } else {
            None
        };
        for given in unreported.into_iter().chain(worker.calls.drain(..)).rev() {
            self.queue.push_front(given.take_back());
        }
        if let Some(first) = first {
            let outcome = match ended_by_us {
                Some((_, outcome)) => outcome,
                None => death(end, self.memory_ran_out(), &log),
            };
            self.finish(id, &first.call, outcome, worker.since);
        }
    }

    /// Whether the kernel killed for want of memory since the last time that this was asked.
    pub(super) fn memory_ran_out(&mut self) -> bool {
        let kills = oom_kills();
        kills > std::mem::replace(&mut self.oom_kills, kills)
    }

    fn finish(&mut self, worker: u32, call: &TaskCall, outcome: Outcome, since: Instant) {
        self.cancelled.remove(&call.task);
        self.tell_done(TaskDone {
            task: call.task,
            attempt: call.attempt,
            outcome: Some(outcome),
            started_ns: epoch_ns(since),
            elapsed_ns: nanos(since.elapsed()),
            worker,
            shards: Vec::new(),
        });
    }

    pub(super) fn on_program_ended(&mut self, ended: Ended) {
        let Some(running) = self.running.remove(&ended.task) else {
            return;
        };
        self.dismiss_guests_of(ended.task);
        let next = ended.next.and_then(|task| self.running.get_mut(&task));
        if let Some(next) = next {
            next.ahead = false; // It has taken over what the one before it held: one core.
            next.since = Instant::now();
            self.ahead -= 1;
        } else {
            self.room.give(&running.given.holds, &running.given.devices);
            self.take_back_programs();
        }
        let mut outcome = running.killed.unwrap_or(ended.outcome);
        if was_killed(&outcome) && self.memory_ran_out() {
            outcome = out_of_memory(outcome);
        }
        self.tell_done(TaskDone {
            task: ended.task,
            attempt: ended.attempt,
            outcome: Some(outcome),
            started_ns: ended.started_ns,
            elapsed_ns: ended.elapsed_ns,
            worker: 0,
            shards: Vec::new(),
        });
    }

    /// A thread found nothing ready just before something was laid there: it is given out again in the usual way.
    fn take_back_programs(&mut self) {
        for call in self.programs.withdraw_all().into_iter().rev() {
            if let Some(running) = self.running.remove(&call.task) {
                self.ahead -= 1;
                self.queue.push_front(running.given.take_back());
            }
        }
    }

    /// Cancels a task wherever it is: waiting here, running, or waiting inside a worker.
    pub(super) fn cancel(&mut self, task: u64, reason: &str) {
        if let Some(at) = self.queue.iter().position(|waiting| waiting.call.task == task) {
            if let Some(waiting) = self.queue.remove(at) {
                self.report(&waiting.call, Outcome::cancelled(reason));
            }
            return;
        }
        if let Some(at) = self.backlog.iter().position(|call| call.task == task) {
            if let Some(call) = self.backlog.remove(at) {
                self.report(&call, Outcome::cancelled(reason));
            }
            return;
        }
        if let Some(call) = self.transfers.release(task) {
            return self.report(&call, Outcome::cancelled(reason));
        }
        if self.running.contains_key(&task) {
            return self.cancel_program(task, reason);
        }
        if self.gangs.parts.contains_key(&task) {
            return self.end_part(task, Outcome::cancelled(reason));
        }
        let is_first = |w: &&mut Worker| w.calls.front().is_some_and(|given| given.call.task == task);
        if let Some(worker) = self.workers.values_mut().find(is_first) {
            worker.kill(Outcome::cancelled(reason));
        } else if self
            .workers
            .values()
            .any(|w| w.calls.iter().any(|given| given.call.task == task))
        {
            self.cancelled.insert(task); // It is dropped if its worker gives it back, and too short to matter otherwise.
        }
    }

    fn cancel_program(&mut self, task: u64, reason: &str) {
        if self.programs.withdraw(task) {
            self.ahead -= 1;
            if let Some(running) = self.running.remove(&task) {
                self.report(&running.given.call, Outcome::cancelled(reason));
            }
        } else if let Some(running) = self.running.get_mut(&task) {
            running.killed.get_or_insert_with(|| Outcome::cancelled(reason));
            running.handle.kill();
        }
    }

    pub(super) fn on_tick(&mut self) {
        self.log.flush();
        self.enforce_limits();
        self.watch_gangs();
        self.tell_started();
        self.dismiss_silent_guests();
        if self.beat.elapsed() >= super::BEAT {
            self.beat = Instant::now();
            self.store.trim();
            self.look_for_singletons();
            self.tell(self.figures());
            self.reaper.keep();
            self.reaper.tell(&orphans::living());
        }
    }

    /// How full the store is, and what it has moved.
    fn figures(&self) -> Heartbeat {
        let usage = self.store.usage();
        let moved = self.store.traffic();
        Heartbeat {
            store_used: usage.used,
            store_limit: usage.total,
            store_spilled: usage.spilled,
            local_operations: moved.local.operations,
            local_bytes: moved.local.bytes,
            remote_operations: moved.remote.operations,
            remote_bytes: moved.remote.bytes,
            lent_operations: moved.lent.operations,
            lent_bytes: moved.lent.bytes,
            spill_operations: moved.spilled.operations,
            spill_bytes: moved.spilled.bytes,
            restore_operations: moved.restored.operations,
            restore_bytes: moved.restored.bytes,
            views: moved.views,
            objects: usage.objects as u64,
            gpu_used: usage.on_devices,
            to_gpu_operations: moved.to_device.operations,
            to_gpu_bytes: moved.to_device.bytes,
            from_gpu_operations: moved.from_device.operations,
            from_gpu_bytes: moved.from_device.bytes,
            arenas: self.arenas(),
        }
    }

    fn arenas(&self) -> Vec<ArenaUse> {
        let usage = self.store.usage_by_arena().into_iter();
        let bound = usage.filter_map(|(numa, used, limit)| {
            let numa = numa?;
            let binding = self.store.bindings().iter().find(|binding| binding.numa == numa);
            let refused = binding.and_then(|binding| binding.refused.clone()).unwrap_or_default();
            Some(ArenaUse {
                numa,
                used,
                limit,
                refused,
            })
        });
        bound.collect()
    }

    fn enforce_limits(&mut self) {
        let now = Instant::now();
        let over = |call: &TaskCall| {
            let limit = Duration::from_millis(call.timeout_ms);
            Outcome::failure(Failure::new(
                FailureCause::Walltime,
                "timeout",
                format!("it ran longer than its limit of {limit:?} and was ended"),
            ))
        };
        for worker in self
            .workers
            .values_mut()
            .filter(|w| w.deadline.is_some_and(|d| d <= now))
        {
            worker.deadline = None;
            if let Some(outcome) = worker.calls.front().map(|given| over(&given.call)) {
                worker.kill(outcome);
            }
        }
        for program in self
            .running
            .values_mut()
            .filter(|p| p.deadline.is_some_and(|d| d <= now))
        {
            program.deadline = None;
            program.killed = Some(over(&program.given.call));
            program.handle.kill();
        }
    }

    fn tell_started(&mut self) {
        let mut started = Vec::new();
        let mut note = |call: &TaskCall, worker: u32, pid: u32, since: Instant, told: &mut bool| {
            if !*told && since.elapsed() > WORTH_TELLING {
                *told = true;
                started.push(TaskStarted {
                    task: call.task,
                    attempt: call.attempt,
                    worker,
                    pid,
                    started_ns: epoch_ns(since),
                });
            }
        };
        for (&id, worker) in &mut self.workers {
            let Some(given) = worker.calls.front() else { continue };
            let pid = u32::try_from(worker.pid.as_raw_nonzero().get()).unwrap_or(0);
            note(&given.call, id, pid, worker.since, &mut worker.told);
        }
        for program in self.running.values_mut().filter(|p| !p.ahead) {
            note(
                &program.given.call,
                0,
                program.handle.pid(),
                program.since,
                &mut program.told,
            );
        }
        self.gangs.note_started(&mut note);
        for message in started {
            self.tell(message);
        }
    }

    /// Ends all workers and programs, politely first, and whatever they left behind.
    pub(super) async fn leave(&mut self, events: &mut UnboundedReceiver<Event>) {
        let reason = self
            .stop
            .get_or_insert_with(|| "the agent cannot go on".to_owned())
            .clone();
        self.queue.clear();
        self.backlog.clear();
        self.programs.withdraw_all();
        self.running.retain(|_, program| !program.ahead);
        for program in self.running.values() {
            program.handle.kill();
        }
        self.kill_gangs(&reason);
        for worker in self.workers.values_mut() {
            worker.outbox.push(Shutdown {
                reason: reason.clone(),
                goes_on: false,
            });
            worker.outbox.flush();
            if !worker.calls.is_empty() || !worker.ready {
                worker.kill(Outcome::cancelled(&reason)); // Nobody wants what it does any more.
            }
        }
        self.dismiss_all_guests(&reason);
        let _ = tokio::time::timeout(GRACE, self.gather(events)).await;
        for worker in self.workers.values_mut() {
            worker.kill(Outcome::cancelled(&reason));
        }
        sweep(&self.options.incarnation);
        orphans::end_all();
        // Killed processes end for certain, unless the kernel holds them: those are left to it.
        let _ = tokio::time::timeout(GRACE, self.gather(events)).await;
        self.gangs.stop_forks();
        self.log.flush();
        self.reaper.dismiss();
    }

    /// Takes note of ends until no worker and no program is left.
    async fn gather(&mut self, events: &mut UnboundedReceiver<Event>) {
        while !self.workers.is_empty() || !self.running.is_empty() || !self.gangs.parts.is_empty() {
            let Some(event) = events.recv().await else { return };
            match event {
                // What workers still want is not wanted any more; what they printed and finished is.
                Event::Worker(id, crate::io::FromWorker::Message(message)) => match message {
                    WorkerToAgent::Done(_) | WorkerToAgent::Log(_) => self.on_worker(id, message),
                    _ => {}
                },
                Event::Came(_) | Event::Guest(..) => {} // They have been told to go.
                event => self.on_event(event),
            }
            self.queue.clear();
        }
    }
}

/// The task that a dead worker noted last.
fn noted(note: &Path) -> Option<u64> {
    let bytes = std::fs::read(note).ok()?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

pub(super) fn was_killed(outcome: &Outcome) -> bool {
    use bridgehead_wire::outcome::Kind;
    matches!(&outcome.kind, Some(Kind::Failure(failure)) if failure.signal == Some(libc::SIGKILL))
}
