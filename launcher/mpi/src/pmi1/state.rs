//! What the lines of PMI-1 mean: who has come, the keys and values of the gang, barriers, refusals. Pure: lines and messages in,
//! lines, messages and events out. Sockets are `serve`'s matter.

use super::line::{number, rest, word};
use crate::bootstrap::Event;
use crate::exchange::{Exchange, Step};
use crate::peer::{Peer, PeerError};
use crate::world::World;
use bytes::Bytes;
use prost::Message as _;
use std::collections::HashMap;

/// What clients are told, and held to. They size their buffers by it.
const KEY_LIMIT: usize = 256;
const VALUE_LIMIT: usize = 1024;
/// Most bytes of all keys and values of a gang.
const KVS_LIMIT: usize = 64 << 20;

/// What follows from a line or a message.
#[derive(Debug)]
pub(crate) enum Out {
    /// To a rank that is here, with its end.
    Line {
        rank: u32,
        line: Vec<u8>,
    },
    Event(Event),
}

/// One gang's PMI-1, seen from one node.
pub(crate) struct State {
    world: World,
    exchange: Exchange,
    values: HashMap<Bytes, Bytes>,
    held: usize,
    fresh: Puts,
    ranks: Vec<Rank>,
}

/// A rank that is here.
#[derive(Default, Clone)]
struct Rank {
    joined: bool,
    left: bool,
    waits: bool,
    /// Inside a spawn command, which has many lines.
    spawns: bool,
}

/// Puts since the last barrier. Joined messages are one message: that of all nodes.
#[derive(Clone, PartialEq, prost::Message)]
struct Puts {
    #[prost(message, repeated, tag = "1")]
    puts: Vec<Put>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Put {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

impl State {
    pub fn new(world: World) -> Self {
        let mut values = HashMap::new();
        if let Some(mapping) = world.mapping() {
            values.insert(Bytes::from_static(b"PMI_process_mapping"), Bytes::from(mapping));
        }
        Self {
            exchange: Exchange::new(world.clone()),
            ranks: vec![Rank::default(); world.part().count as usize],
            values,
            held: 0,
            fresh: Puts::default(),
            world,
        }
    }

    /// A line of a rank that is here.
    pub fn line(&mut self, rank: u32, line: &[u8]) -> Vec<Out> {
        let at = (rank - self.world.part().first) as usize;
        if self.ranks[at].spawns || line.starts_with(b"mcmd=") {
            return self.spawn(rank, at, line);
        }
        let name = word(line, "cmd").unwrap_or_default();
        match name {
            b"init" => self.init(rank, at),
            b"get_maxes" => answer(
                rank,
                format!("cmd=maxes kvsname_max=256 keylen_max={KEY_LIMIT} vallen_max={VALUE_LIMIT}"),
            ),
            b"get_appnum" => answer(rank, "cmd=appnum appnum=0"),
            b"get_my_kvsname" => answer(rank, format!("cmd=my_kvsname kvsname={}", self.world.name)),
            b"get_universe_size" => answer(rank, format!("cmd=universe_size size={}", self.world.size())),
            b"put" => answer(rank, self.put(line)),
            b"get" => answer(rank, self.get(line)),
            b"barrier_in" if word(line, "group").is_some_and(|group| group != b"WORLD") => {
                answer(rank, "cmd=barrier_out rc=-1 msg=barriers_are_of_all_ranks")
            }
            b"barrier_in" => self.barrier(rank, at),
            b"finalize" => self.finalize(rank, at),
            b"abort" => vec![Out::Event(aborted(rank, line))],
            b"publish_name" => answer(rank, "cmd=publish_result rc=-1 msg=names_are_not_published_here"),
            b"unpublish_name" => answer(rank, "cmd=unpublish_result rc=-1 msg=names_are_not_published_here"),
            b"lookup_name" => answer(rank, "cmd=lookup_result rc=-1 msg=names_are_not_published_here"),
            _ => answer(rank, unknown(name)),
        }
    }

    /// Bytes of the gang's bootstrap on another agent.
    pub fn peer(&mut self, from: u32, bytes: Bytes) -> Vec<Out> {
        let steps = match self.world.node_of_agent(from) {
            None => Err(PeerError::Senseless("no part of the gang is there")),
            Some(node) => Peer::parse(bytes).and_then(|peer| match peer {
                Peer::Part(piece) => self.exchange.part(node, piece),
                Peer::Whole(piece) => self.exchange.whole(node, piece),
                Peer::Ask(_) | Peer::Answer(_) => Err(PeerError::Senseless("PMI-1 asks no other node")),
            }),
        };
        let refused = |error| format!("bytes of agent {from} were refused: {error}");
        match steps.and_then(|steps| self.follow(steps)) {
            Ok(outs) => outs,
            Err(error) => vec![Out::Event(Event::Failed { reason: refused(error) })],
        }
    }

    fn init(&mut self, rank: u32, at: usize) -> Vec<Out> {
        let first = !std::mem::replace(&mut self.ranks[at].joined, true);
        let news = first.then_some(Out::Event(Event::Joined { rank }));
        news.into_iter()
            .chain(answer(rank, "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1"))
            .collect()
    }

    /// The news come first: with its answer the rank may end.
    fn finalize(&mut self, rank: u32, at: usize) -> Vec<Out> {
        let first = !std::mem::replace(&mut self.ranks[at].left, true);
        let news = first.then_some(Out::Event(Event::Left { rank }));
        news.into_iter().chain(answer(rank, "cmd=finalize_ack rc=0")).collect()
    }

    fn put(&mut self, line: &[u8]) -> String {
        let refused = |reason: &str| format!("cmd=put_result rc=-1 msg={reason}");
        let (Some(key), Some(value)) = (word(line, "key"), rest(line, "value")) else {
            return refused("key_or_value_missing");
        };
        if key.is_empty() || key.len() > KEY_LIMIT || value.len() > VALUE_LIMIT {
            return refused("key_or_value_too_long");
        }
        if self.held + key.len() + value.len() > KVS_LIMIT {
            return refused("more_than_64_MiB_of_keys_and_values");
        }
        let put = Put {
            key: Bytes::copy_from_slice(key),
            value: Bytes::copy_from_slice(value),
        };
        self.fresh.puts.push(put.clone());
        self.store(put);
        "cmd=put_result rc=0 msg=success".to_owned()
    }

    fn store(&mut self, put: Put) {
        self.held += put.key.len() + put.value.len();
        self.values.insert(put.key, put.value);
    }

    fn get(&self, line: &[u8]) -> Vec<u8> {
        let found = word(line, "key").and_then(|key| self.values.get(key));
        let Some(value) = found else {
            return b"cmd=get_result rc=-1 msg=key_not_found value=unknown".to_vec();
        };
        [b"cmd=get_result rc=0 msg=success value=", &value[..]].concat()
    }

    /// Once all that are here wait, this node adds what they have put; all go on when all nodes have.
    fn barrier(&mut self, rank: u32, at: usize) -> Vec<Out> {
        if std::mem::replace(&mut self.ranks[at].waits, true) {
            return answer(rank, "cmd=barrier_out rc=-1 msg=this_rank_waits_already");
        }
        if !self.ranks.iter().all(|rank| rank.waits) {
            return Vec::new();
        }
        let everyone = self.exchange.everyone();
        let puts = std::mem::take(&mut self.fresh).encode_to_vec();
        let steps = self.exchange.add(everyone, Bytes::from(puts)).map(|(_, steps)| steps);
        match steps.and_then(|steps| self.follow(steps)) {
            Ok(outs) => outs,
            Err(error) => vec![Out::Event(Event::Failed {
                reason: format!("a barrier cannot go on: {error}"),
            })],
        }
    }

    fn follow(&mut self, steps: Vec<Step>) -> Result<Vec<Out>, PeerError> {
        let mut outs = Vec::new();
        for step in steps {
            match step {
                Step::Send { to, bytes } => outs.push(Out::Event(Event::Send { to, bytes })),
                Step::Done { bytes, .. } => self.all_are_here(bytes, &mut outs)?,
            }
        }
        Ok(outs)
    }

    fn all_are_here(&mut self, bytes: Bytes, outs: &mut Vec<Out>) -> Result<(), PeerError> {
        // On a single node all of it is stored already.
        if self.world.nodes.len() > 1 {
            for put in Puts::decode(bytes).map_err(|_| PeerError::Garbage)?.puts {
                if put.value.len() > VALUE_LIMIT || put.value.contains(&b'\n') || self.held > KVS_LIMIT {
                    return Err(PeerError::Senseless(
                        "a value is longer than a line or all are more than 64 MiB",
                    ));
                }
                self.store(put);
            }
        }
        let first = self.world.part().first;
        for (rank, state) in (first..).zip(&mut self.ranks) {
            state.waits = false;
            outs.extend(answer(rank, "cmd=barrier_out rc=0"));
        }
        Ok(())
    }

    /// A command of many lines, up to `endcmd`. It may be one of several of one call, of which the last is answered.
    fn spawn(&mut self, rank: u32, at: usize, line: &[u8]) -> Vec<Out> {
        self.ranks[at].spawns = line != b"endcmd";
        let last = !self.ranks[at].spawns;
        if last {
            answer(rank, "cmd=spawn_result rc=-1 status=a_gang_has_the_ranks_it_began_with")
        } else {
            Vec::new()
        }
    }
}

fn answer(rank: u32, line: impl Into<Vec<u8>>) -> Vec<Out> {
    let mut line = line.into();
    line.push(b'\n');
    vec![Out::Line { rank, line }]
}

fn aborted(rank: u32, line: &[u8]) -> Event {
    let message = ["message", "msg", "error_msg"]
        .iter()
        .find_map(|key| rest(line, key))
        .unwrap_or_default();
    let code = number(line, "exitcode").unwrap_or(1);
    Event::Aborted {
        rank,
        code,
        message: String::from_utf8_lossy(message).into_owned(),
    }
}

/// What MPICH takes for a failed call: an answer of the expected name with an error in it.
fn unknown(name: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let name: Vec<u8> = name.iter().copied().filter(plain).take(64).collect();
    [b"cmd=", &name[..], b"_result rc=-1 msg=unknown_command"].concat()
}

#[cfg(test)]
mod tests;
