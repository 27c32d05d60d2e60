//! What this side knows of a peer: who and where it is, its two half sessions, what is pending with it. Owns the counters of
//! back-pressure and of silence.

use crate::codec::{Address, Grant, Kind, Who};
use crate::keys::PairKey;
use crate::moves::Moves;
use crate::options::{Moving, Options};
use crate::regions::Region;
use crate::session::Incoming;
use crate::worker::{Endpoint, Rkey};
use bridgehead_fabric::{OpId, Reason};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How the caller regards a peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It came by itself and was not added yet.
    Stranger,
    Known,
    Lost(Reason),
    Removed,
}

/// An operation whose slices were checked as far as this side can.
pub(crate) struct Request {
    pub op: OpId,
    pub read: bool,
    pub region: Arc<Region>,
    pub local: u64,
    pub remote: u64,
    pub len: u64,
}

/// What this side has of a peer's region.
pub(crate) enum Granting {
    /// It was asked for; these wait.
    Asked(Vec<Request>),
    Given {
        grant: Grant,
        /// Nothing where there is no byte or no right.
        rkey: Option<Rkey>,
        /// Operations that UCX has.
        live: usize,
        /// Its owner wants it back.
        revoked: bool,
    },
}

/// What this side says to the peer.
pub(crate) struct Outgoing {
    pub session: u64,
    pub endpoint: Endpoint,
    pub place: u64,
    pub grants: HashMap<u64, Granting>,
    /// Bytes of messages sent, and of those the peer's caller has taken.
    pub sent: u64,
    pub credited: u64,
    /// Sends that UCX has.
    pub sending: usize,
    /// Reads take a detour through memory of the fabric's own, so that they can be abandoned.
    pub staged: bool,
    /// Reads and writes by messages.
    pub moves: Moves,
    /// Bytes of this side's regions that the peer asked for and UCX has.
    pub serving: u64,
}

/// A peer whose pending operations are being ended.
pub(crate) struct Dying {
    pub reason: Reason,
    pub after: Standing,
    /// Whether the caller hears of it.
    pub tell: bool,
    /// The numbers of both sessions, if the peer has to be told.
    pub bye: Option<(u64, u64)>,
    pub rkeys: Vec<Rkey>,
    /// UCX may still look at them.
    pub rkeys_in_use: bool,
}

pub(crate) struct Peer {
    pub who: Who,
    /// Its worker.
    pub address: Bytes,
    pub standing: Standing,
    /// Reads and writes go by messages, because one of the two has no other way.
    pub by_messages: bool,
    pub to: PairKey,
    pub from: PairKey,
    pub out: Option<Outgoing>,
    /// What last words went over; the next session takes it. It is not closed before that fails: UCX may have joined the peer's own
    /// next endpoint to it.
    pub spare: Option<Endpoint>,
    pub incoming: Incoming,
    pub dying: Option<Dying>,
    /// Operations that are accepted and not complete.
    pub in_flight: usize,
    /// Those of them that UCX has.
    pub live: usize,
    /// The caller was told `Busy`.
    pub starved: bool,
    heard: Instant,
    /// When it last owed nothing.
    idle: Instant,
    pinged: Option<Instant>,
}

/// What silence asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Silence {
    Fine,
    Ask,
    TooLong,
}

impl Peer {
    pub fn new(options: &Options, me: Who, address: Address, standing: Standing) -> Self {
        let (now, run, who) = (Instant::now(), &options.key.0, address.who);
        Self {
            who,
            address: address.worker,
            standing,
            by_messages: [options.moving, address.moving].contains(&Moving::Messages),
            to: PairKey::new(run, me, who),
            from: PairKey::new(run, who, me),
            out: None,
            spare: None,
            incoming: Incoming::default(),
            dying: None,
            in_flight: 0,
            live: 0,
            starved: false,
            heard: now,
            idle: now,
            pinged: None,
        }
    }

    /// Why nothing can be posted to it, if so.
    pub fn refusal(&self) -> Option<Reason> {
        match (&self.dying, &self.standing) {
            (Some(dying), _) => Some(dying.reason.clone()),
            (None, Standing::Lost(reason)) => Some(reason.clone()),
            (None, Standing::Stranger | Standing::Removed) => Some(Reason::UnknownPeer),
            (None, Standing::Known) => None,
        }
    }

    /// It gave a sign of life.
    pub fn hear(&mut self) {
        self.heard = Instant::now();
        self.pinged = None;
    }

    fn owes(&self, awaited: bool) -> bool {
        self.in_flight > 0 || awaited || self.out.as_ref().is_some_and(|out| out.sending > 0)
    }

    /// What its silence asks for; `awaited` says that it owes an answer which is not an operation.
    pub fn silence(&mut self, now: Instant, timeout: Duration, awaited: bool) -> Silence {
        if !self.owes(awaited) || self.dying.is_some() {
            self.idle = now;
            return Silence::Fine;
        }
        let silent = now.saturating_duration_since(self.heard.max(self.idle));
        if silent >= timeout {
            return Silence::TooLong;
        }
        if silent < timeout / 4 || self.pinged.is_some_and(|at| now - at < timeout / 4) {
            return Silence::Fine;
        }
        self.pinged = Some(now);
        Silence::Ask
    }

    /// Counts an operation as over; whether the caller waits to hear of room.
    pub fn free_place(&mut self) -> bool {
        self.in_flight -= 1;
        std::mem::take(&mut self.starved)
    }

    /// Whether another message of that size may be sent now.
    pub fn has_room(&self, len: u64, window: u64) -> bool {
        self.out.as_ref().is_none_or(|out| {
            let outstanding = out.sent - out.credited;
            outstanding == 0 || outstanding + len <= window
        })
    }
}

/// Whether a message of that kind answers something of this side's session, whose number it has to carry.
pub(crate) fn is_answer(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::Opened | Kind::NoRegion | Kind::Revoke | Kind::Credit | Kind::Data | Kind::Written | Kind::Refused
    )
}
