//! One connection: its two halves, the operations that wait on it, and what each frame means for them.
//!
//! Lock order: `rx`, then `ops`, then `tx`; nothing of the engine's is locked while one of them is held except its queue of news.

use crate::codec::{Codec, Damaged};
use crate::engine::Engine;
use crate::frame::{HEADER_LEN, Header, Kind, MAX_WINDOW, reason_of};
use crate::handshake::{HELLO_LEN, Keys};
use crate::peer::{Lane, Peer};
use crate::receive::{Broken, Dest, Rx, Sink};
use crate::region::Region;
use crate::send::{Item, Stream, Tx, failure};
use bridgehead_fabric::{Access, Completion, OpId, Reason};
use bytes::Bytes;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An operation that this side began.
pub(crate) struct Pending {
    /// Its name, until its completion was told; what still comes for it after that is discarded.
    pub op: Option<OpId>,
    pub region: Arc<Region>,
    /// First byte in the local region.
    pub offset: u64,
    pub len: u64,
    /// Bytes that came, of a read.
    pub received: u64,
    pub read: bool,
}

#[derive(Default)]
pub(crate) struct Ops {
    next: u64,
    pub pending: HashMap<u64, Pending>,
    closed: Option<Reason>,
}

/// How far a connection is.
pub(crate) enum Phase {
    /// This side waits to be connected, with the hello that it will send.
    Connecting {
        hello: [u8; HELLO_LEN],
    },
    /// This side waits for the answer to its hello.
    Greeting {
        hello: [u8; HELLO_LEN],
        answer: Vec<u8>,
    },
    /// Frames flow.
    Open(Box<Rx>),
    Closed,
}

pub(crate) struct Connection {
    pub token: u64,
    pub fd: OwnedFd,
    pub peer: Arc<Peer>,
    /// Whether this side began it.
    pub outgoing: bool,
    pub lane: u8,
    /// When it last moved, in milliseconds of the engine's clock.
    pub moved: AtomicU64,
    pub phase: Mutex<Phase>,
    pub ops: Mutex<Ops>,
    pub tx: Mutex<Tx>,
    /// The write that is coming in and is refused, by its number, and why.
    refused: Mutex<Option<(u64, Reason)>>,
}

/// Locks; a thread that panicked while it held the lock left the value as it was between two steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Connection {
    pub fn new(token: u64, fd: OwnedFd, peer: Arc<Peer>, outgoing: bool, lane: u8, phase: Phase, now: u64) -> Self {
        Self {
            token,
            fd,
            peer,
            outgoing,
            lane,
            moved: AtomicU64::new(now),
            phase: Mutex::new(phase),
            ops: Mutex::default(),
            tx: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    /// The receiving half for this connection's keys; the sending half is opened.
    pub fn open(&self, engine: &Engine, keys: &Keys) -> Phase {
        let (out, back) = if self.outgoing {
            (&keys.out, &keys.back)
        } else {
            (&keys.back, &keys.out)
        };
        lock(&self.tx).open(Codec::new(engine.options.integrity, out));
        let rx = Rx::new(Codec::new(engine.options.integrity, back), Lane::stage(self.lane));
        Phase::Open(Box::new(rx))
    }

    /// Notes an operation; its number on the wire, or why there is none.
    pub fn begin(&self, pending: Pending, now: u64) -> Result<u64, Reason> {
        let mut ops = lock(&self.ops);
        if let Some(reason) = &ops.closed {
            return Err(reason.clone());
        }
        if ops.pending.is_empty() {
            self.moved.store(now, Ordering::Relaxed);
        }
        ops.next += 1;
        let number = ops.next;
        ops.pending.insert(number, pending);
        Ok(number)
    }

    /// Ends everything: after this no memory is touched. Gives the operations that have to fail.
    pub fn close(&self, reason: &Reason) -> Vec<OpId> {
        crate::socket::shut(&self.fd);
        let mut phase = lock(&self.phase);
        if let Phase::Open(rx) = &mut *phase {
            rx.close();
        }
        *phase = Phase::Closed;
        drop(phase);
        let mut ops = lock(&self.ops);
        ops.closed = Some(reason.clone());
        let mut failed: Vec<(u64, Option<OpId>)> = ops.pending.drain().map(|(number, op)| (number, op.op)).collect();
        drop(ops);
        lock(&self.tx).close();
        failed.sort_unstable();
        failed.iter().for_each(|_| self.peer.free_place());
        failed.into_iter().filter_map(|(_, op)| op).collect()
    }

    /// Lets go of `region`; gives the operations that have to fail.
    pub fn forget(&self, region: &Arc<Region>) -> Vec<OpId> {
        let mut phase = lock(&self.phase);
        if let Phase::Open(rx) = &mut *phase {
            rx.forget(region);
        }
        let mut ops = lock(&self.ops);
        let mut failed = Vec::new();
        let mut writes = Vec::new();
        for (number, pending) in ops
            .pending
            .iter_mut()
            .filter(|(_, pending)| Arc::ptr_eq(&pending.region, region))
        {
            failed.extend(pending.op.take());
            if !pending.read {
                writes.push(*number);
            }
        }
        // The peer answers a read whatever happens here; of a write that is cut off it may never say anything.
        for number in writes {
            ops.pending.remove(&number);
            self.peer.free_place();
        }
        lock(&self.tx).forget(region);
        failed
    }

    /// Whether the peer owes something, or has not taken what is sent.
    pub fn waits(&self) -> bool {
        let opening = !matches!(*lock(&self.phase), Phase::Open(_) | Phase::Closed);
        opening || !lock(&self.ops).pending.is_empty() || !lock(&self.tx).is_empty()
    }
}

/// Gives the frames of one connection their meaning.
pub(crate) struct Incoming<'a> {
    pub engine: &'a Engine,
    pub connection: &'a Arc<Connection>,
    /// Something was queued for sending.
    pub answered: bool,
}

impl Incoming<'_> {
    fn answer(&mut self, item: Item) -> Result<(), Broken> {
        let mut tx = lock(&self.connection.tx);
        if tx.queued() > 2 * MAX_WINDOW {
            return Err(Broken(
                "it has more operations in flight than the protocol allows".to_owned(),
            ));
        }
        tx.push(item);
        self.answered = true;
        Ok(())
    }

    /// The destination of a chunk of a read that this side began.
    fn place_read(&self, header: &Header) -> Result<Dest, Broken> {
        let ops = lock(&self.connection.ops);
        let Some(pending) = ops.pending.get(&header.op) else {
            return Err(Broken(format!(
                "it answers operation {}, which is not pending",
                header.op
            )));
        };
        if !pending.read || header.total != pending.len || header.offset != pending.received {
            return Err(Broken(format!(
                "its answer to operation {} does not fit what was asked for",
                header.op
            )));
        }
        // The range was checked when the operation began; offset + length <= total was checked with the header.
        Ok(match pending.op {
            Some(_) => Dest::Region(pending.region.clone(), pending.offset + header.offset),
            None => Dest::Discard,
        })
    }

    fn finish_read(&mut self, header: &Header, check: Result<(), Damaged>) {
        let mut ops = lock(&self.connection.ops);
        let Some(pending) = ops.pending.get_mut(&header.op) else {
            return;
        };
        pending.received += u64::from(header.len);
        let over = pending.received == pending.len;
        let news = match (check, over) {
            (Err(Damaged), _) => pending.op.take().map(|op| Completion::Failed {
                op,
                reason: Reason::Damaged,
            }),
            (Ok(()), true) => pending.op.take().map(|op| Completion::Done { op }),
            (Ok(()), false) => None,
        };
        if over {
            ops.pending.remove(&header.op);
        }
        drop(ops);
        self.complete(over, news);
    }

    fn end(&mut self, header: &Header, read: bool, failed: bool) -> Result<(), Broken> {
        let mut ops = lock(&self.connection.ops);
        let (ended, newest) = (ops.pending.remove(&header.op), ops.next);
        drop(ops);
        let Some(pending) = ended else {
            // Only a write can have been given up meanwhile.
            let fits = !read && header.op <= newest;
            return fits
                .then_some(())
                .ok_or_else(|| Broken("it ends an operation that is not pending".to_owned()));
        };
        if pending.read != read {
            return Err(Broken(format!("it ends operation {} as what it is not", header.op)));
        }
        if failed && !read {
            lock(&self.connection.tx).cancel(header.op);
        }
        let news = pending.op.map(|op| match failed {
            true => Completion::Failed {
                op,
                reason: reason_of(header.reason),
            },
            false => Completion::Done { op },
        });
        self.complete(true, news);
        Ok(())
    }

    fn complete(&mut self, over: bool, news: Option<Completion>) {
        if over {
            self.connection.peer.free_place();
        }
        if let Some(news) = news {
            self.engine.push(news);
        }
        if over && self.connection.peer.take_starved() {
            self.engine.push(Completion::Ready {
                peer: self.connection.peer.id,
            });
        }
    }

    /// A peer asks to read: the answer is queued.
    fn serve_read(&mut self, header: &Header) -> Result<(), Broken> {
        match self.remote_region(header.region, header.offset, header.total, Access::REMOTE_READ) {
            Ok(region) => self.answer(Item::Stream(Stream {
                kind: Kind::ReadData,
                op: header.op,
                region,
                start: header.offset,
                len: header.total,
                sent: 0,
                to: (0, 0),
            })),
            Err(reason) => self.answer(Item::Frame(failure(Kind::ReadFailed, header.op, &reason))),
        }
    }

    fn place_write(&self, header: &Header) -> Dest {
        if self.is_refused(header.op) {
            return Dest::Discard;
        }
        // The whole of what is still to come is checked, so that a write that leaves the region changes nothing.
        match self.remote_region(header.region, header.offset, header.total, Access::REMOTE_WRITE) {
            Ok(region) => Dest::Region(region, header.offset),
            Err(reason) => {
                self.refuse(header.op, reason);
                Dest::Discard
            }
        }
    }

    fn is_refused(&self, number: u64) -> bool {
        lock(&self.connection.refused)
            .as_ref()
            .is_some_and(|(refused, _)| *refused == number)
    }

    fn refuse(&self, number: u64, reason: Reason) {
        *lock(&self.connection.refused) = Some((number, reason));
    }

    fn finish_write(&mut self, header: &Header, dest: &Dest, check: Result<(), Damaged>) -> Result<(), Broken> {
        if check.is_err() {
            self.refuse(header.op, Reason::Damaged);
        } else if matches!(dest, Dest::Discard) && !self.is_refused(header.op) {
            self.refuse(header.op, Reason::Deregistered);
        }
        if header.total > u64::from(header.len) {
            return Ok(());
        }
        let refused = lock(&self.connection.refused)
            .take()
            .filter(|(number, _)| *number == header.op);
        let answer = match refused {
            Some((_, reason)) => failure(Kind::WriteFailed, header.op, &reason),
            None => Header::new(Kind::WriteDone, header.op),
        };
        self.answer(Item::Frame(answer))
    }

    fn remote_region(&self, number: u64, offset: u64, len: u64, access: Access) -> Result<Arc<Region>, Reason> {
        let region = self.engine.regions.get(number).ok_or(Reason::UnknownRemoteRegion)?;
        if !region.access.contains(access) {
            return Err(Reason::AccessDenied { side: "remote" });
        }
        if !region.contains(offset, len) {
            return Err(Reason::RemoteOutOfRange);
        }
        Ok(region)
    }

    fn deliver(&self, bytes: Vec<u8>) {
        let waiting = self.connection.peer.add_undelivered(bytes.len() + HEADER_LEN);
        self.engine.push_message(&self.connection.peer, Bytes::from(bytes));
        if waiting <= self.engine.options.max_queued {
            return;
        }
        self.engine.pause(self.connection, true);
        // All may have been polled before the pause, which nobody would end then.
        if self.connection.peer.undelivered() <= self.engine.options.max_queued / 2 {
            self.engine.pause(self.connection, false);
        }
    }
}

impl Sink for Incoming<'_> {
    fn place(&mut self, header: &Header) -> Result<Dest, Broken> {
        match (self.connection.outgoing, header.kind) {
            (true, Kind::ReadData) => self.place_read(header),
            (false, Kind::Message) => Ok(Dest::Owned(vec![0; header.len as usize])),
            (false, Kind::Write) => Ok(self.place_write(header)),
            (true, Kind::ReadFailed | Kind::WriteDone | Kind::WriteFailed) | (false, Kind::Read) => Ok(Dest::Discard),
            (_, kind) => Err(Broken(format!("it sent {kind:?} in the wrong direction"))),
        }
    }

    fn finish(&mut self, header: &Header, dest: Dest, check: Result<(), Damaged>) -> Result<(), Broken> {
        match header.kind {
            Kind::ReadData => self.finish_read(header, check),
            Kind::ReadFailed => self.end(header, true, true)?,
            Kind::WriteDone => self.end(header, false, false)?,
            Kind::WriteFailed => self.end(header, false, true)?,
            Kind::Read => self.serve_read(header)?,
            Kind::Write => self.finish_write(header, &dest, check)?,
            Kind::Message => match (dest, check) {
                (Dest::Owned(bytes), Ok(())) => self.deliver(bytes),
                _ => return Err(Broken("a message's code is wrong: altered on the way".to_owned())),
            },
        }
        Ok(())
    }
}
