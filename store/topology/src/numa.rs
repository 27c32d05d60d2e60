//! NUMA nodes: which processors and how much memory are near one another, and how far the others are.

use crate::memory::Memory;
use crate::processors::Processors;
use crate::set::NumberSet;
use crate::tree::{Tree, kib};
use serde::{Deserialize, Serialize};

const NODES: &str = "sys/devices/system/node";
/// The distance of a node to itself.
pub(crate) const NEAR: u32 = 10;

/// A NUMA node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NumaNode {
    /// Its number.
    pub node: u32,
    /// Its processors; none for memory without processors, such as CXL's.
    pub processors: NumberSet,
    /// Its memory in bytes.
    pub memory: u64,
    /// Free memory in bytes.
    pub free: u64,
    /// Distances to the nodes of this list, in its order; 10 is itself. Empty where the system does not tell.
    pub distances: Vec<u32>,
    /// Whether this process may take memory from it.
    pub allowed: bool,
}

/// All nodes; one with everything where the kernel knows none.
pub(crate) fn read(tree: &Tree, processors: &Processors, memory: &Memory) -> Vec<NumaNode> {
    let allowed = tree.field("proc/self/status", "Mems_allowed_list");
    let allowed: Option<NumberSet> = allowed.and_then(|text| text.parse().ok());
    let nodes: Vec<_> = tree
        .numbers(NODES, "node")
        .into_iter()
        .map(|node| read_node(tree, node, allowed.as_ref()))
        .collect();
    if !nodes.is_empty() {
        return nodes;
    }
    vec![NumaNode {
        node: 0,
        processors: processors.online.clone(),
        memory: memory.total,
        free: memory.available,
        distances: vec![NEAR],
        allowed: true,
    }]
}

fn read_node(tree: &Tree, node: u32, allowed: Option<&NumberSet>) -> NumaNode {
    let folder = format!("{NODES}/node{node}");
    let meminfo = tree.text(&format!("{folder}/meminfo")).unwrap_or_default();
    // Lines are `Node 0 MemTotal:  16 kB`.
    let bytes = |key: &str| {
        let line = meminfo
            .lines()
            .find(|line| line.split_whitespace().nth(2) == Some(key))?;
        kib(line.split_once(':')?.1.trim())
    };
    let distances = tree.text(&format!("{folder}/distance")).unwrap_or_default();
    NumaNode {
        node,
        processors: tree.value(&format!("{folder}/cpulist")).unwrap_or_default(),
        memory: bytes("MemTotal:").unwrap_or(0),
        free: bytes("MemFree:").unwrap_or(0),
        distances: distances
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect(),
        allowed: allowed.is_none_or(|set| set.contains(node)),
    }
}
