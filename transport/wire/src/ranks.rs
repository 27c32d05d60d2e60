//! Bodies of messages about gangs: tasks that several ranks run together. Who sends which to whom is in `message.rs`.

use crate::values::Failure;
use bridgehead_spec::{LauncherSpec, MapSpec, MpiSpec, RanksSpec, ReturnsSpec};
use bytes::Bytes;
use prost::{Enumeration, Message};

/// See [`MapSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[allow(missing_docs)] // Each is documented at the word that it stands for.
pub enum Map {
    Core = 0,
    Numa = 1,
    Socket = 2,
    Gpu = 3,
    Node = 4,
}

/// See [`MpiSpec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum Mpi {
    Auto = 0,
    Mpich = 1,
    Openmpi = 2,
    None = 3,
}

/// See [`RanksSpec`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Message)]
pub struct Ranks {
    /// Fewest ranks.
    #[prost(uint32, tag = "1")]
    pub least: u32,
    /// Most ranks.
    #[prost(uint32, tag = "2")]
    pub most: u32,
    /// Ranks a node; 0: as they fit.
    #[prost(uint32, tag = "3")]
    pub per_node: u32,
    /// What neighbours are put beside.
    #[prost(enumeration = "Map", tag = "4")]
    pub map: i32,
    /// The MPI that is served.
    #[prost(enumeration = "Mpi", tag = "5")]
    pub mpi: i32,
    /// Slurm's `srun` starts the ranks.
    #[prost(bool, tag = "6")]
    pub srun: bool,
    /// The values of all ranks are the shards of the task's.
    #[prost(bool, tag = "7")]
    pub shards: bool,
}

impl From<&RanksSpec> for Ranks {
    fn from(spec: &RanksSpec) -> Self {
        let map = match spec.map {
            MapSpec::Core => Map::Core,
            MapSpec::Numa => Map::Numa,
            MapSpec::Socket => Map::Socket,
            MapSpec::Gpu => Map::Gpu,
            MapSpec::Node => Map::Node,
        };
        let mpi = match spec.mpi {
            MpiSpec::Auto => Mpi::Auto,
            MpiSpec::Mpich => Mpi::Mpich,
            MpiSpec::Openmpi => Mpi::Openmpi,
            MpiSpec::None => Mpi::None,
        };
        Self {
            least: spec.least,
            most: spec.most,
            per_node: spec.per_node.unwrap_or(0),
            map: map.into(),
            mpi: mpi.into(),
            srun: spec.launcher == LauncherSpec::Srun,
            shards: spec.returns == ReturnsSpec::Shards,
        }
    }
}

impl From<&Ranks> for RanksSpec {
    fn from(ranks: &Ranks) -> Self {
        let map = match ranks.map() {
            Map::Core => MapSpec::Core,
            Map::Numa => MapSpec::Numa,
            Map::Socket => MapSpec::Socket,
            Map::Gpu => MapSpec::Gpu,
            Map::Node => MapSpec::Node,
        };
        let mpi = match ranks.mpi() {
            Mpi::Auto => MpiSpec::Auto,
            Mpi::Mpich => MpiSpec::Mpich,
            Mpi::Openmpi => MpiSpec::Openmpi,
            Mpi::None => MpiSpec::None,
        };
        let least = ranks.least.max(1);
        Self {
            least,
            most: ranks.most.max(least),
            per_node: (ranks.per_node > 0).then_some(ranks.per_node),
            map,
            mpi,
            launcher: if ranks.srun {
                LauncherSpec::Srun
            } else {
                LauncherSpec::Agent
            },
            returns: if ranks.shards {
                ReturnsSpec::Shards
            } else {
                ReturnsSpec::First
            },
        }
    }
}

/// The ranks of a gang that are on one agent; ranks are numbered agent by agent.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RanksAt {
    /// The agent.
    #[prost(uint32, tag = "1")]
    pub agent: u32,
    /// Its first rank.
    #[prost(uint32, tag = "2")]
    pub first: u32,
    /// How many ranks it has.
    #[prost(uint32, tag = "3")]
    pub count: u32,
    /// Its host; empty where only the numbers matter.
    #[prost(string, tag = "4")]
    pub host: String,
}

/// What makes a call one of a gang: the receiver starts the ranks that are its own.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct GangCall {
    /// How the ranks are started.
    #[prost(message, required, tag = "1")]
    pub ranks: Ranks,
    /// Where all ranks are, in the order of their numbers.
    #[prost(message, repeated, tag = "2")]
    pub nodes: Vec<RanksAt>,
    /// Towards a worker: the rank that it is.
    #[prost(uint32, tag = "3")]
    pub rank: u32,
}

impl GangCall {
    /// How many ranks there are.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.nodes.iter().fold(0, |sum, node| sum.saturating_add(node.count))
    }

    /// The ranks that are on `agent`.
    #[must_use]
    pub fn at(&self, agent: u32) -> Option<&RanksAt> {
        self.nodes.iter().find(|node| node.agent == agent)
    }
}

/// Bytes from the start-up of a gang's ranks on one agent to that on another; the head passes them on unread.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Relay {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Towards the head: the agent that they are for; towards an agent: the one that they come from.
    #[prost(uint32, tag = "3")]
    pub agent: u32,
    /// The bytes.
    #[prost(bytes = "bytes", tag = "4")]
    pub bytes: Bytes,
}

/// A rank failed, so the gang cannot go on: told before the other ranks have ended. The end follows in `TaskDone`.
#[derive(Clone, PartialEq, Message)]
pub struct RankFailed {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Why.
    #[prost(message, optional, tag = "3")]
    pub failure: Option<Failure>,
}

/// What the ranks of a gang on an agent are bound to, for people.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RanksBound {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// The MPI that is served; empty: none.
    #[prost(string, tag = "3")]
    pub mpi: String,
    /// The ranks.
    #[prost(message, repeated, tag = "4")]
    pub ranks: Vec<RankBound>,
}

/// What one rank is bound to.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct RankBound {
    /// The rank.
    #[prost(uint32, tag = "1")]
    pub rank: u32,
    /// Its processors (hardware threads), as `0-3,8`; empty: it is not bound.
    #[prost(string, tag = "2")]
    pub processors: String,
    /// Its NUMA node.
    #[prost(uint32, optional, tag = "3")]
    pub numa: Option<u32>,
    /// Its GPUs.
    #[prost(uint32, repeated, tag = "4")]
    pub gpus: Vec<u32>,
    /// Its network card or InfiniBand port; empty: none was chosen.
    #[prost(string, tag = "5")]
    pub network: String,
    /// Why so.
    #[prost(string, tag = "6")]
    pub reason: String,
}

/// The ranks of an attempt that are here are to end.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct EndGang {
    /// The task.
    #[prost(uint64, tag = "1")]
    pub task: u64,
    /// The attempt.
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
    /// Why, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_ranks_travels_whole() {
        for (map, mpi) in [
            (MapSpec::Core, MpiSpec::Auto),
            (MapSpec::Numa, MpiSpec::Mpich),
            (MapSpec::Socket, MpiSpec::Openmpi),
            (MapSpec::Gpu, MpiSpec::None),
            (MapSpec::Node, MpiSpec::Auto),
        ] {
            let spec = RanksSpec {
                most: 16,
                per_node: (map == MapSpec::Numa).then_some(2),
                map,
                mpi,
                launcher: if map == MapSpec::Gpu {
                    LauncherSpec::Srun
                } else {
                    LauncherSpec::Agent
                },
                returns: if map == MapSpec::Node {
                    ReturnsSpec::Shards
                } else {
                    ReturnsSpec::First
                },
                ..RanksSpec::exactly(4)
            };
            let wire = Ranks::decode(Ranks::from(&spec).encode_to_vec().as_slice());
            assert_eq!(wire.map(|ranks| RanksSpec::from(&ranks)), Ok(spec));
        }
    }
}
