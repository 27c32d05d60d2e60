//! Laws of gathering: everyone gets everything, in the order of nodes, whatever the order of messages; and no message, however
//! senseless, does more than be refused.

use super::*;
use crate::world::tests::world;
use std::collections::VecDeque;

const COUNTS: [u32; 3] = [3, 2, 1];

/// All nodes of a gang with the messages between them.
struct Net {
    nodes: Vec<Exchange>,
    mail: VecDeque<(usize, u32, Bytes)>,
    done: Vec<Vec<(Round, Bytes)>>,
}

impl Net {
    fn new(counts: &[u32]) -> Self {
        let nodes: Vec<_> = (0..counts.len())
            .map(|here| Exchange::new(world(counts, here)))
            .collect();
        Self {
            done: nodes.iter().map(|_| Vec::new()).collect(),
            nodes,
            mail: VecDeque::new(),
        }
    }

    fn add(&mut self, node: usize, spans: Vec<Span>, bytes: Vec<u8>) {
        let (_, steps) = self.nodes[node].add(spans, Bytes::from(bytes)).unwrap();
        self.follow(node, steps);
    }

    fn follow(&mut self, node: usize, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Send { to, bytes } => self.mail.push_back((node, to, bytes)),
                Step::Done { round, bytes } => self.done[node].push((round, bytes)),
            }
        }
    }

    fn settle(&mut self) {
        while let Some((from, to, bytes)) = self.mail.pop_front() {
            let to = self.nodes[from].world.node_of_agent(to).unwrap();
            let steps = receive(&mut self.nodes[to], from, bytes).unwrap();
            self.follow(to, steps);
        }
    }
}

fn receive(exchange: &mut Exchange, from: usize, bytes: Bytes) -> Result<Vec<Step>, PeerError> {
    match Peer::parse(bytes)? {
        Peer::Part(piece) => exchange.part(from, piece),
        Peer::Whole(piece) => exchange.whole(from, piece),
        _ => Err(PeerError::Garbage),
    }
}

#[test]
fn everyone_gets_everything_in_the_order_of_nodes() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let mut net = Net::new(&COUNTS);
        for turn in 0..2 {
            for node in order {
                let spans = net.nodes[node].everyone();
                net.add(node, spans, vec![b'a' + node as u8; 2 - turn]);
                net.settle();
            }
        }
        for done in &net.done {
            assert_eq!(
                done.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>(),
                [&b"aabbcc"[..], b"abc"]
            );
        }
        assert!(net.nodes.iter().all(|node| node.open.is_empty() && node.held == 0));
    }
}

#[test]
fn a_node_that_is_a_round_ahead_waits() {
    let mut net = Net::new(&[1, 1]);
    let everyone = net.nodes[0].everyone();
    net.add(1, everyone.clone(), vec![1]);
    net.settle();
    assert!(net.done.iter().all(Vec::is_empty));
    net.add(0, everyone, vec![0]);
    net.settle();
    assert_eq!(net.done[0], net.done[1]);
}

#[test]
fn long_payloads_travel_in_pieces() {
    let mut net = Net::new(&[1, 1]);
    let everyone = net.nodes[0].everyone();
    let long: Vec<u8> = (0..PIECE_TEST).map(|at| (at % 251) as u8).collect();
    net.add(1, everyone.clone(), long.clone());
    assert_eq!(net.mail.len(), 3);
    assert!(net.mail.iter().all(|(_, _, bytes)| bytes.len() <= 1 << 20));
    net.add(0, everyone, Vec::new());
    net.settle();
    assert!(net.done.iter().all(|done| done[0].1 == long));
}

const PIECE_TEST: usize = 2 * crate::peer::PIECE + 17;

#[test]
fn some_ranks_gather_among_their_nodes_alone() {
    let mut net = Net::new(&COUNTS);
    let spans = vec![Span { first: 4, count: 2 }];
    assert!(
        net.nodes[0].add(spans.clone(), Bytes::new()).is_err(),
        "no rank of node 0 takes part"
    );
    net.add(2, spans.clone(), vec![2]);
    net.add(1, spans, vec![1]);
    net.settle();
    assert!(net.done[0].is_empty());
    assert_eq!(
        (&net.done[1][0].1[..], &net.done[2][0].1[..]),
        (&[1, 2][..], &[1, 2][..])
    );
}

/// A piece of a round of all six ranks.
fn piece(turn: u64, total: u64, offset: u64, bytes: &'static [u8]) -> Piece {
    let round = Round {
        spans: vec![Span { first: 0, count: 6 }],
        turn,
    };
    Piece {
        round: Some(round),
        total,
        offset,
        bytes: Bytes::from_static(bytes),
    }
}

#[test]
fn senseless_messages_are_refused() {
    let mut root = Exchange::new(world(&COUNTS, 0));
    let spans = |piece: Piece, spans: Vec<Span>| Piece {
        round: Some(Round { spans, turn: 0 }),
        ..piece
    };
    let wrong = [
        piece(0, 1, 1, b"x"),
        piece(0, 1, 0, b"xy"),
        piece(0, u64::MAX, 0, b"x"),
        piece(0, 4, u64::MAX, b"x"),
        piece(0, 4, 0, b""),
        spans(piece(0, 1, 0, b"x"), vec![]),
        spans(piece(0, 1, 0, b"x"), vec![Span { first: 0, count: 7 }]),
        spans(
            piece(0, 1, 0, b"x"),
            vec![Span {
                first: u32::MAX,
                count: u32::MAX,
            }],
        ),
        spans(piece(0, 1, 0, b"x"), vec![Span { first: 0, count: 0 }]),
        spans(
            piece(0, 1, 0, b"x"),
            vec![Span { first: 2, count: 2 }, Span { first: 3, count: 1 }],
        ),
        spans(piece(0, 1, 0, b"x"), vec![Span { first: 3, count: 3 }]),
        Piece {
            round: None,
            ..piece(0, 1, 0, b"x")
        },
    ];
    for piece in wrong {
        assert!(root.part(1, piece.clone()).is_err(), "{piece:?}");
    }
    assert!(root.part(0, piece(0, 1, 0, b"x")).is_err(), "from itself");
    assert!(root.whole(1, piece(0, 1, 0, b"x")).is_err(), "it gathers itself");
    let mut leaf = Exchange::new(world(&COUNTS, 1));
    assert!(
        leaf.whole(0, piece(0, 1, 0, b"x")).is_err(),
        "it has not added its part"
    );
    assert!(leaf.part(2, piece(0, 1, 0, b"x")).is_err(), "it does not gather");
    assert!(leaf.whole(2, piece(0, 1, 0, b"x")).is_err(), "node 2 does not gather");
}

#[test]
fn rounds_that_are_open_are_counted() {
    let mut root = Exchange::new(world(&COUNTS, 0));
    let refused = (0..OPEN_LIMIT as u64 + 1).find(|turn| root.part(1, piece(*turn, 2, 0, b"x")).is_err());
    assert_eq!(refused, Some(OPEN_LIMIT as u64));
}

/// Random bytes, and random changes of right ones, of a generator with a seed.
#[test]
fn garbage_does_no_harm() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut node = Exchange::new(world(&COUNTS, 0));
    let everyone = node.everyone();
    let right = Peer::Part(piece(0, 3, 0, b"abc")).into_bytes();
    let mut refused = 0;
    for case in 0..20_000 {
        let mut bytes = right.to_vec();
        if case % 2 == 0 {
            bytes = (0..random() % 64).map(|_| random() as u8).collect();
        }
        for _ in 0..random() % 4 {
            let at = random() as usize % bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = random() as u8;
            }
        }
        refused += u32::from(receive(&mut node, 1, Bytes::from(bytes)).is_err());
    }
    assert!(refused > 10_000, "{refused}");
    assert!(node.add(everyone, Bytes::new()).is_ok());
}
