//! hwloc's XML, format 2, as `lstopo --of xml` writes it. The text may come from anybody: its length, its depth and all numbers in
//! it are bounded, it may define no entities, and what cannot be read right is refused with its line.

use super::{Description, Key, Kind, Matrix, Object, Pci, Wrong, machine, megabytes, wrong};
use crate::Topology;
use crate::locality::is_address;
use crate::set::NumberSet;
use roxmltree::{Document, Node, ParsingOptions};
use std::str::FromStr;

/// Longest text that is read, in bytes: that of a machine with ten thousand processors is shorter.
pub const MAX_XML: usize = 16 << 20;
/// Elements, texts and comments together.
const MAX_PARTS: u32 = 1 << 20;
/// Attributes of an element: each is compared with all others of it.
const MAX_ATTRIBUTES: usize = 256;
/// Objects inside one another.
const MAX_DEPTH: u32 = 64;
/// Processors and nodes have smaller numbers.
const MAX_NUMBER: u32 = 1 << 16;
/// Members of all sets together.
const MAX_MEMBERS: usize = 1 << 22;
const MAX_MATRICES: usize = 64;
/// Objects of a matrix.
const MAX_SIDE: usize = 1024;
/// Kinds of matrices, bits of hwloc's `hwloc_distances_kind_e`.
const LATENCY: u32 = 4;
const BANDWIDTH: u32 = 8;

/// Why a text is no description of a machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct XmlError {
    /// The line, from 1.
    pub line: u32,
    /// The reason, in words.
    pub reason: String,
}

impl From<Wrong> for XmlError {
    fn from(Wrong { line, reason }: Wrong) -> Self {
        Self {
            line: line.max(1),
            reason,
        }
    }
}

impl Topology {
    /// That of the machine which hwloc's XML describes: processors, NUMA nodes with memory and distances, GPUs with their links,
    /// network cards. What such a file does not tell is empty: limits, huge pages, `/dev/shm`, free memory. Allowed is what the
    /// process was allowed that wrote the file.
    ///
    /// # Errors
    /// It is longer than [`MAX_XML`], no XML, not hwloc's, of another format than 2, or contradicts itself.
    pub fn from_xml(text: &str) -> Result<Self, XmlError> {
        Ok(machine::topology(&describe(text)?)?)
    }
}

/// What hwloc never writes, and what makes a small text large or slow to read: entities expand, and namespaces that are nested two
/// thousand deep cost the XML library eleven seconds.
const REFUSED: &[(&str, &str)] = &[("<!ENTITY", "entities"), ("xmlns", "namespaces")];

/// Whether the text is within the bounds of what is looked at, and free of what hwloc never writes.
fn bounded(text: &str) -> Result<(), Wrong> {
    if text.len() > MAX_XML {
        return wrong(1, format!("it is longer than {} MiB", MAX_XML >> 20));
    }
    let line_at = |at: usize| u32::try_from(1 + text[..at].matches('\n').count()).unwrap_or(u32::MAX);
    for (marker, what) in REFUSED {
        if let Some(at) = text.find(marker) {
            return wrong(line_at(at), format!("it has {what}, which hwloc never writes"));
        }
    }
    // No tag has the character in it, so each piece holds the attributes of one element.
    let mut at = 0;
    for tag in text.split('<') {
        if tag.matches('=').count() > MAX_ATTRIBUTES {
            let reason = format!("an element has more than {MAX_ATTRIBUTES} attributes");
            return wrong(line_at(at), reason);
        }
        at += tag.len() + 1;
    }
    Ok(())
}

fn describe(text: &str) -> Result<Description, Wrong> {
    bounded(text)?;
    let options = ParsingOptions {
        allow_dtd: true, // Its first lines name one, which is not looked at.
        nodes_limit: MAX_PARTS,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text, options).map_err(|error| Wrong {
        line: error.pos().row,
        reason: error.to_string(),
    })?;
    let root = document.root_element();
    let mut reader = Reader {
        lines: text.match_indices('\n').map(|(at, _)| at).collect(),
        members: 0,
    };
    reader.version(root)?;
    let machine = root.children().find(|node| node.has_tag_name("object"));
    let Some(machine) = machine.filter(|node| node.attribute("type") == Some("Machine")) else {
        return wrong(reader.line(root), "it describes no Machine");
    };
    let matrices = root.children().filter(|node| {
        let name = node.tag_name().name();
        name == "distances2" || name == "distances2hetero"
    });
    let matrices: Vec<_> = matrices.collect();
    if matrices.len() > MAX_MATRICES {
        let line = reader.line(matrices[MAX_MATRICES]);
        return wrong(line, format!("there are more than {MAX_MATRICES} matrices"));
    }
    Ok(Description {
        allowed: reader.set(machine, "allowed_cpuset")?,
        allowed_nodes: reader.set(machine, "allowed_nodeset")?,
        root: reader.object(machine, 0)?,
        matrices: matrices
            .into_iter()
            .map(|node| reader.matrix(node))
            .collect::<Result<_, _>>()?,
    })
}

struct Reader {
    /// Where lines end.
    lines: Vec<usize>,
    /// Members of sets so far.
    members: usize,
}

impl Reader {
    fn line(&self, node: Node<'_, '_>) -> u32 {
        let before = self.lines.partition_point(|&end| end < node.range().start);
        u32::try_from(before + 1).unwrap_or(u32::MAX)
    }

    /// The format: hwloc 1 wrote none, and hwloc 3 changes what objects and attributes mean.
    fn version(&self, root: Node<'_, '_>) -> Result<(), Wrong> {
        let line = self.line(root);
        if !root.has_tag_name("topology") {
            let name = root.tag_name().name();
            return wrong(line, format!("it is no description by hwloc: it begins with <{name}>"));
        }
        let again = "write it with hwloc 2: lstopo --of xml";
        match root.attribute("version") {
            Some(version) if version.split('.').next() == Some("2") => Ok(()),
            Some(version) => wrong(line, format!("it is of format {version:?} of hwloc, not 2: {again}")),
            None => wrong(line, format!("it is of hwloc 1, before format 2: {again}")),
        }
    }

    fn object(&mut self, node: Node<'_, '_>, depth: u32) -> Result<Object, Wrong> {
        if depth > MAX_DEPTH {
            return wrong(
                self.line(node),
                format!("objects are nested more than {MAX_DEPTH} deep"),
            );
        }
        let mut object = Object {
            line: self.line(node),
            kind: self.kind(node)?,
            number: self.optional(node, "os_index")?,
            id: self.optional(node, "gp_index")?.unwrap_or(0),
            memory: self.optional(node, "local_memory")?.unwrap_or(0),
            name: self.words(node, "name")?,
            subtype: self.words(node, "subtype")?,
            ..Object::default()
        };
        // A processor's number becomes a member of sets.
        if matches!(object.kind, Kind::Processor | Kind::Node) && object.number.is_some_and(|n| n >= MAX_NUMBER) {
            return wrong(self.line(node), format!("os_index is {MAX_NUMBER} or more"));
        }
        for child in node.children().filter(Node::is_element) {
            match child.tag_name().name() {
                "object" => object.children.push(self.object(child, depth + 1)?),
                "info" => {
                    let (name, value) = (self.words(child, "name")?, self.words(child, "value")?);
                    object.infos.entry(name).or_insert(value);
                }
                _ => {} // page_type, userdata: not needed.
            }
        }
        let holds_devices = object.children.iter().any(|child| child.kind.is_device());
        if object.kind == Kind::Node || holds_devices && !object.kind.is_device() {
            object.processors = self.set(node, "cpuset")?.unwrap_or_default();
            object.nodes = self.set(node, "nodeset")?.unwrap_or_default();
        }
        Ok(object)
    }

    fn kind(&self, node: Node<'_, '_>) -> Result<Kind, Wrong> {
        Ok(match node.attribute("type").unwrap_or_default() {
            "Package" => Kind::Package,
            "Core" => Kind::Core,
            "PU" => Kind::Processor,
            "L3Cache" => Kind::L3,
            "NUMANode" => Kind::Node,
            "Machine" | "Group" | "Die" | "MemCache" | "Misc" | "L1Cache" | "L2Cache" | "L4Cache" | "L5Cache"
            | "L1iCache" | "L2iCache" | "L3iCache" => Kind::Other,
            "Bridge" => Kind::Bridge(self.bridge(node)?),
            "PCIDev" => Kind::Pci(self.pci(node)?),
            "OSDev" => match self.required::<u32>(node, "osdev_type")? {
                1 | 5 => Kind::Accelerator,
                2 => Kind::Network,
                3 => Kind::OpenFabrics,
                _ => Kind::Other, // Disks, DMA engines, memory.
            },
            other => {
                return wrong(
                    self.line(node),
                    format!("there is no object of type {other:?} in format 2"),
                );
            }
        })
    }

    /// A bridge's address; the host's has none and is named by the bus that begins there.
    fn bridge(&self, node: Node<'_, '_>) -> Result<String, Wrong> {
        if let Some(address) = node.attribute("pci_busid") {
            return self.address(node, address);
        }
        let buses = node.attribute("bridge_pci").unwrap_or_default();
        let bus = buses.split_once(":[").and_then(|(domain, rest)| {
            let (first, _) = rest.split_once('-')?;
            let name = format!("{domain}:{first}");
            is_address(&format!("{name}:00.0")).then_some(name)
        });
        match bus {
            Some(bus) => Ok(format!("pci{bus}")),
            None => wrong(
                self.line(node),
                format!("bridge_pci={buses:?} is not of the form 0000:[40-4f]"),
            ),
        }
    }

    fn address(&self, node: Node<'_, '_>, address: &str) -> Result<String, Wrong> {
        if is_address(address) {
            return Ok(address.to_lowercase());
        }
        wrong(
            self.line(node),
            format!("pci_busid={address:?} is not of the form 0000:3b:00.0"),
        )
    }

    /// `pci_type` is class, vendor and device: `0302 [10de:1db1] [10de:1212] a1`.
    fn pci(&self, node: Node<'_, '_>) -> Result<Pci, Wrong> {
        let address = self.address(node, node.attribute("pci_busid").unwrap_or_default())?;
        let text = node.attribute("pci_type").unwrap_or_default();
        let hex = |part: Option<&str>| u16::from_str_radix(part?, 16).ok();
        let (class, rest) = text.split_once(" [").unwrap_or_default();
        match (hex(Some(class)), hex(rest.split(':').next())) {
            (Some(class), Some(vendor)) => Ok(Pci {
                address,
                class,
                vendor,
                link: self.optional(node, "pci_link_speed")?.and_then(megabytes),
            }),
            _ => wrong(
                self.line(node),
                format!("pci_type={text:?} is not of the form 0302 [10de:1db1]"),
            ),
        }
    }

    fn matrix(&mut self, node: Node<'_, '_>) -> Result<Matrix, Wrong> {
        let line = self.line(node);
        let side: usize = self.required(node, "nbobjs")?;
        if side > MAX_SIDE {
            return wrong(line, format!("a matrix has more than {MAX_SIDE} objects"));
        }
        let kind: u32 = self.required(node, "kind")?;
        let mut matrix = Matrix {
            line,
            name: self.words(node, "name")?,
            bandwidth: kind & BANDWIDTH != 0,
            latency: kind & LATENCY != 0,
            objects: Vec::new(),
            values: Vec::new(),
        };
        for child in node.children().filter(Node::is_element) {
            let words = child.text().unwrap_or_default().split_whitespace();
            match child.tag_name().name() {
                "indexes" => {
                    for word in words.take(side + 1) {
                        matrix.objects.push(self.key(node, word)?);
                    }
                }
                "u64values" => {
                    for word in words.take(side * side + 1) {
                        matrix.values.push(self.parsed(child, "u64values", word)?);
                    }
                }
                _ => {}
            }
        }
        let (objects, values) = (matrix.objects.len(), matrix.values.len());
        if objects != side || values != side * side {
            return wrong(
                line,
                format!("a matrix of {side} objects names {objects} and has {values} values"),
            );
        }
        Ok(matrix)
    }

    /// An object of a matrix: `3` with the type and indexing of the matrix, or `OSDev:332` by its id.
    fn key(&self, matrix: Node<'_, '_>, word: &str) -> Result<Key, Wrong> {
        if let Some((_, id)) = word.split_once(':') {
            return Ok(Key::Id(self.parsed(matrix, "indexes", id)?));
        }
        match (matrix.attribute("indexing"), matrix.attribute("type")) {
            (Some("os"), Some("NUMANode")) => Ok(Key::Node(self.parsed(matrix, "indexes", word)?)),
            (Some("os"), _) => Ok(Key::Processor),
            _ => Ok(Key::Id(self.parsed(matrix, "indexes", word)?)),
        }
    }

    fn parsed<T: FromStr>(&self, node: Node<'_, '_>, name: &str, text: &str) -> Result<T, Wrong> {
        match text.parse() {
            Ok(value) => Ok(value),
            Err(_) => wrong(
                self.line(node),
                format!("{name}={:?} is no number that fits", cut(text)),
            ),
        }
    }

    fn optional<T: FromStr>(&self, node: Node<'_, '_>, name: &str) -> Result<Option<T>, Wrong> {
        let text = node.attribute(name);
        text.map(|text| self.parsed(node, name, text)).transpose()
    }

    fn required<T: FromStr>(&self, node: Node<'_, '_>, name: &str) -> Result<T, Wrong> {
        match self.optional(node, name)? {
            Some(value) => Ok(value),
            None => wrong(self.line(node), format!("{name} is missing")),
        }
    }

    /// Words that people will see: nothing in them may drive a terminal.
    fn words(&self, node: Node<'_, '_>, name: &str) -> Result<String, Wrong> {
        let text = node.attribute(name).unwrap_or_default();
        if text.chars().any(char::is_control) {
            return wrong(self.line(node), format!("{name} holds control characters"));
        }
        Ok(text.to_owned())
    }

    fn set(&mut self, node: Node<'_, '_>, name: &str) -> Result<Option<NumberSet>, Wrong> {
        let Some(text) = node.attribute(name) else {
            return Ok(None);
        };
        let Some(set) = bitmap(text) else {
            let reason = format!("{name}={:?} is no set such as 0xff,0x0000ffff", cut(text));
            return wrong(self.line(node), reason);
        };
        self.members += set.len();
        if self.members > MAX_MEMBERS {
            return wrong(self.line(node), "its sets have too many members");
        }
        Ok(Some(set))
    }
}

/// Enough of a text to know it by.
fn cut(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Words of 32 bits, the highest first; an empty one is zero. Sets without end (`0xf...f`) and numbers that no processor has
/// are refused.
fn bitmap(text: &str) -> Option<NumberSet> {
    let mut members = Vec::new();
    for (base, word) in (0..MAX_NUMBER).step_by(32).zip(text.rsplit(',')) {
        let digits = word.strip_prefix("0x").unwrap_or(word);
        let bits = match digits {
            "" => 0,
            _ => u32::from_str_radix(digits, 16).ok()?,
        };
        members.extend((0..32).filter(|bit| bits >> bit & 1 == 1).map(|bit| base + bit));
    }
    let words = text.split(',').count();
    (words <= (MAX_NUMBER / 32) as usize).then(|| members.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_read_as_hwloc_writes_them() {
        let check = |text: &str, expected: &str| assert_eq!(bitmap(text).unwrap().to_string(), expected, "{text}");
        check("0x0", "");
        check("0x000000ff", "0-7");
        check(
            "0x00000303,0x03030000,,0x03030303",
            "0-1,8-9,16-17,24-25,80-81,88-89,96-97,104-105",
        );
        check("0x0000ffff,,0x0", "64-79");
        check(&format!("0x80000000{}", ",".repeat(2047)), "65535");
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for text in ["0xf...f", "-1", "0x1ffffffff", "0x1;0x2", &",".repeat(2048)] {
            assert_eq!(bitmap(text), None, "{text}");
        }
    }
}
