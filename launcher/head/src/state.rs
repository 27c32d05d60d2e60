//! The state of a run: a pure fold over journal records. The head applies each record as it writes it, so the state that
//! it works with is by construction what a replay gives. Owns phases and counts; decides nothing.
//! Hot path: `RunState::apply`, once a transition.

use crate::journal::{Event, Record};
use bridgehead_spec::ObjectId;
use bridgehead_wire::{Failure, FailureCause, FileRef, RankBound, RanksAt, TaskSubmit, Value};
use serde::Serialize;
use std::collections::HashMap;

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Waits for other tasks or for room.
    Waiting,
    /// With an agent.
    Running,
    /// Has its value.
    Finished,
    /// Failed for good.
    Failed,
    /// Cancelled.
    Cancelled,
}

impl Phase {
    /// Whether the task has its outcome.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Finished | Self::Failed | Self::Cancelled)
    }
}

/// Why a task has no value, or what its value is.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum End {
    /// No outcome yet.
    #[default]
    Open,
    /// The value.
    Value(Value),
    /// The failure.
    Failure(Box<Failure>),
    /// Cancelled for this reason.
    Cancelled(Box<str>),
}

/// One task, as far as the journal tells.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskRow {
    /// Where it stands.
    pub phase: Phase,
    /// The agent that has or had it.
    pub agent: u32,
    /// Attempts begun.
    pub attempt: u32,
    /// Run time of the last attempt that ended, in nanoseconds.
    pub elapsed_ns: u64,
    /// Failed attempts by cause, as far as they were retried; index by [`cause_index`].
    pub tries: [u16; 5],
    /// Attempts at the run in a row that were lost while this task ran in them.
    pub losses: u8,
    /// The outcome.
    pub end: End,
    /// Result file relative to the run folder.
    pub persisted: Option<Box<str>>,
}

impl Default for TaskRow {
    fn default() -> Self {
        Self {
            phase: Phase::Waiting,
            agent: 0,
            attempt: 0,
            elapsed_ns: 0,
            tries: [0; 5],
            losses: 0,
            end: End::Open,
            persisted: None,
        }
    }
}

/// Where a cause is counted; `None` for causes that are never retried.
#[must_use]
pub fn cause_index(cause: FailureCause) -> Option<usize> {
    match cause {
        FailureCause::User => Some(0),
        FailureCause::LostNode => Some(1),
        FailureCause::Preempted => Some(2),
        FailureCause::Walltime => Some(3),
        FailureCause::OutOfMemory => Some(4),
        FailureCause::System | FailureCause::Upstream => None,
    }
}

/// How many tasks are in which phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Counts {
    /// Waiting for others or for room.
    pub waiting: u64,
    /// With an agent.
    pub running: u64,
    /// Finished with a value.
    pub finished: u64,
    /// Failed for good.
    pub failed: u64,
    /// Cancelled.
    pub cancelled: u64,
}

impl Counts {
    fn slot(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Waiting => &mut self.waiting,
            Phase::Running => &mut self.running,
            Phase::Finished => &mut self.finished,
            Phase::Failed => &mut self.failed,
            Phase::Cancelled => &mut self.cancelled,
        }
    }

    /// All tasks.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.waiting + self.running + self.finished + self.failed + self.cancelled
    }
}

/// How often a run was interrupted, by cause. An end by itself, or one that the user asked for, is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Interruptions {
    /// The allocation's time was over.
    pub walltime: u32,
    /// The scheduler took the allocation.
    pub preempted: u32,
    /// The head or its node went down, or was cut off: its segment tells of no end.
    pub lost: u32,
}

/// The ranks of the latest attempt of a gang.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct GangRow {
    /// Where they are.
    pub nodes: Vec<RanksAt>,
    /// The MPI that is served; empty: none, or not known yet.
    pub mpi: String,
    /// What those that were started are bound to, in order.
    pub bound: Vec<RankBound>,
}

/// A task that is not in `spec.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct AddedTask {
    /// Its id.
    pub task: u64,
    /// For people.
    pub name: String,
    /// The task, where the run can be resumed.
    pub submit: Option<TaskSubmit>,
    /// Digest of its function.
    pub function: Vec<u8>,
}

/// The run, as far as the journal tells.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RunState {
    /// Tasks by id.
    pub tasks: Vec<TaskRow>,
    /// Tasks that tasks (or an Executor) added.
    pub added: Vec<AddedTask>,
    /// Counts by phase.
    pub counts: Counts,
    /// The latest attempt.
    pub attempt: u32,
    /// When the first attempt started, nanoseconds since the epoch.
    pub started_ns: u64,
    /// Set once the attempt ended: phase (`paused` where it stopped for another attempt to go on) and message.
    pub ended: Option<(String, String)>,
    /// Set once the attempt was paused: cause and message.
    pub paused: Option<(String, String)>,
    /// Whether the latest attempt goes on with one that was paused or lost, rather than trying again what had ended.
    pub continues: bool,
    /// How often the run was interrupted.
    pub interruptions: Interruptions,
    /// Objects that lie in files of the run folder: arguments of added tasks.
    pub files: HashMap<ObjectId, FileRef>,
    /// The latest attempts of gangs, by task.
    pub gangs: HashMap<u64, GangRow>,
    /// Records folded in.
    pub records: u64,
    /// When the last record was written.
    pub last_ns: u64,
    /// Whether added tasks are kept for a later resume.
    keep_added: bool,
}

impl RunState {
    /// An empty run; `keep_added` keeps the bodies of added tasks (a resume needs them, a live head does not).
    #[must_use]
    pub fn new(keep_added: bool) -> Self {
        Self {
            keep_added,
            ..Self::default()
        }
    }

    /// Folds `record` in. Records about unknown tasks are ignored: a replay must take any prefix of a journal.
    pub fn apply(&mut self, record: &Record) {
        self.last_ns = record.time_ns;
        self.records += 1;
        let Some(event) = &record.event else { return };
        match event {
            Event::RunStarted(e) => self.on_started(record.time_ns, e.attempt, e.tasks),
            Event::TaskAdded(e) => self.on_added(e),
            Event::TaskAssigned(e) => {
                self.change(e.task, Phase::Running, |row| {
                    row.attempt = e.attempt;
                    row.agent = e.agent;
                });
                if !e.ranks.is_empty() {
                    let nodes = e.ranks.clone();
                    self.gangs.insert(
                        e.task,
                        GangRow {
                            nodes,
                            ..GangRow::default()
                        },
                    );
                }
            }
            Event::TaskFinished(e) => self.change(e.task, Phase::Finished, |row| {
                row.attempt = e.attempt;
                row.elapsed_ns = e.elapsed_ns;
                row.end = e.value.clone().map_or(End::Open, End::Value);
            }),
            Event::TaskFailed(e) => self.on_failed(e),
            Event::TaskCancelled(e) => {
                self.change(e.task, Phase::Cancelled, |row| {
                    row.end = End::Cancelled(e.reason.as_str().into())
                });
            }
            Event::TaskPersisted(e) => {
                if let Some(row) = self.row_mut(e.task) {
                    row.persisted = Some(e.path.as_str().into());
                }
            }
            Event::TaskReset(e) => self.change(e.task, Phase::Waiting, |row| {
                row.end = End::Open;
                row.losses = 0;
            }),
            Event::RunEnded(e) => self.ended = Some((e.phase.clone(), e.message.clone())),
            Event::RunPaused(e) => self.on_paused(e),
            Event::ObjectPersisted(e) => {
                let id = ObjectId(u128::from(e.id_hi) << 64 | u128::from(e.id_lo));
                let (path, len) = (e.path.clone(), e.len);
                self.files.insert(id, FileRef { path, len });
            }
            Event::GangStarted(e) => self.on_gang_started(e),
            Event::AgentJoined(_) | Event::AgentLost(_) => {}
        }
    }

    /// The row of a task.
    #[must_use]
    pub fn row(&self, task: u64) -> Option<&TaskRow> {
        self.tasks.get(usize::try_from(task).ok()?)
    }

    /// The row of a task, for what is not journalled.
    pub fn row_mut(&mut self, task: u64) -> Option<&mut TaskRow> {
        self.tasks.get_mut(usize::try_from(task).ok()?)
    }

    fn on_started(&mut self, time_ns: u64, attempt: u32, tasks: u64) {
        if self.started_ns == 0 {
            self.started_ns = time_ns;
        }
        let lost = self.attempt > 0 && self.ended.is_none();
        self.interruptions.lost += u32::from(lost);
        self.continues = lost || self.paused.is_some();
        self.attempt = attempt;
        self.ended = None;
        self.paused = None;
        let tasks = usize::try_from(tasks).unwrap_or(0);
        if self.tasks.len() < tasks {
            self.counts.waiting += (tasks - self.tasks.len()) as u64;
            self.tasks.resize_with(tasks, TaskRow::default);
        }
        // Nothing runs at the start of an attempt: what the last head had given out went down with it.
        if lost {
            for row in &mut self.tasks {
                let ran = row.phase == Phase::Running;
                row.losses = if ran { row.losses.saturating_add(1) } else { 0 };
            }
        }
        self.stop_running(|_| {});
    }

    /// What ran waits again; it burns no retry.
    fn on_paused(&mut self, e: &crate::journal::RunPaused) {
        match e.cause.as_str() {
            "walltime" => self.interruptions.walltime += 1,
            "preempted" => self.interruptions.preempted += 1,
            _ => {}
        }
        self.stop_running(|row| row.losses = 0);
        self.ended = Some(("paused".to_owned(), e.message.clone()));
        self.paused = Some((e.cause.clone(), e.message.clone()));
    }

    fn stop_running(&mut self, with: impl Fn(&mut TaskRow)) {
        if self.counts.running == 0 {
            return;
        }
        for id in 0..self.tasks.len() as u64 {
            if self.row(id).is_some_and(|row| row.phase == Phase::Running) {
                self.change(id, Phase::Waiting, &with);
            }
        }
    }

    fn on_added(&mut self, e: &crate::journal::TaskAdded) {
        if e.task != self.tasks.len() as u64 {
            return;
        }
        self.tasks.push(TaskRow::default());
        self.counts.waiting += 1;
        if self.keep_added {
            self.added.push(AddedTask {
                task: e.task,
                name: e.name.clone(),
                submit: e.submit.clone(),
                function: e.function.clone(),
            });
        }
    }

    fn on_gang_started(&mut self, e: &crate::journal::GangStarted) {
        let attempt = self.row(e.bound.task).map(|row| row.attempt);
        let Some(gang) = self
            .gangs
            .get_mut(&e.bound.task)
            .filter(|_| attempt == Some(e.bound.attempt))
        else {
            return;
        };
        gang.mpi.clone_from(&e.bound.mpi);
        gang.bound.extend(e.bound.ranks.iter().cloned());
        gang.bound.sort_by_key(|rank| rank.rank);
    }

    fn on_failed(&mut self, e: &crate::journal::TaskFailed) {
        let failure = e.failure.clone().unwrap_or_default();
        if e.retried {
            let cause = cause_index(failure.cause());
            self.change(e.task, Phase::Waiting, |row| {
                if let Some(n) = cause.and_then(|i| row.tries.get_mut(i)) {
                    *n = n.saturating_add(1);
                }
            });
        } else {
            self.change(e.task, Phase::Failed, |row| row.end = End::Failure(Box::new(failure)));
        }
    }

    fn change(&mut self, task: u64, to: Phase, with: impl FnOnce(&mut TaskRow)) {
        let Some(row) = usize::try_from(task).ok().and_then(|i| self.tasks.get_mut(i)) else {
            return;
        };
        let from = std::mem::replace(&mut row.phase, to);
        with(row);
        *self.counts.slot(from) -= 1;
        *self.counts.slot(to) += 1;
    }
}
