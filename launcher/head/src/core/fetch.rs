//! Values that clients want from other nodes: fetched from where they lie, read from the run folder, or waited for while their
//! task makes them again, because the node that they lay on is gone. Owns the fetches that are under way.

use super::{ConnId, Core};
use crate::state::{End, Phase};
use bridgehead_spec::ObjectId;
use bridgehead_wire::{Failure, FailureCause, Fetch, Fetched, Locate, Located, ObjectRef, Outcome, Value, outcome};

/// A fetch that failed waits so long for the news that the agent is gone which should have had the object, nanoseconds.
const NEWS: u64 = 5_000_000_000;

/// Who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    /// A client wants it on the head's node.
    Client(ConnId),
    /// An agent could not get it where it looked, on this node.
    Agent(u32, u32),
}

/// A fetch for a client, or an agent's question where an object is.
#[derive(Debug)]
pub(super) struct Fetching {
    whose: For,
    /// Its token.
    token: u64,
    object: Option<ObjectRef>,
    /// Which bytes of it: offset and length; a length of 0 is all.
    range: (u64, u64),
    /// It waits for this task.
    task: Option<u64>,
    /// What came of it, until when it waits for news, where an agent may be gone.
    failed: Option<(Outcome, u64)>,
}

fn lost(reason: &str) -> Outcome {
    Outcome::failure(Failure::new(FailureCause::LostNode, "object-lost", reason))
}

impl Core {
    /// A client wants an object on its node, which is the head's.
    pub(super) fn on_fetch(&mut self, conn: ConnId, fetch: Fetch) {
        let token = self.next_fetch;
        self.next_fetch += 1;
        let fetching = Fetching {
            whose: For::Client(conn),
            token: fetch.token,
            object: fetch.object,
            range: (fetch.offset, fetch.len),
            task: None,
            failed: None,
        };
        self.fetches.insert(token, fetching);
        self.seek(token);
    }

    /// An agent could not get an object where its reference says.
    pub(super) fn on_locate(&mut self, agent: u32, locate: Locate) {
        let token = self.next_fetch;
        self.next_fetch += 1;
        let tried = locate.object.as_ref().map_or(agent, |object| object.node);
        let fetching = Fetching {
            whose: For::Agent(agent, tried),
            token: locate.token,
            object: locate.object,
            range: (0, 0),
            task: None,
            failed: None,
        };
        self.fetches.insert(token, fetching);
        self.seek(token);
    }

    /// The client of some fetches is gone.
    pub(super) fn forget_fetches(&mut self, conn: ConnId) {
        self.fetches.retain(|_, fetching| fetching.whose != For::Client(conn));
    }

    fn seek(&mut self, token: u64) {
        let Some(fetching) = self.fetches.get_mut(&token) else {
            return;
        };
        fetching.failed = None;
        let object = fetching.object.clone();
        let id = object.as_ref().map(ObjectRef::id);
        let place = id.and_then(|id| self.objects.locate(id)).cloned();
        let task = id.and_then(|id| self.lost_objects.get(&id)).copied();
        match (place, task, fetching.whose) {
            (None, Some(task), _) => self.seek_again(token, task),
            (Some(place), _, For::Agent(_, tried)) if place.node != tried => {
                self.answer_fetch(token, Outcome::value(Value::stored(place)));
            }
            (Some(_), _, For::Agent(..)) => {
                let until = self.now_ns.saturating_add(NEWS);
                fetching.failed = Some((lost("its node does not have it any more"), until));
            }
            (None, None, For::Agent(..)) => self.answer_fetch(token, lost("its node went down with the only copy")),
            (place, ..) => self.fetch_here(token, place.or(object)),
        }
    }

    fn fetch_here(&mut self, token: u64, object: Option<ObjectRef>) {
        let Some(fetching) = self.fetches.get(&token) else {
            return;
        };
        let (offset, len) = fetching.range;
        let fetch = Fetch {
            token,
            object,
            offset,
            len,
            ..Fetch::default()
        };
        self.tell_agent(0, fetch);
    }

    /// What a task had made is lost: its file, its new value, or the wait for that.
    fn seek_again(&mut self, token: u64, task: u64) {
        if self.lost_values.contains(&task) && !self.is_over() {
            self.make_again(task);
        }
        let Some(row) = self.state.row(task) else { return };
        let found = match &row.end {
            End::Value(value) if row.phase == Phase::Finished => Outcome::value(self.present(task, value)),
            End::Failure(failure) => Outcome::failure((**failure).clone()),
            End::Cancelled(reason) => Outcome::cancelled(reason.as_ref()),
            _ => {
                if let Some(fetching) = self.fetches.get_mut(&token) {
                    fetching.task = Some(task);
                }
                return;
            }
        };
        let Some(object) = found.object().cloned() else {
            return self.answer_fetch(token, found);
        };
        if self.objects.locate(object.id()).is_none() {
            let name = self.task_name(task);
            return self.answer_fetch(token, lost(&format!("the value of {name} went down with its agent")));
        }
        let Some(fetching) = self.fetches.get_mut(&token) else {
            return;
        };
        (fetching.object, fetching.task) = (Some(object.clone()), None);
        match fetching.whose {
            For::Client(conn) => {
                self.hold_for_client(conn, &found); // Until the client goes: it knows of no hold to give back.
                self.fetch_here(token, Some(object));
            }
            For::Agent(..) => {
                self.objects.hold(&object); // Until the run ends: who asks for it goes by the name of the lost one.
                self.answer_fetch(token, found);
            }
        }
    }

    /// A task has ended: those that waited for what it makes again go on.
    pub(super) fn seek_waiting(&mut self, task: u64) {
        if self.fetches.is_empty() {
            return;
        }
        let waiting = self.fetches.iter().filter(|(_, fetching)| fetching.task == Some(task));
        for token in waiting.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.seek_again(token, task);
        }
    }

    /// An agent is gone: fetches that failed because of it try again.
    pub(super) fn seek_failed(&mut self) {
        let failed = self.fetches.iter().filter(|(_, fetching)| fetching.failed.is_some());
        for token in failed.map(|(token, _)| *token).collect::<Vec<_>>() {
            self.seek(token);
        }
    }

    /// Fetches that failed, and heard no news of an agent that is gone, have failed. Called from time to time.
    pub fn give_up_fetches(&mut self) {
        let now = self.now_ns;
        let late = |(token, fetching): (&u64, &Fetching)| {
            let (outcome, until) = fetching.failed.as_ref()?;
            (*until <= now).then(|| (*token, outcome.clone()))
        };
        for (token, outcome) in self.fetches.iter().filter_map(late).collect::<Vec<_>>() {
            self.answer_fetch(token, outcome);
        }
    }

    /// The head's own node has the object, or cannot have it.
    pub(super) fn on_fetched(&mut self, fetched: Fetched) {
        if self.placings.waits_for(fetched.token) {
            return self.on_placed(fetched.token, fetched.outcome.as_ref());
        }
        if fetched.ranged {
            return self.on_range(fetched);
        }
        let outcome = fetched.outcome.unwrap_or_else(|| lost("its agent gave no answer"));
        let is_lost = matches!(&outcome.kind, Some(outcome::Kind::Failure(f)) if f.kind == "object-lost");
        let until = self.now_ns.saturating_add(NEWS);
        let id = self
            .fetches
            .get(&fetched.token)
            .and_then(|fetching| fetching.object.as_ref());
        let id = id.map(ObjectRef::id).filter(|_| is_lost);
        match id {
            Some(id) if self.is_elsewhere(id) => {
                if let Some(fetching) = self.fetches.get_mut(&fetched.token) {
                    fetching.failed = Some((outcome, until));
                }
            }
            Some(id) if self.objects.locate(id).is_none() && self.lost_objects.contains_key(&id) => {
                self.seek(fetched.token);
            }
            _ => self.answer_fetch(fetched.token, outcome),
        }
    }

    /// The head's node has the bytes of a range, in an object that nobody holds yet.
    fn on_range(&mut self, fetched: Fetched) {
        let outcome = fetched.outcome.unwrap_or_default();
        let Some(object) = outcome.object().cloned() else {
            return;
        };
        match self
            .fetches
            .remove(&fetched.token)
            .map(|fetching| (fetching.whose, fetching.token))
        {
            Some((For::Client(conn), token)) => {
                self.hold_for_client(conn, &outcome);
                let outcome = Some(outcome);
                let ranged = true;
                self.tell(conn, Fetched { token, outcome, ranged });
            }
            _ => {
                self.objects.hold(&object);
                self.release(object.id());
            }
        }
    }

    fn is_elsewhere(&self, id: ObjectId) -> bool {
        self.objects.locate(id).is_some_and(|place| place.node != 0)
    }

    fn answer_fetch(&mut self, token: u64, outcome: Outcome) {
        let Some(Fetching { whose, token, .. }) = self.fetches.remove(&token) else {
            return;
        };
        let outcome = Some(outcome);
        let ranged = false;
        match whose {
            For::Client(conn) => self.tell(conn, Fetched { token, outcome, ranged }),
            For::Agent(agent, _) if self.agents.contains_key(&agent) => {
                self.tell_agent(agent, Located { token, outcome });
            }
            For::Agent(..) => {}
        }
    }
}
