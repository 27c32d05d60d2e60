//! What the helper's reports and the other nodes' messages mean for one gang. Pure: reports and messages in, orders and events
//! out. Processes and sockets are `host`'s matter.

use super::frames::{Blob, Do, Gather, Tell, Want};
use crate::bootstrap::Event;
use crate::exchange::{Exchange, Step};
use crate::peer::{Answer, Ask, PIECE, Peer, PeerError, Round};
use crate::world::World;
use bytes::Bytes;
use std::collections::HashMap;

/// What libpmix calls a question that cannot be answered, and one that failed.
const NOT_FOUND: i32 = -46;
const ERROR: i32 = -1;
/// Most questions of one node at a time: all its ranks ask of all others at once at most.
const ASKED_LIMIT: usize = 1 << 20;

/// What follows from a report or a message.
#[derive(Debug, PartialEq)]
pub(super) enum Out {
    Event(Event),
    Order(Do),
    /// The variables of the ranks that are here, or why there are none.
    Ready(Result<Vec<Vec<String>>, String>),
}

/// One gang's PMIx, seen from one node.
pub(super) struct Gang {
    world: World,
    exchange: Exchange,
    /// Fences of libpmix that wait for a round.
    fences: HashMap<Round, u64>,
    /// Questions of other nodes that the helper looks for: by our id, the node and its id.
    asked: HashMap<u64, (usize, u64)>,
    asks: u64,
}

impl Gang {
    pub fn new(world: World) -> Self {
        let exchange = Exchange::new(world.clone());
        Self {
            world,
            exchange,
            fences: HashMap::new(),
            asked: HashMap::new(),
            asks: 0,
        }
    }

    /// A report of the helper.
    pub fn report(&mut self, tell: Tell) -> Vec<Out> {
        match tell {
            Tell::Ready(ready) => vec![Out::Ready(Ok(ready.ranks.into_iter().map(|rank| rank.set).collect()))],
            Tell::Failed(reason) => {
                vec![Out::Ready(Err(reason.clone())), Out::Event(Event::Failed { reason })]
            }
            Tell::Joined(rank) => self.news(rank, Event::Joined { rank }),
            Tell::Left(left) => self.last_news(left.rank, left.id, Event::Left { rank: left.rank }),
            Tell::Aborted(aborted) => {
                let event = Event::Aborted {
                    rank: aborted.rank,
                    code: aborted.code,
                    message: aborted.message,
                };
                self.last_news(aborted.rank, aborted.id, event)
            }
            Tell::Gather(gather) => self.gather(gather),
            Tell::Want(want) => self.want(&want),
            Tell::Fetched(blob) => self.fetched(blob),
            // Told to whoever keeps helpers.
            Tell::Forgotten(_) => Vec::new(),
        }
    }

    /// Bytes of the gang's bootstrap on another agent.
    pub fn peer(&mut self, from: u32, bytes: Bytes) -> Vec<Out> {
        let outs = match self.world.node_of_agent(from) {
            None => Err(PeerError::Senseless("no part of the gang is there")),
            Some(node) => Peer::parse(bytes).and_then(|peer| self.message(node, peer)),
        };
        outs.unwrap_or_else(|error| {
            let reason = format!("bytes of agent {from} were refused: {error}");
            vec![Out::Event(Event::Failed { reason })]
        })
    }

    fn news(&self, rank: u32, event: Event) -> Vec<Out> {
        let here = self.world.node_of(rank) == Some(self.world.here);
        if here { vec![Out::Event(event)] } else { Vec::new() }
    }

    /// News after which a rank may end: it goes on only now, so that they come before its end.
    fn last_news(&self, rank: u32, id: u64, event: Event) -> Vec<Out> {
        let mut outs = self.news(rank, event);
        outs.push(Out::Order(Do::Give(Blob {
            id,
            status: 0,
            bytes: Bytes::new(),
        })));
        outs
    }

    fn message(&mut self, node: usize, peer: Peer) -> Result<Vec<Out>, PeerError> {
        match peer {
            Peer::Part(piece) => self.exchange.part(node, piece).map(|steps| self.follow(steps)),
            Peer::Whole(piece) => self.exchange.whole(node, piece).map(|steps| self.follow(steps)),
            Peer::Ask(ask) if self.world.node_of(ask.rank) != Some(self.world.here) => {
                Err(PeerError::Senseless("it asks of a rank that is not here"))
            }
            Peer::Ask(_) if self.asked.len() >= ASKED_LIMIT => Err(PeerError::Senseless("it asks too much at a time")),
            Peer::Ask(ask) => {
                self.asks += 1;
                self.asked.insert(self.asks, (node, ask.id));
                Ok(vec![Out::Order(Do::Fetch(Want {
                    id: self.asks,
                    rank: ask.rank,
                }))])
            }
            Peer::Answer(answer) => {
                let blob = Blob {
                    id: answer.id,
                    status: answer.status,
                    bytes: answer.bytes,
                };
                Ok(vec![Out::Order(Do::Give(blob))])
            }
        }
    }

    fn gather(&mut self, gather: Gather) -> Vec<Out> {
        match self.exchange.add(gather.spans, gather.bytes) {
            Ok((round, steps)) => {
                self.fences.insert(round, gather.id);
                self.follow(steps)
            }
            Err(error) => {
                let blob = Blob {
                    id: gather.id,
                    status: ERROR,
                    bytes: Bytes::new(),
                };
                let reason = format!("a fence cannot go on: {error}");
                vec![Out::Order(Do::Give(blob)), Out::Event(Event::Failed { reason })]
            }
        }
    }

    fn want(&self, want: &Want) -> Vec<Out> {
        let node = self.world.node_of(want.rank).filter(|node| *node != self.world.here);
        let Some(node) = node else {
            let blob = Blob {
                id: want.id,
                status: NOT_FOUND,
                bytes: Bytes::new(),
            };
            return vec![Out::Order(Do::Give(blob))];
        };
        let bytes = Peer::Ask(Ask {
            id: want.id,
            rank: want.rank,
        })
        .into_bytes();
        vec![Out::Event(Event::Send {
            to: self.world.nodes[node].agent,
            bytes,
        })]
    }

    fn fetched(&mut self, blob: Blob) -> Vec<Out> {
        let Some((node, id)) = self.asked.remove(&blob.id) else {
            return Vec::new();
        };
        // What one rank publishes is a few KiB; what the control channel cannot carry is not had.
        let fits = blob.bytes.len() <= PIECE;
        let (status, bytes) = if fits {
            (blob.status, blob.bytes)
        } else {
            (ERROR, Bytes::new())
        };
        let bytes = Peer::Answer(Answer { id, status, bytes }).into_bytes();
        vec![Out::Event(Event::Send {
            to: self.world.nodes[node].agent,
            bytes,
        })]
    }

    fn follow(&mut self, steps: Vec<Step>) -> Vec<Out> {
        let out = |step| match step {
            Step::Send { to, bytes } => Some(Out::Event(Event::Send { to, bytes })),
            Step::Done { round, bytes } => {
                let id = self.fences.remove(&round)?;
                Some(Out::Order(Do::Give(Blob { id, status: 0, bytes })))
            }
        };
        steps.into_iter().filter_map(out).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Span;
    use crate::world::tests::world;

    fn send(outs: &[Out]) -> (u32, Bytes) {
        match outs {
            [Out::Event(Event::Send { to, bytes })] => (*to, bytes.clone()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_fence_gives_all_parts_to_all_nodes() {
        let (mut a, mut b) = (Gang::new(world(&[2, 1], 0)), Gang::new(world(&[2, 1], 1)));
        let gather = |id, bytes| {
            Tell::Gather(Gather {
                id,
                spans: vec![Span { first: 0, count: 3 }],
                bytes: Bytes::from_static(bytes),
            })
        };
        assert!(a.report(gather(7, b"a")).is_empty());
        let (to, bytes) = send(&b.report(gather(9, b"b")));
        assert_eq!(to, 10);
        let outs = a.peer(11, bytes);
        let give = |id| {
            Out::Order(Do::Give(Blob {
                id,
                status: 0,
                bytes: Bytes::from_static(b"ab"),
            }))
        };
        assert_eq!(outs[1], give(7));
        let (to, bytes) = send(&outs[..1]);
        assert_eq!((to, b.peer(10, bytes)), (11, vec![give(9)]));
    }

    #[test]
    fn a_question_goes_to_the_node_of_the_rank_and_its_answer_back() {
        let (mut a, mut b) = (Gang::new(world(&[2, 1], 0)), Gang::new(world(&[2, 1], 1)));
        let (to, ask) = send(&a.report(Tell::Want(Want { id: 5, rank: 2 })));
        assert_eq!(to, 11);
        assert_eq!(b.peer(10, ask), [Out::Order(Do::Fetch(Want { id: 1, rank: 2 }))]);
        let blob = |id| Blob {
            id,
            status: 0,
            bytes: Bytes::from_static(b"x"),
        };
        let (to, answer) = send(&b.report(Tell::Fetched(blob(1))));
        assert_eq!((to, a.peer(11, answer)), (10, vec![Out::Order(Do::Give(blob(5)))]));
        assert!(b.report(Tell::Fetched(blob(1))).is_empty(), "answered once");
    }

    #[test]
    fn what_cannot_be_answered_is_said() {
        let mut a = Gang::new(world(&[2, 1], 0));
        for rank in [1, 9] {
            let outs = a.report(Tell::Want(Want { id: 5, rank }));
            assert_eq!(
                outs,
                [Out::Order(Do::Give(Blob {
                    id: 5,
                    status: NOT_FOUND,
                    bytes: Bytes::new()
                }))]
            );
        }
        let wrong = a.peer(11, Peer::Ask(Ask { id: 1, rank: 2 }).into_bytes());
        assert!(matches!(&wrong[..], [Out::Event(Event::Failed { reason })] if reason.contains("not here")));
        assert!(a.report(Tell::Joined(2)).is_empty(), "a rank of another node");
    }
}
