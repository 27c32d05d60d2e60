//! The agent's loop: takes messages of the head, of workers and of programs in batches, hands out calls, sends in batches.
//! Hot path: `on_call`, `dispatch`, `on_done`, once a task each.

mod dispatch;
mod ends;
mod files;
mod gangs;
mod gpus;
mod guests;
mod messages;
mod objects;

use crate::calls::{Given, Room, Waiting, oom_kills};
use crate::data::{Asker, Holds, Pins, Transfers};
use crate::door::{Door, FromGuest, Guest};
use crate::environment::Environment;
use crate::far::{Far, FarFolder};
use crate::io::FromWorker;
use crate::logs::TaskLog;
use crate::program::{Handle, Programs, Report, Surroundings};
use crate::reaper::Reaper;
use crate::spin::Spin;
use crate::worker::{Nursery, Worker};
use bridgehead_fabric::Fabric;
use bridgehead_spec::{AgentId, Resources, RunConfig, RunFolder};
use bridgehead_store_node::{Arrival, Node, NodeOptions, StoreError, divide};
use bridgehead_topology::Topology;
use bridgehead_wire::{
    AgentJoin, AgentToHead, AgentWelcome, Fetch, HeadToAgent, ObjectRef, Outcome, Pair, Persisted, PutFunction,
    TaskCall,
};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::net::UnixStream;
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
    /// Most bytes that its store holds in memory.
    pub store_limit: u64,
    /// Objects of its store have sums, which are checked wherever their bytes are moved.
    pub verify_objects: bool,
    /// The memory of its GPUs, by number, as its store uses it.
    pub gpu_memory: Vec<bridgehead_store_gpu::Device>,
    /// The machine: the store's memory is divided among its NUMA nodes, and ranks are bound to its processors.
    pub topology: Topology,
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
    /// How to join the network between the stores of the run: this agent's number and the run's data key to a fabric.
    pub fabric: FabricMaker,
    /// What the head's welcome will say, where the agent can know it (the one in the head's process reads the same
    /// `run.json`): its first worker then starts before the head is up.
    pub known: Option<AgentWelcome>,
    /// The head's run folder, where this agent's is another one; none where they are the same.
    pub far: Option<Arc<dyn FarFolder>>,
}

/// Makes the fabric of an agent; which one is the composition root's to say.
pub struct FabricMaker(pub MakeFabric);

/// An agent's number and the run's data key to a fabric.
pub type MakeFabric = Box<dyn Fn(u32, [u8; 32]) -> Result<Arc<dyn Fabric>, String>>;

impl std::fmt::Debug for FabricMaker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FabricMaker")
    }
}

impl AgentOptions {
    /// Where the node's store listens.
    #[must_use]
    pub fn store_socket(&self) -> PathBuf {
        self.socket_dir.join(format!("store-{}.sock", self.agent.0))
    }

    /// Where processes of programs find the agent.
    #[must_use]
    pub fn programs_socket(&self) -> PathBuf {
        self.socket_dir.join(format!("programs-{}.sock", self.agent.0))
    }
}

/// What the head's welcome will say, as far as a worker needs it: for [`AgentOptions::known`]. Tasks are cut off at
/// `tasks_end_ns` (nanoseconds since the Unix epoch), if the allocation of the run ends.
#[must_use]
pub fn foreseen(config: &RunConfig, tasks_end_ns: Option<u64>) -> AgentWelcome {
    let pair = |(key, value): (&String, &String)| Pair {
        key: key.clone(),
        value: value.clone(),
    };
    AgentWelcome {
        run: config.run.to_string(),
        python: config.python.display().to_string(),
        sys_path: config.sys_path.clone(),
        cwd: config.cwd.display().to_string(),
        inline_limit: config.inline_limit,
        env: config.env.iter().map(pair).collect(),
        allocation_end_ns: tasks_end_ns.unwrap_or(0),
        ..AgentWelcome::default()
    }
}

/// How an agent ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentEnd {
    /// What the head said, or that it is gone.
    pub reason: String,
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
    /// Programs would not find the agent.
    #[error("cannot listen on {path}, where programs find the store: {source}")]
    Door {
        /// The socket.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The node's store cannot begin.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The thread that starts workers cannot be started.
    #[error("cannot start the thread that starts workers: {0}")]
    Thread(std::io::Error),
    /// The threads that bring and send files cannot be started.
    #[error("cannot start the threads that bring and send files: {0}")]
    Movers(std::io::Error),
    /// The head will not have it.
    #[error("the head refused this agent: {0}")]
    Refused(String),
}

enum Event {
    Worker(u32, FromWorker),
    /// Somebody has come to the socket for programs.
    Came(UnixStream),
    Guest(u32, FromGuest),
    Program(Report),
    Arrived(ObjectRef, Arrival),
    /// Bytes of an object that somebody asked for.
    Ranged(Asker, Fetch, Arrival),
    /// News of a gang's start-up: task, attempt, news.
    Gang(u64, u32, bridgehead_mpi::Event),
    /// The process of a rank: task, attempt, rank, the process or why there is none.
    Forked(u64, u32, u32, Result<crate::spawn::Process, String>),
    /// Which MPI a gang uses: task, attempt, what was found.
    Library(u64, u32, gangs::Library),
    /// An object that was to lie in the memory of a NUMA node or a GPU.
    Settled(Asker, Fetch, Instant, Arrival),
    Persisted(Persisted),
    /// Files that somebody waits for are here, or the reason why not.
    Brought(files::Wanting, Result<(), String>),
}

struct RunningProgram {
    given: Given,
    handle: Handle,
    since: Instant,
    deadline: Option<Instant>,
    /// It lies ready for a thread and holds nothing yet.
    ahead: bool,
    told: bool,
    killed: Option<Outcome>,
}

struct Agent {
    options: AgentOptions,
    to_head: UnboundedSender<AgentToHead>,
    events: UnboundedSender<Event>,
    welcome: Option<AgentWelcome>,
    surroundings: Arc<Surroundings>,
    room: Room,
    queue: VecDeque<Waiting>,
    store: Node,
    /// The head's run folder, where it is another one.
    far: Option<Far>,
    pins: Pins,
    /// Calls whose objects find no room beside those of calls that were taken in before.
    backlog: VecDeque<TaskCall>,
    holds: Holds,
    /// Workers that have asked the table of names.
    named: HashSet<u32>,
    /// The network is joined.
    joined: bool,
    transfers: Transfers,
    /// What the head was asked where it is, by token: who wants it, and which bytes.
    located: HashMap<u64, (Asker, Fetch)>,
    next_locate: u64,
    nursery: Nursery,
    workers: BTreeMap<u32, Worker>,
    /// The number of the next worker or guest.
    next_worker: u32,
    /// Processes of programs that take part.
    guests: BTreeMap<u32, Guest>,
    /// Where they come in.
    _door: Door,
    failed_starts: u32,
    programs: Programs,
    /// By task: programs that run, and those that lie ready behind them.
    running: HashMap<u64, RunningProgram>,
    /// How many of them lie ready.
    ahead: usize,
    /// Gangs with ranks here.
    gangs: gangs::Gangs,
    /// What start-ups of gangs share.
    servers: bridgehead_mpi::Servers,
    functions: HashMap<u32, PutFunction>,
    /// Functions whose code cannot be had, with the reason.
    broken_functions: HashMap<u32, String>,
    /// Functions of workers: (worker, its number) to the number on the link to the head.
    worker_functions: HashMap<(u32, u32), u32>,
    next_function: u32,
    cancelled: HashSet<u64>,
    log: TaskLog,
    oom_kills: u64,
    spin: Spin,
    reaper: Reaper,
    beat: Instant,
    stop: Option<String>,
}

/// How often limits are looked at and the log is handed to the kernel.
const TICK: Duration = Duration::from_millis(50);

/// How often the head hears that this agent lives.
const BEAT: Duration = Duration::from_secs(1);

/// Runs an agent until the head ends it or is gone. Must be called inside a `LocalSet`.
///
/// # Errors
/// The reaper or a thread cannot be started, or the head refuses this agent.
pub async fn run(options: AgentOptions, link: Link) -> Result<AgentEnd, AgentError> {
    let (events, queue) = unbounded_channel();
    let mut agent = Agent::new(options, link.to_head, events)?;
    agent.join();
    if let Some(known) = agent.options.known.take() {
        agent.on_welcome(known);
    }
    let mut queue = queue;
    let result = agent.drive(link.from_head, &mut queue).await;
    agent.leave(&mut queue).await;
    result.map(|()| AgentEnd {
        reason: agent.stop.take().unwrap_or_default(),
    })
}

/// A put waits so long for room before it fails.
const PATIENCE: Duration = Duration::from_secs(30);

fn store_options(options: &AgentOptions) -> NodeOptions {
    NodeOptions {
        agent: options.agent.0,
        socket: options.store_socket(),
        verify: options.verify_objects,
        arenas: divide(options.store_limit, &options.topology.numa),
        spill_dir: options.folder.spill(options.agent.0).join(&options.incarnation),
        patience: PATIENCE,
        devices: options.gpu_memory.clone(),
    }
}

fn start_store(options: &AgentOptions) -> Result<Node, AgentError> {
    let store = Node::start(store_options(options))?;
    for binding in store.bindings() {
        match &binding.refused {
            None => tracing::info!(
                numa = binding.numa,
                bytes = binding.len,
                "an arena of the store lies near a NUMA node"
            ),
            Some(why) => tracing::warn!(
                numa = binding.numa,
                bytes = binding.len,
                why,
                "the kernel does not bind an arena"
            ),
        }
    }
    Ok(store)
}

impl Agent {
    fn new(
        options: AgentOptions,
        to_head: UnboundedSender<AgentToHead>,
        events: UnboundedSender<Event>,
    ) -> Result<Self, AgentError> {
        let reaper = Reaper::start(&options.reaper, &options.incarnation, &options.socket_dir);
        let reaper = reaper.map_err(|source| AgentError::Reaper {
            program: options.reaper.clone(),
            source,
        })?;
        let path = options.programs_socket();
        let door = guests::open_door(&path, &events).map_err(|source| AgentError::Door { path, source })?;
        let report = events.clone();
        Ok(Self {
            reaper,
            room: Room::new(&options.resources),
            log: TaskLog::open(&options.folder, options.agent.0),
            nursery: Nursery::open().map_err(AgentError::Thread)?,
            programs: Programs::new(move |told| {
                let _ = report.send(Event::Program(told)); // The loop is gone only at the end.
            }),
            store: start_store(&options)?,
            far: options
                .far
                .clone()
                .map(Far::start)
                .transpose()
                .map_err(AgentError::Movers)?,
            pins: Pins::new(options.store_limit / 2),
            backlog: VecDeque::new(),
            holds: Holds::default(),
            named: HashSet::new(),
            joined: false,
            transfers: Transfers::default(),
            located: HashMap::new(),
            next_locate: 0,
            servers: bridgehead_mpi::Servers::new(&options.socket_dir),
            gangs: gangs::Gangs::default(),
            options,
            to_head,
            events,
            welcome: None,
            surroundings: Arc::new(Surroundings {
                cwd: PathBuf::from("/"),
                env: Environment::default(),
                socket: PathBuf::new(),
                devices: Vec::new(),
            }),
            queue: VecDeque::new(),
            workers: BTreeMap::new(),
            next_worker: 1,
            guests: BTreeMap::new(),
            _door: door,
            failed_starts: 0,
            running: HashMap::new(),
            ahead: 0,
            functions: HashMap::new(),
            broken_functions: HashMap::new(),
            worker_functions: HashMap::new(),
            next_function: 0,
            cancelled: HashSet::new(),
            oom_kills: oom_kills(),
            spin: Spin::start(),
            beat: Instant::now(),
            stop: None,
        })
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
            host: o.host.clone(),
            pid: std::process::id(),
            run: o.run.clone(),
            gpu_memory: self.gpu_memory(),
        });
    }

    async fn drive(
        &mut self,
        mut from_head: UnboundedReceiver<HeadToAgent>,
        events: &mut UnboundedReceiver<Event>,
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
        let mut busy = false; // A program takes far longer than any spin.
        for worker in self.workers.values_mut() {
            worker.outbox.flush();
            busy |= !worker.calls.is_empty();
        }
        for guest in self.guests.values_mut() {
            guest.outbox.flush();
        }
        if busy {
            self.spin.active();
        } else {
            self.log.flush(); // Before the head hears of the last end: who waited for it may read the log.
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Worker(id, FromWorker::Message(message)) => self.on_worker(id, message),
            Event::Worker(id, FromWorker::Ended(end, reason)) => self.on_worker_ended(id, end, &reason),
            Event::Came(stream) => self.on_came(stream),
            Event::Guest(id, from) => self.on_guest(id, from),
            Event::Program(Report::Printed(text)) => self.log.add(&text),
            Event::Program(Report::Ended(ended)) => match ended.rank {
                Some(rank) => self.on_rank_program_ended(rank, *ended),
                None => self.on_program_ended(*ended),
            },
            Event::Forked(task, attempt, rank, forked) => self.on_forked(task, attempt, rank, forked),
            Event::Gang(task, attempt, event) => self.on_gang_event(task, attempt, event),
            Event::Library(task, attempt, library) => self.on_library(task, attempt, library),
            Event::Arrived(object, arrival) => self.on_arrived(&object, arrival),
            Event::Settled(asker, fetch, begun, arrival) => self.on_settled(asker, &fetch, begun, arrival),
            Event::Ranged(asker, fetch, arrival) => self.on_ranged(asker, &fetch, arrival),
            Event::Persisted(persisted) => self.tell(persisted),
            Event::Brought(wanting, brought) => self.on_brought(wanting, brought),
        }
    }
}
