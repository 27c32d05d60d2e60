//! A process's side of its node's store: ranges to write into, leases on objects to read. Hot path: `reserve`, `lease`.
//!
//! Small objects share a range that was granted at once, so most reservations ask nobody. Pages of a range are taken before
//! it is written for the first time, and kept for the next time.

use crate::index::{Index, Leases};
use crate::map::{Access, Mapping};
use crate::node::lock;
use crate::protocol::{Kind, Message, VERSION, new_socket, receive, send};
use crate::verify::sum_of;
use bridgehead_spec::ObjectId;
use bridgehead_store_core::{ALIGN, Extent, SlotId};
use bridgehead_wire::ObjectRef;
use rustix::net::{SocketAddrUnix, connect};
use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use thiserror::Error;

/// Objects from this size have a range of their own.
const LARGE: u64 = 1 << 20;
/// Ranges that smaller ones share.
const SHARED: u64 = 4 << 20;
/// Places of the index asked for at once.
const SLOTS: u64 = 64;
/// Pages are taken in pieces of this size.
const PIECE: u64 = 2 << 20;

/// Why the store did not do what it was asked.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The store cannot be reached.
    #[error("the store of this node cannot be reached: {0}")]
    Io(#[from] io::Error),
    /// There is no room, and waiting brought none.
    #[error("{0}")]
    Full(String),
    /// It can never be done: too large, or not here.
    #[error("{0}")]
    Never(String),
}

#[derive(Debug)]
struct Inner {
    socket: Mutex<OwnedFd>,
    index: Index,
    leases: Leases,
    /// For reading: what leases give out.
    view: Mapping,
    /// For writing: what reservations give out.
    work: Mapping,
    arena_fd: OwnedFd,
    /// The NUMA node of each arena; empty where there is one arena only.
    arenas: Vec<Option<u32>>,
    node: u32,
    pid: u32,
    /// Objects are to have sums.
    verify: bool,
    stock: Mutex<Stock>,
}

/// What was granted and is not used yet.
#[derive(Debug, Default)]
struct Stock {
    slots: Vec<SlotId>,
    shared: Option<Extent>,
    /// Pieces whose pages this process has taken.
    taken: HashSet<u64>,
    trims: u64,
}

/// A connection to the node's store.
#[derive(Debug, Clone)]
pub struct Client(Arc<Inner>);

impl Client {
    /// Connects to the store that listens at `path`.
    ///
    /// # Errors
    /// There is none, or it is of another version.
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let socket = new_socket()?;
        connect(&socket, &SocketAddrUnix::new(path).map_err(io::Error::from)?).map_err(io::Error::from)?;
        send(&socket, &Message::new(Kind::Hello, &[VERSION]), &[])?;
        let (message, fds) = answer(&socket)?;
        let Ok([index, table, arena]) = <[OwnedFd; 3]>::try_from(fds) else {
            return Err(bad("the store's greeting holds no memory").into());
        };
        let len = message.words[2];
        Ok(Self(Arc::new(Inner {
            index: Index::map(&index, Access::Read)?,
            leases: Leases::map(&table)?,
            view: Mapping::new(&arena, len, Access::Read)?,
            work: Mapping::new(&arena, len, Access::Write)?,
            arena_fd: arena,
            arenas: arenas(&message.text),
            node: u32::try_from(message.words[1]).map_err(|_| bad("a node's number is beyond 32 bits"))?,
            pid: std::process::id(),
            verify: message.words[3] == 1,
            socket: Mutex::new(socket),
            stock: Mutex::default(),
        })))
    }

    /// Whether this process made the connection. A forked child has inherited it, and must not use it: grants, leases and
    /// answers are its parent's.
    #[must_use]
    pub fn is_own(&self) -> bool {
        self.0.pid == std::process::id()
    }

    /// Bytes of the store's memory.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.0.work.len() as u64
    }

    /// The node whose store this is.
    #[must_use]
    pub fn node(&self) -> u32 {
        self.0.node
    }

    /// A range of `len` bytes for an object to come. Waits, bounded, when the store is full.
    ///
    /// # Errors
    /// There is no room, it can never fit, or memory ran out.
    pub fn reserve(&self, len: usize) -> Result<Reservation, ClientError> {
        let inner = &self.0;
        let wanted = (len.max(1) as u64).next_multiple_of(ALIGN);
        let mut stock = lock(&inner.stock);
        if stock.slots.is_empty() {
            let lent = inner.ask(&Message::new(Kind::Grant, &[0, SLOTS]))?;
            stock.add_slots(&lent.text);
        }
        let offset = if wanted >= LARGE {
            inner.grant(wanted)?
        } else {
            stock.share(inner, wanted)?
        };
        let taken = stock.populate(inner, offset, wanted);
        let slot = stock.slots.pop();
        drop(stock);
        let reservation = Reservation {
            client: self.clone(),
            extent: Extent::new(offset, wanted),
            len,
            slot: slot.unwrap_or(SlotId(u32::MAX)),
            sealed: false,
        };
        taken?; // On failure the reservation gives its range back.
        match slot {
            Some(_) => Ok(reservation),
            None => Err(ClientError::Full(
                "the store's index is full: drop references, or put fewer, larger objects".to_owned(),
            )),
        }
    }

    /// Takes a lease on an object: its bytes stay where they are until the lease is dropped. Asks the store only where the
    /// reference does not name the object's present place, or the object is on disk.
    ///
    /// # Errors
    /// The object is not on this node, or cannot be brought back to memory.
    pub fn lease(&self, object: &ObjectRef) -> Result<Lease, ClientError> {
        if let Some(views) = self.0.leases.views() {
            views.fetch_add(1, Ordering::Relaxed);
        }
        let slot = SlotId(u32::try_from(object.slot).unwrap_or(u32::MAX));
        if let Some(lease) = self.try_lease(slot, object.id()) {
            return Ok(lease);
        }
        let id = object.id();
        let found = self.0.ask(&Message::about(Kind::Open, id))?;
        let slot = SlotId(u32::try_from(found.words[0]).unwrap_or(u32::MAX));
        let lease = self.try_lease(slot, id);
        send(&*lock(&self.0.socket), &Message::about(Kind::Close, id), &[])?;
        // Pinned until `Close`, so its bytes were in memory.
        lease.ok_or_else(|| ClientError::Never(format!("object {id} is not where the store says")))
    }

    /// What `device_view` needs of the conversation with the store.
    pub(crate) fn ask_with(&self, message: &Message) -> Result<(Message, Vec<OwnedFd>), ClientError> {
        self.0.ask_with(message)
    }

    /// Tells the store something that has no answer.
    pub(crate) fn tell(&self, message: &Message) {
        let _ = send(&*lock(&self.0.socket), message, &[]); // A store that is gone needs to know nothing.
    }

    /// Whether the node has published an object, so that others can read it.
    #[must_use]
    pub fn is_published(&self, object: &ObjectRef) -> bool {
        let slot = SlotId(u32::try_from(object.slot).unwrap_or(u32::MAX));
        self.try_lease(slot, object.id()).is_some()
    }

    fn try_lease(&self, slot: SlotId, id: ObjectId) -> Option<Lease> {
        let (offset, len) = self.0.index.lease(&self.0.leases, slot, id)?;
        let lease = Lease {
            client: self.clone(),
            slot,
            offset,
            len,
        };
        // An index that names a range outside the arena is broken; the lease is given back.
        let end = offset.checked_add(len)?;
        (end <= self.0.view.len() as u64).then_some(lease)
    }
}

pub(crate) fn bad(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn answer(socket: &OwnedFd) -> Result<(Message, Vec<OwnedFd>), ClientError> {
    match receive(socket)? {
        Some((message, _)) if message.kind == Kind::Refused && message.words[0] == 1 => {
            Err(ClientError::Never(message.text()))
        }
        Some((message, _)) if message.kind == Kind::Refused => Err(ClientError::Full(message.text())),
        Some(both) => Ok(both),
        None => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

/// The NUMA nodes of the arenas that a greeting names.
fn arenas(text: &[u8]) -> Vec<Option<u32>> {
    let numbers = text.chunks_exact(4);
    let numbers = numbers.map(|raw| u32::from_le_bytes(raw.try_into().expect("four bytes each")));
    let arenas: Vec<_> = numbers.map(|number| number.checked_sub(1)).collect();
    if arenas.len() > 1 { arenas } else { Vec::new() }
}

impl Inner {
    /// 1 + the arena in the memory of the NUMA node where this thread runs now; 0 where it makes no difference.
    fn near(&self) -> u64 {
        if self.arenas.is_empty() {
            return 0;
        }
        let here = crate::numa::here();
        let arena = self.arenas.iter().position(|numa| numa.is_some() && *numa == here);
        arena.map_or(0, |arena| arena as u64 + 1)
    }

    fn ask(&self, message: &Message) -> Result<Message, ClientError> {
        self.ask_with(message).map(|(reply, _)| reply)
    }

    /// As `ask`, with the descriptors beside the answer.
    fn ask_with(&self, message: &Message) -> Result<(Message, Vec<OwnedFd>), ClientError> {
        let socket = lock(&self.socket);
        send(&*socket, message, &[])?;
        let (reply, fds) = answer(&socket)?;
        if reply.kind == message.kind {
            Ok((reply, fds))
        } else {
            Err(bad("the store answered another question").into())
        }
    }

    fn grant(&self, len: u64) -> Result<u64, ClientError> {
        let extent = self.ask(&Message::new(Kind::Grant, &[len, 0, self.near()]))?.extent();
        let inside = extent
            .offset
            .checked_add(len)
            .is_some_and(|end| end <= self.work.len() as u64);
        if inside && extent.len >= len {
            Ok(extent.offset)
        } else {
            Err(bad("the store granted a range outside its arena").into())
        }
    }

    fn give_back(&self, extent: Extent) {
        let message = Message::new(Kind::GiveBack, &[extent.offset, extent.len]);
        let _ = send(&*lock(&self.socket), &message, &[]); // A store that is gone needs nothing back.
    }
}

impl Stock {
    fn add_slots(&mut self, text: &[u8]) {
        let slots = text
            .chunks_exact(4)
            .map(|raw| u32::from_le_bytes(raw.try_into().expect("four bytes each")));
        self.slots.extend(slots.map(SlotId));
    }

    /// `len` bytes of the shared range, a new one when it is used up.
    fn share(&mut self, inner: &Inner, len: u64) -> Result<u64, ClientError> {
        if self.shared.is_none_or(|extent| extent.len < len) {
            if let Some(rest) = self.shared.take().filter(|rest| rest.len > 0) {
                inner.give_back(rest);
            }
            let size = SHARED
                .min(inner.work.len() as u64 / 16)
                .max(len)
                .next_multiple_of(ALIGN);
            match inner.grant(size) {
                Ok(offset) => self.shared = Some(Extent::new(offset, size)),
                Err(ClientError::Full(_)) => return inner.grant(len), // There may be room for just this one.
                Err(error) => return Err(error),
            }
        }
        let Some(extent) = &mut self.shared else {
            return inner.grant(len);
        };
        let offset = extent.offset;
        *extent = Extent::new(offset + len, extent.len - len);
        Ok(offset)
    }

    /// Takes the pages of a range that this process has not taken yet.
    fn populate(&mut self, inner: &Inner, offset: u64, len: u64) -> Result<(), ClientError> {
        let trims = inner.index.trims().load(Ordering::SeqCst);
        if self.trims != trims {
            self.trims = trims;
            self.taken.clear();
        }
        let last = (offset + len - 1) / PIECE;
        let mut from = offset / PIECE;
        while from <= last {
            if self.taken.contains(&from) {
                from += 1;
                continue;
            }
            let to = (from..=last)
                .find(|piece| self.taken.contains(piece))
                .unwrap_or(last + 1);
            let end = (to * PIECE).min(inner.work.len() as u64);
            let taken = inner.work.populate(&inner.arena_fd, from * PIECE, end - from * PIECE);
            taken.map_err(|e| ClientError::Full(format!("this machine has no memory left for the store: {e}")))?;
            self.taken.extend(from..to);
            from = to;
        }
        Ok(())
    }
}

/// A range that this process alone may write, until it is sealed.
#[derive(Debug)]
pub struct Reservation {
    client: Client,
    extent: Extent,
    len: usize,
    slot: SlotId,
    sealed: bool,
}

impl Reservation {
    /// The bytes.
    #[allow(unsafe_code)]
    pub fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: the range was granted to this process, and this reservation is the only one of it.
        unsafe { self.client.0.work.slice_mut(self.extent.offset, self.len as u64) }
    }

    /// The object is complete: a reference to it, for the message that publishes it. Nobody may write it from now on.
    /// The lease keeps it in memory for this process, also before it is published. Where objects are to have sums, this reads
    /// all of its bytes.
    #[must_use]
    pub fn seal(mut self, id: ObjectId) -> (ObjectRef, Lease) {
        self.sealed = true;
        let sum = if self.client.0.verify { sum_of(self.bytes()) } else { 0 };
        let inner = &self.client.0;
        if let Some(count) = inner.leases.count(self.slot) {
            count.fetch_add(1, Ordering::SeqCst);
        }
        let (offset, len) = (self.extent.offset, self.len as u64);
        let object = ObjectRef::new(id, len, inner.node, offset, self.slot.0.into());
        let object = ObjectRef { sum, ..object };
        let lease = Lease {
            client: self.client.clone(),
            slot: self.slot,
            offset,
            len,
        };
        (object, lease)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.sealed && self.client.is_own() {
            self.client.0.give_back(self.extent);
            if self.slot != SlotId(u32::MAX) {
                lock(&self.client.0.stock).slots.push(self.slot);
            }
        }
    }
}

/// A hold on an object's bytes.
#[derive(Debug)]
pub struct Lease {
    client: Client,
    slot: SlotId,
    offset: u64,
    len: u64,
}

impl Lease {
    /// The object's bytes.
    #[must_use]
    #[allow(unsafe_code)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the lease keeps the bytes where they are, and sealed objects never change.
        unsafe { self.client.0.view.slice(self.offset, self.len) }
    }

    /// The arena's memory, and where in it the object begins.
    pub(crate) fn place(&self) -> (BorrowedFd<'_>, u64) {
        (self.client.0.arena_fd.as_fd(), self.offset)
    }
}

impl Clone for Lease {
    fn clone(&self) -> Self {
        // A forked child shares the table's memory with its parent, but not its leases.
        if self.client.is_own() {
            if let Some(count) = self.client.0.leases.count(self.slot) {
                count.fetch_add(1, Ordering::SeqCst); // The count cannot be 0 here, so nothing needs to be looked at.
            }
        }
        Self {
            client: self.client.clone(),
            ..*self
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.client.is_own() {
            if let Some(count) = self.client.0.leases.count(self.slot) {
                count.fetch_sub(1, Ordering::SeqCst);
            }
        }
    }
}

/// A new object id: random, so that no two processes choose the same.
///
/// # Errors
/// The system has no randomness to give.
pub fn new_id() -> io::Result<ObjectId> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    static BASE: Mutex<Option<(u32, u64)>> = Mutex::new(None);
    let mut base = lock(&BASE);
    let pid = std::process::id();
    let high = match *base {
        Some((owner, high)) if owner == pid => high,
        _ => {
            let mut raw = [0; 8];
            rustix::rand::getrandom(&mut raw, rustix::rand::GetRandomFlags::empty())?;
            let high = u64::from_le_bytes(raw);
            *base = Some((pid, high));
            high
        }
    };
    let low = COUNT.fetch_add(1, Ordering::Relaxed);
    Ok(ObjectId(u128::from(high) << 64 | u128::from(low)))
}
