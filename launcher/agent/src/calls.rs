//! Calls that wait for a place, and what an agent has to give: resources and GPU devices.

use bridgehead_spec::Resources;
use bridgehead_wire::TaskCall;

/// A call and what it asks for.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub call: TaskCall,
    pub asks: Resources,
    /// One core, no limit in time and nothing else: such a call may wait behind another one and take its place over.
    pub small: bool,
}

impl Waiting {
    /// A call at `agent`: of a gang it asks for what all its ranks there get.
    pub(crate) fn new(call: TaskCall, agent: u32) -> Self {
        let mut asks = call.resources.as_ref().map_or_else(Resources::default, Resources::from);
        if let Some(gang) = &call.gang {
            asks = times(&asks, gang.at(agent).map_or(0, |at| at.count));
        }
        let small = call.gang.is_none()
            && asks.cpu_millis == 1000
            && asks.memory == 0
            && asks.gpus == 0
            && asks.named.is_empty()
            && call.timeout_ms == 0;
        Self { call, asks, small }
    }

    /// Whether it runs in none of the workers that are there for any call.
    pub(crate) fn brings_own_process(&self) -> bool {
        self.call.program.is_some() || self.call.gang.is_some()
    }

    /// Threads that its libraries should use.
    pub(crate) fn threads(&self) -> u64 {
        (self.asks.cpu_millis / 1000).max(1)
    }
}

/// A call that runs, or that waits inside a worker or behind a program.
#[derive(Debug)]
pub(crate) struct Given {
    pub call: TaskCall,
    /// What the call holds, or will take over from the one before it.
    pub holds: Resources,
    pub devices: Vec<u32>,
    pub small: bool,
}

impl Given {
    /// The call as one that waits again.
    pub(crate) fn take_back(mut self) -> Waiting {
        self.call.devices.clear();
        Waiting {
            call: self.call,
            asks: self.holds,
            small: self.small,
        }
    }
}

/// What is free on this node.
#[derive(Debug)]
pub(crate) struct Room {
    free: Resources,
    devices: Vec<u32>,
}

impl Room {
    /// Everything is free.
    pub(crate) fn new(total: &Resources) -> Self {
        Self {
            free: total.clone(),
            devices: (0..total.gpus).rev().collect(),
        }
    }

    /// What is free, to try things out on.
    pub(crate) fn free(&self) -> &Resources {
        &self.free
    }

    /// Takes what a call asks for, devices by number, first those of `near` that are free; `None` when it does not fit.
    pub(crate) fn take(&mut self, asked: &Resources, near: &[u32]) -> Option<Vec<u32>> {
        if !asked.fits(&self.free) {
            return None;
        }
        subtract(&mut self.free, asked);
        if !near.is_empty() {
            // The last ones are taken first; the order of the others stays.
            self.devices.sort_by_key(|device| near.contains(device));
        }
        let left = self.devices.len() - asked.gpus as usize;
        let mut devices = self.devices.split_off(left);
        devices.sort_unstable();
        Some(devices)
    }

    /// Gives back what `take` took.
    pub(crate) fn give(&mut self, asked: &Resources, devices: &[u32]) {
        self.free.cpu_millis += asked.cpu_millis;
        self.free.memory += asked.memory;
        self.free.gpus += asked.gpus;
        for (name, amount) in &asked.named {
            if let Some(free) = self.free.named.get_mut(name) {
                *free += amount;
            }
        }
        self.devices.extend_from_slice(devices);
    }

    /// Whether a small call fits.
    pub(crate) fn has_core(&self) -> bool {
        self.free.cpu_millis >= 1000
    }
}

/// Thousandths of a core that each process of a call gets.
pub(crate) fn cpu_millis(call: &TaskCall) -> u64 {
    call.resources.as_ref().map_or(1000, |each| each.cpu_millis)
}

/// Threads that the libraries of a call should use.
pub(crate) fn threads(call: &TaskCall) -> u64 {
    (cpu_millis(call) / 1000).max(1)
}

/// `n` times `each`.
pub(crate) fn times(each: &Resources, n: u32) -> Resources {
    let named = each.named.iter();
    Resources {
        cpu_millis: each.cpu_millis.saturating_mul(n.into()),
        memory: each.memory.saturating_mul(n.into()),
        gpus: each.gpus.saturating_mul(n),
        named: named
            .map(|(name, amount)| (name.clone(), amount.saturating_mul(n.into())))
            .collect(),
    }
}

/// Takes `asked`, which fits, from `free`.
pub(crate) fn subtract(free: &mut Resources, asked: &Resources) {
    free.cpu_millis -= asked.cpu_millis;
    free.memory -= asked.memory;
    free.gpus -= asked.gpus;
    for (name, amount) in &asked.named {
        if let Some(free) = free.named.get_mut(name) {
            *free -= amount;
        }
    }
}

/// How often the kernel killed for want of memory: in this process's control group where it tells, else on this machine.
pub(crate) fn oom_kills() -> u64 {
    let group = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = group.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
    let events = std::fs::read_to_string(format!("/sys/fs/cgroup{group}/memory.events"));
    let text = events
        .or_else(|_| std::fs::read_to_string("/proc/vmstat"))
        .unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_exclusive_and_come_back() {
        let total = Resources {
            gpus: 2,
            ..Resources::default()
        };
        let one = Resources {
            gpus: 1,
            cpu_millis: 0,
            ..Resources::default()
        };
        let mut room = Room::new(&total);
        assert_eq!(room.take(&one, &[]), Some(vec![0]));
        assert_eq!(room.take(&one, &[]), Some(vec![1]));
        assert_eq!(room.take(&one, &[]), None);
        room.give(&one, &[0]);
        assert_eq!(room.take(&one, &[]), Some(vec![0]));
    }

    #[test]
    fn a_call_is_given_the_device_that_its_objects_lie_on_if_that_is_free() {
        let asks = |gpus| Resources {
            gpus,
            cpu_millis: 0,
            ..Resources::default()
        };
        let mut room = Room::new(&asks(4));
        assert_eq!(room.take(&asks(1), &[2]), Some(vec![2]));
        assert_eq!(room.take(&asks(1), &[2]), Some(vec![0]), "it is not: then another one");
        assert_eq!(room.take(&asks(2), &[3]), Some(vec![1, 3]));
        room.give(&asks(2), &[1, 3]);
        assert_eq!(room.take(&asks(1), &[0, 3, 2]), Some(vec![3]));
    }
}
