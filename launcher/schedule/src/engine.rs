//! The engine's events: what came, what ended, what is gone. Owns the state and its transitions; choosing an agent is
//! `place`'s, agents are `allocation`'s, gangs `gang`'s. Hot path: `submit`, `finished`. Neither ever looks at all agents, all queues or all tasks.

use crate::agents::Agent;
use crate::class::Classes;
use crate::queue::Entry;
use crate::room::{Dimensions, Room};
use crate::shape::Part;
use crate::tasks::{Hold, NONE, Phase, Tasks, index};
use bridgehead_spec::{AgentId, Resources, TaskId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// The scheduler of one allocation.
#[derive(Debug)]
pub struct Engine {
    pub(crate) tasks: Tasks,
    pub(crate) classes: Classes,
    pub(crate) dimensions: Dimensions,
    /// By slot.
    pub(crate) agents: Vec<Option<Agent>>,
    pub(crate) slots: BTreeMap<AgentId, u32>,
    pub(crate) room: Room,
    pub(crate) prefetch: usize,
    /// Where the ranks of each gang are that agents have.
    pub(crate) gangs: BTreeMap<u32, Vec<Part>>,
    /// Classes for each of which an agent, or several, keep free what they ask for.
    pub(crate) reserving: Vec<u32>,
    /// Something came since the last round that could let a task start.
    pub(crate) stirred: bool,
    /// Nothing is given out.
    pub(crate) held_back: bool,
    /// Nanoseconds that are left for tasks which start now.
    pub(crate) remaining_ns: u64,
    /// Most tasks that are with agents at a time, and how many are; those that wait for tasks of their own do not count.
    pub(crate) most: usize,
    pub(crate) busy: usize,
    seq: u32,
    scratch: Vec<(u32, u32)>,
}

impl Engine {
    /// An engine that gives an agent up to `prefetch` small tasks (at most one core, nothing else) beyond what it has room
    /// for, so that the next one is at hand when one ends. It does so only where tasks of that kind have proved short.
    #[must_use]
    pub fn new(prefetch: usize) -> Self {
        Self {
            tasks: Tasks::default(),
            classes: Classes::default(),
            dimensions: Dimensions::default(),
            agents: Vec::new(),
            slots: BTreeMap::new(),
            room: Room::default(),
            prefetch,
            gangs: BTreeMap::new(),
            reserving: Vec::new(),
            stirred: false,
            held_back: false,
            remaining_ns: u64::MAX,
            most: usize::MAX,
            busy: 0,
            seq: 0,
            scratch: Vec::new(),
        }
    }

    /// Nothing is given out from now on; or again what can run.
    pub fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// All tasks will be cut off after `ns`, or never: one whose limit is longer is not given out, nor one without a limit of a
    /// class whose tasks lately took longer.
    pub fn set_remaining(&mut self, ns: Option<u64>) {
        let ns = ns.unwrap_or(u64::MAX);
        let longer = ns > self.remaining_ns;
        self.remaining_ns = ns;
        let kept_in_vain = |&class: &u32| self.classes.get(class).is_late(ns);
        self.stirred |= longer || self.reserving.iter().any(kept_in_vain);
    }

    /// Whether there are tasks that could run, and all of them would be cut off.
    #[must_use]
    pub fn is_late(&self) -> bool {
        let late = |&(_, _, class): &Entry| self.classes.get(class).is_late(self.remaining_ns);
        !self.classes.heads.is_empty() && self.classes.heads.iter().all(late)
    }

    /// Whether no task is at work: all that are with agents wait for tasks of their own.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.busy == 0
    }

    /// No more than `most` tasks are with agents at a time, those given ahead included. One that waits for tasks of its own does
    /// not count, so that these can run.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
        self.stirred = true;
    }

    /// A task is to run once all of `open` have finished; higher priorities go first, then the order of submits. Tasks in
    /// `open` that the engine does not know count as finished. A task that it knows already stays as it is.
    pub fn submit(&mut self, task: TaskId, resources: &Resources, priority: i32, open: &[TaskId]) {
        self.submit_limited(task, resources, 0, priority, open);
    }

    /// As [`Engine::submit`], for a task that is ended after `limit_ns`, or about that; 0: it has no limit.
    pub fn submit_limited(
        &mut self,
        task: TaskId,
        resources: &Resources,
        limit_ns: u64,
        priority: i32,
        open: &[TaskId],
    ) {
        if self.tasks.get(index(task)).is_none() {
            let class = self.classes.intern(resources, limit_ns, &mut self.dimensions);
            self.learn(task, class, priority, open);
        }
    }

    /// A task that was not known comes with a class that may be new.
    pub(crate) fn learn(&mut self, task: TaskId, class: u32, priority: i32, open: &[TaskId]) {
        let id = index(task);
        self.grow_room();
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        let mut waits = 0;
        for &dependency in open {
            let dependency = index(dependency);
            if self.tasks.get(dependency).is_some() {
                self.tasks.link(dependency, id, seq);
                waits += 1;
            }
        }
        self.tasks.learn(id, seq, priority, class).open = waits;
        if waits == 0 {
            self.make_ready(id);
        }
    }

    /// A task that is yet to be given out takes `bytes` that lie at `agent`. Results of tasks that it waits for are counted
    /// by `finished`; this is for those that had finished before it was submitted.
    pub fn input_at(&mut self, task: TaskId, agent: AgentId, bytes: u64) {
        if let (Some(&slot), Some(row)) = (self.slots.get(&agent), self.tasks.get_mut(index(task))) {
            row.vote(slot, bytes);
        }
    }

    /// A task has its value, of `bytes` at its agent, after running for `elapsed_ns`: its dependents may become ready.
    pub fn finished(&mut self, task: TaskId, bytes: u64, elapsed_ns: u64) {
        let id = index(task);
        let Some(row) = self.tasks.get(id) else { return };
        let (agent, class) = (row.agent, row.class);
        self.classes.get_mut(class).learn_pace(elapsed_ns);
        let mut dependents = std::mem::take(&mut self.scratch);
        self.leave(id, &mut dependents);
        for &(dependent, seq) in &dependents {
            let Some(row) = self.tasks.get_mut(dependent) else {
                continue;
            };
            if row.seq != seq {
                continue; // It was abandoned, and its id has another life.
            }
            row.open -= 1;
            if agent != NONE {
                row.vote(agent, bytes);
            }
            if row.open == 0 && row.phase == Phase::Waiting {
                self.make_ready(dependent);
            }
        }
        dependents.clear();
        self.scratch = dependents;
    }

    /// A task will never have a value: it failed for good or is cancelled. It is forgotten, and so are all that wait for it,
    /// directly or not; those are returned, nearest first.
    pub fn abandon(&mut self, task: TaskId) -> Vec<TaskId> {
        let id = index(task);
        let mut lost = Vec::new();
        let mut edges = Vec::new();
        if self.tasks.get(id).is_some() {
            self.leave(id, &mut edges);
        }
        let mut at = 0;
        while at < edges.len() {
            let (dependent, seq) = edges[at];
            at += 1;
            if self.tasks.get(dependent).is_some_and(|row| row.seq == seq) {
                lost.push(TaskId(dependent.into()));
                self.leave(dependent, &mut edges);
            }
        }
        lost
    }

    /// A task that an agent has or had is to run again, ahead of its equals.
    pub fn requeue(&mut self, task: TaskId) {
        let id = index(task);
        let Some(row) = self.tasks.get(id) else { return };
        if matches!(row.phase, Phase::Waiting | Phase::Ready) {
            return;
        }
        self.give_back(id);
        let row = self.tasks.row(id);
        row.phase = Phase::Waiting;
        if row.open == 0 {
            self.make_ready(id);
        }
    }

    /// A task waits for the known task `producer` too, whose value was lost and is being made again. `false` when it is with
    /// an agent (requeue it first if it cannot go on there) or when one of the two is not known.
    pub fn wait_again(&mut self, task: TaskId, producer: TaskId) -> bool {
        let (id, producer) = (index(task), index(producer));
        let Some(row) = self.tasks.get(id) else { return false };
        let (phase, seq) = (row.phase, row.seq);
        let with_agent = matches!(phase, Phase::Held | Phase::Ahead | Phase::Gang);
        if with_agent || id == producer || self.tasks.get(producer).is_none() {
            return false;
        }
        if phase == Phase::Ready {
            self.withdraw(id);
            self.tasks.row(id).phase = Phase::Waiting;
        }
        self.tasks.link(producer, id, seq);
        self.tasks.row(id).open += 1;
        true
    }

    /// A running task waits for tasks of its own, so that what it holds can be used meanwhile; or it goes on. Of a gang the
    /// other ranks go on, so it keeps what it holds.
    pub fn blocked(&mut self, task: TaskId, blocked: bool) {
        let id = index(task);
        let Some(row) = self.tasks.get(id) else { return };
        let (slot, class, phase, hold) = (row.agent, row.class, row.phase, row.hold);
        if !matches!(phase, Phase::Held | Phase::Ahead) || blocked == (hold == Hold::Blocked) {
            return;
        }
        if phase == Phase::Ahead {
            // Its agent began it before another that came ahead: it holds nothing, the other will hold what it gave back.
            self.take_from_ahead(id, slot);
            self.put_held(id, slot);
        }
        let class = &self.classes.list[class as usize];
        let agent = self.agents[slot as usize].as_mut().expect("a task's agent is there");
        match (phase, blocked) {
            (Phase::Held, true) => agent.give(&class.asks),
            (Phase::Held, false) => agent.take(&class.asks),
            _ => {}
        }
        let row = self.tasks.row(id);
        let churned = row.churns(class.small);
        row.hold = if blocked { Hold::Blocked } else { Hold::Resumed };
        if blocked {
            self.busy -= 1;
        } else {
            self.busy += 1;
        }
        agent.churn += i64::from(row.churns(class.small)) - i64::from(churned);
        self.promote(slot);
        self.publish(slot);
        self.stirred = true;
    }

    /// A task has been running for longer than short tasks do: nothing is given ahead on the strength of its end being near.
    pub fn lingers(&mut self, task: TaskId) {
        let Some(row) = self.tasks.get_mut(index(task)) else {
            return;
        };
        let churned = row.phase == Phase::Held && row.churns(self.classes.list[row.class as usize].small);
        row.lingers = matches!(row.phase, Phase::Held | Phase::Ahead);
        if churned {
            let slot = row.agent;
            if let Some(agent) = &mut self.agents[slot as usize] {
                agent.churn -= 1;
            }
            self.publish(slot);
        }
    }

    fn make_ready(&mut self, task: u32) {
        let row = self.tasks.row(task);
        row.phase = Phase::Ready;
        let (class, entry) = (row.class, (Reverse(row.priority), row.seq, task));
        self.classes.push(class, entry);
        self.stirred = true;
    }

    /// Takes a ready task out of its queue.
    pub(crate) fn unqueue(&mut self, task: u32) {
        let row = self.tasks.row(task);
        let (class, entry) = (row.class, (Reverse(row.priority), row.seq, task));
        self.classes.remove(class, entry);
    }

    /// A ready task is not to run (yet): an agent kept free for it may now be used by others.
    fn withdraw(&mut self, task: u32) {
        self.unqueue(task);
        self.stirred = true;
    }

    /// The task ends: what it holds is free, it is forgotten, and its dependents are appended to `dependents`.
    fn leave(&mut self, task: u32, dependents: &mut Vec<(u32, u32)>) {
        if self.tasks.row(task).phase == Phase::Ready {
            self.withdraw(task);
        } else {
            self.give_back(task);
        }
        self.tasks.unlink(task, dependents);
        self.tasks.forget(task);
    }

    /// A task is with its agent no more, if it was with one.
    pub(crate) fn give_back(&mut self, task: u32) {
        let row = self.tasks.row(task);
        let class = &self.classes.list[row.class as usize];
        let (slot, place, hold, phase) = (row.agent, row.place as usize, row.hold, row.phase);
        let churned = row.churns(class.small);
        row.agent = NONE;
        row.hold = Hold::Using;
        row.lingers = false;
        match phase {
            Phase::Held => {
                let agent = self.agents[slot as usize].as_mut().expect("a task's agent is there");
                agent.held.swap_remove(place);
                if let Some(&moved) = agent.held.get(place) {
                    self.tasks.row(moved).place = place as u32;
                }
                agent.churn -= i64::from(churned);
                if hold != Hold::Blocked {
                    agent.give(&class.asks);
                }
            }
            Phase::Ahead => self.take_from_ahead(task, slot),
            Phase::Gang => return self.disband(task),
            _ => return,
        }
        self.busy -= usize::from(hold != Hold::Blocked);
        self.promote(slot);
        self.publish(slot);
        self.stirred = true;
    }

    fn take_from_ahead(&mut self, task: u32, slot: u32) {
        let agent = self.agents[slot as usize].as_mut().expect("a task's agent is there");
        if let Some(at) = agent.ahead.iter().position(|&(waiting, _)| waiting == task) {
            let gone = agent.ahead.remove(at);
            agent.ahead_ns -= gone.map_or(0, |(_, ns)| ns);
        }
    }

    /// Tasks given ahead take what came free, in order.
    pub(crate) fn promote(&mut self, slot: u32) {
        while let Some(agent) = self.agents[slot as usize].as_mut() {
            let Some(&(task, ns)) = agent.ahead.front() else { return };
            let asks = &self.classes.list[self.tasks.row(task).class as usize].asks;
            if !crate::room::fits(asks, &agent.free) {
                return;
            }
            agent.take(asks);
            agent.ahead.pop_front();
            agent.ahead_ns -= ns;
            self.put_held(task, slot);
        }
    }

    /// The task is in its agent's list of those that hold.
    pub(crate) fn put_held(&mut self, task: u32, slot: u32) {
        let agent = self.agents[slot as usize].as_mut().expect("a task's agent is there");
        let row = self.tasks.row(task);
        row.agent = slot;
        row.phase = Phase::Held;
        row.place = u32::try_from(agent.held.len()).expect("an agent holds fewer tasks than there are");
        agent.churn += i64::from(row.churns(self.classes.list[row.class as usize].small));
        agent.held.push(task);
    }
}
