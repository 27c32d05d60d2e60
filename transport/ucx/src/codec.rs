//! The bytes that two agents say to each other over UCX, the address, and the region key (`docs/formats/data-frames.md`). Owns their
//! layout; sends nothing.

use crate::keys::PairKey;
use crate::options::Moving;
use bridgehead_fabric::Reason;
use bytes::Bytes;
use thiserror::Error;

const VERSION: u8 = 2;
const MAGIC: [u8; 2] = *b"UX";
/// Bytes in front of the worker's address.
const ADDRESS_HEAD: usize = 2 + 1 + 4 + 8 + 1;
/// More than any UCX address, which has some 50 bytes a device.
const LONGEST_ADDRESS: usize = 64 << 10;
const KEY_LEN: usize = 1 + 8 + 8;
/// Bytes in front of a message's payload.
pub const HEADER_LEN: usize = 64;
/// Bytes of the header that the code covers.
pub const COVERED: usize = 48;
pub const CODE_LEN: usize = HEADER_LEN - COVERED;
/// Where the session and the place are, 8 bytes each.
pub const SESSION_AT: usize = 16;
/// Most bytes of a region in one message: from here on larger ones are hardly faster, and smaller ones share the way better.
pub const PART: u64 = 128 << 10;

/// Who an agent is: its number, and what it drew at random when it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Who {
    pub number: u32,
    pub incarnation: u64,
}

/// What can be wrong with bytes that should be an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum AddressError {
    #[error("{0} bytes are not an address of a UCX fabric")]
    Length(usize),
    #[error("it is not an address of a UCX fabric")]
    Foreign,
    #[error("address of version {0}, this side knows {VERSION}: use the same bridgehead version on both sides")]
    Version(u8),
}

/// Where and who a fabric is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    pub who: Who,
    /// How it moves bytes.
    pub moving: Moving,
    /// Its worker, in UCX's own bytes.
    pub worker: Bytes,
}

impl Address {
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(ADDRESS_HEAD + self.worker.len());
        out.extend_from_slice(&MAGIC);
        out.push(VERSION);
        out.extend_from_slice(&self.who.number.to_le_bytes());
        out.extend_from_slice(&self.who.incarnation.to_le_bytes());
        out.push(match self.moving {
            Moving::OneSided => 0,
            Moving::Messages => 1,
        });
        out.extend_from_slice(&self.worker);
        out.into()
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, AddressError> {
        if bytes.len() <= ADDRESS_HEAD || bytes.len() > LONGEST_ADDRESS {
            return Err(AddressError::Length(bytes.len()));
        }
        if bytes[..2] != MAGIC {
            return Err(AddressError::Foreign);
        }
        if bytes[2] != VERSION {
            return Err(AddressError::Version(bytes[2]));
        }
        let who = Who {
            number: u32::from_le_bytes(array(bytes, 3)),
            incarnation: u64::from_le_bytes(array(bytes, 7)),
        };
        let moving = match bytes[15] {
            0 => Moving::OneSided,
            1 => Moving::Messages,
            _ => return Err(AddressError::Foreign),
        };
        Ok(Self {
            who,
            moving,
            worker: Bytes::copy_from_slice(&bytes[ADDRESS_HEAD..]),
        })
    }
}

/// A region's number for peers; the incarnation keeps keys of an earlier process from meaning a region of this one. What
/// UCX needs to reach the region is given out later, to a peer that has proved itself.
pub(crate) fn pack_key(region: u64, incarnation: u64) -> Bytes {
    let mut out = Vec::with_capacity(KEY_LEN);
    out.push(VERSION);
    out.extend_from_slice(&region.to_le_bytes());
    out.extend_from_slice(&incarnation.to_le_bytes());
    out.into()
}

/// Region and incarnation of a packed key; nothing if it is none.
pub(crate) fn unpack_key(bytes: &[u8]) -> Option<(u64, u64)> {
    let bytes: &[u8; KEY_LEN] = bytes.try_into().ok()?;
    (bytes[0] == VERSION).then(|| (u64::from_le_bytes(array(bytes, 1)), u64::from_le_bytes(array(bytes, 9))))
}

/// What a message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// The first of a session. Payload: the sender's address.
    Hello = 1,
    /// The caller's own. Payload: its bytes.
    Message,
    /// `a`: bytes of messages that the caller has taken in all.
    Credit,
    /// The sender has no credit left and wants to hear of every byte.
    Starved,
    /// `a`: the number of a region whose memory key is asked for.
    Open,
    /// The answer. `a`: the region's number. Payload: first byte, length, access, key.
    Opened,
    /// The other answer: there is no such region. `a`: its number.
    NoRegion,
    /// `a`: the number of a region whose memory key must not be used any more.
    Revoke,
    /// `a`: the number of a region whose memory key is used no more.
    Revoked,
    /// Are you there?
    Ping,
    /// Yes.
    Pong,
    /// Outside of sessions: the sender gives up its session `a` and the receiver's session `b`, if they are not 0.
    Bye,
    /// Bytes of a region are asked for, in part `a`. Payload: a `Part`.
    Read,
    /// The answer to part `a`. Payload: the bytes.
    Data,
    /// Bytes for a region, in part `a`. Payload: a `Part`, the bytes.
    Write,
    /// The answer: the bytes of part `a` are in memory.
    Written,
    /// The other answer to either: part `a` is not allowed. Payload: a `Refusal`.
    Refused,
}

impl Kind {
    const ALL: [Self; 17] = [
        Self::Hello,
        Self::Message,
        Self::Credit,
        Self::Starved,
        Self::Open,
        Self::Opened,
        Self::NoRegion,
        Self::Revoke,
        Self::Revoked,
        Self::Ping,
        Self::Pong,
        Self::Bye,
        Self::Read,
        Self::Data,
        Self::Write,
        Self::Written,
        Self::Refused,
    ];

    pub fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// What a message says besides its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub kind: Kind,
    pub from: Who,
    /// The sender's session; each is numbered higher than the one before.
    pub session: u64,
    /// The place in the session, from 0 on.
    pub place: u64,
    pub a: u64,
    pub b: u64,
}

impl Header {
    /// The header's bytes with their code, which covers the payload as well.
    pub fn seal(&self, key: &PairKey, payload: &[u8]) -> Box<[u8]> {
        let mut out = vec![0; HEADER_LEN].into_boxed_slice();
        (out[0], out[1]) = (VERSION, self.kind as u8);
        out[4..8].copy_from_slice(&self.from.number.to_le_bytes());
        let numbers = [self.from.incarnation, self.session, self.place, self.a, self.b];
        for (number, place) in numbers.iter().zip(out[8..COVERED].chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        let code = key.code(&array(&out, 0), payload);
        out[COVERED..].copy_from_slice(&code);
        out
    }

    /// What the bytes say, before anything of it may be believed.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.try_into().ok()?;
        if bytes[0] != VERSION || bytes[2..4] != [0; 2] {
            return None;
        }
        let number = |at: usize| u64::from_le_bytes(array(bytes, 8 + 8 * at));
        Some(Self {
            kind: Kind::of(bytes[1])?,
            from: Who {
                number: u32::from_le_bytes(array(bytes, 4)),
                incarnation: number(0),
            },
            session: number(1),
            place: number(2),
            a: number(3),
            b: number(4),
        })
    }

    /// Whether whoever made the bytes knows the run's key, and made them for this process.
    pub fn is_genuine(bytes: &[u8], key: &PairKey, payload: &[u8]) -> bool {
        bytes.len() == HEADER_LEN && key.matches(&array(bytes, 0), payload, &array(bytes, COVERED))
    }
}

/// What a peer is told of a region that it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grant {
    /// Where it begins in its owner's memory.
    pub first: u64,
    /// Bytes.
    pub len: u64,
    /// What may be done with it: 1 read, 2 write.
    pub rights: u8,
    /// UCX's key; empty where nothing may be done or there is no byte.
    pub key: Bytes,
}

impl Grant {
    pub const READ: u8 = 1;
    pub const WRITE: u8 = 2;

    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(17 + self.key.len());
        out.extend_from_slice(&self.first.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.push(self.rights);
        out.extend_from_slice(&self.key);
        out.into()
    }

    pub fn decode(bytes: &Bytes) -> Option<Self> {
        let head = bytes.get(..17)?;
        let grant = Self {
            first: u64::from_le_bytes(array(head, 0)),
            len: u64::from_le_bytes(array(head, 8)),
            rights: head[16],
            key: bytes.slice(17..),
        };
        let usable = grant.rights == 0 || grant.len == 0 || !grant.key.is_empty();
        (usable && grant.first.checked_add(grant.len).is_some()).then_some(grant)
    }
}

/// A part of a read or a write of a region, as who asks describes it. The owner checks it by itself, and alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub region: u64,
    /// First byte of the whole operation, and its length, so that a wrong one fails before anything of it was done.
    pub offset: u64,
    pub len: u64,
    /// First byte of the part, from the operation's on, and its length.
    pub at: u64,
    pub size: u64,
}

impl Part {
    pub const LEN: usize = 40;

    pub fn encode(&self) -> [u8; Self::LEN] {
        let mut out = [0; Self::LEN];
        let numbers = [self.region, self.offset, self.len, self.at, self.size];
        for (number, place) in numbers.iter().zip(out.chunks_exact_mut(8)) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        out
    }

    /// The part, and what comes after it; nothing if it is no part of the operation that it names, or longer than any.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (head, rest) = bytes.split_at_checked(Self::LEN)?;
        let number = |at: usize| u64::from_le_bytes(array(head, 8 * at));
        let part = Self {
            region: number(0),
            offset: number(1),
            len: number(2),
            at: number(3),
            size: number(4),
        };
        let inside = part.at.checked_add(part.size).is_some_and(|end| end <= part.len);
        (inside && part.size <= PART).then_some((part, rest))
    }
}

/// Why the owner of a region does not do what a part asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Refusal {
    /// There is no such region, or no more.
    NoRegion = 1,
    /// It was not registered for this use.
    NoRight,
    /// The operation leaves the region.
    OutOfRange,
}

impl Refusal {
    const ALL: [Self; 3] = [Self::NoRegion, Self::NoRight, Self::OutOfRange];

    pub fn encode(self) -> Bytes {
        Bytes::copy_from_slice(&[self as u8])
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let [byte] = bytes else { return None };
        Self::ALL.into_iter().find(|refusal| *refusal as u8 == *byte)
    }

    /// What the caller is told.
    pub fn reason(self) -> Reason {
        match self {
            Self::NoRegion => Reason::UnknownRemoteRegion,
            Self::NoRight => Reason::AccessDenied { side: "remote" },
            Self::OutOfRange => Reason::RemoteOutOfRange,
        }
    }
}

/// `N` bytes from `at` on, of a longer slice whose length the caller knows.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("the range has N bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Who = Who {
        number: 1,
        incarnation: 11,
    };
    const B: Who = Who {
        number: 2,
        incarnation: 22,
    };
    const RUN: [u8; 32] = [7; 32];

    fn header() -> Header {
        Header {
            kind: Kind::Open,
            from: A,
            session: 3,
            place: 4,
            a: 5,
            b: 6,
        }
    }

    #[test]
    fn a_header_comes_back_as_it_was() {
        for kind in Kind::ALL {
            let header = Header { kind, ..header() };
            let key = PairKey::new(&RUN, A, B);
            let bytes = header.seal(&key, b"payload");
            assert_eq!(Kind::of(kind as u8), Some(kind));
            assert_eq!(Header::parse(&bytes), Some(header));
            assert!(Header::is_genuine(&bytes, &key, b"payload"));
        }
    }

    /// These bytes do not change without a new version.
    #[test]
    fn the_bytes_are_frozen() {
        let bytes = header().seal(&PairKey::new(&RUN, A, B), b"payload");
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let covered = "02050000010000000b0000000000000003000000000000000400000000000000\
            05000000000000000600000000000000";
        assert_eq!(&hex[..2 * COVERED], covered);
        assert_eq!(&hex[2 * COVERED..], "8bdb5f2036627484c34a20240ff7ec53");
        let outside = Header {
            session: 0,
            place: 0,
            ..header()
        };
        let bytes = outside.seal(&PairKey::new(&RUN, A, B), b"");
        let hex: String = bytes[COVERED..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "5aa1049b6d02d4283aadf5781b66976e");
    }

    #[test]
    fn every_changed_byte_is_found() {
        let key = PairKey::new(&RUN, A, B);
        let bytes = header().seal(&key, b"payload");
        let outside = Header { session: 0, ..header() };
        for bytes in [bytes, outside.seal(&key, b"payload")] {
            for at in 0..bytes.len() {
                let mut changed = bytes.clone();
                changed[at] ^= 1;
                assert!(!Header::is_genuine(&changed, &key, b"payload"), "byte {at}");
            }
            assert!(!Header::is_genuine(&bytes, &key, b"Payload"));
            assert!(!Header::is_genuine(&bytes, &key, b"payload\0"));
            assert!(!Header::is_genuine(&bytes[1..], &key, b"payload"));
        }
    }

    #[test]
    fn a_code_is_for_one_run_one_direction_and_one_start() {
        let bytes = header().seal(&PairKey::new(&RUN, A, B), b"");
        let again = Who { incarnation: 23, ..B };
        for key in [
            PairKey::new(&[8; 32], A, B),
            PairKey::new(&RUN, B, A),
            PairKey::new(&RUN, A, again),
        ] {
            assert!(!Header::is_genuine(&bytes, &key, b""));
        }
    }

    #[test]
    fn addresses_keys_and_grants_come_back_as_they_were() {
        for moving in [Moving::OneSided, Moving::Messages] {
            let address = Address {
                who: A,
                moving,
                worker: Bytes::from_static(b"worker"),
            };
            assert_eq!(Address::decode(&address.encode()), Ok(address));
        }
        let part = Part {
            region: 1,
            offset: u64::MAX,
            len: 3 * PART,
            at: 2 * PART,
            size: PART,
        };
        let bytes = [&part.encode()[..], b"rest"].concat();
        assert_eq!(Part::decode(&bytes), Some((part, &b"rest"[..])));
        for refusal in Refusal::ALL {
            assert_eq!(Refusal::decode(&refusal.encode()), Some(refusal));
        }
        assert_eq!(unpack_key(&pack_key(3, 4)), Some((3, 4)));
        let grant = Grant {
            first: 4096,
            len: 10,
            rights: 3,
            key: Bytes::from_static(b"key"),
        };
        assert_eq!(Grant::decode(&grant.encode()), Some(grant));
    }

    #[test]
    fn bytes_that_are_none_are_refused() {
        assert_eq!(Address::decode(b"short"), Err(AddressError::Length(5)));
        assert_eq!(Address::decode(&[0xff; 400]), Err(AddressError::Foreign));
        assert_eq!(
            Address::decode(b"UX\x01................."),
            Err(AddressError::Version(1))
        );
        assert_eq!(Address::decode(b"UX\x02................."), Err(AddressError::Foreign));
        assert_eq!(unpack_key(&[0xff; KEY_LEN]), None);
        let part = Part {
            region: 1,
            offset: 0,
            len: 2 * PART,
            at: 1,
            size: PART,
        };
        for wrong in [
            Part { at: PART + 1, ..part },
            Part { at: u64::MAX, ..part },
            Part {
                size: PART + 1,
                at: 0,
                ..part
            },
        ] {
            assert_eq!(Part::decode(&wrong.encode()), None);
        }
        assert_eq!(Part::decode(&part.encode()[1..]), None);
        for bytes in [&b""[..], &[0], &[4], &[1, 1]] {
            assert_eq!(Refusal::decode(bytes), None);
        }
        let wraps = Grant {
            first: u64::MAX,
            len: 2,
            rights: 1,
            key: Bytes::from_static(b"k"),
        };
        let keyless = Grant {
            first: 0,
            len: 2,
            rights: 1,
            key: Bytes::new(),
        };
        for bytes in [wraps.encode(), keyless.encode(), Bytes::from_static(b"short")] {
            assert_eq!(Grant::decode(&bytes), None);
        }
        assert_eq!(Header::parse(&[0; HEADER_LEN]), None);
        assert_eq!(Header::parse(&[1; 3]), None);
    }
}
