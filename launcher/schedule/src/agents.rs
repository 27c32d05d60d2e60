//! Agents as the scheduler knows them: what is free, who holds it, who waits there beyond it. Owns the sums of one agent;
//! who goes where is `place`'s.

use crate::room::{AHEAD, Ask, CPU, NOTHING, SLOTS, fits, times};
use bridgehead_spec::AgentId;
use std::collections::VecDeque;

/// Nanoseconds of work per core that an agent is given ahead: enough to hide the way to the head and back, few enough that
/// hardly anything waits at one agent while another has come free.
const HORIZON_NS: i64 = 5_000_000;
/// Tasks that an agent may hold per core, and besides: those that ask for (next to) nothing cost a process all the same.
const SLOTS_PER_CORE: i64 = 16;
const MORE_SLOTS: i64 = 64;

/// What an agent keeps free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// For the next task of this class.
    pub class: u32,
    /// As often as the class asks for it: 1, or so many ranks of a gang.
    pub ranks: u32,
}

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub id: AgentId,
    /// By dimension.
    pub total: Vec<i64>,
    /// By dimension; below zero only while tasks that had waited go on.
    pub free: Vec<i64>,
    /// Tasks that hold resources here, in no order; each row knows its place. Gangs are elsewhere.
    pub held: Vec<u32>,
    /// Tasks given ahead with the nanoseconds that each is expected to take, in the order in which they were sent.
    pub ahead: VecDeque<(u32, i64)>,
    pub ahead_ns: i64,
    /// Held tasks of small classes that neither wait nor linger: those whose cores come free for what is given ahead.
    pub churn: i64,
    /// What it keeps free, and for whom.
    pub reserved: Option<Kept>,
}

impl Agent {
    pub(crate) fn new(id: AgentId, amounts: &[Ask], dimensions: usize) -> Self {
        let mut total = vec![0; dimensions];
        for &(dimension, amount) in amounts {
            total[dimension] = amount;
        }
        let cores = total[CPU] / 1000;
        total[SLOTS] = cores.saturating_mul(SLOTS_PER_CORE).saturating_add(MORE_SLOTS);
        total[AHEAD] = cores.saturating_mul(HORIZON_NS);
        Self {
            id,
            free: total.clone(),
            total,
            held: Vec::new(),
            ahead: VecDeque::new(),
            ahead_ns: 0,
            churn: 0,
            reserved: None,
        }
    }

    /// A resource that was not known before counts as absent here.
    pub(crate) fn grow(&mut self, dimensions: usize) {
        self.total.resize(dimensions, 0);
        self.free.resize(dimensions, 0);
    }

    /// Takes what `ranks` ranks hold out of what is free, each of which `asks` for it.
    pub(crate) fn take_ranks(&mut self, asks: &[Ask], ranks: u32) {
        for &(dimension, amount) in asks {
            self.free[dimension] -= amount * i64::from(ranks);
        }
    }

    /// Gives back what `ranks` ranks held.
    pub(crate) fn give_ranks(&mut self, asks: &[Ask], ranks: u32) {
        for &(dimension, amount) in asks {
            self.free[dimension] += amount * i64::from(ranks);
        }
    }

    /// Takes `asks` out of what is free.
    pub(crate) fn take(&mut self, asks: &[Ask]) {
        for &(dimension, amount) in asks {
            self.free[dimension] -= amount;
        }
    }

    /// Gives `asks` back.
    pub(crate) fn give(&mut self, asks: &[Ask]) {
        for &(dimension, amount) in asks {
            self.free[dimension] += amount;
        }
    }

    /// Whether a task may start at once: tasks that wait here already go first.
    pub(crate) fn has_room(&self, asks: &[Ask]) -> bool {
        self.ahead.is_empty() && fits(asks, &self.free)
    }

    /// How many ranks of a gang may start at once, as `has_room`.
    pub(crate) fn ranks(&self, asks: &[Ask]) -> u32 {
        if self.ahead.is_empty() {
            times(asks, &self.free)
        } else {
            0
        }
    }

    /// Nanoseconds until work given now would start, if expectations hold.
    pub(crate) fn delay_ns(&self, pace_ns: i64) -> i64 {
        let cores = (self.total[CPU] / 1000).min(self.churn);
        (self.ahead_ns + pace_ns) / cores.max(1)
    }

    /// What it shows to a search by classes that it is not kept for, which is what is free beyond what it keeps, if it does
    /// for a class that asks for `kept`.
    pub(crate) fn shown(&self, prefetch: usize, kept: &[Ask]) -> impl Iterator<Item = i64> {
        let ahead = if self.churn > 0 && self.reserved.is_none() && self.ahead.len() < prefetch {
            self.total[AHEAD].min(self.churn * HORIZON_NS) - self.ahead_ns
        } else {
            NOTHING
        };
        let waits = !self.ahead.is_empty();
        let ranks = self.reserved.map_or(0, |kept| i64::from(kept.ranks));
        (0..).zip(&self.free).map(move |(dimension, &free)| match dimension {
            AHEAD => ahead,
            _ if waits => NOTHING,
            _ => {
                free - kept
                    .iter()
                    .find(|ask| ask.0 == dimension)
                    .map_or(0, |ask| ask.1 * ranks)
            }
        })
    }
}
