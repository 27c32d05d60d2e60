//! Gangs: tasks of several ranks that start together on one or more agents, all or none. Owns their events and where their
//! ranks are; how ranks lie on agents is `shape`'s. A gang that finds no room costs a look at the agents that have room for
//! one rank.

use crate::Engine;
use crate::class::asks;
use crate::room::{Ask, times};
use crate::shape::{Offer, Part, Shape};
use crate::tasks::{NONE, Phase, index};
use bridgehead_spec::{AgentId, Resources, TaskId};

impl Engine {
    /// As [`Engine::submit_limited`], for a gang: `each` is what a single rank asks for. It is given out once, with the agent of
    /// its first rank; [`Engine::parts`] says where the others are.
    pub fn submit_gang(
        &mut self,
        task: TaskId,
        each: &Resources,
        shape: Shape,
        limit_ns: u64,
        priority: i32,
        open: &[TaskId],
    ) {
        if self.tasks.get(index(task)).is_none() {
            let dimensions = &mut self.dimensions;
            let class = self.classes.intern_gang(each, shape.checked(), limit_ns, dimensions);
            self.learn(task, class, priority, open);
        }
    }

    /// Where the ranks of a gang that was given out are: agents with their numbers of ranks, in the order in which ranks are
    /// numbered. Agents ascend, but one with fewer than [`Shape::per_agent`] comes last. Empty for a task that is no gang or
    /// is with no agent.
    #[must_use]
    pub fn parts(&self, task: TaskId) -> Vec<(AgentId, u32)> {
        let parts = self.gangs.get(&index(task)).into_iter().flatten();
        let with_ids = parts.filter_map(|part| {
            let agent = self.agents[part.slot as usize].as_ref()?;
            Some((agent.id, part.ranks))
        });
        with_ids.collect()
    }

    /// The most ranks that the agents which are there could give to a gang with nothing else on them; no more than
    /// `shape.most`. It could never start where that is less than `shape.least`.
    pub fn most_ranks(&mut self, each: &Resources, shape: Shape) -> u32 {
        let asks = asks(each, &mut self.dimensions);
        self.grow_room(); // A resource may be named here for the first time.
        self.most_ranks_of(&asks, shape.checked())
    }

    pub(crate) fn most_ranks_of(&self, asks: &[Ask], shape: Shape) -> u32 {
        let agents = self.agents.iter().flatten();
        shape.ranks_of(agents.map(|agent| times(asks, &agent.total)))
    }

    /// Places a gang, the head of its class: as tasks are, without what is kept free for others, and if that does not do, with
    /// what is kept for those of lower priority.
    pub(crate) fn place_gang(&mut self, task: u32, class: u32, shape: Shape) -> Option<(TaskId, AgentId)> {
        let row = self.tasks.get(task)?;
        let (near, priority) = (row.prefers, row.priority);
        let parts = shape.lay(self.offers(class, i32::MIN), near).or_else(|| {
            let lesser = self.kept_for_lesser(priority).next();
            lesser.and_then(|_| shape.lay(self.offers(class, priority), near))
        })?;
        let first = parts.first()?.slot;
        self.classes.get_mut(class).passed_over = 0;
        self.unqueue(task);
        for part in &parts {
            let agent = self.agents[part.slot as usize].as_mut().expect("it has room");
            agent.take_ranks(&self.classes.list[class as usize].asks, part.ranks);
            self.publish(part.slot);
        }
        self.gangs.insert(task, parts);
        self.busy += 1;
        let row = self.tasks.row(task);
        row.agent = first;
        row.phase = Phase::Gang;
        self.release_reservation(class);
        let agent = self.agents[first as usize].as_ref().expect("it has room");
        Some((TaskId(task.into()), agent.id))
    }

    /// What each agent has for ranks of a class: what it shows, or all that is free where it is kept for the class itself or
    /// for one of lower priority than `priority`. The fullest is the cheapest.
    pub(crate) fn offers(&self, class: u32, priority: i32) -> Vec<Offer> {
        let queue = self.classes.get(class);
        let mut slots = Vec::new();
        self.room.all(&queue.asks, &mut slots);
        let mut kept: Vec<u32> = self.kept_for_lesser(priority).collect();
        kept.extend(queue.reserved.iter().map(|part| part.slot));
        kept.sort_unstable();
        slots.retain(|slot| kept.binary_search(slot).is_err());
        let shown = slots
            .into_iter()
            .map(|slot| (slot, times(&queue.asks, self.room.leaf(slot))));
        let kept = kept.into_iter().map(|slot| {
            let agent = self.agents[slot as usize].as_ref();
            (slot, agent.map_or(0, |agent| agent.ranks(&queue.asks)))
        });
        let offers = shown.chain(kept).filter_map(|(slot, ranks)| {
            let agent = self.agents[slot as usize].as_ref()?.id;
            let cost = ranks.into();
            (ranks > 0).then_some(Offer {
                slot,
                agent,
                ranks,
                cost,
            })
        });
        offers.collect()
    }

    /// A gang is with its agents no more: what its ranks hold is free.
    pub(crate) fn disband(&mut self, task: u32) {
        let row = self.tasks.row(task);
        let class = row.class;
        row.agent = NONE;
        row.phase = Phase::Returned;
        self.busy -= 1;
        self.stirred = true;
        for Part { slot, ranks } in self.gangs.remove(&task).unwrap_or_default() {
            let Some(agent) = &mut self.agents[slot as usize] else {
                continue; // It is gone, and that is why.
            };
            agent.give_ranks(&self.classes.list[class as usize].asks, ranks);
            self.promote(slot);
            self.publish(slot);
        }
    }

    /// The agent at `slot` is gone, so gangs with ranks there are with none of their agents. Returns them.
    pub(crate) fn disband_gangs_on(&mut self, slot: u32) -> Vec<u32> {
        let gangs = self.gangs.iter();
        let there = gangs.filter(|(_, parts)| parts.iter().any(|part| part.slot == slot));
        let there: Vec<u32> = there.map(|(&task, _)| task).collect();
        there.iter().for_each(|&task| self.disband(task));
        there
    }
}
