//! Ends: of calls, of workers, of programs, by themselves, by a limit or by a cancel; and the end of the agent.

use super::{Agent, Event};
use crate::calls::{death, oom_kills};
use crate::logs::tail;
use crate::program::Ended;
use crate::reaper::sweep;
use crate::worker::{Given, Worker};
use bridgehead_wire::{Failure, FailureCause, Outcome, Shutdown, TaskCall, TaskDone, TaskStarted};
use std::process::ExitStatus;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Workers have this long to end by themselves.
const GRACE: Duration = Duration::from_millis(500);
/// A call that runs this long is told to the head.
const WORTH_TELLING: Duration = Duration::from_millis(50);

impl Agent {
    pub(super) fn on_done(&mut self, id: u32, mut done: TaskDone) {
        let Some(worker) = self.workers.get_mut(&id) else {
            return;
        };
        let Some(at) = worker.calls.iter().position(|given| given.call.task == done.task) else {
            return;
        };
        let Some(given) = worker.calls.remove(at) else { return };
        done.worker = id;
        done.attempt = given.call.attempt;
        self.tell(done);
        self.end_call(id, at, &given);
    }

    /// The call at place `at` of a worker is over; the next one takes over what it held.
    fn end_call(&mut self, id: u32, at: usize, given: &Given) {
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
        if worker.calls.is_empty() {
            if !blocked {
                self.room.give(&given.holds, &given.devices);
            }
        } else {
            worker.since = Instant::now();
            worker.told = false;
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
                self.queue.push_front(given.call);
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

    /// A worker's socket ended: its process has died or must. A thread waits for it, so that the loop does not.
    pub(super) fn on_worker_gone(&mut self, id: u32, reason: &str) {
        if !reason.is_empty() {
            tracing::warn!(worker = id, reason, "a worker's socket broke");
        }
        let Some(mut child) = self.children.remove(&id) else {
            return;
        };
        let events = self.events.clone();
        std::thread::spawn(move || {
            let until = Instant::now() + GRACE;
            let status = loop {
                match child.try_wait() {
                    Ok(Some(status)) => break Some(status),
                    Ok(None) if Instant::now() < until => std::thread::sleep(Duration::from_millis(1)),
                    _ => {
                        let _ = child.kill(); // It closed its socket and lives on: nobody can reach it any more.
                        break child.wait().ok();
                    }
                }
            };
            let _ = events.send(Event::Exited(id, status));
        });
    }

    pub(super) fn on_worker_exited(&mut self, id: u32, status: Option<ExitStatus>) {
        let Some(mut worker) = self.workers.remove(&id) else {
            return;
        };
        let log = tail(&worker.log, 5);
        if !worker.ready && worker.killed.is_none() {
            let how = status.map_or_else(|| "went away".to_owned(), |s| s.to_string());
            self.on_start_failed(&format!("the worker's interpreter ended at once ({how}): {log}"));
        }
        let Some(first) = worker.calls.pop_front() else { return };
        if !worker.blocked {
            self.room.give(&first.holds, &first.devices);
        }
        for given in std::mem::take(&mut worker.calls).into_iter().rev() {
            self.queue.push_front(given.call);
        }
        let kills = oom_kills();
        let out_of_memory = kills > std::mem::replace(&mut self.oom_kills, kills);
        let outcome = worker
            .killed
            .take()
            .unwrap_or_else(|| death(status, out_of_memory, &log));
        self.finish(id, &first.call, outcome, worker.since);
    }

    fn finish(&self, worker: u32, call: &TaskCall, outcome: Outcome, since: Instant) {
        let elapsed = since.elapsed();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
        self.tell(TaskDone {
            task: call.task,
            attempt: call.attempt,
            outcome: Some(outcome),
            started_ns: nanos(now.saturating_sub(elapsed)),
            elapsed_ns: nanos(elapsed),
            worker,
        });
    }

    pub(super) fn on_program_ended(&mut self, ended: Ended) {
        for text in &ended.logs {
            self.log.add(text);
        }
        let Some(running) = self.running.remove(&ended.task) else {
            return;
        };
        self.cancelled.remove(&ended.task);
        self.room.give(&running.given.holds, &running.given.devices);
        self.tell(TaskDone {
            task: ended.task,
            attempt: ended.attempt,
            outcome: Some(running.killed.unwrap_or(ended.outcome)),
            started_ns: ended.started_ns,
            elapsed_ns: ended.elapsed_ns,
            worker: 0,
        });
    }

    /// Cancels a task wherever it is: waiting here, running, or waiting inside a worker.
    pub(super) fn cancel(&mut self, task: u64, reason: &str) {
        if let Some(at) = self.queue.iter().position(|call| call.task == task) {
            if let Some(call) = self.queue.remove(at) {
                self.report(task, call.attempt, Outcome::cancelled(reason));
            }
            return;
        }
        if let Some(running) = self.running.get_mut(&task) {
            running.killed.get_or_insert_with(|| Outcome::cancelled(reason));
            running.handle.kill();
            return;
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

    pub(super) fn on_tick(&mut self) {
        self.log.flush();
        self.enforce_limits();
        self.tell_started();
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
                let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                let begun = begun.saturating_sub(since.elapsed());
                started.push(TaskStarted {
                    task: call.task,
                    attempt: call.attempt,
                    worker,
                    pid,
                    started_ns: u64::try_from(begun.as_nanos()).unwrap_or(0),
                });
            }
        };
        for (&id, worker) in &mut self.workers {
            let Some(given) = worker.calls.front() else { continue };
            let pid = u32::try_from(worker.pid.as_raw_nonzero().get()).unwrap_or(0);
            note(&given.call, id, pid, worker.since, &mut worker.told);
        }
        for program in self.running.values_mut() {
            note(&program.given.call, 0, 0, program.since, &mut program.told);
        }
        for message in started {
            self.tell(message);
        }
    }

    /// Ends all workers and programs, politely first, and whatever they left behind.
    pub(super) async fn stop_workers(&mut self) {
        for worker in self.workers.values_mut() {
            worker.outbox.push(Shutdown {
                reason: self.stop.clone().unwrap_or_default(),
            });
            worker.outbox.flush();
        }
        for program in self.running.values() {
            program.handle.kill();
        }
        self.log.flush();
        let until = Instant::now() + GRACE;
        while !self.children.is_empty() && Instant::now() < until {
            self.children.retain(|_, child| matches!(child.try_wait(), Ok(None)));
            tokio::time::sleep(Duration::from_millis(1)).await; // The sockets' writers run meanwhile.
        }
        sweep(&self.options.incarnation);
        for (_, mut child) in self.children.drain() {
            let _ = child.wait(); // Killed by the sweep: only to be taken note of.
        }
    }
}
