//! The state of the fabric: peers, regions, and what UCX was asked for. Everything here runs under one lock, and nothing blocks.
//!
//! `post.rs` begins operations, `moving.rs` moves them by messages, `messages.rs` answers peers, `ends.rs` loses them. Hot path: `Core::turn`.

mod ends;
mod messages;
mod moving;
mod post;

use crate::codec::{Header, Kind, Who};
use crate::moves::Moves;
use crate::options::Options;
use crate::peer::{Outgoing, Peer, Silence, Standing};
use crate::regions::Region;
use crate::staging::{Pool, Staging};
use crate::worker::{Endpoint, Event, Outgoing as Sent, Rkey, Started, Worker};
use bridgehead_fabric::{Completion, OpId, PeerId, Reason};
use bridgehead_ucx_sys as sys;
use bytes::Bytes;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longest message of a caller.
pub(crate) const MAX_MESSAGE: usize = 256 << 10;
/// Rounds of progress before others get the lock.
const ROUNDS: usize = 64;

/// What there is to tell the caller. A message knows the session that it came in, so that its bytes are credited to that one.
pub(crate) struct News {
    pub completion: Completion,
    pub session: u64,
}

/// An operation that UCX has.
struct Live {
    op: OpId,
    peer: u32,
    session: u64,
    region: Arc<Region>,
    local: u64,
    len: usize,
    remote: u64,
    /// UCX has the local memory, or the staging in place of it.
    moving: bool,
    staged: bool,
    /// A write is not known to be in the peer's memory.
    flushing: bool,
    status: sys::Status,
}

/// What a token stands for.
enum Token {
    /// The get or put of an operation.
    Moved { live: u64, staging: Option<Staging> },
    /// The flush of an operation.
    Flushed(u64),
    /// A message, whose bytes UCX borrows.
    Sent {
        peer: u32,
        session: u64,
        /// Bytes of a region that a peer asked for.
        served: u64,
        _message: Sent,
    },
    /// A `Bye`, whose bytes UCX borrows.
    Bye { _message: Sent },
    /// The flush of last words.
    Last,
    /// An endpoint that is being closed.
    Closed { _endpoint: Endpoint },
}

pub(crate) struct Core {
    pub me: Who,
    pub address: Bytes,
    pub options: Options,
    pub worker: Worker,
    pub peers: HashMap<u32, Peer>,
    pub regions: HashMap<u64, Arc<Region>>,
    /// Regions that a lost peer's late writes might still reach: their memory stays as long as the worker does.
    quarantine: Vec<Arc<Region>>,
    /// Regions that a peer held which was lost before it gave them back.
    tainted: HashSet<u64>,
    live: HashMap<u64, Live>,
    tokens: HashMap<u64, Token>,
    pool: Pool,
    /// Memory keys that UCX may still look at, until the worker ends.
    leftover: Vec<Rkey>,
    next: u64,
    /// Peers that have to be given up as soon as nothing borrows them.
    doomed: Vec<(u32, Reason)>,
    pub news: Vec<News>,
    events: Vec<Event>,
    ticked: Instant,
}

impl Core {
    pub fn new(options: Options, me: Who, mut worker: Worker) -> Result<Self, String> {
        let address = crate::codec::Address {
            who: me,
            moving: options.moving,
            worker: worker.address()?,
        }
        .encode();
        Ok(Self {
            me,
            address,
            options,
            worker,
            peers: HashMap::new(),
            regions: HashMap::new(),
            quarantine: Vec::new(),
            tainted: HashSet::new(),
            live: HashMap::new(),
            tokens: HashMap::new(),
            pool: Pool::default(),
            leftover: Vec::new(),
            next: 0,
            doomed: Vec::new(),
            news: Vec::new(),
            events: Vec::new(),
            ticked: Instant::now(),
        })
    }

    /// A number that was never used before, for tokens, endpoints, operations and regions alike.
    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Makes a peer known under its number, in place of whoever had it, with whom nothing is pending any more.
    pub fn know(&mut self, address: crate::codec::Address, standing: Standing) {
        let number = address.who.number;
        let before = self.peers.get_mut(&number);
        if let Some(same) = before.filter(|peer| peer.who == address.who) {
            same.standing = standing;
            return;
        }
        let peer = Peer::new(&self.options, self.me, address, standing);
        let before = self.peers.insert(number, peer);
        if let Some(spare) = before.and_then(|peer| peer.spare) {
            self.close(spare);
        }
    }

    /// Makes a region reachable under a number that no other has.
    pub fn add_region(&mut self, region: Region) -> u64 {
        let number = self.fresh();
        self.regions.insert(number, Arc::new(region));
        number
    }

    /// Does what there is to do; whether there was anything.
    pub fn turn(&mut self) -> bool {
        let mut any = false;
        for _ in 0..ROUNDS {
            let mut events = std::mem::take(&mut self.events);
            let moved = self.worker.progress(&mut events);
            for event in events.drain(..) {
                self.on_event(event);
            }
            self.events = events;
            self.bury();
            if !moved {
                break;
            }
            any = true;
        }
        self.tick();
        any
    }

    /// How often `turn` has to be called where nothing happens.
    pub fn period(&self) -> Duration {
        (self.options.timeout / 8).min(Duration::from_millis(250))
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Arrived { header, payload } => self.on_arrived(&header, payload),
            Event::Completed { token, status } => self.on_completed(token, status),
            Event::Failed { endpoint, status } => self.on_failed(endpoint, status),
        }
    }

    fn on_completed(&mut self, token: u64, status: sys::Status) {
        match self.tokens.remove(&token) {
            Some(Token::Moved { live, staging }) => self.on_moved(live, staging, status),
            Some(Token::Flushed(live)) => self.on_flushed(live, status),
            Some(Token::Sent {
                peer, session, served, ..
            }) => self.on_sent(peer, session, served, status),
            Some(Token::Bye { .. } | Token::Last | Token::Closed { .. }) | None => {}
        }
    }

    fn on_sent(&mut self, peer: u32, session: u64, served: u64, status: sys::Status) {
        let out = self.peers.get_mut(&peer).and_then(|peer| peer.out.as_mut());
        let Some(out) = out.filter(|out| out.session == session) else {
            return;
        };
        out.sending -= 1;
        out.serving -= served;
        if status != sys::OK {
            self.doom(peer, status);
        } else if served > 0 {
            self.serve(peer);
        }
    }

    /// An endpoint has failed: its peer is gone, or does not want to be told anything.
    fn on_failed(&mut self, number: u64, status: sys::Status) {
        let is = |endpoint: &Endpoint| endpoint.number() == number;
        let of = |peer: &Peer| peer.out.as_ref().is_some_and(|out| is(&out.endpoint));
        if let Some(peer) = self.peers.iter().find(|(_, peer)| of(peer)).map(|(number, _)| *number) {
            return self.doom(peer, status);
        }
        let spare = self
            .peers
            .values_mut()
            .find_map(|peer| peer.spare.take_if(|spare| is(spare)));
        if let Some(spare) = spare {
            self.close(spare);
        }
    }

    fn doom(&mut self, peer: u32, status: sys::Status) {
        let reason = Reason::PeerLost(self.worker.context.ucp.text(status).into());
        self.doomed.push((peer, reason));
    }

    fn push(&mut self, completion: Completion) {
        self.news.push(News { completion, session: 0 });
    }

    pub fn fail(&mut self, op: OpId, reason: Reason) {
        self.push(Completion::Failed { op, reason });
    }

    /// Opens this side's half session, if it is not open.
    fn begin_session(&mut self, number: u32) -> Result<(), Reason> {
        // The session's number is part of what no two messages of a pair share, so that it is never used again.
        let (endpoint_number, session) = (self.fresh(), self.fresh());
        let Some(peer) = self.peers.get_mut(&number) else {
            return Err(Reason::UnknownPeer);
        };
        if peer.out.is_some() {
            return Ok(());
        }
        let endpoint = match peer.spare.take() {
            Some(spare) => Ok(spare),
            None => self.worker.connect(&peer.address, endpoint_number),
        };
        let endpoint = endpoint.map_err(|text| Reason::PeerLost(text.into()))?;
        peer.out = Some(Outgoing {
            session,
            endpoint,
            place: 0,
            grants: HashMap::new(),
            sent: 0,
            credited: 0,
            sending: 0,
            staged: false,
            moves: Moves::default(),
            serving: 0,
        });
        let own = self.address.clone();
        self.tell(number, Kind::Hello, 0, 0, own);
        Ok(())
    }

    /// Says something to a peer in this side's session.
    fn tell(&mut self, number: u32, kind: Kind, a: u64, b: u64, payload: Bytes) {
        if let Err(reason) = self.begin_session(number) {
            self.doomed.push((number, reason));
            return;
        }
        let token = self.fresh();
        let Some(peer) = self.peers.get_mut(&number) else {
            return;
        };
        let Some(out) = &mut peer.out else { return };
        let header = Header {
            kind,
            from: self.me,
            session: out.session,
            place: out.place,
            a,
            b,
        };
        out.place += 1;
        let served = if kind == Kind::Data { payload.len() as u64 } else { 0 };
        let message = Sent {
            header: header.seal(&peer.to, &payload),
            payload,
        };
        let (session, started) = (out.session, self.worker.send(&out.endpoint, &message, token));
        match started {
            Started::Done => {}
            Started::Pending => {
                out.sending += 1;
                out.serving += served;
                self.tokens.insert(
                    token,
                    Token::Sent {
                        peer: number,
                        session,
                        served,
                        _message: message,
                    },
                );
            }
            Started::Failed(status) => self.doom(number, status),
        }
    }

    /// Says anything at all; an answer, in the peer's present session.
    pub fn say(&mut self, number: u32, kind: u8, a: u64, payload: Bytes) -> bool {
        let session = self.peers.get(&number).map_or(0, |peer| peer.incoming.session);
        let kind = Kind::of(kind);
        if let Some(kind) = kind {
            self.tell(number, kind, a, session, payload);
        }
        kind.is_some()
    }

    /// Asks the silent and gives up those that stay so.
    fn tick(&mut self) {
        let now = Instant::now();
        if now.saturating_duration_since(self.ticked) < self.period() / 2 {
            return;
        }
        self.ticked = now;
        let timeout = self.options.timeout;
        let gone: Vec<u64> = self.gone_but_granted();
        let silent: Vec<(u32, Silence)> = self
            .peers
            .iter_mut()
            .map(|(number, peer)| {
                let awaited = gone.iter().any(|region| peer.incoming.granted.contains(region));
                (*number, peer.silence(now, timeout, awaited))
            })
            .collect();
        for (number, silence) in silent {
            match silence {
                Silence::Fine => {}
                Silence::Ask => self.tell(number, Kind::Ping, 0, 0, Bytes::new()),
                Silence::TooLong => {
                    let reason = Reason::TimedOut(timeout);
                    self.lose(number, &reason, Standing::Lost(reason.clone()), true, true);
                }
            }
        }
        self.bury();
    }

    /// Regions that were deregistered, but that peers still hold.
    fn gone_but_granted(&self) -> Vec<u64> {
        let granted = self.peers.values().flat_map(|peer| &peer.incoming.granted);
        granted
            .filter(|region| !self.regions.contains_key(region))
            .copied()
            .collect()
    }

    /// The lanes that UCX has chosen for a peer, in its own words; nothing without a session.
    pub fn lanes(&mut self, number: PeerId) -> Option<String> {
        let out = self.peers.get(&number.0)?.out.as_ref()?;
        Some(self.worker.describe(&out.endpoint))
    }
}
