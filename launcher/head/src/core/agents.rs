//! Agents come, speak and go. Owns what the head knows of each; results that go down with one are made again.

use super::{AgentRow, Core, Ending, Submitter};
use crate::journal::{AgentJoined, AgentLost, Event, TaskReset};
use crate::state::{End, Phase};
use bridgehead_spec::{AgentId, ObjectId, Resources, TaskId};
use bridgehead_wire::{
    AgentJoin, AgentToHead, AgentWelcome, CancelTasks, Failure, FailureCause, ObjectRef, Pair, Peer, Peers, Shutdown,
};
use bytes::Bytes;

impl Core {
    /// An agent whose certificate and ticket were checked joins.
    pub fn on_join(&mut self, join: AgentJoin, run_dir: &str) {
        let agent = join.agent;
        if self.is_over() {
            let reason = "the run has ended".to_owned();
            return self.tell_agent(agent, Shutdown { reason, goes_on: false }); // The end is the journal's last word.
        }
        let resources = join.resources.clone().unwrap_or_default();
        self.record(Event::AgentJoined(AgentJoined {
            agent,
            host: join.host.clone(),
            pid: join.pid,
            resources: Some(resources.clone()),
        }));
        self.agents.insert(
            agent,
            AgentRow {
                host: join.host,
                pid: join.pid,
                resources: resources.clone(),
                fabric_address: bytes::Bytes::new(),
                gpu_memory: join.gpu_memory,
                store: bridgehead_wire::Heartbeat::default(),
            },
        );
        let welcome = self.agent_welcome(run_dir);
        self.tell_agent(agent, welcome);
        self.send_peers();
        self.gang_whole |= self.agents.len() >= crate::gang::enough(&self.config);
        self.engine.agent_joined(AgentId(agent), &Resources::from(&resources));
        if self.gang_whole {
            self.place_early();
        }
    }

    fn agent_welcome(&self, run_dir: &str) -> AgentWelcome {
        let c = &self.config;
        AgentWelcome {
            run: c.run.to_string(),
            run_dir: run_dir.to_owned(),
            python: c.python.display().to_string(),
            sys_path: c.sys_path.clone(),
            cwd: c.cwd.display().to_string(),
            inline_limit: c.inline_limit,
            data_key: Bytes::copy_from_slice(&self.data_key),
            agents: u32::try_from(self.config.agents.len()).unwrap_or(u32::MAX),
            allocation_end_ns: self.allocation.and_then(|a| a.tasks_end_ns()).unwrap_or(0),
            env: c
                .env
                .iter()
                .map(|(k, v)| Pair {
                    key: k.clone(),
                    value: v.clone(),
                })
                .collect(),
        }
    }

    fn send_peers(&mut self) {
        if self.agents.len() < 2 {
            return;
        }
        let peers: Vec<Peer> = self
            .agents
            .iter()
            .map(|(&agent, row)| Peer {
                agent,
                fabric_address: row.fabric_address.clone(),
            })
            .collect();
        for agent in self.agents.keys().copied().collect::<Vec<_>>() {
            self.tell_agent(agent, Peers { peers: peers.clone() });
        }
    }

    /// A message of a joined agent.
    pub fn on_agent(&mut self, agent: u32, message: AgentToHead) {
        match message {
            AgentToHead::Done(done) => self.on_done(agent, done),
            AgentToHead::Submit(submit) => self.on_worker_submit(agent, submit),
            AgentToHead::Functions(functions) => {
                for put in functions.functions {
                    let index = put.index;
                    if let Some(ours) = self.learn_function(put) {
                        self.agent_functions.insert((agent, index), ours);
                    }
                }
            }
            AgentToHead::Copied(copied) => {
                if let Some(object) = copied.object {
                    if let Some(trace) = &mut self.trace {
                        trace.transfer(agent, object.len, copied.started_ns, copied.elapsed_ns);
                    }
                    if !self.objects.copied(object.id(), agent) {
                        let objects = vec![object];
                        self.tell_agent(agent, bridgehead_wire::ReleaseObjects { objects });
                    }
                }
            }
            AgentToHead::Persisted(persisted) => self.on_persisted(&persisted),
            AgentToHead::Fetched(fetched) => self.on_fetched(fetched),
            AgentToHead::Heartbeat(beat) => {
                if let Some(row) = self.agents.get_mut(&agent) {
                    if row.store != beat {
                        self.shown_changed = true;
                        if let Some(trace) = &mut self.trace {
                            trace.store(agent, self.now_ns, beat.clone());
                        }
                        row.store = beat;
                    }
                }
            }
            AgentToHead::Release(release) => {
                for object in release.objects {
                    self.release(object.id());
                }
            }
            AgentToHead::Put(put) => {
                if let Some(object) = &put.object {
                    self.objects.hold(object); // Its agent gives the hold back with the worker's own, or at its end.
                }
            }
            AgentToHead::Address(message) => {
                if let Some(row) = self.agents.get_mut(&agent) {
                    row.fabric_address = message.address;
                    self.send_peers();
                }
            }
            AgentToHead::Cancel(cancel) => self.on_worker_cancel(agent, &cancel),
            AgentToHead::Blocked(blocked) => self.engine.blocked(TaskId(blocked.task), blocked.blocked),
            // A start is told for long tasks only.
            AgentToHead::Started(started) => self.engine.lingers(TaskId(started.task)),
            AgentToHead::Hold(hold) => {
                for object in hold
                    .objects
                    .iter()
                    .filter(|o| self.objects.locate(o.id()).is_some())
                    .cloned()
                    .collect::<Vec<_>>()
                {
                    self.objects.hold(&object);
                }
            }
            AgentToHead::Place(place) => {
                let worker = place.from_worker.unwrap_or(0);
                self.on_place(crate::names::Party::Worker(agent, worker), place);
            }
            AgentToHead::Locate(locate) => self.on_locate(agent, locate),
            AgentToHead::Name(request) => self.on_worker_name(agent, request),
            AgentToHead::Relay(relay) => self.on_relay(agent, relay),
            AgentToHead::RankFailed(failed) => self.on_rank_failed(agent, failed),
            AgentToHead::Bound(bound) => self.on_bound(agent, bound),
            AgentToHead::Join(_) => {} // A second join changes nothing.
        }
    }

    fn on_worker_submit(&mut self, agent: u32, submit: bridgehead_wire::TaskSubmit) {
        let worker = submit.from_worker.unwrap_or(0);
        let token = submit.token;
        let function = self.agent_functions.get(&(agent, submit.function)).copied();
        let submitter = Submitter::Worker(agent, worker, token);
        let task = self.submit(submit, function, submitter, |core, token| {
            core.worker_tokens.get(&(agent, worker, token)).copied()
        });
        self.worker_tokens.insert((agent, worker, token), task);
    }

    fn on_worker_cancel(&mut self, agent: u32, cancel: &CancelTasks) {
        let worker = cancel.from_worker.unwrap_or(0);
        for &token in &cancel.tasks {
            if let Some(&task) = self.worker_tokens.get(&(agent, worker, token)) {
                self.cancel_task(task, &cancel.reason);
            }
        }
    }

    /// An agent is gone: its tasks are tried elsewhere, its results are made again where someone still needs them.
    pub fn on_agent_lost(&mut self, agent: u32, reason: &str) {
        if self.agents.remove(&agent).is_none() {
            return;
        }
        if self.is_over() {
            let lost = self.lose_objects(agent);
            self.note_lost(&lost);
            self.agent_left_names(agent, &lost);
            return self.seek_failed();
        }
        tracing::warn!(agent, reason, "agent lost");
        self.record(Event::AgentLost(AgentLost {
            agent,
            reason: reason.to_owned(),
        }));
        self.functions.forget(agent);
        let held = self.engine.agent_lost(AgentId(agent));
        let lost = self.lose_objects(agent);
        self.agent_left_names(agent, &lost);
        let held = self.agent_left_gangs(agent, reason, held);
        for task in held {
            let attempt = self.state.row(task.0).map_or(0, |row| row.attempt);
            let message = format!("agent {agent}, which ran it, was lost: {reason}");
            self.attempt_failed(
                task.0,
                attempt,
                Failure::new(FailureCause::LostNode, "agent-lost", message),
            );
        }
        self.note_lost(&lost);
        self.persist_elsewhere(agent);
        self.reset_lost(&lost);
        self.agent_left_placings(agent);
        self.seek_failed();
        self.send_peers();
        if self.agents.is_empty() && !self.is_over() {
            self.cancel_all("no agent is left");
        }
    }

    fn lose_objects(&mut self, agent: u32) -> Vec<ObjectId> {
        let (lost, held) = self.objects.agent_lost(agent);
        for id in held {
            self.release(id);
        }
        lost
    }

    /// Remembers whose values went down, for those who ask for them later.
    fn note_lost(&mut self, lost: &[ObjectId]) {
        if lost.is_empty() {
            return;
        }
        let lost: std::collections::HashSet<_> = lost.iter().copied().collect();
        for task in 0..self.state.tasks.len() as u64 {
            if let Some(End::Value(value)) = self.state.row(task).map(|row| &row.end) {
                if let Some(id) = value.object().map(ObjectRef::id).filter(|id| lost.contains(id)) {
                    self.lost_objects.insert(id, task);
                }
            }
        }
    }

    /// What a lost agent was to write to the run folder is written by one that has a copy, or not at all: the run does not
    /// wait for it.
    fn persist_elsewhere(&mut self, agent: u32) {
        let theirs: Vec<u64> = self
            .persisting
            .extract_if(|_, at| *at == agent)
            .map(|(task, _)| task)
            .collect();
        for task in theirs {
            let value = match self.state.row(task).map(|row| &row.end) {
                Some(End::Value(value)) => value.object(),
                _ => None,
            };
            let place = value.and_then(|object| self.objects.locate(object.id())).cloned();
            if let Some(object) = place {
                self.ask_to_persist(task, object.node, object);
            }
        }
    }

    /// Finished tasks whose only copy was in `lost`, are not in the run folder, and are still needed, wait again.
    fn reset_lost(&mut self, lost: &[ObjectId]) {
        if lost.is_empty() {
            return;
        }
        let lost: std::collections::HashSet<_> = lost.iter().copied().collect();
        let needed: Vec<u64> = (0..self.state.tasks.len() as u64)
            .filter(|&task| {
                let Some(row) = self.state.row(task) else { return false };
                let End::Value(value) = &row.end else { return false };
                row.persisted.is_none() && value.object().is_some_and(|object| lost.contains(&object.id()))
            })
            .collect();
        self.lost_values.extend(&needed);
        self.brought_back.clear();
        for task in needed {
            if self.someone_needs(task) {
                self.need(task);
            }
        }
        self.wait_again();
    }

    /// Those that take the value of a task that was brought back wait for it, unless they run. One that was itself brought
    /// back just now does so already.
    fn wait_again(&mut self) {
        let brought_back = std::mem::take(&mut self.brought_back);
        for consumer in 0..self.jobs.len() as u64 {
            let Some(job) = self.job(consumer).filter(|_| !brought_back.contains(&consumer)) else {
                continue;
            };
            let inputs: Vec<u64> = job.input_tasks().filter(|input| brought_back.contains(input)).collect();
            for input in inputs {
                self.engine.wait_again(TaskId(consumer), TaskId(input));
                if let Some(producer) = self.job_mut(input) {
                    producer.consumers += 1;
                }
            }
        }
    }

    fn someone_needs(&self, task: u64) -> bool {
        self.jobs
            .iter()
            .flatten()
            .any(|job| job.input_tasks().any(|input| input == task))
            || (self.kept.contains(&task) && self.config.has_pipeline)
    }

    /// A finished task's value, which is lost, is made again.
    pub(super) fn make_again(&mut self, task: u64) {
        self.brought_back.clear();
        self.need(task);
        self.wait_again();
    }

    /// Makes sure that a finished task's value can be had: one that is gone is run again, with what it needs in turn.
    pub(super) fn need(&mut self, task: u64) {
        let mut open = vec![task];
        while let Some(task) = open.pop() {
            let finished = self.state.row(task).is_some_and(|row| row.phase == Phase::Finished);
            if !finished || !self.lost_values.remove(&task) {
                continue;
            }
            let Some(job) = self.rebuild(task) else { continue };
            open.extend(job.input_tasks());
            self.put_job(task, job);
            self.record(Event::TaskReset(TaskReset {
                task,
                reason: "its value was lost with its agent".to_owned(),
            }));
            self.rerun.push(task);
            self.brought_back.insert(task);
        }
        // Deepest first, so that every dependency is known to the scheduler before its dependents.
        while let Some(task) = self.rerun.pop() {
            self.enter(task);
        }
    }

    /// Ends all agents; says whether another head goes on with the run.
    pub fn shut_down(&mut self, reason: &str, goes_on: bool) {
        for agent in self.agents.keys().copied().collect::<Vec<_>>() {
            self.tell_agent(
                agent,
                Shutdown {
                    reason: reason.to_owned(),
                    goes_on,
                },
            );
        }
    }

    /// Whether something that the status shows, and no record tells, has changed since this was last asked.
    pub fn take_shown_changed(&mut self) -> bool {
        std::mem::take(&mut self.shown_changed)
    }

    /// Whether the run is being cancelled.
    #[must_use]
    pub fn is_cancelling(&self) -> bool {
        matches!(self.ending, Ending::Cancel { .. })
    }
}
