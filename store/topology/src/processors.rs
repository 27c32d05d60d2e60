//! Processors: hardware threads, the cores and packages that they belong to, and those that this process may use.

use crate::set::NumberSet;
use crate::tree::Tree;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

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
    /// The processors of each core, by the lowest of them.
    pub by_core: Vec<NumberSet>,
    /// Those of each package.
    pub by_package: Vec<NumberSet>,
    /// Those that share a cache of the third level; empty where there is none or it is not told.
    pub by_l3: Vec<NumberSet>,
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
    let (mut cores, mut packages) = (BTreeMap::new(), BTreeMap::new());
    let mut caches: BTreeSet<NumberSet> = BTreeSet::new();
    for cpu in online.iter() {
        let part = |name: &str| tree.value::<i64>(&format!("{CPU}/cpu{cpu}/topology/{name}"));
        let package = part("physical_package_id").unwrap_or(0);
        // Numbers of cores repeat in the dies and packages; where there are none, a thread is a core.
        let core = part("core_id").unwrap_or_else(|| i64::from(cpu));
        let core = (package, part("die_id").unwrap_or(0), core);
        packages.entry(package).or_insert_with(Vec::new).push(cpu);
        cores.entry(core).or_insert_with(Vec::new).push(cpu);
        if !caches.iter().any(|cache| cache.contains(cpu)) {
            caches.extend(l3(tree, cpu));
        }
    }
    Processors {
        model: tree.text("proc/cpuinfo").as_deref().and_then(model),
        ..Processors::grouped(
            online,
            allowed,
            cores.into_values().map(NumberSet::from_iter).collect(),
            packages.into_values().map(NumberSet::from_iter).collect(),
            caches.into_iter().collect(),
        )
    }
}

impl Processors {
    /// Processors in these groups, which are put in order.
    pub(crate) fn grouped(
        online: NumberSet,
        allowed: NumberSet,
        mut cores: Vec<NumberSet>,
        mut packages: Vec<NumberSet>,
        mut caches: Vec<NumberSet>,
    ) -> Self {
        for groups in [&mut cores, &mut packages, &mut caches] {
            groups.sort_by_key(|group| group.iter().next());
        }
        let count = |groups: &[NumberSet]| u32::try_from(groups.len()).unwrap_or(u32::MAX);
        Self {
            online,
            allowed,
            cores: count(&cores),
            packages: count(&packages),
            by_core: cores,
            by_package: packages,
            by_l3: caches,
            model: None,
        }
    }
}

/// The processors that share the third-level cache of this one.
fn l3(tree: &Tree, cpu: u32) -> Option<NumberSet> {
    let folder = format!("{CPU}/cpu{cpu}/cache");
    let index = tree.numbers(&folder, "index").into_iter().find(|index| {
        let level: Option<u32> = tree.value(&format!("{folder}/index{index}/level"));
        level == Some(3)
    })?;
    tree.value(&format!("{folder}/index{index}/shared_cpu_list"))
}

fn model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
