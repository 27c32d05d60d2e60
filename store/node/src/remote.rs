//! Objects of other nodes: asked for by name, read by one-sided reads straight into this node's arena; and the same for
//! others the other way round (`docs/formats/store-memory.md`, "Between nodes"). One thread owns the conversation; what may
//! wait (room, disk) is done by the movers, so that a full store never keeps peers waiting. Hot path: `on_message`.

use crate::lending::{Lending, Note};
use crate::map::Mapping;
use crate::node::Arrival;
use crate::node::{Job, SELF, Shared, StoreError, lock, system};
use bridgehead_fabric::{
    Access, Completion, Fabric, LocalSlice, Memory, OpId, PeerId, Posted, RegionKey, RemoteKey, RemoteSlice,
};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::Extent;
use bridgehead_wire::ObjectRef;
use bytes::Bytes;
use std::collections::{HashMap, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The conversation looks at its limits this often.
const LOOK: Duration = Duration::from_millis(200);

/// A node that is not in the run is waited for so long.
const UNKNOWN: Duration = Duration::from_secs(5);

type Done = Box<dyn FnOnce(Arrival) + Send>;

/// What other threads want of the conversation.
enum Order {
    Fetch(ObjectRef, Done),
    Peers(Vec<(u32, Bytes)>),
    /// A mover found room for a fetch, or none.
    Room(u64, Result<Extent, StoreError>),
    /// A mover has an answer for a peer; an object that it names is pinned.
    Answer(PeerId, Note, Option<ObjectId>),
    Stop,
}

#[derive(Default)]
pub(crate) struct Orders(Mutex<Vec<Order>>);

/// The store's side of the network. Ends its thread when dropped.
pub(crate) struct Remote {
    orders: Arc<Orders>,
    fabric: Arc<dyn Fabric>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Remote({})", self.fabric.name())
    }
}

/// The arena as the fabric sees it.
struct Arena(Arc<Shared>);

// SAFETY: the mapping lives as long as the `Arc`, is mapped for reading and writing, and never moves. Ranges that a read
// writes into are granted to this module alone, so no reference into them exists; published objects are never written.
#[allow(unsafe_code)]
unsafe impl Memory for Arena {
    fn as_ptr(&self) -> *mut u8 {
        Mapping::address(&self.0.arena)
    }

    fn len(&self) -> usize {
        self.0.arena.len()
    }
}

impl Remote {
    pub(crate) fn start(shared: &Arc<Shared>, fabric: Arc<dyn Fabric>, jobs: Sender<Job>) -> Result<Self, StoreError> {
        let access = Access::LOCAL_WRITE | Access::REMOTE_READ;
        let region = fabric
            .register(Arc::new(Arena(shared.clone())), access)
            .map_err(|e| system("register the arena with the network")(std::io::Error::other(e)))?;
        let orders = Arc::new(Orders::default());
        let mut conversation = Conversation {
            lending: Lending::new(region.remote()),
            shared: shared.clone(),
            fabric: fabric.clone(),
            jobs,
            orders: orders.clone(),
            region,
            fetches: HashMap::new(),
            reads: HashMap::new(),
            next: 1,
            addresses: HashMap::new(),
            waiting: HashMap::new(),
        };
        let thread = std::thread::Builder::new()
            .name("store-remote".to_owned())
            .spawn(move || conversation.run())
            .map_err(system("start a thread of the store"))?;
        Ok(Self {
            orders,
            fabric,
            thread: Some(thread),
        })
    }

    fn order(&self, order: Order) {
        lock(&self.orders.0).push(order);
        self.fabric.wake();
    }

    /// Brings an object here from the node that its reference names.
    pub(crate) fn fetch(&self, object: ObjectRef, done: Done) {
        self.order(Order::Fetch(object, done));
    }

    /// All nodes of the run, by agent.
    pub(crate) fn set_peers(&self, peers: Vec<(u32, Bytes)>) {
        self.order(Order::Peers(peers));
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A panic of its was printed when it happened.
        }
    }
}

struct Fetch {
    id: ObjectId,
    peer: PeerId,
    done: Done,
    deadline: Instant,
    /// Its node was known and has been asked.
    asked: bool,
    /// Once the peer has lent the object: its length, and where it lies there.
    lent: Option<(u64, RemoteSlice)>,
    extent: Option<Extent>,
    /// Reads that are under way.
    open: usize,
    failed: Option<String>,
}

/// What a full queue holds up.
enum Posting {
    Send(Bytes),
    Read(OpId, RemoteSlice, LocalSlice),
}

struct Conversation {
    shared: Arc<Shared>,
    fabric: Arc<dyn Fabric>,
    jobs: Sender<Job>,
    orders: Arc<Orders>,
    region: RegionKey,
    lending: Lending,
    fetches: HashMap<u64, Fetch>,
    /// Reads under way, and the fetch that each is part of.
    reads: HashMap<OpId, u64>,
    next: u64,
    addresses: HashMap<PeerId, Bytes>,
    waiting: HashMap<PeerId, VecDeque<Posting>>,
}

impl Conversation {
    fn run(&mut self) {
        let mut news = Vec::new();
        let mut looked = Instant::now();
        loop {
            let orders = std::mem::take(&mut *lock(&self.orders.0));
            for order in orders {
                match order {
                    Order::Fetch(object, done) => self.begin(object, done),
                    Order::Peers(peers) => self.set_peers(peers),
                    Order::Room(token, room) => self.on_room(token, room),
                    Order::Answer(peer, note, pinned) => self.answer(peer, &note, pinned),
                    Order::Stop => return self.stop(),
                }
            }
            while self.fabric.poll(&mut news) > 0 {
                for completion in news.drain(..) {
                    self.on_completion(completion);
                }
            }
            if looked.elapsed() > LOOK {
                looked = Instant::now();
                self.give_up_late();
            }
            if lock(&self.orders.0).is_empty() {
                self.fabric.wait(LOOK);
            }
        }
    }

    fn stop(&mut self) {
        self.fabric.deregister(&self.region);
        for token in self.fetches.keys().copied().collect::<Vec<_>>() {
            self.reads.retain(|_, fetch| *fetch != token); // Nothing touches the arena after `deregister`.
            self.fail(token, "the store of this node ends");
        }
        for id in self.lending.all() {
            self.shared.unpin(id);
        }
    }

    fn set_peers(&mut self, peers: Vec<(u32, Bytes)>) {
        let here: HashMap<PeerId, Bytes> = peers
            .into_iter()
            .filter(|(agent, address)| *agent != self.shared.options.agent && !address.is_empty())
            .map(|(agent, address)| (PeerId(agent), address))
            .collect();
        let gone: Vec<PeerId> = self
            .addresses
            .keys()
            .filter(|peer| !here.contains_key(peer))
            .copied()
            .collect();
        self.addresses = here;
        for peer in gone {
            self.fabric.remove_peer(peer);
            self.on_lost(peer, "its agent has left the run");
        }
        for peer in self.addresses.keys().copied().collect::<Vec<_>>() {
            self.add_peer(peer);
        }
        self.ask_again();
    }

    fn add_peer(&mut self, peer: PeerId) {
        let Some(address) = self.addresses.get(&peer) else {
            return;
        };
        if let Err(error) = self.fabric.add_peer(peer, address) {
            tracing::warn!(%peer, %error, "cannot reach another node of the run");
        }
    }

    fn begin(&mut self, object: ObjectRef, done: Done) {
        let (id, peer) = (object.id(), PeerId(object.node));
        let token = self.next;
        self.next += 1;
        let known = self.addresses.contains_key(&peer);
        // A node that is not known yet may be about to join the network.
        let patience = if known {
            self.shared.options.patience * 2
        } else {
            UNKNOWN
        };
        let fetch = Fetch {
            id,
            peer,
            done,
            deadline: Instant::now() + patience,
            asked: known,
            lent: None,
            extent: None,
            open: 0,
            failed: None,
        };
        self.fetches.insert(token, fetch);
        if known {
            self.post(peer, Posting::Send(Note::Lend { token, id }.encode()));
        }
    }

    /// Asks for what waited for its node to become known.
    fn ask_again(&mut self) {
        let deadline = Instant::now() + self.shared.options.patience * 2;
        let mut ready = Vec::new();
        for (&token, fetch) in &mut self.fetches {
            if !fetch.asked && self.addresses.contains_key(&fetch.peer) {
                fetch.asked = true;
                fetch.deadline = deadline;
                ready.push((fetch.peer, Note::Lend { token, id: fetch.id }));
            }
        }
        for (peer, note) in ready {
            self.post(peer, Posting::Send(note.encode()));
        }
    }

    /// Hands something to the fabric, behind what waits for the same peer.
    fn post(&mut self, peer: PeerId, posting: Posting) {
        self.waiting.entry(peer).or_default().push_back(posting);
        self.push(peer);
    }

    fn push(&mut self, peer: PeerId) {
        while let Some(posting) = self.waiting.get_mut(&peer).and_then(VecDeque::pop_front) {
            let posted = match &posting {
                Posting::Send(bytes) => self.fabric.send(peer, bytes.clone()),
                Posting::Read(op, from, into) => self.fabric.read(*op, peer, from.clone(), into.clone()),
            };
            match posted {
                Posted::Accepted => {}
                Posted::Busy => {
                    self.waiting.entry(peer).or_default().push_front(posting);
                    return; // `Ready` follows.
                }
                Posted::Refused(reason) => {
                    self.on_lost(peer, &reason.to_string());
                    self.add_peer(peer); // The next fetch gets a new chance.
                    return;
                }
            }
        }
    }

    fn on_completion(&mut self, completion: Completion) {
        match completion {
            Completion::Message { peer, message } => match Note::decode(&message) {
                Some(note) => self.on_note(peer, note),
                None => tracing::warn!(%peer, "a message of another node could not be understood"),
            },
            Completion::Done { op } => self.on_read(op, None),
            Completion::Failed { op, reason } => self.on_read(op, Some(reason.to_string())),
            Completion::Ready { peer } => self.push(peer),
            Completion::PeerLost { peer, reason } => {
                self.on_lost(peer, &reason.to_string());
                self.add_peer(peer);
            }
        }
    }

    fn on_note(&mut self, peer: PeerId, note: Note) {
        match note {
            Note::Lend { token, id } => self.lend(peer, token, id),
            Note::Lent {
                token,
                len,
                offset,
                region,
            } => self.on_lent(peer, token, len, offset, region),
            Note::Inline { token, bytes } => self.on_inline(peer, token, &bytes),
            Note::Gone { token, reason } => {
                if self.is_from(peer, token) {
                    self.fail(token, &reason);
                }
            }
            Note::Return { id } => {
                if self.lending.returned(peer, id) {
                    self.shared.unpin(id);
                }
            }
        }
    }

    fn is_from(&self, peer: PeerId, token: u64) -> bool {
        self.fetches
            .get(&token)
            .is_some_and(|fetch| fetch.peer == peer && fetch.lent.is_none())
    }

    /// A peer wants an object: at once if it is in memory, else a mover looks for it.
    fn lend(&mut self, peer: PeerId, token: u64, id: ObjectId) {
        if let Some(object) = self.shared.pin(id) {
            let note = self.lending.note(&self.shared, token, &object);
            return self.answer(peer, &note, Some(id));
        }
        let (orders, fabric, lending) = (self.orders.clone(), self.fabric.clone(), self.lending.key());
        let job: Job = Box::new(move |shared| {
            let brought = shared.bring(id, Instant::now() + shared.options.patience);
            let (note, pinned) = match brought {
                Ok(object) => (Lending::new(lending).note(shared, token, &object), Some(id)),
                Err(error) => (
                    Note::Gone {
                        token,
                        reason: error.to_string(),
                    },
                    None,
                ),
            };
            lock(&orders.0).push(Order::Answer(peer, note, pinned));
            fabric.wake();
        });
        let _ = self.jobs.send(job); // The movers are gone only at the end.
    }

    fn answer(&mut self, peer: PeerId, note: &Note, pinned: Option<ObjectId>) {
        if let Some(id) = pinned {
            if matches!(note, Note::Lent { .. }) {
                self.lending.lent(peer, id);
            } else {
                self.shared.unpin(id); // Its bytes are in the note.
            }
        }
        self.post(peer, Posting::Send(note.encode()));
    }

    fn on_inline(&mut self, peer: PeerId, token: u64, bytes: &[u8]) {
        if !self.is_from(peer, token) {
            return;
        }
        let len = bytes.len() as u64;
        let room = self.shared.lock().core.grant(SELF, len);
        let extent = match room {
            Ok(extent) => extent,
            Err(_) => {
                // Asked for again once there is room: it is small, and keeping it here would be room of another kind.
                return self.want_room(token, len);
            }
        };
        self.shared.fill(extent, bytes);
        self.complete(token, extent, len);
    }

    fn on_lent(&mut self, peer: PeerId, token: u64, len: u64, offset: u64, region: RemoteKey) {
        if !self.is_from(peer, token) {
            return;
        }
        if let Some(fetch) = self.fetches.get_mut(&token) {
            fetch.lent = Some((len, RemoteSlice { region, offset, len }));
        }
        let room = self.shared.lock().core.grant(SELF, len);
        match room {
            Ok(extent) => self.on_room(token, Ok(extent)),
            Err(_) => self.want_room(token, len),
        }
    }

    fn want_room(&mut self, token: u64, len: u64) {
        let (orders, fabric) = (self.orders.clone(), self.fabric.clone());
        let job: Job = Box::new(move |shared| {
            let room = shared.make_room(SELF, len, Instant::now() + shared.options.patience);
            lock(&orders.0).push(Order::Room(token, room));
            fabric.wake();
        });
        let _ = self.jobs.send(job); // The movers are gone only at the end.
    }

    fn on_room(&mut self, token: u64, room: Result<Extent, StoreError>) {
        let extent = match room {
            Ok(extent) => extent,
            Err(error) => return self.fail(token, &error.to_string()),
        };
        let Some(fetch) = self.fetches.get_mut(&token) else {
            return self.shared.lock().core.give_back(SELF, extent);
        };
        let Some((len, from)) = fetch.lent.clone() else {
            // A small object, whose bytes came when there was no room: they come again.
            self.shared.lock().core.give_back(SELF, extent);
            let note = Note::Lend { token, id: fetch.id };
            let peer = fetch.peer;
            return self.post(peer, Posting::Send(note.encode()));
        };
        fetch.extent = Some(extent);
        self.read_all(token, len, &from, extent);
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

    fn on_read(&mut self, op: OpId, failed: Option<String>) {
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
        let (peer, id) = (fetch.peer, fetch.id);
        match (fetch.failed.take(), fetch.extent, &fetch.lent) {
            (None, Some(extent), Some((len, _))) => {
                let len = *len;
                self.complete(token, extent, len);
            }
            (reason, ..) => self.fail(token, &reason.unwrap_or_default()),
        }
        self.post(peer, Posting::Send(Note::Return { id }.encode()));
    }

    /// The bytes are here: they become an object of this node.
    fn complete(&mut self, token: u64, extent: Extent, len: u64) {
        let Some(fetch) = self.fetches.remove(&token) else {
            return;
        };
        (fetch.done)(self.shared.adopt(fetch.id, extent, len));
    }

    fn fail(&mut self, token: u64, reason: &str) {
        let Some(fetch) = self.fetches.remove(&token) else {
            return;
        };
        if let Some(extent) = fetch.extent {
            self.shared.lock().core.give_back(SELF, extent);
        }
        (fetch.done)(Err(reason.to_owned()));
    }

    /// A peer is gone: what it was to bring fails, what it was lent is free. Reads that were accepted fail by themselves.
    fn on_lost(&mut self, peer: PeerId, reason: &str) {
        for posting in self.waiting.remove(&peer).unwrap_or_default() {
            if let Posting::Read(op, ..) = posting {
                self.on_read(op, Some(reason.to_owned()));
            }
        }
        let theirs = |(token, fetch): (&u64, &Fetch)| (fetch.peer == peer && fetch.open == 0).then_some(*token);
        for token in self.fetches.iter().filter_map(theirs).collect::<Vec<_>>() {
            self.fail(token, reason);
        }
        for id in self.lending.lost(peer) {
            self.shared.unpin(id);
        }
    }

    /// A peer that says nothing for longer than it may wait for room itself is not waited for.
    fn give_up_late(&mut self) {
        let now = Instant::now();
        let late = |(token, fetch): (&u64, &Fetch)| (fetch.open == 0 && fetch.deadline < now).then_some(*token);
        for token in self.fetches.iter().filter_map(late).collect::<Vec<_>>() {
            let asked = self.fetches.get(&token).is_some_and(|fetch| fetch.asked);
            self.fail(
                token,
                if asked {
                    "its node did not answer in time"
                } else {
                    "its node is not in the run"
                },
            );
        }
    }
}
