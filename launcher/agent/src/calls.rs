//! What an agent has to give and who holds it: resources, GPU devices, and the failures that it words itself.

use bridgehead_spec::Resources;
use bridgehead_wire::{Failure, FailureCause, Outcome, TaskCall};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// What a call asks for; one core where it says nothing.
pub(crate) fn asks(call: &TaskCall) -> Resources {
    call.resources.as_ref().map_or_else(Resources::default, Resources::from)
}

/// Whether a call may wait inside a busy worker: small, unlimited in time, without devices.
pub(crate) fn may_queue(call: &TaskCall) -> bool {
    let small = call
        .resources
        .as_ref()
        .is_none_or(|r| r.cpu_millis == 1000 && r.memory == 0 && r.gpus == 0 && r.named.is_empty());
    small && call.timeout_ms == 0 && call.program.is_none()
}

/// Threads that a call's libraries should use.
pub(crate) fn threads(call: &TaskCall) -> u64 {
    call.resources.as_ref().map_or(1, |r| (r.cpu_millis / 1000).max(1))
}

/// What is free on this node.
#[derive(Debug)]
pub(crate) struct Room {
    free: Resources,
    devices: Vec<u32>,
}

impl Room {
    /// Everything is free.
    pub(crate) fn new(total: &Resources) -> Self {
        Self {
            free: total.clone(),
            devices: (0..total.gpus).rev().collect(),
        }
    }

    /// Takes what a call asks for, devices by number; `None` when it does not fit.
    pub(crate) fn take(&mut self, asked: &Resources) -> Option<Vec<u32>> {
        if !asked.fits(&self.free) {
            return None;
        }
        self.free.cpu_millis -= asked.cpu_millis;
        self.free.memory -= asked.memory;
        self.free.gpus -= asked.gpus;
        for (name, amount) in &asked.named {
            if let Some(free) = self.free.named.get_mut(name) {
                *free -= amount;
            }
        }
        let left = self.devices.len() - asked.gpus as usize;
        let mut devices = self.devices.split_off(left);
        devices.sort_unstable();
        Some(devices)
    }

    /// Gives back what `take` took.
    pub(crate) fn give(&mut self, asked: &Resources, devices: &[u32]) {
        self.free.cpu_millis += asked.cpu_millis;
        self.free.memory += asked.memory;
        self.free.gpus += asked.gpus;
        for (name, amount) in &asked.named {
            if let Some(free) = self.free.named.get_mut(name) {
                *free += amount;
            }
        }
        self.devices.extend_from_slice(devices);
    }

    /// Whether a small call fits.
    pub(crate) fn has_core(&self) -> bool {
        self.free.cpu_millis >= 1000
    }
}

/// Words the death of a worker for the task that it ran.
pub(crate) fn death(status: Option<ExitStatus>, out_of_memory: bool, log: &str) -> Outcome {
    let last = if log.is_empty() {
        String::new()
    } else {
        format!("; its last words: {log}")
    };
    let signal = status.and_then(|s| s.signal());
    let (cause, kind, what) = match (signal, status.and_then(|s| s.code())) {
        (Some(9), _) if out_of_memory => (
            FailureCause::OutOfMemory,
            "out-of-memory",
            "was killed for want of memory (signal 9, SIGKILL): ask for more memory".to_owned(),
        ),
        (Some(9), _) => (
            FailureCause::LostNode,
            "worker-killed",
            "was killed from outside (signal 9, SIGKILL)".to_owned(),
        ),
        (Some(n), _) => (
            FailureCause::User,
            "worker-died",
            format!("died of signal {n} ({})", signal_name(n)),
        ),
        (None, Some(code)) => (
            FailureCause::User,
            "worker-died",
            format!("ended its process with exit code {code}"),
        ),
        (None, None) => (FailureCause::LostNode, "worker-died", "went away".to_owned()),
    };
    let mut failure = Failure::new(cause, kind, format!("the worker process that ran it {what}{last}"));
    failure.signal = signal;
    failure.exit_code = status.and_then(|s| s.code());
    Outcome::failure(failure)
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => "see `man 7 signal`",
    }
}

/// How often the kernel killed for want of memory in this cgroup; 0 where it does not tell.
pub(crate) fn oom_kills() -> u64 {
    let text = std::fs::read_to_string("/sys/fs/cgroup/memory.events").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    line.and_then(|n| n.trim().parse().ok()).unwrap_or(0)
}
