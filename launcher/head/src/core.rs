//! The head's decisions: events in, effects out, no sockets. Owns the live tasks, who waits for what, retries, holds on
//! objects and the end of the run. Every change of state is a journal record that is applied as it is written.
//! Hot path: `submit`, `on_done`, `assign`: once a task each.

mod agents;
mod clients;
mod end;
mod fetch;
mod finish;
mod job;
mod load;
mod named;
mod pause;
mod placed;
mod ranks;
mod scope;
mod submit;
#[cfg(test)]
mod tests;

pub use job::{Job, Submitter};
pub use load::LoadError;

use crate::allocation::Allocation;
use crate::functions::Functions;
use crate::journal::{Event, Record};
use crate::names::Names;
use crate::objects::Objects;
use crate::state::{AddedTask, RunState};
use crate::trace::Trace;
use bridgehead_schedule::Engine;
use bridgehead_spec::{CheckedPipeline, Digest, ObjectId, RunConfig, TaskId};
use bridgehead_wire::{HeadToAgent, HeadToClient};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

/// Small tasks that an agent is given beyond what it has room for: enough that its workers never wait for the head, few
/// enough that another agent which comes free finds work left.
const PREFETCH: usize = 64;

/// A client's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

/// What the shell has to carry out, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Functions to be written to `blobs/` before the records that name them.
    pub blobs: Vec<(Digest, bytes::Bytes)>,
    /// Records to be committed before anything below is sent.
    pub records: Vec<Record>,
    /// Messages to agents.
    pub agents: Vec<(u32, HeadToAgent)>,
    /// Messages to clients.
    pub clients: Vec<(ConnId, HeadToClient)>,
}

/// An agent as the head sees it.
#[derive(Debug, Clone)]
pub struct AgentRow {
    /// Its host.
    pub host: String,
    /// Its process id.
    pub pid: u32,
    /// What it has to give.
    pub resources: bridgehead_wire::Amounts,
    /// Where its fabric listens.
    pub fabric_address: bytes::Bytes,
    /// The memory of its GPUs, by number.
    pub gpu_memory: Vec<bridgehead_wire::GpuMemory>,
    /// Store figures of its last heartbeat.
    pub store: bridgehead_wire::Heartbeat,
}

#[derive(Debug, Default)]
struct Client {
    owner: bool,
    progress: bool,
    outcomes: bool,
    /// The client's function numbers to ours.
    functions: HashMap<u32, u32>,
    /// The client's tokens to our tasks.
    tokens: HashMap<u64, u64>,
    /// Holds that outcomes gave it.
    holds: HashMap<ObjectId, u32>,
}

/// How the run is coming to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Ending {
    /// It is not.
    No,
    /// No more submits; it ends with its last task.
    Drain,
    /// Everything is being cancelled, and the run ends in this phase.
    Cancel { reason: String, phase: &'static str },
    /// The end is in the journal.
    Over,
}

/// One run, live.
#[derive(Debug)]
pub struct Core {
    config: RunConfig,
    state: RunState,
    engine: Engine,
    jobs: Vec<Option<Box<Job>>>,
    functions: Functions,
    objects: Objects,
    /// Named values; `names` below are those of tasks.
    name_table: Names,
    agents: BTreeMap<u32, AgentRow>,
    clients: HashMap<ConnId, Client>,
    /// Tasks added by workers: (agent, worker, their token) to our task.
    worker_tokens: HashMap<(u32, u32, u64), u64>,
    /// Results on their way to the run folder, and the agents that write them.
    persisting: HashMap<u64, u32>,
    /// Values of an Executor's finished tasks, oldest first, with their inline bytes: kept for late users, within a bound.
    recent: VecDeque<(u64, usize)>,
    recent_bytes: usize,
    ending: Ending,
    trace: Option<Trace>,
    now_ns: u64,
    data_key: [u8; 32],
    out: Effects,
    actions: Vec<(TaskId, bridgehead_spec::AgentId)>,
    names: HashMap<u64, String>,
    /// Functions of an agent's workers: (agent, its number) to ours.
    agent_functions: HashMap<(u32, u32), u32>,
    /// Finished tasks whose value is gone.
    lost_values: HashSet<u64>,
    /// Objects that went down with an agent, and the tasks whose values they were.
    lost_objects: HashMap<ObjectId, u64>,
    /// Tasks that were brought back and have to enter, dependents first.
    rerun: Vec<u64>,
    /// Tasks that were brought back since the last agent was lost.
    brought_back: HashSet<u64>,
    /// Something that the status shows, and no record tells, is new: figures of a store, a pause that begins.
    shown_changed: bool,
    /// Waiting tasks that the scheduler gave up, because one that they need has no value.
    doomed: VecDeque<u64>,
    /// Tasks of the pipeline whose results the user holds.
    kept: HashSet<u64>,
    pipeline: Option<CheckedPipeline>,
    pipeline_tasks: u64,
    /// Tasks that earlier attempts added.
    added: HashMap<u64, AddedTask>,
    /// Lengths of arguments that lie in files.
    blobs: HashMap<Digest, u64>,
    fetches: HashMap<u64, fetch::Fetching>,
    /// Attempts of gangs that are with agents, by task.
    gangs: HashMap<u64, ranks::Gang>,
    placings: placed::Placings,
    next_fetch: u64,
    /// All agents of the gang were there at some time.
    gang_whole: bool,
    allocation: Option<Allocation>,
    pausing: Option<pause::Pausing>,
    suspects: Vec<pause::Suspect>,
    /// Arguments on their way to the run folder, by the number under which they were asked for.
    argument_files: HashMap<u64, ObjectId>,
    superseded: bool,
    scope: Option<scope::Scope>,
    /// Some task was given to an agent in this attempt.
    began: bool,
    /// Tasks that failed for good by themselves, not because of others.
    own_failures: u32,
    /// More failed than this, which is the most that the user allows.
    too_many: Option<u32>,
    /// Agents from which others could not get an object, since they were last asked for.
    unreachable: Vec<u32>,
}

impl Core {
    /// A core for a run whose journal has been folded into `state`; `data_key` authenticates agents to one another.
    #[must_use]
    pub fn new(config: RunConfig, state: RunState, data_key: [u8; 32], now_ns: u64) -> Self {
        let trace = config.trace.is_some().then(Trace::default);
        let mut engine = Engine::new(PREFETCH);
        if let Some(most) = config.max_running {
            engine.set_most(usize::try_from(most).unwrap_or(usize::MAX));
        }
        Self {
            config,
            state,
            engine,
            jobs: Vec::new(),
            functions: Functions::default(),
            objects: Objects::default(),
            name_table: Names::default(),
            agents: BTreeMap::new(),
            clients: HashMap::new(),
            worker_tokens: HashMap::new(),
            persisting: HashMap::new(),
            recent: VecDeque::new(),
            recent_bytes: 0,
            ending: Ending::No,
            trace,
            now_ns,
            data_key,
            out: Effects::default(),
            actions: Vec::new(),
            names: HashMap::new(),
            agent_functions: HashMap::new(),
            lost_values: HashSet::new(),
            lost_objects: HashMap::new(),
            rerun: Vec::new(),
            brought_back: HashSet::new(),
            shown_changed: false,
            doomed: VecDeque::new(),
            kept: HashSet::new(),
            pipeline: None,
            pipeline_tasks: 0,
            added: HashMap::new(),
            blobs: HashMap::new(),
            fetches: HashMap::new(),
            gangs: HashMap::new(),
            placings: placed::Placings::default(),
            next_fetch: 0,
            gang_whole: false,
            allocation: None,
            pausing: None,
            suspects: Vec::new(),
            argument_files: HashMap::new(),
            superseded: false,
            scope: None,
            began: false,
            own_failures: 0,
            too_many: None,
            unreachable: Vec::new(),
        }
    }

    /// Sets the clock for the events that follow, nanoseconds since the epoch.
    pub fn set_now(&mut self, now_ns: u64) {
        self.now_ns = now_ns;
    }

    /// What has to be carried out; the core starts a new list.
    pub fn take_effects(&mut self) -> Effects {
        std::mem::take(&mut self.out)
    }

    /// The state, as a replay of the journal would give it.
    #[must_use]
    pub fn state(&self) -> &RunState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut RunState {
        &mut self.state
    }

    /// The run's configuration.
    #[must_use]
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The agents that are there.
    #[must_use]
    pub fn agents(&self) -> &BTreeMap<u32, AgentRow> {
        &self.agents
    }

    /// The trace, where one was asked for.
    #[must_use]
    pub fn trace(&self) -> Option<&Trace> {
        self.trace.as_ref()
    }

    /// Whether the run's end is in the journal.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.ending == Ending::Over
    }

    /// Whether any client is connected.
    #[must_use]
    pub fn has_clients(&self) -> bool {
        !self.clients.is_empty()
    }

    /// The name of a task, for people.
    #[must_use]
    pub fn task_name(&self, task: u64) -> String {
        if let Some(name) = self.names.get(&task) {
            return name.clone();
        }
        match self.job(task) {
            Some(job) if !job.name.is_empty() => job.name.clone(),
            Some(job) if job.program.is_none() => self.functions.name(job.function).to_owned(),
            _ => {
                let spec = self.pipeline.as_ref().and_then(|pipeline| pipeline.task(TaskId(task)));
                spec.map_or_else(|| format!("t{task}"), |spec| spec.name.clone())
            }
        }
    }

    fn record(&mut self, event: Event) {
        let record = Record {
            time_ns: self.now_ns,
            event: Some(event),
        };
        self.state.apply(&record);
        self.out.records.push(record);
    }

    fn job(&self, task: u64) -> Option<&Job> {
        self.jobs.get(usize::try_from(task).ok()?)?.as_deref()
    }

    fn job_mut(&mut self, task: u64) -> Option<&mut Job> {
        self.jobs.get_mut(usize::try_from(task).ok()?)?.as_deref_mut()
    }

    fn tell(&mut self, conn: ConnId, message: impl Into<HeadToClient>) {
        self.out.clients.push((conn, message.into()));
    }

    fn tell_agent(&mut self, agent: u32, message: impl Into<HeadToAgent>) {
        self.out.agents.push((agent, message.into()));
    }

    /// The scheduler forgets a task and all that wait for it; those fail at the next sweep.
    fn give_up(&mut self, task: TaskId) {
        self.doomed
            .extend(self.engine.abandon(task).into_iter().map(|task| task.0));
    }

    fn release(&mut self, id: ObjectId) {
        let mut open = vec![id];
        while let Some(id) = open.pop() {
            let Some(gone) = self.objects.release(id) else { continue };
            open.extend(gone.refs);
            let reference = gone.reference;
            for agent in gone.agents {
                if self.agents.contains_key(&agent) {
                    self.tell_agent(
                        agent,
                        bridgehead_wire::ReleaseObjects {
                            objects: vec![reference.clone()],
                        },
                    );
                }
            }
        }
    }
}
