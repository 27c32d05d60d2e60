//! The invariants, walked through: for tests and for debugging a live engine. Decides nothing.

use crate::Engine;
use crate::agents::{Agent, Kept};
use crate::place::DEPTH;
use crate::room::{CPU, fits, times};
use crate::shape::Part;
use crate::tasks::{Hold, NONE, Phase};
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};

impl Engine {
    /// Walks all invariants. Costs as much as there are tasks and agents; meant for tests.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn sanity_check(&self) {
        self.check_tasks();
        self.check_queues();
        self.check_no_idle_room();
        self.check_gangs();
        self.check_reservations();
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
            let ready = matches!(row.phase, Phase::Ready | Phase::Held | Phase::Ahead | Phase::Gang);
            assert!(!ready || waits == 0, "t{task} went before what it waits for");
            assert!(row.phase != Phase::Waiting || waits > 0, "t{task} waits for nothing");
            let with_agent = matches!(row.phase, Phase::Held | Phase::Ahead | Phase::Gang);
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
            held.sum::<usize>() + self.gangs.len(),
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
        }
        let ready = self.tasks.iter().filter(|(_, row)| row.phase == Phase::Ready).count();
        assert_eq!(queued, ready, "ready tasks are queued once each");
        assert_eq!(self.classes.heads.len(), heads, "one head a queue");
        for (number, class) in (0..).zip(&self.classes.list) {
            let large_enough = |agent: &Agent| fits(&class.asks, &agent.total);
            let any = match class.shape {
                None => self.agents.iter().flatten().any(large_enough),
                Some(shape) => self.most_ranks_of(&class.asks, shape) >= shape.least,
            };
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
            if let Some(shape) = self.classes.get(class).shape {
                let room = shape.lay(self.offers(class, i32::MIN), NONE);
                assert_eq!(room, None, "gangs of class {class} wait beside room");
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
        for (task, parts) in &self.gangs {
            let class = self.tasks.get(*task).expect("a gang with agents is known").class;
            for part in parts.iter().filter(|part| part.slot == slot) {
                for &(dimension, amount) in &self.classes.get(class).asks {
                    free[dimension] -= amount * i64::from(part.ranks);
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
        if let Some(&(task, _)) = agent.ahead.front() {
            let row = self.tasks.get(task).expect("a task given ahead is known");
            let room = fits(&self.classes.get(row.class).asks, &agent.free);
            assert!(!room, "t{task} was given ahead to {id} and waits beside room");
        }
        let ahead_ns: i64 = agent.ahead.iter().map(|&(_, ns)| ns).sum();
        assert_eq!(agent.ahead_ns, ahead_ns, "work given ahead to {id}");
        assert!(agent.ahead.len() <= self.prefetch, "{id} was given too much ahead");
        let kept = agent
            .reserved
            .map_or(&[][..], |kept| &self.classes.get(kept.class).asks);
        let shown: Vec<i64> = agent.shown(self.prefetch, kept).collect();
        assert_eq!(self.room.leaf(slot), shown, "what {id} shows");
        if let Some(Kept { class, ranks }) = agent.reserved {
            let part = Part { slot, ranks };
            let reserved = &self.classes.get(class).reserved;
            assert!(reserved.contains(&part), "{id} is kept free for class {class}");
        }
    }

    /// A gang has all its ranks or none, each agent once, in the shape that it asked for.
    fn check_gangs(&self) {
        let with_agents = self.tasks.iter().filter(|(_, row)| row.phase == Phase::Gang);
        assert_eq!(with_agents.count(), self.gangs.len(), "gangs with agents");
        for (&task, parts) in &self.gangs {
            let row = self.tasks.get(task).expect("a gang with agents is known");
            assert_eq!(row.phase, Phase::Gang, "t{task} is with its agents");
            assert_eq!(row.agent, parts[0].slot, "t{task} is where its first rank is");
            let shape = self.classes.get(row.class).shape.expect("a gang has a shape");
            let ranks: u32 = parts.iter().map(|part| part.ranks).sum();
            assert!((shape.least..=shape.most).contains(&ranks), "t{task} has {ranks} ranks");
            let (last, others) = parts.split_last().expect("a gang is somewhere");
            if let Some(each) = shape.per_agent {
                let exact = others.iter().all(|part| part.ranks == each) && last.ranks <= each;
                assert!(exact, "t{task} has {each} ranks on each agent: {parts:?}");
            }
            let agents: BTreeSet<u32> = parts.iter().map(|part| part.slot).collect();
            assert_eq!(agents.len(), parts.len(), "t{task} has one part on an agent");
            assert!(parts.iter().all(|part| part.ranks > 0), "t{task} has no empty part");
        }
    }

    /// A reservation is complete: it would do for the next task of its class if nothing else were on its agents.
    fn check_reservations(&self) {
        for (number, class) in (0..).zip(&self.classes.list) {
            let listed = self.reserving.iter().filter(|&&listed| listed == number).count();
            assert_eq!(
                usize::from(!class.reserved.is_empty()),
                listed,
                "class {number} has agents kept free"
            );
            let mut ranks = 0;
            for part in &class.reserved {
                let agent = self.agents[part.slot as usize].as_ref().expect("a kept agent is there");
                let kept = Kept {
                    class: number,
                    ranks: part.ranks,
                };
                assert_eq!(agent.reserved, Some(kept), "{} is kept for class {number}", agent.id);
                assert!(
                    times(&class.asks, &agent.total) >= part.ranks,
                    "{} is large enough",
                    agent.id
                );
                ranks += part.ranks;
            }
            let needs = class.shape.map_or(1, |shape| shape.least);
            assert!(
                listed == 0 || ranks == needs,
                "class {number} has all kept free that it needs"
            );
        }
    }
}
