//! Records of the journal: everything that ever changes a run's state. A tag is never re-used or re-numbered.
//! The byte format around them is `segment.rs`; both are described in `docs/formats/journal.md`.

use bridgehead_wire::{Amounts, Failure, ObjectRef, RanksAt, RanksBound, TaskSubmit, Value};
use prost::{Message, Oneof};

/// One transition of the run.
#[derive(Clone, PartialEq, Message)]
pub struct Record {
    /// Nanoseconds since the Unix epoch, by the head's clock.
    #[prost(fixed64, tag = "1")]
    pub time_ns: u64,
    /// What happened.
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15")]
    pub event: Option<Event>,
}

/// What a [`Record`] says.
#[allow(clippy::large_enum_variant)] // Records are short-lived; a box would cost an allocation each.
#[derive(Clone, PartialEq, Oneof)]
pub enum Event {
    /// An attempt at the run began.
    #[prost(message, tag = "2")]
    RunStarted(RunStarted),
    /// An agent joined.
    #[prost(message, tag = "3")]
    AgentJoined(AgentJoined),
    /// An agent went away before the end.
    #[prost(message, tag = "4")]
    AgentLost(AgentLost),
    /// A task that is not in `spec.json` was added.
    #[prost(message, tag = "5")]
    TaskAdded(TaskAdded),
    /// An attempt at a task was given to an agent.
    #[prost(message, tag = "6")]
    TaskAssigned(TaskAssigned),
    /// An attempt ended with a value.
    #[prost(message, tag = "7")]
    TaskFinished(TaskFinished),
    /// An attempt ended without one.
    #[prost(message, tag = "8")]
    TaskFailed(TaskFailed),
    /// A task was cancelled.
    #[prost(message, tag = "9")]
    TaskCancelled(TaskCancelled),
    /// A result was written to the run folder.
    #[prost(message, tag = "10")]
    TaskPersisted(TaskPersisted),
    /// A finished task's value is gone and the task waits again.
    #[prost(message, tag = "11")]
    TaskReset(TaskReset),
    /// The attempt at the run ended.
    #[prost(message, tag = "12")]
    RunEnded(RunEnded),
    /// The attempt at the run stopped before its tasks had their outcomes; another attempt is to go on.
    #[prost(message, tag = "13")]
    RunPaused(RunPaused),
    /// An object that tasks take as an argument was written to the run folder.
    #[prost(message, tag = "14")]
    ObjectPersisted(ObjectPersisted),
    /// The ranks of a gang on one of its agents are started.
    #[prost(message, tag = "15")]
    GangStarted(GangStarted),
}

/// See [`Event::RunStarted`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunStarted {
    /// The run.
    #[prost(string, tag = "1")]
    pub run: String,
    /// The attempt, from 1; also the segment's number.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Tasks in `spec.json`.
    #[prost(uint64, tag = "3")]
    pub tasks: u64,
    /// Version of the program that writes.
    #[prost(string, tag = "4")]
    pub writer: String,
    /// How many records of earlier segments this attempt began from; what a cut-off head appends after that does not count.
    /// Absent in segments of writers that did not know it.
    #[prost(uint64, optional, tag = "5")]
    pub replayed: Option<u64>,
}

/// See [`Event::AgentJoined`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AgentJoined {
    /// The agent.
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// Its host.
    #[prost(string, tag = "2")]
    pub host: String,
    /// Its process id.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// What it has to give.
    #[prost(message, optional, tag = "4")]
    pub resources: Option<Amounts>,
}

/// See [`Event::AgentLost`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct AgentLost {
    /// The agent.
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// See [`Event::TaskAdded`].
#[derive(Clone, PartialEq, Message)]
pub struct TaskAdded {
    /// The id that the head gave it.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// For people.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The task that added it, if one did.
    #[prost(uint64, optional, tag = "3")]
    pub parent: Option<u64>,
    /// The task itself, where the run can be resumed; inputs name the head's task ids.
    #[prost(message, optional, tag = "4")]
    pub submit: Option<TaskSubmit>,
    /// Digest of its function (32 bytes), which lies in `blobs/`.
    #[prost(bytes = "vec", tag = "5")]
    pub function: Vec<u8>,
}

/// See [`Event::GangStarted`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GangStarted {
    /// The agent.
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// The task, the attempt, and what each rank is bound to.
    #[prost(message, required, tag = "2")]
    pub bound: RanksBound,
}

/// See [`Event::TaskAssigned`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskAssigned {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt, from 1.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// The agent; of a gang the one with the first rank.
    #[prost(uint32, tag = "3")]
    pub agent: u32,
    /// Of a gang: where its ranks are.
    #[prost(message, repeated, tag = "4")]
    pub ranks: Vec<RanksAt>,
}

/// See [`Event::TaskFinished`].
#[derive(Clone, PartialEq, Message)]
pub struct TaskFinished {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// The value; inline bytes only where the run can be resumed.
    #[prost(message, optional, tag = "3")]
    pub value: Option<Value>,
    /// Start in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "4")]
    pub started_ns: u64,
    /// Run time in nanoseconds.
    #[prost(uint64, tag = "5")]
    pub elapsed_ns: u64,
    /// The worker; 0 for programs.
    #[prost(uint32, tag = "6")]
    pub worker: u32,
}

/// See [`Event::TaskFailed`].
#[derive(Clone, PartialEq, Message)]
pub struct TaskFailed {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt; 0 when it never started.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Why.
    #[prost(message, optional, tag = "3")]
    pub failure: Option<Failure>,
    /// Whether another attempt follows.
    #[prost(bool, tag = "4")]
    pub retried: bool,
}

/// See [`Event::TaskCancelled`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskCancelled {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// See [`Event::TaskPersisted`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskPersisted {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// Path relative to the run folder.
    #[prost(string, tag = "2")]
    pub path: String,
    /// Bytes.
    #[prost(uint64, tag = "3")]
    pub len: u64,
}

/// See [`Event::TaskReset`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct TaskReset {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// Why, for people.
    #[prost(string, tag = "2")]
    pub reason: String,
}

/// See [`Event::RunEnded`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunEnded {
    /// `finished`, `failed` or `cancelled`.
    #[prost(string, tag = "1")]
    pub phase: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// See [`Event::RunPaused`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunPaused {
    /// Why, as one word: `walltime`, `preempted`, `gang` (what is left is another gang's) or `superseded` (another head
    /// took over).
    #[prost(string, tag = "1")]
    pub cause: String,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// See [`Event::ObjectPersisted`].
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ObjectPersisted {
    /// High half of the object's id.
    #[prost(fixed64, tag = "1")]
    pub id_hi: u64,
    /// Low half.
    #[prost(fixed64, tag = "2")]
    pub id_lo: u64,
    /// Path relative to the run folder.
    #[prost(string, tag = "3")]
    pub path: String,
    /// Bytes.
    #[prost(uint64, tag = "4")]
    pub len: u64,
}

impl TaskFinished {
    /// The store object that holds the value, if it is not inline.
    #[must_use]
    pub fn object(&self) -> Option<&ObjectRef> {
        self.value.as_ref().and_then(Value::object)
    }
}
