//! What nodes say to one another about objects, and what is lent to whom (`docs/formats/store-memory.md`, "Between nodes").

use crate::node::Shared;
use bridgehead_fabric::{PeerId, RemoteKey};
use bridgehead_spec::ObjectId;
use bridgehead_wire::ObjectRef;
use bytes::Bytes;
use std::collections::HashMap;

/// Objects up to this many bytes come with the answer.
pub(crate) const INLINE: u64 = 64 << 10;

/// A message between nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Note {
    /// The sender wants an object.
    Lend { token: u64, id: ObjectId },
    /// It lies pinned at `offset` of `region` until `Return`.
    Lent {
        token: u64,
        len: u64,
        offset: u64,
        region: RemoteKey,
    },
    /// Here are its bytes; nothing is lent.
    Inline { token: u64, bytes: Bytes },
    /// It cannot be had, with the reason.
    Gone { token: u64, reason: String },
    /// The sender has read it.
    Return { id: ObjectId },
}

impl Note {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        let mut head = |kind: u8, token: u64| {
            out.push(kind);
            out.extend_from_slice(&token.to_le_bytes());
        };
        match self {
            Self::Lend { token, id } => {
                head(1, *token);
                out.extend_from_slice(&id.0.to_le_bytes());
            }
            Self::Lent {
                token,
                len,
                offset,
                region,
            } => {
                head(2, *token);
                out.extend_from_slice(&len.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.extend_from_slice(&region.0);
            }
            Self::Inline { token, bytes } => {
                head(3, *token);
                out.extend_from_slice(bytes);
            }
            Self::Gone { token, reason } => {
                head(4, *token);
                out.extend_from_slice(reason.as_bytes());
            }
            Self::Return { id } => {
                head(5, 0);
                out.extend_from_slice(&id.0.to_le_bytes());
            }
        }
        out.into()
    }

    /// `None` where the bytes are no message of this version.
    pub(crate) fn decode(bytes: &Bytes) -> Option<Self> {
        let kind = *bytes.first()?;
        let token = u64::from_le_bytes(bytes.get(1..9)?.try_into().ok()?);
        let body = bytes.slice(9..);
        let word = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
        let id = || Some(ObjectId(u128::from_le_bytes(body.as_ref().try_into().ok()?)));
        Some(match kind {
            1 => Self::Lend { token, id: id()? },
            2 => Self::Lent {
                token,
                len: word(0)?,
                offset: word(8)?,
                region: RemoteKey(body.slice(16..)),
            },
            3 => Self::Inline { token, bytes: body },
            4 => Self::Gone {
                token,
                reason: String::from_utf8_lossy(&body).into_owned(),
            },
            5 => Self::Return { id: id()? },
            _ => return None,
        })
    }
}

/// What is lent, counted by peer; each entry is a pin.
#[derive(Debug)]
pub(crate) struct Lending {
    region: RemoteKey,
    lent: HashMap<PeerId, HashMap<ObjectId, u32>>,
}

impl Lending {
    /// Nothing is lent yet of the arena that peers reach by `region`.
    pub(crate) fn new(region: RemoteKey) -> Self {
        Self {
            region,
            lent: HashMap::new(),
        }
    }

    pub(crate) fn key(&self) -> RemoteKey {
        self.region.clone()
    }

    /// The answer for a pinned object.
    pub(crate) fn note(&self, shared: &Shared, token: u64, object: &ObjectRef) -> Note {
        if object.len <= INLINE {
            let bytes = Bytes::copy_from_slice(shared.bytes(object));
            return Note::Inline { token, bytes };
        }
        Note::Lent {
            token,
            len: object.len,
            offset: object.offset,
            region: self.region.clone(),
        }
    }

    pub(crate) fn lent(&mut self, peer: PeerId, id: ObjectId) {
        *self.lent.entry(peer).or_default().entry(id).or_insert(0) += 1;
    }

    /// `false` where it was not lent to this peer.
    pub(crate) fn returned(&mut self, peer: PeerId, id: ObjectId) -> bool {
        let Some(theirs) = self.lent.get_mut(&peer) else {
            return false;
        };
        let Some(count) = theirs.get_mut(&id) else { return false };
        *count -= 1;
        if *count == 0 {
            theirs.remove(&id);
        }
        true
    }

    /// A peer is gone: what it was lent, one entry a pin.
    pub(crate) fn lost(&mut self, peer: PeerId) -> Vec<ObjectId> {
        let theirs = self.lent.remove(&peer).unwrap_or_default();
        theirs
            .into_iter()
            .flat_map(|(id, count)| std::iter::repeat_n(id, count as usize))
            .collect()
    }

    /// Everything that is lent, at the end.
    pub(crate) fn all(&mut self) -> Vec<ObjectId> {
        let peers: Vec<PeerId> = self.lent.keys().copied().collect();
        peers.into_iter().flat_map(|peer| self.lost(peer)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_as_it_was_written() {
        let (token, id) = (7, ObjectId(5 << 90 | 3));
        let region = RemoteKey(Bytes::from_static(b"key"));
        for note in [
            Note::Lend { token, id },
            Note::Lent {
                token,
                len: 9,
                offset: 64,
                region,
            },
            Note::Inline {
                token,
                bytes: Bytes::from_static(b"bytes"),
            },
            Note::Gone {
                token,
                reason: "why".to_owned(),
            },
            Note::Return { id },
        ] {
            assert_eq!(Note::decode(&note.encode()), Some(note));
        }
    }

    #[test]
    fn whatever_bytes_come_decoding_gives_a_note_or_none() {
        let mut state = 3_u64;
        for len in 0..80 {
            for kind in 0..8 {
                let mut bytes = vec![kind];
                bytes.resize_with(len + 1, || {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                });
                if let Some(note) = Note::decode(&bytes.into()) {
                    assert!((1..=5).contains(&kind) && len >= 8, "{note:?}");
                }
            }
        }
    }
}
