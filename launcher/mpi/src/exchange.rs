//! Gathers bytes over the nodes of a gang: each node adds its part, the first one that takes part joins them and gives all of it to
//! all. Owns the rounds that are open and their bounds. Pure: messages in, messages out. What the bytes are it does not know.

use crate::peer::{Peer, PeerError, Piece, Round, Span, pieces};
use crate::world::World;
use bytes::{Bytes, BytesMut};
use std::collections::{BTreeMap, HashMap};

/// Most bytes of one node's part, and of all parts that wait.
const PART_LIMIT: u64 = 64 << 20;
const HELD_LIMIT: u64 = 512 << 20;
/// Most gatherings at a time. MPI has one or two; each set of ranks can have one.
const OPEN_LIMIT: usize = 1024;

/// What follows from a part or a message.
#[derive(Debug, PartialEq)]
pub(crate) enum Step {
    /// To that agent's bootstrap.
    Send { to: u32, bytes: Bytes },
    /// Everything of this round.
    Done { round: Round, bytes: Bytes },
}

/// Gatherings of one gang, seen from one node.
pub(crate) struct Exchange {
    world: World,
    turns: HashMap<Vec<Span>, u64>,
    open: HashMap<Round, Gathering>,
    held: u64,
}

/// What has come of one round.
#[derive(Default)]
struct Gathering {
    /// This node has added its part.
    added: bool,
    /// Parts by node, at the gathering node.
    parts: BTreeMap<usize, Arriving>,
    /// Everything, elsewhere.
    whole: Arriving,
}

/// A payload whose pieces come in order.
#[derive(Default)]
struct Arriving {
    bytes: BytesMut,
    complete: bool,
}

impl Exchange {
    pub fn new(world: World) -> Self {
        Self {
            world,
            turns: HashMap::new(),
            open: HashMap::new(),
            held: 0,
        }
    }

    /// The round of all ranks is this set.
    pub fn everyone(&self) -> Vec<Span> {
        vec![Span {
            first: 0,
            count: self.world.size(),
        }]
    }

    /// This node's part of the next round of these ranks.
    pub fn add(&mut self, spans: Vec<Span>, part: Bytes) -> Result<(Round, Vec<Step>), PeerError> {
        let nodes = self.nodes(&spans)?;
        if !nodes.contains(&self.world.here) {
            return Err(PeerError::Senseless("a round has none of this node's ranks"));
        }
        let turn = self.turns.entry(spans.clone()).or_default();
        let round = Round { spans, turn: *turn };
        *turn += 1;
        if nodes[0] != self.world.here {
            self.gathering(&round)?.added = true;
            let to = self.world.nodes[nodes[0]].agent;
            let sends = pieces(&round, &part).into_iter().map(|piece| Step::Send {
                to,
                bytes: Peer::Part(piece).into_bytes(),
            });
            return Ok((round, sends.collect()));
        }
        self.held += part.len() as u64;
        let here = self.world.here;
        let gathering = self.gathering(&round)?;
        gathering.added = true;
        gathering.parts.insert(
            here,
            Arriving {
                bytes: BytesMut::from(part),
                complete: true,
            },
        );
        let steps = self.join(&round, &nodes);
        Ok((round, steps))
    }

    /// A piece of the part of node `from`.
    pub fn part(&mut self, from: usize, piece: Piece) -> Result<Vec<Step>, PeerError> {
        let (round, nodes) = self.known(&piece)?;
        if nodes[0] != self.world.here || from == self.world.here || !nodes.contains(&from) {
            return Err(PeerError::Senseless("a part went to a node that does not gather it"));
        }
        if piece.total > PART_LIMIT {
            return Err(PeerError::Senseless("a part is larger than 64 MiB"));
        }
        self.hold(piece.bytes.len())?;
        self.gathering(&round)?.parts.entry(from).or_default().take(&piece)?;
        Ok(self.join(&round, &nodes))
    }

    /// A piece of what all have added.
    pub fn whole(&mut self, from: usize, piece: Piece) -> Result<Vec<Step>, PeerError> {
        let (round, nodes) = self.known(&piece)?;
        if nodes[0] != from || from == self.world.here {
            return Err(PeerError::Senseless(
                "the whole came from a node that does not gather it",
            ));
        }
        if piece.total > HELD_LIMIT {
            return Err(PeerError::Senseless("a whole is larger than 512 MiB"));
        }
        self.hold(piece.bytes.len())?;
        let gathering = self.open.get_mut(&round).filter(|gathering| gathering.added);
        let gathering = gathering.ok_or(PeerError::Senseless("the whole came before this node's part"))?;
        gathering.whole.take(&piece)?;
        if !gathering.whole.complete {
            return Ok(Vec::new());
        }
        let bytes = gathering.whole.bytes.split().freeze();
        self.close(&round, bytes.len());
        Ok(vec![Step::Done { round, bytes }])
    }

    /// Everything to everyone, once all parts are there.
    fn join(&mut self, round: &Round, nodes: &[usize]) -> Vec<Step> {
        let Some(gathering) = self.open.get(round) else {
            return Vec::new();
        };
        let complete = gathering.parts.values().filter(|part| part.complete).count();
        if complete < nodes.len() {
            return Vec::new();
        }
        let size = gathering.parts.values().map(|part| part.bytes.len()).sum();
        let mut all = BytesMut::with_capacity(size);
        gathering
            .parts
            .values()
            .for_each(|part| all.extend_from_slice(&part.bytes));
        let all = all.freeze();
        self.close(round, size);
        let mut steps = Vec::new();
        for node in nodes.iter().filter(|node| **node != self.world.here) {
            let to = self.world.nodes[*node].agent;
            let sends = pieces(round, &all).into_iter();
            steps.extend(sends.map(|piece| Step::Send {
                to,
                bytes: Peer::Whole(piece).into_bytes(),
            }));
        }
        steps.push(Step::Done {
            round: round.clone(),
            bytes: all,
        });
        steps
    }

    fn close(&mut self, round: &Round, held: usize) {
        self.open.remove(round);
        self.held = self.held.saturating_sub(held as u64);
    }

    fn hold(&mut self, more: usize) -> Result<(), PeerError> {
        self.held += more as u64;
        if self.held > HELD_LIMIT {
            return Err(PeerError::Senseless("more than 512 MiB wait to be gathered"));
        }
        Ok(())
    }

    fn gathering(&mut self, round: &Round) -> Result<&mut Gathering, PeerError> {
        if self.open.len() >= OPEN_LIMIT && !self.open.contains_key(round) {
            return Err(PeerError::Senseless("more than 1024 rounds are open"));
        }
        Ok(self.open.entry(round.clone()).or_default())
    }

    /// The round of a piece and its nodes, or why it cannot be. A round that is over is not opened again.
    fn known(&self, piece: &Piece) -> Result<(Round, Vec<usize>), PeerError> {
        let round = piece.round.clone().ok_or(PeerError::Garbage)?;
        let nodes = self.nodes(&round.spans)?;
        let next = self.turns.get(&round.spans).copied().unwrap_or(0);
        if round.turn < next && !self.open.contains_key(&round) {
            return Err(PeerError::Senseless("a piece came for a round that is over"));
        }
        Ok((round, nodes))
    }

    /// Nodes that have some of these ranks, ascending. Spans ascend and do not touch each other's ranks.
    fn nodes(&self, spans: &[Span]) -> Result<Vec<usize>, PeerError> {
        let (mut next, mut nodes) = (0_u64, Vec::new());
        for span in spans {
            let end = u64::from(span.first) + u64::from(span.count);
            if u64::from(span.first) < next || span.count == 0 || end > u64::from(self.world.size()) {
                return Err(PeerError::Senseless("a round is of ranks that the gang does not have"));
            }
            next = end;
            let first = self.world.node_of(span.first).unwrap_or(0);
            let touches = |node: &usize| u64::from(self.world.nodes[*node].first) < end && nodes.last() != Some(node);
            let touched: Vec<usize> = (first..self.world.nodes.len())
                .take_while(|n| u64::from(self.world.nodes[*n].first) < end)
                .filter(touches)
                .collect();
            nodes.extend(touched);
        }
        if nodes.is_empty() {
            return Err(PeerError::Senseless("a round has no ranks"));
        }
        Ok(nodes)
    }
}

impl Arriving {
    fn take(&mut self, piece: &Piece) -> Result<(), PeerError> {
        let end = piece.offset.checked_add(piece.bytes.len() as u64);
        let fits = piece.offset == self.bytes.len() as u64 && end.is_some_and(|end| end <= piece.total);
        // An empty piece of an unfinished payload would be a message that says nothing.
        if self.complete || !fits || piece.bytes.is_empty() && piece.total > 0 {
            return Err(PeerError::Senseless("a piece does not follow on the one before it"));
        }
        self.bytes.extend_from_slice(&piece.bytes);
        self.complete = self.bytes.len() as u64 == piece.total;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
