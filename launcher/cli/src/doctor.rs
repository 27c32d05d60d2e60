//! `doctor`: what this machine has, and what each lack costs.

use crate::args::Doctor;
use crate::error::{CliError, OK};
use serde_json::{Value, json};
use std::path::Path;

pub(crate) fn doctor(args: &Doctor) -> Result<u8, CliError> {
    let facts = facts();
    if args.json {
        println!("{facts}");
        return Ok(OK);
    }
    for (key, value) in facts.as_object().into_iter().flatten() {
        if key != "lacks" {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            println!("{key:<16} {text}");
        }
    }
    for lack in facts["lacks"].as_array().into_iter().flatten() {
        println!("note: {}", lack.as_str().unwrap_or(""));
    }
    Ok(OK)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn on_path(program: &str) -> Option<String> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())?;
    Some(found.display().to_string())
}

fn count(folder: &str, prefix: &str) -> usize {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter(|e| {
            let name = e.file_name().to_string_lossy().into_owned();
            name.strip_prefix(prefix)
                .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()))
        })
        .count()
}

fn ucx() -> Option<String> {
    let folders = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    ];
    folders
        .iter()
        .map(|f| format!("{f}/libucp.so.0"))
        .find(|path| Path::new(path).exists())
}

fn facts() -> Value {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let numa = count("/sys/devices/system/node", "node").max(1);
    let gpus = count("/dev", "nvidia");
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:").map(str::trim).map(str::to_owned));
    let limit = read("/sys/fs/cgroup/memory.max");
    let thp = read("/sys/kernel/mm/transparent_hugepage/shmem_enabled");
    let shm = rustix::fs::statvfs("/dev/shm").map_or(0, |s| s.f_blocks * s.f_frsize);
    let locked = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
    let ucx = ucx();
    let schedulers: Vec<&str> = [("sbatch", "slurm"), ("kubectl", "kubernetes")]
        .into_iter()
        .filter(|(program, _)| on_path(program).is_some())
        .map(|(_, name)| name)
        .collect();
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "cpus": cpus,
        "numa_nodes": numa,
        "memory": memory.unwrap_or_default(),
        "memory_limit": if limit.is_empty() || limit == "max" { "none".to_owned() } else { format!("{limit} bytes (cgroup)") },
        "gpus": gpus,
        "shared_memory": format!("memfd; /dev/shm has {shm} bytes"),
        "huge_pages": if thp.is_empty() { "unknown".to_owned() } else { thp.clone() },
        "locked_memory": locked.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes")),
        "transports": "shared memory within a node, TCP between nodes",
        "ucx": ucx.clone().map_or("not found".to_owned(), |path| format!("{path} (not used by this version)")),
        "schedulers_found": if schedulers.is_empty() { "none".to_owned() } else { schedulers.join(", ") },
        "python": on_path("python3").unwrap_or_else(|| "not found".to_owned()),
        "home": bridgehead_local::home().display().to_string(),
        "lacks": lacks(gpus, &thp, !schedulers.is_empty()),
    })
}

fn lacks(gpus: usize, thp: &str, scheduler: bool) -> Vec<String> {
    let mut lacks = Vec::new();
    if gpus == 0 {
        lacks.push("no GPU: tasks that ask for gpus are refused here".to_owned());
    }
    if thp.contains("[never]") {
        lacks.push(
            "shared memory has no huge pages (shmem_enabled is never): first touch of large arrays is slower"
                .to_owned(),
        );
    }
    if !scheduler {
        lacks.push(
            "no scheduler's command was found: runs stay on this machine, as they do in this version anyway".to_owned(),
        );
    }
    lacks
}
