//! Orphans: what tasks leave behind when they detach a process, even one without the agent's mark in its environment. The
//! kernel hands such a process to the agent, which takes note of its end, and ends it when the agent leaves.
//! Owns telling the agent's own children from those.

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

/// Whether this process takes orphans at all; tests of this crate share their process with others.
static TAKES: AtomicBool = AtomicBool::new(false);
/// Held for reading while a process of ours is born, so that a look for orphans cannot take it for one.
static BIRTHS: RwLock<()> = RwLock::new(());
static OWN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// From now on this process is handed the orphans of its descendants. For a process that starts children through this crate
/// only.
pub fn take_orphans() {
    match set_child_subreaper(Some(getpid())) {
        Ok(()) => TAKES.store(true, Ordering::SeqCst),
        Err(error) => tracing::warn!(%error, "detached processes of tasks cannot be followed"),
    }
}

/// Starts a child of our own with `start`, which gives its number.
pub(crate) fn birth<T, E>(start: impl FnOnce() -> Result<T, E>, number: impl FnOnce(&T) -> i32) -> Result<T, E> {
    let _birth = BIRTHS.read().unwrap_or_else(PoisonError::into_inner);
    let child = start()?;
    own().insert(number(&child));
    Ok(child)
}

/// The end of a child of our own was taken note of.
pub(crate) fn death(pid: i32) {
    own().remove(&pid);
}

fn own() -> std::sync::MutexGuard<'static, BTreeSet<i32>> {
    OWN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes note of orphans that have ended; those that live.
pub(crate) fn living() -> Vec<Pid> {
    let mut found = all();
    found.retain(|&pid| matches!(waitpid(Some(pid), WaitOptions::NOHANG), Ok(None)));
    found
}

/// Ends all orphans, and their children as they become orphans in turn.
pub(crate) fn end_all() {
    loop {
        let found = all();
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL); // It may have ended by itself.
            let _ = waitpid(Some(pid), WaitOptions::empty()); // Killed processes end for certain.
        }
    }
}

fn all() -> Vec<Pid> {
    if !TAKES.load(Ordering::SeqCst) {
        return Vec::new();
    }
    let _no_birth = BIRTHS.write().unwrap_or_else(PoisonError::into_inner);
    let own = own();
    let children = children().into_iter().filter(|pid| !own.contains(pid));
    children.filter_map(Pid::from_raw).collect()
}

fn children() -> BTreeSet<i32> {
    let threads = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_ascii_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}

/// When a process was started, in clock ticks since boot: tells it from a later one of the same number.
pub(crate) fn started(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let fields = stat.rsplit_once(')')?.1; // The name before it may hold anything.
    fields.split_ascii_whitespace().nth(19)?.parse().ok()
}
