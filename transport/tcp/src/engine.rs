//! The heart: who is connected, what each event of the poller means, who is lost. Owns the tables and the queue of news; who
//! calls it, and when, is `lead`'s.

mod strangers;

use crate::connection::{Connection, Incoming, Phase, lock};
use crate::frame::HEADER_LEN;
use crate::handshake::{self, CHALLENGE_LEN, HELLO_LEN, Hello, Refusal, integrity_byte};
use crate::lead::Lead;
use crate::options::Options;
use crate::peer::{Lane, Peer, Standing, State};
use crate::receive::{Broken, Rx};
use crate::region::{Region, Regions};
use crate::send::{Flushed, Tx};
use crate::socket;
use crate::stranger::{Stranger, receive_into, send_all};
use bridgehead_fabric::{Completion, PeerId, Reason};
use bytes::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use rustix::event::epoll::{self, EventData, EventFlags};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Bytes that one connection may move before others have their turn.
const BUDGET: usize = 1 << 20;
/// Bytes that a caller's own thread sends before it leaves the rest to the one that does the network's work.
pub(crate) const CALLER_BUDGET: usize = 256 << 10;
/// How often time limits are looked at, while something could exceed one.
pub(crate) const TICK: Duration = Duration::from_millis(50);

pub(crate) const WAKE: u64 = 0;
const LISTENER: u64 = 1;
const FIRST_FREE: u64 = 2;

enum Entry {
    Connection(Arc<Connection>),
    Stranger(Arc<Mutex<Stranger>>),
}

/// Something for `poll`.
enum News {
    Completion(Completion),
    Message(Arc<Peer>, Bytes),
}

pub(crate) struct Engine {
    pub options: Options,
    pub incarnation: u64,
    pub regions: Regions,
    pub lead: Lead,
    pub poller: OwnedFd,
    listener: TcpListener,
    /// Given up for a moment when the process has no descriptor left, so that a stranger can be taken and dropped.
    reserve: Mutex<Option<OwnedFd>>,
    table: Mutex<HashMap<u64, Entry>>,
    next_token: AtomicU64,
    peers: RwLock<HashMap<u32, Arc<Peer>>>,
    news: Mutex<VecDeque<News>>,
    /// The fabric's own thread leads.
    pub helper_leads: AtomicBool,
    /// Whether anything could exceed a time limit.
    pub watch: AtomicBool,
    start: Instant,
    scanned: AtomicU64,
    random: SystemRandom,
}

impl Engine {
    pub fn new(options: Options, listener: TcpListener) -> io::Result<Self> {
        let poller = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let lead = Lead::new()?;
        epoll::add(&poller, &lead.bell, EventData::new_u64(WAKE), EventFlags::IN)?;
        epoll::add(&poller, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        let random = SystemRandom::new();
        let mut incarnation = [0; 8];
        random
            .fill(&mut incarnation)
            .map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self {
            options,
            incarnation: u64::from_le_bytes(incarnation),
            regions: Regions::default(),
            lead,
            poller,
            listener,
            reserve: Mutex::new(strangers::open_null().ok()),
            table: Mutex::default(),
            next_token: AtomicU64::new(FIRST_FREE),
            peers: RwLock::default(),
            news: Mutex::default(),
            helper_leads: AtomicBool::new(false),
            watch: AtomicBool::new(false),
            start: Instant::now(),
            scanned: AtomicU64::new(0),
            random,
        })
    }

    /// Random bytes for a handshake.
    pub fn random(&self) -> Option<handshake::Nonce> {
        let mut nonce = [0; 32];
        self.random.fill(&mut nonce).ok().map(|()| nonce)
    }

    /// Milliseconds since the start.
    pub fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    // --- news ---------------------------------------------------------------------------------------------------------------

    pub fn push(&self, completion: Completion) {
        lock(&self.news).push_back(News::Completion(completion));
        self.lead.ring();
    }

    pub fn push_message(&self, peer: &Arc<Peer>, message: Bytes) {
        lock(&self.news).push_back(News::Message(peer.clone(), message));
        self.lead.ring();
    }

    pub fn has_news(&self) -> bool {
        !lock(&self.news).is_empty()
    }

    /// Moves all news to `out`; peers that were held up because nobody polled go on.
    pub fn take_news(&self, out: &mut Vec<Completion>) -> usize {
        let news = std::mem::take(&mut *lock(&self.news));
        let count = news.len();
        for item in news {
            match item {
                News::Completion(completion) => out.push(completion),
                News::Message(peer, message) => {
                    let before = peer.undelivered();
                    let after = peer.sub_undelivered(message.len() + HEADER_LEN);
                    if before > self.options.max_queued / 2 && after <= self.options.max_queued / 2 {
                        self.resume(&peer);
                    }
                    out.push(Completion::Message { peer: peer.id, message });
                }
            }
        }
        count
    }

    // --- peers --------------------------------------------------------------------------------------------------------------

    pub fn known_peer(&self, number: u32) -> Option<Arc<Peer>> {
        self.peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    pub fn peer(&self, number: u32) -> Arc<Peer> {
        let mut peers = self.peers.write().unwrap_or_else(PoisonError::into_inner);
        peers
            .entry(number)
            .or_insert_with(|| Arc::new(Peer::new(PeerId(number))))
            .clone()
    }

    /// Takes down all that exists with a peer. All of its operations have failed when this returns.
    pub fn lose(&self, peer: &Arc<Peer>, reason: &Reason, standing: Standing, report: bool) {
        let closing = lock(&peer.closing);
        let mut state = peer.state();
        if standing == Standing::Removed || state.standing == Standing::Known {
            state.standing = standing;
        }
        let mut connections: Vec<Arc<Connection>> = state.lanes.drain(..).flatten().collect();
        connections.append(&mut state.inbound);
        drop(state);
        for connection in &connections {
            lock(&self.table).remove(&connection.token);
            // It may be gone from the poller already.
            let _ = epoll::delete(&self.poller, &connection.fd);
            for op in connection.close(reason) {
                self.push(Completion::Failed {
                    op,
                    reason: reason.clone(),
                });
            }
        }
        if peer.take_starved() {
            self.push(Completion::Ready { peer: peer.id });
        }
        if report && !connections.is_empty() {
            tracing::info!(peer = peer.id.0, %reason, "peer lost");
            self.push(Completion::PeerLost {
                peer: peer.id,
                reason: reason.clone(),
            });
        }
        drop(closing);
    }

    /// Closes every connection and lets go of all memory.
    pub fn close_all(&self) {
        let reason = Reason::PeerLost("this side has ended".into());
        let peers: Vec<_> = self
            .peers
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        peers
            .iter()
            .for_each(|peer| self.lose(peer, &reason, Standing::Removed, false));
        lock(&self.table).clear();
    }

    /// A connection cannot go on: its peer is lost.
    fn broken(&self, connection: &Arc<Connection>, reason: &Reason) {
        let attached = matches!(lock(&self.table).get(&connection.token), Some(Entry::Connection(_)));
        if attached {
            self.lose(&connection.peer, reason, Standing::Lost(reason.clone()), true);
        }
    }

    /// The connection for what is to be sent; begins it if there is none.
    pub fn lane(&self, peer: &Arc<Peer>, large: Option<bool>) -> Result<Arc<Connection>, Reason> {
        let mut state = peer.state();
        match &state.standing {
            Standing::Known => {}
            Standing::Lost(reason) => return Err(reason.clone()),
            Standing::Stranger | Standing::Removed => return Err(Reason::UnknownPeer),
        }
        let lane = match large {
            None => Lane::Messages,
            Some(false) => Lane::Small,
            Some(true) => Lane::Bulk(self.next_bulk(&mut state)),
        };
        if state.lanes.len() <= lane.index() {
            state.lanes.resize(lane.index() + 1, None);
        }
        if let Some(connection) = &state.lanes[lane.index()] {
            return Ok(connection.clone());
        }
        match self.connect(peer, &state, lane) {
            Ok(connection) => {
                state.lanes[lane.index()] = Some(connection.clone());
                Ok(connection)
            }
            Err(error) => {
                drop(state);
                let reason = Reason::PeerLost(error.to_string().into());
                self.lose(peer, &reason, Standing::Lost(reason.clone()), false);
                self.push(Completion::PeerLost {
                    peer: peer.id,
                    reason: reason.clone(),
                });
                Err(reason)
            }
        }
    }

    fn next_bulk(&self, state: &mut State) -> usize {
        state.turn = (state.turn + 1) % self.options.bulk_lanes.max(1);
        state.turn
    }

    fn connect(&self, peer: &Arc<Peer>, state: &State, lane: Lane) -> io::Result<Arc<Connection>> {
        let address = state.address.ok_or_else(|| io::Error::other("it has no address"))?;
        let hello = Hello {
            integrity: integrity_byte(self.options.integrity),
            lane: lane.byte(),
            from: self.options.number,
            to: peer.id.0,
            from_incarnation: self.incarnation,
            to_incarnation: address.incarnation,
            nonce: self
                .random()
                .ok_or_else(|| io::Error::other("the system gives no random bytes"))?,
        };
        let fd = socket::connect(address.socket)?;
        socket::tune(&fd, self.options.timeout)?;
        let phase = Phase::Connecting { hello: hello.encode() };
        self.enter(fd, peer, true, lane.byte(), phase, EventFlags::OUT)
    }

    fn enter(
        &self,
        fd: OwnedFd,
        peer: &Arc<Peer>,
        outgoing: bool,
        lane: u8,
        phase: Phase,
        interest: EventFlags,
    ) -> io::Result<Arc<Connection>> {
        let token = self.next_token.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection::new(
            token,
            fd,
            peer.clone(),
            outgoing,
            lane,
            phase,
            self.now(),
        ));
        lock(&self.table).insert(token, Entry::Connection(connection.clone()));
        if let Err(error) = epoll::add(&self.poller, &connection.fd, EventData::new_u64(token), interest) {
            lock(&self.table).remove(&token);
            return Err(error.into());
        }
        self.watch_time();
        Ok(connection)
    }

    /// Lets go of `region` everywhere.
    pub fn forget(&self, region: &Arc<Region>) {
        for connection in self.connections() {
            for op in connection.forget(region) {
                self.push(Completion::Failed {
                    op,
                    reason: Reason::Deregistered,
                });
            }
        }
    }

    fn connections(&self) -> Vec<Arc<Connection>> {
        let table = lock(&self.table);
        table
            .values()
            .filter_map(|entry| {
                if let Entry::Connection(c) = entry {
                    Some(c.clone())
                } else {
                    None
                }
            })
            .collect()
    }

    // --- sending and receiving ------------------------------------------------------------------------------------------------

    /// Sends what the connection has queued, as far as the socket takes it.
    pub fn flush(&self, connection: &Arc<Connection>, budget: usize) {
        let mut tx = lock(&connection.tx);
        if tx.closed {
            return;
        }
        let flushed = tx.flush(connection.fd.as_fd(), budget);
        let error = match flushed {
            Ok((flushed, count)) => {
                if count > 0 {
                    connection.moved.store(self.now(), Ordering::Relaxed);
                }
                self.arm(connection, &mut tx, flushed == Flushed::More).err()
            }
            Err(error) => Some(error),
        };
        let relieved = tx.message_bytes() <= self.options.max_queued / 2;
        drop(tx);
        if let Some(error) = error {
            self.broken(connection, &Reason::PeerLost(error.to_string().into()));
        } else if relieved && connection.lane == Lane::Messages.byte() && connection.outgoing {
            self.relieve(&connection.peer);
        }
    }

    fn relieve(&self, peer: &Arc<Peer>) {
        if peer.in_flight() < self.options.max_in_flight && peer.take_starved() {
            self.push(Completion::Ready { peer: peer.id });
        }
    }

    fn arm(&self, connection: &Connection, tx: &mut Tx, armed: bool) -> io::Result<()> {
        if armed && !tx.armed {
            self.watch_time();
        }
        if armed != tx.armed {
            tx.armed = armed;
            self.interest(connection, tx)?;
        }
        Ok(())
    }

    fn interest(&self, connection: &Connection, tx: &Tx) -> io::Result<()> {
        let mut flags = EventFlags::empty();
        flags.set(EventFlags::IN, !tx.paused);
        flags.set(EventFlags::OUT, tx.armed);
        Ok(epoll::modify(
            &self.poller,
            &connection.fd,
            EventData::new_u64(connection.token),
            flags,
        )?)
    }

    /// Stops or goes on looking for what comes in, while the caller is behind with polling.
    pub fn pause(&self, connection: &Connection, paused: bool) {
        let mut tx = lock(&connection.tx);
        if tx.paused != paused && !tx.closed {
            tx.paused = paused;
            if let Err(error) = self.interest(connection, &tx) {
                tracing::warn!(%error, "cannot change what the poller looks for");
            }
        }
    }

    fn resume(&self, peer: &Arc<Peer>) {
        let inbound = peer.state().inbound.clone();
        inbound.iter().for_each(|connection| self.pause(connection, false));
    }

    fn readable(&self, connection: &Arc<Connection>) {
        let mut phase = lock(&connection.phase);
        let (outcome, answered) = match &mut *phase {
            Phase::Open(rx) => self.receive(connection, rx),
            Phase::Closed => return,
            Phase::Connecting { .. } => (Ok(()), false),
            Phase::Greeting { hello, answer } => match self.greeted(connection, hello, answer) {
                Ok(Some(open)) => {
                    *phase = open;
                    (Ok(()), true)
                }
                Ok(None) => (Ok(()), false),
                Err(broken) => (Err(broken), false),
            },
        };
        drop(phase);
        if answered {
            self.flush(connection, BUDGET);
        }
        if let Err(Broken(reason)) = outcome {
            self.broken(connection, &Reason::PeerLost(reason.into()));
        }
    }

    fn receive(&self, connection: &Arc<Connection>, rx: &mut Rx) -> (Result<(), Broken>, bool) {
        let mut incoming = Incoming {
            engine: self,
            connection,
            answered: false,
        };
        let received = rx.receive(connection.fd.as_fd(), &mut incoming, BUDGET);
        let answered = incoming.answered;
        if let Ok(1..) = received {
            connection.moved.store(self.now(), Ordering::Relaxed);
        }
        (received.map(|_| ()), answered)
    }

    /// This side's half of the handshake: the answer to its hello.
    fn greeted(
        &self,
        connection: &Connection,
        hello: &[u8; HELLO_LEN],
        answer: &mut Vec<u8>,
    ) -> Result<Option<Phase>, Broken> {
        let mut room = [0; CHALLENGE_LEN];
        let missing = CHALLENGE_LEN - answer.len();
        match receive_into(connection.fd.as_fd(), &mut room[..missing]) {
            Ok(0) => return Err(Broken("it closed the connection during the handshake".to_owned())),
            Ok(came) => answer.extend_from_slice(&room[..came]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(Broken(error.to_string())),
        }
        let Ok(challenge) = <&[u8; CHALLENGE_LEN]>::try_from(answer.as_slice()) else {
            return Ok(None);
        };
        let refused = |refusal: Refusal| Broken(refusal.to_string());
        let (proof, keys) = handshake::answer(&self.options.key, hello, challenge).map_err(refused)?;
        send_all(connection.fd.as_fd(), &proof).map_err(|error| Broken(error.to_string()))?;
        Ok(Some(connection.open(self, &keys)))
    }

    fn writable(&self, connection: &Arc<Connection>) {
        let mut phase = lock(&connection.phase);
        if let Phase::Connecting { hello } = &*phase {
            let hello = *hello;
            let greeted = socket::connected(&connection.fd).and_then(|()| send_all(connection.fd.as_fd(), &hello));
            *phase = Phase::Greeting {
                hello,
                answer: Vec::with_capacity(CHALLENGE_LEN),
            };
            drop(phase);
            let waiting = greeted.and_then(|()| self.interest(connection, &lock(&connection.tx)));
            if let Err(error) = waiting {
                self.broken(connection, &Reason::PeerLost(error.to_string().into()));
            }
            return;
        }
        drop(phase);
        self.flush(connection, BUDGET);
    }

    // --- events and time ----------------------------------------------------------------------------------------------------

    pub fn event(&self, token: u64, flags: EventFlags) {
        if token == WAKE {
            return self.lead.heard();
        }
        if token == LISTENER {
            return self.accept();
        }
        let entry = match lock(&self.table).get(&token) {
            Some(Entry::Connection(connection)) => Entry::Connection(connection.clone()),
            Some(Entry::Stranger(stranger)) => Entry::Stranger(stranger.clone()),
            None => return,
        };
        match entry {
            Entry::Stranger(stranger) => self.stranger(token, &stranger),
            Entry::Connection(connection) => {
                // A connection that could not be made may show nothing but an error.
                let ended = EventFlags::HUP | EventFlags::ERR;
                if flags.intersects(EventFlags::OUT | ended) {
                    self.writable(&connection);
                }
                if flags.intersects(EventFlags::IN | ended) {
                    self.readable(&connection);
                }
            }
        }
    }

    /// Has time limits looked at from now on.
    pub fn watch_time(&self) {
        if !self.watch.swap(true, Ordering::SeqCst) {
            self.lead.ring();
        }
    }

    /// Looks at all time limits, at most once a tick.
    pub fn look_at_time(&self) {
        let now = self.now();
        let tick = u64::try_from(TICK.as_millis()).unwrap_or(50);
        if !self.watch.load(Ordering::Relaxed) || now < self.scanned.load(Ordering::Relaxed) + tick {
            return;
        }
        self.scanned.store(now, Ordering::Relaxed);
        self.watch.store(false, Ordering::SeqCst);
        let mut waiting = self.drop_old_strangers();
        for connection in self.connections() {
            if connection.waits() {
                waiting = true;
                self.check_silence(&connection, now);
            }
        }
        if waiting {
            self.watch.store(true, Ordering::SeqCst);
        }
    }

    fn check_silence(&self, connection: &Arc<Connection>, now: u64) {
        let silent = now.saturating_sub(connection.moved.load(Ordering::Relaxed));
        let opening = !matches!(*lock(&connection.phase), Phase::Open(_) | Phase::Closed);
        let limit = if opening {
            self.options.handshake_timeout.min(self.options.timeout)
        } else {
            self.options.timeout
        };
        if u128::from(silent) > limit.as_millis() {
            self.broken(connection, &Reason::TimedOut(limit));
        }
    }
}
