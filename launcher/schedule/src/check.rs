//! The invariants, walked through: for tests and for debugging a live engine. Decides nothing.

use crate::Engine;
use crate::agents::Agent;
use crate::place::DEPTH;
use crate::room::{CPU, fits};
use crate::tasks::{Hold, Phase};
use std::cmp::Reverse;
use std::collections::HashMap;

impl Engine {
    /// Walks all invariants. Costs as much as there are tasks and agents; meant for tests.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn sanity_check(&self) {
        self.check_tasks();
        self.check_queues();
        self.check_no_idle_room();
        for (&id, &slot) in &self.slots {
            let agent = self.agents[slot as usize].as_ref().expect("a slot in use has an agent");
            assert_eq!(agent.id, id, "the agent of slot {slot}");
            self.check_agent(agent, slot);
        }
        assert_eq!(
            self.slots.len(),
            self.agents.iter().flatten().count(),
            "agents by id and by slot"
        );
        self.room.sanity_check();
    }

    fn check_tasks(&self) {
        let mut open: HashMap<u32, u32> = HashMap::new();
        for (_, row) in self.tasks.iter() {
            for edge in self.tasks.dependents(row) {
                let live = self.tasks.get(edge.dependent).is_some_and(|row| row.seq == edge.seq);
                *open.entry(edge.dependent).or_default() += u32::from(live);
            }
        }
        let (mut with_agents, mut busy) = (0, 0);
        for (task, row) in self.tasks.iter() {
            let waits = open.get(&task).copied().unwrap_or(0);
            assert_eq!(row.open, waits, "t{task} counts what it waits for");
            let ready = matches!(row.phase, Phase::Ready | Phase::Held | Phase::Ahead);
            assert!(!ready || waits == 0, "t{task} went before what it waits for");
            assert!(row.phase != Phase::Waiting || waits > 0, "t{task} waits for nothing");
            let with_agent = matches!(row.phase, Phase::Held | Phase::Ahead);
            with_agents += usize::from(with_agent);
            busy += usize::from(with_agent && row.hold != Hold::Blocked);
        }
        assert_eq!(self.busy, busy, "tasks with agents that do not wait for their own");
        let held = self
            .agents
            .iter()
            .flatten()
            .map(|agent| agent.held.len() + agent.ahead.len());
        assert_eq!(
            held.sum::<usize>(),
            with_agents,
            "tasks with agents, by task and by agent"
        );
    }

    fn check_queues(&self) {
        let (mut queued, mut heads) = (0, 0);
        for (number, class) in (0..).zip(&self.classes.list) {
            let mut here = 0;
            for (Reverse(priority), seq, task) in class.ready.iter() {
                let row = self.tasks.get(task).expect("a queued task is known");
                let state = (row.phase, row.priority, row.seq, row.class);
                assert_eq!(state, (Phase::Ready, priority, seq, number), "t{task} in its queue");
                here += 1;
            }
            queued += here;
            let head = class.ready.first().map(|(priority, seq, _)| (priority, seq, number));
            let named = head.map(|head| self.classes.heads.contains(&head));
            assert!(
                named.is_none_or(|named| named == class.listed),
                "the head of class {number} is named if it can run"
            );
            heads += usize::from(named == Some(true));
            let listed = self.reserving.contains(&number);
            assert_eq!(
                class.reserved.is_some(),
                listed,
                "class {number} has an agent kept free"
            );
        }
        let ready = self.tasks.iter().filter(|(_, row)| row.phase == Phase::Ready).count();
        assert_eq!(queued, ready, "ready tasks are queued once each");
        assert_eq!(self.classes.heads.len(), heads, "one head a queue");
        for (number, class) in (0..).zip(&self.classes.list) {
            let large_enough = |agent: &Agent| fits(&class.asks, &agent.total);
            let any = self.agents.iter().flatten().any(large_enough);
            assert!(class.listed || !any, "class {number} has hope");
            assert!(!class.hopeful || any, "class {number} has no hope");
        }
    }

    /// After a round no task waits while an agent shows room for it.
    fn check_no_idle_room(&self) {
        if self.stirred || self.held_back || self.classes.heads.len() >= DEPTH {
            return;
        }
        for &(_, _, class) in &self.classes.heads {
            if self.classes.get(class).is_late(self.remaining_ns) {
                continue;
            }
            let room = self.room.find(&self.classes.get(class).asks, CPU);
            assert_eq!(room, None, "class {class} waits beside room");
        }
    }

    fn check_agent(&self, agent: &Agent, slot: u32) {
        let id = agent.id;
        let mut free = agent.total.clone();
        let (mut resumed, mut churn) = (false, 0);
        for (place, &task) in (0..).zip(&agent.held) {
            let row = self.tasks.get(task).expect("a held task is known");
            let state = (row.phase, row.agent, row.place);
            assert_eq!(state, (Phase::Held, slot, place), "t{task} is held by {id}");
            resumed |= row.hold == Hold::Resumed;
            churn += i64::from(row.churns(self.classes.get(row.class).small));
            if row.hold != Hold::Blocked {
                for &(dimension, amount) in &self.classes.get(row.class).asks {
                    free[dimension] -= amount;
                }
            }
        }
        assert_eq!(agent.free, free, "what {id} has free");
        assert_eq!(agent.churn, churn, "how many cores of {id} come free soon");
        assert!(resumed || free.iter().all(|&free| free >= 0), "{id} is over-committed");
        for &(task, _) in &agent.ahead {
            let row = self.tasks.get(task).expect("a task given ahead is known");
            assert_eq!(
                (row.phase, row.agent),
                (Phase::Ahead, slot),
                "t{task} was given ahead to {id}"
            );
        }
        let ahead_ns: i64 = agent.ahead.iter().map(|&(_, ns)| ns).sum();
        assert_eq!(agent.ahead_ns, ahead_ns, "work given ahead to {id}");
        assert!(agent.ahead.len() <= self.prefetch, "{id} was given too much ahead");
        let kept = agent.reserved.map_or(&[][..], |class| &self.classes.get(class).asks);
        let shown: Vec<i64> = agent.shown(self.prefetch, kept).collect();
        assert_eq!(self.room.leaf(slot), shown, "what {id} shows");
        if let Some(class) = agent.reserved {
            assert_eq!(
                self.classes.get(class).reserved,
                Some(slot),
                "{id} is kept free for class {class}"
            );
        }
    }
}
