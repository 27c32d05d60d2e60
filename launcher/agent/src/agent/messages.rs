//! What the head and the workers say.

use super::{Agent, AgentError};
use crate::data::Asker;
use crate::environment::Environment;
use crate::program::Surroundings;
use crate::reaper::MARK;
use crate::verdict::DEVICE_VARIABLES;
use bridgehead_spec::Digest;
use bridgehead_wire::{
    AgentWelcome, CancelTasks, Failure, FailureCause, Functions, HeadToAgent, LogText, NameReply, NameRequest, Outcome,
    PutFunction, ReleaseObjects, TaskCall, TaskDone, TaskOutcome, TaskSubmit, WorkerToAgent,
};
use std::path::PathBuf;
use std::sync::Arc;

impl Agent {
    pub(super) fn on_head(&mut self, message: HeadToAgent) -> Result<(), AgentError> {
        let Some(message) = self.with_files(message) else {
            return Ok(()); // It comes again, with its file.
        };
        match message {
            HeadToAgent::Call(call) => self.on_call(call),
            HeadToAgent::PutFunction(put) => self.learn(put),
            HeadToAgent::Welcome(welcome) => self.on_welcome(welcome),
            HeadToAgent::Cancel(cancel) => self.on_cancel(&cancel),
            HeadToAgent::Shutdown(shutdown) => self.stop = Some(shutdown.reason),
            HeadToAgent::Refused(refused) => return Err(AgentError::Refused(refused.message)),
            HeadToAgent::Heartbeat(_) => {}
            HeadToAgent::Release(release) => {
                for object in &release.objects {
                    self.store.release(object.id());
                }
            }
            HeadToAgent::Fetch(fetch) => {
                let asker = Asker::Head(fetch.token);
                self.on_fetch(fetch, asker);
            }
            HeadToAgent::Persist(persist) => self.on_persist(persist),
            HeadToAgent::Put(put) => {
                if let Some(object) = &put.object {
                    self.on_put(object);
                }
            }
            HeadToAgent::Peers(peers) => self.on_peers(peers),
            HeadToAgent::Placed(placed) => {
                let id = placed.for_worker.unwrap_or(0);
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.outbox.push(placed);
                }
            }
            HeadToAgent::Relay(relay) => self.on_relay(relay),
            HeadToAgent::EndGang(end) => self.cancel(end.task, &end.reason),
            word @ (HeadToAgent::Outcome(_) | HeadToAgent::Located(_) | HeadToAgent::Name(_)) => self.on_word(word),
        }
        Ok(())
    }

    /// Word for a worker or a guest whose value can be read here.
    pub(super) fn on_word(&mut self, word: HeadToAgent) {
        match word {
            HeadToAgent::Outcome(outcome) => self.on_worker_outcome(outcome),
            HeadToAgent::Located(located) => self.on_located(located),
            HeadToAgent::Name(reply) => self.on_name_reply(reply),
            _ => {} // Only these wait for files.
        }
    }

    pub(super) fn on_welcome(&mut self, welcome: AgentWelcome) {
        let mut env = Environment::inherited();
        for pair in &welcome.env {
            env.set(&pair.key, &pair.value);
        }
        env.set(MARK, &self.options.incarnation);
        env.set("BRIDGEHEAD_RUN", &welcome.run);
        env.unset("BRIDGEHEAD_SOCKET"); // Of a run that this one was started in; programs get ours.
        let cwd = if welcome.cwd.is_empty() { "/" } else { &welcome.cwd };
        self.surroundings = Arc::new(Surroundings {
            cwd: PathBuf::from(cwd),
            devices: device_names(&env, self.options.resources.gpus),
            socket: self.options.programs_socket(),
            env,
        });
        self.join_network(&welcome);
        self.welcome = Some(welcome);
        if self.workers.is_empty() {
            self.start_worker(1); // The first is wanted in nearly every run, and starting it is what takes longest.
        }
    }

    fn on_call(&mut self, call: TaskCall) {
        if call.program.is_none() {
            if let Some(reason) = self.broken_functions.get(&call.function) {
                let failure = Failure::new(FailureCause::System, "unknown-function", reason.clone());
                return self.report(&call, Outcome::failure(failure));
            }
        }
        self.admit(call);
    }

    fn on_cancel(&mut self, cancel: &CancelTasks) {
        let mut tasks = cancel.tasks.clone();
        if cancel.all {
            tasks.extend(self.queue.iter().map(|waiting| waiting.call.task));
            tasks.extend(self.running.keys());
            tasks.extend(self.transfers.held());
            tasks.extend(self.backlog.iter().map(|call| call.task));
            let given = self.workers.values().flat_map(|worker| &worker.calls);
            tasks.extend(given.map(|given| given.call.task));
        }
        for task in tasks {
            self.cancel(task, &cancel.reason);
        }
    }

    /// Keeps a function for workers that will need it; code that did not travel is read from the run folder.
    fn learn(&mut self, mut put: PutFunction) {
        if put.code.is_empty() {
            match self.read_code(&put) {
                Ok(code) => put.code = code.into(),
                Err(reason) => {
                    tracing::error!(name = %put.name, reason, "a function cannot be had");
                    self.broken_functions.insert(put.index, reason);
                    return;
                }
            }
        }
        self.broken_functions.remove(&put.index);
        self.functions.insert(put.index, put);
    }

    fn read_code(&self, put: &PutFunction) -> Result<Vec<u8>, String> {
        let digest = put.digest.as_ref().try_into().map(Digest);
        let digest = digest.map_err(|_| format!("the digest of function {} is not 32 bytes long", put.name))?;
        let path = self.options.folder.blob(&digest);
        if let Some(far) = self.far.as_ref().filter(|_| !path.exists()) {
            // Here, and not on another thread: calls of the function may be the next thing that the head says.
            far.folder()
                .bring(path.strip_prefix(self.options.folder.path()).unwrap_or(&path))
                .map_err(|e| format!("cannot bring the code of {} here: {e}", put.name))?;
        }
        let code = std::fs::read(&path)
            .map_err(|e| format!("cannot read the code of {} from {}: {e}", put.name, path.display()))?;
        if Digest::of(&code) == digest {
            Ok(code)
        } else {
            Err(format!(
                "the code of {} in {} is damaged: it does not match its digest",
                put.name,
                path.display()
            ))
        }
    }

    pub(super) fn on_worker(&mut self, id: u32, message: WorkerToAgent) {
        match message {
            WorkerToAgent::Done(done) => self.on_done(id, done),
            WorkerToAgent::Ready(ready) => {
                tracing::debug!(worker = id, pid = ready.pid, python = %ready.python, "worker is up");
                self.failed_starts = 0;
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.ready = true;
                }
            }
            WorkerToAgent::Returned(returned) => self.on_returned(id, &returned.tasks),
            WorkerToAgent::Log(text) => self.on_log(id, text),
            WorkerToAgent::Submit(submit) => self.on_submit(id, submit),
            WorkerToAgent::PutFunction(put) => self.on_worker_function(id, put),
            WorkerToAgent::Blocked(blocked) => {
                self.on_blocked(id, blocked.blocked);
                self.tell(blocked);
            }
            WorkerToAgent::Cancel(mut cancel) => {
                cancel.from_worker = Some(id);
                self.tell(cancel);
            }
            WorkerToAgent::Put(put) => self.on_worker_put(id, put),
            WorkerToAgent::Hold(hold) => self.on_worker_hold(id, hold),
            WorkerToAgent::Place(mut place) => {
                place.from_worker = Some(id);
                self.tell(place);
            }
            WorkerToAgent::Name(request) => self.on_name(id, request),
            WorkerToAgent::Release(release) => self.on_worker_release(id, release),
            WorkerToAgent::Fetch(fetch) => self.on_worker_fetch(id, fetch),
        }
    }

    /// What a task printed; a rank's lines bear its number.
    fn on_log(&mut self, id: u32, mut text: LogText) {
        if let Some(rank) = self.workers.get(&id).and_then(|worker| worker.rank) {
            self.gangs.mark(rank, &mut text);
        }
        self.log.add(&text);
    }

    fn on_worker_function(&mut self, id: u32, mut put: PutFunction) {
        let index = self.next_function;
        self.next_function += 1;
        self.worker_functions.insert((id, put.index), index);
        put.index = index;
        self.tell(Functions { functions: vec![put] });
    }

    fn on_submit(&mut self, id: u32, mut submit: TaskSubmit) {
        submit.from_worker = Some(id);
        submit.function = self
            .worker_functions
            .get(&(id, submit.function))
            .copied()
            .unwrap_or(u32::MAX);
        self.tell(submit);
    }

    /// A task that a worker added has ended; a stored value comes with a hold, the worker's or nobody's.
    fn on_worker_outcome(&mut self, message: TaskOutcome) {
        let id = message.for_worker.unwrap_or(0);
        let stored = message.outcome.as_ref().and_then(Outcome::object).cloned();
        match (self.workers.get_mut(&id), stored) {
            (Some(worker), stored) => {
                if let Some(object) = &stored {
                    self.holds.add(id, object);
                }
                worker.outbox.push(message);
            }
            (None, Some(object)) => self.tell(ReleaseObjects { objects: vec![object] }),
            (None, None) => {}
        }
    }

    /// A worker or a guest asks the run's table of names.
    pub(super) fn on_name(&mut self, id: u32, mut request: NameRequest) {
        self.named.insert(id);
        request.from_worker = Some(id);
        self.tell(request);
    }

    /// The table's answer; a stored value comes with a hold, the asker's or nobody's.
    fn on_name_reply(&mut self, reply: NameReply) {
        let id = reply.for_worker.unwrap_or(0);
        let stored = reply.outcome.as_ref().and_then(Outcome::object).cloned();
        if self.workers.contains_key(&id) || self.guests.contains_key(&id) {
            if let Some(object) = &stored {
                self.holds.add(id, object);
            }
        } else if let Some(object) = stored {
            self.tell(ReleaseObjects { objects: vec![object] });
        }
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.outbox.push(reply);
        } else if let Some(guest) = self.guests.get_mut(&id) {
            guest.outbox.push_to_guest(reply);
        }
    }

    /// The end of a call that never ran.
    pub(super) fn report(&mut self, call: &TaskCall, outcome: Outcome) {
        self.tell_done(TaskDone {
            task: call.task,
            attempt: call.attempt,
            outcome: Some(outcome),
            ..TaskDone::default()
        });
    }
}

/// The node's GPUs as this agent was told of them, by its scheduler or else by number.
fn device_names(env: &Environment, gpus: u32) -> Vec<String> {
    let given = DEVICE_VARIABLES.iter().find_map(|name| env.get(name)?.to_str());
    let named: Vec<String> = given
        .unwrap_or("")
        .split(',')
        .map(|name| name.trim().to_owned())
        .collect();
    if gpus > 0 && named.len() >= gpus as usize && named.iter().all(|name| !name.is_empty()) {
        return named;
    }
    (0..gpus).map(|device| device.to_string()).collect()
}
