//! Processors: hardware threads, the cores and packages that they belong to, and those that this process may use.

use crate::set::NumberSet;
use crate::tree::Tree;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

const CPU: &str = "sys/devices/system/cpu";

/// The processors of a machine. A processor is what the kernel calls a CPU: one hardware thread.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Processors {
    /// Those that are on.
    pub online: NumberSet,
    /// Those that this process may use: affinity and cpuset.
    pub allowed: NumberSet,
    /// Cores that the online ones belong to.
    pub cores: u32,
    /// Packages (sockets) that they belong to.
    pub packages: u32,
    /// What the maker calls them.
    pub model: Option<String>,
}

pub(crate) fn read(tree: &Tree) -> Processors {
    let online: Option<NumberSet> = tree.value(&format!("{CPU}/online"));
    let online = online.unwrap_or_else(|| tree.numbers(CPU, "cpu").into_iter().collect());
    let allowed = tree.field("proc/self/status", "Cpus_allowed_list");
    let allowed = allowed
        .and_then(|text| text.parse::<NumberSet>().ok())
        .unwrap_or_else(|| online.clone());
    let (mut cores, mut packages) = (BTreeSet::new(), BTreeSet::new());
    for cpu in online.iter() {
        let part = |name: &str| tree.value::<i64>(&format!("{CPU}/cpu{cpu}/topology/{name}"));
        let package = part("physical_package_id").unwrap_or(0);
        packages.insert(package);
        // Numbers of cores repeat in the dies and packages; where there are none, a thread is a core.
        let core = part("core_id").unwrap_or_else(|| i64::from(cpu));
        cores.insert((package, part("die_id").unwrap_or(0), core));
    }
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Processors {
        cores: count(cores.len()),
        packages: count(packages.len()),
        model: tree.text("proc/cpuinfo").as_deref().and_then(model),
        online,
        allowed,
    }
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
