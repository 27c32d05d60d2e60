//! The queue of one class: sorted, and for tasks that come in order, as most do, as cheap with a million of them as with ten.
//! Owns order and removal from the middle; hot path: `push`, `first`, `remove`.

use crate::tasks::NONE;
use std::cmp::Reverse;
use std::collections::{BTreeSet, VecDeque};

/// A queued task: higher priority first, then order of arrival, then its id.
pub(crate) type Entry = (Reverse<i32>, u32, u32);

/// Memory of fewer entries than this is not worth giving back.
const KEEP: usize = 1024;

/// Tasks in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Those that came in order. What was taken out of the middle stays as a gap (its task is `NONE`); both ends are tasks.
    line: VecDeque<Entry>,
    gaps: usize,
    /// Those that came before the end of the line: of higher priority, tried again, or waited longer for their inputs.
    early: BTreeSet<Entry>,
}

fn is_gap(entry: &Entry) -> bool {
    entry.2 == NONE
}

impl Queue {
    /// The next one.
    pub(crate) fn first(&self) -> Option<Entry> {
        match (self.line.front(), self.early.first()) {
            (Some(line), Some(early)) => Some(*line.min(early)),
            (line, early) => line.or(early).copied(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty() && self.early.is_empty()
    }

    pub(crate) fn push(&mut self, entry: Entry) {
        if self.line.back().is_none_or(|back| *back < entry) {
            self.line.push_back(entry);
        } else {
            self.early.insert(entry);
        }
    }

    /// Takes an entry out, wherever it stands.
    pub(crate) fn remove(&mut self, entry: Entry) {
        if self.line.front() == Some(&entry) {
            self.line.pop_front();
        } else if self.early.remove(&entry) {
            return;
        } else {
            let before = |other: &Entry| (other.0, other.1) < (entry.0, entry.1);
            let at = self.line.partition_point(before);
            match self.line.get_mut(at) {
                Some(found) if *found == entry => found.2 = NONE,
                _ => return,
            }
            self.gaps += 1;
        }
        self.tidy();
    }

    /// No gap at an end, no more gaps than tasks, no more memory than a few times what is needed.
    fn tidy(&mut self) {
        while self.line.pop_front_if(|entry| is_gap(entry)).is_some() {
            self.gaps -= 1;
        }
        while self.line.pop_back_if(|entry| is_gap(entry)).is_some() {
            self.gaps -= 1;
        }
        if 2 * self.gaps > self.line.len() {
            self.line.retain(|entry| !is_gap(entry));
            self.gaps = 0;
        }
        if self.line.capacity() > KEEP.max(4 * self.line.len()) {
            self.line.shrink_to(2 * self.line.len());
        }
    }

    /// Some of the first ones, in no order: up to `n` of those that came in order, and of those that did not.
    pub(crate) fn near(&self, n: usize) -> impl Iterator<Item = Entry> {
        let looked_at = self.line.iter().take(n.saturating_mul(4)); // So that many gaps cost no more than few.
        let line = looked_at.filter(|entry| !is_gap(entry)).take(n);
        line.chain(self.early.iter().take(n)).copied()
    }

    /// All, in no order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.near(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn check(queue: &Queue, model: &BTreeSet<Entry>) {
        assert_eq!(queue.first(), model.first().copied());
        assert_eq!(queue.iter().collect::<BTreeSet<_>>(), *model);
        assert_eq!(queue.iter().count(), model.len());
        assert_eq!(queue.is_empty(), model.is_empty());
    }

    #[test]
    fn it_is_a_sorted_set_whatever_comes_and_goes() {
        let mut queue = Queue::default();
        let mut model = BTreeSet::new();
        let mut random = 1_u32;
        for seq in 0..1000 {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Nine of ten are of one priority and come in order, as in most runs; some come back ahead of their equals.
            let priority = Reverse(i32::from(random >> 24 > 230));
            let seq = if random >> 20 & 15 == 0 { seq / 2 } else { seq };
            if !model.contains(&(priority, seq, seq)) {
                queue.push((priority, seq, seq));
                model.insert((priority, seq, seq));
            }
            let leaves = if seq > 500 { 2 } else { 1 };
            for _ in 0..leaves {
                let middle = (random >> 8) as usize % model.len().max(1);
                let at = if random >> 16 & 1 == 0 { 0 } else { middle };
                if let Some(&entry) = model.iter().nth(at).filter(|_| random >> 17 & 3 > 0) {
                    queue.remove(entry);
                    model.remove(&entry);
                }
            }
            check(&queue, &model);
        }
        while let Some(entry) = queue.first() {
            queue.remove(entry);
            model.remove(&entry);
            check(&queue, &model);
        }
    }

    #[test]
    fn memory_is_given_back() {
        let mut queue = Queue::default();
        (0..100_000).for_each(|seq| queue.push((Reverse(0), seq, seq)));
        (10..100_000).for_each(|seq| queue.remove((Reverse(0), seq, seq)));
        assert!(queue.line.capacity() <= KEEP, "{}", queue.line.capacity());
        assert_eq!(queue.first(), Some((Reverse(0), 0, 0)));
    }
}
