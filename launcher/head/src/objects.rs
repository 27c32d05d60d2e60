//! Who still needs which object of the store, over all agents. Owns counts and locations; the stores themselves hold the bytes.

use bridgehead_spec::ObjectId;
use bridgehead_wire::ObjectRef;
use std::collections::HashMap;

#[derive(Debug)]
struct Entry {
    reference: ObjectRef,
    holds: u32,
    copies: Vec<u32>,
}

/// Counts of holds by object.
#[derive(Debug, Default)]
pub struct Objects {
    entries: HashMap<ObjectId, Entry>,
}

impl Objects {
    /// Adds a hold on `reference`, learning of the object if it is new.
    pub fn hold(&mut self, reference: &ObjectRef) {
        let entry = self.entries.entry(reference.id()).or_insert_with(|| Entry {
            reference: reference.clone(),
            holds: 0,
            copies: Vec::new(),
        });
        entry.holds += 1;
    }

    /// Gives a hold back. With the last one the agents that hold bytes are returned, to be told.
    pub fn release(&mut self, id: ObjectId) -> Option<(ObjectRef, Vec<u32>)> {
        let entry = self.entries.get_mut(&id)?;
        entry.holds = entry.holds.saturating_sub(1);
        if entry.holds > 0 {
            return None;
        }
        let entry = self.entries.remove(&id)?;
        let mut agents = entry.copies;
        agents.push(entry.reference.node);
        Some((entry.reference, agents))
    }

    /// A copy lies at `agent` too. `false` when the object is unknown here, so that the copy can be dropped again.
    pub fn copied(&mut self, id: ObjectId, agent: u32) -> bool {
        let Some(entry) = self.entries.get_mut(&id) else {
            return false;
        };
        if entry.reference.node != agent && !entry.copies.contains(&agent) {
            entry.copies.push(agent);
        }
        true
    }

    /// The best place to read `id` from, after moves and losses.
    #[must_use]
    pub fn locate(&self, id: ObjectId) -> Option<&ObjectRef> {
        self.entries.get(&id).map(|entry| &entry.reference)
    }

    /// `agent` is gone: the objects of which no copy is left.
    pub fn agent_lost(&mut self, agent: u32) -> Vec<ObjectId> {
        let mut lost = Vec::new();
        self.entries.retain(|&id, entry| {
            entry.copies.retain(|&copy| copy != agent);
            if entry.reference.node != agent {
                return true;
            }
            // A copy's place inside its node's arenas is known to that node only, which finds it by the id.
            match entry.copies.pop() {
                Some(copy) => {
                    entry.reference = ObjectRef::new(id, entry.reference.len, copy, u64::MAX, 0);
                    true
                }
                None => {
                    lost.push(id);
                    false
                }
            }
        });
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(id: u128, node: u32) -> ObjectRef {
        ObjectRef::new(ObjectId(id), 8, node, 0, 0)
    }

    #[test]
    fn the_last_release_tells_every_agent_that_holds_bytes() {
        let mut objects = Objects::default();
        objects.hold(&object(1, 0));
        objects.hold(&object(1, 0));
        assert!(objects.copied(ObjectId(1), 2));
        assert_eq!(objects.release(ObjectId(1)), None);
        assert_eq!(objects.release(ObjectId(1)).map(|(_, agents)| agents), Some(vec![2, 0]));
        assert_eq!(objects.release(ObjectId(1)), None);
    }

    #[test]
    fn a_lost_agent_loses_only_objects_without_a_copy() {
        let mut objects = Objects::default();
        objects.hold(&object(1, 1));
        objects.hold(&object(2, 1));
        objects.copied(ObjectId(2), 0);
        assert_eq!(objects.agent_lost(1), vec![ObjectId(1)]);
        assert_eq!(objects.locate(ObjectId(2)).map(|o| o.node), Some(0));
    }
}
