//! Gangs: the ranks of a task that are on this agent. Owns a part from its call to its end: its ranks' processes, what its MPI says
//! to the other parts, and who is told what when a rank ends. How processes are started is `start.rs`'s, which MPI it is
//! `mpi.rs`'s, how ranks end `ends.rs`'s.

mod bind;
mod ends;
mod environment;
mod forked;
mod mpi;
mod srun;
mod start;

use super::{Agent, Event};
use crate::calls::Given;
use crate::program::Handle;
use crate::ranks::RankLines;
use bridgehead_mpi::{Bootstrap, Family};
use bridgehead_wire::{AgentToHead, Outcome, RanksAt, Relay, Value};
use bytes::Bytes;
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub(super) use mpi::{Known, Library};

/// Ranks that have told their values have this long to end together.
pub(super) const GRACE: Duration = Duration::from_secs(30);

/// Gangs with ranks on this agent, and what came for some before their call.
#[derive(Default)]
pub(super) struct Gangs {
    pub(super) parts: HashMap<u64, Part>,
    /// Bytes of other parts, by task and attempt.
    early: HashMap<(u64, u32), Vec<(u32, Bytes)>>,
    /// Processors that ranks are bound to.
    bound: std::collections::BTreeSet<u32>,
    known: Known,
    /// Where ranks that are functions come from.
    forks: Option<crate::forks::Forks>,
}

/// The ranks of one attempt of a gang that are here.
pub(super) struct Part {
    given: Given,
    at: RanksAt,
    /// All ranks, here and elsewhere.
    size: u32,
    ranks: Vec<Rank>,
    boot: Option<Bootstrap>,
    /// The MPI that is served.
    family: Option<Family>,
    /// A folder of its own, removed at its end.
    scratch: PathBuf,
    since: Instant,
    pub(super) deadline: Option<Instant>,
    told: bool,
    /// Why it ends before its ranks would, as it was first known.
    end: Option<Outcome>,
    /// Its ranks have been started, or will not be.
    begun: bool,
    /// When its last rank told its value, and only the processes' ends are waited for.
    settled: Option<Instant>,
}

/// One rank.
struct Rank {
    process: RankProcess,
    /// Its MPI has begun to speak to us.
    joined: bool,
    value: Option<Value>,
    shards: Vec<Value>,
    /// Marks what a function prints.
    lines: RankLines,
    /// Processors that are its own.
    processors: Vec<u32>,
}

impl Rank {
    /// A rank whose process is there or on its way.
    fn new(number: u32, process: RankProcess, processors: Vec<u32>) -> Self {
        Self {
            process,
            joined: false,
            value: None,
            shards: Vec::new(),
            lines: RankLines::new(number),
            processors,
        }
    }
}

/// Where a rank's process stands.
#[derive(Debug)]
enum RankProcess {
    Program(Handle),
    /// It was asked for.
    Forking(Box<forked::Forking>),
    Worker(u32),
    Ended,
}

impl Part {
    fn rank(&mut self, number: u32) -> Option<&mut Rank> {
        let place = number.checked_sub(self.at.first)?;
        self.ranks.get_mut(place as usize)
    }

    fn is_function(&self) -> bool {
        self.given.call.program.is_none()
    }

    /// Whether Slurm's launcher starts the ranks.
    fn by_srun(&self) -> bool {
        self.given.call.gang.as_ref().is_some_and(|gang| gang.ranks.srun)
    }

    fn has_ended(&self) -> bool {
        self.ranks.iter().all(|rank| matches!(rank.process, RankProcess::Ended))
    }

    /// Some process of it, for people.
    fn pid(&self) -> u32 {
        let pids = self.ranks.iter().map(|rank| match &rank.process {
            RankProcess::Program(handle) => handle.pid(),
            RankProcess::Forking(_) | RankProcess::Worker(_) | RankProcess::Ended => 0,
        });
        pids.max().unwrap_or(0)
    }
}

impl Agent {
    /// A call of a gang has what it asks for.
    pub(super) fn start_part(&mut self, given: Given) {
        let call = &given.call;
        let (task, attempt) = (call.task, call.attempt);
        let gang = call.gang.clone().unwrap_or_default();
        let at = gang.at(self.options.agent.0).cloned().unwrap_or_default();
        let part = Part {
            size: gang.size(),
            at,
            ranks: Vec::new(),
            boot: None,
            family: None,
            scratch: self.options.socket_dir.join(format!("gang-{task}-{attempt}")),
            since: Instant::now(),
            deadline: super::dispatch::deadline(call),
            told: false,
            end: None,
            begun: false,
            settled: None,
            given,
        };
        self.gangs.parts.insert(task, part);
        if gang.ranks.srun {
            self.start_by_srun(task);
        } else {
            self.find_mpi(task);
        }
    }

    /// Bytes of another part's start-up.
    pub(super) fn on_relay(&mut self, relay: Relay) {
        let part = self
            .gangs
            .parts
            .get(&relay.task)
            .filter(|part| part.given.call.attempt == relay.attempt);
        match part {
            Some(Part { boot: Some(boot), .. }) => boot.deliver(relay.agent, relay.bytes),
            Some(part) if part.begun => {} // It serves no MPI, or ends.
            _ => {
                let early = self.gangs.early.entry((relay.task, relay.attempt)).or_default();
                early.push((relay.agent, relay.bytes));
            }
        }
    }

    /// The start-up of a gang's ranks has something to say.
    pub(super) fn on_gang_event(&mut self, task: u64, attempt: u32, event: bridgehead_mpi::Event) {
        use bridgehead_mpi::Event as News;
        let current = |part: &&mut Part| part.given.call.attempt == attempt;
        let Some(part) = self.gangs.parts.get_mut(&task).filter(current) else {
            return;
        };
        match event {
            News::Send { to, bytes } => self.tell(AgentToHead::Relay(Relay {
                task,
                attempt,
                agent: to,
                bytes,
            })),
            News::Joined { rank } => {
                if let Some(rank) = part.rank(rank) {
                    rank.joined = true;
                }
            }
            News::Left { .. } => {}
            News::Aborted { rank, code, message } => self.on_rank_aborted(task, rank, code, &message),
            News::Failed { reason } => self.fail_part(task, mpi::trouble(reason)),
        }
    }

    /// The ranks of an attempt that are here are to end.
    pub(super) fn end_part(&mut self, task: u64, outcome: Outcome) {
        let Some(part) = self.gangs.parts.get_mut(&task) else {
            return;
        };
        if part.by_srun() && part.ranks.is_empty() {
            return self.close_part(task); // It only kept room.
        }
        part.end.get_or_insert(outcome);
        self.kill_ranks(task);
    }

    /// Sends news of a gang into the agent's loop, from any thread.
    fn gang_events(&self, task: u64, attempt: u32) -> impl Fn(bridgehead_mpi::Event) + Send + Sync + 'static {
        let events = self.events.clone();
        move |event| {
            let _ = events.send(Event::Gang(task, attempt, event)); // The loop is gone only at the end.
        }
    }
}

impl Gangs {
    /// Puts the rank before each line of what a function printed, where it is one of several.
    pub(super) fn mark(&mut self, (task, rank): (u64, u32), text: &mut bridgehead_wire::LogText) {
        let part = self.parts.get_mut(&task).filter(|part| part.size > 1);
        if let Some(rank) = part.and_then(|part| part.rank(rank)) {
            let stream = if text.stream == "stderr" { "stderr" } else { "stdout" };
            text.text = rank.lines.mark(stream, &text.text);
        }
    }

    /// No rank is forked any more.
    pub(super) fn stop_forks(&mut self) {
        if let Some(forks) = self.forks.take() {
            forks.stop();
        }
    }

    /// The attempt of a gang that has ranks here.
    pub(super) fn attempt(&self, task: u64) -> Option<u32> {
        self.parts.get(&task).map(|part| part.given.call.attempt)
    }

    /// Tells `note` of each part that runs: its call, no worker, some process, since when, and whether that was told.
    pub(super) fn note_started(
        &mut self,
        note: &mut impl FnMut(&bridgehead_wire::TaskCall, u32, u32, Instant, &mut bool),
    ) {
        for part in self.parts.values_mut().filter(|part| part.begun) {
            let pid = part.pid();
            note(&part.given.call, 0, pid, part.since, &mut part.told);
        }
    }
}
