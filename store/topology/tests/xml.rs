//! hwloc's XML is read as the machine that it describes, what does not describe one is refused with its line, and what is near
//! what follows from it: on a machine made by hand, and on real ones where their files are beside the checkout.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

mod support;

use bridgehead_topology::{Gpu, MAX_XML, NumberSet, Topology};
use std::collections::BTreeSet;
use support::{BY_HAND, real_machines};

/// The facts of a text keep the laws of every machine.
fn check(name: &str, text: &str) -> Topology {
    let t = Topology::from_xml(text).unwrap_or_else(|error| panic!("{name}: {error}"));
    let online = &t.processors.online;
    for groups in [&t.processors.by_core, &t.processors.by_package] {
        parts_of(name, groups.iter(), online);
    }
    let near = t.numa.iter().map(|node| &node.processors);
    parts_of(name, near.filter(|set| !set.is_empty()), online);
    assert_eq!(t.processors.allowed.common(online), t.processors.allowed, "{name}");
    assert_eq!(
        t.memory.total,
        t.numa.iter().map(|node| node.memory).sum::<u64>(),
        "{name}"
    );
    memory_is_near_cores(name, &t);
    no_device_is_there_twice(name, &t);
    for links in &t.gpu_links {
        let side = links.gpus.len();
        assert!(side > 1 && links.gpus.iter().all(|&gpu| gpu < t.gpus.len()), "{name}");
        assert!(
            links.values.len() == side && links.values.iter().all(|row| row.len() == side),
            "{name}"
        );
    }
    let written = serde_json::to_string(&t).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&written).unwrap(), t, "{name}");
    t
}

/// Each member of `whole` is in one of the parts, and nothing else is.
fn parts_of<'a>(name: &str, parts: impl Iterator<Item = &'a NumberSet>, whole: &NumberSet) {
    let mut members: Vec<u32> = parts.flat_map(NumberSet::iter).collect();
    members.sort_unstable();
    assert_eq!(members, whole.iter().collect::<Vec<_>>(), "{name}");
}

fn memory_is_near_cores(name: &str, t: &Topology) {
    for node in &t.numa {
        let order = t.nodes_by_distance(node.node);
        assert_eq!((order[0], order.len()), (node.node, t.numa.len()), "{name}");
        assert_eq!(order.iter().collect::<BTreeSet<_>>().len(), order.len(), "{name}");
        let far: Vec<_> = order.iter().map(|&to| t.distance(node.node, to)).collect();
        assert!(far.windows(2).all(|pair| pair[0] <= pair[1]), "{name}: {far:?}");
        let usable = t.usable_processors(node.node);
        assert_eq!(usable.common(&t.processors.allowed), usable, "{name}");
        for cpu in node.processors.iter() {
            let memory = t.memory_near_processor(cpu);
            if node.allowed && node.memory > 0 {
                assert_eq!(memory[0], node.node, "{name}: processor {cpu}");
            } else {
                assert!(!memory.contains(&node.node), "{name}: processor {cpu}");
            }
        }
    }
}

fn no_device_is_there_twice(name: &str, t: &Topology) {
    let numbers: BTreeSet<_> = t.gpus.iter().map(|gpu| (&gpu.vendor, gpu.index)).collect();
    let places: BTreeSet<_> = t.gpus.iter().filter_map(|gpu| gpu.bus.as_ref()).collect();
    let addressed = t.gpus.iter().filter(|gpu| gpu.bus.is_some()).count();
    assert_eq!((numbers.len(), places.len()), (t.gpus.len(), addressed), "{name}");
    // The description of each node names its GPUs, and each GPU names the node first.
    for node in &t.numa {
        let near: Vec<&Gpu> = t.gpus_near_node(node.node).collect();
        let expected = t.gpus.iter().filter(|gpu| gpu.numa_node == Some(node.node));
        assert_eq!(near, expected.collect::<Vec<_>>(), "{name}");
        assert!(near.iter().all(|gpu| t.nodes_near_gpu(gpu)[0] == node.node), "{name}");
    }
    let ports: BTreeSet<_> = t.infiniband.iter().map(|port| (&port.device, port.port)).collect();
    let cards: BTreeSet<_> = t.network.iter().map(|card| &card.name).collect();
    assert_eq!(
        (ports.len(), cards.len()),
        (t.infiniband.len(), t.network.len()),
        "{name}"
    );
}

fn sets(groups: &[NumberSet]) -> Vec<String> {
    groups.iter().map(ToString::to_string).collect()
}

#[test]
fn the_machine_made_by_hand_is_read_whole() {
    let t = check("by hand", BY_HAND);
    let p = &t.processors;
    assert_eq!((p.online.len(), p.cores, p.packages), (16, 8, 2));
    assert_eq!(p.allowed.to_string(), "0-6,8-14");
    assert_eq!(p.model.as_deref(), Some("Made Up 9000"));
    assert_eq!(sets(&p.by_package), ["0-3,8-11", "4-7,12-15"]);
    assert_eq!(sets(&p.by_l3), ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]);
    assert_eq!(sets(&p.by_core)[..3], ["0,8", "1,9", "2,10"]);
    let nodes = t
        .numa
        .iter()
        .map(|n| (n.node, n.processors.to_string(), n.memory >> 30, n.allowed));
    let node = |number, set: &str, gib, allowed| (number, set.to_owned(), gib, allowed);
    let expected = [
        node(0, "0-1,8-9", 16, true),
        node(1, "2-3,10-11", 16, true),
        node(2, "4-5,12-13", 32, true),
        node(3, "6-7,14-15", 32, false),
    ];
    assert_eq!(nodes.collect::<Vec<_>>(), expected);
    assert_eq!(t.numa[1].distances, [12, 10, 32, 28]);
    assert_eq!(t.memory.total, 96 << 30);
    let gpus: Vec<_> = t
        .gpus
        .iter()
        .map(|g| (g.index, g.bus.as_deref().unwrap(), g.numa_node))
        .collect();
    // By NVML's numbers, not CUDA's; the console chip is none.
    let expected = [
        (0, "0000:92:00.0", Some(2)),
        (1, "0000:d2:00.0", Some(3)),
        (2, "0000:12:00.0", Some(0)),
        (3, "0000:52:00.0", Some(1)),
    ];
    assert_eq!(gpus, expected);
    assert!(
        t.gpus
            .iter()
            .all(|g| g.vendor == "nvidia" && g.model.as_deref() == Some("Made Up H1"))
    );
    assert_eq!(t.gpus[0].near.bridges, ["pci0000:90", "0000:90:01.0"]);
    assert_eq!(t.gpus[0].near.processors.to_string(), "4-5,12-13");
    assert_eq!(t.gpus[0].near.link, Some(31_508));
    let ports: Vec<_> = t
        .infiniband
        .iter()
        .map(|p| (p.device.as_str(), p.link.as_deref(), p.active))
        .collect();
    assert_eq!(
        ports,
        [
            ("mlx5_0", Some("InfiniBand"), Some(true)),
            ("mlx5_1", None, Some(false))
        ]
    );
}

#[test]
fn links_between_gpus_are_in_the_order_of_the_gpus() {
    let t = check("by hand", BY_HAND);
    let links = &t.gpu_links[0];
    assert_eq!((links.name.as_str(), links.larger_is_nearer), ("NVLinkBandwidth", true));
    assert_eq!(links.gpus, [0, 1, 2, 3]);
    // The file has GPUs 2, 3, 0, 1, with the faster pair first.
    assert_eq!(links.values[0], [1_000_000, 50_000, 0, 0]);
    assert_eq!(links.values[3], [0, 0, 100_000, 1_000_000]);
}

#[test]
fn what_is_near_follows_from_the_facts() {
    let t = check("by hand", BY_HAND);
    assert_eq!(t.nodes_by_distance(1), [1, 0, 3, 2]);
    assert!(t.nodes_by_distance(9).is_empty());
    assert_eq!(t.usable_processors(3).to_string(), "6,14");
    assert_eq!(t.memory_near_processor(7), [2, 1, 0]); // Node 3, its own, is not allowed.
    assert!(t.memory_near_processor(99).is_empty());
    let near: Vec<u32> = t.gpus_near_node(3).map(|gpu| gpu.index).collect();
    assert_eq!(near, [1]);
    assert_eq!(t.nodes_near_gpu(&t.gpus[3]), [1, 0, 3, 2]);
    let cards = |gpu: usize| -> Vec<_> {
        t.network_near_gpu(&t.gpus[gpu])
            .iter()
            .map(|c| c.name.clone())
            .collect()
    };
    // Below the same bridge; else in the nearer node.
    assert_eq!(
        (cards(3), cards(1)),
        (
            vec!["net0".to_owned(), "net1".to_owned()],
            vec!["net1".to_owned(), "net0".to_owned()]
        )
    );
    assert_eq!((cards(0)[0].as_str(), cards(2)[0].as_str()), ("net1", "net0"));
    assert_eq!(t.infiniband_near_gpu(&t.gpus[0])[0].device, "mlx5_1");
}

#[test]
fn a_card_without_an_address_is_counted_once() {
    let device = |name: &str, kind: u32| format!(r#"<object type="OSDev" name="{name}" osdev_type="{kind}"/>"#);
    let devices = ["cuda0", "cuda1", "nvml0", "nvml1", "opencl0d0"]
        .map(|name| device(name, 5))
        .concat();
    let t = check("loose", &small(&devices));
    let gpus: Vec<_> = t
        .gpus
        .iter()
        .map(|gpu| (gpu.vendor.as_str(), gpu.index, gpu.bus.as_deref()))
        .collect();
    assert_eq!(gpus, [("nvidia", 0, None), ("nvidia", 1, None)]);
}

#[test]
fn gpus_are_told_from_console_chips() {
    let card = |address: &str, kind: &str, inside: &str| {
        format!(r#"<object type="PCIDev" pci_busid="0000:{address}:00.0" pci_type="{kind}">{inside}</object>"#)
    };
    let check = |kind: &str, inside: &str, vendor: Option<&str>| {
        let t = check(kind, &small(&card("0b", kind, inside)));
        let found: Vec<_> = t.gpus.iter().map(|gpu| (gpu.vendor.as_str(), gpu.index)).collect();
        assert_eq!(
            found,
            vendor.map(|vendor| (vendor, 0)).into_iter().collect::<Vec<_>>(),
            "{kind}"
        );
    };
    check("0302 [10de:2330]", "", Some("nvidia"));
    check("0300 [10de:11ba]", "", Some("nvidia"));
    check("0380 [1002:7408]", "", Some("amd"));
    check("1200 [1002:74a1]", "", Some("amd"));
    check("0380 [8086:0bd5]", "", Some("intel"));
    check(
        "0300 [1a03:2000]",
        r#"<object type="OSDev" name="card0" osdev_type="1"/>"#,
        None,
    ); // ASPEED's
    check("0300 [1002:515e]", "", None); // ATI's ES1000
    check(
        "0300 [1002:73bf]",
        r#"<object type="OSDev" name="rsmi0" osdev_type="1"/>"#,
        Some("amd"),
    );
    check("1200 [1da3:1020]", "", None);
    check("0200 [15b3:1021]", "", None);
}

/// A machine of one processor with something inside.
fn small(inside: &str) -> String {
    format!(
        r#"<topology version="2.0">
<object type="Machine" cpuset="0x1" nodeset="0x1" allowed_cpuset="0x1">
<object type="NUMANode" os_index="0" cpuset="0x1" nodeset="0x1" local_memory="4096"/>
<object type="PU" os_index="0" cpuset="0x1" nodeset="0x1"/>
{inside}
</object>
</topology>"#
    )
}

/// A text is refused, with this line and these words.
fn refused(text: &str, line: u32, words: &str) {
    let error = Topology::from_xml(text).unwrap_err();
    assert!(error.reason.contains(words), "{error}: expected {words:?}");
    assert_eq!(error.line, line, "{error}");
    assert_eq!(error.to_string(), format!("line {line}: {}", error.reason));
}

#[test]
fn what_is_no_description_is_refused_with_its_line() {
    refused("", 1, "root node");
    refused("nonsense", 1, "unknown token");
    refused("<html/>", 1, "no description by hwloc: it begins with <html>");
    refused("<topology/>", 1, "hwloc 1");
    refused(r#"<topology version="3.0"/>"#, 1, "format \"3.0\"");
    refused("<topology version=\"2.0\">\n</topology>", 1, "no Machine");
    let no_processor = small("").replace("type=\"PU\"", "type=\"Misc\"");
    refused(&no_processor, 2, "no processor");
    let no_node = small("").replace("type=\"NUMANode\"", "type=\"Misc\"");
    refused(&no_node, 2, "no NUMA node");
}

#[test]
fn what_is_wrong_inside_is_refused_with_its_line() {
    let inside = |inside: &str, words: &str| refused(&small(inside), 5, words);
    inside(r#"<object type="PU" os_index="0"/>"#, "processor 0 is there twice");
    inside(r#"<object type="PU"/>"#, "no os_index");
    inside(r#"<object type="PU" os_index="65536"/>"#, "os_index is 65536 or more");
    inside(r#"<object type="PU" os_index="-1"/>"#, "os_index=\"-1\" is no number");
    inside(r#"<object type="Teapot"/>"#, "no object of type \"Teapot\"");
    inside(
        r#"<object type="NUMANode" os_index="0" cpuset="0x1"/>"#,
        "NUMA node 0 is there twice",
    );
    inside(
        r#"<object type="NUMANode" os_index="1" cpuset="0xf...f"/>"#,
        "is no set",
    );
    inside(
        r#"<object type="NUMANode" os_index="1" local_memory="99999999999999999999"/>"#,
        "local_memory",
    );
    inside(r#"<object type="OSDev" name="x"/>"#, "osdev_type is missing");
    inside(
        "<object type=\"OSDev\" name=\"a\u{9b}2J\" osdev_type=\"2\"/>",
        "control characters",
    );
    inside(
        r#"<object type="PCIDev" pci_busid="3b" pci_type="0302 [10de:1]"/>"#,
        "pci_busid=\"3b\"",
    );
    inside(
        r#"<object type="PCIDev" pci_busid="0000:3b:00.0" pci_type="?"/>"#,
        "pci_type=\"?\"",
    );
    inside(r#"<object type="Bridge" bridge_pci="0000"/>"#, "bridge_pci");
    let card = r#"<object type="PCIDev" pci_busid="0000:3b:00.0" pci_type="0302 [10de:1]"/>"#;
    inside(&format!("{card}{card}"), "0000:3b:00.0 is there twice");
    let one = r#"<object type="PCIDev" pci_busid="0000:3b:00.0" pci_type="0302 [10de:1]"><object type="OSDev" name="nvml0" osdev_type="1"/></object>"#;
    inside(
        &format!("{one}{}", one.replace("3b", "3c")),
        "two GPUs of nvidia have the number 0",
    );
}

#[test]
fn matrices_that_do_not_fit_are_refused() {
    let matrix = |text: &str, words: &str| {
        let text = small("").replace("</object>\n</topology>", &format!("</object>\n{text}</topology>"));
        refused(&text, 7, words);
    };
    let of = |side: &str, indexes: &str, values: &str| {
        format!(
            r#"<distances2 type="NUMANode" nbobjs="{side}" kind="5" name="x" indexing="os"><indexes>{indexes}</indexes><u64values>{values}</u64values></distances2>"#
        )
    };
    matrix(&of("2", "0 1", "10 20 20"), "names 2 and has 3 values");
    matrix(&of("1", "0 1", "10"), "names 2 and has 1 values");
    matrix(&of("1", "0", "ten"), "u64values=\"ten\"");
    matrix(&of("1025", "0", "10"), "more than 1024 objects");
    matrix(&of("1", "0", "10").repeat(65), "more than 64 matrices");
}

#[test]
fn texts_that_would_eat_memory_are_refused() {
    let bomb = r#"<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]>"#;
    refused(
        &format!("<?xml version=\"1.0\"?>\n{bomb}{}", small("&b;")),
        2,
        "entities",
    );
    refused(&" ".repeat(MAX_XML + 1), 1, "longer than 16 MiB");
    // Either would take minutes.
    let namespaces = |depth: usize| (0..depth).map(|n| format!("<a xmlns:b{n}=\"c\">")).collect::<String>();
    refused(&small(&namespaces(10_000)), 5, "namespaces");
    let attributes: String = (0..10_000).map(|n| format!(" a{n}=\"\"")).collect();
    refused(&small(&format!("<info{attributes}/>")), 5, "more than 256 attributes");
    let deep = |element: &str, depth: usize| {
        format!(
            "{}{}",
            format!("<{element}>").repeat(depth),
            format!("</{}>", element.split(' ').next().unwrap()).repeat(depth)
        )
    };
    refused(
        &small(&deep("object type=\"Group\"", 65)),
        5,
        "nested more than 64 deep",
    );
    check("elements that are not looked at", &small(&deep("userdata", 20_000)));
    let node = |number: usize| {
        format!(
            r#"<object type="NUMANode" os_index="{number}" cpuset="{}"/>"#,
            ["ffffffff"; 2048].join(",")
        )
    };
    refused(&small(&(1..100).map(node).collect::<String>()), 5, "too many members");
    let device = |number: usize| format!(r#"<object type="OSDev" name="eth{number}" osdev_type="2"/>"#);
    refused(
        &small(&(0..4097).map(device).collect::<String>()),
        5,
        "more than 4096 devices",
    );
    let parts = "<info/>".repeat(1 << 20);
    assert!(
        Topology::from_xml(&small(&parts))
            .unwrap_err()
            .reason
            .contains("nodes limit")
    );
}

/// Bytes of a good text changed at random, and texts cut short, are read or refused, and never more than that.
#[test]
fn damaged_texts_never_break_the_reader() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        usize::try_from(seed % below as u64).unwrap()
    };
    let mut read = 0;
    for round in 0..600 {
        let mut bytes = BY_HAND.as_bytes().to_vec();
        for _ in 0..=random(4) {
            let at = random(bytes.len());
            bytes[at] = b"0123456789abcdefx<>\"=/ &;-"[random(26)];
        }
        if round % 4 == 0 {
            bytes.truncate(random(bytes.len()));
        }
        let text = String::from_utf8(bytes).unwrap();
        let lines = u32::try_from(text.lines().count()).unwrap() + 1;
        match Topology::from_xml(&text) {
            Ok(_) => read += 1,
            Err(error) => assert!((1..=lines).contains(&error.line), "{error}"),
        }
    }
    assert!(read > 0 && read < 600, "some damage is harmless, some is not: {read}");
}

#[test]
fn real_machines_keep_the_laws() {
    // Threads, cores, packages, NUMA nodes, GPUs, cards, ports.
    let facts = [
        ("64intel64-3g2n+2n-irregulargroups+pci", [64, 64, 8, 8, 2, 2, 0]),
        ("96em64t-4n4d3ca2co-pci", [96, 96, 16, 4, 0, 8, 0]),
        ("coral-lassen", [160, 40, 2, 2, 4, 6, 4]),
        ("eas-tioga", [128, 64, 1, 4, 8, 5, 0]),
        ("epyc-corona-p2", [96, 48, 2, 2, 8, 3, 1]),
        ("g4dnmetal", [96, 48, 2, 2, 8, 1, 1]),
        ("nvidiaDGX2", [4, 4, 2, 2, 16, 0, 0]),
        ("power8gpudistances", [16, 8, 2, 2, 4, 0, 0]),
    ];
    for (name, text) in real_machines() {
        let t = check(&name, &text);
        let p = &t.processors;
        let devices = [t.gpus.len(), t.network.len(), t.infiniband.len()];
        let found = [p.online.len(), p.by_core.len(), p.by_package.len(), t.numa.len()];
        if let Some((_, expected)) = facts.iter().find(|(known, _)| *known == name) {
            assert_eq!([found.as_slice(), &devices].concat(), expected, "{name}");
        }
    }
}

#[test]
fn a_real_machine_whose_gpus_are_not_in_the_order_of_nodes_has_each_with_its_card() {
    for (name, text) in real_machines().into_iter().filter(|(name, _)| name == "eas-tioga") {
        let t = check(&name, &text);
        let nodes: Vec<_> = t.gpus.iter().map(|gpu| gpu.numa_node.unwrap()).collect();
        assert_eq!(nodes, [3, 3, 1, 1, 0, 0, 2, 2]);
        let cards: Vec<_> = t
            .gpus
            .iter()
            .map(|gpu| t.network_near_gpu(gpu)[0].name.as_str())
            .collect();
        assert_eq!(cards, ["hsi0", "hsi0", "hsi1", "hsi1", "hsi2", "hsi2", "hsi3", "hsi3"]);
        assert_eq!(
            t.gpu_links.iter().map(|links| links.name.as_str()).collect::<Vec<_>>(),
            ["XGMIBandwidth", "XGMIHops"]
        );
        assert_eq!(sets(&t.processors.by_l3).len(), 8);
    }
}

#[test]
fn a_real_machine_with_sparse_numbers_of_nodes_has_its_ports_near_its_gpus() {
    for (name, text) in real_machines().into_iter().filter(|(name, _)| name == "coral-lassen") {
        let t = check(&name, &text);
        assert_eq!(t.nodes_by_distance(8), [8, 0]);
        assert_eq!((t.distance(0, 8), t.distance(8, 8)), (Some(40), Some(10)));
        let ports: Vec<_> = t
            .gpus
            .iter()
            .map(|gpu| t.infiniband_near_gpu(gpu)[0].numa_node)
            .collect();
        assert_eq!(ports, [Some(0), Some(0), Some(8), Some(8)]);
    }
}

#[test]
fn gpus_behind_switches_reach_one_another() {
    for (name, text) in real_machines().into_iter().filter(|(name, _)| name == "nvidiaDGX2") {
        let t = check(&name, &text);
        let values = &t.gpu_links[0].values;
        for (from, row) in values.iter().enumerate() {
            // Six links of 25 GB/s each.
            assert!(
                (0..16).all(|to| row[to] == if from == to { 0 } else { 150_000 }),
                "{name}"
            );
        }
    }
}
