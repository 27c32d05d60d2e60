//! Messages by direction. A direction is one enum; its kinds are frozen numbers, its bodies protobuf.

use crate::frame::{FrameError, put_frame};
use crate::names::*;
use crate::ranks::*;
use crate::session::*;
use crate::task::*;
use prost::Message;

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
        11 => Name(NameRequest),
        12 => Hold(HoldObjects),
        13 => Place(PlaceObjects),
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
        8 => Name(NameReply),
        9 => Placed(Placed),
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
        14 => Name(NameReply),
        15 => Placed(Placed),
        16 => Located(Located),
        17 => Relay(Relay),
        18 => EndGang(EndGang),
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
        15 => Name(NameRequest),
        16 => Hold(HoldObjects),
        17 => Place(PlaceObjects),
        18 => Locate(Locate),
        19 => Relay(Relay),
        20 => RankFailed(RankFailed),
        21 => Bound(RanksBound),
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
        7 => Name(NameReply),
        8 => Placed(Placed),
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
        12 => Name(NameRequest),
        13 => Hold(HoldObjects),
        14 => Place(PlaceObjects),
    }
);

direction!(
    /// From an agent to a guest: a process of a program that runs on its node and asked to take part.
    AgentToGuest {
        1 => Config(WorkerConfig),
        2 => Refused(Refused),
        3 => Fetched(Fetched),
        4 => Name(NameReply),
        5 => Shutdown(Shutdown),
    }
);

direction!(
    /// From a guest to the agent of its node.
    GuestToAgent {
        1 => Hello(GuestHello),
        2 => Put(PutObject),
        3 => Hold(HoldObjects),
        4 => Release(ReleaseObjects),
        5 => Fetch(Fetch),
        6 => Name(NameRequest),
    }
);
