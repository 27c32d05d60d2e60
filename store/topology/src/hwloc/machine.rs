//! From hwloc's tree to a topology: processors, their groups and NUMA nodes. Devices are `devices`'.

use super::{Description, Key, Kind, Object, Wrong, devices, links, wrong};
use crate::Topology;
use crate::memory::Memory;
use crate::numa::NumaNode;
use crate::processors::Processors;
use crate::set::NumberSet;
use std::collections::{BTreeMap, BTreeSet};

/// Nodes that Linux can have.
const MAX_NODES: usize = 1024;

/// What is gathered on the way through the tree.
#[derive(Default)]
struct Found<'a> {
    online: BTreeSet<u32>,
    cores: Vec<NumberSet>,
    packages: Vec<NumberSet>,
    caches: Vec<NumberSet>,
    nodes: BTreeMap<u32, &'a Object>,
    model: Option<String>,
}

pub(super) fn topology(description: &Description) -> Result<Topology, Wrong> {
    let root = &description.root;
    let mut found = Found::default();
    visit(root, &mut found)?;
    if found.online.is_empty() {
        return wrong(root.line, "it describes no processor");
    }
    if found.nodes.is_empty() {
        return wrong(root.line, "it describes no NUMA node");
    }
    let numa = nodes(&found, description);
    let devices = devices::read(root, &numa)?;
    let gpu_links = links::read(root, &devices.owners, &description.matrices)?;
    let online: NumberSet = found.online.iter().copied().collect();
    let allowed = description
        .allowed
        .as_ref()
        .map_or_else(|| online.clone(), |set| set.common(&online));
    if found.cores.is_empty() {
        found.cores = online.iter().map(|cpu| [cpu].into_iter().collect()).collect();
    }
    if found.packages.is_empty() {
        found.packages = vec![online.clone()];
    }
    Ok(Topology {
        processors: Processors {
            model: found.model,
            ..Processors::grouped(online, allowed, found.cores, found.packages, found.caches)
        },
        memory: Memory {
            total: numa.iter().fold(0, |sum, node| node.memory.saturating_add(sum)),
            ..Memory::default()
        },
        gpus: devices.gpus,
        gpu_links,
        network: devices.network,
        infiniband: devices.infiniband,
        numa,
        ..Topology::default()
    })
}

/// Gathers what is below `object` and gives back the processors there.
fn visit<'a>(object: &'a Object, found: &mut Found<'a>) -> Result<Vec<u32>, Wrong> {
    let mut below = Vec::new();
    let number = |what: &str| match object.number {
        Some(number) => Ok(number),
        None => wrong(object.line, format!("a {what} has no os_index")),
    };
    match object.kind {
        Kind::Processor => {
            let cpu = number("processor")?;
            if !found.online.insert(cpu) {
                return wrong(object.line, format!("processor {cpu} is there twice"));
            }
            below.push(cpu);
        }
        Kind::Node => {
            let node = number("NUMA node")?;
            if found.nodes.insert(node, object).is_some() {
                return wrong(object.line, format!("NUMA node {node} is there twice"));
            }
            if found.nodes.len() > MAX_NODES {
                return wrong(object.line, format!("there are more than {MAX_NODES} NUMA nodes"));
            }
        }
        _ => {}
    }
    for child in &object.children {
        below.extend(visit(child, found)?);
    }
    let groups = match object.kind {
        Kind::Core => &mut found.cores,
        Kind::Package => &mut found.packages,
        Kind::L3 => &mut found.caches,
        _ => return Ok(below),
    };
    if !below.is_empty() {
        groups.push(below.iter().copied().collect());
    }
    if object.kind == Kind::Package && found.model.is_none() {
        found.model = object.infos.get("CPUModel").map(|model| model.trim().to_owned());
    }
    Ok(below)
}

fn nodes(found: &Found<'_>, description: &Description) -> Vec<NumaNode> {
    let online: NumberSet = found.online.iter().copied().collect();
    let distances = distances(found, description);
    let allowed = description.allowed_nodes.as_ref();
    let nodes = found.nodes.iter().enumerate();
    nodes
        .map(|(place, (&node, object))| NumaNode {
            node,
            processors: object.processors.common(&online),
            memory: object.memory,
            free: 0,
            distances: distances.get(place).cloned().unwrap_or_default(),
            allowed: allowed.is_none_or(|set| set.contains(node)),
        })
        .collect()
}

/// Rows of distances in the order of the nodes; none unless all nodes have theirs. A lone node is as near to itself as Linux
/// says that every node is.
fn distances(found: &Found<'_>, description: &Description) -> Vec<Vec<u32>> {
    let by_id: BTreeMap<u64, u32> = found.nodes.iter().map(|(&node, object)| (object.id, node)).collect();
    for matrix in description.matrices.iter().filter(|matrix| matrix.latency) {
        let nodes: Vec<Option<u32>> = matrix
            .objects
            .iter()
            .map(|key| match key {
                Key::Node(node) => Some(*node),
                Key::Id(id) => by_id.get(id).copied(),
                Key::Processor => None,
            })
            .collect();
        let places: Option<Vec<usize>> = found
            .nodes
            .keys()
            .map(|node| nodes.iter().position(|found| *found == Some(*node)))
            .collect();
        let Some(places) = places else { continue };
        let value = |from: usize, to: usize| {
            let value = matrix.values.get(from * nodes.len() + to).copied().unwrap_or(u64::MAX);
            u32::try_from(value).unwrap_or(u32::MAX)
        };
        let row = |&from: &usize| places.iter().map(|&to| value(from, to)).collect();
        return places.iter().map(row).collect();
    }
    match found.nodes.len() {
        1 => vec![vec![crate::numa::NEAR]],
        _ => Vec::new(),
    }
}
