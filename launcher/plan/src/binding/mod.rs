//! Binding: which processors, memory, GPUs and network card each rank of a gang gets on one node, near one another. Owns the
//! words and the order of choices; who else is on the node, and the binding itself, are the agent's. Pure.
//!
//! GPUs are chosen first, since there are few; then processors near them; memory and cards follow from these. What counts is the
//! agent's sum of cores: where there are fewer processors than that promises, ranks go unbound, and say so.

mod cells;
mod deal;

use bridgehead_spec::MapSpec;
use bridgehead_topology::{NumberSet, Topology};
use cells::Cells;
use std::collections::{BTreeMap, BTreeSet};
use thiserror::Error;

/// What the ranks of a gang ask for on one node.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// How many ranks are here.
    pub ranks: u32,
    /// Thousandths of a core for each. Whole cores are its own processors; anything else is a share of a node's.
    pub cpu_millis: u64,
    /// GPUs for each.
    pub gpus: u32,
    /// What neighbours are put beside.
    pub map: MapSpec,
    /// Hardware threads that may be used and are free.
    pub processors: &'a NumberSet,
    /// GPUs that are free, by their place in [`Topology::gpus`]. One beyond these is near to nothing.
    pub gpus_free: &'a [u32],
}

/// What one rank gets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RankBinding {
    /// Its processors (hardware threads), in order. Empty: it is not bound.
    pub processors: Vec<u32>,
    /// The NUMA node whose memory it should use. `None` where it is not bound, or its processors lie on several nodes.
    pub numa: Option<u32>,
    /// Its GPUs, by the numbers of the wish.
    pub gpus: Vec<u32>,
    /// The network card nearest to its first GPU, or else to its NUMA node.
    pub network: Option<String>,
    /// The InfiniBand or RoCE port that is nearest, as `mlx5_0:1`.
    pub infiniband: Option<String>,
    /// Why so, for people.
    pub reason: String,
}

/// Why ranks get nothing.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BindError {
    /// Too few GPUs.
    #[error(
        "{ranks} ranks with {each} GPUs each need {asked}, {free} are free on this node: start fewer ranks here, or ask for fewer GPUs"
    )]
    Gpus {
        /// The ranks.
        ranks: u32,
        /// GPUs for each.
        each: u32,
        /// All together.
        asked: u64,
        /// Those that are free.
        free: usize,
    },
}

/// Chooses for each rank, in the order of ranks. No GPU is given twice, nor is a processor, but for shares. The same question has
/// the same answer.
///
/// # Errors
/// There are fewer free GPUs than asked for.
pub fn bind(topology: &Topology, wish: &Wish<'_>) -> Result<Vec<RankBinding>, BindError> {
    let gpus: BTreeSet<u32> = wish.gpus_free.iter().copied().collect();
    let asked = u64::from(wish.ranks) * u64::from(wish.gpus);
    if asked > gpus.len() as u64 {
        return Err(BindError::Gpus {
            ranks: wish.ranks,
            each: wish.gpus,
            asked,
            free: gpus.len(),
        });
    }
    let cells = Cells::new(topology, wish, &gpus);
    let mut bound = match cells.lacking(wish) {
        Some(reason) => unbound(wish, &gpus, &reason),
        None => cells.bind(wish),
    };
    add_cards(topology, &mut bound);
    Ok(bound)
}

/// Ranks with GPUs, in order, and nothing else.
fn unbound(wish: &Wish<'_>, gpus: &BTreeSet<u32>, reason: &str) -> Vec<RankBinding> {
    let mut gpus = gpus.iter().copied();
    let ranks = (0..wish.ranks).map(|_| RankBinding {
        gpus: gpus.by_ref().take(wish.gpus as usize).collect(),
        reason: reason.to_owned(),
        ..RankBinding::default()
    });
    ranks.collect()
}

/// Cards near the first GPU; those near a node are dealt to its ranks in turn where several are equally near.
fn add_cards(topology: &Topology, ranks: &mut [RankBinding]) {
    let mut turns: BTreeMap<Option<u32>, usize> = BTreeMap::new();
    for rank in ranks {
        let gpu = rank.gpus.first().and_then(|&gpu| topology.gpus.get(gpu as usize));
        let (cards, ports) = match (gpu, rank.numa) {
            (Some(gpu), _) => {
                let mut cards = topology.network_near_gpu(gpu);
                cards.retain(|card| card.up != Some(false));
                cards.truncate(1);
                let mut ports = topology.infiniband_near_gpu(gpu);
                ports.retain(|port| port.active != Some(false));
                ports.truncate(1);
                (cards, ports)
            }
            (None, Some(node)) => (
                topology.network_nearest_node(node),
                topology.infiniband_nearest_node(node),
            ),
            (None, None) => continue,
        };
        let turn = turns.entry(rank.numa).or_default();
        let in_turn = |n: usize| turn.checked_rem(n).unwrap_or(0);
        rank.network = cards.get(in_turn(cards.len())).map(|card| card.name.clone());
        let port = ports.get(in_turn(ports.len()));
        rank.infiniband = port.map(|port| format!("{}:{}", port.device, port.port));
        *turn += 1;
    }
}
