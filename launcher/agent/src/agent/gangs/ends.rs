//! How ranks end: by themselves, by a failure of one of them, by a limit or a cancel. Owns what of that is the gang's end.

use super::super::ends::{epoch_ns, nanos};
use super::{Agent, GRACE, Part, RankProcess, mpi};
use crate::logs::tail;
use crate::program::Ended;
use crate::spawn::End;
use crate::verdict::{self, death, out_of_memory};
use bridgehead_wire::{
    AgentToHead, Failure, FailureCause, HoldObjects, Outcome, RankFailed, Shutdown, TaskDone, Value, outcome,
};
use std::time::{Duration, Instant};

/// Lines of a rank's log that a failure quotes.
const QUOTED: usize = 8;
/// A rank that its MPI was not heard of by then is looked at.
const SILENCE: Duration = Duration::from_secs(1);

impl Agent {
    /// A rank that is a program has ended.
    pub(in crate::agent) fn on_rank_program_ended(&mut self, rank: u32, ended: Ended) {
        let mut outcome = ended.outcome;
        if super::super::ends::was_killed(&outcome) && self.memory_ran_out() {
            outcome = out_of_memory(outcome);
        }
        let task = ended.task;
        let Some(here) = self.gangs.parts.get_mut(&task).and_then(|part| part.rank(rank)) else {
            return;
        };
        here.process = RankProcess::Ended;
        match outcome.kind {
            Some(outcome::Kind::Value(value)) => here.value = Some(value),
            Some(outcome::Kind::Failure(failure)) => self.fail_rank(task, rank, failure),
            _ => {}
        }
        self.close_if_ended(task);
    }

    /// A rank that is a function has its value, or failed. Its process ends with the others'.
    pub(in crate::agent) fn on_rank_done(&mut self, worker: u32, (task, rank): (u64, u32), done: TaskDone) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.calls.clear();
            let reason = "its rank has ended".to_owned();
            worker.outbox.push(Shutdown { reason, goes_on: false });
        }
        let value = match done.outcome.and_then(|outcome| outcome.kind) {
            Some(outcome::Kind::Value(value)) => value,
            Some(outcome::Kind::Failure(failure)) => return self.fail_rank(task, rank, failure),
            _ => return,
        };
        if !done.shards.is_empty() {
            // The worker's own holds go with its process, before the part's end is told.
            let objects = done.shards.iter().filter_map(Value::object).cloned().collect();
            self.tell(HoldObjects { objects });
        }
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return;
        };
        if let Some(here) = part.rank(rank) {
            here.value = Some(value);
            here.shards = done.shards;
        }
        if part.ranks.iter().all(|rank| rank.value.is_some()) {
            part.settled = Some(Instant::now());
        }
    }

    /// The process of a rank that is a function has ended.
    pub(in crate::agent) fn on_rank_worker_ended(
        &mut self,
        (task, rank): (u64, u32),
        end: Option<End>,
        log: &std::path::Path,
    ) {
        let killed = self.memory_ran_out();
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return;
        };
        let Some(here) = part.rank(rank) else { return };
        here.process = RankProcess::Ended;
        let told = here.value.is_some();
        if !told {
            let outcome = death(end, killed, &tail(log, QUOTED));
            if let Some(outcome::Kind::Failure(failure)) = outcome.kind {
                self.fail_rank(task, rank, failure);
            }
        } else if end.is_some_and(|end| end != End::Code(0)) {
            tracing::warn!(task, rank, end = %end.map_or_else(String::new, |end| end.to_string()), "a rank told its value and did not end well");
        }
        self.close_if_ended(task);
    }

    /// A rank called `MPI_Abort`.
    pub(super) fn on_rank_aborted(&mut self, task: u64, rank: u32, code: i32, message: &str) {
        let words = message.trim();
        let words = if words.is_empty() {
            String::new()
        } else {
            format!(": {words}")
        };
        let mut failure = Failure::new(
            FailureCause::User,
            "mpi-abort",
            format!("it called MPI_Abort with code {code}{words}"),
        );
        failure.exit_code = Some(code);
        self.fail_rank(task, rank, failure);
    }

    /// A rank failed, and the gang with it: the first one is named, the others are ended.
    fn fail_rank(&mut self, task: u64, rank: u32, mut failure: Failure) {
        let host = self.options.host.clone();
        let Some(part) = self.gangs.parts.get(&task) else {
            return;
        };
        if !part.by_srun() {
            failure.message = format!("rank {rank} of {} on {host}: {}", part.size, failure.message);
        }
        self.fail_part(task, failure);
    }

    pub(super) fn fail_part(&mut self, task: u64, failure: Failure) {
        let Some(part) = self.gangs.parts.get_mut(&task).filter(|part| part.end.is_none()) else {
            return; // It ends already, and this came of that.
        };
        part.end = Some(Outcome::failure(failure.clone()));
        let attempt = part.given.call.attempt;
        self.tell(AgentToHead::RankFailed(RankFailed {
            task,
            attempt,
            failure: Some(failure),
        }));
        self.kill_ranks(task);
    }

    /// Ends what runs of a part; one that has not begun is over.
    pub(super) fn kill_ranks(&mut self, task: u64) {
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return;
        };
        part.begun = true;
        for rank in &part.ranks {
            match &rank.process {
                RankProcess::Program(handle) => handle.kill(),
                RankProcess::Worker(id) => {
                    if let Some(worker) = self.workers.get_mut(id) {
                        worker.kill(Outcome::cancelled("its gang ends"));
                    }
                }
                RankProcess::Forking(_) | RankProcess::Ended => {} // One that comes now is ended as it comes.
            }
        }
        self.close_if_ended(task);
    }

    /// Ends all gangs: the agent leaves.
    pub(in crate::agent) fn kill_gangs(&mut self, reason: &str) {
        for task in self.gangs.parts.keys().copied().collect::<Vec<_>>() {
            self.end_part(task, Outcome::cancelled(reason));
        }
    }

    pub(super) fn close_if_ended(&mut self, task: u64) {
        if self
            .gangs
            .parts
            .get(&task)
            .is_some_and(|part| part.begun && part.has_ended())
        {
            self.close_part(task);
        }
    }

    /// The last process of a part has ended: what it held is free, the head is told.
    pub(super) fn close_part(&mut self, task: u64) {
        let Some(mut part) = self.gangs.parts.remove(&task) else {
            return;
        };
        self.gangs.early.remove(&(task, part.given.call.attempt));
        self.dismiss_guests_of(task);
        drop(part.boot.take());
        let _ = std::fs::remove_dir_all(&part.scratch); // One that serves no MPI has none.
        for processor in part.ranks.iter().flat_map(|rank| &rank.processors) {
            self.gangs.bound.remove(processor);
        }
        self.room.give(&part.given.holds, &part.given.devices);
        let shards = part
            .ranks
            .iter_mut()
            .flat_map(|rank| std::mem::take(&mut rank.shards))
            .collect();
        let outcome = match part.end.take() {
            Some(end) => end,
            None => self.value_of(&mut part),
        };
        self.cancelled.remove(&task);
        self.tell_done(TaskDone {
            task,
            attempt: part.given.call.attempt,
            outcome: Some(outcome),
            started_ns: epoch_ns(part.since),
            elapsed_ns: nanos(part.since.elapsed()),
            worker: 0,
            shards,
        });
    }

    /// What a part whose ranks all ended well gives: the first rank's value where that is here.
    fn value_of(&self, part: &mut Part) -> Outcome {
        let served = part.family.is_some();
        if served && !part.is_function() && !part.ranks.iter().any(|rank| rank.joined) {
            return Outcome::failure(mpi::not_mpi(part.size, &part.given.call));
        }
        let Some(first) = part.ranks.first_mut().filter(|_| part.at.first == 0) else {
            return Outcome::value(Value::inline(bytes::Bytes::new()));
        };
        let value = first.value.take().unwrap_or_default();
        match &part.given.call.program {
            Some(program) => verdict::with_outputs(value, program, &self.surroundings.cwd.join(&program.cwd)),
            None => Outcome::value(value),
        }
    }

    /// Ends gangs whose time is over, and those whose ranks do not come to an end.
    pub(in crate::agent) fn watch_gangs(&mut self) {
        let now = Instant::now();
        let late: Vec<u64> = (self.gangs.parts.iter())
            .filter(|(_, part)| part.deadline.is_some_and(|deadline| deadline <= now))
            .map(|(&task, _)| task)
            .collect();
        for task in late {
            self.fail_part(task, self.too_long(task));
        }
        let stuck: Vec<u64> = (self.gangs.parts.iter())
            .filter(|(_, part)| part.settled.is_some_and(|since| since.elapsed() > GRACE))
            .map(|(&task, _)| task)
            .collect();
        for task in stuck {
            tracing::warn!(task, "ranks that told their values did not end and are ended");
            if let Some(part) = self.gangs.parts.get_mut(&task) {
                part.settled = None;
            }
            self.kill_ranks(task);
        }
    }

    fn too_long(&self, task: u64) -> Failure {
        let part = self.gangs.parts.get(&task);
        let limit = Duration::from_millis(part.map_or(0, |part| part.given.call.timeout_ms));
        let missing = part.filter(|part| part.family.is_some()).map(|part| {
            let silent = (part.at.first..).zip(&part.ranks).filter(|(_, rank)| !rank.joined);
            silent.map(|(number, _)| number.to_string()).collect::<Vec<_>>()
        });
        let missing = match missing.unwrap_or_default() {
            silent if silent.is_empty() => String::new(),
            silent => format!(
                "; of the ranks on {}, {} never called MPI_Init",
                self.options.host,
                silent.join(", ")
            ),
        };
        let message = format!("it ran longer than its limit of {limit:?} and all its ranks were ended{missing}");
        Failure::new(FailureCause::Walltime, "timeout", message)
    }

    /// A program that loads another MPI than the one that is served would do the same work in each rank.
    pub(in crate::agent) fn look_for_singletons(&mut self) {
        let mut wrong = Vec::new();
        for (&task, part) in &self.gangs.parts {
            let Some(family) = part
                .family
                .filter(|_| part.size > 1 && !part.is_function() && part.end.is_none())
            else {
                continue;
            };
            let age = part.since.elapsed();
            if age < SILENCE || age > 20 * SILENCE {
                continue;
            }
            for (number, rank) in (part.at.first..).zip(&part.ranks).filter(|(_, rank)| !rank.joined) {
                let RankProcess::Program(handle) = &rank.process else {
                    continue;
                };
                let found = bridgehead_mpi::loaded_by(handle.pid());
                if let Some(found) = found.filter(|found| found.family != family) {
                    wrong.push((task, number, mpi::other_mpi(family, &found)));
                    break;
                }
            }
        }
        for (task, rank, failure) in wrong {
            self.fail_rank(task, rank, failure);
        }
    }
}
