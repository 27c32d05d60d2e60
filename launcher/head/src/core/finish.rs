//! Tasks end: with a value, a failure or a cancel; retries by cause. Hot path: `on_done`, once an attempt.

use super::job::{AUTO_PERSIST, Persist};
use super::{Core, Ending, Submitter};
use crate::journal::{Event, TaskCancelled, TaskFailed, TaskFinished, TaskPersisted};
use crate::state::{End, Phase, cause_index};
use bridgehead_spec::TaskId;
use bridgehead_wire::{Failure, FailureCause, Outcome, Persisted, TaskDone, TaskOutcome, Value, outcome, value};

/// Inline bytes of an Executor's finished tasks that are kept for late users.
const RECENT_BYTES: usize = 64 << 20;
/// And at most so many values.
const RECENT_VALUES: usize = 100_000;

impl Core {
    /// An attempt ended at `agent`. News of an attempt that is not the present one are dropped, with what they hold.
    pub fn on_done(&mut self, agent: u32, done: TaskDone) {
        if self.gangs.contains_key(&done.task) {
            return self.on_part_done(agent, done);
        }
        let current = self
            .state
            .row(done.task)
            .is_some_and(|row| row.phase == Phase::Running && row.attempt == done.attempt && row.agent == agent);
        self.take_done(agent, done, current);
    }

    /// An attempt has ended, as it was told by the one agent that had it or by the last one of its gang.
    pub(super) fn take_done(&mut self, agent: u32, done: TaskDone, current: bool) {
        let kind = done.outcome.and_then(|outcome| outcome.kind);
        if !current {
            if let Some(outcome::Kind::Value(value)) = kind {
                self.drop_value(&value);
            }
            return self.drop_shards(&done.shards);
        }
        if let Some(trace) = &mut self.trace {
            trace.task(done.task, agent, done.worker, done.started_ns, done.elapsed_ns);
        }
        match kind {
            Some(outcome::Kind::Value(value)) => {
                let finished = TaskFinished {
                    task: done.task,
                    attempt: done.attempt,
                    value: None,
                    started_ns: done.started_ns,
                    elapsed_ns: done.elapsed_ns,
                    worker: done.worker,
                };
                self.attempt_finished(agent, finished, value);
            }
            Some(outcome::Kind::Failure(failure)) => self.attempt_failed(done.task, done.attempt, failure),
            Some(outcome::Kind::Cancelled(reason)) => {
                self.give_up(TaskId(done.task));
                self.finish_cancelled(done.task, &reason);
            }
            None => {
                let failure = Failure::new(FailureCause::System, "no-outcome", "its agent reported no outcome");
                self.attempt_failed(done.task, done.attempt, failure);
            }
        }
    }

    pub(super) fn drop_value(&mut self, value: &Value) {
        if let Some(object) = value.object() {
            self.objects.hold(object);
            self.release(object.id());
        }
    }

    fn attempt_finished(&mut self, agent: u32, mut finished: TaskFinished, value: Value) {
        let task = finished.task;
        let Some(job) = self
            .jobs
            .get_mut(usize::try_from(task).unwrap_or(usize::MAX))
            .and_then(Option::take)
        else {
            self.drop_value(&value);
            return;
        };
        let bytes = match &value.kind {
            Some(value::Kind::Stored(object)) => object.len,
            _ => 0,
        };
        // The hold that came with the value is the run's own; each consumer and each listener has one more.
        let object = value.object().cloned();
        if let Some(object) = &object {
            for _ in 0..=job.consumers {
                self.objects.hold(object);
            }
            self.objects.contain(object.id(), &value.refs);
        }
        let journalled = self.config.has_pipeline && job.persist != Persist::Never;
        let elapsed = finished.elapsed_ns;
        let attempts = finished.attempt;
        finished.value = if journalled || object.is_some() {
            Some(value.clone())
        } else {
            None
        };
        self.record(Event::TaskFinished(finished));
        if !journalled && object.is_none() {
            // A resume cannot use it, so the journal need not carry it; consumers of this life take it from the row.
            self.keep_recent(task, &value);
        }
        self.engine.finished(TaskId(task), bytes, elapsed);
        let names_others = !value.refs.is_empty();
        self.drop_inputs(&job);
        self.writer_ended(task, None);
        self.deliver(job.submitter, task, Outcome::value(value), attempts, elapsed);
        self.seek_waiting(task);
        if let Some(object) = object {
            let later = self.pausing.is_some() && job.consumers > 0;
            let wanted = job.persist == Persist::Always
                || (job.persist == Persist::Auto && (job.keep || later || bytes <= AUTO_PERSIST));
            // What names other objects is of no use without them, so it is not written: a resume makes it again.
            if self.config.has_pipeline && wanted && !names_others {
                self.ask_to_persist(task, agent, object);
            } else if !job.keep || !self.config.has_pipeline {
                self.release(object.id());
            }
        }
    }

    /// An agent that has the object writes it to the run folder.
    pub(super) fn ask_to_persist(&mut self, task: u64, agent: u32, object: bridgehead_wire::ObjectRef) {
        self.persisting.insert(task, agent);
        let path = format!("results/{task}.bhv");
        let object = Some(object);
        self.tell_agent(agent, bridgehead_wire::Persist { task, object, path });
    }

    /// Keeps an Executor's inline value for late users, within bounds.
    fn keep_recent(&mut self, task: u64, value: &Value) {
        let len = match &value.kind {
            Some(value::Kind::Inline(bytes)) => bytes.len(),
            _ => 0,
        };
        if let Some(row) = self.state.row_mut(task) {
            row.end = End::Value(value.clone());
        }
        self.recent.push_back((task, len));
        self.recent_bytes += len;
        while self.recent_bytes > RECENT_BYTES || self.recent.len() > RECENT_VALUES {
            let Some((old, len)) = self.recent.pop_front() else {
                break;
            };
            self.recent_bytes -= len;
            if let Some(row) = self.state.row_mut(old) {
                row.end = End::Open;
            }
        }
    }

    /// An agent wrote a result to the run folder, or could not.
    pub fn on_persisted(&mut self, persisted: &Persisted) {
        let task = persisted.task;
        if self.persisting.remove(&task).is_none() {
            return;
        }
        if self.argument_files.contains_key(&task) {
            return self.on_argument_persisted(persisted);
        }
        let released = (!self.kept.contains(&task)).then(|| self.state.row(task)).flatten();
        let released = released.and_then(|row| match &row.end {
            End::Value(value) => value.object().map(bridgehead_wire::ObjectRef::id),
            _ => None,
        });
        if persisted.error.is_empty() {
            let (path, len) = (persisted.path.clone(), persisted.len);
            self.record(Event::TaskPersisted(TaskPersisted { task, path, len }));
        } else {
            tracing::warn!(task, error = %persisted.error, "a result could not be written to the run folder; a resume will run its task again");
        }
        if let Some(id) = released {
            self.release(id); // The run's own hold; consumers and clients have theirs.
        }
    }

    /// An attempt failed: another one if its cause allows, else the task and all that need it fail.
    pub(super) fn attempt_failed(&mut self, task: u64, attempt: u32, failure: Failure) {
        if failure.kind == "object-lost" {
            self.suspect_holders(task);
        }
        let Some(job) = self.job(task) else { return };
        if let Some(reason) = job.cancelling.clone() {
            self.give_up(TaskId(task));
            self.finish_cancelled(task, &reason);
            return;
        }
        if !self.interrupted(task, attempt, &failure) {
            self.attempt_failed_itself(task, attempt, failure);
        }
    }

    /// An attempt could not get one of its objects: the agents at which those lie may be gone without a word.
    fn suspect_holders(&mut self, task: u64) {
        let (Some(job), Some(row)) = (self.job(task), self.state.row(task)) else {
            return;
        };
        let inputs = job.input_tasks().filter_map(|input| match &self.state.row(input)?.end {
            End::Value(value) => value.object().map(bridgehead_wire::ObjectRef::id),
            _ => None,
        });
        let objects: Vec<_> = job
            .objects()
            .iter()
            .map(bridgehead_wire::ObjectRef::id)
            .chain(inputs)
            .collect();
        let places = objects.into_iter().filter_map(|id| self.objects.locate(id));
        let suspects: Vec<u32> = places
            .map(|place| place.node)
            .filter(|&node| node != row.agent)
            .collect();
        self.unreachable.extend(suspects);
    }

    /// Agents from which others could not get an object. Whoever can hear them decides whether they are gone.
    pub fn take_unreachable(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.unreachable)
    }

    /// As [`Core::attempt_failed`], once it is known that nobody else ended the attempt.
    pub(super) fn attempt_failed_itself(&mut self, task: u64, attempt: u32, failure: Failure) {
        let Some(job) = self.job(task) else { return };
        let cause = failure.cause();
        let tried = cause_index(cause)
            .and_then(|i| self.state.row(task).map(|row| u32::from(row.tries[i])))
            .unwrap_or(u32::MAX);
        if tried < job.allowed(cause).min(u16::MAX.into()) && !matches!(self.ending, Ending::Cancel { .. }) {
            tracing::info!(task, attempt, kind = %failure.kind, "attempt failed, trying again");
            let made_again: Vec<u64> = job.input_tasks().filter(|&input| self.job(input).is_some()).collect();
            self.record(Event::TaskFailed(TaskFailed {
                task,
                attempt,
                failure: Some(failure),
                retried: true,
            }));
            self.engine.requeue(TaskId(task));
            for input in made_again {
                self.engine.wait_again(TaskId(task), TaskId(input));
            }
            return;
        }
        self.give_up(TaskId(task));
        self.finish_failed(task, failure);
    }

    /// The task fails for good, and so do those that need it. The scheduler has forgotten `task` already.
    pub(super) fn finish_failed(&mut self, task: u64, failure: Failure) {
        let Some(job) = self.take_job(task) else { return };
        let attempt = self.state.row(task).map_or(0, |row| row.attempt);
        let name = if job.name.is_empty() && job.program.is_none() {
            self.functions.name(job.function).to_owned()
        } else {
            job.name.clone()
        };
        self.names.insert(task, name);
        self.count_failure(&failure);
        self.record(Event::TaskFailed(TaskFailed {
            task,
            attempt,
            failure: Some(failure.clone()),
            retried: false,
        }));
        self.drop_inputs(&job);
        self.writer_ended(task, Some(&failure.message));
        self.deliver(job.submitter, task, Outcome::failure(failure), attempt, 0);
        self.seek_waiting(task);
    }

    /// One failure more than the user allows cancels the rest.
    fn count_failure(&mut self, failure: &Failure) {
        if failure.root.is_some() {
            return; // It is counted where it began.
        }
        self.own_failures += 1;
        if let Some(most) = self.config.max_fails.filter(|&most| self.own_failures > most) {
            self.too_many = Some(most);
        }
    }

    /// The task is cancelled for good. The scheduler has forgotten it already.
    pub(super) fn finish_cancelled(&mut self, task: u64, reason: &str) {
        let Some(job) = self.take_job(task) else { return };
        let attempt = self.state.row(task).map_or(0, |row| row.attempt);
        self.record(Event::TaskCancelled(TaskCancelled {
            task,
            reason: reason.to_owned(),
        }));
        self.drop_inputs(&job);
        self.writer_ended(task, Some(reason));
        self.deliver(job.submitter, task, Outcome::cancelled(reason), attempt, 0);
        self.seek_waiting(task);
    }

    fn take_job(&mut self, task: u64) -> Option<Box<super::Job>> {
        self.drop_from_later(task);
        self.jobs.get_mut(usize::try_from(task).ok()?)?.take()
    }

    /// Gives back what a task that ended held of its arguments and inputs.
    fn drop_inputs(&mut self, job: &super::Job) {
        for object in job.objects() {
            self.release(object.id());
        }
        for input in job.input_tasks().filter(|_| job.holds_inputs) {
            if let Some(producer) = self.job_mut(input) {
                producer.consumers = producer.consumers.saturating_sub(1);
                continue;
            }
            let object = match self.state.row(input).map(|row| &row.end) {
                Some(End::Value(value)) => value.object().map(bridgehead_wire::ObjectRef::id),
                _ => None,
            };
            if let Some(id) = object {
                self.release(id);
            }
        }
    }

    /// Tells whoever wants it how a task ended; a stored value carries one hold for each listener.
    fn deliver(&mut self, to: Submitter, task: u64, outcome: Outcome, attempts: u32, elapsed_ns: u64) {
        let message = |token, for_worker| TaskOutcome {
            token,
            task,
            outcome: Some(outcome.clone()),
            for_worker,
            attempts,
            elapsed_ns,
        };
        match to {
            Submitter::Client(conn, token) => {
                if self.clients.contains_key(&conn) {
                    self.hold_for_client(conn, &outcome);
                    self.tell(conn, message(token, None));
                }
            }
            Submitter::Worker(agent, worker, token) => {
                if self.agents.contains_key(&agent) {
                    if let Some(object) = outcome.object() {
                        self.objects.hold(object);
                    }
                    self.tell_agent(agent, message(token, Some(worker)));
                }
            }
            Submitter::Pipeline => {
                let listeners: Vec<_> = self
                    .clients
                    .iter()
                    .filter(|(_, c)| c.outcomes)
                    .map(|(&conn, _)| conn)
                    .collect();
                for conn in listeners {
                    self.hold_for_client(conn, &outcome);
                    self.tell(conn, message(task, None));
                }
            }
        }
    }

    pub(super) fn hold_for_client(&mut self, conn: super::ConnId, outcome: &Outcome) {
        if let Some(object) = outcome.object() {
            self.objects.hold(object);
            if let Some(client) = self.clients.get_mut(&conn) {
                *client.holds.entry(object.id()).or_insert(0) += 1;
            }
        }
    }
}
