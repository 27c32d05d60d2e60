//! Messages by direction. A direction is one enum; its kinds are frozen numbers, its bodies protobuf.

use crate::frame::{FrameError, put_frame};
use crate::values::{Amounts, Input, ObjectRef, Outcome, ProgramCall, Retry, Value};
use bytes::Bytes;
use prost::{Enumeration, Message};

macro_rules! direction {
    ($(#[$meta:meta])* $name:ident { $($kind:literal => $variant:ident($body:ty),)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        #[allow(missing_docs, clippy::large_enum_variant)] // Each variant is documented at its body.
        pub enum $name { $($variant($body),)* }

        impl $name {
            /// Appends this message as a frame to `out`.
            pub fn encode(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant(body) => put_frame(out, $kind, body.encoded_len(), |out| body.encode_raw(out)),)*
                }
            }

            /// Reads the body of a frame of `kind`.
            ///
            /// # Errors
            /// An unknown kind, or a body that is not the message its kind names.
            pub fn decode(kind: u16, body: &[u8]) -> Result<Self, FrameError> {
                match kind {
                    $($kind => <$body>::decode(body).map(Self::$variant)
                        .map_err(|e| FrameError::Body { kind, reason: e.to_string() }),)*
                    other => Err(FrameError::UnknownKind(other)),
                }
            }
        }

        $(impl From<$body> for $name {
            fn from(body: $body) -> Self { Self::$variant(body) }
        })*
    };
}

direction!(
    /// From a client (Python driver, CLI) to the head.
    ClientToHead {
        1 => Hello(ClientHello),
        2 => PutFunction(PutFunction),
        3 => Submit(TaskSubmit),
        4 => Cancel(CancelTasks),
        5 => Release(ReleaseObjects),
        6 => Fetch(Fetch),
        7 => Subscribe(Subscribe),
        8 => Close(Close),
        9 => Status(StatusRequest),
        10 => Put(PutObject),
    }
);

direction!(
    /// From the head to a client.
    HeadToClient {
        1 => Welcome(Welcome),
        2 => Outcome(TaskOutcome),
        3 => Fetched(Fetched),
        4 => Progress(Progress),
        5 => RunEnd(RunEnd),
        6 => Refused(Refused),
        7 => Status(StatusReply),
    }
);

direction!(
    /// From the head to an agent.
    HeadToAgent {
        1 => Welcome(AgentWelcome),
        2 => PutFunction(PutFunction),
        3 => Call(TaskCall),
        4 => Cancel(CancelTasks),
        5 => Release(ReleaseObjects),
        6 => Fetch(Fetch),
        7 => Persist(Persist),
        8 => Peers(Peers),
        9 => Outcome(TaskOutcome),
        10 => Shutdown(Shutdown),
        11 => Refused(Refused),
        12 => Heartbeat(Heartbeat),
        13 => Put(PutObject),
    }
);

direction!(
    /// From an agent to the head.
    AgentToHead {
        1 => Join(AgentJoin),
        2 => Started(TaskStarted),
        3 => Done(TaskDone),
        4 => Copied(Copied),
        5 => Fetched(Fetched),
        6 => Persisted(Persisted),
        7 => Submit(TaskSubmit),
        8 => Functions(Functions),
        9 => Blocked(Blocked),
        10 => Heartbeat(Heartbeat),
        11 => Release(ReleaseObjects),
        12 => Cancel(CancelTasks),
        13 => Put(PutObject),
        14 => Address(FabricAddress),
    }
);

direction!(
    /// From an agent to one of its workers.
    AgentToWorker {
        1 => Config(WorkerConfig),
        2 => PutFunction(PutFunction),
        3 => Call(TaskCall),
        4 => Outcome(TaskOutcome),
        5 => Fetched(Fetched),
        6 => Shutdown(Shutdown),
    }
);

direction!(
    /// From a worker to its agent.
    WorkerToAgent {
        1 => Ready(WorkerReady),
        2 => Done(TaskDone),
        3 => Returned(ReturnedTasks),
        4 => Log(LogText),
        5 => Submit(TaskSubmit),
        6 => PutFunction(PutFunction),
        7 => Fetch(Fetch),
        8 => Blocked(Blocked),
        9 => Release(ReleaseObjects),
        10 => Cancel(CancelTasks),
        11 => Put(PutObject),
    }
);

/// First message of a client.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClientHello {
    /// The run that the client means.
    #[prost(string, tag = "1")]
    pub run: String,
    /// The client's process id, for the log.
    #[prost(uint32, tag = "2")]
    pub pid: u32,
    /// Whether the run ends with this client (an Executor, `Pipeline.run`).
    #[prost(bool, tag = "3")]
    pub owner: bool,
}

/// The head's answer to a client.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Welcome {
    /// The run's id.
    #[prost(string, tag = "1")]
    pub run: String,
    /// Path of the store socket of the head's own node.
    #[prost(string, tag = "2")]
    pub store_socket: String,
    /// Cores, memory and GPUs of all agents that joined.
    #[prost(message, optional, tag = "3")]
    pub total: Option<Amounts>,
    /// Number of agents that the run waits for.
    #[prost(uint32, tag = "4")]
    pub agents: u32,
    /// The node (agent id) whose store socket this is.
    #[prost(uint32, tag = "5")]
    pub node: u32,
    /// Values up to this many bytes travel inline.
    #[prost(uint32, tag = "6")]
    pub inline_limit: u32,
}

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

/// What a client wants to hear.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Subscribe {
    /// Progress, about ten times a second while something changes.
    #[prost(bool, tag = "1")]
    pub progress: bool,
    /// The outcome of every task of the pipeline, past ones included.
    #[prost(bool, tag = "2")]
    pub outcomes: bool,
}

/// How a client leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum CloseMode {
    /// The run goes on.
    Detach = 0,
    /// The run ends once its tasks have.
    Drain = 1,
    /// Running tasks are cancelled and the run ends.
    Cancel = 2,
}

/// A client leaves.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Close {
    /// How.
    #[prost(enumeration = "CloseMode", tag = "1")]
    pub mode: i32,
}

/// Asks for the status.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct StatusRequest {}

/// The status as JSON (the same as `status.json` in the run folder).
#[derive(Clone, PartialEq, Eq, Message)]
pub struct StatusReply {
    /// The document.
    #[prost(string, tag = "1")]
    pub json: String,
}

/// How many tasks are in which phase.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Progress {
    /// Waiting for others or for room.
    #[prost(uint64, tag = "1")]
    pub waiting: u64,
    /// With an agent.
    #[prost(uint64, tag = "2")]
    pub running: u64,
    /// Finished with a value.
    #[prost(uint64, tag = "3")]
    pub finished: u64,
    /// Failed for good.
    #[prost(uint64, tag = "4")]
    pub failed: u64,
    /// Cancelled.
    #[prost(uint64, tag = "5")]
    pub cancelled: u64,
}

/// The run has ended: every task has its outcome.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RunEnd {
    /// `finished`, `failed` or `cancelled`.
    #[prost(string, tag = "1")]
    pub phase: String,
    /// For people; empty when all went well.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// The other side will not go on with this connection.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Refused {
    /// A short kind: `run`, `ticket`, `protocol`, `python`, `plan`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The thing, the reason, the way out.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// First message of an agent.
#[derive(Clone, PartialEq, Message)]
pub struct AgentJoin {
    /// The agent's number from its ticket.
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// The secret of its ticket (32 bytes); travels inside TLS only.
    #[prost(bytes = "bytes", tag = "2")]
    pub ticket: Bytes,
    /// What it has to give.
    #[prost(message, optional, tag = "3")]
    pub resources: Option<Amounts>,
    /// Host name.
    #[prost(string, tag = "5")]
    pub host: String,
    /// Its process id.
    #[prost(uint32, tag = "6")]
    pub pid: u32,
    /// The run that the ticket names.
    #[prost(string, tag = "7")]
    pub run: String,
}

/// The head's answer to an agent.
#[derive(Clone, PartialEq, Message)]
pub struct AgentWelcome {
    /// The run.
    #[prost(string, tag = "1")]
    pub run: String,
    /// The run folder.
    #[prost(string, tag = "2")]
    pub run_dir: String,
    /// The Python interpreter for workers.
    #[prost(string, tag = "3")]
    pub python: String,
    /// `sys.path` entries to add in workers.
    #[prost(string, repeated, tag = "4")]
    pub sys_path: Vec<String>,
    /// Working folder of workers.
    #[prost(string, tag = "5")]
    pub cwd: String,
    /// Values up to this many bytes travel inline.
    #[prost(uint32, tag = "6")]
    pub inline_limit: u32,
    /// The key with which agents of the run know one another on the data plane (32 bytes).
    #[prost(bytes = "bytes", tag = "7")]
    pub data_key: Bytes,
    /// Variables set in workers and programs.
    #[prost(message, repeated, tag = "8")]
    pub env: Vec<crate::values::Pair>,
    /// Number of agents that the run waits for.
    #[prost(uint32, tag = "9")]
    pub agents: u32,
}

/// An agent has joined the network between the nodes of the run.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FabricAddress {
    /// Where its fabric listens, opaque to the head.
    #[prost(bytes = "bytes", tag = "1")]
    pub address: Bytes,
}

/// Where an agent can be reached for data.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Peer {
    /// The agent.
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// Its fabric's address.
    #[prost(bytes = "bytes", tag = "2")]
    pub fabric_address: Bytes,
}

/// All agents of the run; sent again when they change.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Peers {
    /// The agents.
    #[prost(message, repeated, tag = "1")]
    pub peers: Vec<Peer>,
}

/// Ends an agent or a worker.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Shutdown {
    /// For the log.
    #[prost(string, tag = "1")]
    pub reason: String,
}

/// Says that the sender lives.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Heartbeat {
    /// Store bytes in use.
    #[prost(uint64, tag = "1")]
    pub store_used: u64,
    /// Store bytes allowed.
    #[prost(uint64, tag = "2")]
    pub store_limit: u64,
    /// Store bytes spilled.
    #[prost(uint64, tag = "3")]
    pub store_spilled: u64,
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

/// What a worker needs to know at its start.
#[derive(Clone, PartialEq, Message)]
pub struct WorkerConfig {
    /// The run.
    #[prost(string, tag = "1")]
    pub run: String,
    /// The agent (node).
    #[prost(uint32, tag = "2")]
    pub agent: u32,
    /// The worker.
    #[prost(uint32, tag = "3")]
    pub worker: u32,
    /// Path of the store socket.
    #[prost(string, tag = "4")]
    pub store_socket: String,
    /// Values up to this many bytes travel inline.
    #[prost(uint32, tag = "5")]
    pub inline_limit: u32,
    /// `sys.path` entries to add.
    #[prost(string, repeated, tag = "6")]
    pub sys_path: Vec<String>,
    /// The run folder.
    #[prost(string, tag = "7")]
    pub run_dir: String,
}

/// A worker is up.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct WorkerReady {
    /// Its process id.
    #[prost(uint32, tag = "1")]
    pub pid: u32,
    /// Its Python version, `3.11.7`.
    #[prost(string, tag = "2")]
    pub python: String,
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
