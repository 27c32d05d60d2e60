//! What follows from a topology for placing work and data: which memory, processors and devices are near one another. Facts only:
//! who gets what is the scheduler's to decide. Pure.

use crate::devices::{Gpu, InfinibandPort, NetworkCard};
use crate::locality::Locality;
use crate::set::NumberSet;
use crate::{NumaNode, Topology};
use std::cmp::Reverse;

/// Between nodes whose distance is not told, and between what is not on one: farther than all that is told.
const FAR: u32 = u32::MAX;

impl Topology {
    /// The node with this number.
    #[must_use]
    pub fn node(&self, number: u32) -> Option<&NumaNode> {
        self.numa.iter().find(|node| node.node == number)
    }

    /// How far the second node is from the first; `None` where it is not told.
    #[must_use]
    pub fn distance(&self, from: u32, to: u32) -> Option<u32> {
        let place = self.numa.iter().position(|node| node.node == to)?;
        self.node(from)?.distances.get(place).copied()
    }

    /// Numbers of all nodes in the order of their distance from this one, itself first; equally far ones by number. Empty if there
    /// is no such node.
    #[must_use]
    pub fn nodes_by_distance(&self, from: u32) -> Vec<u32> {
        if self.node(from).is_none() {
            return Vec::new();
        }
        let mut nodes: Vec<u32> = self.numa.iter().map(|node| node.node).collect();
        nodes.sort_by_key(|&to| (to != from, self.distance(from, to).unwrap_or(FAR), to));
        nodes
    }

    /// Processors of a node that this process may use.
    #[must_use]
    pub fn usable_processors(&self, node: u32) -> NumberSet {
        self.node(node).map_or_else(NumberSet::default, |node| {
            node.processors.common(&self.processors.allowed)
        })
    }

    /// Nodes with memory that this process may use, nearest to a processor first: where what runs there should have its data.
    #[must_use]
    pub fn memory_near_processor(&self, processor: u32) -> Vec<u32> {
        let own = self.numa.iter().find(|node| node.processors.contains(processor));
        let mut nodes = own.map_or_else(Vec::new, |node| self.nodes_by_distance(node.node));
        nodes.retain(|&node| self.node(node).is_some_and(|node| node.allowed && node.memory > 0));
        nodes
    }

    /// GPUs near a node. One that is equally near to several nodes is in the answer for each of these, one that is near to none
    /// in no answer.
    pub fn gpus_near_node(&self, node: u32) -> impl Iterator<Item = &Gpu> {
        self.gpus.iter().filter(move |gpu| gpu.near.nodes.contains(node))
    }

    /// How far a node is from a GPU: 0 where it is near, else as from the nearest of the nodes that are. `None` where it is not
    /// told.
    #[must_use]
    pub fn distance_from_gpu(&self, gpu: &Gpu, node: u32) -> Option<u32> {
        Some(self.distance_from(&gpu.near, node)).filter(|&distance| distance != FAR)
    }

    /// Numbers of all nodes, nearest to a GPU first.
    #[must_use]
    pub fn nodes_near_gpu(&self, gpu: &Gpu) -> Vec<u32> {
        let mut nodes: Vec<u32> = self.numa.iter().map(|node| node.node).collect();
        nodes.sort_by_key(|&node| (self.distance_from(&gpu.near, node), node));
        nodes
    }

    /// Network cards, nearest to a GPU first: by the bridges that both hang below, then by distance of their nodes. Of equally
    /// near ones those with the faster link come first, then those that are near to the same processors.
    #[must_use]
    pub fn network_near_gpu(&self, gpu: &Gpu) -> Vec<&NetworkCard> {
        let mut cards: Vec<_> = self.network.iter().collect();
        cards.sort_by_key(|card| self.between(&gpu.near, &card.near));
        cards
    }

    /// Ports of InfiniBand and RoCE adapters, nearest to a GPU first.
    #[must_use]
    pub fn infiniband_near_gpu(&self, gpu: &Gpu) -> Vec<&InfinibandPort> {
        let mut ports: Vec<_> = self.infiniband.iter().collect();
        ports.sort_by_key(|port| self.between(&gpu.near, &port.near));
        ports
    }

    /// The network cards that are nearest to a node: several where equally near ones are equally fast. Those that are down do not
    /// count.
    #[must_use]
    pub fn network_nearest_node(&self, node: u32) -> Vec<&NetworkCard> {
        let up = self.network.iter().filter(|card| card.up != Some(false));
        nearest(up, |card| {
            let speed = card.speed.unwrap_or(0);
            (self.distance_from(&card.near, node), Reverse((speed, card.near.link)))
        })
    }

    /// The ports of InfiniBand and RoCE adapters that are nearest to a node, as for network cards.
    #[must_use]
    pub fn infiniband_nearest_node(&self, node: u32) -> Vec<&InfinibandPort> {
        let active = self.infiniband.iter().filter(|port| port.active != Some(false));
        nearest(active, |port| {
            (self.distance_from(&port.near, node), Reverse(port.near.link))
        })
    }

    /// How far a node is from a device: from the nearest of the nodes that the device is near to.
    fn distance_from(&self, device: &Locality, node: u32) -> u32 {
        let own = device.nodes.iter();
        own.map(|near| match near == node {
            true => 0,
            false => self.distance(near, node).unwrap_or(FAR),
        })
        .min()
        .unwrap_or(FAR)
    }

    /// Smaller is nearer.
    fn between(&self, a: &Locality, b: &Locality) -> (Reverse<usize>, u32, Reverse<u32>, Reverse<usize>) {
        let shared = a.bridges.iter().zip(&b.bridges).take_while(|(a, b)| a == b).count();
        let nodes = b.nodes.iter().map(|node| self.distance_from(a, node)).min();
        let processors = a.processors.common(&b.processors).len();
        let link = b.link.unwrap_or(0);
        (
            Reverse(shared),
            nodes.unwrap_or(FAR),
            Reverse(link),
            Reverse(processors),
        )
    }
}

/// All that have the smallest key, in their order.
fn nearest<'a, T, K: Ord>(all: impl Iterator<Item = &'a T>, key: impl Fn(&T) -> K) -> Vec<&'a T> {
    let mut found: Vec<&T> = all.collect();
    let least = found.iter().map(|one| key(one)).min();
    found.retain(|one| least.as_ref() == Some(&key(one)));
    found
}
