//! Reads and writes by messages: asks for parts, and answers those that peers ask for. The owner of a region checks each part by itself, at the moment at
//! which it copies; what a peer says of lengths and places is only ever compared with what was asked.
//!
//! Hot path. UCX is lent copies only, so that neither a peer that stops nor one that is lost keeps a region from its end.

use super::Core;
use crate::codec::{Kind, Part, Refusal};
use crate::moves::{Answer, MOST_PARTS, WINDOW};
use crate::peer::Request;
use crate::regions::Region;
use bridgehead_fabric::{Access, Reason};
use bytes::Bytes;
use std::sync::Arc;

impl Core {
    /// Begins an operation on a peer's region.
    pub(super) fn begin_move(&mut self, number: u32, region: u64, request: Request) {
        match self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) {
            Some(out) => out.moves.begin(request, region),
            None => return self.end(number, request.op, Err(Reason::UnknownPeer)),
        }
        self.ask(number);
    }

    /// Asks for what the window has room for.
    fn ask(&mut self, number: u32) {
        while let Some(ask) = self
            .peers
            .get_mut(&number)
            .and_then(|peer| peer.out.as_mut()?.moves.next())
        {
            let head = ask.part.encode();
            if ask.read {
                self.tell(number, Kind::Read, ask.number, 0, Bytes::copy_from_slice(&head));
            } else {
                let size = here(ask.part.size);
                let mut payload = Vec::with_capacity(Part::LEN + size);
                payload.extend_from_slice(&head);
                ask.region.copy(ask.local, size, &mut payload);
                self.tell(number, Kind::Write, ask.number, 0, payload.into());
            }
        }
    }

    /// A peer asks for a part of a region.
    pub(super) fn on_read(&mut self, number: u32, asked: u64, payload: &[u8]) {
        let Some((part, [])) = Part::decode(payload) else {
            return self.caught(number, "it asks for bytes that no operation has");
        };
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        if peer.incoming.asked.len() >= MOST_PARTS {
            return self.caught(number, "it asks for more than its window");
        }
        peer.incoming.asked.push_back((asked, part));
        self.serve(number);
    }

    /// Sends a peer the parts that it has asked for, as far as UCX gets rid of them.
    pub(super) fn serve(&mut self, number: u32) {
        loop {
            let Some(peer) = self.peers.get_mut(&number) else {
                return;
            };
            if peer.out.as_ref().is_some_and(|out| out.serving >= WINDOW) {
                return;
            }
            let Some((asked, part)) = peer.incoming.asked.pop_front() else {
                return;
            };
            let session = peer.incoming.session;
            match self.allowed(&part, Access::REMOTE_READ) {
                Ok(region) => {
                    let mut bytes = Vec::new();
                    region.copy(part.offset + part.at, here(part.size), &mut bytes);
                    self.tell(number, Kind::Data, asked, session, bytes.into());
                }
                Err(refusal) => self.tell(number, Kind::Refused, asked, session, refusal.encode()),
            }
        }
    }

    /// A peer writes a part of a region.
    pub(super) fn on_write(&mut self, number: u32, session: u64, asked: u64, payload: &[u8]) {
        let Some((part, bytes)) = Part::decode(payload).filter(|(part, bytes)| part.size == bytes.len() as u64) else {
            return self.caught(number, "it writes bytes that no operation has");
        };
        match self.allowed(&part, Access::REMOTE_WRITE) {
            Ok(region) => {
                region.fill(part.offset + part.at, bytes);
                self.tell(number, Kind::Written, asked, session, Bytes::new());
            }
            Err(refusal) => self.tell(number, Kind::Refused, asked, session, refusal.encode()),
        }
    }

    /// The region of a part whose operation may be done on it now.
    fn allowed(&self, part: &Part, right: Access) -> Result<Arc<Region>, Refusal> {
        let region = self.regions.get(&part.region).ok_or(Refusal::NoRegion)?;
        if !region.access.contains(right) {
            return Err(Refusal::NoRight);
        }
        if !region.contains(part.offset, part.len) {
            return Err(Refusal::OutOfRange);
        }
        Ok(Arc::clone(region))
    }

    /// The answer to a part: the bytes of a read, or none if a write is in the peer's memory.
    pub(super) fn on_answer(&mut self, number: u32, asked: u64, bytes: Option<&[u8]>) {
        let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) else {
            return;
        };
        match out.moves.place(asked, bytes.map(|bytes| bytes.len() as u64)) {
            Answer::For(place) => place.store(bytes.unwrap_or_default()),
            Answer::Late => {}
            Answer::Wrong => return self.caught(number, "it answers what it was not asked"),
        }
        if let Some(op) = out.moves.answered(asked) {
            self.end(number, op, Ok(()));
        }
        self.ask(number);
    }

    /// The other answer.
    pub(super) fn on_refused(&mut self, number: u32, asked: u64, payload: &[u8]) {
        let Some(out) = self.peers.get_mut(&number).and_then(|peer| peer.out.as_mut()) else {
            return;
        };
        match (Refusal::decode(payload), out.moves.refused(asked)) {
            (Some(refusal), Some(Some(op))) => self.end(number, op, Err(refusal.reason())),
            (Some(_), Some(None)) => {} // The operation is over already.
            _ => return self.caught(number, "it refuses what it was not asked"),
        }
        self.ask(number);
    }

    /// A peer that knows the key says what makes no sense: its session ends.
    pub(super) fn caught(&mut self, number: u32, text: &str) {
        self.doomed.push((number, Reason::PeerLost(text.into())));
    }
}

/// A length that a part may have.
fn here(size: u64) -> usize {
    usize::try_from(size).expect("a part is no longer than `PART`")
}
