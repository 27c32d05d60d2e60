//! Placing: which ready task goes to which agent. Owns order, locality, work given ahead and patience with wide tasks.
//! Hot path: `schedule`, which costs a search of the room tree a task and one for each class that does not fit.

use crate::Engine;
use crate::room::{AHEAD, CPU, fits};
use crate::tasks::{NONE, Phase};
use bridgehead_spec::{AgentId, TaskId};
use std::cmp::Reverse;
use std::ops::Bound;

/// For a class that was passed over by this many others an agent keeps free what it asks for; one of lower priority counts
/// as all.
const PATIENCE: u32 = 256;
/// Classes that do not fit and are looked past in one round; those behind them wait.
pub(crate) const DEPTH: usize = 256;
/// How far behind the head of a queue a task may stand that is preferred because its inputs lie where room is, and how often
/// in a row.
const WINDOW: usize = 8;
/// Nanoseconds that a transfer between agents costs at least; each byte of it counts one more.
const TRANSFER_NS: i64 = 200_000;

/// A place found for a task.
#[derive(Debug, Clone, Copy)]
enum Spot {
    /// Room to start.
    Now(u32),
    /// Behind others, which end soon.
    Ahead(u32),
}

/// A class whose head found no room in this round.
struct Waits {
    class: u32,
    priority: i32,
    /// Assignments made in this round before it was looked at.
    before: usize,
}

impl Engine {
    /// Gives out what can run, as (task, agent), until nothing fits. Each is then the agent's until it finishes, is requeued
    /// or is abandoned. Costs next to nothing when nothing has changed.
    pub fn schedule(&mut self, out: &mut Vec<(TaskId, AgentId)>) {
        while !self.held_back && self.busy < self.most && std::mem::take(&mut self.stirred) {
            self.drop_idle_reservations();
            self.round(out);
        }
    }

    fn round(&mut self, out: &mut Vec<(TaskId, AgentId)>) {
        let mut waits: Vec<Waits> = Vec::new();
        let mut from = Bound::Unbounded;
        let mut lowest = i32::MAX;
        while let Some((head, next)) = self.classes.take_head(from) {
            let class = head.2;
            if self.classes.get(class).is_late(self.remaining_ns) {
                self.classes.list_head(class);
                from = Bound::Excluded(head);
                continue;
            }
            let mut placed = true;
            let mut first = Some(head);
            while let Some(now) = first.filter(|now| placed && next.is_none_or(|next| *now < next)) {
                if self.busy >= self.most {
                    break;
                }
                placed = self.place_next(class).is_some_and(|assigned| {
                    out.push(assigned);
                    lowest = now.0.0;
                    true
                });
                let queue = &self.classes.get(class).ready;
                first = queue.first().map(|(priority, seq, _)| (priority, seq, class));
            }
            if !placed && !self.is_hopeful(class) {
                continue; // It stays off the list until another agent joins.
            }
            self.classes.list_head(class);
            if self.busy >= self.most {
                self.stirred = true; // The next end makes place for more.
                break;
            }
            let Some(head) = first.filter(|_| !placed) else {
                continue;
            };
            from = Bound::Excluded(head);
            waits.push(Waits {
                class,
                priority: head.0.0,
                before: out.len(),
            });
            if waits.len() == DEPTH {
                break;
            }
        }
        for wait in waits {
            self.grow_impatient(&wait, out.len(), lowest);
        }
    }

    /// Whether some agent is large enough for a class; one for which none is needs no look before another joins.
    fn is_hopeful(&mut self, class: u32) -> bool {
        let queue = self.classes.get(class);
        let hopeful = queue.hopeful || {
            let mut agents = self.agents.iter().flatten();
            agents.any(|agent| fits(&queue.asks, &agent.total))
        };
        self.classes.get_mut(class).hopeful = hopeful;
        hopeful
    }

    /// Places one task of a class, its head unless another is nearer to where room is.
    fn place_next(&mut self, class: u32) -> Option<(TaskId, AgentId)> {
        let (Reverse(priority), _, head) = self.classes.get(class).ready.first()?;
        let near = self.spot_near_inputs(class, head);
        let spot = near.or_else(|| self.spot(class, priority))?;
        let (Spot::Now(slot) | Spot::Ahead(slot)) = spot;
        let task = if near.is_some() {
            head
        } else {
            self.better_for(class, head, slot)
        };
        let queue = self.classes.get_mut(class);
        queue.gave_way = if task == head { 0 } else { queue.gave_way + 1 };
        queue.passed_over = 0;
        self.unqueue(task);
        match spot {
            Spot::Now(_) => self.hold(task, class, slot),
            Spot::Ahead(_) => self.send_ahead(task, class, slot),
        }
        self.release_reservation(class);
        let agent = self.agents[slot as usize].as_ref().expect("it has room");
        Some((TaskId(task.into()), agent.id))
    }

    /// Room at the agent that holds most of the task's inputs; or a place behind others there, if that is sooner than moving
    /// the inputs.
    fn spot_near_inputs(&self, class: u32, task: u32) -> Option<Spot> {
        let row = self.tasks.get(task)?;
        let slot = row.prefers;
        let agent = self.agents.get(slot as usize)?.as_ref()?;
        let queue = self.classes.get(class);
        let kept = agent.reserved == Some(class) && agent.has_room(&queue.asks);
        if kept || fits(&queue.asks, self.room.leaf(slot)) {
            return Some(Spot::Now(slot));
        }
        let pace = self.ahead_pace(class)?;
        let transfer = TRANSFER_NS + i64::from(row.prefers_kib) * 1024;
        let soon = agent.delay_ns(pace) <= transfer;
        (soon && fits(&[(AHEAD, pace)], self.room.leaf(slot))).then_some(Spot::Ahead(slot))
    }

    /// Room anywhere: at the agent kept free for this class, at the one with most room, at one kept free for a class of
    /// lower priority, or behind others that end soon.
    fn spot(&self, class: u32, priority: i32) -> Option<Spot> {
        let queue = self.classes.get(class);
        let has_room = |&slot: &u32| {
            let agent = self.agents[slot as usize].as_ref();
            agent.is_some_and(|agent| agent.has_room(&queue.asks))
        };
        if let Some(slot) = queue.reserved.filter(has_room) {
            return Some(Spot::Now(slot));
        }
        if let Some(slot) = self.room.find(&queue.asks, CPU) {
            return Some(Spot::Now(slot));
        }
        let lesser = self.reserving.iter().filter_map(|&other| {
            let other = self.classes.get(other);
            let (Reverse(theirs), ..) = other.ready.first()?;
            other.reserved.filter(|_| theirs < priority)
        });
        if let Some(slot) = lesser.into_iter().find(has_room) {
            return Some(Spot::Now(slot));
        }
        let pace = self.ahead_pace(class)?;
        self.room.find(&[(AHEAD, pace)], AHEAD).map(Spot::Ahead)
    }

    /// The nanoseconds that one more task of the class counts if it is given ahead; `None` if it may not be.
    fn ahead_pace(&self, class: u32) -> Option<i64> {
        let queue = self.classes.get(class);
        let pace = queue.pace_ns.filter(|_| queue.small && self.prefetch > 0)?;
        Some(i64::try_from(pace).unwrap_or(i64::MAX).max(1))
    }

    /// The task to put at `slot`: the head, or one close behind it whose inputs lie there while the head's lie elsewhere.
    fn better_for(&self, class: u32, head: u32, slot: u32) -> u32 {
        let queue = self.classes.get(class);
        let prefers = |task: u32| self.tasks.get(task).map_or(NONE, |row| row.prefers);
        let elsewhere = ![NONE, slot].contains(&prefers(head));
        if !elsewhere || queue.gave_way as usize >= WINDOW {
            return head;
        }
        let priority = queue.ready.first().map(|(priority, ..)| priority);
        let near = queue.ready.near(WINDOW);
        let better = near.filter(|&(theirs, _, task)| Some(theirs) == priority && prefers(task) == slot);
        better.min().map_or(head, |(_, _, task)| task)
    }

    fn hold(&mut self, task: u32, class: u32, slot: u32) {
        let agent = self.agents[slot as usize].as_mut().expect("it has room");
        agent.take(&self.classes.list[class as usize].asks);
        self.busy += 1;
        self.put_held(task, slot);
        self.publish(slot);
    }

    fn send_ahead(&mut self, task: u32, class: u32, slot: u32) {
        let pace = self.ahead_pace(class).unwrap_or(0);
        let agent = self.agents[slot as usize].as_mut().expect("it has room");
        agent.ahead.push_back((task, pace));
        agent.ahead_ns += pace;
        self.busy += 1;
        let row = self.tasks.row(task);
        row.agent = slot;
        row.phase = Phase::Ahead;
        self.publish(slot);
    }

    /// Counts those that went before a class that found no room; after too many an agent keeps free what it asks for.
    fn grow_impatient(&mut self, wait: &Waits, after: usize, lowest: i32) {
        let passed = after - wait.before;
        let queue = self.classes.get_mut(wait.class);
        if passed == 0 || queue.reserved.is_some() {
            return;
        }
        let passed = if lowest < wait.priority {
            PATIENCE // Priorities fall within a round, so one of those that went after it was less urgent.
        } else {
            u32::try_from(passed).unwrap_or(PATIENCE)
        };
        queue.passed_over = queue.passed_over.saturating_add(passed);
        if queue.passed_over >= PATIENCE {
            queue.passed_over = 0;
            self.reserve(wait.class);
        }
    }

    /// Has the agent that lacks least for a class keep free what it asks for: others get what is beyond. Looks at all agents,
    /// which is rare.
    fn reserve(&mut self, class: u32) {
        let asks = &self.classes.get(class).asks;
        let mut best: Option<(i128, usize)> = None;
        for (slot, agent) in self.agents.iter().enumerate() {
            let Some(agent) = agent.as_ref().filter(|agent| fits(asks, &agent.total)) else {
                continue;
            };
            let there = asks.iter().map(|&(dimension, amount)| {
                i128::from(agent.free[dimension].min(amount)) * 1000 / i128::from(amount) // Parts of a thousand.
            });
            let there = there.sum();
            if agent.reserved.is_none() && best.is_none_or(|(most, _)| there > most) {
                best = Some((there, slot));
            }
        }
        if let Some((_, slot)) = best {
            if let Some(agent) = &mut self.agents[slot] {
                agent.reserved = Some(class);
            }
            let slot = u32::try_from(slot).expect("an agent is named by 32 bits");
            self.classes.get_mut(class).reserved = Some(slot);
            self.reserving.push(class);
            self.publish(slot);
        }
    }

    fn release_reservation(&mut self, class: u32) {
        let Some(slot) = self.classes.get_mut(class).reserved.take() else {
            return;
        };
        self.reserving.retain(|&reserving| reserving != class);
        if let Some(agent) = &mut self.agents[slot as usize] {
            agent.reserved = None;
        }
        self.publish(slot);
        self.stirred = true;
    }

    /// A class whose tasks were cancelled, wait again or cannot end in time needs its agent no more.
    fn drop_idle_reservations(&mut self) {
        for class in self.reserving.clone() {
            let queue = self.classes.get(class);
            if queue.ready.is_empty() || queue.is_late(self.remaining_ns) {
                self.release_reservation(class);
            }
        }
    }
}
