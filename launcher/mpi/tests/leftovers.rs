//! Gangs that are killed leave nothing: no process, no file, no shared memory, no descriptor. A program of its own, because
//! it looks at what the whole machine has.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

#[path = "../examples/gang/mod.rs"]
mod gang;
mod support;

use bridgehead_mpi::Event;
use gang::{Machine, helper};
use std::collections::BTreeSet;
use std::time::Duration;
use support::{Mpi, all, processes, until};

/// What is in the folders that MPIs write to, of what no process has mapped: others may run MPI on this machine too.
fn files() -> BTreeSet<String> {
    let folders = ["/tmp", "/dev/shm", "/var/tmp"];
    let entries = folders
        .iter()
        .filter_map(|folder| std::fs::read_dir(folder).ok())
        .flatten()
        .flatten();
    let names = entries.map(|entry| entry.path().display().to_string());
    let theirs = [
        "mpich",
        "ompi",
        "openmpi",
        "vader",
        "sm_segment",
        "pmix",
        "prte",
        "orte",
        "ucx",
        "osc",
        "hwloc",
        "dstore",
        "bridgehead-mpi",
    ];
    let named: Vec<String> = names
        .filter(|path| theirs.iter().any(|name| path.contains(name)))
        .collect();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let maps: String = processes
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("maps")).ok())
        .collect();
    named.into_iter().filter(|path| !maps.contains(path.as_str())).collect()
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// So many gangs, each killed at another moment of its start, or in a barrier: at `step` times its number after the first rank came.
fn killed(mpi: &Mpi, gangs: u32, step: Duration) {
    let marks = tempfile::tempdir().unwrap();
    let before = files();
    let mut machine = Machine::new(1, &helper());
    let mut open = 0;
    for turn in 0..gangs {
        let gang = mpi.gang(4, &["wait", marks.path().to_str().unwrap()]);
        let mut killer = None;
        machine.run_with(&gang, |event, pids| {
            if killer.is_none() && matches!(event, Event::Joined { .. }) {
                let victim = rustix::process::Pid::from_raw(pids[turn as usize % 4] as i32).unwrap();
                killer = Some(std::thread::spawn(move || {
                    // The law is for every moment; this is which one, not a wait for something.
                    std::thread::sleep(turn * step);
                    // Its own kill may have come first when another rank failed.
                    let _ = rustix::process::kill_process(victim, rustix::process::Signal::KILL);
                }));
            }
        });
        killer.unwrap().join().unwrap();
        open = if turn == 0 { descriptors() } else { open };
    }
    // Threads of the last ranks may still be closing theirs.
    until("no gang keeps a descriptor", || descriptors() <= open);
    let root = machine.folder.path().to_owned();
    drop(machine);
    until("helpers end with their owner", || {
        processes("launch pmix-server").is_empty()
    });
    assert!(!root.exists());
    assert_eq!(processes("programs/gang").len() + processes("gang-").len(), 0);
    let left: Vec<_> = files().difference(&before).cloned().collect();
    assert_eq!(left, Vec::<String>::new(), "{}", mpi.name);
}

/// One after the other, because each looks at what the machine has.
#[test]
fn killed_gangs_leave_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for mpi in all(folder.path()) {
        // Interpreters take longer to come to the same places.
        let (gangs, step) = if mpi.modes { (50, 6) } else { (10, 60) };
        killed(&mpi, gangs, Duration::from_millis(step));
    }
}
