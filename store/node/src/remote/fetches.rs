//! Objects on their way here: turns, room, the question to their node, and the one-sided reads into this node's arena. Each
//! fetch ends once, with the object or a reason, and what it held here or at its node is given back.

use super::{Conversation, Done, Order, Posting};
use crate::lending::{INLINE, Note};
use crate::node::{Job, SELF, StoreError, lock};
use bridgehead_fabric::{LocalSlice, OpId, PeerId, RemoteKey, RemoteSlice};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::Extent;
use bridgehead_wire::ObjectRef;
use std::time::{Duration, Instant};

/// A node that is not in the run is waited for so long.
const UNKNOWN: Duration = Duration::from_secs(5);

const OTHER_LENGTH: &str = "its node has it with another length than its reference says";

/// One object that is wanted here.
pub(super) struct Fetch {
    /// The object that is asked for.
    pub(super) source: ObjectId,
    /// The object that it becomes here: itself, or a new one for a part of it.
    pub(super) id: ObjectId,
    pub(super) peer: PeerId,
    /// The object's length, as its reference says.
    pub(super) whole: u64,
    /// Where the wanted bytes begin in it, and how many they are.
    pub(super) offset: u64,
    pub(super) len: u64,
    pub(super) done: Done,
    /// `None` while it waits for its turn.
    pub(super) deadline: Option<Instant>,
    pub(super) stage: Stage,
    /// Room for it here.
    pub(super) extent: Option<Extent>,
    /// Counted among what is coming.
    pub(super) counted: bool,
    /// Reads that are under way.
    pub(super) open: usize,
    pub(super) failed: Option<String>,
    /// What its bytes must have; 0 where they are not checked.
    pub(super) sum: u64,
    /// Nodes that are still to be asked, once one has given no good bytes; and what was wrong with the first.
    pub(super) others: Option<Vec<PeerId>>,
    pub(super) why: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Its node is not in the run, as far as is known.
    Unknown,
    /// It waits for its turn, or for room.
    Room,
    /// Its node has been asked.
    Asked,
    /// The object lies pinned at its node.
    Lent,
}

impl Conversation {
    pub(super) fn begin(&mut self, object: ObjectRef, done: Done) {
        let range = (0, object.len);
        self.start(object.id(), &object, range, None, done);
    }

    pub(super) fn begin_range(&mut self, object: &ObjectRef, range: (u64, u64), done: Done) {
        match crate::client::new_id() {
            Ok(id) => self.start(id, object, range, None, done),
            Err(error) => done(Err(error.to_string())),
        }
    }

    pub(super) fn start(
        &mut self,
        id: ObjectId,
        object: &ObjectRef,
        (offset, len): (u64, u64),
        others: Option<Vec<PeerId>>,
        done: Done,
    ) {
        let peer = PeerId(object.node);
        let token = self.next;
        self.next += 1;
        let fetch = Fetch {
            source: object.id(),
            id,
            peer,
            whole: object.len,
            offset,
            len,
            done,
            // A node that is not known yet may be about to join the network.
            deadline: Some(Instant::now() + UNKNOWN),
            stage: Stage::Unknown,
            extent: None,
            counted: false,
            open: 0,
            failed: None,
            sum: if len == object.len { object.sum } else { 0 },
            others,
            why: None,
        };
        self.fetches.insert(token, fetch);
        if self.addresses.contains_key(&peer) {
            self.prepare(token);
        }
    }

    /// What waited for its node to become known goes on.
    pub(super) fn ask_again(&mut self) {
        let ready = |(token, fetch): (&u64, &Fetch)| {
            (fetch.stage == Stage::Unknown && self.addresses.contains_key(&fetch.peer)).then_some(*token)
        };
        let mut ready: Vec<u64> = self.fetches.iter().filter_map(ready).collect();
        ready.sort_unstable();
        for token in ready {
            self.prepare(token);
        }
    }

    /// Small objects are asked for at once. For large ones there is room here first, so that peers pin nothing for those
    /// who wait for room; two full stores that want objects of each other would else wait for each other for ever.
    fn prepare(&mut self, token: u64) {
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        fetch.stage = Stage::Room;
        if fetch.whole <= INLINE {
            return self.ask(token);
        }
        fetch.deadline = None;
        self.queue.push_back(token);
        self.take_turns();
    }

    /// Begins fetches that wait, in their order. What is coming takes no more than half of the store, or is one object, so
    /// that room is left to read back from disk what peers want.
    fn take_turns(&mut self) {
        if std::mem::replace(&mut self.turning, true) {
            return;
        }
        while let Some((token, len)) = self.next_turn() {
            let room = self.shared.lock().core.grant(SELF, len, None);
            match room {
                Ok(extent) => self.place(token, extent),
                Err(_) => {
                    self.seeking = Some(token);
                    self.want_room(token, len);
                }
            }
        }
        self.turning = false;
    }

    fn next_turn(&mut self) -> Option<(u64, u64)> {
        let most = self.shared.arena.len() as u64 / 2;
        while self.seeking.is_none() {
            let token = *self.queue.front()?;
            if let Some(fetch) = self.fetches.get_mut(&token) {
                let coming = self.incoming.saturating_add(fetch.len);
                if self.incoming > 0 && coming > most {
                    return None;
                }
                fetch.counted = true;
                self.incoming = coming;
                let turn = (token, fetch.len);
                self.queue.pop_front();
                return Some(turn);
            }
            self.queue.pop_front(); // It has ended meanwhile.
        }
        None
    }

    /// A fetch has room here; its node is asked.
    fn place(&mut self, token: u64, extent: Extent) {
        match self.fetches.get_mut(&token) {
            Some(fetch) => {
                fetch.extent = Some(extent);
                self.ask(token);
            }
            None => self.shared.lock().core.give_back(SELF, extent),
        }
    }

    pub(super) fn ask(&mut self, token: u64) {
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        fetch.stage = Stage::Asked;
        fetch.deadline = Some(Instant::now() + self.shared.options.patience * 2);
        let (peer, id) = (fetch.peer, fetch.source);
        let note = Note::Lend { token, id };
        self.post(peer, Posting::Send(note.encode()));
    }

    /// Whether `peer` was asked under this token, and this is its first answer.
    pub(super) fn is_from(&mut self, peer: PeerId, token: u64) -> bool {
        self.given_up.remove(&token);
        let asked = |fetch: &Fetch| fetch.peer == peer && fetch.stage == Stage::Asked;
        self.fetches.get(&token).is_some_and(asked)
    }

    pub(super) fn on_inline(&mut self, peer: PeerId, token: u64, bytes: &[u8]) {
        if !self.is_from(peer, token) {
            return;
        }
        let len = bytes.len() as u64;
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        if fetch.whole != len {
            return self.pass_over(token, OTHER_LENGTH);
        }
        if let Some(damage) = fetch.damage_of(bytes) {
            return self.pass_over(token, &damage);
        }
        let len = fetch.len;
        let part = usize::try_from(fetch.offset).ok().zip(usize::try_from(len).ok());
        let part = part.and_then(|(from, len)| bytes.get(from..from.checked_add(len)?));
        let Some(bytes) = part else {
            return self.fail(token, OTHER_LENGTH);
        };
        let room = match fetch.extent.take() {
            Some(extent) => Ok(extent),
            None => self.shared.lock().core.grant(SELF, len, None),
        };
        match room {
            Ok(extent) => {
                self.shared.fill(extent, bytes);
                self.complete(token, extent, len);
            }
            // Asked for again once there is room: keeping it here would be room of another kind.
            Err(_) => {
                if let Some(fetch) = self.fetches.get_mut(&token) {
                    fetch.stage = Stage::Room;
                }
                self.want_room(token, len);
            }
        }
    }

    pub(super) fn on_lent(&mut self, peer: PeerId, token: u64, len: u64, offset: u64, region: RemoteKey) {
        let late = self
            .given_up
            .get(&token)
            .filter(|(from, _)| *from == peer)
            .map(|(_, id)| *id);
        if !self.is_from(peer, token) {
            if let Some(id) = late {
                self.post(peer, Posting::Send(Note::Return { id }.encode()));
            }
            return;
        }
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        fetch.stage = Stage::Lent;
        match fetch.extent {
            Some(extent) if len == fetch.whole && offset.checked_add(len).is_some() => {
                let (offset, len) = (offset + fetch.offset, fetch.len);
                self.read_all(token, len, &RemoteSlice { region, offset, len }, extent);
            }
            _ => {
                let id = fetch.source;
                self.post(peer, Posting::Send(Note::Return { id }.encode()));
                self.pass_over(token, OTHER_LENGTH);
            }
        }
    }

    fn want_room(&mut self, token: u64, len: u64) {
        let (orders, fabric) = (self.orders.clone(), self.fabric.clone());
        let job: Job = Box::new(move |shared| {
            let room = shared.make_room(SELF, len, None, Instant::now() + shared.options.patience);
            lock(&orders.0).push(Order::Room(token, room));
            fabric.wake();
        });
        let _ = self.jobs.send(job); // The movers are gone only at the end.
    }

    pub(super) fn on_room(&mut self, token: u64, room: Result<Extent, StoreError>) {
        self.seeking.take_if(|seeking| *seeking == token);
        match room {
            Ok(extent) => self.place(token, extent),
            Err(error) => self.fail(token, &error.to_string()),
        }
        self.take_turns();
    }

    fn read_all(&mut self, token: u64, len: u64, from: &RemoteSlice, extent: Extent) {
        let Some(peer) = self.fetches.get(&token).map(|fetch| fetch.peer) else {
            return;
        };
        let most = self.fabric.capabilities().max_operation.max(1);
        let mut at = 0;
        let mut postings = Vec::new();
        while at < len {
            let part = most.min(len - at);
            let op = OpId(self.next);
            self.next += 1;
            self.reads.insert(op, token);
            let from = RemoteSlice {
                region: from.region.clone(),
                offset: from.offset + at,
                len: part,
            };
            let into = LocalSlice {
                region: self.region.clone(),
                offset: extent.offset + at,
                len: part,
            };
            postings.push(Posting::Read(op, from, into));
            at += part;
        }
        if let Some(fetch) = self.fetches.get_mut(&token) {
            fetch.open = postings.len();
        }
        for posting in postings {
            self.post(peer, posting);
        }
    }

    pub(super) fn on_read(&mut self, op: OpId, failed: Option<String>) {
        let Some(token) = self.reads.remove(&op) else { return };
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return;
        };
        fetch.open -= 1;
        if failed.is_some() {
            fetch.failed = failed;
        }
        if fetch.open > 0 {
            return;
        }
        let (peer, id, len) = (fetch.peer, fetch.source, fetch.len);
        let checked = fetch.sum != 0;
        match (fetch.failed.take(), fetch.extent.take()) {
            (None, Some(extent)) if checked => self.check_later(token, extent, len),
            (None, Some(extent)) => self.complete(token, extent, len),
            (reason, extent) => {
                fetch.extent = extent;
                self.lose(token, &reason.unwrap_or_default());
            }
        }
        self.post(peer, Posting::Send(Note::Return { id }.encode()));
    }

    /// The bytes are here: they become an object of this node.
    pub(super) fn complete(&mut self, token: u64, extent: Extent, len: u64) {
        if let Some(fetch) = self.take(token) {
            self.shared.lanes.remote.add(len);
            let adopted = self.shared.adopt(fetch.id, extent, len, fetch.sum);
            let coming = adopted.is_err() && self.shared.lock().core.find(fetch.id).is_some();
            if coming {
                self.bring_own(fetch.id, fetch.done);
            } else {
                (fetch.done)(adopted);
            }
        }
        self.take_turns();
    }

    /// Another fetch has brought the same object before, and it is on its way to disk or back: a mover waits for that.
    fn bring_own(&self, id: ObjectId, done: Done) {
        let job: Job = Box::new(move |shared| {
            let deadline = Instant::now() + shared.options.patience;
            done(shared.bring_own(id, deadline).map_err(|e| e.to_string()));
        });
        let _ = self.jobs.send(job); // The movers are gone only at the end.
    }

    pub(super) fn fail(&mut self, token: u64, reason: &str) {
        if let Some(fetch) = self.take(token) {
            (fetch.done)(Err(reason.to_owned()));
        }
        self.take_turns();
    }

    /// Takes a fetch out; the room that it still has is free.
    fn take(&mut self, token: u64) -> Option<Fetch> {
        let mut fetch = self.fetches.remove(&token)?;
        if let Some(extent) = fetch.extent.take() {
            self.shared.lock().core.give_back(SELF, extent);
            self.shared.changed.notify_all();
        }
        if fetch.counted {
            self.incoming = self.incoming.saturating_sub(fetch.len);
        }
        Some(fetch)
    }

    /// Ends a fetch whose peer is there: what it has lent, or lends after all, goes back.
    fn give_up(&mut self, token: u64, reason: &str) {
        let Some(fetch) = self.fetches.get(&token) else {
            return;
        };
        let (peer, id, stage) = (fetch.peer, fetch.source, fetch.stage);
        self.fail(token, reason);
        match stage {
            Stage::Asked => drop(self.given_up.insert(token, (peer, id))),
            Stage::Lent => self.post(peer, Posting::Send(Note::Return { id }.encode())),
            Stage::Unknown | Stage::Room => {}
        }
    }

    /// A peer that says nothing for longer than it may wait for room itself is not waited for.
    pub(super) fn give_up_late(&mut self) {
        let now = Instant::now();
        let late = |(token, fetch): (&u64, &Fetch)| {
            let is_late = fetch.open == 0 && fetch.deadline.is_some_and(|deadline| deadline < now);
            is_late.then_some((*token, fetch.stage))
        };
        for (token, stage) in self.fetches.iter().filter_map(late).collect::<Vec<_>>() {
            let reason = match stage {
                Stage::Unknown => "its node is not in the run",
                _ => "its node did not answer in time",
            };
            self.give_up(token, reason);
        }
    }
}
