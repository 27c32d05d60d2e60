//! Frames: length-prefixed, kind-tagged, versioned. Owns cutting a byte stream into frames; knows no message.

use thiserror::Error;

/// The version of all messages in this crate; a peer with another one is refused at the first frame.
pub const PROTOCOL: u16 = 1;
/// Bytes before each body.
pub const HEADER_LEN: usize = 8;
/// The longest body that is accepted: a bound on what an untrusted peer can make us hold.
pub const MAX_BODY: usize = 64 << 20;

/// What can be wrong with bytes that should be frames.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    /// The peer speaks another protocol version.
    #[error(
        "peer speaks protocol {theirs}, this side speaks {PROTOCOL}: use the same bridgehead version on both sides"
    )]
    Protocol {
        /// The version in the peer's header.
        theirs: u16,
    },
    /// The length field is beyond `MAX_BODY`.
    #[error("frame of {len} bytes is over the limit of {MAX_BODY}")]
    TooLong {
        /// The length that the header claims.
        len: usize,
    },
    /// No message of this direction has the kind.
    #[error("frame kind {0} is unknown here")]
    UnknownKind(u16),
    /// The body is not the message that its kind names.
    #[error("frame of kind {kind} is damaged: {reason}")]
    Body {
        /// The kind in the header.
        kind: u16,
        /// What the decoder said.
        reason: String,
    },
}

/// Appends a frame of `kind` whose body is written by `body` to `out`.
pub fn put_frame(out: &mut Vec<u8>, kind: u16, body_len: usize, body: impl FnOnce(&mut Vec<u8>)) {
    out.reserve(HEADER_LEN + body_len);
    let len = u32::try_from(body_len).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&PROTOCOL.to_le_bytes());
    body(out);
}

/// Cuts a stream into frames: feed bytes with `space`/`filled`, take frames with `next`.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Frames {
    /// An empty cutter.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Room of at least `want` bytes to read into; call `filled` with how many were read.
    pub fn space(&mut self, want: usize) -> &mut [u8] {
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
        if self.buffer.len() - self.end < want {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            if self.buffer.len() - self.end < want {
                self.buffer.resize(self.end + want, 0);
            }
        }
        &mut self.buffer[self.end..]
    }

    /// Says that `n` bytes of the last `space` now hold data.
    pub fn filled(&mut self, n: usize) {
        self.end = (self.end + n).min(self.buffer.len());
    }

    /// Copies `bytes` in; for callers that already hold them.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.filled(bytes.len());
    }

    /// Whether bytes of an unfinished frame are waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The next whole frame as (kind, body), or `None` when more bytes are needed.
    ///
    /// # Errors
    /// A foreign protocol or an over-long frame; the stream is then unusable.
    pub fn next_frame(&mut self) -> Result<Option<(u16, &[u8])>, FrameError> {
        let have = &self.buffer[self.start..self.end];
        let Some(header) = have.first_chunk::<HEADER_LEN>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, k0, k1, p0, p1] = *header;
        let theirs = u16::from_le_bytes([p0, p1]);
        if theirs != PROTOCOL {
            return Err(FrameError::Protocol { theirs });
        }
        let len = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len > MAX_BODY {
            return Err(FrameError::TooLong { len });
        }
        if have.len() < HEADER_LEN + len {
            return Ok(None);
        }
        let body = self.start + HEADER_LEN;
        self.start = body + len;
        Ok(Some((u16::from_le_bytes([k0, k1]), &self.buffer[body..body + len])))
    }
}
