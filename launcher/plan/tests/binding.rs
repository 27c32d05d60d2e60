//! The laws of binding, on a machine made by hand and on the descriptions of real ones where this checkout has them beside it.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

#[path = "../../../store/topology/tests/support/mod.rs"]
mod support;

use bridgehead_plan::binding::{BindError, RankBinding, Wish, bind};
use bridgehead_spec::MapSpec;
use bridgehead_topology::{NumberSet, Topology};
use std::collections::{BTreeMap, BTreeSet};
use support::{BY_HAND, real_machines};

/// Two packages of two NUMA nodes of two cores of two threads; thread `n + 8` is on the core of `n`.
fn by_hand() -> Topology {
    Topology::from_xml(BY_HAND).unwrap()
}

fn set(text: &str) -> NumberSet {
    text.parse().unwrap()
}

fn machines() -> Vec<(String, Topology)> {
    let mut all = vec![("by-hand".to_owned(), by_hand())];
    let real = real_machines().into_iter();
    all.extend(real.map(|(name, text)| (name, Topology::from_xml(&text).unwrap())));
    all
}

/// The real machine of this name, if it is there.
fn real(name: &str) -> Option<Topology> {
    let found = real_machines().into_iter().find(|(known, _)| known == name);
    if found.is_none() {
        println!("skipped: no topology of {name}");
    }
    found.map(|(_, text)| Topology::from_xml(&text).unwrap())
}

fn wish<'a>(ranks: u32, cpus: u64, map: MapSpec, processors: &'a NumberSet) -> Wish<'a> {
    Wish {
        ranks,
        cpu_millis: 1000 * cpus,
        gpus: 0,
        map,
        processors,
        gpus_free: &[],
    }
}

/// The processors of each rank.
fn processors(bound: &[RankBinding]) -> Vec<String> {
    let sets = bound
        .iter()
        .map(|rank| NumberSet::from_iter(rank.processors.iter().copied()));
    sets.map(|set| set.to_string()).collect()
}

#[track_caller]
fn check(topology: &Topology, wish: &Wish<'_>, expected: &[&str]) -> Vec<RankBinding> {
    let bound = bind(topology, wish).unwrap();
    assert_eq!(processors(&bound), expected, "{bound:#?}");
    bound
}

fn numa(bound: &[RankBinding]) -> Vec<Option<u32>> {
    bound.iter().map(|rank| rank.numa).collect()
}

#[test]
fn neighbouring_ranks_are_on_neighbouring_cores_and_share_one_only_when_all_are_taken() {
    let t = by_hand();
    let all = set("0-15");
    let core = |ranks, cpus| wish(ranks, cpus, MapSpec::Core, &all);
    check(&t, &core(2, 1), &["0", "1"]);
    check(&t, &core(5, 1), &["0", "1", "2", "3", "4"]);
    check(&t, &core(10, 1), &["0", "8", "1", "9", "2", "3", "4", "5", "6", "7"]);
    // Whole cores first.
    check(&t, &core(3, 2), &["0,8", "1,9", "2,10"]);
    check(&t, &core(2, 3), &["0-1,8", "2-3,10"]);
    check(&t, &core(4, 4), &["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]);
    // In this map nothing is said of a node.
    check(&t, &wish(2, 1, MapSpec::Node, &all), &["0", "1"]);
}

#[test]
fn a_rank_lies_within_a_numa_node_where_one_has_enough_left() {
    let t = by_hand();
    let free = set("0-1,4-5,8-9,12");
    let bound = check(&t, &wish(2, 3, MapSpec::Core, &free), &["0-1,8", "4-5,12"]);
    assert_eq!(numa(&bound), [Some(0), Some(2)]);
    // Four and three are free: two ranks of two fit on the first node, one on the other; the fourth takes what is left.
    let free = set("0-1,3-5,8,12");
    let bound = bind(&t, &wish(3, 2, MapSpec::Core, &free)).unwrap();
    assert_eq!(numa(&bound), [Some(0), Some(2), None], "{bound:#?}");
    assert!(bound[2].reason.contains("several NUMA nodes"), "{}", bound[2].reason);
    // Of nodes that hold all the fullest is taken, so that another keeps its room.
    let free = set("0-1,8-9,5,13");
    check(&t, &wish(1, 1, MapSpec::Core, &free), &["5"]);
    // Another thread of the core of 4 is not free, so a whole core is better.
    let free = set("0-1,8-9,4");
    check(&t, &wish(1, 1, MapSpec::Core, &free), &["0"]);
}

#[test]
fn ranks_by_numa_node_or_socket_are_equal_blocks_of_neighbours() {
    let t = by_hand();
    let all = set("0-15");
    let bound = bind(&t, &wish(8, 1, MapSpec::Numa, &all)).unwrap();
    assert_eq!(processors(&bound), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    let bound = bind(&t, &wish(6, 1, MapSpec::Numa, &all)).unwrap();
    assert_eq!(processors(&bound), ["0", "1", "2", "3", "4", "6"]);
    let bound = bind(&t, &wish(4, 1, MapSpec::Socket, &all)).unwrap();
    assert_eq!(processors(&bound), ["0", "1", "4", "5"]);
    let bound = bind(&t, &wish(2, 4, MapSpec::Socket, &all)).unwrap();
    assert_eq!(processors(&bound), ["0-1,8-9", "4-5,12-13"]);
    // Even blocks come before cores of one's own, and what fits at all before even blocks.
    let free = set("0,8,4-7,12-15");
    let bound = bind(&t, &wish(4, 1, MapSpec::Socket, &free)).unwrap();
    assert_eq!(processors(&bound), ["0", "8", "4", "5"]);
    let bound = bind(&t, &wish(6, 1, MapSpec::Socket, &free)).unwrap();
    assert_eq!(processors(&bound)[..2], ["0", "8"]);
}

#[test]
fn eight_ranks_on_two_numa_nodes_are_four_and_four() {
    let Some(t) = real("epyc-corona-p2") else { return };
    let all = t.processors.allowed.clone();
    for map in [MapSpec::Numa, MapSpec::Socket] {
        let bound = bind(&t, &wish(8, 2, map, &all)).unwrap();
        let nodes: Vec<u32> = bound.iter().map(|rank| rank.numa.unwrap()).collect();
        assert_eq!(nodes, [0, 0, 0, 0, 1, 1, 1, 1], "{map:?}");
        assert_eq!(processors(&bound)[..2], ["0,48", "1,49"]);
    }
}

#[test]
fn a_rank_with_less_than_a_core_shares_what_is_free_on_its_node() {
    let t = by_hand();
    let free = set("0-1,2,8,10");
    let shares = |ranks, cpu_millis| Wish {
        cpu_millis,
        ..wish(ranks, 0, MapSpec::Core, &free)
    };
    let bound = check(&t, &shares(3, 500), &["2,10", "2,10", "2,10"]);
    assert_eq!(numa(&bound), [Some(1); 3]);
    assert!(bound[0].reason.contains("share"), "{}", bound[0].reason);
    check(&t, &shares(5, 500), &["0-1,8"; 5]);
    check(&t, &shares(3, 1500), &["0-1,8", "0-1,8", "2,10"]);
    check(&t, &shares(2, 0), &["2,10"; 2]);
    check(&t, &shares(3, 1600), &["0-1,8", "2,10", "0-2,8,10"]);
}

#[test]
fn ranks_go_unbound_where_fewer_processors_are_free_than_their_agent_counts() {
    let t = by_hand();
    let free = set("0-2");
    let bound = check(&t, &wish(2, 2, MapSpec::Numa, &free), &["", ""]);
    assert_eq!(
        bound[0],
        RankBinding {
            reason: "not bound: the ranks have 4 cores, of processors that may be used 3 are free".to_owned(),
            ..RankBinding::default()
        }
    );
    let none = set("");
    check(&t, &wish(1, 0, MapSpec::Core, &none), &[""]);
    assert_eq!(bind(&t, &wish(0, 1, MapSpec::Core, &none)), Ok(Vec::new()));
    // GPUs are theirs all the same.
    let with_gpus = Wish {
        gpus: 1,
        gpus_free: &[3, 1],
        ..wish(2, 2, MapSpec::Gpu, &free)
    };
    let bound = check(&t, &with_gpus, &["", ""]);
    assert_eq!((&bound[0].gpus[..], &bound[1].gpus[..]), (&[1][..], &[3][..]));
    assert_eq!(bound[0].network.as_deref(), Some("net1"));
}

#[test]
fn too_few_gpus_are_an_error_that_names_both_numbers() {
    let t = by_hand();
    let all = set("0-15");
    let twice = Wish {
        gpus: 2,
        gpus_free: &[0, 1, 1, 2],
        ..wish(2, 1, MapSpec::Core, &all)
    };
    let error = bind(&t, &twice).unwrap_err();
    assert!(matches!(error, BindError::Gpus { asked: 4, free: 3, .. }));
    assert!(error.to_string().contains("need 4, 3 are free"), "{error}");
}

#[test]
fn each_rank_has_processors_and_a_card_beside_its_gpu() {
    let t = by_hand();
    let all = set("0-6,8-14");
    let one_each = Wish {
        gpus: 1,
        gpus_free: &[0, 1, 2, 3],
        ..wish(4, 1, MapSpec::Core, &all)
    };
    let bound = check(&t, &one_each, &["0", "2", "4", "6"]);
    let gpus: Vec<u32> = bound.iter().map(|rank| rank.gpus[0]).collect();
    assert_eq!(gpus, [2, 3, 0, 1], "in the order of nodes, not of GPUs");
    assert_eq!(
        numa(&bound),
        [Some(0), Some(1), Some(2), Some(2)],
        "memory of node 3 may not be used"
    );
    assert_eq!(bound[0].reason, "own processors on NUMA node 0, beside GPU 2");
    assert_eq!(bound[3].reason, "own processors on NUMA node 3, beside GPU 1");
    let cards: Vec<_> = bound.iter().map(|rank| rank.network.as_deref().unwrap()).collect();
    assert_eq!(cards, ["net0", "net0", "net1", "net1"]);
    let ports = bound.iter().map(|rank| rank.infiniband.as_deref().unwrap());
    assert!(
        ports.into_iter().all(|port| port == "mlx5_0:1"),
        "the other port is down"
    );
    // Where no processor is free beside it, the nearest will do, and the reason tells.
    let far = set("4-5");
    let away = Wish {
        gpus: 1,
        gpus_free: &[2],
        ..wish(1, 1, MapSpec::Gpu, &far)
    };
    let bound = check(&t, &away, &["4"]);
    assert_eq!(bound[0].reason, "own processors on NUMA node 2, away from GPU 2");
    // One that the topology does not know is near to nothing.
    let unknown = Wish {
        gpus_free: &[77],
        ..away
    };
    assert_eq!(check(&t, &unknown, &["4"])[0].gpus, [77]);
}

#[test]
fn eight_ranks_with_a_gpu_each_on_a_dgx_2_have_eight_gpus_and_processors_near_each() {
    let Some(t) = real("nvidiaDGX2") else { return };
    let all = t.processors.allowed.clone(); // Four processors are in the file, two beside eight GPUs each.
    let free: Vec<u32> = (0..16).collect();
    for cpu_millis in [500, 250, 0] {
        let half = Wish {
            cpu_millis,
            gpus: 1,
            gpus_free: &free,
            ..wish(8, 0, MapSpec::Core, &all)
        };
        let bound = bind(&t, &half).unwrap();
        let gpus: BTreeSet<u32> = bound.iter().map(|rank| rank.gpus[0]).collect();
        assert_eq!(gpus.len(), 8);
        for rank in &bound {
            let gpu = &t.gpus[rank.gpus[0] as usize];
            assert!(rank.processors.iter().all(|&cpu| gpu.near.processors.contains(cpu)));
            assert_eq!(rank.numa, gpu.numa_node);
        }
    }
    let whole = Wish {
        gpus: 4,
        gpus_free: &free,
        ..wish(4, 1, MapSpec::Gpu, &all)
    };
    let bound = check(&t, &whole, &["0", "1", "24", "25"]);
    assert_eq!(
        (&bound[1].gpus[..], &bound[2].gpus[..]),
        (&[4, 5, 6, 7][..], &[8, 9, 10, 11][..])
    );
}

#[test]
fn on_a_node_whose_gpus_are_not_in_the_order_of_numa_nodes_each_rank_has_its_gpus_cores_and_card() {
    let Some(t) = real("eas-tioga") else { return };
    let all = t.processors.allowed.clone();
    let free: Vec<u32> = (0..8).collect();
    let one_each = Wish {
        gpus: 1,
        gpus_free: &free,
        ..wish(8, 16, MapSpec::Gpu, &all)
    };
    let bound = bind(&t, &one_each).unwrap();
    let gpus: Vec<u32> = bound.iter().map(|rank| rank.gpus[0]).collect();
    assert_eq!(gpus, [4, 5, 2, 3, 6, 7, 0, 1]);
    for rank in &bound {
        let gpu = &t.gpus[rank.gpus[0] as usize];
        let own = NumberSet::from_iter(rank.processors.iter().copied());
        assert_eq!(own, gpu.near.processors, "those that share its cache");
    }
    let cards: Vec<_> = bound.iter().map(|rank| rank.network.as_deref().unwrap()).collect();
    assert_eq!(cards, ["hsi2", "hsi2", "hsi1", "hsi1", "hsi3", "hsi3", "hsi0", "hsi0"]);
}

#[test]
fn ranks_without_gpus_take_equally_near_ports_in_turn() {
    let Some(t) = real("coral-lassen") else { return };
    let all = t.processors.allowed.clone();
    let bound = bind(&t, &wish(8, 4, MapSpec::Socket, &all)).unwrap();
    assert_eq!(processors(&bound)[..2], ["8-11", "12-15"]);
    let ports: Vec<_> = bound.iter().map(|rank| rank.infiniband.as_deref().unwrap()).collect();
    let (first, second) = (["mlx5_0:1", "mlx5_1:1"], ["mlx5_2:1", "mlx5_3:1"]);
    assert_eq!(ports, [first, first, second, second].concat());
}

/// A small generator (xorshift64*), so that a seed gives the same wishes for ever.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % n
    }

    /// Some of these, few or many or all.
    fn some(&mut self, of: impl Iterator<Item = u32>) -> Vec<u32> {
        let keep = 1 + self.below(4);
        of.filter(|_| self.below(4) < keep).collect()
    }
}

/// What holds for every answer.
fn check_laws(name: &str, t: &Topology, wish: &Wish<'_>, bound: &[RankBinding]) {
    let told = || format!("{name}: {wish:?} -> {bound:#?}");
    assert_eq!(bound.len(), wish.ranks as usize, "{}", told());
    let gpus: Vec<u32> = bound.iter().flat_map(|rank| rank.gpus.clone()).collect();
    let distinct: BTreeSet<u32> = gpus.iter().copied().collect();
    assert_eq!(gpus.len(), distinct.len(), "no GPU twice: {}", told());
    assert!(gpus.iter().all(|gpu| wish.gpus_free.contains(gpu)), "{}", told());
    let given: Vec<u32> = bound.iter().flat_map(|rank| rank.processors.clone()).collect();
    assert!(given.iter().all(|&cpu| wish.processors.contains(cpu)), "{}", told());
    let lacks = u64::from(wish.ranks) * wish.cpu_millis > 1000 * wish.processors.len() as u64;
    let own = wish.cpu_millis > 0 && wish.cpu_millis.is_multiple_of(1000);
    if own {
        let distinct: BTreeSet<u32> = given.iter().copied().collect();
        assert_eq!(given.len(), distinct.len(), "no processor twice: {}", told());
    }
    for rank in bound {
        assert_eq!(rank.gpus.len(), wish.gpus as usize, "{}", told());
        assert!(!rank.reason.is_empty());
        assert!(rank.processors.is_sorted_by(|a, b| a < b), "{}", told());
        let unbound = lacks || wish.processors.is_empty();
        assert_eq!(rank.processors.is_empty(), unbound, "{}", told());
        if own && !unbound {
            assert_eq!(rank.processors.len() as u64, wish.cpu_millis / 1000, "{}", told());
        }
        let nodes = t.numa.iter();
        let nodes: Vec<_> = nodes
            .filter(|node| rank.processors.iter().any(|&cpu| node.processors.contains(cpu)))
            .collect();
        // Memory is that of the processors' node; where it may not be used, of the nearest that may.
        let memory = (nodes.len() == 1).then(|| t.memory_near_processor(rank.processors[0])[0]);
        assert_eq!(rank.numa, memory, "{}", told());
    }
}

#[test]
fn the_laws_hold_for_random_wishes_on_all_machines() {
    for (name, t) in machines() {
        let mut random = Random(7);
        let (mut bound, mut near) = (0, 0);
        for _ in 0..200 {
            let processors: NumberSet = random.some(t.processors.allowed.iter()).into_iter().collect();
            let mut gpus_free = random.some(0..t.gpus.len() as u32);
            gpus_free.reverse();
            let ranks = 1 + random.below(12) as u32;
            let most = (gpus_free.len() as u64 / u64::from(ranks)).min(3);
            let wish = Wish {
                ranks,
                cpu_millis: [1000, 1000, 2000, 3000, 4000, 500, 0, 1700][random.below(8) as usize],
                gpus: random.below(most + 1) as u32,
                map: [
                    MapSpec::Core,
                    MapSpec::Numa,
                    MapSpec::Socket,
                    MapSpec::Gpu,
                    MapSpec::Node,
                ][random.below(5) as usize],
                processors: &processors,
                gpus_free: &gpus_free,
            };
            let answer = bind(&t, &wish).unwrap();
            assert_eq!(
                bind(&t, &wish).unwrap(),
                answer,
                "the same question has the same answer"
            );
            check_laws(&name, &t, &wish, &answer);
            bound += usize::from(answer.iter().all(|rank| !rank.processors.is_empty()));
            near += usize::from(is_near_all(&t, &wish, &answer));
        }
        assert!(bound > 50, "{name}: many wishes can be bound, {bound} of 200 were");
        assert!(
            near > 0 || t.gpus.is_empty() || name.starts_with("64intel"),
            "{name}: some have all GPUs near"
        );
    }
}

/// Whether every rank has GPUs, and all of them are near its processors.
fn is_near_all(t: &Topology, wish: &Wish<'_>, bound: &[RankBinding]) -> bool {
    let near = |rank: &RankBinding| {
        let mut gpus = rank.gpus.iter().map(|&gpu| &t.gpus[gpu as usize]);
        gpus.all(|gpu| rank.processors.iter().all(|&cpu| is_beside(t, gpu.numa_node, cpu)))
    };
    wish.gpus > 0 && bound.iter().all(|rank| !rank.processors.is_empty() && near(rank))
}

fn is_beside(t: &Topology, node: Option<u32>, cpu: u32) -> bool {
    node.and_then(|node| t.node(node))
        .is_some_and(|node| node.processors.contains(cpu))
}

#[test]
fn a_rank_sits_on_a_node_nearest_to_its_gpu_where_a_processor_is_free_there() {
    for (name, t) in machines() {
        let allowed = t.processors.allowed.clone();
        for gpu in 0..t.gpus.len() as u32 {
            let alone = Wish {
                gpus: 1,
                gpus_free: &[gpu],
                ..wish(1, 1, MapSpec::Core, &allowed)
            };
            let rank = &bind(&t, &alone).unwrap()[0];
            let cpu = rank.processors[0];
            let with_processors = |&node: &u32| !t.usable_processors(node).is_empty();
            let nearest = t
                .nodes_near_gpu(&t.gpus[gpu as usize])
                .into_iter()
                .find(with_processors);
            assert!(is_beside(&t, nearest, cpu), "{name}: GPU {gpu} with processor {cpu}");
        }
    }
}

#[test]
fn blocks_differ_by_one_at_most_on_all_machines() {
    for (name, t) in machines() {
        let allowed = t.processors.allowed.clone();
        for (map, groups) in [
            (
                MapSpec::Numa,
                t.numa.iter().map(|node| node.processors.clone()).collect(),
            ),
            (MapSpec::Socket, t.processors.by_package.clone()),
        ] {
            let groups: Vec<NumberSet> = groups;
            let groups: Vec<NumberSet> = groups.iter().map(|group| group.common(&allowed)).collect();
            let smallest = groups.iter().map(NumberSet::len).filter(|&len| len > 0).min().unwrap();
            let with_room = groups.iter().filter(|group| !group.is_empty()).count();
            for ranks in 1..=smallest * with_room {
                let bound = bind(&t, &wish(ranks as u32, 1, map, &allowed)).unwrap();
                let mut counts: BTreeMap<usize, usize> = BTreeMap::new();
                let mut order = Vec::new();
                for rank in &bound {
                    let at = groups
                        .iter()
                        .position(|group| group.contains(rank.processors[0]))
                        .unwrap();
                    *counts.entry(at).or_default() += 1;
                    order.push(at);
                }
                let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
                assert!(most - least <= 1, "{name}: {ranks} by {map:?} are {counts:?}");
                assert_eq!(counts.len(), ranks.min(with_room), "{name}: {ranks} by {map:?}");
                order.dedup();
                assert_eq!(order.len(), counts.len(), "{name}: neighbours are together");
            }
        }
    }
}
