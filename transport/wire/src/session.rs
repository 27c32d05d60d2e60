//! Bodies of messages about connections: who is there, what a process needs to know, how a run stands and ends. Who sends
//! which to whom is in `message.rs`.

use crate::values::Amounts;
use bytes::Bytes;
use prost::{Enumeration, Message};

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
    /// The memory of its GPUs, by number.
    #[prost(message, repeated, tag = "8")]
    pub gpu_memory: Vec<GpuMemory>,
}

/// The memory of a GPU, as a store uses it.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GpuMemory {
    /// What it is, for people.
    #[prost(string, tag = "1")]
    pub name: String,
    /// It is host memory that stands in for the GPU's.
    #[prost(bool, tag = "2")]
    pub stand_in: bool,
    /// Why CUDA does not have it, where it is host memory.
    #[prost(string, tag = "3")]
    pub why: String,
    /// Most bytes that objects may take.
    #[prost(uint64, tag = "4")]
    pub limit: u64,
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
    /// When tasks that still run are cut off because the allocation ends, in nanoseconds since the Unix epoch; 0: never.
    #[prost(fixed64, tag = "10")]
    pub allocation_end_ns: u64,
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
    /// The run has not ended: another head is to go on with it.
    #[prost(bool, tag = "2")]
    pub goes_on: bool,
}

/// Says that the sender lives.
#[derive(Clone, PartialEq, Eq, Message)]
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
    /// Objects that calls took or processes asked for, and that were in the node's memory; all below since the store began.
    #[prost(uint64, tag = "4")]
    pub local_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "5")]
    pub local_bytes: u64,
    /// Objects, or parts of them, that were read from other nodes.
    #[prost(uint64, tag = "6")]
    pub remote_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "7")]
    pub remote_bytes: u64,
    /// Objects that other nodes were let read; they may have read parts of them.
    #[prost(uint64, tag = "8")]
    pub lent_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "9")]
    pub lent_bytes: u64,
    /// Objects that were written to disk.
    #[prost(uint64, tag = "10")]
    pub spill_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "11")]
    pub spill_bytes: u64,
    /// Objects that were read back.
    #[prost(uint64, tag = "12")]
    pub restore_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "13")]
    pub restore_bytes: u64,
    /// Views that processes of the node took.
    #[prost(uint64, tag = "14")]
    pub views: u64,
    /// Objects in memory or on disk.
    #[prost(uint64, tag = "15")]
    pub objects: u64,
    /// Bytes of objects in the memory of GPUs.
    #[prost(uint64, tag = "20")]
    pub gpu_used: u64,
    /// Objects that were copied to the memory of GPUs.
    #[prost(uint64, tag = "21")]
    pub to_gpu_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "22")]
    pub to_gpu_bytes: u64,
    /// Objects that were copied back from there for readers on the host.
    #[prost(uint64, tag = "23")]
    pub from_gpu_operations: u64,
    /// Their bytes.
    #[prost(uint64, tag = "24")]
    pub from_gpu_bytes: u64,
    /// The store's arenas, where it has several.
    #[prost(message, repeated, tag = "16")]
    pub arenas: Vec<ArenaUse>,
}

/// How full one arena of a store is.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ArenaUse {
    /// The NUMA node in whose memory it is to lie.
    #[prost(uint32, tag = "1")]
    pub numa: u32,
    /// Bytes in use.
    #[prost(uint64, tag = "2")]
    pub used: u64,
    /// Its bytes.
    #[prost(uint64, tag = "3")]
    pub limit: u64,
    /// Empty, or why the kernel did not bind it to that NUMA node.
    #[prost(string, tag = "4")]
    pub refused: String,
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
    /// As in [`AgentWelcome`].
    #[prost(fixed64, tag = "8")]
    pub allocation_end_ns: u64,
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

/// First message of a guest: which task it is a process of, as its variables say.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GuestHello {
    /// The task (`BRIDGEHEAD_TASK`).
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt (`BRIDGEHEAD_ATTEMPT`).
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Its rank (`BRIDGEHEAD_RANK`), where the task has several.
    #[prost(uint32, optional, tag = "3")]
    pub rank: Option<u32>,
    /// Its process id.
    #[prost(uint32, tag = "4")]
    pub pid: u32,
}
