//! Agents that come and go. Owns the agents' slots and what they show to a search; what becomes of the tasks of a lost one
//! is the caller's.

use crate::Engine;
use crate::agents::Agent;
use crate::room::NOTHING;
use crate::tasks::{Hold, NONE, Phase};
use bridgehead_spec::{AgentId, Resources, TaskId};

impl Engine {
    /// An agent with `total` to give is there. One that is there already stays as it is.
    pub fn agent_joined(&mut self, agent: AgentId, total: &Resources) {
        if self.slots.contains_key(&agent) {
            return;
        }
        let amounts = self.dimensions.amounts(total);
        // Tasks that preferred the agent that had this slot before prefer the new one: no better and no worse than any.
        let free = self.agents.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.agents.len());
        if slot == self.agents.len() {
            self.agents.push(None);
        }
        self.agents[slot] = Some(Agent::new(agent, &amounts, self.dimensions.count()));
        let slot = u32::try_from(slot).expect("an agent is named by 32 bits");
        self.slots.insert(agent, slot);
        self.classes.agents_changed();
        self.grow_room();
        self.publish(slot);
        self.stirred = true;
    }

    /// An agent is gone. Returns the tasks that it had, gangs with a rank there among them: what those hold
    /// elsewhere is free at once. Each is to be requeued, finished or abandoned by the caller.
    pub fn agent_lost(&mut self, agent: AgentId) -> Vec<TaskId> {
        let Some(slot) = self.slots.remove(&agent) else {
            return Vec::new();
        };
        let Some(gone) = self.agents[slot as usize].take() else {
            return Vec::new();
        };
        self.room.set(slot, std::iter::repeat(NOTHING));
        self.classes.agents_changed();
        if let Some(kept) = gone.reserved {
            self.release_reservation(kept.class);
        }
        let gangs = self.disband_gangs_on(slot);
        let ahead = gone.ahead.into_iter().map(|(task, _)| task);
        let mut tasks: Vec<u32> = gone.held.into_iter().chain(ahead).collect();
        for &task in &tasks {
            let row = self.tasks.row(task);
            self.busy -= usize::from(row.hold != Hold::Blocked);
            row.phase = Phase::Returned;
            row.agent = NONE;
            row.hold = Hold::Using;
            row.lingers = false;
        }
        tasks.extend(gangs);
        tasks.sort_unstable();
        tasks.into_iter().map(|task| TaskId(task.into())).collect()
    }

    /// Shows what the agent at `slot` has free.
    pub(crate) fn publish(&mut self, slot: u32) {
        if let Some(agent) = &self.agents[slot as usize] {
            let kept = agent.reserved.map(|kept| &self.classes.list[kept.class as usize].asks);
            self.room
                .set(slot, agent.shown(self.prefetch, kept.map_or(&[], Vec::as_slice)));
        }
    }

    /// Makes place in the tree for agents and named resources that were not known before.
    pub(crate) fn grow_room(&mut self) {
        let (agents, dimensions) = (self.agents.len(), self.dimensions.count());
        let (leaves, had) = self.room.size();
        if agents <= leaves && dimensions == had {
            return;
        }
        self.room.resize(agents, dimensions);
        for slot in 0..agents {
            if let Some(agent) = &mut self.agents[slot] {
                agent.grow(dimensions);
                let slot = u32::try_from(slot).expect("an agent is named by 32 bits");
                self.publish(slot);
            }
        }
    }
}
