//! Patience with wide tasks and gangs: who was passed over too often gets agents that keep free what it asks for. Owns
//! reservations; an agent is reserved for one class at a time, and a gang has all agents that it needs or none.

use crate::Engine;
use crate::agents::{Agent, Kept};
use crate::place::Waits;
use crate::room::{Ask, times};
use crate::shape::{Offer, Shape};
use crate::tasks::NONE;
use std::cmp::Reverse;

/// For a class that was passed over by this many others agents keep free what it asks for; one of lower priority counts as
/// all.
const PATIENCE: u32 = 256;
/// A task that is no gang, as far as reservations go.
const SINGLE: Shape = Shape {
    least: 1,
    most: 1,
    per_agent: None,
    spread: false,
};

impl Engine {
    /// Counts those that went before classes that found no room, most urgent first; after too many agents keep free what such
    /// a class asks for.
    pub(crate) fn grow_impatient(&mut self, waits: &[Waits], after: usize, lowest: i32) {
        // While a gang waits for agents that are reserved for others, those behind it reserve none: as reservations end, it is
        // the next one, however many narrower classes would always find an agent for themselves.
        let mut gang_is_next = false;
        for wait in waits {
            if !self.is_impatient(wait, after, lowest) || gang_is_next {
                continue;
            }
            let reserved = self.reserve(wait.class);
            let queue = self.classes.get_mut(wait.class);
            gang_is_next = !reserved && queue.shape.is_some();
            if !gang_is_next {
                queue.passed_over = 0;
            }
        }
    }

    /// Whether a class has been passed over too often by now, and has no agent that is kept free for it.
    fn is_impatient(&mut self, wait: &Waits, after: usize, lowest: i32) -> bool {
        let passed = after - wait.before;
        let queue = self.classes.get_mut(wait.class);
        if !queue.reserved.is_empty() {
            return false;
        }
        if passed > 0 {
            let passed = if lowest < wait.priority {
                PATIENCE // Priorities fall within a round, so one of those that went after it was less urgent.
            } else {
                u32::try_from(passed).unwrap_or(PATIENCE)
            };
            queue.passed_over = queue.passed_over.saturating_add(passed);
        }
        queue.passed_over >= PATIENCE
    }

    /// Has the agents that lack least for a class keep free what it asks for: others get what is beyond. Looks at all agents,
    /// which is rare. `false` if too few are not reserved yet.
    fn reserve(&mut self, class: u32) -> bool {
        let queue = self.classes.get(class);
        let shape = queue.shape.unwrap_or(SINGLE);
        let least = Shape {
            most: shape.least,
            ..shape
        };
        let offers = self.slots.iter().filter_map(|(&id, &slot)| {
            let agent = self.agents[slot as usize].as_ref()?;
            let ranks = times(&queue.asks, &agent.total).min(least.most);
            (ranks > 0 && agent.reserved.is_none()).then(|| Offer {
                slot,
                agent: id,
                ranks,
                cost: lacks(&queue.asks, agent, ranks),
            })
        });
        let Some(parts) = least.lay(offers.collect(), NONE) else {
            return false;
        };
        for part in &parts {
            if let Some(agent) = &mut self.agents[part.slot as usize] {
                let ranks = part.ranks;
                agent.reserved = Some(Kept { class, ranks });
            }
            self.publish(part.slot);
        }
        self.classes.get_mut(class).reserved = parts;
        self.reserving.push(class);
        true
    }

    /// Nothing is kept free for a class any more.
    pub(crate) fn release_reservation(&mut self, class: u32) {
        let reserved = &mut self.classes.get_mut(class).reserved;
        if reserved.is_empty() {
            return;
        }
        let reserved = std::mem::take(reserved);
        self.reserving.retain(|&reserving| reserving != class);
        for part in reserved {
            if let Some(agent) = &mut self.agents[part.slot as usize] {
                agent.reserved = None;
            }
            self.publish(part.slot);
        }
        self.stirred = true;
    }

    /// A class whose tasks were cancelled, wait again or cannot end in time needs its agents no more.
    pub(crate) fn drop_idle_reservations(&mut self) {
        for class in self.reserving.clone() {
            let queue = self.classes.get(class);
            if queue.ready.is_empty() || queue.is_late(self.remaining_ns) {
                self.release_reservation(class);
            }
        }
    }

    /// The agents that are kept free for classes of lower priority.
    pub(crate) fn kept_for_lesser(&self, priority: i32) -> impl Iterator<Item = u32> {
        let lesser = self.reserving.iter().map(|&class| self.classes.get(class));
        let lesser = lesser.filter(move |class| {
            let first = class.ready.first();
            first.is_some_and(|(Reverse(theirs), ..)| theirs < priority)
        });
        lesser.flat_map(|class| class.reserved.iter().map(|part| part.slot))
    }
}

/// How much an agent lacks for so many ranks, less than 0: what it has of it, by resource in parts of a thousand.
fn lacks(asks: &[Ask], agent: &Agent, ranks: u32) -> i128 {
    let there = asks.iter().map(|&(dimension, amount)| {
        let amount = i128::from(amount) * i128::from(ranks);
        i128::from(agent.free[dimension]).min(amount) * 1000 / amount
    });
    -there.sum::<i128>()
}
