//! The receiving half of a connection: cuts the stream into frames and receives payloads straight into their destination.
//! Owns neither sockets nor operations; `Sink` says where a payload goes and what it means.
//!
//! Hot path: `Rx::receive`.
#![allow(unsafe_code)] // Hands registered memory to vectored receives.

use crate::address::array;
use crate::codec::{Codec, Damaged};
use crate::frame::{HEADER_LEN, Header};
use crate::region::Region;
use crate::socket::{self, Part};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

/// Bytes that are taken at once of what nobody wants.
const SCRATCH: usize = 64 << 10;

/// Where a payload goes.
pub(crate) enum Dest {
    /// Into a buffer of its own.
    Owned(Vec<u8>),
    /// Into registered memory, from this offset on.
    Region(Arc<Region>, u64),
    /// Nowhere. Its code is not checked: the header's was, and that keeps the place in the stream.
    Discard,
}

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Broken(pub String);

/// Gives frames a meaning.
pub(crate) trait Sink {
    /// Where the payload of a frame goes; called before any byte of it is stored.
    fn place(&mut self, header: &Header) -> Result<Dest, Broken>;
    /// The frame is complete.
    fn finish(&mut self, header: &Header, dest: Dest, check: Result<(), Damaged>) -> Result<(), Broken>;
}

struct Body {
    head: [u8; HEADER_LEN],
    header: Header,
    dest: Dest,
    got: usize,
}

impl Body {
    fn rest(&self) -> usize {
        self.header.len as usize - self.got
    }

    fn take(&mut self, bytes: &[u8]) {
        match &mut self.dest {
            Dest::Owned(buffer) => buffer[self.got..self.got + bytes.len()].copy_from_slice(bytes),
            Dest::Region(region, offset) => region.fill(*offset + self.got as u64, bytes),
            Dest::Discard => {}
        }
        self.got += bytes.len();
    }

    fn room(&mut self, scratch: &mut [u8]) -> Part {
        let rest = self.rest();
        match &mut self.dest {
            Dest::Owned(buffer) => Part::room(&mut buffer[self.got..]),
            Dest::Region(region, offset) => Part {
                at: region.at(*offset + self.got as u64, rest),
                len: rest,
            },
            Dest::Discard => Part::room(&mut scratch[..rest.min(SCRATCH)]),
        }
    }

    fn check(&mut self, codec: &Codec) -> Result<(), Damaged> {
        let len = self.header.len as usize;
        match &mut self.dest {
            Dest::Owned(buffer) => codec.open_payload(&self.head, buffer),
            Dest::Region(region, offset) => codec.open_payload(&self.head, region.bytes_mut(*offset, len)),
            Dest::Discard => Ok(()),
        }
    }
}

/// The receiving half of a connection.
pub(crate) struct Rx {
    codec: Codec,
    stage: Box<[u8]>,
    start: usize,
    end: usize,
    body: Option<Body>,
    scratch: Vec<u8>,
}

impl Rx {
    /// `stage`: bytes that are taken at once where no payload is expected. At `HEADER_LEN` no byte of a payload is ever staged; larger ones take many small frames with one call.
    pub fn new(codec: Codec, stage: usize) -> Self {
        let stage = vec![0; stage.max(HEADER_LEN)].into_boxed_slice();
        Self {
            codec,
            stage,
            start: 0,
            end: 0,
            body: None,
            scratch: Vec::new(),
        }
    }

    /// Receives until there is no more or `budget` bytes are over; says how many bytes came.
    pub fn receive(&mut self, fd: BorrowedFd<'_>, sink: &mut impl Sink, budget: usize) -> Result<usize, Broken> {
        let mut total = 0;
        while total < budget {
            let (parts, count) = self.room();
            let asked: usize = parts[..count].iter().map(|part| part.len).sum();
            // SAFETY: the parts are the stage, the scratch buffer, an owned buffer, or a checked range of a region that is kept alive by the body; all belong to `self`.
            match unsafe { socket::receive(fd, &parts[..count]) } {
                Ok(0) => return Err(Broken("it closed the connection".to_owned())),
                Ok(came) => {
                    total += came;
                    self.came(came, parts[0].len);
                    self.parse(sink)?;
                    if came < asked {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(Broken(error.to_string())),
            }
        }
        Ok(total)
    }

    /// Lets go of `region`: what still comes for it is discarded.
    pub fn forget(&mut self, region: &Arc<Region>) {
        if let Some(body) = &mut self.body
            && matches!(&body.dest, Dest::Region(of, _) if Arc::ptr_eq(of, region))
        {
            body.dest = Dest::Discard;
        }
    }

    /// Lets go of everything.
    pub fn close(&mut self) {
        self.body = None;
        self.start = 0;
        self.end = 0;
    }

    fn room(&mut self) -> ([Part; 2], usize) {
        if self.start > 0 {
            self.stage.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let stage = Part::room(&mut self.stage[self.end..]);
        let Some(body) = &mut self.body else {
            return ([stage, stage], 1);
        };
        if matches!(body.dest, Dest::Discard) && self.scratch.is_empty() {
            self.scratch = vec![0; SCRATCH];
        }
        let rest = body.rest();
        let payload = body.room(&mut self.scratch);
        ([payload, stage], if payload.len == rest { 2 } else { 1 })
    }

    fn came(&mut self, count: usize, first: usize) {
        match &mut self.body {
            Some(body) => {
                let payload = count.min(first);
                body.got += payload;
                self.end += count - payload;
            }
            None => self.end += count,
        }
    }

    fn parse(&mut self, sink: &mut impl Sink) -> Result<(), Broken> {
        loop {
            if self.body.is_some() && !self.parse_body(sink)? {
                return Ok(());
            }
            if self.end - self.start < HEADER_LEN {
                return Ok(());
            }
            self.parse_header(sink)?;
        }
    }

    fn parse_header(&mut self, sink: &mut impl Sink) -> Result<(), Broken> {
        let head: [u8; HEADER_LEN] = array(&self.stage, self.start);
        self.start += HEADER_LEN;
        let altered = |Damaged| Broken("a frame's code is wrong: altered, replayed or cut on the way".to_owned());
        self.codec.open_header(&head).map_err(altered)?;
        let header = Header::decode(&array(&head, 0)).map_err(|error| Broken(error.to_string()))?;
        let dest = sink.place(&header)?;
        self.body = Some(Body {
            head,
            header,
            dest,
            got: 0,
        });
        Ok(())
    }

    /// Takes what is staged of the payload; whether it is complete.
    fn parse_body(&mut self, sink: &mut impl Sink) -> Result<bool, Broken> {
        let Some(body) = &mut self.body else { return Ok(true) };
        let staged = body.rest().min(self.end - self.start);
        body.take(&self.stage[self.start..self.start + staged]);
        self.start += staged;
        if body.rest() > 0 {
            return Ok(false);
        }
        let Some(mut body) = self.body.take() else {
            return Ok(true);
        };
        let check = body.check(&self.codec);
        sink.finish(&body.header, body.dest, check)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;
    use crate::options::Integrity;
    use crate::tests_support::Random;

    #[derive(Default)]
    struct Messages(Vec<Vec<u8>>);

    impl Sink for Messages {
        fn place(&mut self, header: &Header) -> Result<Dest, Broken> {
            Ok(Dest::Owned(vec![0; header.len as usize]))
        }
        fn finish(&mut self, _: &Header, dest: Dest, check: Result<(), Damaged>) -> Result<(), Broken> {
            let Dest::Owned(bytes) = dest else {
                panic!("placed as owned")
            };
            check.map_err(|Damaged| Broken("payload".to_owned()))?;
            self.0.push(bytes);
            Ok(())
        }
    }

    fn feed(rx: &mut Rx, sink: &mut Messages, mut bytes: &[u8]) -> Result<(), Broken> {
        while !bytes.is_empty() {
            let (parts, count) = rx.room();
            let first = parts[0].len.min(bytes.len());
            let second = if count == 2 {
                parts[1].len.min(bytes.len() - first)
            } else {
                0
            };
            // SAFETY: the parts are room in `rx` or in a buffer that it owns.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), parts[0].at, first);
                std::ptr::copy_nonoverlapping(bytes.as_ptr().add(first), parts[1].at, second);
            }
            rx.came(first + second, parts[0].len);
            rx.parse(sink)?;
            bytes = &bytes[first + second..];
        }
        Ok(())
    }

    fn stream(texts: &[Vec<u8>]) -> Vec<u8> {
        let mut codec = Codec::new(Integrity::Mac, &[1; 16]);
        let mut out = Vec::new();
        for text in texts {
            let header = Header {
                len: u32::try_from(text.len()).expect("short"),
                ..Header::new(Kind::Message, 0)
            };
            out.extend(codec.seal(&header, text));
            out.extend(text);
        }
        out
    }

    /// Property: however the stream is cut and whatever the stage, the same frames come out.
    #[test]
    fn frames_do_not_depend_on_how_the_stream_is_cut() {
        let mut random = Random::new(3);
        for _ in 0..200 {
            let texts: Vec<Vec<u8>> = (0..10)
                .map(|_| (0..random.next() % 300).map(|_| random.byte()).collect())
                .collect();
            let bytes = stream(&texts);
            let stage = HEADER_LEN + usize::try_from(random.next() % 400).expect("small");
            let (mut rx, mut sink) = (
                Rx::new(Codec::new(Integrity::Mac, &[1; 16]), stage),
                Messages::default(),
            );
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                let cut = rest.len().min(1 + usize::try_from(random.next() % 200).expect("small"));
                feed(&mut rx, &mut sink, &rest[..cut]).expect("honest bytes");
                rest = &rest[cut..];
            }
            assert_eq!(sink.0, texts);
        }
    }

    /// Property: random bytes, and honest streams with one altered byte, are refused before a wrong frame comes out.
    #[test]
    fn dishonest_bytes_never_give_a_frame() {
        let mut random = Random::new(5);
        let texts = vec![vec![7; 40], vec![8; 300]];
        let honest = stream(&texts);
        for at in 0..honest.len() {
            let mut bytes = honest.clone();
            bytes[at] ^= 1 << (random.byte() % 8);
            let (mut rx, mut sink) = (Rx::new(Codec::new(Integrity::Mac, &[1; 16]), 512), Messages::default());
            assert!(feed(&mut rx, &mut sink, &bytes).is_err(), "byte {at}");
            assert!(texts.starts_with(&sink.0));
        }
        for _ in 0..2_000 {
            let bytes: [u8; 256] = random.array();
            let (mut rx, mut sink) = (
                Rx::new(Codec::new(Integrity::Crc32c, &[1; 16]), 512),
                Messages::default(),
            );
            assert!(feed(&mut rx, &mut sink, &bytes).is_err());
        }
    }
}
