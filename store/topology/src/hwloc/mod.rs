//! Machines as hwloc describes them: a tree of objects with matrices of distances, from XML or, with the feature `hwloc`, from
//! libhwloc. Owns the tree; `xml` and `libhwloc` fill it, `machine` and `devices` make a topology of it, the same for both.

mod devices;
#[cfg(feature = "hwloc")]
mod libhwloc;
mod links;
mod machine;
mod xml;

#[cfg(feature = "hwloc")]
pub use libhwloc::HwlocError;
pub use xml::{MAX_XML, XmlError};

use crate::set::NumberSet;
use std::collections::BTreeMap;

/// An object of the tree.
#[derive(Debug, Default)]
struct Object {
    /// The line that it begins in; 0 where there are no lines.
    line: u32,
    /// What it is.
    kind: Kind,
    /// The system's number for it.
    number: Option<u32>,
    /// Its number in the tree, which matrices name it by.
    id: u64,
    /// Its processors; only of nodes, and of what devices hang on.
    processors: NumberSet,
    /// Its NUMA nodes; only of what devices hang on.
    nodes: NumberSet,
    /// Bytes of a node.
    memory: u64,
    /// The name of an OS device.
    name: String,
    /// What it is more precisely: `NVSwitch`.
    subtype: String,
    /// Remarks by name.
    infos: BTreeMap<String, String>,
    /// What it contains, memory and devices among it.
    children: Vec<Object>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum Kind {
    Package,
    Core,
    /// A hardware thread.
    Processor,
    L3,
    Node,
    /// What says nothing about placement but contains what does.
    #[default]
    Other,
    /// A bridge, by its address, or the host's by its bus.
    Bridge(String),
    Pci(Pci),
    Network,
    OpenFabrics,
    /// A device of a GPU or co-processor library, by its name.
    Accelerator,
}

impl Kind {
    fn is_device(&self) -> bool {
        matches!(
            self,
            Self::Bridge(_) | Self::Pci(_) | Self::Network | Self::OpenFabrics | Self::Accelerator
        )
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pci {
    /// `0000:3b:00.0`.
    address: String,
    /// Class and subclass.
    class: u16,
    vendor: u16,
    /// Megabytes a second of its link.
    link: Option<u32>,
}

/// hwloc tells gigabytes a second, and 0 where it does not know.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A cast of what is no such number gives a bound.
fn megabytes(gigabytes: f32) -> Option<u32> {
    Some((gigabytes * 1000.0).round() as u32).filter(|&link| link > 0)
}

/// Distances, latencies or bandwidths between objects.
#[derive(Debug)]
struct Matrix {
    line: u32,
    name: String,
    /// Whether the values are bandwidths, where larger is nearer.
    bandwidth: bool,
    /// Whether they are latencies or hops.
    latency: bool,
    objects: Vec<Key>,
    /// A row for each object.
    values: Vec<u64>,
}

/// Names an object of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    /// A NUMA node by its number.
    Node(u32),
    /// A processor by its number; no matrix of them is used.
    Processor,
    /// An object by its id.
    Id(u64),
}

/// All that is read.
#[derive(Debug)]
struct Description {
    root: Object,
    /// Processors that the process that wrote it may use; all where it is not told.
    allowed: Option<NumberSet>,
    /// NUMA nodes that it may use.
    allowed_nodes: Option<NumberSet>,
    matrices: Vec<Matrix>,
}

/// What makes a description unusable, with the line that it is in.
#[derive(Debug)]
struct Wrong {
    line: u32,
    reason: String,
}

fn wrong<T>(line: u32, reason: impl Into<String>) -> Result<T, Wrong> {
    let reason = reason.into();
    Err(Wrong { line, reason })
}
