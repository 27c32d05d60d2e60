//! Clients come, ask and go.

use super::{Client, ConnId, Core, Ending, Submitter};
use crate::state::{End, Phase};
use bridgehead_wire::{
    ClientHello, ClientToHead, CloseMode, Outcome, Progress, Refused, StatusReply, TaskOutcome, Welcome,
};

impl Core {
    /// A client that may speak to this run is connected.
    pub fn on_client(&mut self, conn: ConnId, hello: &ClientHello, store_socket: &str) {
        if !hello.run.is_empty() && hello.run != self.config.run.as_str() {
            let message = format!(
                "this is the head of run {}, not of {}: look at `bridgehead ps`",
                self.config.run, hello.run
            );
            self.tell(
                conn,
                Refused {
                    kind: "run".to_owned(),
                    message,
                },
            );
            return;
        }
        self.clients.insert(
            conn,
            Client {
                owner: hello.owner,
                ..Client::default()
            },
        );
        let mut total = bridgehead_wire::Amounts::default();
        for agent in &self.config.agents {
            total.cpu_millis += agent.resources.cpu_millis;
            total.memory += agent.resources.memory;
            total.gpus += agent.resources.gpus;
        }
        self.tell(
            conn,
            Welcome {
                run: self.config.run.to_string(),
                store_socket: store_socket.to_owned(),
                total: Some(total),
                agents: u32::try_from(self.config.agents.len()).unwrap_or(u32::MAX),
                node: 0,
                inline_limit: self.config.inline_limit,
            },
        );
    }

    /// A message of a connected client.
    pub fn on_message(&mut self, conn: ConnId, message: ClientToHead) {
        if !self.clients.contains_key(&conn) {
            tracing::warn!(conn = conn.0, "dropped a message of a client that was not greeted");
            return;
        }
        match message {
            ClientToHead::Submit(submit) => self.on_submit(conn, submit),
            ClientToHead::PutFunction(put) => {
                let index = put.index;
                if let Some(ours) = self.learn_function(put) {
                    if let Some(client) = self.clients.get_mut(&conn) {
                        client.functions.insert(index, ours);
                    }
                }
            }
            ClientToHead::Release(release) => {
                for object in release.objects {
                    self.on_release(conn, object.id());
                }
            }
            ClientToHead::Cancel(cancel) if cancel.all => self.cancel_all(&cancel.reason),
            ClientToHead::Cancel(cancel) => {
                for token in cancel.tasks {
                    if let Some(task) = self.client_task(conn, token) {
                        self.cancel_task(task, &cancel.reason);
                    }
                }
            }
            ClientToHead::Fetch(fetch) => self.on_fetch(conn, fetch),
            ClientToHead::Subscribe(wish) => self.on_subscribe(conn, wish),
            ClientToHead::Close(close) => self.on_close(conn, close.mode()),
            ClientToHead::Status(_) => {
                let json = crate::status::snapshot(self).to_string();
                self.tell(conn, StatusReply { json });
            }
            ClientToHead::Put(put) => {
                if let Some(object) = put.object {
                    self.on_client_put(conn, object);
                }
            }
            ClientToHead::Hold(hold) => {
                for object in &hold.objects {
                    self.on_client_hold(conn, object);
                }
            }
            ClientToHead::Place(place) => self.on_place(crate::names::Party::Client(conn), place),
            ClientToHead::Name(request) => self.on_client_name(conn, request),
            ClientToHead::Hello(_) => {} // A second hello changes nothing.
        }
    }

    fn on_submit(&mut self, conn: ConnId, submit: bridgehead_wire::TaskSubmit) {
        let token = submit.token;
        let function = self
            .clients
            .get(&conn)
            .and_then(|c| c.functions.get(&submit.function).copied());
        let task = self.submit(submit, function, Submitter::Client(conn, token), |core, token| {
            core.client_task(conn, token)
        });
        if let Some(client) = self.clients.get_mut(&conn) {
            client.tokens.insert(token, task);
        }
    }

    /// The task that a client's number means: its own submits first, then the pipeline's ids.
    fn client_task(&self, conn: ConnId, token: u64) -> Option<u64> {
        let own = self
            .clients
            .get(&conn)
            .and_then(|client| client.tokens.get(&token).copied());
        own.or_else(|| (self.config.has_pipeline && token < self.pipeline_tasks).then_some(token))
    }

    /// A client wrote an object into the arena of the head's own node.
    fn on_client_put(&mut self, conn: ConnId, object: bridgehead_wire::ObjectRef) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        *client.holds.entry(object.id()).or_insert(0) += 1;
        self.objects.hold(&object);
        self.tell_agent(0, bridgehead_wire::PutObject { object: Some(object) });
    }

    /// A client wants a hold of its own on what something else, which it got, holds.
    fn on_client_hold(&mut self, conn: ConnId, object: &bridgehead_wire::ObjectRef) {
        if self.objects.locate(object.id()).is_none() {
            return; // It is gone; who asks for it will hear of that.
        }
        if let Some(client) = self.clients.get_mut(&conn) {
            self.objects.hold(object);
            *client.holds.entry(object.id()).or_insert(0) += 1;
        }
    }

    fn on_release(&mut self, conn: ConnId, id: bridgehead_spec::ObjectId) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        let Some(count) = client.holds.get_mut(&id) else { return };
        *count -= 1;
        if *count == 0 {
            client.holds.remove(&id);
        }
        self.release(id);
    }

    fn on_subscribe(&mut self, conn: ConnId, wish: bridgehead_wire::Subscribe) {
        let Some(client) = self.clients.get_mut(&conn) else {
            return;
        };
        client.progress = wish.progress;
        client.outcomes = wish.outcomes;
        if wish.outcomes {
            for task in 0..self.pipeline_tasks {
                self.tell_past(conn, task);
            }
        }
        if wish.progress {
            let progress = self.progress();
            self.tell(conn, progress);
        }
        if let (true, Some((phase, message))) = (self.is_over(), self.state.ended.clone()) {
            self.tell(conn, bridgehead_wire::RunEnd { phase, message });
        }
    }

    fn tell_past(&mut self, conn: ConnId, task: u64) {
        let Some(row) = self.state.row(task) else { return };
        let outcome = match &row.end {
            End::Value(value) if row.phase == Phase::Finished => Outcome::value(self.present(task, value)),
            End::Failure(failure) => Outcome::failure((**failure).clone()),
            End::Cancelled(reason) => Outcome::cancelled(reason.as_ref()),
            _ => return,
        };
        let message = TaskOutcome {
            token: task,
            task,
            attempts: row.attempt,
            elapsed_ns: row.elapsed_ns,
            outcome: Some(outcome),
            for_worker: None,
        };
        if let Some(outcome) = &message.outcome {
            let live = outcome
                .object()
                .is_some_and(|object| self.objects.locate(object.id()).is_some());
            if live {
                self.hold_for_client(conn, outcome);
            }
        }
        self.tell(conn, message);
    }

    /// Counts by phase, for a progress bar.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let c = &self.state.counts;
        Progress {
            waiting: c.waiting,
            running: c.running,
            finished: c.finished,
            failed: c.failed,
            cancelled: c.cancelled,
        }
    }

    /// Sends the progress to those that want it.
    pub fn send_progress(&mut self) {
        let progress = self.progress();
        let listeners: Vec<_> = self
            .clients
            .iter()
            .filter(|(_, c)| c.progress)
            .map(|(&conn, _)| conn)
            .collect();
        for conn in listeners {
            self.tell(conn, progress);
        }
    }

    fn on_close(&mut self, conn: ConnId, mode: CloseMode) {
        match mode {
            CloseMode::Detach => {
                if let Some(client) = self.clients.get_mut(&conn) {
                    client.owner = false;
                }
            }
            CloseMode::Drain => {
                if self.ending == Ending::No {
                    self.ending = Ending::Drain;
                }
            }
            CloseMode::Cancel => self.cancel_all("its client closed it"),
        }
    }

    /// A client's connection is gone; a run that belongs to it goes too.
    pub fn on_client_gone(&mut self, conn: ConnId) {
        let Some(client) = self.clients.remove(&conn) else {
            return;
        };
        self.forget_fetches(conn);
        self.client_left_names(conn);
        for (id, count) in client.holds {
            for _ in 0..count {
                self.release(id);
            }
        }
        if client.owner && self.config.attached && !self.is_over() {
            match self.ending {
                Ending::Drain if self.open_tasks() == 0 => {}
                _ => self.cancel_all("its client went away"),
            }
        }
    }
}
