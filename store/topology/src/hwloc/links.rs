//! Matrices between GPUs: those of hwloc, cut down to the GPUs. GPUs behind NVIDIA's switches reach one another with what both
//! have towards the switches.

use super::{Key, Matrix, Object, Wrong, devices, wrong};
use crate::devices::GpuLinks;
use std::collections::{BTreeMap, BTreeSet};

pub(super) fn read(root: &Object, owners: &BTreeMap<u64, usize>, matrices: &[Matrix]) -> Result<Vec<GpuLinks>, Wrong> {
    let mut switches = BTreeSet::new();
    devices::switches(root, &mut switches);
    let mut found: Vec<GpuLinks> = Vec::new();
    for matrix in matrices {
        if let Some(links) = links(matrix, owners, &switches) {
            if found.iter().any(|other| other.name == links.name) {
                return wrong(matrix.line, format!("{} is there twice", matrix.name));
            }
            found.push(links);
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// The part of a matrix that is of GPUs; `None` if fewer than two are in it.
fn links(matrix: &Matrix, owners: &BTreeMap<u64, usize>, switches: &BTreeSet<u64>) -> Option<GpuLinks> {
    let (mut gpus, mut through) = (BTreeMap::new(), Vec::new());
    for (place, key) in matrix.objects.iter().enumerate() {
        let Key::Id(id) = key else { continue };
        if let Some(&gpu) = owners.get(id) {
            gpus.entry(gpu).or_insert(place);
        } else if switches.contains(id) {
            through.push(place);
        }
    }
    if gpus.len() < 2 {
        return None;
    }
    let value = |from: usize, to: usize| {
        let at = from * matrix.objects.len() + to;
        matrix.values.get(at).copied().unwrap_or(0)
    };
    // What each has towards the switches together, and what they have towards it.
    let sum = |pair: &dyn Fn(usize) -> u64| {
        through
            .iter()
            .fold(0, |sum: u64, &switch| sum.saturating_add(pair(switch)))
    };
    let up: Vec<u64> = (0..matrix.objects.len())
        .map(|from| sum(&|switch| value(from, switch)))
        .collect();
    let down: Vec<u64> = (0..matrix.objects.len())
        .map(|to| sum(&|switch| value(switch, to)))
        .collect();
    let pair = |from: usize, to: usize| match matrix.bandwidth && from != to {
        true => value(from, to).max(up[from].min(down[to])),
        false => value(from, to),
    };
    let rows = gpus
        .values()
        .map(|&from| gpus.values().map(|&to| pair(from, to)).collect());
    Some(GpuLinks {
        name: matrix.name.clone(),
        larger_is_nearer: matrix.bandwidth,
        values: rows.collect(),
        gpus: gpus.keys().copied().collect(),
    })
}
