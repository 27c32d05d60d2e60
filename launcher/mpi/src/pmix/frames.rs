//! Messages between agent and helper, over a socket pair: a length of four bytes, little-endian, then a message. Owns the form
//! and its bounds. Both ends are of one build, so there is one version and no other. The page is
//! `docs/formats/gang-bootstrap.md`.

use crate::peer::Span;
use bytes::{Buf, Bytes, BytesMut};
use prost::Message;

/// Longer than what all nodes of a gang may add to a gathering.
const LONGEST: usize = 600 << 20;

/// To the helper.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Order {
    /// Which gang; 0 of none.
    #[prost(uint64, tag = "1")]
    pub gang: u64,
    #[prost(oneof = "Do", tags = "2, 3, 4, 5, 6")]
    pub what: Option<Do>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Do {
    /// The first: open the library.
    #[prost(message, tag = "2")]
    Begin(Begin),
    /// Get ready for the ranks of a gang.
    #[prost(message, tag = "3")]
    Register(Register),
    /// The gang is over.
    #[prost(message, tag = "4")]
    Forget(Forget),
    /// What a `Gather` or `Want` asked for.
    #[prost(message, tag = "5")]
    Give(Blob),
    /// Another node wants what a rank here has published.
    #[prost(message, tag = "6")]
    Fetch(Want),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Begin {
    #[prost(string, tag = "1")]
    pub libpmix: String,
    #[prost(string, tag = "2")]
    pub folder: String,
    #[prost(string, tag = "3")]
    pub host: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Register {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub nodes: Vec<Node>,
    #[prost(uint32, tag = "3")]
    pub here: u32,
    #[prost(string, tag = "4")]
    pub folder: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(string, tag = "1")]
    pub host: String,
    #[prost(uint32, tag = "2")]
    pub first: u32,
    #[prost(uint32, tag = "3")]
    pub count: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Forget {}

/// Bytes that belong to the question with this id.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Blob {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(sint32, tag = "2")]
    pub status: i32,
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
}

/// Of this rank, and with what id the answer comes.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Want {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(uint32, tag = "2")]
    pub rank: u32,
}

/// From the helper.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Report {
    #[prost(uint64, tag = "1")]
    pub gang: u64,
    #[prost(oneof = "Tell", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10")]
    pub what: Option<Tell>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Tell {
    /// The variables of the ranks that are here, in their order.
    #[prost(message, tag = "2")]
    Ready(Ready),
    /// The gang, or with gang 0 the helper, cannot go on: why.
    #[prost(string, tag = "3")]
    Failed(String),
    /// This rank has come.
    #[prost(uint32, tag = "4")]
    Joined(u32),
    /// This rank has left; it goes on when it is given the answer.
    #[prost(message, tag = "5")]
    Left(Want),
    #[prost(message, tag = "6")]
    Aborted(Aborted),
    /// All that are here of some ranks have come to a fence.
    #[prost(message, tag = "7")]
    Gather(Gather),
    /// A rank here wants what one elsewhere has published.
    #[prost(message, tag = "8")]
    Want(Want),
    /// What a `Fetch` asked for.
    #[prost(message, tag = "9")]
    Fetched(Blob),
    /// The gang of a `Forget` is gone: another may come.
    #[prost(message, tag = "10")]
    Forgotten(Forget),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Ready {
    #[prost(message, repeated, tag = "1")]
    pub ranks: Vec<Variables>,
}

/// `NAME=value` each.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Variables {
    #[prost(string, repeated, tag = "1")]
    pub set: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Aborted {
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    #[prost(sint32, tag = "2")]
    pub code: i32,
    #[prost(string, tag = "3")]
    pub message: String,
    /// It goes on, to its end, when it is given the answer with this id.
    #[prost(uint64, tag = "4")]
    pub id: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Gather {
    #[prost(uint64, tag = "1")]
    pub id: u64,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
    #[prost(bytes = "bytes", tag = "3")]
    pub bytes: Bytes,
}

/// The other end sends what is no frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the other end sends no frames of this protocol")]
pub(crate) struct Garbage;

/// A message with its length.
pub(crate) fn frame(message: &impl Message) -> Vec<u8> {
    let length = message.encoded_len();
    let mut bytes = Vec::with_capacity(4 + length);
    bytes.extend((length as u32).to_le_bytes());
    bytes.extend(message.encode_to_vec());
    bytes
}

/// Bytes that have come but are no whole frame yet.
#[derive(Default)]
pub(crate) struct Frames {
    bytes: BytesMut,
}

impl Frames {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message that is whole.
    pub fn next<M: Message + Default>(&mut self) -> Result<Option<M>, Garbage> {
        let Some(length) = self.bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > LONGEST {
            return Err(Garbage);
        }
        if self.bytes.len() - 4 < length {
            return Ok(None);
        }
        self.bytes.advance(4);
        let message = self.bytes.split_to(length).freeze();
        M::decode(message).map(Some).map_err(|_| Garbage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let reports = [
            Report {
                gang: 1,
                what: Some(Tell::Joined(3)),
            },
            Report {
                gang: 2,
                what: Some(Tell::Aborted(Aborted {
                    rank: 1,
                    code: -7,
                    message: "x".to_owned(),
                    id: 4,
                })),
            },
        ];
        let bytes: Vec<u8> = reports.iter().flat_map(frame).collect();
        for step in 1..bytes.len() {
            let (mut frames, mut out) = (Frames::default(), Vec::new());
            for piece in bytes.chunks(step) {
                frames.feed(piece);
                while let Some(report) = frames.next::<Report>().unwrap() {
                    out.push(report);
                }
            }
            assert_eq!(out, reports);
        }
    }

    /// Random bytes of a generator with a seed: an error, or a wait for more, and memory for what has come alone.
    #[test]
    fn garbage_is_refused() {
        let mut seed = 0x0dd0_5eed_0dd0_5eed_u64;
        let mut random = move || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        for _ in 0..2_000 {
            let mut frames = Frames::default();
            let garbage: Vec<u8> = (0..64).map(|_| random() as u8).collect();
            frames.feed(&(random() as u32 % 48).to_le_bytes());
            frames.feed(&garbage);
            while let Ok(Some(_)) = frames.next::<Order>() {}
        }
        let mut frames = Frames::default();
        frames.feed(&u32::MAX.to_le_bytes());
        assert_eq!(frames.next::<Order>(), Err(Garbage));
    }
}
