//! How a store's memory is divided among the NUMA nodes of its machine. A decision only: the shell takes the memory and binds
//! it.

use bridgehead_topology::NumaNode;

/// Arenas begin and end at multiples of this: a huge page.
const GRAIN: u64 = 2 << 20;
/// Below this an arena of a NUMA node of its own is not worth its while.
const LEAST: u64 = 16 << 20;

/// A range of the store that is to lie in the memory of one NUMA node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arena {
    /// That node; `None` where the kernel chooses: the machine has one only.
    pub numa: Option<u32>,
    /// Bytes.
    pub len: u64,
    /// All arenas by their distance from this one, itself first.
    pub nearest: Vec<usize>,
}

impl Arena {
    /// The only arena of a store.
    #[must_use]
    pub fn only(len: u64) -> Self {
        Self {
            numa: None,
            len,
            nearest: vec![0],
        }
    }
}

/// The arenas of a store of `limit` bytes: one for each NUMA node that this process may take memory from and that has processors
/// (memory alone, such as CXL's, is for those who ask for it), in proportion to its memory, one behind the other.
#[must_use]
pub fn divide(limit: u64, nodes: &[NumaNode]) -> Vec<Arena> {
    let is_usable = |node: &NumaNode| node.allowed && !node.processors.is_empty() && node.memory > 0;
    let usable: Vec<usize> = (0..nodes.len()).filter(|&at| is_usable(&nodes[at])).collect();
    let count = usable.len() as u64;
    if count < 2 || limit / count < LEAST {
        return vec![Arena::only(limit)];
    }
    let all: u128 = usable.iter().map(|&at| u128::from(nodes[at].memory)).sum();
    let mut left = limit;
    let mut arenas: Vec<Arena> = usable
        .iter()
        .enumerate()
        .map(|(number, &at)| {
            let share = u128::from(limit) * u128::from(nodes[at].memory) / all;
            #[allow(clippy::cast_possible_truncation)] // A share of the limit is no larger than it.
            let share = (share as u64 / GRAIN * GRAIN).max(GRAIN);
            let len = if number + 1 == usable.len() { left } else { share };
            left -= len;
            Arena {
                numa: Some(nodes[at].node),
                len,
                nearest: nearest(number, nodes, &usable),
            }
        })
        .collect();
    arenas.retain(|arena| arena.len > 0);
    arenas
}

fn nearest(from: usize, nodes: &[NumaNode], usable: &[usize]) -> Vec<usize> {
    let distances = &nodes[usable[from]].distances;
    let mut order: Vec<usize> = (0..usable.len()).collect();
    order.sort_by_key(|&to| {
        let far = distances.get(usable[to]).copied().unwrap_or(u32::MAX);
        (to != from, far, to.abs_diff(from))
    });
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(rows: &[(u32, u64, bool, &[u32])]) -> Vec<NumaNode> {
        let node = |&(node, memory, usable, distances): &(u32, u64, bool, &[u32])| NumaNode {
            node,
            processors: if usable {
                "0-3".parse().expect("a set")
            } else {
                Default::default()
            },
            memory,
            free: 0,
            distances: distances.to_vec(),
            allowed: true,
        };
        rows.iter().map(node).collect()
    }

    /// The arenas are one for each of these NUMA nodes with these bytes, whatever is divided is whole, and orders are complete.
    fn check(limit: u64, nodes: &[NumaNode], expected: &[(Option<u32>, u64)]) -> Vec<Arena> {
        let arenas = divide(limit, nodes);
        let found: Vec<_> = arenas.iter().map(|arena| (arena.numa, arena.len)).collect();
        assert_eq!(found, expected);
        check_whole(limit, &arenas);
        arenas
    }

    fn check_whole(limit: u64, arenas: &[Arena]) {
        assert_eq!(
            arenas.iter().map(|arena| arena.len).sum::<u64>(),
            limit,
            "nothing is lost"
        );
        for (number, arena) in arenas.iter().enumerate() {
            let mut all = arena.nearest.clone();
            assert_eq!(all[0], number, "each is nearest to itself");
            all.sort_unstable();
            assert_eq!(
                all,
                (0..arenas.len()).collect::<Vec<_>>(),
                "each is in every order once"
            );
        }
    }

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_machine_with_one_node_or_a_small_store_has_one_arena_that_is_bound_nowhere() {
        check(GIB, &[], &[(None, GIB)]);
        check(GIB, &machine(&[(0, 64 * GIB, true, &[10])]), &[(None, GIB)]);
        let two = machine(&[(0, GIB, true, &[10, 20]), (1, GIB, true, &[20, 10])]);
        check(20 << 20, &two, &[(None, 20 << 20)]);
    }

    #[test]
    fn shares_follow_the_memory_and_what_may_not_be_used_gets_none() {
        let power9 = machine(&[
            (0, 128 * GIB, true, &[10, 40, 80]),
            (8, 128 * GIB, true, &[40, 10, 80]),
            (255, 16 * GIB, false, &[80, 80, 10]),
        ]);
        check(64 * GIB + 5, &power9, &[(Some(0), 32 * GIB), (Some(8), 32 * GIB + 5)]);
        let uneven = machine(&[(0, GIB, true, &[]), (1, 3 * GIB, true, &[])]);
        check(GIB, &uneven, &[(Some(0), GIB / 4), (Some(1), GIB / 4 * 3)]);
    }

    #[test]
    fn the_nearest_come_first() {
        let ring = machine(&[
            (0, GIB, true, &[10, 20, 30, 21]),
            (1, GIB, true, &[20, 10, 20, 30]),
            (2, GIB, true, &[30, 20, 10, 20]),
            (3, GIB, true, &[21, 30, 20, 10]),
        ]);
        let quarter = GIB / 4;
        let all = [
            (Some(0), quarter),
            (Some(1), quarter),
            (Some(2), quarter),
            (Some(3), quarter),
        ];
        let arenas = check(GIB, &ring, &all);
        assert_eq!(arenas[0].nearest, [0, 1, 3, 2]);
        assert_eq!(arenas[2].nearest, [2, 1, 3, 0]);
    }

    /// A machine's file, where it is: those of real machines are not part of this project.
    fn file(folder: &str, name: &str) -> Option<String> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name);
        let text = std::fs::read_to_string(path).ok();
        if text.is_none() {
            println!("skipped 1: {name} is not here");
        }
        text
    }

    #[test]
    fn the_machines_that_others_described_get_an_arena_for_each_node_with_processors() {
        let real = "../../../shared/topologies";
        for (folder, name, numbers) in [
            ("../topology/tests/machines", "by-hand.xml", &[0, 1, 2][..]),
            (real, "eas-tioga.xml", &[0, 1, 2, 3]),
            (real, "coral-lassen.xml", &[0, 8]),
            (real, "nvidiaDGX2.xml", &[0, 1]),
            (real, "96em64t-4n4d3ca2co-pci.xml", &[0, 1, 2, 3]),
        ] {
            let Some(text) = file(folder, name) else { continue };
            let machine = bridgehead_topology::Topology::from_xml(&text).expect("a machine");
            let arenas = divide(64 * GIB, &machine.numa);
            let found: Vec<u32> = arenas.iter().filter_map(|arena| arena.numa).collect();
            assert_eq!(found, numbers, "{name}");
            check_whole(64 * GIB, &arenas);
        }
    }
}
