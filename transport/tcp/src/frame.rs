//! The frame header: bytes and meanings, no sockets (`docs/formats/data-frames.md`).
//!
//! Hot path: encoded and decoded once a chunk of at most `CHUNK` bytes, a message, a request or an answer.

use crate::address::array;
use bridgehead_fabric::Reason;
use thiserror::Error;

/// Version of handshake and frames.
pub const PROTOCOL: u16 = 1;
/// Bytes of a header: fields, the payload's code, the header's code.
pub const HEADER_LEN: usize = FIELDS_LEN + 2 * CODE_LEN;
/// Bytes of the fields, which the header's code covers together with the payload's code.
pub const FIELDS_LEN: usize = 40;
/// Bytes of a code.
pub const CODE_LEN: usize = 16;
/// The longest payload of a read's or write's frame. Codes are computed a chunk at a time, while it is in the second-level cache.
pub const CHUNK: usize = 256 << 10;

/// The longest message.
pub const MAX_MESSAGE: usize = 256 << 10;
/// Operations that one side may have in flight with another; what is beyond is a broken protocol.
pub const MAX_WINDOW: usize = 4096;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message of the caller; the payload is all of it.
    Message = 1,
    /// Asks for `total` bytes from `offset` of `region`.
    Read = 2,
    /// A part of the answer: `offset` from the start of the read, of `total`.
    ReadData = 3,
    /// There is no (more) answer: `reason`.
    ReadFailed = 4,
    /// A part of a write: goes to `offset` of `region`; `total` bytes are still to come, these included.
    Write = 5,
    /// All of a write is in place.
    WriteDone = 6,
    /// The write failed: `reason`.
    WriteFailed = 7,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        use Kind::{Message, Read, ReadData, ReadFailed, Write, WriteDone, WriteFailed};
        [Message, Read, ReadData, ReadFailed, Write, WriteDone, WriteFailed]
            .into_iter()
            .find(|kind| *kind as u8 == byte)
    }

    fn max_payload(self) -> usize {
        match self {
            Self::Message => MAX_MESSAGE,
            Self::ReadData | Self::Write => CHUNK,
            Self::Read | Self::ReadFailed | Self::WriteDone | Self::WriteFailed => 0,
        }
    }
}

/// What can be wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// No frame has this kind.
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    /// The payload is longer than the kind allows.
    #[error("a payload of {len} bytes is over the limit of {limit}")]
    TooLong {
        /// Claimed length.
        len: usize,
        /// Allowed length.
        limit: usize,
    },
    /// The offset and lengths contradict each other.
    #[error("a frame's offset {offset}, length {len} and total {total} contradict each other")]
    Range {
        /// The offset.
        offset: u64,
        /// The payload's length.
        len: usize,
        /// The total.
        total: u64,
    },
    /// Reserved bytes are not 0.
    #[error("reserved bytes of a header are not 0")]
    Reserved,
}

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// A `code_of` a reason, 0 where there is none.
    pub reason: u16,
    /// Bytes of payload that follow the header.
    pub len: u32,
    /// The operation, numbered by the side that began it.
    pub op: u64,
    /// The region, of the side that answers.
    pub region: u64,
    /// See `Kind`.
    pub offset: u64,
    /// See `Kind`.
    pub total: u64,
}

impl Header {
    /// A header with nothing but a kind and an operation.
    #[must_use]
    pub fn new(kind: Kind, op: u64) -> Self {
        Self {
            kind,
            reason: 0,
            len: 0,
            op,
            region: 0,
            offset: 0,
            total: 0,
        }
    }

    /// The fields, without codes.
    #[must_use]
    pub fn encode(&self) -> [u8; FIELDS_LEN] {
        let mut out = [0; FIELDS_LEN];
        out[0] = self.kind as u8;
        out[2..4].copy_from_slice(&self.reason.to_le_bytes());
        out[4..8].copy_from_slice(&self.len.to_le_bytes());
        out[8..16].copy_from_slice(&self.op.to_le_bytes());
        out[16..24].copy_from_slice(&self.region.to_le_bytes());
        out[24..32].copy_from_slice(&self.offset.to_le_bytes());
        out[32..40].copy_from_slice(&self.total.to_le_bytes());
        out
    }

    /// The fields of `bytes`, checked: kinds, limits, ranges. Nothing is allocated.
    ///
    /// # Errors
    /// No honest peer sends such a header.
    pub fn decode(bytes: &[u8; FIELDS_LEN]) -> Result<Self, FrameError> {
        let kind = Kind::from_byte(bytes[0]).ok_or(FrameError::Kind(bytes[0]))?;
        let header = Self {
            kind,
            reason: u16::from_le_bytes(array(bytes, 2)),
            len: u32::from_le_bytes(array(bytes, 4)),
            op: u64::from_le_bytes(array(bytes, 8)),
            region: u64::from_le_bytes(array(bytes, 16)),
            offset: u64::from_le_bytes(array(bytes, 24)),
            total: u64::from_le_bytes(array(bytes, 32)),
        };
        if bytes[1] != 0 {
            return Err(FrameError::Reserved);
        }
        let (len, limit) = (header.len as usize, kind.max_payload());
        if len > limit {
            return Err(FrameError::TooLong { len, limit });
        }
        if header.range_is_sound() {
            Ok(header)
        } else {
            Err(header.range_error())
        }
    }

    fn range_is_sound(&self) -> bool {
        let end = self.offset.checked_add(u64::from(self.len));
        match self.kind {
            Kind::ReadData => end.is_some_and(|end| end <= self.total) && (self.len > 0 || self.total == 0),
            Kind::Write => end.is_some() && u64::from(self.len) <= self.total && (self.len > 0 || self.total == 0),
            Kind::Message | Kind::Read | Kind::ReadFailed | Kind::WriteDone | Kind::WriteFailed => true,
        }
    }

    fn range_error(&self) -> FrameError {
        FrameError::Range {
            offset: self.offset,
            len: self.len as usize,
            total: self.total,
        }
    }
}

/// The number of a reason on the wire. Only reasons that a target gives have one.
pub(crate) fn code_of(reason: &Reason) -> u16 {
    match reason {
        Reason::UnknownRemoteRegion => 1,
        Reason::RemoteOutOfRange => 2,
        Reason::AccessDenied { .. } => 3,
        Reason::Deregistered => 4,
        Reason::Damaged => 5,
        _ => 0,
    }
}

/// The reason of a number; one of a newer peer reads as an unknown region.
pub(crate) fn reason_of(code: u16) -> Reason {
    match code {
        2 => Reason::RemoteOutOfRange,
        3 => Reason::AccessDenied { side: "remote" },
        4 => Reason::Deregistered,
        5 => Reason::Damaged,
        _ => Reason::UnknownRemoteRegion,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(kind: Kind) -> Header {
        Header {
            kind,
            reason: 3,
            len: 0,
            op: 0x0102_0304_0506_0708,
            region: 9,
            offset: 10,
            total: 0x1_0000_0000,
        }
    }

    #[test]
    fn frozen_bytes_of_a_header() {
        let header = Header {
            len: 5,
            ..sample(Kind::ReadData)
        };
        let mut expected = vec![3, 0, 3, 0, 5, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 9, 0, 0, 0, 0, 0, 0, 0];
        expected.extend([10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
        assert_eq!(header.encode().as_slice(), expected);
        assert_eq!(Header::decode(&header.encode()), Ok(header));
    }

    #[test]
    fn lengths_are_checked_by_kind() {
        for (kind, limit) in [
            (Kind::Message, MAX_MESSAGE),
            (Kind::ReadData, CHUNK),
            (Kind::Write, CHUNK),
            (Kind::Read, 0),
        ] {
            let len = u32::try_from(limit).expect("a chunk is small");
            assert!(Header::decode(&Header { len, ..sample(kind) }.encode()).is_ok() || len == 0);
            let error = Header::decode(
                &Header {
                    len: len + 1,
                    ..sample(kind)
                }
                .encode(),
            );
            assert_eq!(error, Err(FrameError::TooLong { len: limit + 1, limit }));
        }
    }

    #[test]
    fn ranges_that_contradict_are_refused() {
        for (kind, offset, len, total) in [
            (Kind::ReadData, 8, 4, 10),
            (Kind::ReadData, u64::MAX, 4, u64::MAX),
            (Kind::ReadData, 0, 0, 10),
            (Kind::Write, u64::MAX, 4, 10),
            (Kind::Write, 0, 4, 3),
        ] {
            let header = Header {
                offset,
                len,
                total,
                ..sample(kind)
            };
            assert!(
                matches!(Header::decode(&header.encode()), Err(FrameError::Range { .. })),
                "{header:?}"
            );
        }
    }

    /// Property: any bytes either are refused, or mean a header that encodes to them again.
    #[test]
    fn any_bytes_are_refused_or_come_back() {
        let mut random = crate::tests_support::Random::new(17);
        for _ in 0..200_000 {
            let mut bytes: [u8; FIELDS_LEN] = random.array();
            bytes[0] %= 9;
            bytes[1] &= random.byte() & random.byte() & random.byte();
            if random.byte() < 200 {
                bytes[6..8].fill(0);
            }
            if let Ok(header) = Header::decode(&bytes) {
                assert_eq!(header.encode(), bytes);
                assert!(header.len as usize <= CHUNK);
            }
        }
    }
}
