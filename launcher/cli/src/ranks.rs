//! The ranks of a gang in sentences: where they are, what each is bound to, and why. Owns the words only.

use bridgehead_head::state::GangRow;
use bridgehead_wire::{RankBound, RanksAt};

/// Ranks that are told one by one; the rest is counted.
const LISTED: usize = 64;

/// Where the ranks are: `4 ranks on agent 0 (n1) and agent 1 (n2)`.
pub(crate) fn place(gang: &GangRow) -> String {
    let size: u64 = gang.nodes.iter().map(|at| u64::from(at.count)).sum();
    let nodes: Vec<String> = gang.nodes.iter().map(node).collect();
    let nodes = match nodes.as_slice() {
        [] => "no agent".to_owned(),
        [one] => one.clone(),
        [some @ .., last] => format!("{} and {last}", some.join(", ")),
    };
    format!("{} on {nodes}", counted(size, "rank"))
}

fn node(at: &RanksAt) -> String {
    if at.host.is_empty() {
        format!("agent {}", at.agent)
    } else {
        format!("agent {} ({})", at.agent, at.host)
    }
}

fn counted(n: u64, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

/// Sentences on the latest attempt: the map, then a line a rank.
pub(crate) fn map(name: &str, gang: &GangRow) -> Vec<String> {
    let mpi = match gang.mpi.as_str() {
        "" => String::new(),
        mpi => format!(", started for {mpi}"),
    };
    let mut out = vec![format!("{name} has {}{mpi}.", place(gang))];
    let lines = gang.bound.iter().map(|rank| line(rank, &gang.nodes));
    out.extend(lines.take(LISTED));
    let more = gang.bound.len().saturating_sub(LISTED);
    if more > 0 {
        out.push(format!("... and {more} more ranks."));
    }
    out
}

fn line(rank: &RankBound, nodes: &[RanksAt]) -> String {
    let here = |at: &&RanksAt| rank.rank >= at.first && rank.rank - at.first < at.count;
    let place = nodes
        .iter()
        .find(here)
        .map_or_else(String::new, |at| format!(" on {}", node(at)));
    let mut parts = vec![if rank.processors.is_empty() {
        "any processor".to_owned()
    } else {
        format!("processors {}", rank.processors)
    }];
    parts.extend(rank.numa.map(|numa| format!("memory of NUMA node {numa}")));
    if !rank.gpus.is_empty() {
        let gpus: Vec<String> = rank.gpus.iter().map(u32::to_string).collect();
        parts.push(format!("GPU {}", gpus.join(", ")));
    }
    if !rank.network.is_empty() {
        parts.push(format!("network {}", rank.network));
    }
    let reason = if rank.reason.is_empty() {
        String::new()
    } else {
        format!(": {}", rank.reason)
    };
    format!("Rank {}{place}: {}{reason}.", rank.rank, parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(agent: u32, first: u32, count: u32) -> RanksAt {
        RanksAt {
            agent,
            first,
            count,
            host: format!("n{agent}"),
        }
    }

    #[test]
    fn each_rank_is_told_with_its_node_and_what_it_is_bound_to() {
        let bound = |rank: u32| RankBound {
            rank,
            processors: "2-3".to_owned(),
            numa: Some(1),
            gpus: vec![0],
            network: "mlx5_0:1".to_owned(),
            reason: "beside its GPU".to_owned(),
        };
        let gang = GangRow {
            nodes: vec![at(0, 0, 2), at(3, 2, 1)],
            mpi: "MPICH".to_owned(),
            bound: vec![bound(2), RankBound::default()],
        };
        assert_eq!(
            map("lmp (t1)", &gang),
            [
                "lmp (t1) has 3 ranks on agent 0 (n0) and agent 3 (n3), started for MPICH.",
                "Rank 2 on agent 3 (n3): processors 2-3, memory of NUMA node 1, GPU 0, network mlx5_0:1: beside its GPU.",
                "Rank 0 on agent 0 (n0): any processor.",
            ]
        );
    }
}
