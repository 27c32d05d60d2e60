//! Values that clients want from other nodes: fetched from where they lie, read from the run folder, or waited for while their
//! task makes them again, because the node that they lay on is gone. Owns the fetches that are under way.

use super::{ConnId, Core};
use crate::state::{End, Phase};
use bridgehead_spec::ObjectId;
use bridgehead_wire::{Failure, FailureCause, Fetch, Fetched, ObjectRef, Outcome, outcome};

/// A fetch that failed waits so long for the news that the agent is gone which should have had the object, nanoseconds.
const NEWS: u64 = 5_000_000_000;

/// A fetch for a client.
#[derive(Debug)]
pub(super) struct Fetching {
    conn: ConnId,
    /// The client's token.
    token: u64,
    object: Option<ObjectRef>,
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
            conn,
            token: fetch.token,
            object: fetch.object,
            task: None,
            failed: None,
        };
        self.fetches.insert(token, fetching);
        self.seek(token);
    }

    /// The client of some fetches is gone.
    pub(super) fn forget_fetches(&mut self, conn: ConnId) {
        self.fetches.retain(|_, fetching| fetching.conn != conn);
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
        match (place, task) {
            (None, Some(task)) => self.seek_again(token, task),
            (place, _) => self.tell_agent(
                0,
                Fetch {
                    token,
                    object: place.or(object),
                },
            ),
        }
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
        let conn = fetching.conn;
        self.hold_for_client(conn, &found); // Until the client goes: it knows of no hold to give back.
        let object = Some(object);
        self.tell_agent(0, Fetch { token, object });
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

    fn is_elsewhere(&self, id: ObjectId) -> bool {
        self.objects.locate(id).is_some_and(|place| place.node != 0)
    }

    fn answer_fetch(&mut self, token: u64, outcome: Outcome) {
        let Some(Fetching { conn, token, .. }) = self.fetches.remove(&token) else {
            return;
        };
        let outcome = Some(outcome);
        self.tell(conn, Fetched { token, outcome });
    }
}
