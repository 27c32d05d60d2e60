//! Objects on their way to this node and out of it: for calls, for the head, for workers.

use super::{Agent, Event};
use crate::calls::Waiting;
use crate::data::{Arrival, Asker, objects};
use bridgehead_spec::ObjectId;
use bridgehead_wire::{
    Copied, Failure, FailureCause, Fetch, Fetched, ObjectRef, Outcome, Persist, Persisted, TaskCall, Value,
};
use std::collections::BTreeMap;
use std::path::{Component, Path};

fn lost(object: ObjectId, reason: &str) -> Outcome {
    let message = format!("object {object} cannot be had on this node: {reason}");
    Outcome::failure(Failure::new(FailureCause::LostNode, "object-lost", message))
}

impl Agent {
    /// Queues a call once all objects that it takes are on this node.
    pub(super) fn admit(&mut self, mut call: TaskCall) {
        let mut missing = BTreeMap::new();
        for object in objects(&mut call) {
            match self.store.find(object) {
                Some(place) => *object = place,
                None => drop(missing.insert(object.id(), object.clone())),
            }
        }
        if missing.is_empty() {
            return self.queue.push_back(Waiting::new(call));
        }
        let task = call.task;
        self.transfers.hold(call, missing.len());
        for object in missing.into_values() {
            self.bring(&object, Asker::Call(task));
        }
    }

    fn bring(&mut self, object: &ObjectRef, asker: Asker) {
        let id = object.id();
        if self.transfers.ask(id, asker) {
            let events = self.events.clone();
            let done = move |arrival| {
                let _ = events.send(Event::Arrived(id, arrival)); // The loop is gone only at the end.
            };
            self.store.fetch(object, Box::new(done));
        }
    }

    /// The head or a worker wants an object here.
    pub(super) fn on_fetch(&mut self, fetch: Fetch, asker: Asker) {
        let Some(object) = fetch.object else {
            let failure = Failure::new(FailureCause::System, "object-lost", "the request names no object");
            return self.answer(&asker, Outcome::failure(failure));
        };
        match self.store.find(&object) {
            Some(place) => self.answer(&asker, Outcome::value(Value::stored(place))),
            None => self.bring(&object, asker),
        }
    }

    pub(super) fn on_arrived(&mut self, id: ObjectId, arrival: Arrival) {
        if let Ok(place) = &arrival {
            self.tell(Copied {
                object: Some(place.clone()),
            });
        }
        for asker in self.transfers.over(id) {
            match (&arrival, asker) {
                (Ok(place), Asker::Call(task)) => {
                    if let Some(call) = self.transfers.arrived(task, place) {
                        self.queue.push_back(Waiting::new(call));
                    }
                }
                (Err(reason), Asker::Call(task)) => {
                    if let Some(call) = self.transfers.release(task) {
                        self.report(&call, lost(id, reason));
                    }
                }
                (Ok(place), asker) => self.answer(&asker, Outcome::value(Value::stored(place.clone()))),
                (Err(reason), asker) => self.answer(&asker, lost(id, reason)),
            }
        }
    }

    fn answer(&mut self, asker: &Asker, outcome: Outcome) {
        let outcome = Some(outcome);
        match *asker {
            Asker::Head(token) => self.tell(Fetched { token, outcome }),
            Asker::Worker(id, token) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.outbox.push(Fetched { token, outcome });
                }
            }
            Asker::Call(_) => {}
        }
    }

    /// Writes an object into the run folder, never outside it.
    pub(super) fn on_persist(&self, persist: Persist) {
        let Persist { task, object, path } = persist;
        let events = self.events.clone();
        let answer = {
            let path = path.clone();
            move |written: Result<u64, String>| {
                let (error, len) = written.map_or_else(|error| (error, 0), |len| (String::new(), len));
                let _ = events.send(Event::Persisted(Persisted { task, error, path, len }));
            }
        };
        let inside = Path::new(&path)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        match object {
            Some(object) if inside && !path.is_empty() => {
                let path = self.options.folder.path().join(&path);
                self.store.persist(&object, &path, Box::new(answer));
            }
            Some(_) => answer(Err(format!("{path:?} is no path inside the run folder"))),
            None => answer(Err("the request names no object".to_owned())),
        }
    }
}
