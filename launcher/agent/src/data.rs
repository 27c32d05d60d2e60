//! Objects that calls, the head and workers want on this node: who waits for which, one transfer for each; what calls keep
//! in memory, and what workers hold. Owns the tables; the node's store moves the bytes.

use bridgehead_spec::ObjectId;
use bridgehead_wire::{ObjectRef, TaskCall, Value, value};
use std::collections::HashMap;
use std::time::Instant;

/// Who waits for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A call that is held back until all its objects are here.
    Call(u64),
    /// The head, with its token.
    Head(u64),
    /// A worker or a guest, with its token.
    Worker(u32, u64),
}

/// Transfers under way and the calls that they hold back.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    askers: HashMap<ObjectId, (Instant, Vec<Asker>)>,
    held: HashMap<u64, (TaskCall, usize)>,
}

impl Transfers {
    /// Notes that `asker` waits for `id`; `true` when no transfer of it is under way yet.
    pub(crate) fn ask(&mut self, id: ObjectId, asker: Asker) -> bool {
        let (_, askers) = self.askers.entry(id).or_insert_with(|| (Instant::now(), Vec::new()));
        askers.push(asker);
        askers.len() == 1
    }

    /// The transfer of `id` is over: when it began, and those who waited.
    pub(crate) fn over(&mut self, id: ObjectId) -> Option<(Instant, Vec<Asker>)> {
        self.askers.remove(&id)
    }

    /// Holds a call back until `missing` things have come: objects, and its files together.
    pub(crate) fn hold(&mut self, call: TaskCall, missing: usize) {
        self.held.insert(call.task, (call, missing));
    }

    /// One object of a held call is here; the call, when it was the last one.
    pub(crate) fn arrived(&mut self, task: u64, place: &ObjectRef) -> Option<TaskCall> {
        let (call, _) = self.held.get_mut(&task)?;
        for object in objects(call).filter(|object| object.id() == place.id()) {
            *object = place.clone();
        }
        let attempt = call.attempt;
        self.one_less(task, attempt)
    }

    /// One thing that a held call waits for is here; the call, when it was the last one.
    pub(crate) fn one_less(&mut self, task: u64, attempt: u32) -> Option<TaskCall> {
        let (_, missing) = self.held.get_mut(&task).filter(|(call, _)| call.attempt == attempt)?;
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        self.release(task)
    }

    /// The attempt of this task that is held back.
    pub(crate) fn held_attempt(&self, task: u64) -> Option<u32> {
        self.held.get(&task).map(|(call, _)| call.attempt)
    }

    /// Whether the call of this task is held back.
    pub(crate) fn is_held(&self, task: u64) -> bool {
        self.held.contains_key(&task)
    }

    /// Takes a held call out: it failed or was cancelled, or has all it needs.
    pub(crate) fn release(&mut self, task: u64) -> Option<TaskCall> {
        self.held.remove(&task).map(|(call, _)| call)
    }

    /// The tasks of all held calls.
    pub(crate) fn held(&self) -> impl Iterator<Item = u64> {
        self.held.keys().copied()
    }
}

/// What calls keep in this node's memory, by task, and how much of it. Calls that were given ahead keep theirs too, so there is
/// a bound: without it they would fill a small store with what none of them can use yet.
#[derive(Debug)]
pub(crate) struct Pins {
    most: u64,
    bytes: u64,
    by_task: HashMap<u64, (u64, Vec<ObjectId>)>,
}

impl Pins {
    /// Calls may keep about `most` bytes together; one alone may keep more.
    pub(crate) fn new(most: u64) -> Self {
        Self {
            most,
            bytes: 0,
            by_task: HashMap::new(),
        }
    }

    /// Takes in a task that will keep `bytes`; `false` when there is no room for them beside the others'.
    pub(crate) fn admit(&mut self, task: u64, bytes: u64) -> bool {
        if bytes == 0 {
            return true;
        }
        if self.bytes > 0 && self.bytes.saturating_add(bytes) > self.most {
            return false;
        }
        self.bytes = self.bytes.saturating_add(bytes);
        self.by_task.entry(task).or_default().0 += bytes;
        true
    }

    /// A task keeps one more pin.
    pub(crate) fn add(&mut self, task: u64, id: ObjectId) {
        self.by_task.entry(task).or_default().1.push(id);
    }

    /// A task has ended: what it kept.
    pub(crate) fn remove(&mut self, task: u64) -> Vec<ObjectId> {
        let (bytes, ids) = self.by_task.remove(&task).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(bytes);
        ids
    }
}

/// What each worker and each guest holds of the run's objects: what it put, and results that were delivered to it.
#[derive(Debug, Default)]
pub(crate) struct Holds(HashMap<u32, HashMap<ObjectId, (ObjectRef, u32)>>);

impl Holds {
    /// A worker has one more hold on an object.
    pub(crate) fn add(&mut self, worker: u32, object: &ObjectRef) {
        let theirs = self.0.entry(worker).or_default();
        theirs.entry(object.id()).or_insert_with(|| (object.clone(), 0)).1 += 1;
    }

    /// A worker gives a hold back; `false` when it has none.
    pub(crate) fn give_back(&mut self, worker: u32, id: ObjectId) -> bool {
        let Some(theirs) = self.0.get_mut(&worker) else {
            return false;
        };
        let Some((_, count)) = theirs.get_mut(&id) else {
            return false;
        };
        *count -= 1;
        if *count == 0 {
            theirs.remove(&id);
        }
        true
    }

    /// A worker is gone: all that it held, one entry a hold.
    pub(crate) fn drop_worker(&mut self, worker: u32) -> Vec<ObjectRef> {
        let theirs = self.0.remove(&worker).unwrap_or_default();
        let each = |(object, count): (ObjectRef, u32)| std::iter::repeat_n(object, count as usize);
        theirs.into_values().flat_map(each).collect()
    }
}

/// The stored objects among a call's arguments and inputs, without those that it gets as references.
pub(crate) fn objects(call: &mut TaskCall) -> impl Iterator<Item = &mut ObjectRef> {
    let TaskCall { args, inputs, lazy, .. } = call;
    let whole = (0_u32..).zip(inputs).filter(|(position, _)| !lazy.contains(position));
    let values = args.iter_mut().chain(whole.map(|(_, value)| value));
    values.filter_map(|value: &mut Value| match &mut value.kind {
        Some(value::Kind::Stored(object)) => Some(object),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(id: u128, node: u32) -> ObjectRef {
        ObjectRef::new(ObjectId(id), 8, node, 0, 0)
    }

    #[test]
    fn calls_keep_no_more_than_their_share_unless_one_alone_does() {
        let mut pins = Pins::new(100);
        assert!(pins.admit(1, 500), "one alone may keep more");
        assert!(!pins.admit(2, 1));
        assert!(pins.admit(3, 0), "a call without objects needs no room");
        pins.add(1, ObjectId(7));
        assert_eq!(pins.remove(1), [ObjectId(7)]);
        assert!(pins.admit(2, 60) && pins.admit(4, 40) && !pins.admit(5, 1));
    }

    #[test]
    fn an_object_that_many_want_is_transferred_once() {
        let mut transfers = Transfers::default();
        assert!(transfers.ask(ObjectId(1), Asker::Head(5)));
        assert!(!transfers.ask(ObjectId(1), Asker::Worker(2, 6)));
        let over = transfers.over(ObjectId(1)).map(|(_, askers)| askers);
        assert_eq!(over, Some(vec![Asker::Head(5), Asker::Worker(2, 6)]));
        assert!(transfers.ask(ObjectId(1), Asker::Head(7)));
    }

    #[test]
    fn a_call_goes_on_when_its_last_object_is_here_and_names_the_new_places() {
        let mut transfers = Transfers::default();
        let inputs = [object(1, 1), object(2, 1), object(1, 1)].map(Value::stored).to_vec();
        let call = TaskCall {
            task: 3,
            inputs,
            ..TaskCall::default()
        };
        transfers.hold(call, 2);
        assert_eq!(transfers.arrived(3, &object(1, 0)), None);
        let call = transfers.arrived(3, &object(2, 0)).expect("all are here");
        assert!(
            call.inputs
                .iter()
                .filter_map(Value::object)
                .all(|object| object.node == 0)
        );
        assert_eq!(transfers.held().count(), 0);
    }
}
