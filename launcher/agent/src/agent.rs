//! The agent's loop: takes messages of the head, of workers and of programs in batches, hands out calls, sends in batches.
//! Hot path: `on_call`, `dispatch`, `on_done`, once a task each.

mod dispatch;
mod ends;
mod messages;

use crate::calls::{Room, oom_kills};
use crate::io::FromWorker;
use crate::logs::TaskLog;
use crate::program::{Ended, Handle, Programs, Surroundings};
use crate::spin::Spin;
use crate::worker::{Given, Worker};
use bridgehead_spec::{AgentId, Resources, RunFolder};
use bridgehead_wire::{AgentJoin, AgentToHead, AgentWelcome, HeadToAgent, PutFunction, TaskCall};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// The way to the head: in memory for the agent in its process, over TLS for others.
#[derive(Debug)]
pub struct Link {
    /// To the head.
    pub to_head: UnboundedSender<AgentToHead>,
    /// From the head.
    pub from_head: UnboundedReceiver<HeadToAgent>,
}

/// What an agent needs to begin.
#[derive(Debug)]
pub struct AgentOptions {
    /// Its number.
    pub agent: AgentId,
    /// The run folder.
    pub folder: RunFolder,
    /// What it may give.
    pub resources: Resources,
    /// A random name that marks its processes.
    pub incarnation: String,
    /// A folder of mode 0700 for sockets, removed by the reaper.
    pub socket_dir: PathBuf,
    /// The program that runs as reaper (`bridgehead`).
    pub reaper: PathBuf,
    /// The ticket's secret; empty for the agent in the head's process.
    pub ticket: Vec<u8>,
    /// The run.
    pub run: String,
    /// This host's name.
    pub host: String,
}

/// Why an agent could not go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The reaper cannot be started.
    #[error("cannot start the reaper {program}: {source}")]
    Reaper {
        /// The program.
        program: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The head will not have it.
    #[error("the head refused this agent: {0}")]
    Refused(String),
}

enum Event {
    Worker(u32, FromWorker),
    Exited(u32, Option<ExitStatus>),
    Program(Box<Ended>),
}

struct RunningProgram {
    given: Given,
    handle: Handle,
    since: Instant,
    deadline: Option<Instant>,
    told: bool,
    killed: Option<bridgehead_wire::Outcome>,
}

struct Agent {
    options: AgentOptions,
    to_head: UnboundedSender<AgentToHead>,
    events: UnboundedSender<Event>,
    welcome: Option<AgentWelcome>,
    room: Room,
    queue: VecDeque<TaskCall>,
    workers: BTreeMap<u32, Worker>,
    children: HashMap<u32, std::process::Child>,
    next_worker: u32,
    failed_starts: u32,
    programs: Programs,
    running: HashMap<u64, RunningProgram>,
    surroundings: Arc<Surroundings>,
    functions: HashMap<u32, PutFunction>,
    /// Functions of workers: (worker, its number) to the number on the link to the head.
    worker_functions: HashMap<(u32, u32), u32>,
    next_function: u32,
    cancelled: HashSet<u64>,
    log: TaskLog,
    oom_kills: u64,
    spin: Spin,
    stop: Option<String>,
}

const TICK: Duration = Duration::from_millis(50);

/// Runs an agent until the head ends it or is gone. Must be called inside a `LocalSet`.
///
/// # Errors
/// The reaper cannot be started, or the head refuses this agent.
pub async fn run(options: AgentOptions, link: Link) -> Result<(), AgentError> {
    let _reaper = start_reaper(&options)?;
    let (events, queue) = unbounded_channel();
    let mut agent = Agent::new(options, link.to_head, events);
    agent.join();
    let result = agent.drive(link.from_head, queue).await;
    agent.stop_workers().await;
    result
}

/// The reaper's standard input: it acts when this is closed, however this process ends.
fn start_reaper(o: &AgentOptions) -> Result<std::process::Child, AgentError> {
    use std::os::unix::process::CommandExt;
    let mut command = std::process::Command::new(&o.reaper);
    command
        .arg("reaper")
        .arg("--incarnation")
        .arg(&o.incarnation)
        .arg("--socket-dir")
        .arg(&o.socket_dir);
    command
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .process_group(0);
    command.spawn().map_err(|source| AgentError::Reaper {
        program: o.reaper.clone(),
        source,
    })
}

impl Agent {
    fn new(options: AgentOptions, to_head: UnboundedSender<AgentToHead>, events: UnboundedSender<Event>) -> Self {
        let room = Room::new(&options.resources);
        let log = TaskLog::open(&options.folder, options.agent.0);
        let report = events.clone();
        Self {
            room,
            log,
            options,
            to_head,
            events,
            welcome: None,
            queue: VecDeque::new(),
            workers: BTreeMap::new(),
            children: HashMap::new(),
            next_worker: 1,
            failed_starts: 0,
            programs: Programs::new(move |ended| {
                let _ = report.send(Event::Program(Box::new(ended))); // The loop is gone only at the end.
            }),
            running: HashMap::new(),
            surroundings: Arc::new(Surroundings {
                cwd: PathBuf::from("/"),
                env: Vec::new(),
            }),
            functions: HashMap::new(),
            worker_functions: HashMap::new(),
            next_function: 0,
            cancelled: HashSet::new(),
            oom_kills: oom_kills(),
            spin: Spin::start(),
            stop: None,
        }
    }

    fn tell(&self, message: impl Into<AgentToHead>) {
        let _ = self.to_head.send(message.into()); // A gone head closes `from_head` too, which ends the loop.
    }

    fn join(&self) {
        let o = &self.options;
        self.tell(AgentJoin {
            agent: o.agent.0,
            ticket: bytes::Bytes::copy_from_slice(&o.ticket),
            resources: Some((&o.resources).into()),
            fabric_address: bytes::Bytes::new(),
            host: o.host.clone(),
            pid: std::process::id(),
            run: o.run.clone(),
        });
    }

    async fn drive(
        &mut self,
        mut from_head: UnboundedReceiver<HeadToAgent>,
        mut events: UnboundedReceiver<Event>,
    ) -> Result<(), AgentError> {
        let (mut messages, mut batch) = (Vec::with_capacity(256), Vec::with_capacity(256));
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while self.stop.is_none() {
            tokio::select! {
                biased;
                n = from_head.recv_many(&mut messages, 256) => {
                    if n == 0 {
                        self.stop = Some("the head is gone".to_owned());
                    }
                    for message in messages.drain(..) {
                        self.on_head(message)?;
                    }
                }
                _ = events.recv_many(&mut batch, 256) => {
                    for event in batch.drain(..) {
                        self.on_event(event);
                    }
                }
                _ = tick.tick() => self.on_tick(),
            }
            self.turn();
        }
        tracing::info!(reason = self.stop.as_deref().unwrap_or(""), "agent ends");
        Ok(())
    }

    fn turn(&mut self) {
        self.dispatch();
        let mut busy = !self.running.is_empty();
        for worker in self.workers.values_mut() {
            worker.outbox.flush();
            busy |= !worker.calls.is_empty();
        }
        if busy {
            self.spin.active();
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Worker(id, FromWorker::Message(message)) => self.on_worker(id, message),
            Event::Worker(id, FromWorker::Gone(reason)) => self.on_worker_gone(id, &reason),
            Event::Exited(id, status) => self.on_worker_exited(id, status),
            Event::Program(ended) => self.on_program_ended(*ended),
        }
    }
}
