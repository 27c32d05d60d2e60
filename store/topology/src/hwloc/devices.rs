//! GPUs and network cards in hwloc's tree. One card can have a device for each library that was asked (`cuda0`, `nvml0`,
//! `opencl0d0`): those at one PCI address are one.

use super::{Kind, Object, Pci, Wrong, wrong};
use crate::devices::{Gpu, InfinibandPort, NetworkCard};
use crate::locality::{Locality, Slot};
use crate::numa::NumaNode;
use std::collections::{BTreeMap, BTreeSet};

/// More devices than any machine has.
const MAX_DEVICES: usize = 4096;
/// Processors near all devices together: what a large machine has many times.
const MAX_NEAR: usize = 1 << 22;
/// Ports that an adapter is asked for.
const MAX_PORTS: u32 = 16;

/// Libraries that number GPUs, the one whose numbers people use first: what its devices are called, and whose GPUs it numbers.
const LIBRARIES: &[(&str, &str)] = &[("nvml", "nvidia"), ("cuda", "nvidia"), ("rsmi", "amd"), ("ze", "intel")];

pub(super) struct Devices {
    pub gpus: Vec<Gpu>,
    pub network: Vec<NetworkCard>,
    pub infiniband: Vec<InfinibandPort>,
    /// The GPU, by its place in the list, that an object of the tree belongs to.
    pub owners: BTreeMap<u64, usize>,
}

/// A device on the bus, or one without an address, with what the system calls it.
struct Card<'a> {
    pci: Option<&'a Pci>,
    object: &'a Object,
    devices: Vec<&'a Object>,
    near: Locality,
}

pub(super) fn read(root: &Object, numa: &[NumaNode]) -> Result<Devices, Wrong> {
    let mut walk = Walk {
        numa,
        cards: Vec::new(),
        near: 0,
    };
    walk.normal(root)?;
    let mut seen = BTreeSet::new();
    for card in &walk.cards {
        if let Some(pci) = card.pci.filter(|pci| !seen.insert(&pci.address)) {
            return wrong(card.object.line, format!("{} is there twice", pci.address));
        }
    }
    let (gpus, owners) = gpus(&walk.cards, numa)?;
    Ok(Devices {
        gpus,
        owners,
        network: network(&walk.cards, numa),
        infiniband: infiniband(&walk.cards, numa),
    })
}

struct Walk<'a> {
    numa: &'a [NumaNode],
    cards: Vec<Card<'a>>,
    /// Processors near all devices so far.
    near: usize,
}

impl<'a> Walk<'a> {
    fn normal(&mut self, object: &'a Object) -> Result<(), Wrong> {
        for child in &object.children {
            if child.kind.is_device() {
                self.device(child, object, &mut Vec::new())?;
            } else {
                self.normal(child)?;
            }
        }
        Ok(())
    }

    /// A device or bridge; `place` is what it hangs on.
    fn device(&mut self, object: &'a Object, place: &'a Object, bridges: &mut Vec<String>) -> Result<(), Wrong> {
        if let Kind::Bridge(name) = &object.kind {
            bridges.push(name.clone());
            for child in &object.children {
                self.device(child, place, bridges)?;
            }
            bridges.pop();
            return Ok(());
        }
        let (pci, mut devices) = (as_pci(object), Vec::new());
        if pci.is_none() {
            devices.push(object);
        }
        below(object, &mut devices);
        let slot = Slot {
            bridges: bridges.clone(),
            link: pci.and_then(|pci| pci.link),
        };
        let near = Locality::new(place.nodes.clone(), place.processors.clone(), slot, self.numa);
        self.near += near.processors.len();
        self.cards.push(Card {
            pci,
            object,
            devices,
            near,
        });
        if self.cards.len() > MAX_DEVICES {
            return wrong(object.line, format!("there are more than {MAX_DEVICES} devices"));
        }
        if self.near > MAX_NEAR {
            return wrong(object.line, "its devices are near to too many processors");
        }
        Ok(())
    }
}

fn as_pci(object: &Object) -> Option<&Pci> {
    match &object.kind {
        Kind::Pci(pci) => Some(pci),
        _ => None,
    }
}

fn below<'a>(object: &'a Object, devices: &mut Vec<&'a Object>) {
    for child in &object.children {
        devices.push(child);
        below(child, devices);
    }
}

/// The library that a device's name is of, by its place in the list, and the number in the name. OpenCL's numbers say nothing.
fn library(name: &str) -> Option<(usize, u32)> {
    LIBRARIES
        .iter()
        .enumerate()
        .find_map(|(place, (prefix, _))| Some((place, name.strip_prefix(prefix)?.parse().ok()?)))
}

impl Card<'_> {
    fn accelerators(&self) -> impl Iterator<Item = &Object> {
        let devices = self.devices.iter().copied();
        devices.filter(|device| device.kind == Kind::Accelerator)
    }

    /// Its number in a library.
    fn number(&self, asked: usize) -> Option<u32> {
        self.accelerators()
            .filter_map(|device| library(&device.name))
            .find_map(|(library, number)| (library == asked).then_some(number))
    }

    /// Whose GPU it is, if it is one. By its PCI class only where a mere console chip would be of another class: those in
    /// servers are of VGA's.
    fn vendor(&self) -> Option<String> {
        let known = self
            .accelerators()
            .find_map(|device| Some(LIBRARIES[library(&device.name)?.0].1.to_owned()));
        let Some(pci) = self.pci else { return known };
        let maker = match pci.vendor {
            0x10de => "nvidia".to_owned(),
            0x1002 => "amd".to_owned(),
            0x8086 => "intel".to_owned(),
            other => format!("pci:{other:04x}"),
        };
        let by_class = match pci.class {
            0x0302 | 0x0380 => true,
            0x0300 => maker == "nvidia",
            0x1200 => matches!(maker.as_str(), "nvidia" | "amd"), // Accelerators that have no display at all.
            _ => false,
        };
        let by_name = || self.accelerators().any(|device| device.name.starts_with("opencl"));
        known.or_else(|| (by_class || by_name()).then_some(maker))
    }

    fn gpu(&self, vendor: &str, index: u32, numa: &[NumaNode]) -> Gpu {
        let told = |name: &str| self.accelerators().find_map(|device| device.infos.get(name));
        let model = told("GPUModel").or_else(|| self.object.infos.get("PCIDevice"));
        Gpu {
            vendor: vendor.to_owned(),
            index,
            model: model.cloned(),
            bus: self.pci.map(|pci| pci.address.clone()),
            numa_node: self.near.node(numa),
            near: self.near.clone(),
        }
    }
}

/// GPUs in order of maker and number, and the objects that belong to each.
fn gpus(cards: &[Card<'_>], numa: &[NumaNode]) -> Result<(Vec<Gpu>, BTreeMap<u64, usize>), Wrong> {
    let mut makers: BTreeMap<String, Vec<&Card<'_>>> = BTreeMap::new();
    for card in cards {
        if let Some(vendor) = card.vendor() {
            makers.entry(vendor).or_default().push(card);
        }
    }
    let (mut gpus, mut owners) = (Vec::new(), BTreeMap::new());
    let mut order: Vec<_> = makers.into_iter().collect();
    // As they are found in a system: NVIDIA's, AMD's, others.
    order.sort_by_key(|(vendor, _)| LIBRARIES.iter().position(|(_, of)| of == vendor).unwrap_or(usize::MAX));
    for (vendor, cards) in order {
        for (index, card) in numbered(&vendor, cards)? {
            let objects = card.devices.iter().map(|device| device.id);
            owners.extend(objects.chain([card.object.id]).map(|id| (id, gpus.len())));
            gpus.push(card.gpu(&vendor, index, numa));
        }
    }
    Ok((gpus, owners))
}

/// A maker's cards with their numbers: those of the first library that knows all of them, else by their address.
fn numbered<'a, 'b>(vendor: &str, cards: Vec<&'a Card<'b>>) -> Result<Vec<(u32, &'a Card<'b>)>, Wrong> {
    let libraries = || (0..LIBRARIES.len()).filter(|&library| LIBRARIES[library].1 == vendor);
    let (mut cards, loose): (Vec<_>, Vec<_>) = cards.into_iter().partition(|card| card.pci.is_some());
    if cards.is_empty() {
        // Without addresses a card would be counted once for each library: the first that has any is taken.
        let of = |library| loose.iter().filter(move |card| card.number(library).is_some());
        let library = libraries().find(|&library| of(library).next().is_some());
        cards = library.map_or_else(Vec::new, |library| of(library).copied().collect());
    }
    cards.sort_by_key(|card| card.pci.map(|pci| &pci.address));
    let all_numbers = |library| -> Option<Vec<u32>> { cards.iter().map(|card| card.number(library)).collect() };
    let Some(numbers) = libraries().find_map(all_numbers) else {
        return Ok((0u32..).zip(cards).collect());
    };
    let mut numbered: Vec<_> = numbers.into_iter().zip(cards).collect();
    numbered.sort_by_key(|(number, _)| *number);
    match numbered.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        Some(pair) => wrong(
            pair[1].1.object.line,
            format!("two GPUs of {vendor} have the number {}", pair[1].0),
        ),
        None => Ok(numbered),
    }
}

fn network(cards: &[Card<'_>], numa: &[NumaNode]) -> Vec<NetworkCard> {
    let mut found: Vec<_> = cards
        .iter()
        .flat_map(|card| card.devices.iter().map(move |device| (card, device)))
        .filter(|(_, device)| device.kind == Kind::Network)
        .map(|(card, device)| NetworkCard {
            name: device.name.clone(),
            speed: None,
            up: None,
            numa_node: card.near.node(numa),
            near: card.near.clone(),
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

fn infiniband(cards: &[Card<'_>], numa: &[NumaNode]) -> Vec<InfinibandPort> {
    let mut found = Vec::new();
    for card in cards {
        for device in card.devices.iter().filter(|device| device.kind == Kind::OpenFabrics) {
            let state = |port: u32| device.infos.get(&format!("Port{port}State"));
            // An adapter of which no port is told has one, in a state that is not told.
            let ports: Vec<u32> = (1..=MAX_PORTS)
                .filter(|&port| port == 1 || state(port).is_some())
                .collect();
            found.extend(ports.into_iter().map(|port| InfinibandPort {
                device: device.name.clone(),
                port,
                link: (card.pci.is_some_and(|pci| pci.class == 0x0207)).then(|| "InfiniBand".to_owned()),
                active: state(port).map(|state| state == "4"), // IBV_PORT_ACTIVE
                rate: None,
                numa_node: card.near.node(numa),
                near: card.near.clone(),
            }));
        }
    }
    found.sort_by(|a, b| (&a.device, a.port).cmp(&(&b.device, b.port)));
    found
}

/// Whether a device is one of NVIDIA's switches between GPUs.
pub(super) fn is_switch(object: &Object) -> bool {
    matches!(object.kind, Kind::Pci(_)) && object.subtype == "NVSwitch"
}

/// Ids of all switches below.
pub(super) fn switches(object: &Object, found: &mut BTreeSet<u64>) {
    if is_switch(object) {
        found.insert(object.id);
    }
    for child in &object.children {
        switches(child, found);
    }
}
