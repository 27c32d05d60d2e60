//! The incoming half of a session: puts a peer's messages in order, and knows which regions it was given. Pure.
//!
//! UCX promises no order between messages of different sizes; each has its place in its session, and what comes early waits.

use crate::codec::{Header, Kind, Part};
use bytes::Bytes;
use std::collections::{BTreeMap, HashSet, VecDeque};

/// Messages that may have come too early before the peer is given up.
const MOST_EARLY: usize = 4096;
/// And their bytes: far more than an honest peer has on its way.
const MOST_EARLY_BYTES: usize = 64 << 20;

/// What the peer says, from its session's `Hello` on.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    /// The peer's number for it; 0 before the first.
    pub session: u64,
    /// Given up: the peer has to begin a new one.
    pub ended: bool,
    next: u64,
    early: BTreeMap<u64, (Header, Bytes)>,
    early_bytes: usize,
    /// Parts of regions that the peer has asked for and that were not sent yet, with its numbers of them.
    pub asked: VecDeque<(u64, Part)>,
    /// Regions whose memory keys the peer holds.
    pub granted: HashSet<u64>,
    /// Bytes of messages that the caller has taken.
    pub taken: u64,
    /// The same, as the peer was told last.
    pub told: u64,
    /// Bytes of messages that the caller has not taken yet.
    pub waiting: u64,
    /// The peer wants to hear of each byte.
    pub wants_credit: bool,
}

/// What to do with a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// These, in this order; none if it came early.
    Now(Vec<(Header, Bytes)>),
    /// Of a session that is over here, which the peer has to be told.
    Ended,
    /// Left over from an older session, or sent twice.
    Stale,
    /// It makes no sense.
    Broken(&'static str),
}

impl Incoming {
    /// Begins the peer's session of that number.
    pub fn begin(session: u64) -> Self {
        Self {
            session,
            ..Self::default()
        }
    }

    /// Whether the peer has begun a session that goes on.
    pub fn is_open(&self) -> bool {
        self.session > 0 && !self.ended
    }

    /// Ends it; what it was given is returned.
    pub fn end(&mut self) -> HashSet<u64> {
        self.ended = true;
        self.early.clear();
        self.early_bytes = 0;
        self.asked.clear();
        std::mem::take(&mut self.granted)
    }

    /// Takes a message of a session that is not newer than this.
    pub fn take(&mut self, header: Header, payload: Bytes) -> Order {
        if header.session < self.session || header.place < self.next {
            return Order::Stale;
        }
        if self.ended {
            return Order::Ended;
        }
        if self.early.contains_key(&header.place) {
            return Order::Stale;
        }
        self.early_bytes += payload.len();
        if self.early.len() >= MOST_EARLY || self.early_bytes > MOST_EARLY_BYTES {
            return Order::Broken("too many of its messages came out of order");
        }
        self.early.insert(header.place, (header, payload));
        let mut now = Vec::new();
        while let Some(next) = self.early.remove(&self.next) {
            if (self.next == 0) != (next.0.kind == Kind::Hello) {
                return Order::Broken("its session does not begin with a hello");
            }
            self.next += 1;
            self.early_bytes -= next.1.len();
            now.push(next);
        }
        Order::Now(now)
    }

    /// The sum to tell the peer, if it is time: a quarter of the window is free again, or it waits for any.
    pub fn credit(&mut self, window: u64) -> Option<u64> {
        let due = self.taken - self.told;
        let tell = due > 0 && (self.wants_credit || due >= window / 4);
        self.wants_credit &= self.waiting > 0;
        if tell {
            self.told = self.taken;
        }
        tell.then_some(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Who;

    fn message(session: u64, place: u64) -> Header {
        let kind = if place == 0 { Kind::Hello } else { Kind::Ping };
        Header {
            kind,
            from: Who {
                number: 1,
                incarnation: 2,
            },
            session,
            place,
            a: 0,
            b: 0,
        }
    }

    /// Places that are handled after this one came.
    fn check(incoming: &mut Incoming, place: u64, expected: &[u64]) {
        match incoming.take(message(3, place), Bytes::new()) {
            Order::Now(now) => assert_eq!(now.iter().map(|(h, _)| h.place).collect::<Vec<_>>(), expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_early_waits() {
        let mut incoming = Incoming::begin(3);
        check(&mut incoming, 2, &[]);
        check(&mut incoming, 0, &[0]);
        check(&mut incoming, 3, &[]);
        check(&mut incoming, 1, &[1, 2, 3]);
    }

    #[test]
    fn what_comes_twice_or_late_is_dropped() {
        let mut incoming = Incoming::begin(3);
        check(&mut incoming, 0, &[0]);
        check(&mut incoming, 2, &[]);
        for (session, place) in [(3, 0), (3, 2), (2, 5)] {
            assert_eq!(incoming.take(message(session, place), Bytes::new()), Order::Stale);
        }
        incoming.end();
        assert_eq!(incoming.take(message(3, 3), Bytes::new()), Order::Ended);
    }

    #[test]
    fn what_comes_early_is_bounded() {
        let mut incoming = Incoming::begin(3);
        let part = Bytes::from(vec![0; MOST_EARLY_BYTES / 4]);
        for place in 1..5 {
            assert_eq!(incoming.take(message(3, place), part.clone()), Order::Now(Vec::new()));
        }
        assert!(matches!(
            incoming.take(message(3, 5), Bytes::from_static(b"x")),
            Order::Broken(_)
        ));
    }

    #[test]
    fn nothing_counts_before_the_hello() {
        let mut incoming = Incoming::begin(3);
        let odd = Header {
            kind: Kind::Open,
            ..message(3, 0)
        };
        assert!(matches!(incoming.take(odd, Bytes::new()), Order::Broken(_)));
    }

    #[test]
    fn credit_is_told_by_quarters_or_when_it_is_waited_for() {
        let mut incoming = Incoming {
            taken: 24,
            ..Incoming::begin(1)
        };
        assert_eq!(incoming.credit(100), None);
        incoming.taken = 25;
        assert_eq!(incoming.credit(100), Some(25));
        incoming.taken = 26;
        assert_eq!(incoming.credit(100), None);
        incoming.wants_credit = true;
        assert_eq!(incoming.credit(100), Some(26));
        assert!(!incoming.wants_credit, "nothing is left to tell of");
    }
}
