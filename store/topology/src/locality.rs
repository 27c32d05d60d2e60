//! Where a device hangs: the NUMA nodes and processors near it and the bridges above it. Owns the type and its reading from
//! sysfs; what follows from it for placement is `placement`'s.

use crate::numa::NumaNode;
use crate::set::NumberSet;
use crate::tree::Tree;
use serde::{Deserialize, Serialize};

/// The surroundings of a device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Locality {
    /// NUMA nodes that are equally near; empty where it is not told, or where all of several are.
    pub nodes: NumberSet,
    /// Processors that are near; empty as above.
    pub processors: NumberSet,
    /// PCI bridges above it, the host's first: `pci0000:40`, `0000:40:01.1`. Empty where it is not on such a bus.
    pub bridges: Vec<String>,
    /// Megabytes a second that its PCI link carries as it is now, where it is told.
    pub link: Option<u32>,
}

/// Where a device is on the bus, before it is known what else is near.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot {
    pub bridges: Vec<String>,
    pub link: Option<u32>,
}

impl Locality {
    /// Surroundings as a system tells them. What is near all of several NUMA nodes is near none; the one node of a machine
    /// is always near.
    pub(crate) fn new(nodes: NumberSet, processors: NumberSet, slot: Slot, numa: &[NumaNode]) -> Self {
        let Slot { bridges, link } = slot;
        let known = numa.iter().filter(|node| nodes.contains(node.node)).count();
        if let [only] = numa {
            let processors = if processors.is_empty() {
                only.processors.clone()
            } else {
                processors
            };
            return Self {
                nodes: [only.node].into_iter().collect(),
                processors,
                bridges,
                link,
            };
        }
        if known == 0 || known == numa.len() {
            return Self {
                bridges,
                link,
                ..Self::default()
            };
        }
        Self {
            nodes,
            processors,
            bridges,
            link,
        }
    }

    /// The node to name where one is asked for: the lowest of those near that has processors, else the lowest.
    pub(crate) fn node(&self, numa: &[NumaNode]) -> Option<u32> {
        let mut near = numa.iter().filter(|node| self.nodes.contains(node.node));
        let lowest = near.clone().next()?;
        Some(near.find(|node| !node.processors.is_empty()).unwrap_or(lowest).node)
    }

    /// Those of the device whose folder in sysfs is `folder`, and that says to hang on `numa_node`.
    pub(crate) fn read(tree: &Tree, folder: &str, numa_node: Option<u32>, numa: &[NumaNode]) -> Self {
        let on_node = numa.iter().find(|node| Some(node.node) == numa_node);
        let processors = tree.value(&format!("{folder}/local_cpulist"));
        let processors = processors.or_else(|| on_node.map(|node| node.processors.clone()));
        Self::new(
            numa_node.into_iter().collect(),
            processors.unwrap_or_default(),
            Slot {
                bridges: bridges(tree, folder),
                link: link(tree, folder),
            },
            numa,
        )
    }
}

/// The bridges on the way `.../pci0000:40/0000:40:01.1/0000:41:00.0/...`: all but the last, which is the device.
fn bridges(tree: &Tree, folder: &str) -> Vec<String> {
    let Ok(path) = std::fs::canonicalize(tree.path(folder)) else {
        return Vec::new();
    };
    let parts = path.iter().filter_map(|part| part.to_str());
    let mut found: Vec<String> = parts.filter(|part| is_bus(part)).map(str::to_owned).collect();
    found.pop();
    found
}

/// Transfers a second of each lane, `16.0 GT/s PCIe`, and lanes; up to 5 GT/s two bits of ten are overhead.
fn link(tree: &Tree, folder: &str) -> Option<u32> {
    let speed = tree.text(&format!("{folder}/current_link_speed"))?;
    let lanes: u64 = tree.value(&format!("{folder}/current_link_width"))?;
    let (whole, tenth) = speed.split_once(" GT/s")?.0.split_once('.')?;
    let transfers = whole.parse::<u64>().ok()?.checked_mul(1000)? + tenth.parse::<u64>().ok()?.checked_mul(100)?;
    let (of, bits) = if transfers <= 5000 { (8, 10) } else { (128, 130) };
    let megabytes = transfers.checked_mul(lanes)?.checked_mul(of)? / bits / 8;
    u32::try_from(megabytes).ok().filter(|&link| link > 0)
}

fn is_bus(name: &str) -> bool {
    name.strip_prefix("pci").is_some_and(|bus| bus.contains(':')) || is_address(name)
}

/// Whether it is of the form `0000:3b:00.0`.
pub(crate) fn is_address(text: &str) -> bool {
    let hex = |part: &str, least: usize, most: usize| {
        (least..=most).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_hexdigit())
    };
    let mut parts = text.split([':', '.']);
    let (domain, bus, device, function) = (parts.next(), parts.next(), parts.next(), parts.next());
    let separators = text.bytes().filter(|c| matches!(c, b':' | b'.'));
    separators.eq(*b"::.")
        && domain.is_some_and(|part| hex(part, 4, 8))
        && bus.is_some_and(|part| hex(part, 2, 2))
        && device.is_some_and(|part| hex(part, 2, 2))
        && function.is_some_and(|part| hex(part, 1, 1))
}
