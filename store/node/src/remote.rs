//! Objects of other nodes: asked for by name, read by one-sided reads straight into this node's arena; and the same for
//! others the other way round (`docs/formats/store-memory.md`, "Between nodes"). One thread owns the conversation; what may
//! wait (room, disk) is done by the movers, so that a full store never keeps peers waiting. What comes here is `fetches`'s.
//! Hot path: `on_completion`.

use crate::lending::{Lending, Note};
use crate::map::Mapping;
use crate::node::Arrival;
use crate::node::{Job, Shared, StoreError, lock, system};
use bridgehead_fabric::{
    Access, Completion, Fabric, LocalSlice, Memory, OpId, PeerId, Posted, Reason, RegionKey, RemoteSlice,
};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::Extent;
use bridgehead_wire::ObjectRef;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

mod check;
mod fetches;

use fetches::Fetch;

/// The conversation looks at its limits this often.
const LOOK: Duration = Duration::from_millis(200);

type Done = Box<dyn FnOnce(Arrival) + Send>;

/// What other threads want of the conversation.
enum Order {
    Fetch(ObjectRef, Done),
    /// These bytes of an object, from an offset, so many.
    Range(ObjectRef, u64, u64, Done),
    /// An object of which this node has no good bytes, under this name, from whichever other node has it.
    Elsewhere(ObjectRef, ObjectId, Done),
    /// A mover has taken the sum of what has come.
    Checked(u64, u64),
    Peers(Vec<(u32, Bytes)>),
    /// A mover found room for a fetch, or none.
    Room(u64, Result<Extent, StoreError>),
    /// A mover has an answer for a peer; an object that it names is pinned.
    Answer(PeerId, Note, Option<ObjectId>),
    Stop,
}

/// Asks all other nodes for an object, one after the other.
#[derive(Clone)]
pub(crate) struct Elsewhere {
    orders: Arc<Orders>,
    fabric: Arc<dyn Fabric>,
}

impl Elsewhere {
    pub(crate) fn fetch(&self, object: ObjectRef, id: ObjectId, done: Done) {
        lock(&self.orders.0).push(Order::Elsewhere(object, id, done));
        self.fabric.wake();
    }
}

impl std::fmt::Debug for Elsewhere {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Elsewhere({})", self.fabric.name())
    }
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
            left: HashSet::new(),
            waiting: HashMap::new(),
            given_up: HashMap::new(),
            queue: VecDeque::new(),
            incoming: 0,
            seeking: None,
            turning: false,
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

    pub(crate) fn elsewhere(&self) -> Elsewhere {
        Elsewhere {
            orders: self.orders.clone(),
            fabric: self.fabric.clone(),
        }
    }

    fn order(&self, order: Order) {
        lock(&self.orders.0).push(order);
        self.fabric.wake();
    }

    /// Brings an object here from the node that its reference names.
    pub(crate) fn fetch(&self, object: ObjectRef, done: Done) {
        self.order(Order::Fetch(object, done));
    }

    /// Brings bytes of an object here from the node that its reference names, as an object of its own.
    pub(crate) fn fetch_range(&self, object: ObjectRef, offset: u64, len: u64, done: Done) {
        self.order(Order::Range(object, offset, len, done));
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
    /// Nodes that were in the run and have left it.
    left: HashSet<PeerId>,
    waiting: HashMap<PeerId, VecDeque<Posting>>,
    /// Fetches that ended before their peer answered: what it lends after all goes back at once.
    given_up: HashMap<u64, (PeerId, ObjectId)>,
    /// Fetches of large objects that wait for their turn.
    queue: VecDeque<u64>,
    /// Bytes of large objects that are coming or have room kept for them.
    incoming: u64,
    /// The fetch for which a mover makes room: one at a time, so that another mover is left for what peers want.
    seeking: Option<u64>,
    /// Turns are being given: what ends meanwhile need not begin to.
    turning: bool,
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
                    Order::Range(object, offset, len, done) => self.begin_range(&object, (offset, len), done),
                    Order::Elsewhere(object, id, done) => self.begin_elsewhere(&object, id, done),
                    Order::Checked(token, sum) => self.on_checked(token, sum),
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
        self.left.retain(|peer| !here.contains_key(peer));
        self.left.extend(&gone);
        self.addresses = here;
        for peer in gone {
            self.fabric.remove_peer(peer);
            self.on_lost(peer, "its agent has left the run");
        }
        for peer in self.addresses.keys().copied().collect::<Vec<_>>() {
            self.add_peer(peer);
            self.push(peer);
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
                // A peer may know this node, and ask, before this node was told of it: the answer waits for that.
                Posted::Refused(Reason::UnknownPeer) if !self.addresses.contains_key(&peer) => {
                    self.waiting.entry(peer).or_default().push_front(posting);
                    return;
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
                    self.pass_over(token, &reason);
                }
            }
            Note::Return { id } => {
                if self.lending.returned(peer, id) {
                    self.shared.unpin(id);
                }
            }
        }
    }

    /// A peer wants an object: at once if it is in memory, else a mover looks for it.
    fn lend(&mut self, peer: PeerId, token: u64, id: ObjectId) {
        if let Some(object) = self.shared.pin(id) {
            let note = self.lending.note(&self.shared, token, &object);
            return self.answer(peer, &note, Some(id));
        }
        let (orders, fabric, lending) = (self.orders.clone(), self.fabric.clone(), self.lending.key());
        let job: Job = Box::new(move |shared| {
            let brought = shared.bring_own(id, Instant::now() + shared.options.patience);
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
        match note {
            Note::Lent { len, .. } => self.shared.lanes.lent.add(*len),
            Note::Inline { bytes, .. } => self.shared.lanes.lent.add(bytes.len() as u64),
            _ => {}
        }
        // One that has left gets no answer any more: a pin for it would never be given back.
        if self.left.contains(&peer) {
            return pinned.into_iter().for_each(|id| self.shared.unpin(id));
        }
        if let Some(id) = pinned {
            if matches!(note, Note::Lent { .. }) {
                self.lending.lent(peer, id);
            } else {
                self.shared.unpin(id); // Its bytes are in the note.
            }
        }
        self.post(peer, Posting::Send(note.encode()));
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
            self.lose(token, reason);
        }
        self.given_up.retain(|_, (from, _)| *from != peer);
        for id in self.lending.lost(peer) {
            self.shared.unpin(id);
        }
    }
}
