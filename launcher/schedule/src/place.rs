//! Placing: which ready task goes to which agent. Owns order, locality and work given ahead; patience with wide tasks is
//! `reserve`'s, gangs are `gang`'s.
//! Hot path: `schedule`, which costs a search of the room tree a task and one for each class that does not fit.

use crate::Engine;
use crate::room::{AHEAD, CPU, fits};
use crate::tasks::{NONE, Phase};
use bridgehead_spec::{AgentId, TaskId};
use std::cmp::Reverse;
use std::ops::Bound;

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
pub(crate) struct Waits {
    pub class: u32,
    pub priority: i32,
    /// Assignments made in this round before it was looked at.
    pub before: usize,
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
        self.grow_impatient(&waits, out.len(), lowest);
    }

    /// Whether some agent is large enough for a class, or all together for a gang; one for which none is needs no look before
    /// another joins.
    fn is_hopeful(&mut self, class: u32) -> bool {
        let queue = self.classes.get(class);
        let hopeful = queue.hopeful || {
            let mut agents = self.agents.iter().flatten();
            match queue.shape {
                None => agents.any(|agent| fits(&queue.asks, &agent.total)),
                Some(shape) => self.most_ranks_of(&queue.asks, shape) >= shape.least,
            }
        };
        self.classes.get_mut(class).hopeful = hopeful;
        hopeful
    }

    /// Places one task of a class, its head unless another is nearer to where room is.
    fn place_next(&mut self, class: u32) -> Option<(TaskId, AgentId)> {
        let queue = self.classes.get(class);
        let (Reverse(priority), _, head) = queue.ready.first()?;
        if let Some(shape) = queue.shape {
            return self.place_gang(head, class, shape);
        }
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
        let kept = agent.reserved.is_some_and(|kept| kept.class == class) && agent.has_room(&queue.asks);
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
        let kept = queue.reserved.first().map(|part| part.slot);
        if let Some(slot) = kept.filter(has_room) {
            return Some(Spot::Now(slot));
        }
        if let Some(slot) = self.room.find(&queue.asks, CPU) {
            return Some(Spot::Now(slot));
        }
        if let Some(slot) = self.kept_for_lesser(priority).find(has_room) {
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
}
