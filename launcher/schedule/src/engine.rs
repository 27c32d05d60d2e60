//! The engine: who runs where, decided event by event.
//!
//! Each class of equal requests has a queue and a list of agents that may have room; an agent enters the lists when room
//! comes free and is checked when taken, so that neither submitting nor finishing ever scans agents or queues.

use crate::agents::Agent;
use crate::class::{Class, Classes};
use crate::tasks::{NONE, Phase, Tasks, index};
use bridgehead_spec::{AgentId, Resources, TaskId};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// A class whose head could not be placed while this many others were gets an agent kept free for it.
const PATIENCE: u32 = 256;

/// Whether an agent can take a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    /// It has what the task asks for.
    Now,
    /// It may be given it ahead of time.
    Ahead,
    /// Neither.
    None,
}

/// The scheduler of one allocation.
#[derive(Debug)]
pub struct Engine {
    pub(crate) tasks: Tasks,
    pub(crate) classes: Classes,
    pub(crate) agents: BTreeMap<u32, Agent>,
    pub(crate) prefetch: usize,
    seq: u32,
    scratch: Vec<u32>,
}

impl Engine {
    /// An engine that gives an agent up to `prefetch` small tasks beyond what it has room for, so that the next one is at
    /// hand when one ends.
    #[must_use]
    pub fn new(prefetch: usize) -> Self {
        Self {
            tasks: Tasks::default(),
            classes: Classes::default(),
            agents: BTreeMap::new(),
            prefetch,
            seq: 0,
            scratch: Vec::new(),
        }
    }

    /// An agent with `total` to give is there.
    pub fn agent_joined(&mut self, agent: AgentId, total: Resources) {
        self.agents.insert(agent.0, Agent::new(total));
        self.offer(agent.0);
    }

    /// An agent is gone. Returns the tasks that it had; each is to be requeued, failed or cancelled by the caller.
    pub fn agent_lost(&mut self, agent: AgentId) -> Vec<TaskId> {
        let Some(gone) = self.agents.remove(&agent.0) else {
            return Vec::new();
        };
        for class in &mut self.classes.list {
            class.candidates.retain(|&candidate| candidate != agent.0);
        }
        let mut tasks: Vec<u32> = gone.held.into_iter().chain(gone.prefetched).collect();
        tasks.sort_unstable();
        for &task in &tasks {
            let row = self.tasks.entry(task);
            row.phase = Phase::Waiting;
            row.agent = NONE;
            row.blocked = false;
        }
        tasks.into_iter().map(|task| TaskId(task.into())).collect()
    }

    /// A task is to run once all of `open` have finished. Tasks in `open` that the engine does not know count as finished.
    pub fn submit(&mut self, task: TaskId, resources: &Resources, priority: i32, open: &[TaskId]) {
        let (class, new) = self.classes.intern(resources);
        if new {
            self.open_class(class);
        }
        let id = index(task);
        let seq = self.seq;
        self.seq = self.seq.wrapping_add(1);
        let row = self.tasks.entry(id);
        row.seq = seq;
        row.priority = priority;
        row.class = class;
        row.phase = Phase::Waiting;
        row.open = 0;
        row.agent = NONE;
        row.prefers = NONE;
        row.prefers_bytes = 0;
        for &dependency in open {
            let dependency = index(dependency);
            if self
                .tasks
                .get(dependency)
                .is_some_and(|row| row.phase != Phase::Unknown)
            {
                self.tasks.link(dependency, id);
                self.tasks.entry(id).open += 1;
            }
        }
        if self.tasks.entry(id).open == 0 {
            self.make_ready(id);
        }
    }

    /// A task has its value, of `bytes` at its agent: its dependents may become ready.
    pub fn finished(&mut self, task: TaskId, bytes: u64) {
        let id = index(task);
        let agent = self.tasks.get(id).map_or(NONE, |row| row.agent);
        self.leave(id);
        let mut dependents = std::mem::take(&mut self.scratch);
        self.tasks.unlink(id, &mut dependents);
        for &dependent in &dependents {
            let Some(row) = self.tasks.get_mut(dependent) else {
                continue;
            };
            if row.phase != Phase::Waiting {
                continue;
            }
            if bytes > row.prefers_bytes {
                row.prefers_bytes = bytes;
                row.prefers = agent;
            }
            row.open -= 1;
            if row.open == 0 {
                self.make_ready(dependent);
            }
        }
        dependents.clear();
        self.scratch = dependents;
    }

    /// A task will never have a value. Returns all that wait for it, directly or not, nearest first; they are forgotten too.
    pub fn abandon(&mut self, task: TaskId) -> Vec<TaskId> {
        let mut lost = vec![index(task)];
        let mut at = 0;
        while at < lost.len() {
            let id = lost[at];
            at += 1;
            let known = self.tasks.get(id).is_some_and(|row| row.phase != Phase::Unknown);
            if known {
                self.leave(id);
                self.tasks.unlink(id, &mut lost);
            }
        }
        let mut seen = std::collections::HashSet::new();
        lost.into_iter()
            .skip(1)
            .filter(|&id| seen.insert(id))
            .map(|id| TaskId(id.into()))
            .collect()
    }

    /// A task that an agent had is to run again, ahead of its equals.
    pub fn requeue(&mut self, task: TaskId) {
        let id = index(task);
        if self.tasks.get(id).is_none_or(|row| row.phase == Phase::Unknown) {
            return;
        }
        let row = self.tasks.entry(id);
        let (class, open) = (row.class, row.open);
        self.give_back(id);
        let row = self.tasks.entry(id);
        row.class = class;
        row.phase = Phase::Waiting;
        if open == 0 {
            self.make_ready(id);
        }
    }

    /// A task that was given out or is ready waits for `producer` again, whose value was lost.
    pub fn wait_again(&mut self, task: TaskId, producer: TaskId) {
        let (id, producer) = (index(task), index(producer));
        let waits = self
            .tasks
            .get(id)
            .is_some_and(|row| matches!(row.phase, Phase::Waiting | Phase::Ready));
        if waits {
            self.tasks.link(producer, id);
            let row = self.tasks.entry(id);
            row.phase = Phase::Waiting; // Its entry in the queue is skipped when met.
            row.open += 1;
        }
    }

    /// A running task waits for tasks of its own (or goes on): what it holds can be used meanwhile.
    pub fn blocked(&mut self, task: TaskId, blocked: bool) {
        let id = index(task);
        let Some(row) = self.tasks.get_mut(id) else { return };
        if row.phase != Phase::Held || row.blocked == blocked || !blocked {
            return; // Going on takes nothing back: the task ends soon, and a second wait is free as well.
        }
        row.blocked = true;
        let (agent, class) = (row.agent, row.class);
        if let Some(agent) = self.agents.get_mut(&agent) {
            agent.give(&self.classes.list[class as usize].resources);
        }
        self.promote(agent);
        self.offer(agent);
    }

    /// Gives out what can run, as (task, agent), until nothing fits.
    pub fn schedule(&mut self, out: &mut Vec<(TaskId, AgentId)>) {
        let mut order: Vec<(i32, u16)> = Vec::new();
        for class in 0..self.classes.list.len() {
            if let Some(&(priority, ..)) = self.classes.list[class].ready.peek() {
                order.push((-priority, u16::try_from(class).unwrap_or(u16::MAX)));
            }
        }
        order.sort_unstable();
        for (_, class) in order {
            let before = out.len();
            while let Some(task) = self.next_ready(class) {
                let Some(agent) = self.room_for(class, task) else { break };
                self.classes.list[class as usize].ready.pop();
                self.place(task, class, agent);
                out.push((TaskId(task.into()), AgentId(agent)));
            }
            let placed = u32::try_from(out.len() - before).unwrap_or(u32::MAX);
            self.settle_patience(class, placed);
        }
    }

    /// The head of a queue; entries that are no longer ready are dropped.
    fn next_ready(&mut self, class: u16) -> Option<u32> {
        let queue = &mut self.classes.list[class as usize].ready;
        while let Some(&(_, Reverse(seq), task)) = queue.peek() {
            let live = self
                .tasks
                .get(task)
                .is_some_and(|row| row.phase == Phase::Ready && row.seq == seq);
            if live {
                return Some(task);
            }
            queue.pop();
        }
        None
    }

    /// An agent for `task`: the one that holds most of its inputs if it has room, else the next one that has.
    fn room_for(&mut self, class: u16, task: u32) -> Option<u32> {
        let prefers = self.tasks.get(task).map_or(NONE, |row| row.prefers);
        if prefers != NONE && self.has_room(prefers, class) {
            return Some(prefers);
        }
        let mut ahead = None;
        // Those that could only take it ahead of time are turned over once: another may have room now.
        for _ in 0..self.classes.list[class as usize].candidates.len() {
            let candidate = *self.classes.list[class as usize].candidates.front()?;
            match self.room(candidate, class) {
                Room::Now => {
                    self.classes.list[class as usize].candidates.rotate_left(1);
                    return Some(candidate);
                }
                Room::Ahead => {
                    self.classes.list[class as usize].candidates.rotate_left(1);
                    let fewer = |best: u32| self.queued(candidate) < self.queued(best);
                    if ahead.is_none_or(fewer) {
                        ahead = Some(candidate);
                    }
                }
                Room::None => {
                    self.classes.list[class as usize].candidates.pop_front();
                    if let Some(agent) = self.agents.get_mut(&candidate) {
                        agent.listed[class as usize] = false;
                    }
                }
            }
        }
        ahead
    }

    fn queued(&self, agent: u32) -> usize {
        self.agents
            .get(&agent)
            .map_or(usize::MAX, |agent| agent.prefetched.len())
    }

    fn has_room(&self, agent: u32, class: u16) -> bool {
        self.room(agent, class) == Room::Now
    }

    fn room(&self, agent: u32, class: u16) -> Room {
        let Some(agent) = self.agents.get(&agent) else {
            return Room::None;
        };
        let Class {
            resources,
            prefetchable,
            ..
        } = &self.classes.list[class as usize];
        if agent.reserved.is_some_and(|reserved| reserved != class) {
            return Room::None;
        }
        if agent.prefetched.is_empty() && resources.fits(&agent.free) {
            return Room::Now;
        }
        let ahead = *prefetchable && agent.prefetched.len() < self.prefetch && resources.fits(&agent.total);
        if ahead { Room::Ahead } else { Room::None }
    }

    fn place(&mut self, task: u32, class: u16, agent_id: u32) {
        let resources = &self.classes.list[class as usize].resources;
        let agent = self.agents.get_mut(&agent_id).expect("has_room found it");
        let row = self.tasks.entry(task);
        row.agent = agent_id;
        if agent.prefetched.is_empty() && resources.fits(&agent.free) {
            agent.take(resources);
            agent.held.insert(task);
            row.phase = Phase::Held;
        } else {
            agent.prefetched.push_back(task);
            row.phase = Phase::Prefetched;
        }
        if agent.reserved == Some(class) {
            agent.reserved = None;
            self.offer(agent_id);
        }
    }

    /// Counts how often a class was passed over, and keeps an agent free for one that was for too long.
    fn settle_patience(&mut self, class: u16, placed: u32) {
        for (i, other) in self.classes.list.iter_mut().enumerate() {
            if i != class as usize && !other.ready.is_empty() {
                other.passed_over = other.passed_over.saturating_add(placed);
            }
        }
        let this = &mut self.classes.list[class as usize];
        if placed > 0 {
            this.passed_over = 0;
        }
        if this.ready.is_empty() || this.passed_over < PATIENCE {
            return;
        }
        let resources = this.resources.clone();
        let waits = self.agents.values().any(|agent| agent.reserved == Some(class));
        let mut fitting = self
            .agents
            .values_mut()
            .filter(|a| a.reserved.is_none() && resources.fits(&a.total));
        if !waits {
            if let Some(agent) = fitting.next() {
                agent.reserved = Some(class);
            }
        }
    }

    fn make_ready(&mut self, task: u32) {
        let row = self.tasks.entry(task);
        row.phase = Phase::Ready;
        let (class, entry) = (row.class, (row.priority, Reverse(row.seq), task));
        self.classes.list[class as usize].ready.push(entry);
    }

    /// The task ends: what it holds is free, and it is forgotten.
    fn leave(&mut self, task: u32) {
        self.give_back(task);
        let row = self.tasks.entry(task);
        row.phase = Phase::Unknown;
        row.agent = NONE;
    }

    fn give_back(&mut self, task: u32) {
        let Some(row) = self.tasks.get_mut(task) else { return };
        let (agent_id, class, phase) = (row.agent, row.class, row.phase);
        let blocked = std::mem::take(&mut row.blocked);
        row.agent = NONE;
        let Some(agent) = self.agents.get_mut(&agent_id) else {
            return;
        };
        match phase {
            Phase::Held => {
                agent.held.remove(&task);
                if !blocked {
                    agent.give(&self.classes.list[class as usize].resources);
                }
                self.promote(agent_id);
            }
            Phase::Prefetched => agent.prefetched.retain(|&waiting| waiting != task),
            _ => return,
        }
        self.offer(agent_id);
    }

    /// Prefetched tasks take what came free, in order.
    fn promote(&mut self, agent_id: u32) {
        let Some(agent) = self.agents.get_mut(&agent_id) else {
            return;
        };
        while let Some(&task) = agent.prefetched.front() {
            let row = self.tasks.entry(task);
            let resources = &self.classes.list[row.class as usize].resources;
            if !resources.fits(&agent.free) {
                return;
            }
            agent.prefetched.pop_front();
            agent.take(resources);
            agent.held.insert(task);
            row.phase = Phase::Held;
        }
    }

    /// Puts an agent that may have room into the lists of all classes.
    fn offer(&mut self, agent_id: u32) {
        let Some(agent) = self.agents.get_mut(&agent_id) else {
            return;
        };
        for (i, class) in self.classes.list.iter_mut().enumerate() {
            if agent.list(i) {
                class.candidates.push_back(agent_id);
            }
        }
    }

    fn open_class(&mut self, class: u16) {
        for (&id, agent) in &mut self.agents {
            if agent.list(class as usize) {
                self.classes.list[class as usize].candidates.push_back(id);
            }
        }
    }
}
