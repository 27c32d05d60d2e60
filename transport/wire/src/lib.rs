//! Messages and frames between the processes of a run: bytes and meanings, no sockets.
//!
//! Hot path: `Frames::next` and the encoding of `TaskCall`/`TaskDone` run once a task.
//! A frame is `body length: u32 LE | kind: u16 LE | protocol: u16 LE | body`, the body a protobuf message
//! (`docs/formats/wire.md`). Each direction is one enum; a kind is never renumbered or re-used.

mod frame;
mod message;
mod ticket;
mod values;

pub use frame::{FrameError, Frames, HEADER_LEN, MAX_BODY, PROTOCOL, put_frame};
pub use message::{
    AgentJoin, AgentToHead, AgentToWorker, AgentWelcome, Blocked, CancelTasks, ClientHello, ClientToHead, Close,
    CloseMode, Copied, FabricAddress, Fetch, Fetched, Functions, HeadToAgent, HeadToClient, Heartbeat, LogText, Peer,
    Peers, Persist, Persisted, Progress, PutFunction, PutObject, Refused, ReleaseObjects, ReturnedTasks, RunEnd,
    Shutdown, StatusReply, StatusRequest, Subscribe, TaskCall, TaskDone, TaskOutcome, TaskStarted, TaskSubmit, Welcome,
    WorkerConfig, WorkerReady, WorkerToAgent,
};
pub use ticket::{ALPN_AGENT, ALPN_CLIENT, HEAD_NAME, Ticket};
pub use values::{
    Amounts, Failure, FailureCause, FileRef, Input, NamedAmount, ObjectRef, Outcome, Pair, ProgramCall, ProgramResult,
    Retry, Value, input, outcome, value,
};
