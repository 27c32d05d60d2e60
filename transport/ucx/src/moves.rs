//! Reads and writes by messages, as the side sees them that asks: which parts are asked for next, and what an answer belongs to. Pure.
//!
//! The parts that a peer owes are bounded (`WINDOW`), and the operations with a peer share that window part by part, so that a long one
//! does not keep a short one waiting. An operation that ended leaves its parts behind until they are answered: they fill the
//! window, and touch nothing.

use crate::codec::{PART, Part};
use crate::peer::Request;
use crate::regions::Region;
use bridgehead_fabric::OpId;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Bytes that a peer may owe, or be owed, in all: what a long way holds, and little enough to stay in a cache.
pub(crate) const WINDOW: u64 = 2 << 20;
/// Parts that a peer may owe, whatever they hold.
pub(crate) const MOST_PARTS: usize = 1024;

/// An operation that is not over.
struct Move {
    request: Request,
    /// The peer's region.
    remote: u64,
    /// Bytes that were asked for, from the first on.
    asked: u64,
    /// Parts that the peer owes.
    owed: usize,
}

impl Move {
    /// Whether nothing was asked for yet counts as well: an operation without a byte has one part.
    fn has_more(&self) -> bool {
        self.asked < self.request.len || (self.request.len == 0 && self.owed == 0)
    }
}

/// A part that the peer owes.
struct Owed {
    operation: u64,
    at: u64,
    size: u64,
}

/// A part to ask for.
pub(crate) struct Ask {
    pub number: u64,
    pub part: Part,
    pub read: bool,
    /// Where the bytes of a write are.
    pub region: Arc<Region>,
    pub local: u64,
}

/// Where the bytes of an answer belong, as many as were asked for.
pub(crate) struct Place {
    region: Arc<Region>,
    local: u64,
}

impl Place {
    /// Copies them there.
    pub fn store(&self, bytes: &[u8]) {
        self.region.fill(self.local, bytes);
    }
}

/// What an answer means.
pub(crate) enum Answer {
    /// Nobody asked, or for something else.
    Wrong,
    /// The operation is over already.
    Late,
    /// These bytes go there.
    For(Place),
}

/// The operations with one peer, in one session.
#[derive(Default)]
pub(crate) struct Moves {
    next: u64,
    moves: HashMap<u64, Move>,
    /// Operations with parts to ask for, in turn.
    turn: VecDeque<u64>,
    owed: HashMap<u64, Owed>,
    bytes: u64,
}

impl Moves {
    /// Begins an operation on the peer's region of that number.
    pub fn begin(&mut self, request: Request, remote: u64) {
        self.next += 1;
        let begun = Move {
            request,
            remote,
            asked: 0,
            owed: 0,
        };
        self.moves.insert(self.next, begun);
        self.turn.push_back(self.next);
    }

    /// The next part to ask for, if the window has room.
    pub fn next(&mut self) -> Option<Ask> {
        while self.bytes < WINDOW && self.owed.len() < MOST_PARTS {
            let operation = self.turn.pop_front()?;
            let Some(found) = self.moves.get_mut(&operation) else {
                continue; // It failed meanwhile.
            };
            let request = &found.request;
            let at = found.asked;
            let size = (request.len - at).min(PART);
            let part = Part {
                region: found.remote,
                offset: request.remote,
                len: request.len,
                at,
                size,
            };
            self.next += 1;
            let ask = Ask {
                number: self.next,
                part,
                read: request.read,
                region: Arc::clone(&request.region),
                local: request.local + at,
            };
            (found.asked, found.owed) = (at + size, found.owed + 1);
            if found.has_more() {
                self.turn.push_back(operation);
            }
            self.owed.insert(self.next, Owed { operation, at, size });
            self.bytes += size;
            return Some(ask);
        }
        None
    }

    /// An answer to part `number` came, of so many bytes to a read, of none to a write. The caller stores the bytes, then says `answered`.
    pub fn place(&self, number: u64, bytes: Option<u64>) -> Answer {
        let Some(owed) = self.owed.get(&number) else {
            return Answer::Wrong;
        };
        let Some(found) = self.moves.get(&owed.operation) else {
            return Answer::Late;
        };
        let request = &found.request;
        if request.read != bytes.is_some() || bytes.is_some_and(|bytes| bytes != owed.size) {
            return Answer::Wrong;
        }
        Answer::For(Place {
            region: Arc::clone(&request.region),
            local: request.local + owed.at,
        })
    }

    /// A part was answered and is owed no more; the operation, if that was its last.
    pub fn answered(&mut self, number: u64) -> Option<OpId> {
        let owed = self.owed.remove(&number)?;
        self.bytes -= owed.size;
        let found = self.moves.get_mut(&owed.operation)?;
        found.owed -= 1;
        if found.owed > 0 || found.asked < found.request.len {
            return None;
        }
        self.moves.remove(&owed.operation).map(|found| found.request.op)
    }

    /// A part was refused; the operation, if it goes on. `None` where nobody asked.
    pub fn refused(&mut self, number: u64) -> Option<Option<OpId>> {
        let owed = self.owed.remove(&number)?;
        self.bytes -= owed.size;
        Some(self.moves.remove(&owed.operation).map(|found| found.request.op))
    }

    /// Ends the operations that fit, in the order in which they were begun.
    pub fn end(&mut self, fits: impl Fn(&Request) -> bool) -> Vec<OpId> {
        let mut ended: Vec<(u64, OpId)> = self
            .moves
            .extract_if(|_, found| fits(&found.request))
            .map(|(number, found)| (number, found.request.op))
            .collect();
        ended.sort_unstable();
        ended.into_iter().map(|(_, op)| op).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridgehead_fabric::{Access, Buffer};

    fn request(op: u64, read: bool, len: u64) -> Request {
        let len_here = usize::try_from(len).expect("small");
        Request {
            op: OpId(op),
            read,
            region: Arc::new(Region::unmapped(Arc::new(Buffer::zeroed(len_here)), Access::ALL)),
            local: 0,
            remote: 5,
            len,
        }
    }

    /// The parts that the window allows now: place in the operation, length.
    fn check(moves: &mut Moves, expected: &[(u64, u64)]) -> Vec<u64> {
        let asks: Vec<Ask> = std::iter::from_fn(|| moves.next()).collect();
        let parts: Vec<_> = asks.iter().map(|ask| (ask.part.at, ask.part.size)).collect();
        assert_eq!(parts, expected);
        asks.iter().map(|ask| ask.number).collect()
    }

    #[test]
    fn an_operation_ends_with_its_last_part_in_whatever_order_they_come() {
        let mut moves = Moves::default();
        moves.begin(request(1, true, 2 * PART + 1), 9);
        let asked = check(&mut moves, &[(0, PART), (PART, PART), (2 * PART, 1)]);
        for number in [asked[2], asked[0]] {
            assert!(matches!(moves.place(number, Some(0)), Answer::Wrong));
            assert_eq!(moves.answered(number), None);
        }
        assert_eq!(moves.answered(asked[1]), Some(OpId(1)));
        assert_eq!((moves.bytes, moves.moves.len(), moves.owed.len()), (0, 0, 0));
    }

    #[test]
    fn the_window_bounds_what_is_owed_and_is_shared_in_turn() {
        let mut moves = Moves::default();
        moves.begin(request(1, true, 4 * WINDOW), 9);
        let long: Vec<_> = (0..WINDOW / PART).map(|n| (n * PART, PART)).collect();
        let asked = check(&mut moves, &long);
        moves.begin(request(2, false, 10), 9);
        check(&mut moves, &[]);
        assert_eq!(moves.answered(asked[0]), None);
        assert_eq!(moves.answered(asked[1]), None);
        check(&mut moves, &[(WINDOW, PART), (0, 10), (WINDOW + PART, PART)]);
        assert!(moves.bytes < WINDOW + PART);
    }

    #[test]
    fn an_operation_without_a_byte_has_one_part() {
        let mut moves = Moves::default();
        moves.begin(request(1, true, 0), 9);
        let asked = check(&mut moves, &[(0, 0)]);
        assert_eq!(moves.answered(asked[0]), Some(OpId(1)));
        check(&mut moves, &[]);
    }

    #[test]
    fn what_is_answered_after_the_end_or_without_a_question_touches_nothing() {
        let mut moves = Moves::default();
        moves.begin(request(1, true, 2 * PART), 9);
        moves.begin(request(2, false, 10), 9);
        let asked = check(&mut moves, &[(0, PART), (0, 10), (PART, PART)]);
        assert_eq!(moves.refused(asked[0]), Some(Some(OpId(1))));
        assert!(matches!(moves.place(asked[2], Some(PART)), Answer::Late));
        assert_eq!((moves.answered(asked[2]), moves.bytes), (None, 10));
        assert_eq!(moves.end(|request| !request.read), [OpId(2)]);
        assert!(matches!(moves.place(asked[1], None), Answer::Late));
        assert_eq!((moves.refused(asked[1]), moves.bytes), (Some(None), 0));
        assert!(matches!(moves.place(asked[1], None), Answer::Wrong));
        assert_eq!(moves.refused(77), None);
    }

    #[test]
    fn an_answer_must_fit_its_question() {
        let mut moves = Moves::default();
        moves.begin(request(1, true, 10), 9);
        moves.begin(request(2, false, 10), 9);
        let asked = check(&mut moves, &[(0, 10), (0, 10)]);
        for (number, bytes) in [(asked[0], Some(9)), (asked[0], None), (asked[1], Some(10))] {
            assert!(matches!(moves.place(number, bytes), Answer::Wrong));
        }
        assert!(matches!(moves.place(asked[0], Some(10)), Answer::For(_)));
        assert!(matches!(moves.place(asked[1], None), Answer::For(_)));
    }
}
