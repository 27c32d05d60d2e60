//! Messages between the bootstraps of one gang on several agents. Owns their form and the cutting of long ones; what they mean
//! is `exchange`'s matter and that of the families. The page is `docs/formats/gang-bootstrap.md`.

use bytes::Bytes;
use prost::Message as _;

/// The only version there is. A gang's agents are of one release; another number is refused, not guessed at.
const VERSION: u32 = 1;

/// Most bytes of a payload in one message; the control channel carries 1 MiB.
pub(crate) const PIECE: usize = 512 << 10;

/// One message.
#[derive(Clone, PartialEq, prost::Message)]
struct Frame {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(oneof = "Peer", tags = "2, 3, 4, 5")]
    peer: Option<Peer>,
}

/// What one bootstrap says to another.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Peer {
    /// To the gathering node: a piece of what this node adds.
    #[prost(message, tag = "2")]
    Part(Piece),
    /// From it: a piece of what all have added.
    #[prost(message, tag = "3")]
    Whole(Piece),
    /// PMIx: what has this rank published?
    #[prost(message, tag = "4")]
    Ask(Ask),
    /// PMIx: the answer.
    #[prost(message, tag = "5")]
    Answer(Answer),
}

/// Ranks `first .. first + count`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Span {
    #[prost(uint32, tag = "1")]
    pub first: u32,
    #[prost(uint32, tag = "2")]
    pub count: u32,
}

/// Which gathering: the ranks that take part, and the how manieth of theirs it is.
#[derive(Clone, PartialEq, Eq, Hash, prost::Message)]
pub(crate) struct Round {
    #[prost(message, repeated, tag = "1")]
    pub spans: Vec<Span>,
    #[prost(uint64, tag = "2")]
    pub turn: u64,
}

/// A piece of a payload.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Piece {
    #[prost(message, optional, tag = "1")]
    pub round: Option<Round>,
    #[prost(uint64, tag = "2")]
    pub total: u64,
    #[prost(uint64, tag = "3")]
    pub offset: u64,
    #[prost(bytes = "bytes", tag = "4")]
    pub bytes: Bytes,
}

/// Asks the node of `rank` what it has published.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ask {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint32, tag = "2")]
    pub rank: u32,
}

/// The answer to the ask with this id of the node that gets it.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(sint32, tag = "2")]
    pub status: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
}

/// Why bytes of another agent were refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("they are no message of this protocol")]
    Garbage,
    #[error("they are of version {0}, this is {VERSION}: use one release on all nodes")]
    Version(u32),
    #[error("{0}")]
    Senseless(&'static str),
}

impl Peer {
    pub fn into_bytes(self) -> Bytes {
        Bytes::from(
            Frame {
                version: VERSION,
                peer: Some(self),
            }
            .encode_to_vec(),
        )
    }

    pub fn parse(bytes: Bytes) -> Result<Self, PeerError> {
        let frame = Frame::decode(bytes).map_err(|_| PeerError::Garbage)?;
        if frame.version != VERSION {
            return Err(PeerError::Version(frame.version));
        }
        frame.peer.ok_or(PeerError::Garbage)
    }
}

/// A payload in pieces; an empty one is one empty piece.
pub(crate) fn pieces(round: &Round, payload: &Bytes) -> Vec<Piece> {
    let starts = (0..payload.len().max(1)).step_by(PIECE);
    starts
        .map(|start| Piece {
            round: Some(round.clone()),
            total: payload.len() as u64,
            offset: start as u64,
            bytes: payload.slice(start..payload.len().min(start + PIECE)),
        })
        .collect()
}
