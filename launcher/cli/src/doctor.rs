//! `doctor`: what this machine has, and what each lack costs. Facts of the hardware are `topology`'s; this adds what programs
//! and libraries are there, and says it to people.

mod curve;
mod machine;
mod transports;

use crate::args::Doctor;
use crate::error::{CliError, OK};
use crate::output;
use bridgehead_spec::format_memory;
use bridgehead_topology::Topology;
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
    /// What the cluster says, where a kubeconfig leads to one.
    cluster: Option<String>,
}

/// `bridgehead doctor`.
pub(crate) fn doctor(args: &Doctor) -> Result<u8, CliError> {
    if args.transport {
        return transports::doctor(args.json);
    }
    if let Some(path) = &args.topology {
        return machine::doctor(path, args.json);
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
    if let Some(path) = std::env::var_os("HWLOC_XMLFILE") {
        let path = Path::new(&path).display();
        output::line(format!(
            "note: HWLOC_XMLFILE is set and not followed: this is the machine itself; `doctor --topology {path}` shows that file"
        ))?;
    }
    Ok(OK)
}

fn facts(t: &Topology, s: &Software) -> Vec<(&'static str, String)> {
    let mut out = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("processors", machine::processors(t)),
    ];
    out.extend(machine::numa(t));
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
    out.extend(machine::devices(t));
    out.push(("gpu memory", s.gpu_memory.clone()));
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
        (Some(path), _) => s.cluster.clone().map_or_else(
            || path.display().to_string(),
            |words| format!("{}: {words}", path.display()),
        ),
        (None, Some(kubectl)) => format!("{}, but no kubeconfig", kubectl.display()),
        (None, None) => "not found".to_owned(),
    }
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
    let rdma = t.infiniband.iter().any(|port| port.active == Some(true));
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
        let kubeconfig = kubeconfig();
        Self {
            ucx: library("libucp.so.0"),
            gpu_memory: gpu_memory(),
            sbatch: program("sbatch"),
            slurm: program("sbatch").map(|path| format!("{}: {}", path.display(), crate::target::slurm::in_words())),
            srun: program("srun"),
            kubectl: program("kubectl"),
            python: program("python3"),
            cluster: kubeconfig.as_ref().map(|_| crate::target::kubernetes::in_words()),
            kubeconfig,
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
    fn limits_and_what_memory_is_made_of_are_in_the_rows() {
        let mut topology = Topology::default();
        topology.processors.allowed = "0-3".parse().unwrap();
        topology.limits.cpu_millis = Some(2500);
        topology.limits.memory = Some(1 << 30);
        topology.limits.locked_memory = Some(64 << 10);
        topology.memory.transparent_shared = Some("advise".to_owned());
        topology.memory.huge_pages = vec![bridgehead_topology::HugePages {
            size: 2 << 20,
            total: 8,
            free: 3,
        }];
        topology.shared_memory = Some(bridgehead_topology::SharedMemory {
            size: 64 << 20,
            free: 32 << 20,
        });
        let rows = facts(&topology, &Software::default());
        for (name, words) in [
            ("processors", "4 usable here (0-3), limited to 2.5 cores"),
            ("memory", "limited to 1 GiB"),
            ("huge pages", "in shared memory advise; reserved: 3 of 8 free of 2 MiB"),
            ("shared memory", "/dev/shm 64 MiB, 32 MiB free"),
            ("locked memory", "64 KiB"),
        ] {
            let row = rows.iter().find(|(found, _)| *found == name);
            assert!(row.is_some_and(|(_, text)| text.contains(words)), "{name}: {row:?}");
        }
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
