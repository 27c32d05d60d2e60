//! What the head and the workers say.

use super::{Agent, AgentError};
use crate::program::Surroundings;
use crate::reaper::MARK;
use bridgehead_spec::Digest;
use bridgehead_wire::{
    AgentWelcome, Fetched, Functions, HeadToAgent, Outcome, PutFunction, TaskDone, TaskSubmit, Value, WorkerToAgent,
};
use std::path::PathBuf;
use std::sync::Arc;

impl Agent {
    pub(super) fn on_head(&mut self, message: HeadToAgent) -> Result<(), AgentError> {
        match message {
            HeadToAgent::Call(call) => self.on_call(call),
            HeadToAgent::PutFunction(put) => self.learn(put),
            HeadToAgent::Welcome(welcome) => self.on_welcome(welcome),
            HeadToAgent::Cancel(cancel) => {
                for task in cancel.tasks {
                    self.cancel(task, &cancel.reason);
                }
            }
            HeadToAgent::Outcome(outcome) => {
                let worker = outcome.for_worker.unwrap_or(0);
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.outbox.push(outcome);
                }
            }
            HeadToAgent::Shutdown(shutdown) => self.stop = Some(shutdown.reason),
            HeadToAgent::Refused(refused) => return Err(AgentError::Refused(refused.message)),
            HeadToAgent::Heartbeat(_) => {}
            HeadToAgent::Release(_) | HeadToAgent::Fetch(_) | HeadToAgent::Persist(_) | HeadToAgent::Peers(_) => {}
        }
        Ok(())
    }

    fn on_welcome(&mut self, welcome: AgentWelcome) {
        let mut env: Vec<(String, String)> = welcome.env.iter().map(|p| (p.key.clone(), p.value.clone())).collect();
        env.push((MARK.to_owned(), self.options.incarnation.clone()));
        env.push(("BRIDGEHEAD_RUN".to_owned(), welcome.run.clone()));
        let cwd = if welcome.cwd.is_empty() {
            PathBuf::from("/")
        } else {
            PathBuf::from(&welcome.cwd)
        };
        self.surroundings = Arc::new(Surroundings { cwd, env });
        self.welcome = Some(welcome);
        self.start_worker(1); // The first is wanted in nearly every run, and starting it is what takes longest.
    }

    /// Keeps a function for workers that will need it; code that did not travel is read from the run folder.
    fn learn(&mut self, mut put: PutFunction) {
        if put.code.is_empty() {
            let digest = put.digest.as_ref().try_into().map(Digest);
            let code = digest.ok().and_then(|digest| {
                let code = std::fs::read(self.options.folder.blob(&digest)).ok()?;
                (Digest::of(&code) == digest).then_some(code)
            });
            match code {
                Some(code) => put.code = code.into(),
                None => {
                    tracing::error!(name = %put.name, "a function's code is not in the run folder's blobs, or is damaged")
                }
            }
        }
        self.functions.insert(put.index, put);
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
            WorkerToAgent::Log(text) => self.log.add(&text),
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
            WorkerToAgent::Release(release) => self.tell(release),
            WorkerToAgent::Fetch(fetch) => {
                let outcome = fetch.object.map(|object| Outcome::value(Value::stored(object)));
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.outbox.push(Fetched {
                        token: fetch.token,
                        outcome,
                    });
                }
            }
        }
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

    pub(super) fn report(&self, task: u64, attempt: u32, outcome: Outcome) {
        self.tell(TaskDone {
            task,
            attempt,
            outcome: Some(outcome),
            ..TaskDone::default()
        });
    }
}
