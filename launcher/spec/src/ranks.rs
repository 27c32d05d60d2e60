//! Ranks: how a task is run by several processes together, an MPI gang. Owns the words and how many ranks nodes could hold; who
//! starts them, and where, is the scheduler's and the agents'.

use crate::Resources;
use serde::{Deserialize, Serialize};

/// Most ranks of a gang; more is a mistake.
pub const MAX_RANKS: u32 = 1 << 20;

/// A task's call is run by several ranks at once; what the task asks for is then what each rank gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RanksSpec {
    /// Fewest ranks with which it starts.
    pub least: u32,
    /// Most ranks: it takes as many as are free when it starts.
    pub most: u32,
    /// Exactly so many on each node, but for the last one, which may have fewer; as they fit if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_node: Option<u32>,
    /// What neighbouring ranks are put beside.
    #[serde(default, skip_serializing_if = "is_default")]
    pub map: MapSpec,
    /// The MPI whose start-up its ranks are served.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mpi: MpiSpec,
    /// Who starts the ranks' processes.
    #[serde(default, skip_serializing_if = "is_default")]
    pub launcher: LauncherSpec,
    /// What its value is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub returns: ReturnsSpec,
}

/// How ranks are dealt out over nodes and within one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MapSpec {
    /// On as few nodes as possible; neighbours on neighbouring cores.
    #[default]
    Core,
    /// As `core` over nodes; within one in equal blocks over NUMA nodes.
    Numa,
    /// As `core` over nodes; within one in equal blocks over sockets.
    Socket,
    /// As `core` over nodes; within one each rank beside its GPUs.
    Gpu,
    /// In equal blocks over as many nodes as possible.
    Node,
}

/// Which MPI the ranks are started for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MpiSpec {
    /// The one that the program is linked with, or that mpi4py loads.
    #[default]
    Auto,
    /// MPICH and what descends from it: Intel MPI, MVAPICH.
    Mpich,
    /// Open MPI.
    Openmpi,
    /// None: the ranks find one another by themselves, as torch does by `MASTER_ADDR`.
    None,
}

/// Who starts the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LauncherSpec {
    /// The agents.
    #[default]
    Agent,
    /// Slurm's `srun`, for sites whose MPI starts in no other way.
    Srun,
}

/// What becomes of the values that ranks return.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReturnsSpec {
    /// The first rank's is the task's.
    #[default]
    First,
    /// They are the shards of one array.
    Shards,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl RanksSpec {
    /// `ranks` of them, no more and no fewer.
    #[must_use]
    pub fn exactly(ranks: u32) -> Self {
        Self {
            least: ranks,
            most: ranks,
            per_node: None,
            map: MapSpec::default(),
            mpi: MpiSpec::default(),
            launcher: LauncherSpec::default(),
            returns: ReturnsSpec::default(),
        }
    }

    /// Most ranks that `nodes` could hold with nothing else on them, if each rank asks for `each`; no more than it takes.
    pub fn most_on<'a>(&self, each: &Resources, nodes: impl IntoIterator<Item = &'a Resources>) -> u32 {
        let whole = self.per_node.unwrap_or(u32::MAX);
        let (mut sum, mut rest) = (0u64, 0u64);
        for node in nodes {
            let fit = u64::from(each.times_in(node));
            match self.per_node {
                Some(_) if fit < whole.into() => rest = rest.max(fit), // Only as the last one.
                _ => sum += fit.min(whole.into()),
            }
        }
        u32::try_from(sum + rest).unwrap_or(u32::MAX).min(self.most)
    }

    /// What is wrong with it, if anything: a text that names the thing, the reason and the way out.
    pub(crate) fn fault(&self, each: &Resources, is_function: bool) -> Option<String> {
        let Self { least, most, .. } = *self;
        if least == 0 || most < least {
            return Some(format!(
                "ranks from {least} to {most} are none at all; start with at least 1, and let most be no less"
            ));
        }
        if most > MAX_RANKS {
            return Some(format!("{most} ranks are more than {MAX_RANKS}; check the number"));
        }
        if self.per_node == Some(0) {
            return Some("0 ranks a node would never run; leave per_node out for as many as fit".to_owned());
        }
        if self.map == MapSpec::Gpu && each.gpus == 0 {
            return Some("map gpu needs a GPU for each rank; ask for gpus, or map by core".to_owned());
        }
        if !is_function && self.returns == ReturnsSpec::Shards {
            return Some("a program returns no array; only functions return shards".to_owned());
        }
        if self.mpi == MpiSpec::None && self.returns == ReturnsSpec::Shards {
            return Some(
                "shards are put together over MPI; without one let the first rank return the value".to_owned(),
            );
        }
        if is_function && self.launcher == LauncherSpec::Srun {
            return Some(
                "srun starts programs only; call the function from a script, or let the agents start it".to_owned(),
            );
        }
        None
    }
}

impl Resources {
    /// How many times this fits into `room` side by side; at most 2^32 - 1.
    #[must_use]
    pub fn times_in(&self, room: &Self) -> u32 {
        let named = self.named.iter();
        let named = named.map(|(name, &asked)| (asked, room.named.get(name).copied().unwrap_or(0)));
        let amounts = [
            (self.cpu_millis, room.cpu_millis),
            (self.memory, room.memory),
            (self.gpus.into(), room.gpus.into()),
        ];
        let times = amounts.into_iter().chain(named).filter(|&(asked, _)| asked > 0);
        let times = times.map(|(asked, there)| there / asked).min().unwrap_or(u64::MAX);
        u32::try_from(times).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(n: u64) -> Resources {
        Resources {
            cpu_millis: n * 1000,
            ..Resources::default()
        }
    }

    fn check(ranks: RanksSpec, each: u64, nodes: &[u64], most: u32) {
        let nodes: Vec<Resources> = nodes.iter().map(|&n| cores(n)).collect();
        assert_eq!(ranks.most_on(&cores(each), &nodes), most, "{ranks:?} on {nodes:?}");
    }

    #[test]
    fn ranks_fill_nodes_and_per_node_leaves_one_smaller_node_for_the_last_ones() {
        check(RanksSpec::exactly(8), 1, &[4, 3], 7);
        check(RanksSpec::exactly(5), 1, &[4, 3], 5);
        check(RanksSpec::exactly(8), 2, &[4, 3], 3);
        let pairs = RanksSpec {
            per_node: Some(2),
            ..RanksSpec::exactly(8)
        };
        check(pairs, 1, &[4, 4, 1, 1], 5);
        check(pairs, 1, &[1], 1);
        check(pairs, 1, &[], 0);
    }

    #[test]
    fn what_asks_for_nothing_that_is_counted_fits_any_number_of_times() {
        assert_eq!(Resources::zero().times_in(&cores(1)), u32::MAX);
        let licensed = Resources {
            named: [("licence".to_owned(), 1)].into(),
            ..cores(1)
        };
        assert_eq!(licensed.times_in(&cores(4)), 0);
    }
}
