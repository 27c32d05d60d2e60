//! A live task: what is needed to run it, again if need be, and who wants its outcome.

use super::ConnId;
use bridgehead_wire::{Amounts, Input, ObjectRef, ProgramCall, Ranks, Retry, TaskSubmit, Value, input};

/// Who gets the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitter {
    /// The pipeline in `spec.json`: clients that subscribed.
    Pipeline,
    /// A client, by its own number.
    Client(ConnId, u64),
    /// A worker, by agent, worker and its own number.
    Worker(u32, u32, u64),
}

/// A task that has no outcome yet.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its function (run-wide number), unless it is a program.
    pub function: u32,
    /// Higher goes first.
    pub priority: i32,
    /// Packed arguments.
    pub args: Option<Value>,
    /// Values and tasks (the head's ids) that the placeholders stand for.
    pub inputs: Vec<Input>,
    /// Tasks (the head's ids) that it waits for besides.
    pub after: Vec<u64>,
    /// A program.
    pub program: Option<ProgramCall>,
    /// What it asks for; `None` is one core.
    pub resources: Option<Amounts>,
    /// Time limit in milliseconds; 0: none.
    pub timeout_ms: u64,
    /// For people; empty: the function's name.
    pub name: String,
    /// Retries that are left to it in all, by cause.
    pub retry: Retry,
    /// Who gets the outcome.
    pub submitter: Submitter,
    /// Unfinished tasks that take its result.
    pub consumers: u32,
    /// Whether the user holds its result beyond its consumers.
    pub keep: bool,
    /// Whether its result must be written to the run folder.
    pub persist: Persist,
    /// Whether a cancel was asked for while it ran.
    pub cancelling: Option<Box<str>>,
    /// Whether its inputs are held for it.
    pub holds_inputs: bool,
    /// How many ranks run it together, and how; `None`: one process.
    pub ranks: Option<Ranks>,
}

/// When a result is written to the run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persist {
    /// Small ones, and those that the user holds.
    Auto,
    /// Always.
    Always,
    /// Never: in the journal neither.
    Never,
}

/// Results up to this many bytes are written to the run folder without being asked.
pub const AUTO_PERSIST: u64 = 1 << 20;

/// The retries of a task that says nothing: what the machine does to it is tried again, its own errors are not.
#[must_use]
pub fn default_retry() -> Retry {
    Retry {
        lost_node: 3,
        preempted: 3,
        walltime: 0,
        oom: 0,
        user: 0,
    }
}

impl Job {
    /// A job from a submitted task whose inputs already name the head's ids.
    #[must_use]
    pub fn new(submit: TaskSubmit, function: u32, submitter: Submitter) -> Self {
        Self {
            function,
            priority: submit.priority,
            args: submit.args,
            inputs: submit.inputs,
            after: submit.after,
            program: submit.program,
            resources: submit.resources,
            timeout_ms: submit.timeout_ms,
            name: submit.name,
            retry: submit.retry.unwrap_or_else(default_retry),
            submitter,
            consumers: 0,
            keep: false,
            persist: Persist::Auto,
            cancelling: None,
            holds_inputs: false,
            ranks: submit.ranks,
        }
    }

    /// The stored objects among its arguments and inputs, which it holds until it ends.
    #[must_use]
    pub fn objects(&self) -> Vec<ObjectRef> {
        let inputs = self.inputs.iter().filter_map(|input| match &input.kind {
            Some(input::Kind::Value(value)) => Some(value),
            _ => None,
        });
        let values = self.args.iter().chain(inputs);
        values.filter_map(|value| value.object().cloned()).collect()
    }

    /// Positions of the inputs that it gets as references.
    #[must_use]
    pub fn lazy_inputs(&self) -> Vec<u32> {
        let lazy = (0..).zip(&self.inputs).filter(|(_, input)| input.lazy);
        lazy.map(|(position, _)| position).collect()
    }

    /// The tasks whose results it takes, with repetitions.
    pub fn input_tasks(&self) -> impl Iterator<Item = u64> + '_ {
        self.inputs.iter().filter_map(|input| match input.kind {
            Some(input::Kind::Task(task)) => Some(task),
            _ => None,
        })
    }

    /// All tasks that must end before it starts.
    pub fn dependencies(&self) -> impl Iterator<Item = u64> + '_ {
        self.input_tasks().chain(self.after.iter().copied())
    }

    /// How many attempts this cause allows beyond the first.
    #[must_use]
    pub fn allowed(&self, cause: bridgehead_wire::FailureCause) -> u32 {
        use bridgehead_wire::FailureCause as Cause;
        match cause {
            Cause::User => self.retry.user,
            Cause::LostNode => self.retry.lost_node,
            Cause::Preempted => self.retry.preempted,
            Cause::Walltime => self.retry.walltime,
            Cause::OutOfMemory => self.retry.oom,
            Cause::System | Cause::Upstream => 0,
        }
    }
}
