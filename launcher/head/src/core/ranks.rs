//! Gangs: tasks whose attempt is with several agents at once, a part of the ranks with each. Owns what is known of an attempt until
//! its last part has ended; starting ranks is the agents', choosing the agents is the scheduler's.

use super::Core;
use crate::journal::{Event, GangStarted};
use bridgehead_schedule::Shape;
use bridgehead_spec::{RanksSpec, Resources, TaskId};
use bridgehead_wire::{
    EndGang, Failure, FailureCause, GangCall, Map, Outcome, RankFailed, Ranks, RanksAt, RanksBound, Relay, TaskDone,
    Value, outcome,
};
use std::collections::BTreeMap;

/// An attempt that is with agents.
#[derive(Debug)]
pub(super) struct Gang {
    attempt: u32,
    /// All its agents, the one with the first rank first.
    agents: Vec<u32>,
    /// Those whose part has not ended.
    pub(super) open: Vec<u32>,
    /// Slurm's launcher runs all ranks from the first agent; the others only keep room.
    srun: bool,
    /// The first failure, or the cancel, and that every part was told to end.
    end: Option<Outcome>,
    /// What the first rank's agent told.
    first: Option<TaskDone>,
    /// Values of ranks, by agent's place among the agents.
    shards: BTreeMap<usize, Vec<Value>>,
}

/// What the scheduler is asked for.
pub(super) fn shape(ranks: &Ranks) -> Shape {
    Shape {
        least: ranks.least,
        most: ranks.most,
        per_agent: (ranks.per_node > 0).then_some(ranks.per_node),
        spread: ranks.map() == Map::Node,
    }
}

impl Core {
    /// Whether the agents that the run was given could hold a gang.
    pub(super) fn check_width(&self, ranks: Option<&Ranks>, each: &Resources) -> Result<(), String> {
        let Some(ranks) = ranks else { return Ok(()) };
        let spec = RanksSpec::from(ranks);
        let most = spec.most_on(each, self.config.agents.iter().map(|agent| &agent.resources));
        if most >= spec.least {
            return Ok(());
        }
        Err(format!(
            "it needs {} ranks at once, the agents of this run hold {most}: ask for fewer ranks or less for each, or give the run more or larger agents",
            spec.least
        ))
    }

    /// Where the ranks of a task are that the scheduler has just given out; empty for one that is no gang.
    pub(super) fn ranks_of(&self, task: u64) -> Vec<RanksAt> {
        if self.job(task).is_none_or(|job| job.ranks.is_none()) {
            return Vec::new();
        }
        let mut first = 0;
        let parts = self.engine.parts(TaskId(task)).into_iter();
        let at = |(agent, count): (bridgehead_spec::AgentId, u32)| {
            let host = self.agents.get(&agent.0).map(|row| row.host.clone());
            let at = RanksAt {
                agent: agent.0,
                first,
                count,
                host: host.unwrap_or_default(),
            };
            first += count;
            at
        };
        parts.map(at).collect()
    }

    pub(super) fn gang_call(&self, task: u64, nodes: &[RanksAt]) -> Option<GangCall> {
        Some(GangCall {
            ranks: self.job(task)?.ranks?,
            nodes: nodes.to_vec(),
            rank: 0,
        })
    }

    /// The parts of an attempt are about to be handed over.
    pub(super) fn begin_gang(&mut self, task: u64, attempt: u32, ranks: &[RanksAt]) {
        let agents: Vec<u32> = ranks.iter().map(|at| at.agent).collect();
        let gang = Gang {
            attempt,
            open: agents.clone(),
            agents,
            srun: self.job(task).and_then(|job| job.ranks).is_some_and(|ranks| ranks.srun),
            end: None,
            first: None,
            shards: BTreeMap::new(),
        };
        self.gangs.insert(task, gang);
    }

    /// The agents that have the present attempt of a task: `agent` alone, unless it is a gang.
    pub(super) fn agents_of(&self, task: u64, agent: u32) -> Vec<u32> {
        self.gangs
            .get(&task)
            .map_or_else(|| vec![agent], |gang| gang.open.clone())
    }

    /// Bytes from one part to another, which are not read.
    pub(super) fn on_relay(&mut self, from: u32, relay: Relay) {
        let to = relay.agent;
        let gang = self.gangs.get(&relay.task).filter(|gang| gang.attempt == relay.attempt);
        if gang.is_some_and(|gang| gang.open.contains(&from) && gang.open.contains(&to)) {
            self.tell_agent(to, Relay { agent: from, ..relay });
        }
    }

    /// A rank failed: the others are told to end before the news of their end are waited for.
    pub(super) fn on_rank_failed(&mut self, agent: u32, failed: RankFailed) {
        let gang = self.gangs.get(&failed.task);
        if gang.is_some_and(|gang| gang.attempt == failed.attempt && gang.open.contains(&agent)) {
            let failure = failed.failure.unwrap_or_default();
            self.end_parts(failed.task, Outcome::failure(failure));
        }
    }

    /// What the ranks of a part are bound to.
    pub(super) fn on_bound(&mut self, agent: u32, bound: RanksBound) {
        let gang = self.gangs.get(&bound.task);
        if gang.is_some_and(|gang| gang.attempt == bound.attempt && gang.open.contains(&agent)) {
            self.record(Event::GangStarted(GangStarted { agent, bound }));
        }
    }

    /// A part has ended. The task's end is that of its last part.
    pub(super) fn on_part_done(&mut self, agent: u32, mut done: TaskDone) {
        let gang = self
            .gangs
            .get_mut(&done.task)
            .filter(|gang| gang.attempt == done.attempt);
        let Some((gang, at)) =
            gang.and_then(|gang| gang.open.iter().position(|&open| open == agent).map(|at| (gang, at)))
        else {
            return self.take_done(agent, done, false);
        };
        gang.open.swap_remove(at);
        let place = gang.agents.iter().position(|&a| a == agent).unwrap_or(0);
        gang.shards.insert(place, std::mem::take(&mut done.shards));
        let task = done.task;
        let whole = place == 0 && gang.srun && !gang.open.is_empty();
        match done.outcome.as_ref().and_then(|outcome| outcome.kind.as_ref()) {
            Some(outcome::Kind::Value(_)) => {}
            _ => {
                let lacking = || Failure::new(FailureCause::System, "no-outcome", "its agent reported no outcome");
                let end = done.outcome.take().unwrap_or_else(|| Outcome::failure(lacking()));
                self.end_parts(task, end);
            }
        }
        if let Some(gang) = self.gangs.get_mut(&task).filter(|_| place == 0) {
            gang.first = Some(done);
        }
        if whole {
            self.tell_parts_to_end(task, "all its ranks have ended");
        }
        self.close_gang(task);
    }

    /// The first end that is none of success is the gang's; every part is told.
    fn end_parts(&mut self, task: u64, end: Outcome) {
        let Some(gang) = self.gangs.get_mut(&task).filter(|gang| gang.end.is_none()) else {
            return;
        };
        let reason = match &end.kind {
            Some(outcome::Kind::Failure(failure)) => failure.message.clone(),
            Some(outcome::Kind::Cancelled(reason)) => reason.clone(),
            _ => String::new(),
        };
        gang.end = Some(end);
        self.tell_parts_to_end(task, &reason);
    }

    fn tell_parts_to_end(&mut self, task: u64, reason: &str) {
        let Some(gang) = self.gangs.get(&task) else { return };
        let (attempt, open) = (gang.attempt, gang.open.clone());
        for agent in open {
            let reason = reason.to_owned();
            self.tell_agent(agent, EndGang { task, attempt, reason });
        }
    }

    /// Once no part is left the attempt ends as the first failure says, or with the first rank's value, which holds the others' by
    /// then.
    fn close_gang(&mut self, task: u64) {
        if self.gangs.get(&task).is_none_or(|gang| !gang.open.is_empty()) {
            return;
        }
        let Some(gang) = self.gangs.remove(&task) else { return };
        let shards: Vec<Value> = gang.shards.into_values().flatten().collect();
        let agent = gang.agents.first().copied().unwrap_or(0);
        let attempt = gang.attempt;
        let first = gang.first.unwrap_or(TaskDone {
            task,
            attempt,
            ..TaskDone::default()
        });
        let value = first.outcome.clone();
        let (outcome, unused) = match gang.end {
            Some(end) => (Some(end), value),
            None => (value, None),
        };
        if let Some(outcome::Kind::Value(value)) = unused.and_then(|outcome| outcome.kind) {
            self.drop_value(&value);
        }
        self.take_done(agent, TaskDone { outcome, ..first }, true);
        self.drop_shards(&shards); // The array has its own holds by now.
    }

    /// Gives the holds back that came with the values of ranks.
    pub(super) fn drop_shards(&mut self, shards: &[Value]) {
        for object in shards.iter().filter_map(Value::object) {
            self.release(object.id());
        }
    }

    /// An agent is gone. Of the tasks that it had, those are returned that are no gangs or whose last part went with it; of the others
    /// the remaining parts are told to end, and judged when they have.
    pub(super) fn agent_left_gangs(&mut self, agent: u32, reason: &str, held: Vec<TaskId>) -> Vec<TaskId> {
        let (gangs, others): (Vec<TaskId>, Vec<TaskId>) =
            held.into_iter().partition(|task| self.gangs.contains_key(&task.0));
        for task in gangs {
            let Some(gang) = self.gangs.get_mut(&task.0) else {
                continue;
            };
            gang.open.retain(|&open| open != agent);
            let message = format!("agent {agent}, which ran some of its ranks, was lost: {reason}");
            let failure = Failure::new(FailureCause::LostNode, "agent-lost", message);
            self.end_parts(task.0, Outcome::failure(failure));
            self.close_gang(task.0);
        }
        others
    }
}
