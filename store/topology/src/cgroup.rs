//! Limits on this process: those of its control groups, version 1 and 2, and its share of locked memory. A group's limit holds
//! for all groups below it, so the lowest on the way up counts.

use crate::tree::Tree;
use serde::{Deserialize, Serialize};

/// Version 1 writes "no limit" as the largest multiple of a page; nothing above this is a limit.
const UNLIMITED: u64 = 1 << 60;

/// What this process may use at most; `None` is no limit.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Limits {
    /// The version of control groups that limits memory: 1 or 2; 0 where there is none.
    pub cgroup: u32,
    /// Processor time in thousandths of a core.
    pub cpu_millis: Option<u64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Memory that may be locked, in bytes: RDMA needs it.
    pub locked_memory: Option<u64>,
}

/// A mounted hierarchy of control groups.
struct Mount {
    /// Where it is mounted.
    at: String,
    /// The part of the hierarchy that is mounted.
    root: String,
    /// Its kind of file system.
    kind: String,
    /// Its controllers (version 1), among other options.
    options: String,
}

pub(crate) fn read(tree: &Tree) -> Limits {
    let mounts = mounts(&tree.text("proc/self/mountinfo").unwrap_or_default());
    let groups = tree.text("proc/self/cgroup").unwrap_or_default();
    let (memory_group, version) = group_of("memory", &groups, &mounts);
    let (cpu_group, cpu_version) = group_of("cpu", &groups, &mounts);
    let memory = |folder: &str| match version {
        2 => tree.value(&format!("{folder}/memory.max")),
        _ => tree
            .value(&format!("{folder}/memory.limit_in_bytes"))
            .filter(|&bytes| bytes < UNLIMITED),
    };
    let cpu = |folder: &str| match cpu_version {
        2 => quota(&tree.text(&format!("{folder}/cpu.max"))?),
        _ => {
            let (quota_us, period_us) = (
                format!("{folder}/cpu.cfs_quota_us"),
                format!("{folder}/cpu.cfs_period_us"),
            );
            quota(&format!("{} {}", tree.text(&quota_us)?, tree.text(&period_us)?))
        }
    };
    Limits {
        cgroup: version,
        cpu_millis: cpu_group.iter().filter_map(|folder| cpu(folder)).min(),
        memory: memory_group.iter().filter_map(|folder| memory(folder)).min(),
        locked_memory: locked(&tree.text("proc/self/limits").unwrap_or_default()),
    }
}

/// Lines of mountinfo: `36 35 98:0 /root /mount options fields... - kind source options`.
fn mounts(text: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let (mut left, mut right) = (left.split(' ').skip(3), right.split(' '));
        let (root, at) = (left.next()?.to_owned(), left.next()?.to_owned());
        let (kind, _, options) = (right.next()?.to_owned(), right.next()?, right.next()?.to_owned());
        kind.starts_with("cgroup").then_some(Mount {
            at,
            root,
            kind,
            options,
        })
    };
    text.lines().filter_map(parse).collect()
}

/// Folders of the group that `controller` puts this process into and of those above it, and the version that it is of.
fn group_of(controller: &str, groups: &str, mounts: &[Mount]) -> (Vec<String>, u32) {
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if controllers.split(',').any(|name| name == controller) {
            let mount = mounts
                .iter()
                .find(|m| m.kind == "cgroup" && m.options.split(',').any(|name| name == controller));
            return (mount.map_or_else(Vec::new, |mount| upwards(mount, path)), 1);
        }
    }
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let mount = mounts.iter().find(|mount| mount.kind == "cgroup2");
    match (path, mount) {
        (Some(path), Some(mount)) => (upwards(mount, path), 2),
        _ => (Vec::new(), 0),
    }
}

/// A group's folder and those above it, up to the mount. In a container the path may be one that is seen from outside: what
/// does not exist here says nothing, and the mount itself is the container's group.
fn upwards(mount: &Mount, path: &str) -> Vec<String> {
    let below = path.strip_prefix(mount.root.trim_end_matches('/')).unwrap_or(path);
    let mut folders = Vec::new();
    let mut rest = below.trim_matches('/');
    while !rest.is_empty() {
        folders.push(format!("{}/{rest}", mount.at.trim_end_matches('/')));
        rest = rest.rsplit_once('/').map_or("", |(above, _)| above);
    }
    folders.push(mount.at.clone());
    folders
}

/// Thousandths of a core of `quota period`; `max` and -1 are no limit.
fn quota(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace();
    let quota: u64 = words.next()?.parse().ok()?;
    let period: u64 = words.next()?.parse().ok().filter(|&period| period > 0)?;
    Some(quota.saturating_mul(1000) / period)
}

/// The soft limit in the line `Max locked memory  8388608  8388608  bytes`.
fn locked(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max locked memory"))?;
    line.split_whitespace().next()?.parse().ok()
}
