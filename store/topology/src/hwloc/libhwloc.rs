//! The tree as libhwloc has it, of this machine or of XML. Owns the way from its objects to ours, and nothing of what they mean.

use super::{Description, Key, Kind, Matrix, Object, Pci, Wrong, machine, megabytes};
use crate::Topology;
use crate::set::NumberSet;
use hwlocality::Topology as Hwloc;
use hwlocality::bitmap::Bitmap;
use hwlocality::cpu::binding::CpuBindingFlags;
use hwlocality::object::TopologyObject;
use hwlocality::object::attributes::DownstreamAttributes;
use hwlocality::object::attributes::{ObjectAttributes, PCIDeviceAttributes, UpstreamAttributes};
use hwlocality::object::distance::DistancesKind;
use hwlocality::object::types::{OSDeviceType, ObjectType};
use hwlocality::topology::builder::{BuildFlags, TopologyBuilder, TypeFilter};
use std::ffi::CStr;

/// Why libhwloc gives no description.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("libhwloc: {0}")]
pub struct HwlocError(String);

impl HwlocError {
    fn new(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

impl From<Wrong> for HwlocError {
    fn from(wrong: Wrong) -> Self {
        Self(wrong.reason)
    }
}

impl Topology {
    /// This machine's processors, memory and devices as libhwloc sees them; the rest is as in [`Topology::here`].
    ///
    /// # Errors
    /// libhwloc failed, or describes another machine: it follows `HWLOC_XMLFILE`, `HWLOC_SYNTHETIC` and `HWLOC_FSROOT`.
    pub fn here_with_libhwloc() -> Result<Self, HwlocError> {
        let machine = load(TopologyBuilder::new())?;
        if !machine.is_this_system() {
            let told = "it was told to describe another machine, by HWLOC_XMLFILE or the like: unset that";
            return Err(HwlocError::new(told));
        }
        let found = describe(&machine)?;
        let bound = machine.cpu_binding(CpuBindingFlags::PROCESS).map_err(HwlocError::new)?;
        let mut topology = machine::topology(&found)?;
        // Its allowed set is the cpuset's; what the process was bound to besides is a question of its own.
        topology.processors.allowed = topology.processors.allowed.common(&members(&bound));
        let here = Self::here();
        topology.memory = here.memory;
        topology.shared_memory = here.shared_memory;
        topology.limits = here.limits;
        Ok(topology)
    }

    /// What [`Topology::from_xml`] reads, read by libhwloc. Not for text of strangers: libhwloc sets no bounds.
    ///
    /// # Errors
    /// libhwloc refuses the text.
    pub fn from_xml_with_libhwloc(text: &str) -> Result<Self, HwlocError> {
        let builder = TopologyBuilder::new().from_xml(text).map_err(HwlocError::new)?;
        Ok(machine::topology(&describe(&load(builder)?)?)?)
    }
}

/// With all devices, and with processors and nodes that the process may not use.
fn load(builder: TopologyBuilder) -> Result<Hwloc, HwlocError> {
    builder
        .with_io_type_filter(TypeFilter::KeepAll)
        .map_err(HwlocError::new)?
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(HwlocError::new)?
        .build()
        .map_err(HwlocError::new)
}

fn describe(machine: &Hwloc) -> Result<Description, HwlocError> {
    let mut matrices = Vec::new();
    for found in machine.distances(None).map_err(HwlocError::new)? {
        let key = |object: Option<&TopologyObject>| {
            let object = object?;
            Some(match (object.object_type(), object.os_index()) {
                (ObjectType::NUMANode, Some(node)) => Key::Node(u32::try_from(node).ok()?),
                (ObjectType::PU, _) => Key::Processor,
                _ => Key::Id(object.global_persistent_index()),
            })
        };
        let Some(objects) = found.objects().map(key).collect() else {
            continue;
        };
        let kind = found.kind();
        matrices.push(Matrix {
            line: 0,
            name: text(found.name()),
            bandwidth: kind.contains(DistancesKind::MEANS_BANDWIDTH),
            latency: kind.contains(DistancesKind::MEANS_LATENCY),
            objects,
            values: found.distances().to_vec(),
        });
    }
    Ok(Description {
        root: object(machine.root_object()),
        allowed: Some(members(&machine.allowed_cpuset())),
        allowed_nodes: Some(members(&machine.allowed_nodeset())),
        matrices,
    })
}

fn object(from: &TopologyObject) -> Object {
    let kind = kind(from);
    let children: Vec<Object> = from.all_children().map(object).collect();
    let holds_devices = children.iter().any(|child| child.kind.is_device());
    let mut found = Object {
        number: from.os_index().and_then(|number| u32::try_from(number).ok()),
        id: from.global_persistent_index(),
        memory: match from.attributes() {
            Some(ObjectAttributes::NUMANode(node)) => node.local_memory().map_or(0, Into::into),
            _ => 0,
        },
        name: text(from.name()),
        subtype: text(from.subtype()),
        infos: from
            .infos()
            .iter()
            .map(|info| (text(Some(info.name())), text(Some(info.value()))))
            .collect(),
        children,
        ..Object::default()
    };
    if kind == Kind::Node || holds_devices && !kind.is_device() {
        found.processors = from.cpuset().map_or_else(NumberSet::default, |set| members(&set));
        found.nodes = from.nodeset().map_or_else(NumberSet::default, |set| members(&set));
    }
    Object { kind, ..found }
}

fn kind(object: &TopologyObject) -> Kind {
    match (object.object_type(), object.attributes()) {
        (ObjectType::Package, _) => Kind::Package,
        (ObjectType::Core, _) => Kind::Core,
        (ObjectType::PU, _) => Kind::Processor,
        (ObjectType::L3Cache, _) => Kind::L3,
        (ObjectType::NUMANode, _) => Kind::Node,
        (_, Some(ObjectAttributes::Bridge(bridge))) => {
            match (bridge.upstream_attributes(), bridge.downstream_attributes()) {
                (Some(UpstreamAttributes::PCI(pci)), _) => Kind::Bridge(address(pci)),
                (_, Some(DownstreamAttributes::PCI(bus))) => {
                    Kind::Bridge(format!("pci{:04x}:{:02x}", bus.domain(), bus.secondary_bus()))
                }
                _ => Kind::Bridge("pci".to_owned()),
            }
        }
        (_, Some(ObjectAttributes::PCIDevice(pci))) => Kind::Pci(Pci {
            address: address(pci),
            class: pci.class_id(),
            vendor: pci.vendor_id(),
            link: megabytes(pci.link_speed()),
        }),
        (_, Some(ObjectAttributes::OSDevice(device))) => match device.device_type() {
            OSDeviceType::GPU | OSDeviceType::CoProcessor => Kind::Accelerator,
            OSDeviceType::Network => Kind::Network,
            OSDeviceType::OpenFabrics => Kind::OpenFabrics,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

fn address(pci: &PCIDeviceAttributes) -> String {
    format!(
        "{:04x}:{:02x}:{:02x}.{:x}",
        pci.domain(),
        pci.bus_id(),
        pci.bus_device(),
        pci.function()
    )
}

fn text(text: Option<&CStr>) -> String {
    text.map_or_else(String::new, |text| text.to_string_lossy().into_owned())
}

/// Members of a set that has an end; one without says nothing.
fn members(set: &impl AsRef<Bitmap>) -> NumberSet {
    let set = set.as_ref();
    if set.weight().is_none() {
        return NumberSet::default();
    }
    let indexes = set.iter_set().map(usize::from);
    indexes.filter_map(|index| u32::try_from(index).ok()).collect()
}
