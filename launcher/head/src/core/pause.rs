//! Pauses: the allocation goes before the run has ended, and another attempt is to go on. Owns what is waited for meanwhile and
//! what is written to the run folder first; when an allocation ends is `allocation.rs`'s.

use super::{ConnId, Core, Ending};
use crate::allocation::Allocation;
use crate::journal::{Event, ObjectPersisted, RunPaused, TaskReset};
use crate::state::{End, Phase};
use bridgehead_spec::{ObjectId, PersistSpec, TaskId};
use bridgehead_wire::{Failure, FailureCause, ObjectRef, Persist, Persisted, RunEnd};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// A scheduler that takes an allocation ends its processes in any order: a task that was ended by SIGTERM is not judged
/// before the head would have heard of that too, nanoseconds.
const DOUBT_NS: u64 = 2_000_000_000;
/// A SIGTERM this long before the allocation's end means the end: schedulers look at limits every half minute, nanoseconds.
const NEAR_END_NS: u64 = 60_000_000_000;
const SIGTERM: i32 = 15;
/// Arguments on their way to the run folder are numbered from here, beyond all tasks.
const ARGUMENTS: u64 = 1 << 63;

/// A pause that is under way.
#[derive(Debug)]
pub(super) struct Pausing {
    cause: &'static str,
    message: String,
    /// It comes at this time whatever is still under way.
    until_ns: u64,
    /// Tasks that run are not waited for.
    at_once: bool,
}

/// A task that may have been ended by the one who takes the allocation.
#[derive(Debug)]
pub(super) struct Suspect {
    task: u64,
    attempt: u32,
    failure: Failure,
    until_ns: u64,
}

impl Core {
    /// The allocation that this attempt runs in, if a scheduler lent one.
    pub fn set_allocation(&mut self, allocation: Option<Allocation>) {
        self.allocation = allocation;
    }

    /// No task starts any more. The run is paused when those that run have ended and what is needed later lies in the run
    /// folder, at `until_ns` at the latest.
    pub fn drain(&mut self, cause: &'static str, message: &str, until_ns: u64) {
        self.begin_pause(cause, message, until_ns, false);
    }

    /// The run is paused as soon as what is needed later lies in the run folder, at `until_ns` at the latest; tasks that run
    /// are cut off.
    pub fn stop(&mut self, cause: &'static str, message: &str, until_ns: u64) {
        self.suspects.clear();
        self.begin_pause(cause, message, until_ns, true);
    }

    /// The scheduler says that the allocation is about to end.
    pub fn on_notice(&mut self) {
        let end = self.allocation.and_then(|allocation| allocation.tasks_end_ns());
        self.drain(
            "walltime",
            "the allocation's time is nearly over",
            end.unwrap_or(u64::MAX),
        );
    }

    /// The scheduler takes the allocation now. The head has `grace_ns` to leave.
    pub fn on_taken(&mut self, grace_ns: u64) {
        let until = self.now_ns.saturating_add(grace_ns);
        let end = self.allocation.and_then(|allocation| allocation.end_ns);
        let near = end.is_some_and(|end| end <= self.now_ns.saturating_add(NEAR_END_NS));
        if near || self.pausing.as_ref().is_some_and(|pausing| pausing.cause == "walltime") {
            self.stop("walltime", "the allocation's time is over", until);
        } else {
            self.stop("preempted", "the scheduler took the allocation", until);
        }
    }

    /// Another head took over: nothing of this one counts any more.
    pub fn supersede(&mut self, attempt: u32) {
        if self.is_over() {
            return;
        }
        let message = format!("attempt {attempt} of this run has begun elsewhere: this head was cut off and stops");
        tracing::error!(attempt, "another head took over, this one stops");
        self.superseded = true;
        self.pause("superseded", &message);
    }

    /// Whether another head took over.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.superseded
    }

    /// Whether the run comes to rest before its end.
    #[must_use]
    pub fn is_pausing(&self) -> bool {
        self.pausing.is_some()
    }

    /// What the clock says: how much time is left, and whether the run comes to rest without a word from the scheduler. Called
    /// from time to time.
    pub fn look_at_time(&mut self) {
        self.judge_suspects();
        let Some(allocation) = self.allocation else { return };
        let left = allocation.tasks_end_ns().map(|end| end.saturating_sub(self.now_ns));
        self.engine.set_remaining(left);
        let drains = allocation.drain_ns().is_some_and(|at| at <= self.now_ns);
        if self.pausing.is_none() && (drains || self.is_out_of_time()) {
            self.on_notice();
        }
    }

    /// Whether all that is left takes longer than the allocation has: it would only wait for its own end. Tasks for which even
    /// a whole allocation is too short fail, or each attempt would end like this one.
    fn is_out_of_time(&mut self) -> bool {
        if !self.engine.is_idle() || !self.gang_whole || !self.engine.is_late() {
            return false;
        }
        if !self.began {
            self.fail_too_long();
        }
        self.began
    }

    fn fail_too_long(&mut self) {
        let end = self.allocation.and_then(|allocation| allocation.tasks_end_ns());
        let left_ms = end.map_or(u64::MAX, |end| end.saturating_sub(self.now_ns) / 1_000_000);
        for task in 0..self.jobs.len() as u64 {
            let limit_ms = self.job(task).map_or(0, |job| job.timeout_ms);
            if limit_ms <= left_ms || self.is_later(task) {
                continue;
            }
            let message = format!(
                "it may take {} s, but the allocation has {} s for tasks: give the run more time, or the task a shorter timeout",
                limit_ms.div_ceil(1000),
                left_ms / 1000
            );
            self.give_up(TaskId(task));
            self.finish_failed(task, Failure::new(FailureCause::System, "does-not-fit", message));
        }
    }

    fn begin_pause(&mut self, cause: &'static str, message: &str, until_ns: u64, at_once: bool) {
        if matches!(self.ending, Ending::Cancel { .. } | Ending::Over) {
            return;
        }
        let sooner = |pausing: &Pausing| at_once && !pausing.at_once;
        if !self.pausing.as_ref().is_none_or(sooner) {
            return; // It is under way.
        }
        tracing::info!(cause, message, at_once, "the run comes to rest");
        self.pausing = Some(Pausing {
            cause,
            message: message.to_owned(),
            until_ns,
            at_once,
        });
        self.shown_changed = true;
        self.engine.hold_back(true);
        self.persist_needed();
        self.persist_arguments();
    }

    /// Results that live in stores only and that tasks without an outcome take are written to the run folder.
    fn persist_needed(&mut self) {
        if !self.config.has_pipeline {
            return; // No attempt can go on with it.
        }
        let needed: BTreeSet<u64> = self.jobs.iter().flatten().flat_map(|job| job.input_tasks()).collect();
        for task in needed {
            let Some(object) = self.only_stored(task) else { continue };
            if !self.kept.contains(&task) {
                self.objects.hold(&object); // The run's own hold, given back once it is written.
            }
            self.ask_to_persist(task, object.node, object);
        }
    }

    /// Objects that added tasks without an outcome take are written too, once each: nobody could make them again.
    fn persist_arguments(&mut self) {
        if !self.config.has_pipeline {
            return;
        }
        let asked: HashSet<ObjectId> = self.argument_files.values().copied().collect();
        let news = |object: &ObjectRef| !asked.contains(&object.id()) && !self.state.files.contains_key(&object.id());
        let objects = self.jobs.iter().flatten().flat_map(|job| job.objects()).filter(news);
        let objects: BTreeMap<u128, ObjectRef> = objects.map(|object| (object.id().0, object)).collect();
        for (id, object) in objects {
            let Some(place) = self.objects.locate(object.id()).cloned() else {
                continue;
            };
            let number = ARGUMENTS + self.argument_files.len() as u64;
            self.argument_files.insert(number, object.id());
            self.persisting.insert(number, place.node);
            let path = format!("results/argument-{id:032x}.bhv");
            let agent = place.node;
            let persist = Persist {
                task: number,
                object: Some(place),
                path,
            };
            self.tell_agent(agent, persist);
        }
    }

    /// An agent wrote an argument to the run folder, or could not.
    pub(super) fn on_argument_persisted(&mut self, persisted: &Persisted) {
        let Some(&id) = self.argument_files.get(&persisted.task) else {
            return;
        };
        if !persisted.error.is_empty() {
            tracing::warn!(error = %persisted.error, "an argument could not be written to the run folder; the tasks that take it will fail");
            return;
        }
        let id = ObjectRef::new(id, 0, 0, 0, 0);
        self.record(Event::ObjectPersisted(ObjectPersisted {
            id_hi: id.id_hi,
            id_lo: id.id_lo,
            path: persisted.path.clone(),
            len: persisted.len,
        }));
    }

    fn only_stored(&self, task: u64) -> Option<ObjectRef> {
        let row = self.state.row(task)?;
        if row.phase != Phase::Finished || row.persisted.is_some() || self.persisting.contains_key(&task) {
            return None;
        }
        let spec = self.pipeline.as_ref().and_then(|pipeline| pipeline.task(TaskId(task)));
        if spec.is_some_and(|spec| spec.persist == PersistSpec::Never) {
            return None; // The user would rather have it made again.
        }
        let End::Value(value) = &row.end else { return None };
        self.objects.locate(value.object()?.id()).cloned()
    }

    /// Pauses the run if it is to be, and all that is waited for is done. `true` once, when it does.
    pub(super) fn pause_if_due(&mut self) -> bool {
        if self.pausing.is_none() {
            return false;
        }
        // One that waits for tasks of its own, which cannot start any more, is not waited for.
        let idle = self.engine.is_idle();
        if idle {
            self.persist_arguments(); // Those of tasks that were added meanwhile.
        }
        let Some(pausing) = &self.pausing else { return false };
        let at_rest = (pausing.at_once || idle) && self.persisting.is_empty();
        if !at_rest && self.now_ns < pausing.until_ns {
            return false;
        }
        let (cause, message) = (pausing.cause, pausing.message.clone());
        self.pause(cause, &message);
        true
    }

    fn pause(&mut self, cause: &str, message: &str) {
        self.record(Event::RunPaused(RunPaused {
            cause: cause.to_owned(),
            message: message.to_owned(),
        }));
        self.ending = Ending::Over;
        self.engine.hold_back(true);
        self.tell_end();
    }

    /// Tells every client how the attempt ended.
    pub(super) fn tell_end(&mut self) {
        let Some((phase, message)) = self.state.ended.clone() else {
            return;
        };
        self.end_names();
        self.send_progress();
        let everyone: Vec<ConnId> = self.clients.keys().copied().collect();
        for conn in everyone {
            let (phase, message) = (phase.clone(), message.clone());
            self.tell(conn, RunEnd { phase, message });
        }
    }

    /// Whether an attempt that failed did so because the allocation goes: it is then no failure, and no retry is burnt.
    pub(super) fn interrupted(&mut self, task: u64, attempt: u32, failure: &Failure) -> bool {
        if let Some(pausing) = &self.pausing {
            if !pausing.at_once && failure.cause() != FailureCause::LostNode {
                return false;
            }
            let reason = "it was interrupted: the run comes to rest".to_owned();
            self.record(Event::TaskReset(TaskReset { task, reason }));
            self.engine.requeue(TaskId(task));
            return true;
        }
        let ended = failure.signal == Some(SIGTERM) || failure.exit_code == Some(128 + SIGTERM);
        if self.allocation.is_none() || !ended {
            return false;
        }
        self.suspects.push(Suspect {
            task,
            attempt,
            failure: failure.clone(),
            until_ns: self.now_ns.saturating_add(DOUBT_NS),
        });
        true
    }

    /// Nobody took the allocation, so those whose time of doubt is over failed by themselves.
    fn judge_suspects(&mut self) {
        let now = self.now_ns;
        let judged: Vec<Suspect> = self
            .suspects
            .extract_if(.., |suspect| suspect.until_ns <= now)
            .collect();
        for Suspect {
            task, attempt, failure, ..
        } in judged
        {
            let row = self.state.row(task);
            if row.is_some_and(|row| row.phase == Phase::Running && row.attempt == attempt) {
                self.attempt_failed_itself(task, attempt, failure);
            }
        }
    }
}
