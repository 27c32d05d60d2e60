//! Bodies of messages about tasks, functions and objects. Who sends which to whom is in `message.rs`.

use crate::ranks::{GangCall, Ranks};
use crate::values::{Amounts, Input, ObjectRef, Outcome, ProgramCall, Retry, Value};
use bytes::Bytes;
use prost::Message;

/// A function's pickled code, sent once to each process that needs it.
/// `index` is chosen by the sender and names the function in later messages on the same connection.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct PutFunction {
    /// Names the function on this connection.
    #[prost(uint32, tag = "1")]
    pub index: u32,
    /// SHA-256 of `code`.
    #[prost(bytes = "bytes", tag = "2")]
    pub digest: Bytes,
    /// For people: `module.qualname`.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The pickled function; empty when the receiver finds it in the run folder under its digest.
    #[prost(bytes = "bytes", tag = "4")]
    pub code: Bytes,
}

/// Functions that a worker registered, forwarded by its agent before its submits.
#[derive(Clone, PartialEq, Message)]
pub struct Functions {
    /// The functions; indices are of the agent's connection to the head.
    #[prost(message, repeated, tag = "1")]
    pub functions: Vec<PutFunction>,
}

/// A task to be run.
#[derive(Clone, PartialEq, Message)]
pub struct TaskSubmit {
    /// The submitter's own number for it; comes back in the outcome.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// Index of the function (see `PutFunction`), unless `program` is there.
    #[prost(uint32, tag = "2")]
    pub function: u32,
    /// Packed `(args, kwargs)`. A stored value's hold passes to the head.
    #[prost(message, optional, tag = "3")]
    pub args: Option<Value>,
    /// What the placeholders in `args` stand for, by position.
    #[prost(message, repeated, tag = "4")]
    pub inputs: Vec<Input>,
    /// What it asks for; absent: one core.
    #[prost(message, optional, tag = "5")]
    pub resources: Option<Amounts>,
    /// Higher goes first.
    #[prost(sint32, tag = "6")]
    pub priority: i32,
    /// Retries; absent: the defaults.
    #[prost(message, optional, tag = "7")]
    pub retry: Option<Retry>,
    /// Time limit in milliseconds; 0: none.
    #[prost(uint64, tag = "8")]
    pub timeout_ms: u64,
    /// For people; empty: the function's name.
    #[prost(string, tag = "9")]
    pub name: String,
    /// A program instead of a function.
    #[prost(message, optional, tag = "10")]
    pub program: Option<ProgramCall>,
    /// Set by the agent when a worker submits: that worker.
    #[prost(uint32, optional, tag = "11")]
    pub from_worker: Option<u32>,
    /// Set with `from_worker`: the task that was running.
    #[prost(uint64, optional, tag = "12")]
    pub parent: Option<u64>,
    /// The submitter's number for a task of its own that this one waits for besides its inputs.
    #[prost(uint64, repeated, tag = "13")]
    pub after: Vec<u64>,
    /// Several ranks run it together, and each gets `resources`.
    #[prost(message, optional, tag = "14")]
    pub ranks: Option<Ranks>,
}

/// An attempt at a task, on its way to a worker.
#[derive(Clone, PartialEq, Message)]
pub struct TaskCall {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt, from 1.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Index of the function on this connection.
    #[prost(uint32, tag = "3")]
    pub function: u32,
    /// Packed `(args, kwargs)`.
    #[prost(message, optional, tag = "4")]
    pub args: Option<Value>,
    /// Values of the placeholders, by position.
    #[prost(message, repeated, tag = "5")]
    pub inputs: Vec<Value>,
    /// A program instead of a function.
    #[prost(message, optional, tag = "6")]
    pub program: Option<ProgramCall>,
    /// What the attempt holds; absent: one core.
    #[prost(message, optional, tag = "7")]
    pub resources: Option<Amounts>,
    /// Time limit in milliseconds; 0: none.
    #[prost(uint64, tag = "8")]
    pub timeout_ms: u64,
    /// For people; empty: the function's name.
    #[prost(string, tag = "9")]
    pub name: String,
    /// Indices of the GPUs that are this attempt's; set by the agent.
    #[prost(uint32, repeated, tag = "10")]
    pub devices: Vec<u32>,
    /// Positions of inputs that arrive as references: their objects are not brought to the node.
    #[prost(uint32, repeated, tag = "11")]
    pub lazy: Vec<u32>,
    /// It is run by ranks, each of which gets `resources`.
    #[prost(message, optional, tag = "12")]
    pub gang: Option<GangCall>,
}

/// The end of an attempt.
#[derive(Clone, PartialEq, Message)]
pub struct TaskDone {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// How it ended. A stored value is already published in the node's store, with one hold for the head.
    #[prost(message, optional, tag = "3")]
    pub outcome: Option<Outcome>,
    /// Start in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "4")]
    pub started_ns: u64,
    /// Run time in nanoseconds.
    #[prost(uint64, tag = "5")]
    pub elapsed_ns: u64,
    /// The worker; 0 for programs.
    #[prost(uint32, tag = "6")]
    pub worker: u32,
    /// Of a gang whose ranks' values are shards: those of the ranks here, in order.
    #[prost(message, repeated, tag = "7")]
    pub shards: Vec<Value>,
}

/// An attempt has been running for a while (sent for those that outlast the agent's tick, to keep short tasks cheap).
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct TaskStarted {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// The worker; 0 for programs.
    #[prost(uint32, tag = "3")]
    pub worker: u32,
    /// Its process id.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
    /// Start in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "5")]
    pub started_ns: u64,
}

/// The final end of a task, for its submitter. A stored value carries one hold for the receiver.
#[derive(Clone, PartialEq, Message)]
pub struct TaskOutcome {
    /// The submitter's number (for a pipeline's task: its id).
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// The head's id of the task.
    #[prost(uint64, tag = "2")]
    pub task: u64,
    /// The end.
    #[prost(message, optional, tag = "3")]
    pub outcome: Option<Outcome>,
    /// Between agent and head: the worker that it is for.
    #[prost(uint32, optional, tag = "4")]
    pub for_worker: Option<u32>,
    /// Attempts made.
    #[prost(uint32, tag = "5")]
    pub attempts: u32,
    /// Run time of the last attempt in nanoseconds.
    #[prost(uint64, tag = "6")]
    pub elapsed_ns: u64,
}

/// Tasks to cancel.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct CancelTasks {
    /// Towards the head: the submitter's tokens; towards an agent: task ids.
    #[prost(uint64, repeated, tag = "1")]
    pub tasks: Vec<u64>,
    /// All tasks of the run.
    #[prost(bool, tag = "2")]
    pub all: bool,
    /// For people.
    #[prost(string, tag = "3")]
    pub reason: String,
    /// Set by the agent when a worker cancels its own submits.
    #[prost(uint32, optional, tag = "4")]
    pub from_worker: Option<u32>,
}

/// A worker's task waits for tasks that it added, so what it holds is free meanwhile.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Blocked {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// Waits, or goes on.
    #[prost(bool, tag = "2")]
    pub blocked: bool,
}

/// Calls that a worker had queued and gives back, because the task before them runs long or waits.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ReturnedTasks {
    /// The tasks, in the order in which they were sent.
    #[prost(uint64, repeated, tag = "1")]
    pub tasks: Vec<u64>,
}

/// Text that a task printed or logged.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LogText {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// `stdout` or `stderr`.
    #[prost(string, tag = "3")]
    pub stream: String,
    /// The text.
    #[prost(string, tag = "4")]
    pub text: String,
}

/// Holds given back, one for each entry.
#[derive(Clone, PartialEq, Message)]
pub struct ReleaseObjects {
    /// The objects.
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<ObjectRef>,
}

/// An object that the sender (or the client or worker behind it) wrote into the arena of the node that the reference names:
/// it is to be published there, with one hold for its writer.
#[derive(Clone, PartialEq, Message)]
pub struct PutObject {
    /// The object.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectRef>,
}

/// Asks for an object to be brought to the asker's node.
#[derive(Clone, PartialEq, Message)]
pub struct Fetch {
    /// Comes back in `Fetched`.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// The object, as far as the asker knows it.
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectRef>,
    /// First byte of the range that is wanted.
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    /// Bytes of it; 0: the whole object.
    #[prost(uint64, tag = "4")]
    pub len: u64,
    /// Which memory of the node the whole object is to lie in.
    #[prost(enumeration = "Memory", tag = "5")]
    pub memory: i32,
    /// Which of the node's memories of that kind: modulo how many there are.
    #[prost(uint32, tag = "6")]
    pub turn: u32,
}

/// A kind of memory that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Memory {
    /// Whichever the store chooses.
    Any = 0,
    /// That of a NUMA node.
    Numa = 1,
    /// That of a GPU.
    Gpu = 2,
}

/// The answer to `Fetch`: where the object now lies on the asker's node, or why not.
#[derive(Clone, PartialEq, Message)]
pub struct Fetched {
    /// The asker's token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// A stored value, or a failure.
    #[prost(message, optional, tag = "2")]
    pub outcome: Option<Outcome>,
    /// The value is an object of its own that holds the asked range alone, with a hold for the asker. Where the whole object
    /// lies on the asker's node already, that is named instead.
    #[prost(bool, tag = "3")]
    pub ranged: bool,
}

/// Asks the head where an object lies that the asker's node could not get where it looked.
#[derive(Clone, PartialEq, Message)]
pub struct Locate {
    /// Comes back in `Located`.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// The object, with the place where it was not to be had.
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectRef>,
}

/// The answer to `Locate`: another place or another object of the same value, once there is one, or why there is none.
#[derive(Clone, PartialEq, Message)]
pub struct Located {
    /// The asker's token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// A stored value, or a failure.
    #[prost(message, optional, tag = "2")]
    pub outcome: Option<Outcome>,
}

/// One more hold for the sender on objects that something else, which it got, holds.
#[derive(Clone, PartialEq, Message)]
pub struct HoldObjects {
    /// The objects.
    #[prost(message, repeated, tag = "1")]
    pub objects: Vec<ObjectRef>,
}

/// Where shards are to lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum Placing {
    /// Where they are.
    Stay = 0,
    /// In turn on all nodes.
    Spread = 1,
    /// Neighbours together, as ranks are given to nodes.
    ByRank = 2,
    /// In turn in the memory of all GPUs.
    ByGpu = 3,
    /// On the nodes that `near` names.
    Near = 4,
    /// Neighbours together on nodes, and there in turn in the memory of the NUMA nodes.
    ByNuma = 5,
}

/// Asks for objects to be moved or copied to nodes of the run.
#[derive(Clone, PartialEq, Message)]
pub struct PlaceObjects {
    /// Comes back in `Placed`.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// The objects, in their order.
    #[prost(message, repeated, tag = "2")]
    pub objects: Vec<ObjectRef>,
    /// Where.
    #[prost(enumeration = "Placing", tag = "3")]
    pub placing: i32,
    /// For `Near`: a node for each object.
    #[prost(uint32, repeated, tag = "4")]
    pub near: Vec<u32>,
    /// Nodes that have each of them in the end; 0 is 1.
    #[prost(uint32, tag = "5")]
    pub replicas: u32,
    /// Set by the agent when a worker asks: that worker.
    #[prost(uint32, optional, tag = "6")]
    pub from_worker: Option<u32>,
    /// 1 + the number of the GPU of its node in whose memory each of them is to lie; 0: as `placing` says.
    #[prost(uint32, tag = "7")]
    pub gpu: u32,
}

/// The answer to `PlaceObjects`, once all is done.
#[derive(Clone, PartialEq, Message)]
pub struct Placed {
    /// The asker's token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// The objects where they lie now, in the order of the request.
    #[prost(message, repeated, tag = "2")]
    pub objects: Vec<ObjectRef>,
    /// Empty, or why it was not done.
    #[prost(string, tag = "3")]
    pub error: String,
    /// Between head and agent: the worker that it is for.
    #[prost(uint32, optional, tag = "4")]
    pub for_worker: Option<u32>,
}

/// An object has come into an agent's memory, from another node or from disk.
#[derive(Clone, PartialEq, Message)]
pub struct Copied {
    /// Where the copy lies.
    #[prost(message, optional, tag = "1")]
    pub object: Option<ObjectRef>,
    /// When it was asked for, in nanoseconds since the Unix epoch.
    #[prost(fixed64, tag = "2")]
    pub started_ns: u64,
    /// How long it took, in nanoseconds.
    #[prost(uint64, tag = "3")]
    pub elapsed_ns: u64,
}

/// Asks an agent to write an object to a file of the run folder (to a temporary name, synced, then renamed).
#[derive(Clone, PartialEq, Message)]
pub struct Persist {
    /// The task whose result it is.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The object.
    #[prost(message, optional, tag = "2")]
    pub object: Option<ObjectRef>,
    /// Path relative to the run folder.
    #[prost(string, tag = "3")]
    pub path: String,
}

/// The answer to `Persist`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Persisted {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// Empty, or why it could not be written.
    #[prost(string, tag = "2")]
    pub error: String,
    /// Path relative to the run folder.
    #[prost(string, tag = "3")]
    pub path: String,
    /// Bytes written.
    #[prost(uint64, tag = "4")]
    pub len: u64,
}
