//! Guests: processes of programs that take part in the run. What they ask is done as for workers, under a number of the same
//! kind; they get no calls, and end by themselves or with their program.

use super::{Agent, Event};
use crate::door::{Door, FromGuest, Guest};
use bridgehead_wire::{GuestHello, GuestToAgent, NameOp, NameRequest, Refused, ReleaseObjects, Shutdown};
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::mpsc::UnboundedSender;

/// Guests at a time; ranks of the largest nodes are a few hundred.
const MOST: usize = 4096;
/// Who has not said by then what it is has to go.
const MANNERS: Duration = Duration::from_secs(10);

/// Opens the socket for programs.
///
/// # Errors
/// It cannot be made.
pub(super) fn open_door(path: &std::path::Path, events: &UnboundedSender<Event>) -> std::io::Result<Door> {
    let events = events.clone();
    Door::open(path, move |stream| {
        let _ = events.send(Event::Came(stream)); // The loop is gone only at the end.
    })
}

impl Agent {
    /// Somebody has come to the socket for programs.
    pub(super) fn on_came(&mut self, stream: UnixStream) {
        if self.guests.len() >= MOST || self.stop.is_some() {
            tracing::warn!(guests = self.guests.len(), "a process of a program was turned away");
            return; // It finds its connection closed.
        }
        let id = self.next_worker;
        self.next_worker += 1;
        let events = self.events.clone();
        let guest = Guest::new(stream, move |from| {
            let _ = events.send(Event::Guest(id, from)); // The loop is gone only at the end.
        });
        self.guests.insert(id, guest);
    }

    pub(super) fn on_guest(&mut self, id: u32, from: FromGuest) {
        let message = match from {
            FromGuest::Message(message) => message,
            FromGuest::Ended(reason) => return self.on_guest_ended(id, &reason),
        };
        let Some(guest) = self.guests.get_mut(&id) else { return };
        let task = guest.task;
        match (message, task) {
            (GuestToAgent::Hello(hello), None) => self.greet(id, &hello),
            (GuestToAgent::Name(mut request), Some(task)) if request.op() != NameOp::Gone => {
                request.task = Some(task);
                self.on_name(id, request);
            }
            (GuestToAgent::Put(put), Some(_)) => self.on_worker_put(id, put),
            (GuestToAgent::Hold(hold), Some(_)) => self.on_worker_hold(id, hold),
            (GuestToAgent::Release(release), Some(_)) => self.on_worker_release(id, release),
            (GuestToAgent::Fetch(fetch), Some(_)) => self.on_worker_fetch(id, fetch),
            (GuestToAgent::Hello(_) | GuestToAgent::Name(_), Some(_)) | (_, None) => {
                tracing::warn!(guest = id, "a process of a program said what is not its to say now");
                guest.dismiss();
            }
        }
    }

    /// A guest says which task it is a process of.
    fn greet(&mut self, id: u32, hello: &GuestHello) {
        let refusal = self.refusal(hello);
        let config = self.config_of(id);
        let Some(guest) = self.guests.get_mut(&id) else { return };
        match (refusal, config) {
            (None, Some(config)) => {
                tracing::debug!(
                    guest = id,
                    task = hello.task,
                    rank = hello.rank,
                    pid = hello.pid,
                    "a guest"
                );
                guest.task = Some(hello.task);
                guest.outbox.push_to_guest(config);
            }
            (refusal, _) => {
                let message = refusal.unwrap_or_else(|| "the run has not begun on this node: try again".to_owned());
                let kind = "task".to_owned();
                guest.outbox.push_to_guest(Refused { kind, message });
                guest.dismiss();
            }
        }
    }

    /// Why a guest is none.
    fn refusal(&self, hello: &GuestHello) -> Option<String> {
        let task = hello.task;
        let running = self.running.get(&task);
        let attempt = running.map(|running| running.given.call.attempt);
        let attempt = attempt.or_else(|| self.gangs.attempt(task));
        let attempt = attempt.or_else(|| self.gangs.attempt(task));
        match attempt {
            Some(attempt) if attempt == hello.attempt => None,
            Some(attempt) => Some(format!(
                "attempt {attempt} of task {task} runs on this node, not attempt {}: leave BRIDGEHEAD_ATTEMPT as it was set",
                hello.attempt
            )),
            None => Some(format!(
                "no program of task {task} runs on this node: only processes of a program that the run started take part"
            )),
        }
    }

    /// A guest has gone.
    fn on_guest_ended(&mut self, id: u32, reason: &str) {
        self.guests.remove(&id);
        if !reason.is_empty() {
            tracing::warn!(
                guest = id,
                reason,
                "the last words of a process of a program could not be understood"
            );
        }
        self.forget_asker(id);
    }

    /// A worker or a guest is gone: what it held is given back, and nobody answers it any more.
    pub(super) fn forget_asker(&mut self, id: u32) {
        let objects = self.holds.drop_worker(id);
        if !objects.is_empty() {
            self.tell(ReleaseObjects { objects });
        }
        if self.named.remove(&id) {
            self.tell(NameRequest {
                op: NameOp::Gone.into(),
                from_worker: Some(id),
                ..NameRequest::default()
            });
        }
    }

    /// A program has ended, and what was in its group with it: who is left of its guests has nothing to ask any more.
    pub(super) fn dismiss_guests_of(&mut self, task: u64) {
        for guest in self.guests.values_mut().filter(|guest| guest.task == Some(task)) {
            guest.dismiss();
        }
    }

    /// Those who come and do not say what they are go again.
    pub(super) fn dismiss_silent_guests(&mut self) {
        let silent = |guest: &&mut Guest| guest.task.is_none() && guest.since.elapsed() > MANNERS;
        for guest in self.guests.values_mut().filter(silent) {
            guest.dismiss();
        }
    }

    /// The agent ends.
    pub(super) fn dismiss_all_guests(&mut self, reason: &str) {
        for guest in self.guests.values_mut() {
            let reason = reason.to_owned();
            guest.outbox.push_to_guest(Shutdown { reason, goes_on: false });
            guest.dismiss();
        }
    }
}
