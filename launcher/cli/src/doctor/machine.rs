//! Rows of `doctor` that describe a machine: processors, NUMA nodes, GPUs and their links, cards; of this one or of one that a
//! file describes.

use crate::error::{CliError, DAMAGED, NOT_FOUND, OK};
use crate::output;
use bridgehead_spec::format_memory;
use bridgehead_topology::{Gpu, Locality, MAX_XML, NumaNode, Topology};
use serde_json::json;
use std::io::{ErrorKind, Read};
use std::path::Path;

type Row = (&'static str, String);

/// `bridgehead doctor --topology FILE`.
pub(super) fn doctor(path: &Path, as_json: bool) -> Result<u8, CliError> {
    let topology = read(path)?;
    if as_json {
        output::line(json!({ "version": env!("CARGO_PKG_VERSION"), "file": path, "topology": topology }))?;
        return Ok(OK);
    }
    let mut rows = vec![
        ("file", path.display().to_string()),
        ("processors", processors(&topology)),
    ];
    rows.extend(numa(&topology));
    rows.push(("memory", format_memory(topology.memory.total)));
    rows.extend(devices(&topology));
    rows.extend(links(&topology));
    for (name, text) in rows {
        output::line(format!("{name:<15} {text}"))?;
    }
    Ok(OK)
}

fn read(path: &Path) -> Result<Topology, CliError> {
    let unread = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => CliError::new(NOT_FOUND, format!("there is no file {}", path.display())),
        _ => CliError::system("read", path, &error),
    };
    let file = std::fs::File::open(path).map_err(unread)?;
    let mut bytes = Vec::new();
    // A byte more than is taken: the reader says that it is too long.
    file.take(MAX_XML as u64 + 1).read_to_end(&mut bytes).map_err(unread)?;
    let refused = |error: String| CliError::new(DAMAGED, format!("{}: {error}", path.display()));
    let text = String::from_utf8(bytes).map_err(|_| refused("it is no text in UTF-8".to_owned()))?;
    Topology::from_xml(&text).map_err(|error| refused(error.to_string()))
}

#[allow(clippy::cast_precision_loss)] // Cores for people.
pub(super) fn processors(t: &Topology) -> String {
    let cpus = &t.processors;
    let quota = t
        .limits
        .cpu_millis
        .map_or(String::new(), |m| format!(", limited to {} cores", m as f64 / 1000.0));
    let model = cpus
        .model
        .as_deref()
        .map_or(String::new(), |model| format!("; {model}"));
    let (threads, usable) = (cpus.online.len(), cpus.allowed.len());
    let (cores, packages) = (cpus.cores, cpus.packages);
    format!(
        "{threads} threads, {cores} cores, {packages} packages; {usable} usable here ({}){quota}{model}",
        cpus.allowed
    )
}

pub(super) fn numa(t: &Topology) -> Vec<Row> {
    let row = |node: &NumaNode| {
        let distances: Vec<String> = node.distances.iter().map(ToString::to_string).collect();
        let distances = match distances.is_empty() {
            true => "not told".to_owned(),
            false => distances.join(" "),
        };
        let cpus = match node.processors.is_empty() {
            true => "no processors".to_owned(),
            false => format!("processors {}", node.processors),
        };
        let barred = if node.allowed { "" } else { ", not for this process" };
        let (number, memory) = (node.node, format_memory(node.memory));
        let text = format!("node {number}: {cpus}, {memory}, distances {distances}{barred}");
        ("numa", text)
    };
    t.numa.iter().map(row).collect()
}

/// GPUs and cards, each with what it hangs on.
pub(super) fn devices(t: &Topology) -> Vec<Row> {
    let mut out: Vec<Row> = t.gpus.iter().map(|card| ("gpu", gpu(t, card))).collect();
    if out.is_empty() {
        out.push(("gpu", "none".to_owned()));
    }
    out.extend(network(t).into_iter().map(|text| ("network", text)));
    out
}

/// A row for each GPU and matrix.
fn links(t: &Topology) -> Vec<Row> {
    let mut out = Vec::new();
    for matrix in &t.gpu_links {
        for (&from, values) in matrix.gpus.iter().zip(&matrix.values) {
            let Some(card) = t.gpus.get(from) else { continue };
            let values: Vec<String> = values.iter().map(ToString::to_string).collect();
            let text = format!(
                "{} of {} {}: {}",
                matrix.name,
                card.vendor,
                card.index,
                values.join(" ")
            );
            out.push(("gpu links", text));
        }
    }
    out
}

/// The node that a device hangs on, and its processors where they are fewer than the node's.
fn place(t: &Topology, node: Option<u32>, near: &Locality) -> String {
    let nodes = match (near.nodes.len(), node) {
        (0 | 1, None) => return String::new(),
        (0 | 1, Some(node)) => format!(", NUMA node {node}"),
        _ => format!(", NUMA nodes {}", near.nodes),
    };
    let all = node.and_then(|node| t.node(node)).map(|node| &node.processors);
    match near.processors.is_empty() || near.nodes.len() != 1 || all == Some(&near.processors) {
        true => nodes,
        false => format!("{nodes}, processors {}", near.processors),
    }
}

fn gpu(t: &Topology, card: &Gpu) -> String {
    let model = card.model.as_deref().unwrap_or("of unknown model");
    let bus = card.bus.as_deref().map_or(String::new(), |bus| format!(" at {bus}"));
    let place = place(t, card.numa_node, &card.near);
    format!("{} {}: {model}{bus}{place}", card.vendor, card.index)
}

fn network(t: &Topology) -> Vec<String> {
    let cards = t.network.iter().map(|card| {
        let speed = card.speed.map_or(String::new(), |speed| format!(", {speed} Mb/s"));
        let state = match card.up {
            Some(true) => " up",
            Some(false) => " down",
            None => "",
        };
        let place = place(t, card.numa_node, &card.near);
        format!("{}{state}{speed}{place}", card.name)
    });
    let ports = t.infiniband.iter().map(|port| {
        let words =
            [port.link.as_deref(), port.rate.as_deref()].map(|word| word.map_or(String::new(), |w| format!(" {w}")));
        let state = match port.active {
            Some(true) => ", active",
            Some(false) => ", not active",
            None => "",
        };
        let place = place(t, port.numa_node, &port.near);
        format!("{} port {}{}{state}{place}", port.device, port.port, words.concat())
    });
    cards.chain(ports).collect()
}
