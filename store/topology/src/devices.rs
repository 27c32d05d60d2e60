//! GPUs and network cards, each with the NUMA node that it hangs on and what else is near it. Owns the types and their reading
//! from sysfs and procfs.

use crate::locality::Locality;
use crate::numa::NumaNode;
use crate::tree::{Tree, field_of};
use serde::{Deserialize, Serialize};

const KFD: &str = "sys/class/kfd/kfd/topology/nodes";
const NVIDIA: &str = "proc/driver/nvidia/gpus";

/// A GPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gpu {
    /// `nvidia`, `amd` or `intel`; from a file also `pci:` and the number of another maker.
    pub vendor: String,
    /// Its number among those of its vendor, as its tools count.
    pub index: u32,
    /// Its model, where the driver tells.
    pub model: Option<String>,
    /// Its place on the PCI bus, `0000:3b:00.0`.
    pub bus: Option<String>,
    /// The NUMA node that it hangs on; the lowest of several.
    pub numa_node: Option<u32>,
    /// What is near it.
    pub near: Locality,
}

/// How well pairs of GPUs are linked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GpuLinks {
    /// What is told: `NVLinkBandwidth`, `XGMIHops` and so on.
    pub name: String,
    /// Whether a larger value means nearer, as with bandwidth; smaller is nearer with hops and latency.
    pub larger_is_nearer: bool,
    /// The GPUs of rows and columns, by their place in the list of GPUs.
    pub gpus: Vec<usize>,
    /// A row for each of them: the value from this one to each.
    pub values: Vec<Vec<u64>>,
}

/// A network card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkCard {
    /// The interface, `eth0`.
    pub name: String,
    /// Megabits a second, where a cable is in.
    pub speed: Option<u64>,
    /// Whether it is up, where it is told.
    pub up: Option<bool>,
    /// The NUMA node that it hangs on; the lowest of several.
    pub numa_node: Option<u32>,
    /// What is near it.
    pub near: Locality,
}

/// A port of an InfiniBand or RoCE adapter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InfinibandPort {
    /// The adapter, `mlx5_0`.
    pub device: String,
    /// The port's number.
    pub port: u32,
    /// `InfiniBand` or `Ethernet` (RoCE).
    pub link: Option<String>,
    /// Whether it is active, where it is told.
    pub active: Option<bool>,
    /// Its rate in the kernel's words, `200 Gb/sec (4X HDR)`.
    pub rate: Option<String>,
    /// The NUMA node that it hangs on; the lowest of several.
    pub numa_node: Option<u32>,
    /// What is near it.
    pub near: Locality,
}

/// The node that a file names; the kernel writes -1 where it does not know.
fn node_in(tree: &Tree, path: &str) -> Option<u32> {
    u32::try_from(tree.value::<i64>(path)?).ok()
}

/// The node of the device with this folder, and what is near it.
fn place(tree: &Tree, folder: &str, numa: &[NumaNode]) -> (Option<u32>, Locality) {
    let node = node_in(tree, &format!("{folder}/numa_node"));
    (node, Locality::read(tree, folder, node, numa))
}

fn place_of_bus(tree: &Tree, bus: &str, numa: &[NumaNode]) -> (Option<u32>, Locality) {
    place(tree, &format!("sys/bus/pci/devices/{bus}"), numa)
}

pub(crate) fn gpus(tree: &Tree, numa: &[NumaNode]) -> Vec<Gpu> {
    let mut found = nvidia(tree, numa);
    found.extend(amd(tree, numa));
    found
}

/// The driver's folder has them all; in a container that lacks it, the device files are what is left.
fn nvidia(tree: &Tree, numa: &[NumaNode]) -> Vec<Gpu> {
    let devices = tree.numbers("dev", "nvidia");
    let mut found: Vec<Gpu> = tree
        .names(NVIDIA)
        .iter()
        .filter_map(|bus| nvidia_gpu(tree, bus, numa))
        .collect();
    if found.is_empty() {
        let plain = |&index| Gpu {
            vendor: "nvidia".to_owned(),
            index,
            model: None,
            bus: None,
            numa_node: None,
            near: Locality::default(),
        };
        return devices.iter().map(plain).collect();
    }
    // The driver lists all of the machine's; those without a device file are not for this container.
    if tree.exists("dev/nvidiactl") {
        found.retain(|gpu| devices.contains(&gpu.index));
    }
    found.sort_by_key(|gpu| gpu.index);
    found
}

fn nvidia_gpu(tree: &Tree, bus: &str, numa: &[NumaNode]) -> Option<Gpu> {
    let information = tree.text(&format!("{NVIDIA}/{bus}/information"))?;
    let bus = bus.to_lowercase();
    let (numa_node, near) = place_of_bus(tree, &bus, numa);
    Some(Gpu {
        vendor: "nvidia".to_owned(),
        index: field_of(&information, "Device Minor")?.parse().ok()?,
        model: field_of(&information, "Model"),
        numa_node,
        near,
        bus: Some(bus),
    })
}

/// Nodes of the compute driver's topology; those without a `gpu_id` are processors.
fn amd(tree: &Tree, numa: &[NumaNode]) -> Vec<Gpu> {
    let nodes = tree.numbers(KFD, "").into_iter();
    let gpus = nodes.filter(|node| {
        tree.value::<u64>(&format!("{KFD}/{node}/gpu_id"))
            .is_some_and(|id| id > 0)
    });
    let numbered = (0u32..).zip(gpus);
    numbered
        .map(|(index, node)| {
            let bus = bus_of_kfd(tree, node);
            let (numa_node, near) = bus
                .as_deref()
                .map_or_else(Default::default, |bus| place_of_bus(tree, bus, numa));
            Gpu {
                vendor: "amd".to_owned(),
                index,
                model: tree.text(&format!("{KFD}/{node}/name")).filter(|name| !name.is_empty()),
                numa_node,
                near,
                bus,
            }
        })
        .collect()
}

/// `location_id` holds bus, device and function in 8, 5 and 3 bits.
fn bus_of_kfd(tree: &Tree, node: u32) -> Option<String> {
    let properties = tree.text(&format!("{KFD}/{node}/properties"))?;
    let number = |key: &str| field_of(&properties, key)?.parse::<u32>().ok();
    let (domain, place) = (number("domain").unwrap_or(0), number("location_id")?);
    let (bus, device, function) = (place >> 8 & 0xff, place >> 3 & 0x1f, place & 7);
    Some(format!("{domain:04x}:{bus:02x}:{device:02x}.{function}"))
}

/// Interfaces with a device behind them; the others are the kernel's own.
pub(crate) fn network(tree: &Tree, numa: &[NumaNode]) -> Vec<NetworkCard> {
    let folder = |name: &str| format!("sys/class/net/{name}");
    let names = tree.names("sys/class/net").into_iter();
    names
        .filter(|name| tree.exists(&format!("{}/device", folder(name))))
        .map(|name| {
            let (numa_node, near) = place(tree, &format!("{}/device", folder(&name)), numa);
            NetworkCard {
                speed: tree.value(&format!("{}/speed", folder(&name))),
                up: tree
                    .text(&format!("{}/operstate", folder(&name)))
                    .map(|state| state == "up"),
                numa_node,
                near,
                name,
            }
        })
        .collect()
}

pub(crate) fn infiniband(tree: &Tree, numa: &[NumaNode]) -> Vec<InfinibandPort> {
    let mut found = Vec::new();
    for device in tree.names("sys/class/infiniband") {
        let folder = format!("sys/class/infiniband/{device}");
        let (numa_node, near) = place(tree, &format!("{folder}/device"), numa);
        for port in tree.numbers(&format!("{folder}/ports"), "") {
            let text = |name: &str| tree.text(&format!("{folder}/ports/{port}/{name}"));
            found.push(InfinibandPort {
                device: device.clone(),
                port,
                link: text("link_layer"),
                active: text("state").map(|state| state.ends_with("ACTIVE")), // "4: ACTIVE"
                rate: text("rate"),
                numa_node,
                near: near.clone(),
            });
        }
    }
    found
}
