//! The reaper: ends what a dead agent left running. Every process that an agent starts carries the agent's mark in its
//! environment, children of children too, so that nothing has to be registered while tasks run.

use crate::orphans;
use rustix::process::{Pid, Signal, kill_process};
use std::collections::HashSet;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The variable that marks the processes of an agent; its value is the agent's incarnation.
pub const MARK: &str = "BRIDGEHEAD_AGENT";
/// Rounds of killing; each catches what the last one's victims had started meanwhile.
const ROUNDS: u32 = 100;

/// The reaper of this agent. It acts when its standard input is closed, however this process ends.
#[derive(Debug)]
pub(crate) struct Reaper {
    program: PathBuf,
    incarnation: String,
    socket_dir: PathBuf,
    child: Child,
    /// Orphans that it knows of.
    told: HashSet<(Pid, u64)>,
}

impl Reaper {
    /// # Errors
    /// The program cannot be started.
    pub(crate) fn start(program: &Path, incarnation: &str, socket_dir: &Path) -> std::io::Result<Self> {
        Ok(Self {
            program: program.to_owned(),
            incarnation: incarnation.to_owned(),
            socket_dir: socket_dir.to_owned(),
            child: spawn(program, incarnation, socket_dir)?,
            told: HashSet::new(),
        })
    }

    /// Starts another one if it was killed.
    pub(crate) fn keep(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            tracing::warn!("the reaper is gone, starting another one");
            orphans::death(raw(&self.child));
            self.told.clear();
            match spawn(&self.program, &self.incarnation, &self.socket_dir) {
                Ok(child) => self.child = child,
                Err(error) => tracing::error!(%error, "cannot start the reaper again"),
            }
        }
    }

    /// Tells it of orphans, which it ends with the rest: they may not carry the mark.
    pub(crate) fn tell(&mut self, orphans: &[Pid]) {
        let now: HashSet<(Pid, u64)> = orphans
            .iter()
            .filter_map(|&pid| Some((pid, orphans::started(pid)?)))
            .collect();
        let mut news = String::new();
        for (pid, at) in now.difference(&self.told) {
            news.push_str(&format!("{} {at}\n", pid.as_raw_nonzero()));
        }
        if let (false, Some(pipe)) = (news.is_empty(), &mut self.child.stdin) {
            let _ = pipe.write_all(news.as_bytes()); // A reaper that is gone is noticed by `keep`.
        }
        self.told = now;
    }

    /// Lets it do its work and waits for its end. It is not simply ended: a kill of the agent's process from now on finds
    /// the folder of sockets removed already.
    pub(crate) fn dismiss(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait(); // It may have ended already.
        orphans::death(raw(&self.child));
    }
}

fn spawn(program: &Path, incarnation: &str, socket_dir: &Path) -> std::io::Result<Child> {
    let mut command = Command::new(program);
    command.arg("reaper").arg("--incarnation").arg(incarnation);
    command.arg("--socket-dir").arg(socket_dir);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).process_group(0);
    orphans::birth(|| command.spawn(), raw)
}

fn raw(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap_or(0)
}

/// Blocks until standard input ends (the agent died or left), then ends every process with the agent's mark and those that
/// it was told of, and removes `socket_dir`.
pub fn reaper_main(incarnation: &str, socket_dir: &Path) {
    crate::spawn::ignore_schedulers(); // It has work to do when they end the job.
    let mut told = Vec::new();
    let _ = std::io::stdin().read_to_end(&mut told); // However it ends, the agent is gone.
    sweep(incarnation);
    for line in String::from_utf8_lossy(&told).lines() {
        end_told(line);
    }
    let _ = std::fs::remove_dir_all(socket_dir); // Gone already after a clean end.
}

/// Ends the process of a line `pid start`, unless its number is another one's by now.
fn end_told(line: &str) -> Option<()> {
    let (pid, at) = line.split_once(' ')?;
    let (pid, at) = (Pid::from_raw(pid.parse().ok()?)?, at.parse().ok()?);
    if orphans::started(pid) == Some(at) {
        let _ = kill_process(pid, Signal::KILL); // It may have ended by itself.
    }
    Some(())
}

/// Kills every process of this user that carries the mark `incarnation`, until none is left. Returns how many there were.
pub fn sweep(incarnation: &str) -> usize {
    let mark = format!("{MARK}={incarnation}");
    let mut ended = 0;
    for _ in 0..ROUNDS {
        let found = marked(mark.as_bytes());
        if found.is_empty() {
            break;
        }
        ended += found.len();
        for pid in found {
            let _ = kill_process(pid, Signal::KILL); // It may have ended by itself.
        }
        std::thread::sleep(Duration::from_millis(5)); // The kernel needs a moment to take them down.
    }
    ended
}

fn marked(mark: &[u8]) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    let own = std::process::id();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .filter(|&pid| pid != own && carries(pid, mark))
        .filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?))
        .collect()
}

fn carries(pid: u32, mark: &[u8]) -> bool {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default(); // Zombies have none.
    environment.split(|&b| b == 0).any(|variable| variable == mark)
}
