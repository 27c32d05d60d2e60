//! Named values: requests of clients and workers to the table of names, its answers with the holds that go with them.

use super::{ConnId, Core};
use crate::names::{Answer, Effects, Party, Reply, Want};
use crate::state::End;
use bridgehead_spec::ObjectId;
use bridgehead_wire::{Failure, FailureCause, NameOp, NameReply, NameRequest, ObjectRef, Outcome};
use std::collections::BTreeMap;

impl Core {
    /// A client asks about names.
    pub(super) fn on_client_name(&mut self, conn: ConnId, request: NameRequest) {
        self.on_name(Party::Client(conn), request);
    }

    /// A worker of an agent asks about names, or is gone.
    pub(super) fn on_worker_name(&mut self, agent: u32, request: NameRequest) {
        let worker = request.from_worker.unwrap_or(0);
        self.on_name(Party::Worker(agent, worker), request);
    }

    fn on_name(&mut self, from: Party, request: NameRequest) {
        let effects = match request.op() {
            NameOp::Gone => self.name_table.gone(|party| party == from),
            NameOp::Unwatch => self.name_table.unwatch(from, request.about),
            NameOp::Forget => self.name_table.forget(from, request.about),
            NameOp::List => {
                let names = self.name_table.known().map(str::to_owned).collect();
                let answer = Answer::Names(names);
                let (to, token) = (from, request.token);
                let replies = vec![Reply { to, token, answer }];
                Effects {
                    replies,
                    ..Effects::default()
                }
            }
            _ => self.ask_about(from, request),
        };
        self.carry_out(effects);
    }

    fn ask_about(&mut self, from: Party, request: NameRequest) -> Effects {
        let op = request.op();
        let version = request.version.filter(|&version| version > 0);
        let want = match op {
            NameOp::Put => {
                let value = request.value.unwrap_or_default();
                if let Some(object) = value.object() {
                    self.objects.hold(object); // The table's own.
                    self.objects.contain(object.id(), &value.refs);
                }
                Want::Put(version, value)
            }
            NameOp::Next => Want::Next {
                watch: request.about,
                after: version.unwrap_or(0),
            },
            NameOp::Versions => Want::Versions,
            NameOp::Delete => Want::Delete,
            NameOp::Close => Want::Close,
            NameOp::Stream => Want::Stream {
                keep: request.keep,
                block: request.wait,
            },
            _ => Want::Get {
                version,
                bare: op == NameOp::Wait,
                wait: request.wait,
            },
        };
        self.name_table
            .ask((from, request.token), request.task, &request.name, want)
    }

    fn carry_out(&mut self, effects: Effects) {
        self.shown_changed = true;
        for reply in effects.replies {
            self.answer_name(reply);
        }
        for value in effects.dropped {
            if let Some(id) = value.object().map(ObjectRef::id) {
                self.release(id);
            }
        }
    }

    fn answer_name(&mut self, reply: Reply) {
        let mut message = NameReply {
            token: reply.token,
            ..NameReply::default()
        };
        match reply.answer {
            Answer::Value(version, value) => {
                message.version = version;
                message.outcome = Some(Outcome::value(self.relocate(&value)));
            }
            Answer::Done(version) => message.version = version,
            Answer::Versions(versions) => message.versions = versions,
            Answer::Names(names) => message.names = names,
            Answer::Ended => message.ended = true,
            Answer::Unknown => {} // `Names::ask` has worded it.
            Answer::Failed(kind, why) => {
                message.outcome = Some(Outcome::failure(Failure::new(FailureCause::System, kind, why)));
            }
        }
        match reply.to {
            Party::Client(conn) if self.clients.contains_key(&conn) => {
                if let Some(outcome) = &message.outcome {
                    self.hold_for_client(conn, outcome);
                }
                self.tell(conn, message);
            }
            Party::Worker(agent, worker) if self.agents.contains_key(&agent) => {
                if let Some(object) = message.outcome.as_ref().and_then(Outcome::object) {
                    self.objects.hold(object);
                }
                message.for_worker = Some(worker);
                self.tell_agent(agent, message);
            }
            _ => {} // It is gone, and the table will hear of it.
        }
    }

    /// A client is gone.
    pub(super) fn client_left_names(&mut self, conn: ConnId) {
        let effects = self.name_table.gone(|party| party == Party::Client(conn));
        self.carry_out(effects);
    }

    /// An agent is gone, with its workers and these objects.
    pub(super) fn agent_left_names(&mut self, agent: u32, lost: &[ObjectId]) {
        let effects = self.name_table.lost(lost);
        self.carry_out(effects);
        let effects = self
            .name_table
            .gone(|party| matches!(party, Party::Worker(of, _) if of == agent));
        self.carry_out(effects);
    }

    /// A task has its outcome: what it wrote ends, or breaks off for `reason`.
    pub(super) fn writer_ended(&mut self, task: u64, reason: Option<&str>) {
        if self.name_table.is_empty() {
            return;
        }
        let reason = reason.map(|reason| format!("{}, which wrote it, failed: {reason}", self.task_name(task)));
        let effects = self.name_table.task_ended(task, reason.as_deref());
        self.carry_out(effects);
    }

    /// The run has ended: nobody waits for a name any more.
    pub(super) fn end_names(&mut self) {
        let effects = self.name_table.end();
        self.carry_out(effects);
    }

    /// Results that lie in the stores, by the name of their tasks: how many, and their bytes.
    pub fn result_sizes(&self) -> BTreeMap<String, (u64, u64)> {
        let mut sizes = BTreeMap::new();
        for (task, row) in (0_u64..).zip(&self.state.tasks) {
            let End::Value(value) = &row.end else { continue };
            let stored = value
                .object()
                .filter(|object| self.objects.locate(object.id()).is_some());
            if let Some(object) = stored {
                let (objects, bytes) = sizes.entry(self.task_name(task)).or_insert((0, 0));
                *objects += 1;
                *bytes += object.len;
            }
        }
        sizes
    }

    /// All objects that somebody needs: how many, and their bytes, copies not counted.
    pub fn object_sizes(&self) -> (usize, u64) {
        self.objects.sizes()
    }

    /// Names with their versions and bytes, for the status.
    pub fn name_sizes(&self) -> impl Iterator<Item = (&str, usize, u64)> {
        self.name_table.sizes()
    }
}
