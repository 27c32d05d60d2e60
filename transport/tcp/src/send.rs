//! The sending half of a connection: a queue of what is to be sent, cut into sealed frames and written straight from its memory.
//! Owns no socket and no operation.
//!
//! Hot path: `Tx::flush`.
#![allow(unsafe_code)] // Hands registered memory to vectored sends.

use crate::codec::Codec;
use crate::frame::{CHUNK, HEADER_LEN, Header, Kind, code_of};
use crate::region::Region;
use crate::socket::{self, MAX_PARTS, Part};
use bridgehead_fabric::Reason;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes that are sealed ahead of the socket; a chunk's code is best computed just before it is sent, while it is cached.
const AHEAD: usize = CHUNK;

/// A part of a region on its way: the answer to a read, or a write.
pub(crate) struct Stream {
    /// `ReadData` or `Write`.
    pub kind: Kind,
    pub op: u64,
    pub region: Arc<Region>,
    /// First byte in `region`.
    pub start: u64,
    pub len: u64,
    pub sent: u64,
    /// For a write: the region at the peer, and the first byte there.
    pub to: (u64, u64),
}

/// What waits to be sent.
pub(crate) enum Item {
    /// A frame without payload.
    Frame(Header),
    Message(Bytes),
    Stream(Stream),
}

enum Payload {
    None,
    Owned(Bytes),
    Region { region: Arc<Region>, at: u64, len: usize },
}

struct Out {
    head: [u8; HEADER_LEN],
    payload: Payload,
    message: bool,
    /// Bytes of head and payload that the kernel has.
    sent: usize,
}

impl Out {
    fn payload_part(&self) -> Part {
        match &self.payload {
            Payload::None => Part::of(&[]),
            Payload::Owned(bytes) => Part::of(bytes),
            Payload::Region { region, at, len } => Part {
                at: region.at(*at, *len),
                len: *len,
            },
        }
    }

    fn len(&self) -> usize {
        HEADER_LEN + self.payload_part().len
    }

    fn parts(&self) -> [Part; 2] {
        let payload = self.payload_part();
        let skip = self.sent.saturating_sub(HEADER_LEN);
        // `skip` is within the payload: `sent` never exceeds `len`, at which the frame is dropped.
        [
            Part::of(&self.head[self.sent.min(HEADER_LEN)..]),
            Part {
                at: payload.at.wrapping_add(skip),
                len: payload.len - skip,
            },
        ]
    }
}

/// How far `flush` came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flushed {
    /// Nothing is left.
    All,
    /// The socket is full, or the budget is used up: go on when it is writable.
    More,
}

/// The sending half of a connection.
#[derive(Default)]
pub(crate) struct Tx {
    codec: Option<Codec>,
    queue: VecDeque<Item>,
    sealed: VecDeque<Out>,
    sealed_bytes: usize,
    message_bytes: usize,
    /// Whether the poller is asked to tell when the socket is writable.
    pub armed: bool,
    /// Whether the poller is told not to look for what comes in.
    pub paused: bool,
    /// Nothing is taken any more.
    pub closed: bool,
}

impl Tx {
    /// The handshake is over: frames may go out.
    pub fn open(&mut self, codec: Codec) {
        self.codec = Some(codec);
    }

    /// Things that wait.
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Bytes of messages that wait, with their headers, so that empty ones count as well.
    pub fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Whether anything waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.sealed.is_empty()
    }

    /// Queues; what comes after the end of the connection is dropped.
    pub fn push(&mut self, item: Item) {
        if self.closed {
            return;
        }
        if let Item::Message(bytes) = &item {
            self.message_bytes += bytes.len() + HEADER_LEN;
        }
        self.queue.push_back(item);
    }

    /// Forgets everything and lets go of all memory.
    pub fn close(&mut self) {
        self.closed = true;
        self.queue.clear();
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.message_bytes = 0;
    }

    /// Stops sending operation `op`; a frame that has begun goes on.
    pub fn cancel(&mut self, op: u64) {
        self.queue
            .retain(|item| !matches!(item, Item::Stream(stream) if stream.op == op));
    }

    /// Lets go of `region`: answers from it become failures, writes from it end, sealed frames get a copy.
    pub fn forget(&mut self, region: &Arc<Region>) {
        for item in &mut self.queue {
            if let Item::Stream(stream) = item
                && Arc::ptr_eq(&stream.region, region)
                && stream.kind == Kind::ReadData
            {
                *item = Item::Frame(failure(Kind::ReadFailed, stream.op, &Reason::Deregistered));
            }
        }
        self.queue
            .retain(|item| !matches!(item, Item::Stream(stream) if Arc::ptr_eq(&stream.region, region)));
        for out in &mut self.sealed {
            if let Payload::Region { region: of, at, len } = &out.payload
                && Arc::ptr_eq(of, region)
            {
                out.payload = Payload::Owned(Bytes::copy_from_slice(of.bytes(*at, *len)));
            }
        }
    }

    /// Seals and writes until all is sent, the socket is full, or `budget` bytes are over; says how far it came, and the bytes.
    pub fn flush(&mut self, fd: BorrowedFd<'_>, budget: usize) -> io::Result<(Flushed, usize)> {
        let mut total = 0;
        loop {
            self.seal();
            if self.sealed.is_empty() {
                // Without a codec the handshake is not over; its end flushes again.
                return Ok((Flushed::All, total));
            }
            if total >= budget {
                return Ok((Flushed::More, total));
            }
            match self.write(fd) {
                Ok(count) => {
                    total += count;
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok((Flushed::More, total)),
                Err(error) => return Err(error),
            }
        }
    }

    fn write(&self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        let mut parts = [Part::of(&[]); MAX_PARTS];
        let mut count = 0;
        for part in self
            .sealed
            .iter()
            .take(MAX_PARTS / 2)
            .flat_map(Out::parts)
            .filter(|part| part.len > 0)
        {
            parts[count] = part;
            count += 1;
        }
        // SAFETY: heads and owned payloads are borrowed from `self`, regions are kept alive by it.
        unsafe { socket::send(fd, &parts[..count]) }
    }

    fn advance(&mut self, mut count: usize) {
        self.sealed_bytes -= count;
        while let Some(out) = self.sealed.front_mut() {
            let rest = out.len() - out.sent;
            if count < rest {
                out.sent += count;
                return;
            }
            count -= rest;
            if out.message {
                self.message_bytes -= out.len();
            }
            self.sealed.pop_front();
        }
    }

    fn seal(&mut self) {
        while self.sealed_bytes < AHEAD && self.sealed.len() < MAX_PARTS / 2 {
            let (Some(codec), Some(item)) = (self.codec.as_mut(), self.queue.front_mut()) else {
                return;
            };
            let (out, over) = match item {
                Item::Frame(header) => (seal_frame(codec, header), true),
                Item::Message(bytes) => (seal_message(codec, bytes.clone()), true),
                Item::Stream(stream) => seal_chunk(codec, stream),
            };
            if over {
                self.queue.pop_front();
            }
            self.sealed_bytes += out.len();
            self.sealed.push_back(out);
        }
    }
}

/// A frame that says why an operation failed.
pub(crate) fn failure(kind: Kind, op: u64, reason: &Reason) -> Header {
    Header {
        reason: code_of(reason),
        ..Header::new(kind, op)
    }
}

fn seal_frame(codec: &mut Codec, header: &Header) -> Out {
    Out {
        head: codec.seal(header, &[]),
        payload: Payload::None,
        message: false,
        sent: 0,
    }
}

fn seal_message(codec: &mut Codec, bytes: Bytes) -> Out {
    let header = Header {
        len: len32(bytes.len()),
        ..Header::new(Kind::Message, 0)
    };
    let (head, bytes) = seal_bytes(codec, &header, bytes);
    Out {
        head,
        payload: Payload::Owned(bytes),
        message: true,
        sent: 0,
    }
}

fn seal_bytes(codec: &mut Codec, header: &Header, bytes: Bytes) -> ([u8; HEADER_LEN], Bytes) {
    if !codec.encrypts() {
        return (codec.seal(header, &bytes), bytes);
    }
    let mut bytes = bytes.to_vec();
    (codec.seal_in_place(header, &mut bytes), bytes.into())
}

/// The next chunk of a stream, and whether it is the last.
fn seal_chunk(codec: &mut Codec, stream: &mut Stream) -> (Out, bool) {
    let rest = stream.len - stream.sent;
    // What is encrypted is copied first; buffers of this size are taken from the heap without new pages from the kernel.
    let most = if codec.encrypts() { CHUNK / 4 } else { CHUNK };
    let len = usize::try_from(rest).unwrap_or(most).min(most);
    let header = chunk_header(stream, len, rest);
    let at = stream.start + stream.sent;
    stream.sent += len as u64;
    let bytes = stream.region.bytes(at, len);
    let (head, payload) = if codec.encrypts() {
        let (head, bytes) = seal_bytes(codec, &header, Bytes::copy_from_slice(bytes));
        (head, Payload::Owned(bytes))
    } else {
        (
            codec.seal(&header, bytes),
            Payload::Region {
                region: stream.region.clone(),
                at,
                len,
            },
        )
    };
    (
        Out {
            head,
            payload,
            message: false,
            sent: 0,
        },
        stream.sent == stream.len,
    )
}

fn chunk_header(stream: &Stream, len: usize, rest: u64) -> Header {
    let base = Header {
        len: len32(len),
        ..Header::new(stream.kind, stream.op)
    };
    if stream.kind == Kind::Write {
        Header {
            region: stream.to.0,
            offset: stream.to.1 + stream.sent,
            total: rest,
            ..base
        }
    } else {
        Header {
            offset: stream.sent,
            total: stream.len,
            ..base
        }
    }
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).expect("payloads are limited to some hundred KiB")
}
