//! Head and agents as processes of their own session, so that they outlive a shell. A job is a process id with its start
//! time, so that a re-used number is never taken for it.

use bridgehead_backend::{Backend, BackendError, JobRef, JobReport, JobState, LaunchRequest};
use bridgehead_spec::RunFolder;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::OpenOptions;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Tells an agent on this machine which process its head is, as `pid@start`: an agent that waits for the ticket of a head
/// that was killed would wait in vain.
pub const HEAD_PROCESS: &str = "BRIDGEHEAD_HEAD_PROCESS";

/// Whether the process that [`HEAD_PROCESS`] names is gone; `false` where nothing is said.
#[must_use]
pub fn head_is_gone() -> bool {
    let told = std::env::var(HEAD_PROCESS).ok();
    let named = told.and_then(|text| parse(&JobRef(text)));
    named.is_some_and(|ranks| ranks.iter().any(|&(pid, at)| process_start(pid) != Some(at)))
}

/// What is started: a command line for each rank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalManifest {
    /// The run folder.
    pub run_dir: std::path::PathBuf,
    /// Program and arguments of each rank.
    pub ranks: Vec<Vec<String>>,
}

/// This machine as a scheduler.
#[derive(Debug, Clone, Copy, Default)]
pub struct Local;

/// When a process started, in clock ticks since boot; `None` when it is gone or a zombie.
#[must_use]
pub fn process_start(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold spaces and parentheses itself.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Whether a process lives.
#[must_use]
pub fn is_alive(pid: u32) -> bool {
    process_start(pid).is_some()
}

fn parse(job: &JobRef) -> Option<Vec<(u32, u64)>> {
    job.0
        .split(',')
        .map(|part| {
            let (pid, start) = part.split_once('@')?;
            Some((pid.parse().ok()?, start.parse().ok()?))
        })
        .collect()
}

fn refused(doing: &'static str) -> impl FnOnce(std::io::Error) -> BackendError {
    move |e| BackendError::Refused {
        backend: "local",
        doing,
        reason: e.to_string(),
    }
}

fn start(argv: &[String], log: &std::path::Path, head: Option<&str>) -> std::io::Result<u32> {
    let log = OpenOptions::new().append(true).create(true).open(log)?;
    let mut command = Command::new(&argv[0]);
    if let Some(head) = head {
        command.env(HEAD_PROCESS, head);
    }
    command
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0);
    let mut child = command.spawn()?;
    let pid = child.id();
    // Somebody has to take note of the end, or a zombie would look alive to those who ask from this process.
    std::thread::spawn(move || {
        let _ = child.wait();
    });
    Ok(pid)
}

impl Backend for Local {
    type Manifest = LocalManifest;

    fn name(&self) -> &'static str {
        "local"
    }

    fn render(&self, request: &LaunchRequest) -> Result<LocalManifest, BackendError> {
        if request.agents == 0 {
            return Err(BackendError::Unfit {
                backend: "local",
                reason: "a gang has at least one agent".to_owned(),
            });
        }
        let text = |path: &std::path::Path| path.display().to_string();
        let ranks = (0..request.agents)
            .map(|rank| {
                let mut argv = vec![text(&request.program)];
                argv.push(if rank == 0 { "head" } else { "agent" }.to_owned());
                argv.extend(["--run-dir".to_owned(), text(&request.run_dir)]);
                if rank > 0 {
                    argv.extend(["--rank".to_owned(), rank.to_string()]);
                }
                argv
            })
            .collect();
        Ok(LocalManifest {
            run_dir: request.run_dir.clone(),
            ranks,
        })
    }

    fn submit(&self, manifest: &LocalManifest) -> Result<JobRef, BackendError> {
        let folder = RunFolder::new(&manifest.run_dir);
        // A ticket of an earlier attempt must not be taken for one of this.
        let _ = std::fs::remove_dir_all(folder.tls()); // Where this fails, the head that makes it anew will say so.
        let mut started: Vec<String> = Vec::new();
        for (rank, argv) in manifest.ranks.iter().enumerate() {
            let name = if rank == 0 {
                "head.log".to_owned()
            } else {
                format!("agent-{rank}.log")
            };
            match start(argv, &folder.logs().join(name), started.first().map(String::as_str)) {
                Ok(pid) => started.push(format!("{pid}@{}", process_start(pid).unwrap_or(0))),
                Err(e) => {
                    let job = JobRef(started.join(","));
                    self.cancel(&job)?; // The gang is whole or not there.
                    return Err(refused("start its processes")(e));
                }
            }
        }
        Ok(JobRef(started.join(",")))
    }

    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        let state = |job: &JobRef| match parse(job) {
            None => JobState::Unknown,
            Some(ranks) if ranks.iter().any(|&(pid, at)| process_start(pid) == Some(at)) => JobState::Running,
            Some(_) => JobState::Ended,
        };
        Ok(jobs.iter().map(|job| JobReport::of(state(job))).collect())
    }

    fn cancel(&self, job: &JobRef) -> Result<(), BackendError> {
        for (pid, start) in parse(job).unwrap_or_default() {
            let pid_there = process_start(pid) == Some(start);
            if let (true, Some(group)) = (pid_there, i32::try_from(pid).ok().and_then(Pid::from_raw)) {
                let _ = kill_process_group(group, Signal::TERM); // It may end by itself at this moment.
            }
        }
        Ok(())
    }
}
