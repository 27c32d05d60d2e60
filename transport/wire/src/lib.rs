//! Messages and frames between the processes of a run: bytes and meanings, no sockets.
//!
//! Hot path: `Frames::next` and the encoding of `TaskCall`/`TaskDone` run once a task.
//! A frame is `body length: u32 LE | kind: u16 LE | protocol: u16 LE | body`, the body a protobuf message
//! (`docs/formats/wire.md`). Each direction is one enum; a kind is never renumbered or re-used.

mod array;
mod frame;
mod message;
mod names;
mod ranks;
mod session;
mod task;
mod ticket;
mod values;

pub use array::{ARRAY, ARRAY_ALIGN, ArrayError, ArrayHead, MOST_AXES, Numbers};
pub use frame::{FrameError, Frames, HEADER_LEN, MAX_BODY, PROTOCOL, put_frame};
pub use message::{
    AgentToGuest, AgentToHead, AgentToWorker, ClientToHead, GuestToAgent, HeadToAgent, HeadToClient, WorkerToAgent,
};
pub use names::{NameOp, NameReply, NameRequest};
pub use ranks::{EndGang, GangCall, Map, Mpi, RankBound, RankFailed, Ranks, RanksAt, RanksBound, Relay};
pub use session::{
    AgentJoin, AgentWelcome, ArenaUse, ClientHello, Close, CloseMode, FabricAddress, GpuMemory, GuestHello, Heartbeat,
    Peer, Peers, Progress, Refused, RunEnd, Shutdown, StatusReply, StatusRequest, Subscribe, Welcome, WorkerConfig,
    WorkerReady,
};
pub use task::{
    Blocked, CancelTasks, Copied, Fetch, Fetched, Functions, HoldObjects, Locate, Located, LogText, Memory, Persist,
    Persisted, PlaceObjects, Placed, Placing, PutFunction, PutObject, ReleaseObjects, ReturnedTasks, TaskCall,
    TaskDone, TaskOutcome, TaskStarted, TaskSubmit,
};
pub use ticket::{ALPN_AGENT, ALPN_CLIENT, HEAD_NAME, Ticket};
pub use values::{
    Amounts, Failure, FailureCause, FileRef, Input, NamedAmount, ObjectRef, Outcome, Pair, ProgramCall, ProgramResult,
    Retry, Value, input, outcome, value,
};
