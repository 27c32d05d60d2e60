//! Who still needs which object of the store, over all agents. Owns counts and locations; the stores themselves hold the bytes.

use bridgehead_spec::ObjectId;
use bridgehead_wire::ObjectRef;
use std::collections::HashMap;

#[derive(Debug)]
struct Entry {
    reference: ObjectRef,
    holds: u32,
    copies: Vec<u32>,
    /// Objects that its bytes name: it has a hold on each.
    refs: Vec<ObjectId>,
}

/// An object that nobody needs any more.
#[derive(Debug, PartialEq, Eq)]
pub struct Unneeded {
    /// The object.
    pub reference: ObjectRef,
    /// Agents that hold bytes of it.
    pub agents: Vec<u32>,
    /// Objects that it held.
    pub refs: Vec<ObjectId>,
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
            refs: Vec::new(),
        });
        entry.holds += 1;
    }

    /// The bytes of `id` name `refs`: they stay for as long as it does.
    pub fn contain(&mut self, id: ObjectId, refs: &[ObjectRef]) {
        let fresh = self.entries.get(&id).is_some_and(|entry| entry.refs.is_empty());
        if !fresh || refs.is_empty() {
            return;
        }
        let known: Vec<&ObjectRef> = refs.iter().filter(|r| self.entries.contains_key(&r.id())).collect();
        for object in &known {
            self.hold(object);
        }
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.refs = known.iter().map(|object| object.id()).collect();
        }
    }

    /// Gives a hold back. With the last one the agents that hold bytes are returned, to be told.
    pub fn release(&mut self, id: ObjectId) -> Option<Unneeded> {
        let entry = self.entries.get_mut(&id)?;
        entry.holds = entry.holds.saturating_sub(1);
        if entry.holds > 0 {
            return None;
        }
        let entry = self.entries.remove(&id)?;
        let mut agents = entry.copies;
        agents.push(entry.reference.node);
        Some(Unneeded {
            reference: entry.reference,
            agents,
            refs: entry.refs,
        })
    }

    /// How many there are, and their bytes.
    #[must_use]
    pub fn sizes(&self) -> (usize, u64) {
        (
            self.entries.len(),
            self.entries.values().map(|entry| entry.reference.len).sum(),
        )
    }

    /// The nodes that have it, the one that others read it from first.
    #[must_use]
    pub fn nodes(&self, id: ObjectId) -> Vec<u32> {
        let Some(entry) = self.entries.get(&id) else {
            return Vec::new();
        };
        let first = std::iter::once(entry.reference.node);
        first.chain(entry.copies.iter().copied()).collect()
    }

    /// Others read `id` from `node` from now on, which has a copy.
    pub fn prefer(&mut self, id: ObjectId, node: u32) {
        let Some(entry) = self.entries.get_mut(&id) else { return };
        if let Some(at) = entry.copies.iter().position(|&copy| copy == node) {
            entry.copies[at] = entry.reference.node;
            entry.reference = entry.reference.at(node);
        }
    }

    /// The copy of an object on the node that others read it from lies in another memory now.
    pub fn moved(&mut self, to: &ObjectRef) {
        let entry = self.entries.get_mut(&to.id());
        if let Some(entry) = entry.filter(|entry| entry.reference.node == to.node) {
            entry.reference = to.clone();
        }
    }

    /// The copy of `id` on `node` is not needed; what to tell that node. Never the last one.
    pub fn drop_copy(&mut self, id: ObjectId, node: u32) -> Option<ObjectRef> {
        let entry = self.entries.get_mut(&id)?;
        let at = entry.copies.iter().position(|&copy| copy == node)?;
        entry.copies.swap_remove(at);
        Some(entry.reference.clone())
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

    /// `agent` is gone: the objects of which no copy is left, and those that they held.
    pub fn agent_lost(&mut self, agent: u32) -> (Vec<ObjectId>, Vec<ObjectId>) {
        let (mut lost, mut held) = (Vec::new(), Vec::new());
        self.entries.retain(|&id, entry| {
            entry.copies.retain(|&copy| copy != agent);
            if entry.reference.node != agent {
                return true;
            }
            // A copy's place inside its node's arenas is known to that node only, which finds it by the id.
            match entry.copies.pop() {
                Some(copy) => {
                    entry.reference = entry.reference.at(copy);
                    true
                }
                None => {
                    lost.push(id);
                    held.append(&mut entry.refs);
                    false
                }
            }
        });
        (lost, held)
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
        assert_eq!(objects.release(ObjectId(1)).map(|gone| gone.agents), Some(vec![2, 0]));
        assert_eq!(objects.release(ObjectId(1)), None);
    }

    #[test]
    fn a_lost_agent_loses_only_objects_without_a_copy() {
        let mut objects = Objects::default();
        objects.hold(&object(1, 1));
        objects.hold(&object(2, 1));
        objects.copied(ObjectId(2), 0);
        assert_eq!(objects.agent_lost(1).0, vec![ObjectId(1)]);
        assert_eq!(objects.locate(ObjectId(2)).map(|o| o.node), Some(0));
    }
    #[test]
    fn an_object_holds_those_that_its_bytes_name_until_it_goes() {
        let mut objects = Objects::default();
        objects.hold(&object(1, 0));
        objects.hold(&object(2, 1));
        objects.contain(ObjectId(1), &[object(2, 1), object(9, 0)]);
        assert_eq!(objects.release(ObjectId(2)), None, "the first one holds it");
        let gone = objects.release(ObjectId(1)).expect("nobody else holds it");
        assert_eq!(gone.refs, [ObjectId(2)], "what is gone already is not held");
        assert!(objects.release(ObjectId(2)).is_some());
    }

    #[test]
    fn a_moved_object_is_read_from_its_new_node_and_never_loses_its_last_copy() {
        let mut objects = Objects::default();
        objects.hold(&object(1, 0));
        objects.prefer(ObjectId(1), 1);
        assert_eq!(objects.nodes(ObjectId(1)), [0], "there is no copy to prefer");
        objects.copied(ObjectId(1), 1);
        objects.prefer(ObjectId(1), 1);
        assert_eq!(objects.nodes(ObjectId(1)), [1, 0]);
        assert!(objects.drop_copy(ObjectId(1), 0).is_some());
        assert!(objects.drop_copy(ObjectId(1), 1).is_none());
    }

    #[test]
    fn a_move_within_a_node_is_known_only_where_others_read_the_object() {
        let mut objects = Objects::default();
        objects.hold(&object(1, 0));
        let elsewhere = |node| ObjectRef {
            numa: 2,
            ..object(1, node)
        };
        objects.moved(&elsewhere(1));
        assert_eq!(objects.locate(ObjectId(1)), Some(&object(1, 0)));
        objects.moved(&elsewhere(0));
        assert_eq!(objects.locate(ObjectId(1)), Some(&elsewhere(0)));
    }
}
