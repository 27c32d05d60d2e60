//! Objects that calls, the head and workers want on this node: who waits for which, one transfer for each.
//! Owns the table of transfers and the port to the node's store; moves no byte itself.

use bridgehead_spec::ObjectId;
use bridgehead_wire::{Heartbeat, ObjectRef, TaskCall, Value, value};
use std::collections::HashMap;
use std::path::Path;

/// What became of a transfer: where the object now lies on this node, or why it cannot be had.
pub(crate) type Arrival = Result<ObjectRef, String>;

/// The node's store, as far as the agent needs it. `done` may be called from any thread.
pub(crate) trait Store {
    /// Where an object lies on this node, if it does.
    fn find(&self, object: &ObjectRef) -> Option<ObjectRef>;
    /// Brings an object here from the node that its reference names.
    fn fetch(&self, object: &ObjectRef, done: Box<dyn FnOnce(Arrival) + Send>);
    /// Writes an object to a file: to a temporary name, synced, then renamed. Gives the bytes written.
    fn persist(&self, object: &ObjectRef, path: &Path, done: Box<dyn FnOnce(Result<u64, String>) + Send>);
    /// The run needs the object no more.
    fn release(&self, object: &ObjectRef);
    /// How full it is.
    fn usage(&self) -> Heartbeat;
}

/// A node without a store: what a reference names on this node is left to the worker that opens it, all else is refused.
#[derive(Debug)]
pub(crate) struct NoStore {
    pub agent: u32,
}

impl Store for NoStore {
    fn find(&self, object: &ObjectRef) -> Option<ObjectRef> {
        (object.node == self.agent).then(|| object.clone())
    }

    fn fetch(&self, object: &ObjectRef, done: Box<dyn FnOnce(Arrival) + Send>) {
        done(Err(format!(
            "agent {} has no store that could take it from node {}",
            self.agent, object.node
        )));
    }

    fn persist(&self, _: &ObjectRef, path: &Path, done: Box<dyn FnOnce(Result<u64, String>) + Send>) {
        done(Err(format!(
            "agent {} has no store to write {} from",
            self.agent,
            path.display()
        )));
    }

    fn release(&self, _: &ObjectRef) {}

    fn usage(&self) -> Heartbeat {
        Heartbeat::default()
    }
}

/// Who waits for an object.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A call that is held back until all its objects are here.
    Call(u64),
    /// The head, with its token.
    Head(u64),
    /// A worker, with its token.
    Worker(u32, u64),
}

/// Transfers under way and the calls that they hold back.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    askers: HashMap<ObjectId, Vec<Asker>>,
    held: HashMap<u64, (TaskCall, usize)>,
}

impl Transfers {
    /// Notes that `asker` waits for `id`; `true` when no transfer of it is under way yet.
    pub(crate) fn ask(&mut self, id: ObjectId, asker: Asker) -> bool {
        let askers = self.askers.entry(id).or_default();
        askers.push(asker);
        askers.len() == 1
    }

    /// The transfer of `id` is over: those who waited.
    pub(crate) fn over(&mut self, id: ObjectId) -> Vec<Asker> {
        self.askers.remove(&id).unwrap_or_default()
    }

    /// Holds a call back until `missing` objects have come.
    pub(crate) fn hold(&mut self, call: TaskCall, missing: usize) {
        self.held.insert(call.task, (call, missing));
    }

    /// One object of a held call is here; the call, when it was the last one.
    pub(crate) fn arrived(&mut self, task: u64, place: &ObjectRef) -> Option<TaskCall> {
        let (call, missing) = self.held.get_mut(&task)?;
        for object in objects(call).filter(|object| object.id() == place.id()) {
            *object = place.clone();
        }
        *missing -= 1;
        if *missing > 0 {
            return None;
        }
        self.release(task)
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

/// The stored objects among a call's arguments and inputs.
pub(crate) fn objects(call: &mut TaskCall) -> impl Iterator<Item = &mut ObjectRef> {
    let values = call.args.iter_mut().chain(&mut call.inputs);
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
    fn an_object_that_many_want_is_transferred_once() {
        let mut transfers = Transfers::default();
        assert!(transfers.ask(ObjectId(1), Asker::Head(5)));
        assert!(!transfers.ask(ObjectId(1), Asker::Worker(2, 6)));
        assert_eq!(transfers.over(ObjectId(1)), [Asker::Head(5), Asker::Worker(2, 6)]);
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
