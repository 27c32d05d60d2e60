//! Agents as the scheduler knows them: what is free, who holds it, who waits there beyond it.

use bridgehead_spec::Resources;
use std::collections::{HashSet, VecDeque};

/// One agent.
#[derive(Debug)]
pub(crate) struct Agent {
    pub total: Resources,
    pub free: Resources,
    pub held: HashSet<u32>,
    /// Prefetched tasks in the order in which they were sent.
    pub prefetched: VecDeque<u32>,
    /// Kept free for a class that was passed over too often.
    pub reserved: Option<u16>,
    /// Classes in whose candidate list this agent stands.
    pub listed: Vec<bool>,
}

impl Agent {
    pub(crate) fn new(total: Resources) -> Self {
        Self {
            free: total.clone(),
            total,
            held: HashSet::new(),
            prefetched: VecDeque::new(),
            reserved: None,
            listed: Vec::new(),
        }
    }

    /// Takes `r` out of what is free; the caller has checked that it fits.
    pub(crate) fn take(&mut self, r: &Resources) {
        self.free.cpu_millis -= r.cpu_millis;
        self.free.memory -= r.memory;
        self.free.gpus -= r.gpus;
        for (name, amount) in &r.named {
            if let Some(free) = self.free.named.get_mut(name) {
                *free -= amount;
            }
        }
    }

    /// Gives `r` back.
    pub(crate) fn give(&mut self, r: &Resources) {
        self.free.cpu_millis += r.cpu_millis;
        self.free.memory += r.memory;
        self.free.gpus += r.gpus;
        for (name, amount) in &r.named {
            if let Some(free) = self.free.named.get_mut(name) {
                *free += amount;
            }
        }
    }

    /// Stands in the list of `class` from now on; `false` when it did already.
    pub(crate) fn list(&mut self, class: usize) -> bool {
        if self.listed.len() <= class {
            self.listed.resize(class + 1, false);
        }
        !std::mem::replace(&mut self.listed[class], true)
    }
}
