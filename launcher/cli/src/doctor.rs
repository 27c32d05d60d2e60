//! `doctor`: what this machine has, and what each lack costs. Facts of the hardware are `topology`'s; this adds what programs
//! and libraries are there, and says it to people.

mod curve;
mod transports;

use crate::args::Doctor;
use crate::error::{CliError, OK};
use crate::output;
use bridgehead_spec::format_memory;
use bridgehead_topology::{Gpu, Topology};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Below this much free space in `/dev/shm`, programs that share memory by files fail in ways that are hard to read.
const SMALL_SHM: u64 = 64 << 20;
/// Locked memory that RDMA needs at least.
const SMALL_LOCKED: u64 = 64 << 20;

/// What is there besides the hardware.
#[derive(Debug, Default, Serialize)]
struct Software {
    /// libucp, if the loader would find it.
    ucx: Option<PathBuf>,
    /// What the memory of GPUs would be to a store of this machine.
    gpu_memory: String,
    /// Programs by their name.
    sbatch: Option<PathBuf>,
    srun: Option<PathBuf>,
    /// The way to Slurm and what it has, where its commands are.
    slurm: Option<String>,
    kubectl: Option<PathBuf>,
    python: Option<PathBuf>,
    /// The file with the way to a cluster.
    kubeconfig: Option<PathBuf>,
}

/// `bridgehead doctor`.
pub(crate) fn doctor(args: &Doctor) -> Result<u8, CliError> {
    if args.transport {
        return transports::doctor(args.json);
    }
    let (topology, software) = (Topology::here(), Software::find());
    let lacks = lacks(&topology, &software);
    if args.json {
        let lacks: Vec<_> = lacks
            .iter()
            .map(|(what, cost)| json!({ "lack": what, "cost": cost }))
            .collect();
        output::line(json!({
            "version": env!("CARGO_PKG_VERSION"), "home": bridgehead_local::home(), "topology": topology,
            "software": software, "transports": ["shared-memory", "tcp"], "lacks": lacks,
        }))?;
        return Ok(OK);
    }
    for (name, text) in facts(&topology, &software) {
        output::line(format!("{name:<15} {text}"))?;
    }
    for (what, cost) in lacks {
        output::line(format!("note: {what}: {cost}"))?;
    }
    Ok(OK)
}

fn facts(t: &Topology, s: &Software) -> Vec<(&'static str, String)> {
    let mut out = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("processors", processors(t)),
    ];
    for node in &t.numa {
        let distances: Vec<String> = node.distances.iter().map(ToString::to_string).collect();
        let (cpus, memory) = (&node.processors, format_memory(node.memory));
        out.push((
            "numa",
            format!(
                "node {}: processors {cpus}, {memory}, distances {}",
                node.node,
                distances.join(" ")
            ),
        ));
    }
    let limit = t.limits.memory.map_or("no limit".to_owned(), |bytes| {
        format!("limited to {}", format_memory(bytes))
    });
    let (total, available) = (format_memory(t.memory.total), format_memory(t.memory.available));
    out.push(("memory", format!("{total}, {available} available, {limit}")));
    out.push(("huge pages", huge_pages(t)));
    let shm = t
        .shared_memory
        .map(|shm| format!("/dev/shm {}, {} free", format_memory(shm.size), format_memory(shm.free)));
    out.push(("shared memory", shm.unwrap_or_else(|| "no /dev/shm".to_owned())));
    out.push((
        "locked memory",
        t.limits.locked_memory.map_or("no limit".to_owned(), format_memory),
    ));
    out.extend(t.gpus.iter().map(|card| ("gpu", gpu(card))));
    if t.gpus.is_empty() {
        out.push(("gpu", "none".to_owned()));
    }
    out.push(("gpu memory", s.gpu_memory.clone()));
    out.extend(network(t).into_iter().map(|text| ("network", text)));
    let found = |path: &Option<PathBuf>| {
        path.as_ref()
            .map_or("not found".to_owned(), |path| path.display().to_string())
    };
    out.push((
        "transports",
        "shared memory within a node, TCP between nodes".to_owned(),
    ));
    out.push(("ucx", found(&s.ucx)));
    out.push(("slurm", s.slurm.clone().unwrap_or_else(|| found(&s.srun))));
    out.push(("kubernetes", kubernetes(s)));
    out.push(("python", found(&s.python)));
    out.push(("home", bridgehead_local::home().display().to_string()));
    out
}

fn kubernetes(s: &Software) -> String {
    match (&s.kubeconfig, &s.kubectl) {
        (Some(path), _) => path.display().to_string(),
        (None, Some(kubectl)) => format!("{}, but no kubeconfig", kubectl.display()),
        (None, None) => "not found".to_owned(),
    }
}

#[allow(clippy::cast_precision_loss)] // Cores for people.
fn processors(t: &Topology) -> String {
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

fn huge_pages(t: &Topology) -> String {
    let word = |setting: &Option<String>| setting.clone().unwrap_or_else(|| "unknown".to_owned());
    let (plain, shared) = (word(&t.memory.transparent), word(&t.memory.transparent_shared));
    let pools = t.memory.huge_pages.iter().filter(|pool| pool.total > 0);
    let pools: Vec<_> = pools
        .map(|p| format!("{} of {} free of {}", p.free, p.total, format_memory(p.size)))
        .collect();
    let reserved = if pools.is_empty() {
        "none".to_owned()
    } else {
        pools.join(", ")
    };
    format!("transparent {plain}, in shared memory {shared}; reserved: {reserved}")
}

fn gpu(card: &Gpu) -> String {
    let model = card.model.as_deref().unwrap_or("of unknown model");
    let bus = card.bus.as_deref().map_or(String::new(), |bus| format!(" at {bus}"));
    let node = card
        .numa_node
        .map_or(String::new(), |node| format!(", NUMA node {node}"));
    format!("{} {}: {model}{bus}{node}", card.vendor, card.index)
}

fn network(t: &Topology) -> Vec<String> {
    let near = |node: Option<u32>| node.map_or(String::new(), |node| format!(", NUMA node {node}"));
    let cards = t.network.iter().map(|card| {
        let speed = card.speed.map_or(String::new(), |speed| format!(", {speed} Mb/s"));
        format!(
            "{} {}{speed}{}",
            card.name,
            if card.up { "up" } else { "down" },
            near(card.numa_node)
        )
    });
    let ports = t.infiniband.iter().map(|port| {
        let (link, rate) = (port.link.as_deref().unwrap_or("?"), port.rate.as_deref().unwrap_or("?"));
        let state = if port.active { "active" } else { "not active" };
        format!(
            "{} port {} {link} {rate}, {state}{}",
            port.device,
            port.port,
            near(port.numa_node)
        )
    });
    cards.chain(ports).collect()
}

/// What is not there, and what that costs.
fn lacks(t: &Topology, s: &Software) -> Vec<(String, &'static str)> {
    let mut out = Vec::new();
    let mut lack = |missing: bool, what: &str, cost| {
        if missing {
            out.push((what.to_owned(), cost));
        }
    };
    lack(t.gpus.is_empty(), "no GPU", "tasks that ask for gpus are refused here");
    let shared_pages = t.memory.transparent_shared.as_deref();
    lack(
        matches!(shared_pages, None | Some("never" | "deny")),
        "no huge pages in shared memory",
        "the first touch of large arrays is slower; `advise` in /sys/kernel/mm/transparent_hugepage/shmem_enabled mends it",
    );
    lack(
        t.shared_memory.is_none_or(|shm| shm.free < SMALL_SHM),
        "little or no space in /dev/shm",
        "programs that share memory through files there fail; containers need a larger one (--shm-size)",
    );
    lack(
        t.limits.locked_memory.is_some_and(|bytes| bytes < SMALL_LOCKED),
        "little memory may be locked",
        "RDMA between nodes needs more: raise the memlock limit (ulimit -l)",
    );
    lack(
        t.usable_memory() < t.memory.total,
        "a control group limits memory",
        "tasks beyond the limit are killed, though the machine has more",
    );
    lack(
        t.usable_cpu_millis() < 1000 * t.processors.allowed.len() as u64,
        "a control group limits processor time",
        "workers on all processors get in each other's way: give --cpus",
    );
    lack(
        s.ucx.is_none(),
        "no UCX library (libucp.so.0)",
        "data between nodes goes over TCP, never over RDMA",
    );
    let rdma = t.infiniband.iter().any(|port| port.active);
    lack(
        !rdma,
        "no active InfiniBand or RoCE port",
        "data between nodes is as fast as the ordinary network",
    );
    let scheduler = s.sbatch.is_some() || s.kubeconfig.is_some();
    lack(
        !scheduler,
        "no scheduler (neither Slurm's commands nor a kubeconfig)",
        "runs stay on this machine",
    );
    lack(
        s.python.is_none(),
        "no python3 on the path",
        "give `bridgehead run --python`",
    );
    out
}

impl Software {
    fn find() -> Self {
        Self {
            ucx: library("libucp.so.0"),
            gpu_memory: gpu_memory(),
            sbatch: program("sbatch"),
            slurm: program("sbatch").map(|path| format!("{}: {}", path.display(), crate::target::slurm_in_words())),
            srun: program("srun"),
            kubectl: program("kubectl"),
            python: program("python3"),
            kubeconfig: kubeconfig(),
        }
    }
}

/// What a store of this machine would hold in GPUs' memory, by CUDA or by what stands in for it.
fn gpu_memory() -> String {
    match bridgehead_store_gpu::cuda_devices() {
        Ok(count) => format!("by CUDA, which has {count} GPUs"),
        Err(error) => format!("host memory stands in for that of the GPUs a run is given: {error}"),
    }
}

fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(name));
    places.find(|file| file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok())
}

/// Where the loader would look: its path, the usual folders, and those that /etc/ld.so.conf.d adds.
fn library(name: &str) -> Option<PathBuf> {
    let asked = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&asked)
        .filter(|p| !p.as_os_str().is_empty())
        .collect();
    for entry in std::fs::read_dir("/etc/ld.so.conf.d").into_iter().flatten().flatten() {
        let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
        folders.extend(text.lines().filter(|line| line.starts_with('/')).map(PathBuf::from));
    }
    folders.extend(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(PathBuf::from));
    folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.exists())
}

/// The first file of `KUBECONFIG`, else the usual one, else what a pod has.
fn kubeconfig() -> Option<PathBuf> {
    let told = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&told).collect();
    places.extend(std::env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config")));
    places.push("/var/run/secrets/kubernetes.io/serviceaccount/token".into());
    places.into_iter().find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with this topology and software lacks the things whose words these are, and nothing else.
    fn check(topology: &Topology, software: &Software, expected: &[&str]) {
        let found = lacks(topology, software);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for ((what, cost), expected) in found.iter().zip(expected) {
            assert!(what.contains(expected) && !cost.is_empty(), "{what}");
        }
    }

    #[test]
    fn a_machine_with_nothing_lacks_everything_that_can_be_lacked() {
        let expected = [
            "GPU",
            "huge pages",
            "/dev/shm",
            "UCX",
            "InfiniBand",
            "scheduler",
            "python3",
        ];
        check(&Topology::default(), &Software::default(), &expected);
    }

    #[test]
    fn limits_are_told_with_their_cost() {
        let mut topology = Topology::default();
        topology.memory.total = 100;
        topology.memory.transparent_shared = Some("advise".to_owned());
        topology.processors.allowed = "0-3".parse().unwrap();
        topology.limits.memory = Some(50);
        topology.limits.cpu_millis = Some(2000);
        topology.limits.locked_memory = Some(64 << 10);
        topology.shared_memory = Some(bridgehead_topology::SharedMemory {
            size: 1 << 30,
            free: 1 << 30,
        });
        let here = Some(PathBuf::from("/x"));
        let software = Software {
            ucx: here.clone(),
            sbatch: here.clone(),
            python: here,
            ..Software::default()
        };
        check(
            &topology,
            &software,
            &["GPU", "locked", "limits memory", "limits processor time", "InfiniBand"],
        );
    }
}
