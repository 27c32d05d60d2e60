//! Objects on their way to this node and out of it: for calls, for the head, for workers.

use super::ends::{epoch_ns, nanos};
use super::files::Wanting;
use super::{Agent, Event};
use crate::calls::Waiting;
use crate::data::{Asker, objects};
use bridgehead_spec::ObjectId;
use bridgehead_store_node::Arrival;
use bridgehead_wire::{
    AgentWelcome, Copied, FabricAddress, Failure, FailureCause, Fetch, Fetched, HoldObjects, Locate, Located, Memory,
    ObjectRef, Outcome, Peers, PutObject, ReleaseObjects, TaskCall, TaskDone, Value,
};
use std::collections::BTreeMap;
use std::time::Instant;

fn lost(object: ObjectId, reason: &str) -> Outcome {
    let message = format!("object {object} cannot be had on this node: {reason}");
    Outcome::failure(Failure::new(FailureCause::LostNode, "object-lost", message))
}

/// The outcome of a task whose value the store would not take over.
fn unpublished(object: ObjectId, reason: &str) -> Outcome {
    let message = format!("its result (object {object}) could not be taken over by the store: {reason}");
    Outcome::failure(Failure::new(FailureCause::LostNode, "object-lost", message))
}

/// Whether the wanted bytes are all in the object.
fn has_range(object: &ObjectRef, fetch: &Fetch) -> bool {
    fetch.offset.checked_add(fetch.len).is_some_and(|end| end <= object.len)
}

impl Agent {
    /// Queues a call once all objects that it takes are in this node's memory, where they stay until it has ended.
    pub(super) fn admit(&mut self, mut call: TaskCall) {
        let task = call.task;
        let bytes = objects(&mut call).map(|object| object.len).sum();
        // Behind others that wait for room, so that a large one is not passed over for ever.
        if (bytes > 0 && !self.backlog.is_empty()) || !self.pins.admit(task, bytes) {
            return self.backlog.push_back(call);
        }
        self.gather_objects(call);
    }

    /// Takes in calls that waited for room, as far as there is some now.
    fn admit_more(&mut self) {
        while let Some(mut call) = self.backlog.pop_front() {
            let bytes = objects(&mut call).map(|object| object.len).sum();
            if !self.pins.admit(call.task, bytes) {
                return self.backlog.push_front(call);
            }
            self.gather_objects(call);
        }
    }

    fn gather_objects(&mut self, mut call: TaskCall) {
        let mut missing = BTreeMap::new();
        let task = call.task;
        for object in objects(&mut call) {
            match self.store.pin(object.id()) {
                Some(place) => {
                    self.pins.add(task, place.id());
                    *object = place;
                }
                None => drop(missing.insert(object.id(), object.clone())),
            }
        }
        let files = self.missing_files(&call);
        if missing.is_empty() && files.is_empty() {
            return self.queue.push_back(Waiting::new(call, self.options.agent.0));
        }
        let attempt = call.attempt;
        self.transfers
            .hold(call, missing.len() + usize::from(!files.is_empty()));
        if !files.is_empty() {
            self.bring_files(files, Wanting::Call(task, attempt));
        }
        for object in missing.into_values() {
            self.bring(&object, Asker::Call(task));
        }
    }

    fn bring(&mut self, object: &ObjectRef, asker: Asker) {
        let id = object.id();
        if self.transfers.ask(id, asker) {
            let events = self.events.clone();
            let wanted = object.clone();
            let done = move |arrival| {
                let _ = events.send(Event::Arrived(wanted, arrival)); // The loop is gone only at the end.
            };
            self.store.bring(object, Box::new(done));
        }
    }

    /// An object is to lie in the memory of one of this node's NUMA nodes.
    fn move_to_numa(&mut self, object: &ObjectRef, fetch: &Fetch, asker: Asker) {
        let done = self.settled(asker, fetch);
        self.store.bring_near(object, fetch.turn, done);
    }

    /// What tells this agent that an object lies in the memory that somebody wanted it in, or cannot.
    pub(super) fn settled(&self, asker: Asker, fetch: &Fetch) -> Box<dyn FnOnce(Arrival) + Send> {
        let (events, asked, begun) = (self.events.clone(), fetch.clone(), Instant::now());
        Box::new(move |arrival| {
            let _ = events.send(Event::Settled(asker, asked, begun, arrival)); // As in `bring`.
        })
    }

    /// An object lies in the memory that was wanted, or cannot.
    pub(super) fn on_settled(&mut self, asker: Asker, fetch: &Fetch, begun: Instant, arrival: Arrival) {
        let Some(object) = &fetch.object else { return };
        let on_gpu = fetch.memory() == Memory::Gpu;
        let place = match arrival {
            Ok(place) => place,
            Err(reason) if on_gpu => return self.answer(&asker, super::gpus::refused(reason)),
            Err(reason) => return self.answer(&asker, lost(object.id(), &reason)),
        };
        if object.node != place.node {
            self.tell(Copied {
                object: Some(place.clone()),
                started_ns: epoch_ns(begun),
                elapsed_ns: nanos(begun.elapsed()),
            });
        }
        if !on_gpu {
            self.store.unpin(place.id()); // What lies on a GPU comes without a pin.
        }
        self.answer(&asker, Outcome::value(Value::stored(place)));
    }

    /// The head or a worker wants an object here.
    pub(super) fn on_fetch(&mut self, fetch: Fetch, asker: Asker) {
        match &fetch.object {
            Some(object) if fetch.memory() == Memory::Gpu => self.move_to_gpu(object, &fetch, asker),
            Some(object) if fetch.memory() == Memory::Numa => self.move_to_numa(object, &fetch, asker),
            // What has a sum comes whole, for all who want parts of it.
            Some(object) if fetch.len == 0 || (object.sum != 0 && has_range(object, &fetch)) => {
                self.bring(object, asker)
            }
            Some(object) => {
                let events = self.events.clone();
                let asked = fetch.clone();
                let done = move |arrival| {
                    let _ = events.send(Event::Ranged(asker, asked, arrival)); // As in `bring`.
                };
                self.store.bring_range(object, fetch.offset, fetch.len, Box::new(done));
            }
            None => {
                let failure = Failure::new(FailureCause::System, "object-lost", "the request names no object");
                self.answer(&asker, Outcome::failure(failure));
            }
        }
    }

    /// An object is here, with one pin, or cannot be had.
    pub(super) fn on_arrived(&mut self, object: &ObjectRef, arrival: Arrival) {
        let id = object.id();
        let Some((begun, askers)) = self.transfers.over(id) else {
            return;
        };
        if let Ok(place) = &arrival {
            self.tell(Copied {
                object: Some(place.clone()),
                started_ns: epoch_ns(begun),
                elapsed_ns: nanos(begun.elapsed()),
            });
        }
        for asker in askers {
            match (&arrival, asker) {
                (Ok(place), Asker::Call(task)) => self.on_input(task, place),
                (Err(reason), Asker::Call(task)) => {
                    if let Some(call) = self.transfers.release(task) {
                        self.report(&call, lost(id, reason));
                    }
                }
                (Ok(place), asker) => self.answer(&asker, Outcome::value(Value::stored(place.clone()))),
                (Err(reason), asker) => {
                    let fetch = Fetch {
                        object: Some(object.clone()),
                        ..Fetch::default()
                    };
                    self.seek(asker, fetch, reason);
                }
            }
        }
        if arrival.is_ok() {
            self.store.unpin(id); // Each call has a pin of its own.
        }
    }

    /// Bytes of an object are here, with one pin: in an object of their own, or in the whole one. Or they cannot be had.
    pub(super) fn on_ranged(&mut self, asker: Asker, fetch: &Fetch, arrival: Arrival) {
        let Some(whole) = fetch.object.as_ref().map(ObjectRef::id) else {
            return;
        };
        let place = match arrival {
            Ok(place) => place,
            Err(reason) => return self.seek(asker, fetch.clone(), &reason),
        };
        let id = place.id();
        let ranged = id != whole;
        if let (true, Asker::Worker(worker, _)) = (ranged, asker) {
            self.holds.add(worker, &place);
            let object = Some(place.clone());
            self.tell(PutObject { object });
        }
        self.answer_with(&asker, Outcome::value(Value::stored(place)), ranged);
        self.store.unpin(id);
    }

    /// What a worker wants is not where it was said to be: the head knows whether it is elsewhere, or is being made again.
    fn seek(&mut self, asker: Asker, fetch: Fetch, reason: &str) {
        let object = fetch.object.clone();
        let id = object.as_ref().map_or(ObjectId(0), ObjectRef::id);
        if !matches!(asker, Asker::Worker(..)) {
            return self.answer(&asker, lost(id, reason)); // The head seeks by itself.
        }
        tracing::debug!(object = %id, reason, "asking the head where an object is");
        let token = self.next_locate;
        self.next_locate += 1;
        self.located.insert(token, (asker, fetch));
        self.tell(Locate { token, object });
    }

    /// The head knows where it is, or that it is lost.
    pub(super) fn on_located(&mut self, located: Located) {
        let Some((asker, fetch)) = self.located.remove(&located.token) else {
            return;
        };
        let outcome = located.outcome.unwrap_or_default();
        let Some(object) = outcome.object().cloned() else {
            return self.answer(&asker, outcome);
        };
        let object = Some(object);
        self.on_fetch(Fetch { object, ..fetch }, asker);
    }

    fn on_input(&mut self, task: u64, place: &ObjectRef) {
        if !self.transfers.is_held(task) {
            return; // It was cancelled meanwhile.
        }
        if self.store.pin(place.id()).is_some() {
            self.pins.add(task, place.id());
        }
        if let Some(call) = self.transfers.arrived(task, place) {
            self.queue.push_back(Waiting::new(call, self.options.agent.0));
        }
    }

    /// Tells the head of an attempt's end: its value is published first, what it held in memory is let go after.
    pub(super) fn tell_done(&mut self, mut done: TaskDone) {
        let stored = done.outcome.as_ref().and_then(Outcome::object);
        if let Some(object) = stored {
            if let Err(error) = self.store.publish(object) {
                tracing::warn!(task = done.task, object = %object.id(), %error, "a result is lost");
                done.outcome = Some(unpublished(object.id(), &error.to_string()));
            }
        }
        let task = done.task;
        self.tell(done);
        for id in self.pins.remove(task) {
            self.store.unpin(id);
        }
        if !self.backlog.is_empty() {
            self.admit_more();
        }
    }

    /// Joins the network between the stores of the run, once, where there are others. Without it the run goes on, and
    /// what needs an object of another node fails with the reason.
    pub(super) fn join_network(&mut self, welcome: &AgentWelcome) {
        let Ok(key) = <[u8; 32]>::try_from(welcome.data_key.as_ref()) else {
            return; // Only the head's own welcome holds the key.
        };
        if self.joined || welcome.agents < 2 {
            return;
        }
        self.joined = true;
        let fabric = match (self.options.fabric.0)(self.options.agent.0, key) {
            Ok(fabric) => fabric,
            Err(error) => return tracing::error!(error, "cannot join the network between the nodes of the run"),
        };
        let address = fabric.address();
        match self.store.connect(fabric) {
            Ok(()) => self.tell(FabricAddress { address }),
            Err(error) => tracing::error!(%error, "the store cannot join the network between the nodes of the run"),
        }
    }

    /// The nodes of the run, as they are now.
    pub(super) fn on_peers(&self, peers: Peers) {
        let peers = peers.peers.into_iter().map(|peer| (peer.agent, peer.fabric_address));
        self.store.set_peers(peers.collect());
    }

    /// A process of this node wrote an object that is the run's from now on.
    pub(super) fn on_put(&mut self, object: &ObjectRef) {
        if let Err(error) = self.store.publish(object) {
            // Whoever takes it learns that it cannot be had.
            tracing::warn!(object = %object.id(), %error, "an object that was put is lost");
        }
    }

    /// A worker or a guest put an object: the head counts its hold.
    pub(super) fn on_worker_put(&mut self, worker: u32, put: PutObject) {
        if let Some(object) = &put.object {
            self.on_put(object);
            self.holds.add(worker, object);
            self.tell(put);
        }
    }

    /// A worker or a guest takes holds of its own.
    pub(super) fn on_worker_hold(&mut self, worker: u32, hold: HoldObjects) {
        for object in &hold.objects {
            self.holds.add(worker, object);
        }
        self.tell(hold);
    }

    /// A worker or a guest wants an object on this node.
    pub(super) fn on_worker_fetch(&mut self, worker: u32, fetch: Fetch) {
        let asker = Asker::Worker(worker, fetch.token);
        self.on_fetch(fetch, asker);
    }

    /// A worker or a guest gives holds back.
    pub(super) fn on_worker_release(&mut self, worker: u32, mut release: ReleaseObjects) {
        release
            .objects
            .retain(|object| self.holds.give_back(worker, object.id()));
        self.tell(release);
    }

    pub(super) fn answer(&mut self, asker: &Asker, outcome: Outcome) {
        self.answer_with(asker, outcome, false);
    }

    fn answer_with(&mut self, asker: &Asker, outcome: Outcome, ranged: bool) {
        let outcome = Some(outcome);
        match *asker {
            Asker::Head(token) => self.tell(Fetched { token, outcome, ranged }),
            Asker::Worker(id, token) => {
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.outbox.push(Fetched { token, outcome, ranged });
                } else if let Some(guest) = self.guests.get_mut(&id) {
                    guest.outbox.push_to_guest(Fetched { token, outcome, ranged });
                }
            }
            Asker::Call(_) => {}
        }
    }
}
