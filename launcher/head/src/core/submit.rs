//! Tasks come in: from clients, from workers, and back after a retry. Hot path: `submit` and `assign`, once a task.

use super::{Core, Ending, Job, Submitter};
use crate::journal::{Event, TaskAdded, TaskAssigned};
use crate::state::{End, Phase};
use bridgehead_spec::{AgentId, Digest, Resources, TaskId};
use bridgehead_wire::{Failure, FailureCause, Input, ObjectRef, PutFunction, TaskCall, TaskSubmit, Value, input};

impl Core {
    /// Learns a function under the sender's digest; a digest that does not match the code is refused with `None`.
    pub(super) fn learn_function(&mut self, put: PutFunction) -> Option<u32> {
        let digest = Digest(put.digest.as_ref().try_into().ok()?);
        if !put.code.is_empty() && Digest::of(&put.code) != digest {
            return None;
        }
        if self.config.has_pipeline && !put.code.is_empty() && self.functions.index(&digest).is_none() {
            self.out.blobs.push((digest, put.code.clone())); // A resume finds it there.
        }
        Some(self.functions.add(digest, &put.name, put.code))
    }

    /// A new task. Inputs and `after` name the submitter's tokens, which `find` turns into the head's ids.
    pub(super) fn submit(
        &mut self,
        mut submit: TaskSubmit,
        function: Option<u32>,
        submitter: Submitter,
        find: impl Fn(&Self, u64) -> Option<u64>,
    ) -> u64 {
        let task = self.state.tasks.len() as u64;
        let parent = submit.parent;
        let mut unknown = None;
        for input in &mut submit.inputs {
            if let Some(input::Kind::Task(token)) = &mut input.kind {
                match find(self, *token) {
                    Some(id) => *token = id,
                    None => unknown = Some(*token),
                }
            }
        }
        for token in &mut submit.after {
            match find(self, *token) {
                Some(id) => *token = id,
                None => unknown = Some(*token),
            }
        }
        let job = Job::new(submit, function.unwrap_or(u32::MAX), submitter);
        self.record_added(task, parent, &job);
        let known_function = job.program.is_some() || function.is_some();
        self.put_job(task, job);
        for object in self.job(task).map(Job::objects).unwrap_or_default() {
            self.objects.hold(&object);
        }
        if let Some(token) = unknown {
            let message =
                format!("task {task} takes the result of task number {token}, which this submitter never added");
            self.finish_failed(task, Failure::new(FailureCause::System, "unknown-input", message));
        } else if !known_function {
            let message = "its function was never sent, or its bytes do not match their digest";
            self.finish_failed(task, Failure::new(FailureCause::System, "unknown-function", message));
        } else if self.ending != Ending::No {
            self.finish_cancelled(task, "the run is ending");
        } else {
            self.enter(task);
        }
        task
    }

    fn record_added(&mut self, task: u64, parent: Option<u64>, job: &Job) {
        let resumable = self.config.has_pipeline;
        let submit = resumable.then(|| TaskSubmit {
            token: task,
            args: job.args.clone(),
            inputs: job.inputs.clone(),
            after: job.after.clone(),
            resources: job.resources.clone(),
            priority: job.priority,
            retry: Some(job.retry),
            timeout_ms: job.timeout_ms,
            program: job.program.clone(),
            parent,
            ranks: job.ranks,
            ..TaskSubmit::default()
        });
        let digest = self.functions.digest(job.function);
        let function = if resumable {
            digest.map(|d| d.0.to_vec()).unwrap_or_default()
        } else {
            Vec::new()
        };
        let name = if resumable { job.name.clone() } else { String::new() };
        self.record(Event::TaskAdded(TaskAdded {
            task,
            name,
            parent,
            submit,
            function,
        }));
    }

    pub(super) fn put_job(&mut self, task: u64, job: Job) {
        let index = usize::try_from(task).expect("task ids count what is in memory");
        if self.jobs.len() <= index {
            self.jobs.resize_with(index + 1, || None);
        }
        self.jobs[index] = Some(Box::new(job));
    }

    /// Hands a waiting task to the scheduler, with those dependencies that are still open. A task whose dependency has
    /// failed fails at once; one whose input's value is gone brings that input back first.
    pub(super) fn enter(&mut self, task: u64) {
        let Some(job) = self.job(task) else { return };
        let dependencies: Vec<u64> = job.dependencies().collect();
        let inputs: Vec<u64> = job.input_tasks().collect();
        if let Some(failure) = dependencies.iter().find_map(|&d| self.upstream_failure(d)) {
            self.finish_failed(task, failure);
            return;
        }
        for &input in &inputs {
            self.need(input);
        }
        for &input in &inputs {
            if let Some(job) = self.job_mut(input) {
                job.consumers += 1;
            } else {
                self.hold_value(input);
            }
        }
        if let Some(job) = self.job_mut(task) {
            job.holds_inputs = true;
        }
        if self.keep_for_later(task) {
            return;
        }
        let open: Vec<TaskId> = dependencies
            .into_iter()
            .filter(|&d| self.state.row(d).is_some_and(|row| !row.phase.is_final()))
            .map(TaskId)
            .collect();
        let Some(job) = self.job(task) else { return };
        let resources = job.resources.as_ref().map_or_else(Resources::default, Resources::from);
        let (priority, timeout_ms, ranks) = (job.priority, job.timeout_ms, job.ranks);
        let fits = self
            .check_room(&resources)
            .and_then(|()| self.check_width(ranks.as_ref(), &resources));
        if let Err(reason) = fits {
            self.finish_failed(task, Failure::new(FailureCause::System, "does-not-fit", reason));
            return;
        }
        let limit_ns = timeout_ms.saturating_mul(1_000_000);
        match &ranks {
            Some(ranks) => {
                let shape = super::ranks::shape(ranks);
                self.engine
                    .submit_gang(TaskId(task), &resources, shape, limit_ns, priority, &open);
            }
            None => self
                .engine
                .submit_limited(TaskId(task), &resources, limit_ns, priority, &open),
        }
        self.tell_places(task);
    }

    /// Tells the scheduler where arguments and inputs of a task lie that are stored already; those that are yet to be made
    /// it learns of as they are finished.
    fn tell_places(&mut self, task: u64) {
        let Some(job) = self.job(task) else { return };
        let inputs = job.inputs.iter().filter_map(|input| match input.kind.as_ref()? {
            input::Kind::Value(value) => value.object(),
            input::Kind::Task(producer) => match &self.state.row(*producer)?.end {
                End::Value(value) => value.object(),
                _ => None,
            },
        });
        let stored = job.args.iter().filter_map(Value::object).chain(inputs);
        let copies = |object: &ObjectRef| {
            let nodes = self.objects.nodes(object.id()).into_iter();
            nodes.map(AgentId).zip(std::iter::repeat(object.len))
        };
        let places: Vec<(AgentId, u64)> = stored.flat_map(copies).collect();
        for (agent, bytes) in places {
            self.engine.input_at(TaskId(task), agent, bytes);
        }
    }

    /// Whether some agent that the run was given could ever hold `resources`.
    fn check_room(&self, resources: &Resources) -> Result<(), String> {
        let mut lacking = None;
        for agent in &self.config.agents {
            match resources.lacking(&agent.resources) {
                None => return Ok(()),
                Some(found) => lacking = Some(found),
            }
        }
        let Some((what, asked, there)) = lacking else {
            return Ok(());
        };
        Err(format!(
            "it asks for {asked} {what}, but the most that an agent of this run has is {there}: ask for less, or give the run larger agents"
        ))
    }

    /// The failure that a dependent of `task` gets, if `task` has no value and never will.
    pub(super) fn upstream_failure(&self, task: u64) -> Option<Failure> {
        let row = self.state.row(task)?;
        let (root, why) = match (&row.phase, &row.end) {
            // Passed on as it is: a text that grew by each link would fill the journal of a long chain.
            (Phase::Failed, End::Failure(failure)) if failure.root.is_some() => return Some((**failure).clone()),
            (Phase::Failed, End::Failure(failure)) => (task, failure.message.clone()),
            (Phase::Cancelled, End::Cancelled(reason)) => (task, format!("cancelled: {reason}")),
            _ => return None,
        };
        let name = self.task_name(root);
        let mut failure = Failure::new(
            FailureCause::Upstream,
            "upstream",
            format!("{name} (t{root}), which it needs, failed: {why}"),
        );
        failure.root = Some(root);
        Some(failure)
    }

    /// A hold on the stored value of a finished task, for one more consumer. A value that lies in the run folder only, because
    /// an earlier attempt made it, has no object: a hold would invent one, at a node which never had it.
    fn hold_value(&mut self, task: u64) {
        let Some(row) = self.state.row(task) else { return };
        let object = match &row.end {
            End::Value(value) => value.object().cloned(),
            _ => None,
        };
        let in_file = row.persisted.is_some();
        if let Some(object) = object.filter(|object| !in_file || self.objects.locate(object.id()).is_some()) {
            self.objects.hold(&object);
        }
    }

    /// Lets the scheduler give out what can run, and sends it.
    pub fn assign(&mut self) {
        if !self.gang_whole {
            return; // The gang arrives whole or the run does not start.
        }
        let mut actions = std::mem::take(&mut self.actions);
        self.engine.schedule(&mut actions);
        for (task, agent) in actions.drain(..) {
            self.send_call(task.0, agent);
        }
        self.actions = actions;
    }

    fn send_call(&mut self, task: u64, agent: AgentId) {
        let attempt = self.state.row(task).map_or(1, |row| row.attempt + 1);
        let Some(mut call) = self.call(task, attempt) else {
            let message = "a value that it takes is gone and cannot be made again: run it in a new run";
            self.give_up(TaskId(task));
            self.finish_failed(task, Failure::new(FailureCause::LostNode, "input-lost", message));
            return;
        };
        let ranks = self.ranks_of(task);
        call.gang = self.gang_call(task, &ranks);
        let len = prost::Message::encoded_len(&call);
        if len > bridgehead_wire::MAX_BODY {
            let message = format!(
                "its arguments and inputs are {len} bytes together, more than the {} that can travel: give it less at a time, or files",
                bridgehead_wire::MAX_BODY
            );
            self.give_up(TaskId(task));
            self.finish_failed(task, Failure::new(FailureCause::System, "too-large", message));
            return;
        }
        if call.program.is_some() {
            call.function = 0;
        }
        if let Some(trace) = &mut self.trace {
            trace.given(task, self.now_ns);
        }
        self.began = true;
        self.record(Event::TaskAssigned(TaskAssigned {
            task,
            attempt,
            agent: agent.0,
            ranks: ranks.clone(),
        }));
        if ranks.is_empty() {
            return self.hand_over(agent.0, call);
        }
        self.begin_gang(task, attempt, &ranks);
        for at in &ranks {
            self.hand_over(at.agent, call.clone());
        }
    }

    /// The agent gets the call, and before it the function if it does not know it.
    fn hand_over(&mut self, agent: u32, call: TaskCall) {
        if call.program.is_none() {
            if let Some(put) = self.functions.introduce(agent, call.function) {
                self.tell_agent(agent, put);
            }
        }
        self.tell_agent(agent, call);
    }

    fn call(&self, task: u64, attempt: u32) -> Option<TaskCall> {
        let job = self.job(task)?;
        let inputs = job
            .inputs
            .iter()
            .map(|input| self.input_value(input))
            .collect::<Option<Vec<_>>>()?;
        let args = job.args.as_ref().map(|args| self.relocate(args));
        Some(TaskCall {
            task,
            attempt,
            function: job.function,
            args,
            inputs,
            program: job.program.clone(),
            resources: job.resources.clone(),
            timeout_ms: job.timeout_ms,
            name: job.name.clone(),
            devices: Vec::new(),
            lazy: job.lazy_inputs(),
            gang: None,
        })
    }

    fn input_value(&self, input: &Input) -> Option<Value> {
        match input.kind.as_ref()? {
            input::Kind::Value(value) => Some(self.relocate(value)),
            input::Kind::Task(task) => match &self.state.row(*task)?.end {
                End::Value(value) => Some(self.present(*task, value)),
                _ => None,
            },
        }
    }

    /// The value with its object's present place.
    pub(super) fn relocate(&self, value: &Value) -> Value {
        match value
            .object()
            .and_then(|object: &ObjectRef| self.objects.locate(object.id()))
        {
            Some(place) => Value {
                refs: value.refs.clone(),
                ..Value::stored(place.clone())
            },
            None => self.in_file(value).unwrap_or_else(|| value.clone()),
        }
    }

    /// A stored value that an earlier attempt wrote to the run folder.
    fn in_file(&self, value: &Value) -> Option<Value> {
        let file = self.state.files.get(&value.object()?.id())?;
        Some(Value::file(file.clone()))
    }
}
