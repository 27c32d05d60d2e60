//! A tiny launcher of gangs, for this crate's tests and its example: all pretended nodes are in one process, and what their
//! bootstraps send one another is handed on at once. What an agent does beyond this (limits, logs, reaping) it does not do.
#![allow(dead_code)] // The example and the tests use different parts of it.
#![allow(unsafe_code)] // A descriptor is made inheritable between fork and exec.
#![allow(clippy::unwrap_used)] // What fails here fails the test.

use bridgehead_mpi::{Bootstrap, Event, Family, NodePart, Options, Servers, World, foreign};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Nothing here takes longer than this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Pretended nodes with their warm helpers, for many gangs one after another.
pub struct Machine {
    pub folder: tempfile::TempDir,
    servers: Vec<Servers>,
    helper: PathBuf,
    gangs: u32,
}

/// What is to be run.
#[derive(Clone)]
pub struct Gang {
    pub family: Family,
    pub libpmix: Option<PathBuf>,
    pub ranks: u32,
    pub command: Vec<OsString>,
    pub env: Vec<(OsString, OsString)>,
    /// Ranks print where we print.
    pub loud: bool,
}

/// How it ended.
#[derive(Debug)]
pub struct Outcome {
    /// By rank.
    pub statuses: Vec<ExitStatus>,
    /// What each rank wrote to its output and errors.
    pub texts: Vec<String>,
    /// Without what the nodes sent one another.
    pub events: Vec<Event>,
    /// Messages between nodes.
    pub sent: usize,
    /// From the first bootstrap to the last rank's end.
    pub took: Duration,
}

impl Outcome {
    pub fn count(&self, is: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| is(event)).count()
    }

    pub fn joined(&self) -> usize {
        self.count(|event| matches!(event, Event::Joined { .. }))
    }

    pub fn left(&self) -> usize {
        self.count(|event| matches!(event, Event::Left { .. }))
    }
}

enum News {
    Event(usize, Event),
    Ended(u32, ExitStatus, String),
}

impl Machine {
    /// So many nodes. `helper` is the program that has the subcommand of the helper.
    pub fn new(nodes: usize, helper: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let servers = (0..nodes)
            .map(|at| Servers::new(&make(folder.path().join(format!("s{at}")))))
            .collect();
        Self {
            folder,
            servers,
            helper: helper.to_owned(),
            gangs: 0,
        }
    }

    /// Runs a gang to its end. `meanwhile` sees each event, with the ranks' processes.
    pub fn run_with(&mut self, gang: &Gang, mut meanwhile: impl FnMut(&Event, &[u32])) -> Outcome {
        self.gangs += 1;
        let began = Instant::now();
        let scratch = make(self.folder.path().join(format!("g{}", self.gangs)));
        let (news, received) = channel();
        let mut boots = Vec::new();
        for (at, servers) in self.servers.iter().enumerate() {
            let world = world(
                &format!("g{}-{}", std::process::id(), self.gangs),
                gang.ranks,
                self.servers.len(),
                at,
            );
            let options = Options {
                scratch: make(scratch.join(format!("n{at}"))),
                helper: self.helper.clone(),
                libpmix: gang.libpmix.clone(),
                helper_env: std::env::vars_os()
                    .filter(|(name, _)| !foreign(&name.to_string_lossy()))
                    .collect(),
            };
            let news = news.clone();
            let events = move |event| drop(news.send(News::Event(at, event)));
            boots.push((
                Bootstrap::start(servers, gang.family, world.clone(), &options, events).unwrap(),
                world,
            ));
        }
        let mut pids = Vec::new();
        for (boot, world) in &mut boots {
            let part = world.part().clone();
            for rank in part.first..part.first + part.count {
                let setup = boot.setup(rank).unwrap();
                let mut child = spawn(gang, setup.set, setup.fd);
                pids.push(child.id());
                let news = news.clone();
                std::thread::spawn(move || drop(news.send(ended(rank, &mut child))));
            }
        }
        let mut outcome = Outcome {
            statuses: vec![ExitStatus::from_raw(0); gang.ranks as usize],
            texts: vec![String::new(); gang.ranks as usize],
            events: Vec::new(),
            sent: 0,
            took: Duration::ZERO,
        };
        relay(&boots, &received, &pids, &mut outcome, &mut meanwhile);
        outcome.took = began.elapsed();
        drop(boots);
        std::fs::remove_dir_all(&scratch).unwrap();
        outcome
    }

    pub fn run(&mut self, gang: &Gang) -> Outcome {
        self.run_with(gang, |_, _| {})
    }
}

fn make(folder: PathBuf) -> PathBuf {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&folder)
        .unwrap();
    folder
}

/// Ranks spread as evenly as they can be, the first nodes having one more.
pub fn world(name: &str, ranks: u32, nodes: usize, here: usize) -> World {
    let (count, more) = (ranks / nodes as u32, ranks % nodes as u32);
    let mut first = 0;
    let parts = (0..nodes as u32).map(|at| {
        let count = count + u32::from(at < more);
        let part = NodePart {
            agent: at,
            host: format!("node{at}"),
            first,
            count,
        };
        first += count;
        part
    });
    World {
        name: name.to_owned(),
        nodes: parts.collect(),
        here,
    }
}

fn spawn(gang: &Gang, set: Vec<(String, String)>, fd: Option<(String, OwnedFd)>) -> Child {
    let mut command = Command::new(&gang.command[0]);
    command.args(&gang.command[1..]).stdin(Stdio::null());
    if !gang.loud {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
    }
    for (name, _) in std::env::vars_os() {
        if foreign(&name.to_string_lossy()) {
            command.env_remove(name);
        }
    }
    command
        .envs(set)
        .envs(gang.env.iter().map(|(name, value)| (name, value)));
    let fd = fd.map(|(name, fd)| {
        command.env(name, fd.as_raw_fd().to_string());
        fd
    });
    // A rank has a session of its own, as other launchers give it one: where the kernel shares processors out by session, ranks of one
    // session get together what one process gets.
    // SAFETY: both calls are async-signal-safe, and the descriptor is open until the closure is dropped with the command.
    unsafe {
        command.pre_exec(move || {
            rustix::process::setsid()?;
            if let Some(fd) = &fd {
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
    command.spawn().unwrap()
}

/// Reads what a rank says to its end.
fn ended(rank: u32, child: &mut Child) -> News {
    let mut errors = child.stderr.take();
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        errors.as_mut().map(|errors| errors.read_to_end(&mut text));
        text
    });
    let mut text = Vec::new();
    child.stdout.as_mut().map(|output| output.read_to_end(&mut text));
    text.extend(reader.join().unwrap());
    News::Ended(rank, child.wait().unwrap(), String::from_utf8_lossy(&text).into_owned())
}

/// Hands on and collects, until all ranks have ended. The first that fails ends all.
fn relay(
    boots: &[(Bootstrap, World)],
    received: &Receiver<News>,
    pids: &[u32],
    outcome: &mut Outcome,
    meanwhile: &mut impl FnMut(&Event, &[u32]),
) {
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<bool> = vec![true; pids.len()];
    while left.contains(&true) {
        match received.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(News::Event(from, Event::Send { to, bytes })) => {
                assert!(
                    bytes.len() <= 1 << 20,
                    "a message that the control channel cannot carry"
                );
                outcome.sent += 1;
                boots[to as usize].0.deliver(from as u32, bytes);
            }
            Ok(News::Event(_, event)) => {
                meanwhile(&event, pids);
                if matches!(event, Event::Aborted { .. } | Event::Failed { .. }) {
                    kill(pids, &left);
                }
                outcome.events.push(event);
            }
            Ok(News::Ended(rank, status, text)) => {
                left[rank as usize] = false;
                outcome.statuses[rank as usize] = status;
                outcome.texts[rank as usize] = text;
                if !status.success() {
                    kill(pids, &left);
                }
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                kill(pids, &left);
                panic!("the gang did not end in time: {outcome:?}");
            }
        }
    }
    while let Ok(News::Event(_, event)) = received.try_recv() {
        outcome.events.push(event);
    }
}

fn kill(pids: &[u32], left: &[bool]) {
    for (pid, _) in pids.iter().zip(left).filter(|(_, left)| **left) {
        let pid = rustix::process::Pid::from_raw(*pid as i32).unwrap();
        // Gone already is well enough: its end is on its way to us.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// The first of these programs that there is.
pub fn program(names: &[&str]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = |name: &&str| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|path| path.is_file())
    };
    names.iter().find_map(found)
}

/// The program that is also the helper: the example beside the tests, itself in the example.
pub fn helper() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let example = own.ancestors().nth(2).unwrap().join("examples/launch");
    if own.file_name().unwrap() == "launch" {
        own
    } else {
        example
    }
}

pub fn words(words: &[&dyn AsRef<OsStr>]) -> Vec<OsString> {
    words.iter().map(|word| word.as_ref().to_owned()).collect()
}
