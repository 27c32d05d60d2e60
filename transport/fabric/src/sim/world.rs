//! The state of a simulated network and its events. Pure but for the memory that it moves: virtual time, one random generator.
#![allow(unsafe_code)] // Moves bytes between registered memories.

use super::{MAX_MESSAGE, MAX_OPERATION, Options, PART};
use crate::{Access, Completion, LocalSlice, Memory, OpId, PeerId, Posted, Reason, RemoteSlice};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

#[derive(Clone)]
pub(super) struct Region {
    pub memory: Arc<dyn Memory>,
    pub access: Access,
}

impl Region {
    fn contains(&self, offset: u64, len: u64) -> bool {
        offset
            .checked_add(len)
            .is_some_and(|end| end <= self.memory.len() as u64)
    }
}

/// How one side regards another.
#[derive(Clone, PartialEq, Eq)]
enum Standing {
    Known,
    Lost(Reason),
    Removed,
}

/// A pair: what one side (first) has going with another.
type Pair = (PeerId, PeerId);

#[derive(Default)]
struct Node {
    regions: HashMap<u64, Region>,
    news: VecDeque<Completion>,
    woken: bool,
    dead: bool,
    frozen: bool,
}

struct Op {
    id: OpId,
    pair: Pair,
    read: bool,
    local: (u64, u64),
    remote: (u64, u64),
    len: u64,
    moved: u64,
}

enum Event {
    /// The next part of an operation arrives.
    Part(u64),
    Message(Pair, u64, Bytes),
    /// The operation's time limit.
    Limit(u64),
    /// One side hears that the other has died.
    Death(Pair),
}

pub(super) struct World {
    pub options: Options,
    now: Duration,
    random: u64,
    sequence: u64,
    events: BTreeMap<(Duration, u64), Event>,
    /// Events that wait for a frozen peer.
    held: Vec<(PeerId, Event)>,
    nodes: Vec<Node>,
    next: u64,
    ops: BTreeMap<u64, Op>,
    standing: HashMap<Pair, Standing>,
    starved: HashSet<Pair>,
    /// Bytes of messages from one to another that nobody has polled yet.
    queued: HashMap<Pair, usize>,
    /// Of messages from one to another: when the last arrives, so that none overtakes it.
    last: HashMap<Pair, Duration>,
    /// Which connection of a pair is the present one; messages of an earlier one are dropped.
    epochs: HashMap<Pair, u64>,
}

impl World {
    pub fn new(seed: u64, count: usize, options: Options) -> Self {
        Self {
            options,
            now: Duration::ZERO,
            random: seed,
            sequence: 0,
            events: BTreeMap::new(),
            held: Vec::new(),
            nodes: (0..count).map(|_| Node::default()).collect(),
            next: 0,
            ops: BTreeMap::new(),
            standing: HashMap::new(),
            starved: HashSet::new(),
            queued: HashMap::new(),
            last: HashMap::new(),
            epochs: HashMap::new(),
        }
    }

    pub fn now(&self) -> Duration {
        self.now
    }

    fn node(&mut self, at: PeerId) -> &mut Node {
        &mut self.nodes[at.0 as usize]
    }

    /// SplitMix64: a number below `below`.
    fn below(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    fn schedule(&mut self, at: Duration, event: Event) {
        self.sequence += 1;
        self.events.insert((at, self.sequence), event);
    }

    /// How long a packet is on its way, with what its losses cost; nothing if it never arrives.
    fn travel(&mut self) -> Option<Duration> {
        let (least, most) = self.options.delay;
        let spread = u64::try_from(most.saturating_sub(least).as_nanos()).unwrap_or(u64::MAX);
        let mut time = least + Duration::from_nanos(self.below(spread));
        for _ in 0..=self.options.retries {
            if self.below(1000) >= u64::from(self.options.loss) {
                return Some(time);
            }
            time += self.options.timeout / 8;
        }
        None
    }

    /// How long it takes until a packet counts as never to arrive.
    fn giving_up(&self) -> Duration {
        self.options.timeout / 8 * (self.options.retries + 1)
    }

    // --- what a side does -----------------------------------------------------------------------------------------------------

    pub fn add_peer(&mut self, at: PeerId, peer: PeerId) {
        self.standing.insert((at, peer), Standing::Known);
    }

    pub fn remove_peer(&mut self, at: PeerId, peer: PeerId) {
        self.cut(at, peer, &Reason::PeerRemoved, None);
        self.standing.insert((at, peer), Standing::Removed);
    }

    pub fn register(&mut self, at: PeerId, region: Region) -> u64 {
        self.next += 1;
        let number = self.next;
        self.node(at).regions.insert(number, region);
        number
    }

    pub fn deregister(&mut self, at: PeerId, number: u64) {
        self.node(at).regions.remove(&number);
        let own = |op: &Op| op.pair.0 == at && op.local.0 == number;
        let far = |op: &Op| op.pair.1 == at && op.remote.0 == number;
        let gone: Vec<u64> = self
            .ops
            .iter()
            .filter(|(_, op)| own(op) || far(op))
            .map(|(key, _)| *key)
            .collect();
        gone.into_iter()
            .for_each(|key| self.end(key, Some(Reason::Deregistered)));
    }

    pub fn wake(&mut self, at: PeerId) {
        self.node(at).woken = true;
    }

    pub fn take_wake(&mut self, at: PeerId) -> bool {
        std::mem::take(&mut self.node(at).woken)
    }

    pub fn has_news(&self, at: PeerId) -> bool {
        !self.nodes[at.0 as usize].news.is_empty()
    }

    pub fn take_news(&mut self, at: PeerId, out: &mut Vec<Completion>) -> usize {
        let news = std::mem::take(&mut self.node(at).news);
        let count = news.len();
        for item in &news {
            if let Completion::Message { peer, message } = item {
                self.drained((*peer, at), message.len());
            }
        }
        out.extend(news);
        count
    }

    fn drained(&mut self, pair: Pair, len: usize) {
        if let Some(queued) = self.queued.get_mut(&pair) {
            *queued = queued.saturating_sub(len + 1);
        }
        self.relieve(pair);
    }

    fn relieve(&mut self, pair: Pair) {
        if self.starved.remove(&pair) {
            self.tell(pair.0, Completion::Ready { peer: pair.1 });
        }
    }

    fn tell(&mut self, at: PeerId, completion: Completion) {
        self.node(at).news.push_back(completion);
    }

    /// Why nothing can be sent to the peer.
    fn obstacle(&self, pair: Pair) -> Option<Reason> {
        match self.standing.get(&pair) {
            Some(Standing::Known) => None,
            Some(Standing::Lost(reason)) => Some(reason.clone()),
            Some(Standing::Removed) | None => Some(Reason::UnknownPeer),
        }
    }

    pub fn send(&mut self, at: PeerId, peer: PeerId, message: Bytes) -> Posted {
        if message.len() > MAX_MESSAGE {
            return Posted::Refused(Reason::TooLong {
                len: message.len() as u64,
                limit: MAX_MESSAGE as u64,
            });
        }
        let pair = (at, peer);
        if let Some(reason) = self.obstacle(pair) {
            return Posted::Refused(reason);
        }
        let queued = self.queued.entry(pair).or_default();
        if *queued > 0 && *queued + message.len() > self.options.max_queued {
            self.starved.insert(pair);
            return Posted::Busy;
        }
        *queued += message.len() + 1;
        let epoch = self.epochs.get(&pair).copied().unwrap_or(0);
        match self.travel() {
            Some(time) => {
                let arrival = (self.now + time).max(self.last.get(&pair).copied().unwrap_or_default());
                self.last.insert(pair, arrival);
                self.schedule(arrival, Event::Message(pair, epoch, message));
            }
            None => self.schedule(self.now + self.giving_up(), Event::Death(pair)),
        }
        Posted::Accepted
    }

    pub fn post(
        &mut self,
        at: PeerId,
        id: OpId,
        peer: PeerId,
        local: &LocalSlice,
        remote: &RemoteSlice,
        read: bool,
    ) -> Posted {
        let pair = (at, peer);
        if let Err(reason) = self.check(pair, local, remote, read) {
            self.tell(at, Completion::Failed { op: id, reason });
            return Posted::Accepted;
        }
        if self.in_flight(pair) >= self.options.max_in_flight {
            self.starved.insert(pair);
            return Posted::Busy;
        }
        self.next += 1;
        let key = self.next;
        let number = remote.region.0.as_ref().try_into().map_or(0, u64::from_le_bytes);
        let deadline = self.now + self.options.timeout;
        let (own, far) = ((local.region.local(), local.offset), (number, remote.offset));
        let op = Op {
            id,
            pair,
            read,
            local: own,
            remote: far,
            len: local.len,
            moved: 0,
        };
        self.ops.insert(key, op);
        self.schedule(deadline, Event::Limit(key));
        self.advance(key);
        Posted::Accepted
    }

    fn in_flight(&self, pair: Pair) -> usize {
        self.ops.values().filter(|op| op.pair == pair).count()
    }

    fn check(&self, pair: Pair, local: &LocalSlice, remote: &RemoteSlice, read: bool) -> Result<(), Reason> {
        let region = self.nodes[pair.0.0 as usize]
            .regions
            .get(&local.region.local())
            .ok_or(Reason::UnknownLocalRegion)?;
        if read && !region.access.contains(Access::LOCAL_WRITE) {
            return Err(Reason::AccessDenied { side: "local" });
        }
        if !region.contains(local.offset, local.len) {
            return Err(Reason::LocalOutOfRange);
        }
        if local.len != remote.len {
            return Err(Reason::LengthsDiffer {
                local: local.len,
                remote: remote.len,
            });
        }
        if local.len > MAX_OPERATION {
            return Err(Reason::TooLong {
                len: local.len,
                limit: MAX_OPERATION,
            });
        }
        self.obstacle(pair).map_or(Ok(()), Err)
    }

    // --- events ---------------------------------------------------------------------------------------------------------------

    /// Moves time to the next event; says whether there was one.
    pub fn step(&mut self) -> bool {
        let Some(((at, _), event)) = self.events.pop_first() else {
            return false;
        };
        self.now = self.now.max(at);
        match self.frozen_end(&event) {
            Some(frozen) => self.held.push((frozen, event)),
            None => self.happen(event),
        }
        true
    }

    /// The frozen peer that keeps an event from happening. Time limits run on.
    fn frozen_end(&self, event: &Event) -> Option<PeerId> {
        let pair = match event {
            Event::Part(key) => self.ops.get(key)?.pair,
            Event::Message(pair, ..) => *pair,
            Event::Limit(_) | Event::Death(_) => return None,
        };
        [pair.0, pair.1].into_iter().find(|at| self.nodes[at.0 as usize].frozen)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Part(key) => self.part(key),
            Event::Message(pair, epoch, message) => self.arrive(pair, epoch, message),
            Event::Limit(key) => {
                if let Some(op) = self.ops.get(&key) {
                    let (at, peer) = op.pair;
                    self.lose(at, peer, &Reason::TimedOut(self.options.timeout));
                }
            }
            Event::Death((at, peer)) => self.lose(at, peer, &Reason::PeerLost("it does not answer".into())),
        }
    }

    /// The next part of the operation sets out, or never arrives.
    fn advance(&mut self, key: u64) {
        let Some(pair) = self.ops.get(&key).map(|op| op.pair) else {
            return;
        };
        match self.travel() {
            Some(time) => self.schedule(self.now + time, Event::Part(key)),
            None => self.schedule(self.now + self.giving_up(), Event::Death(pair)),
        }
    }

    fn part(&mut self, key: u64) {
        let Some(op) = self.ops.get(&key) else { return };
        let (at, peer) = op.pair;
        if self.standing.get(&(peer, at)) == Some(&Standing::Removed) {
            return self.lose(at, peer, &Reason::PeerLost("the peer has removed this agent".into()));
        }
        let count = PART.min(op.len - op.moved);
        if let Err(reason) = self.copy(op, count) {
            return self.end(key, Some(reason));
        }
        let Some(op) = self.ops.get_mut(&key) else { return };
        op.moved += count;
        if op.moved == op.len {
            self.end(key, None)
        } else {
            self.advance(key)
        }
    }

    fn copy(&self, op: &Op, count: u64) -> Result<(), Reason> {
        let (at, peer) = (&self.nodes[op.pair.0.0 as usize], &self.nodes[op.pair.1.0 as usize]);
        let near = at.regions.get(&op.local.0).ok_or(Reason::Deregistered)?;
        let far = peer.regions.get(&op.remote.0).ok_or(Reason::UnknownRemoteRegion)?;
        let wanted = if op.read {
            Access::REMOTE_READ
        } else {
            Access::REMOTE_WRITE
        };
        if !far.access.contains(wanted) {
            return Err(Reason::AccessDenied { side: "remote" });
        }
        if !far.contains(op.remote.1, op.len) {
            return Err(Reason::RemoteOutOfRange);
        }
        let [near, far] = [(near, op.local.1), (far, op.remote.1)]
            .map(|(region, offset)| region.memory.as_ptr().wrapping_add(to_usize(offset + op.moved)));
        let (from, into) = if op.read { (far, near) } else { (near, far) };
        // SAFETY: both ranges were checked, both memories are alive, and those that are written may be; they may be the same.
        unsafe { std::ptr::copy(from, into, to_usize(count)) };
        Ok(())
    }

    fn end(&mut self, key: u64, failure: Option<Reason>) {
        let Some(op) = self.ops.remove(&key) else { return };
        let completion = match failure {
            Some(reason) => Completion::Failed { op: op.id, reason },
            None => Completion::Done { op: op.id },
        };
        self.tell(op.pair.0, completion);
        self.relieve(op.pair);
    }

    fn arrive(&mut self, (from, to): Pair, epoch: u64, message: Bytes) {
        let present = self.epochs.get(&(from, to)).copied().unwrap_or(0) == epoch;
        let refused = self.standing.get(&(to, from)) == Some(&Standing::Removed);
        if present && !refused && !self.nodes[to.0 as usize].dead {
            self.tell(to, Completion::Message { peer: from, message });
        } else {
            self.drained((from, to), message.len());
        }
    }

    // --- ends -----------------------------------------------------------------------------------------------------------------

    /// Both sides lose each other, as when a connection breaks.
    fn lose(&mut self, at: PeerId, peer: PeerId, reason: &Reason) {
        self.cut(at, peer, reason, Some(reason));
    }

    /// Fails all that is pending between two sides. The one hears `report`; the other that it was cut off.
    fn cut(&mut self, at: PeerId, peer: PeerId, reason: &Reason, report: Option<&Reason>) {
        let far = Reason::PeerLost("it closed the connection".into());
        for (pair, reason) in [((at, peer), reason), ((peer, at), &far)] {
            let gone: Vec<u64> = self
                .ops
                .iter()
                .filter(|(_, op)| op.pair == pair)
                .map(|(key, _)| *key)
                .collect();
            gone.into_iter().for_each(|key| self.end(key, Some(reason.clone())));
            *self.epochs.entry(pair).or_default() += 1;
            self.last.remove(&pair);
        }
        for (pair, reason) in [((at, peer), report), ((peer, at), Some(&far))] {
            if self.standing.get(&pair) == Some(&Standing::Known)
                && let Some(reason) = reason
            {
                self.standing.insert(pair, Standing::Lost(reason.clone()));
                self.tell(
                    pair.0,
                    Completion::PeerLost {
                        peer: pair.1,
                        reason: reason.clone(),
                    },
                );
            }
        }
    }

    pub fn kill(&mut self, dead: PeerId) {
        self.node(dead).dead = true;
        for at in (0..self.nodes.len())
            .filter_map(|at| u32::try_from(at).ok())
            .map(PeerId)
            .filter(|at| *at != dead)
        {
            self.schedule(self.now + self.options.delay.1, Event::Death((at, dead)));
        }
    }

    pub fn freeze(&mut self, at: PeerId, frozen: bool) {
        self.node(at).frozen = frozen;
        if !frozen {
            let held = std::mem::take(&mut self.held);
            let (free, held) = held.into_iter().partition(|(by, _)| *by == at);
            self.held = held;
            let free: Vec<(PeerId, Event)> = free;
            free.into_iter().for_each(|(_, event)| self.schedule(self.now, event));
        }
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("a place in memory")
}
