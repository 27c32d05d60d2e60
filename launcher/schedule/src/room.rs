//! Room: what every agent has free, as a tree of maxima, so that the agent with most room for a request is found without
//! looking at all of them. Owns amounts and the search; hot path: `find`, `set`.

use bridgehead_spec::Resources;
use std::collections::BTreeMap;

/// One amount asked for: (dimension, amount).
pub(crate) type Ask = (usize, i64);

/// Tasks that an agent may hold at once, whatever they ask for: each costs it a process.
pub(crate) const SLOTS: usize = 0;
/// Nanoseconds of work that an agent may be given ahead of its room.
pub(crate) const AHEAD: usize = 1;
/// Thousandths of a core.
pub(crate) const CPU: usize = 2;
const MEMORY: usize = 3;
const GPUS: usize = 4;
const FIXED: usize = 5;

/// Which number stands for which resource. Named ones are numbered when they are first met.
#[derive(Debug, Default)]
pub(crate) struct Dimensions {
    named: BTreeMap<String, usize>,
}

impl Dimensions {
    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        FIXED + self.named.len()
    }

    /// `resources` by dimension; amounts beyond what 63 bits hold count as that much.
    pub(crate) fn amounts(&mut self, resources: &Resources) -> Vec<Ask> {
        let amount = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        let mut out = vec![
            (CPU, amount(resources.cpu_millis)),
            (MEMORY, amount(resources.memory)),
            (GPUS, i64::from(resources.gpus)),
        ];
        for (name, &value) in &resources.named {
            let next = self.count();
            let dimension = *self.named.entry(name.clone()).or_insert(next);
            out.push((dimension, amount(value)));
        }
        out
    }
}

/// Whether `free` covers `asks`.
pub(crate) fn fits(asks: &[Ask], free: &[i64]) -> bool {
    asks.iter().all(|&(dimension, amount)| free[dimension] >= amount)
}

/// How often `free` covers `asks`, which ask for something.
pub(crate) fn times(asks: &[Ask], free: &[i64]) -> u32 {
    let each = asks.iter().map(|&(dimension, amount)| free[dimension].max(0) / amount);
    each.min().map_or(0, |times| u32::try_from(times).unwrap_or(u32::MAX))
}

/// A tree over agents' slots; each node has, by dimension, the most that any agent below it has free.
#[derive(Debug, Default)]
pub(crate) struct Room {
    dimensions: usize,
    leaves: usize,
    most: Vec<i64>,
}

/// What a slot without an agent, or with one that is kept for others, has.
pub(crate) const NOTHING: i64 = i64::MIN;

impl Room {
    /// Makes place for `agents` slots and `dimensions`; what was set is lost, and to be set again.
    pub(crate) fn resize(&mut self, agents: usize, dimensions: usize) {
        self.dimensions = dimensions;
        self.leaves = agents.next_power_of_two();
        self.most = vec![NOTHING; 2 * self.leaves * dimensions];
    }

    /// How many slots it has place for, and of how many dimensions.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.leaves, self.dimensions)
    }

    fn node(&self, node: usize) -> &[i64] {
        &self.most[node * self.dimensions..(node + 1) * self.dimensions]
    }

    /// What the agent at `slot` shows.
    pub(crate) fn leaf(&self, slot: u32) -> &[i64] {
        self.node(self.leaves + slot as usize)
    }

    /// The agent at `slot` has `free` from now on.
    pub(crate) fn set(&mut self, slot: u32, free: impl IntoIterator<Item = i64>) {
        let n = self.dimensions;
        let mut node = self.leaves + slot as usize;
        let mut changed = false;
        for (place, value) in self.most[node * n..(node + 1) * n].iter_mut().zip(free) {
            changed |= *place != value;
            *place = value;
        }
        while changed && node > 1 {
            node /= 2;
            changed = self.sum_up(node);
        }
    }

    /// Makes `node` the maximum of the two below it; whether that changed it.
    fn sum_up(&mut self, node: usize) -> bool {
        let n = self.dimensions;
        let (above, below) = self.most.split_at_mut(2 * node * n);
        let (left, right) = below[..2 * n].split_at(n);
        let above = &mut above[node * n..];
        let mut changed = false;
        for d in 0..n {
            let most = left[d].max(right[d]);
            changed |= above[d] != most;
            above[d] = most;
        }
        changed
    }

    /// The slot of an agent that has room for `asks`, sought where most of dimension `by` is free; ties go to the lowest.
    /// It is the one with most where nothing but `by` decides what fits, else one of those with much.
    pub(crate) fn find(&self, asks: &[Ask], by: usize) -> Option<u32> {
        if self.leaves == 0 || !fits(asks, self.node(1)) {
            return None;
        }
        self.descend(1, asks, by)
    }

    /// `node` could have room by its maxima. They may stem from different agents, hence the second try.
    fn descend(&self, node: usize, asks: &[Ask], by: usize) -> Option<u32> {
        if node >= self.leaves {
            return u32::try_from(node - self.leaves).ok();
        }
        let (left, right) = (2 * node, 2 * node + 1);
        let order = if self.node(left)[by] >= self.node(right)[by] {
            [left, right]
        } else {
            [right, left]
        };
        let fitting = order.into_iter().filter(|&child| fits(asks, self.node(child)));
        fitting.into_iter().find_map(|child| self.descend(child, asks, by))
    }

    /// Appends the slots of all agents that have room for `asks`, in order. Costs as much as there are of them, or nearly.
    pub(crate) fn all(&self, asks: &[Ask], out: &mut Vec<u32>) {
        let mut nodes: Vec<usize> = (self.leaves > 0).then_some(1).into_iter().collect();
        while let Some(node) = nodes.pop() {
            if !fits(asks, self.node(node)) {
                continue;
            }
            if node < self.leaves {
                nodes.extend([2 * node + 1, 2 * node]);
            } else {
                out.extend(u32::try_from(node - self.leaves));
            }
        }
    }

    /// Walks the tree: every node is the maximum of those below it.
    pub(crate) fn sanity_check(&self) {
        for node in 1..self.leaves {
            for d in 0..self.dimensions {
                let below = self.node(2 * node)[d].max(self.node(2 * node + 1)[d]);
                assert_eq!(self.node(node)[d], below, "node {node} of the room tree, dimension {d}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agent_with_most_room_is_found() {
        let mut room = Room::default();
        room.resize(5, FIXED);
        for (slot, cpu) in [(0, 1), (1, 4), (2, 3), (4, 4)] {
            room.set(slot, [1, 0, cpu, 0, 0]);
        }
        room.sanity_check();
        assert_eq!(room.find(&[(CPU, 2)], CPU), Some(1));
        room.set(1, [NOTHING; FIXED]);
        assert_eq!(room.find(&[(SLOTS, 1), (CPU, 2)], CPU), Some(4));
        assert_eq!(room.find(&[(CPU, 5)], CPU), None);
        let mut all = Vec::new();
        room.all(&[(CPU, 3)], &mut all);
        assert_eq!(all, [2, 4]);
    }

    #[test]
    fn maxima_of_different_agents_do_not_add_up() {
        let mut room = Room::default();
        room.resize(4, FIXED);
        room.set(0, [1, 0, 8, 0, 0]);
        room.set(1, [1, 0, 0, 0, 8]);
        room.set(3, [1, 0, 1, 0, 1]);
        assert_eq!(room.find(&[(CPU, 1), (GPUS, 1)], CPU), Some(3));
        assert_eq!(room.find(&[(CPU, 2), (GPUS, 2)], CPU), None);
    }
}
