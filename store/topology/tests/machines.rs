//! Machines described by made-up trees of files: each is read as what it is, and as less where files are missing or wrong.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_topology::{NumberSet, Topology};
use std::path::Path;

/// The topology of a machine with these files survives being written down.
fn check(files: &[(&str, &str)]) -> Topology {
    let root = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let topology = Topology::read(root.path());
    let text = serde_json::to_string(&topology).unwrap();
    assert_eq!(serde_json::from_str::<Topology>(&text).unwrap(), topology);
    topology
}

const TWO_SOCKETS: &[(&str, &str)] = &[
    ("sys/devices/system/cpu/online", "0-7\n"),
    ("sys/devices/system/cpu/cpu0/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu0/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu1/topology/core_id", "1\n"),
    ("sys/devices/system/cpu/cpu1/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu2/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu2/topology/physical_package_id", "1\n"),
    ("sys/devices/system/cpu/cpu3/topology/core_id", "1\n"),
    ("sys/devices/system/cpu/cpu3/topology/physical_package_id", "1\n"),
    ("sys/devices/system/cpu/cpu4/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu4/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu5/topology/core_id", "1\n"),
    ("sys/devices/system/cpu/cpu5/topology/physical_package_id", "0\n"),
    ("sys/devices/system/cpu/cpu6/topology/core_id", "0\n"),
    ("sys/devices/system/cpu/cpu6/topology/physical_package_id", "1\n"),
    ("sys/devices/system/cpu/cpu7/topology/core_id", "1\n"),
    ("sys/devices/system/cpu/cpu7/topology/physical_package_id", "1\n"),
    ("sys/devices/system/node/node0/cpulist", "0-1,4-5\n"),
    (
        "sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal:  1024 kB\nNode 0 MemFree:  512 kB\n",
    ),
    ("sys/devices/system/node/node0/distance", "10 21\n"),
    ("sys/devices/system/node/node1/cpulist", "2-3,6-7\n"),
    (
        "sys/devices/system/node/node1/meminfo",
        "Node 1 MemTotal:  2048 kB\nNode 1 MemFree:  256 kB\n",
    ),
    ("sys/devices/system/node/node1/distance", "21 10\n"),
    (
        "proc/meminfo",
        "MemTotal:  3072 kB\nMemFree:  768 kB\nMemAvailable:  1000 kB\n",
    ),
    ("proc/cpuinfo", "processor\t: 0\nmodel name\t: Made Up 9000\n"),
    (
        "proc/self/status",
        "Name:\tx\nCpus_allowed_list:\t0-1,4\nMems_allowed_list:\t0\n",
    ),
    (
        "proc/self/limits",
        "Max locked memory         65536                unlimited            bytes\n",
    ),
];

#[test]
fn cores_threads_and_nodes_are_told_apart() {
    let topology = check(TWO_SOCKETS);
    let cpus = &topology.processors;
    assert_eq!((cpus.online.len(), cpus.cores, cpus.packages), (8, 4, 2));
    assert_eq!(cpus.allowed.to_string(), "0-1,4");
    assert_eq!(cpus.model.as_deref(), Some("Made Up 9000"));
    let nodes: Vec<_> = topology
        .numa
        .iter()
        .map(|n| (n.node, n.processors.to_string(), n.memory, n.free))
        .collect();
    assert_eq!(
        nodes,
        [
            (0, "0-1,4-5".to_owned(), 1 << 20, 512 << 10),
            (1, "2-3,6-7".to_owned(), 2 << 20, 256 << 10)
        ]
    );
    assert_eq!(topology.numa[1].distances, [21, 10]);
    assert_eq!((topology.numa[0].allowed, topology.numa[1].allowed), (true, false));
    assert_eq!(topology.limits.locked_memory, Some(65536));
    assert_eq!(topology.usable_cpu_millis(), 3000);
    assert_eq!(topology.usable_memory(), 3 << 20);
}

#[test]
fn caches_of_the_third_level_are_groups() {
    let mut files = TWO_SOCKETS.to_vec();
    files.extend([
        ("sys/devices/system/cpu/cpu0/cache/index0/level", "1\n"),
        ("sys/devices/system/cpu/cpu0/cache/index0/shared_cpu_list", "0\n"),
        ("sys/devices/system/cpu/cpu0/cache/index3/level", "3\n"),
        ("sys/devices/system/cpu/cpu0/cache/index3/shared_cpu_list", "0-1,4-5\n"),
        ("sys/devices/system/cpu/cpu2/cache/index3/level", "3\n"),
        ("sys/devices/system/cpu/cpu2/cache/index3/shared_cpu_list", "2-3,6-7\n"),
    ]);
    let sets = |groups: &[NumberSet]| groups.iter().map(ToString::to_string).collect::<Vec<_>>();
    let cpus = check(&files).processors;
    assert_eq!(sets(&cpus.by_l3), ["0-1,4-5", "2-3,6-7"]);
    assert_eq!(sets(&cpus.by_core), ["0,4", "1,5", "2,6", "3,7"]);
    assert_eq!(sets(&cpus.by_package), ["0-1,4-5", "2-3,6-7"]);
}

#[test]
fn nodes_with_gaps_in_their_numbers_and_nodes_without_processors_are_nodes() {
    let meminfo = |node: u32, kib: u32| format!("Node {node} MemTotal:  {kib} kB\nNode {node} MemFree:  1 kB\n");
    let (first, second, third) = (meminfo(0, 8), meminfo(8, 16), meminfo(252, 64));
    let topology = check(&[
        ("sys/devices/system/cpu/online", "0-3"),
        ("sys/devices/system/node/node0/cpulist", "0-1\n"),
        ("sys/devices/system/node/node0/meminfo", &first),
        ("sys/devices/system/node/node0/distance", "10 40 80\n"),
        ("sys/devices/system/node/node252/cpulist", "\n"),
        ("sys/devices/system/node/node252/meminfo", &third),
        ("sys/devices/system/node/node252/distance", "80 80 10\n"),
        ("sys/devices/system/node/node8/cpulist", "2-3\n"),
        ("sys/devices/system/node/node8/meminfo", &second),
        ("sys/devices/system/node/node8/distance", "40 10 80\n"),
        ("sys/devices/system/node/has_cpu", "0,8\n"),
        (
            "proc/self/status",
            "Cpus_allowed_list:\t0-2\nMems_allowed_list:\t0,8,252\n",
        ),
    ]);
    let nodes: Vec<_> = topology
        .numa
        .iter()
        .map(|n| (n.node, n.processors.to_string(), n.memory, n.allowed))
        .collect();
    let node = |number, cpus: &str, kib: u64| (number, cpus.to_owned(), kib << 10, true);
    assert_eq!(nodes, [node(0, "0-1", 8), node(8, "2-3", 16), node(252, "", 64)]);
    assert_eq!(topology.distance(8, 0), Some(40));
    assert_eq!(topology.nodes_by_distance(8), [8, 0, 252]);
    assert_eq!(topology.memory_near_processor(3), [8, 0, 252]);
    assert_eq!(topology.usable_processors(8).to_string(), "2");
    assert!(topology.usable_processors(252).is_empty());
}

#[test]
fn locked_memory_without_a_limit_is_none() {
    let limits = "Limit  Soft Limit  Hard Limit  Units\nMax locked memory  unlimited  unlimited  bytes\n";
    assert_eq!(check(&[("proc/self/limits", limits)]).limits.locked_memory, None);
}

#[test]
fn shared_memory_is_that_of_the_file_system_there() {
    let topology = check(&[("dev/shm/x", "")]);
    let shm = topology.shared_memory.unwrap();
    assert!(shm.size > 0 && shm.free <= shm.size);
    assert_eq!(check(&[]).shared_memory, None);
}

#[test]
fn a_kernel_without_numa_is_one_node() {
    let topology = check(&[
        ("sys/devices/system/cpu/online", "0-1"),
        ("proc/meminfo", "MemTotal: 8 kB\nMemFree: 4 kB\n"),
    ]);
    assert_eq!(topology.numa.len(), 1);
    assert_eq!(topology.numa[0].processors.to_string(), "0-1");
    assert_eq!((topology.numa[0].memory, topology.memory.available), (8192, 4096));
    assert_eq!(topology.processors.cores, 2);
}

#[test]
fn nothing_and_nonsense_are_told_as_nothing() {
    assert_eq!(check(&[]).processors.online.len(), 0);
    let topology = check(&[
        ("sys/devices/system/cpu/online", "7-1"),
        ("proc/meminfo", "MemTotal: many kB\n"),
        ("proc/self/status", "Cpus_allowed_list: \u{fffd}\n"),
        ("proc/self/cgroup", ":::\n0:\n"),
        ("proc/self/mountinfo", "x - cgroup2\n"),
        ("sys/kernel/mm/transparent_hugepage/enabled", "always"),
        ("sys/kernel/mm/hugepages/hugepages-xkB/nr_hugepages", "1"),
        ("proc/driver/nvidia/gpus/0000:01:00.0/information", "Device Minor: x"),
        ("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "-"),
    ]);
    assert_eq!(
        (topology.memory.total, topology.limits.memory, topology.gpus.len()),
        (0, None, 0)
    );
    assert!(topology.memory.huge_pages.is_empty());
}

#[test]
fn the_lowest_limit_on_the_way_up_counts_in_version_2() {
    let topology = check(&[
        (
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
        ),
        ("proc/self/cgroup", "0::/job/step\n"),
        ("sys/fs/cgroup/job/step/memory.max", "max\n"),
        ("sys/fs/cgroup/job/step/cpu.max", "400000 100000\n"),
        ("sys/fs/cgroup/job/memory.max", "4096\n"),
        ("sys/fs/cgroup/job/cpu.max", "150000 100000\n"),
    ]);
    assert_eq!(
        (
            topology.limits.cgroup,
            topology.limits.memory,
            topology.limits.cpu_millis
        ),
        (2, Some(4096), Some(1500))
    );
}

#[test]
fn version_1_has_a_hierarchy_for_each_controller() {
    let mountinfo = "31 23 0:27 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
                     32 23 0:28 /outer /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                     33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    let topology = check(&[
        ("proc/self/mountinfo", mountinfo),
        ("proc/self/cgroup", "4:memory:/a\n1:cpu,cpuacct:/outer/b\n0::/\n"),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8192\n"),
        ("sys/fs/cgroup/cpu/b/cpu.cfs_quota_us", "-1\n"),
        ("sys/fs/cgroup/cpu/b/cpu.cfs_period_us", "100000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "50000\n"),
        ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
    ]);
    assert_eq!(
        (
            topology.limits.cgroup,
            topology.limits.memory,
            topology.limits.cpu_millis
        ),
        (1, Some(8192), Some(500))
    );
}

#[test]
fn a_container_that_shows_only_its_own_group_has_its_limits_at_the_mount() {
    let topology = check(&[
        (
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n",
        ),
        ("proc/self/cgroup", "0::/kubepods/pod1/seen-from-outside\n"),
        ("sys/fs/cgroup/memory.max", "1024\n"),
    ]);
    assert_eq!(topology.limits.memory, Some(1024));
}

#[test]
fn huge_pages_are_told_by_their_size() {
    let topology = check(&[
        ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
        (
            "sys/kernel/mm/transparent_hugepage/shmem_enabled",
            "always within_size advise [never] deny force\n",
        ),
        ("sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages", "0\n"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages", "64\n"),
        ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "60\n"),
    ]);
    let pools: Vec<_> = topology
        .memory
        .huge_pages
        .iter()
        .map(|p| (p.size, p.total, p.free))
        .collect();
    assert_eq!(pools, [(2 << 20, 64, 60), (1 << 30, 0, 0)]);
    assert_eq!(topology.memory.transparent.as_deref(), Some("madvise"));
    assert_eq!(topology.memory.transparent_shared.as_deref(), Some("never"));
}

#[test]
fn gpus_come_with_their_node() {
    let information = |model: &str, minor: u32| {
        format!("Model: \t\t {model}\nGPU UUID: \t GPU-x\nBus Location: \t 0000:3B:00.0\nDevice Minor: \t {minor}\n")
    };
    let (first, second) = (information("H100", 0), information("H100", 1));
    let mut files = vec![
        ("proc/driver/nvidia/gpus/0000:3b:00.0/information", first.as_str()),
        ("proc/driver/nvidia/gpus/0000:af:00.0/information", second.as_str()),
        ("sys/bus/pci/devices/0000:af:00.0/numa_node", "1\n"),
        ("sys/bus/pci/devices/0000:3b:00.0/numa_node", "-1\n"),
        ("sys/class/kfd/kfd/topology/nodes/0/gpu_id", "0\n"),
        ("sys/class/kfd/kfd/topology/nodes/1/gpu_id", "4321\n"),
        ("sys/class/kfd/kfd/topology/nodes/1/name", "gfx90a\n"),
        (
            "sys/class/kfd/kfd/topology/nodes/1/properties",
            "simd_count 4\nlocation_id 49408\ndomain 0\n",
        ),
        ("sys/bus/pci/devices/0000:c1:00.0/numa_node", "3\n"),
    ];
    let told = |files: &[(&str, &str)]| -> Vec<_> {
        let gpus = check(files).gpus.into_iter();
        gpus.map(|g| (g.vendor, g.index, g.model, g.bus, g.numa_node)).collect()
    };
    let nvidia = |index, bus: &str, node| {
        (
            "nvidia".to_owned(),
            index,
            Some("H100".to_owned()),
            Some(bus.to_owned()),
            node,
        )
    };
    let amd = (
        "amd".to_owned(),
        0,
        Some("gfx90a".to_owned()),
        Some("0000:c1:00.0".to_owned()),
        Some(3),
    );
    let expected = [nvidia(0, "0000:3b:00.0", None), nvidia(1, "0000:af:00.0", Some(1)), amd];
    assert_eq!(told(&files), expected);
    // A container that was given the second one only.
    files.extend([("dev/nvidiactl", ""), ("dev/nvidia1", ""), ("dev/nvidia-uvm", "")]);
    assert_eq!(told(&files), expected[1..]);
    // A container without the driver's folder.
    let bare = told(&[("dev/nvidia0", ""), ("dev/nvidia10", ""), ("dev/nvidia-uvm", "")]);
    assert_eq!(bare.iter().map(|gpu| gpu.1).collect::<Vec<_>>(), [0, 10]);
}

#[test]
fn cards_are_told_from_the_kernels_own_interfaces() {
    let topology = check(&[
        ("sys/class/net/lo/operstate", "unknown\n"),
        ("sys/class/net/eth0/operstate", "up\n"),
        ("sys/class/net/eth0/speed", "25000\n"),
        ("sys/class/net/eth0/device/numa_node", "1\n"),
        ("sys/class/net/eth1/operstate", "down\n"),
        ("sys/class/net/eth1/speed", "-1\n"),
        ("sys/class/net/eth1/device/numa_node", "-1\n"),
        ("sys/class/infiniband/mlx5_0/device/numa_node", "0\n"),
        ("sys/class/infiniband/mlx5_0/ports/1/link_layer", "InfiniBand\n"),
        ("sys/class/infiniband/mlx5_0/ports/1/state", "4: ACTIVE\n"),
        ("sys/class/infiniband/mlx5_0/ports/1/rate", "200 Gb/sec (4X HDR)\n"),
        ("sys/class/infiniband/mlx5_1/ports/1/state", "1: DOWN\n"),
    ]);
    let cards: Vec<_> = topology
        .network
        .iter()
        .map(|c| (c.name.as_str(), c.speed, c.up, c.numa_node))
        .collect();
    assert_eq!(
        cards,
        [
            ("eth0", Some(25000), Some(true), Some(1)),
            ("eth1", None, Some(false), None)
        ]
    );
    let ports: Vec<_> = topology
        .infiniband
        .iter()
        .map(|p| (p.device.as_str(), p.port, p.active, p.numa_node))
        .collect();
    assert_eq!(
        ports,
        [("mlx5_0", 1, Some(true), Some(0)), ("mlx5_1", 1, Some(false), None)]
    );
}

#[test]
fn devices_are_near_the_node_the_processors_and_the_bridges_that_sysfs_names() {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    for (path, text) in TWO_SOCKETS {
        write(path, text);
    }
    let switch = "sys/devices/pci0000:40/0000:40:01.1";
    for (device, cpus) in [("0000:41:00.0", "2,6"), ("0000:42:00.0", "2-3,6-7")] {
        write(&format!("{switch}/{device}/numa_node"), "1\n");
        write(&format!("{switch}/{device}/local_cpulist"), cpus);
    }
    write(&format!("{switch}/0000:41:00.0/current_link_speed"), "16.0 GT/s PCIe\n");
    write(&format!("{switch}/0000:41:00.0/current_link_width"), "16\n");
    write("sys/devices/pci0000:00/0000:01:00.0/current_link_speed", "Unknown\n");
    write("sys/devices/pci0000:00/0000:01:00.0/numa_node", "0\n");
    write("sys/devices/virtual/net/lo/operstate", "unknown\n");
    write("sys/class/net/far/operstate", "up\n");
    write("sys/class/net/near/operstate", "up\n");
    let link = |from: &str, to: &str| {
        let from = root.path().join(from);
        std::fs::create_dir_all(from.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(root.path().join(to), from).unwrap();
    };
    link("sys/bus/pci/devices/0000:41:00.0", &format!("{switch}/0000:41:00.0"));
    link("sys/class/net/near/device", &format!("{switch}/0000:42:00.0"));
    link("sys/class/net/far/device", "sys/devices/pci0000:00/0000:01:00.0");
    write(
        "proc/driver/nvidia/gpus/0000:41:00.0/information",
        "Model: \t H100\nDevice Minor: \t 0\n",
    );
    let topology = Topology::read(root.path());
    let gpu = &topology.gpus[0];
    assert_eq!(
        (gpu.numa_node, gpu.near.processors.to_string()),
        (Some(1), "2,6".to_owned())
    );
    assert_eq!(gpu.near.bridges, ["pci0000:40", "0000:40:01.1"]);
    assert_eq!((gpu.near.link, topology.network[0].near.link), (Some(31_507), None));
    let cards: Vec<_> = topology.network_near_gpu(gpu).iter().map(|c| c.name.as_str()).collect();
    assert_eq!(cards, ["near", "far"]);
    assert_eq!(topology.nodes_near_gpu(gpu), [1, 0]);
    assert_eq!(
        (topology.distance_from_gpu(gpu, 1), topology.distance_from_gpu(gpu, 0)),
        (Some(0), Some(21))
    );
    assert_eq!(topology.distance_from_gpu(gpu, 7), None);
    let nearest = |node| {
        topology
            .network_nearest_node(node)
            .iter()
            .map(|c| c.name.as_str())
            .collect::<Vec<_>>()
    };
    assert_eq!((nearest(0), nearest(1)), (vec!["far"], vec!["near"]));
    // Without a list of its own a device is near to its node's processors.
    assert_eq!(topology.network[0].near.processors.to_string(), "0-1,4-5");
}

#[test]
fn this_machine_has_what_every_machine_has() {
    let topology = Topology::here();
    assert!(!topology.processors.allowed.is_empty());
    assert!(topology.processors.cores >= 1 && topology.memory.total > 0 && !topology.numa.is_empty());
    assert_eq!(Topology::read(Path::new("/")).processors, topology.processors);
}
