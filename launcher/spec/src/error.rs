//! Why a document is no pipeline. Owns the words; the rules are in `check.rs`.

use crate::check::MAX_NAME;
use crate::pipeline::PIPELINE_VERSION;
use crate::{Digest, TaskId};
use thiserror::Error;

/// How many tasks of a cycle are spelt out.
const SHOWN: usize = 12;

/// Why a document is no pipeline: the thing, the reason, the way out.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// Not the JSON that it should be.
    #[error("the pipeline is not valid: {place}{reason}")]
    Json {
        /// The task that is wrong, if one is, ending in `: `; else empty.
        place: String,
        /// What the reader says.
        reason: String,
    },
    /// Written by a newer program.
    #[error(
        "the pipeline has version {found}, this bridgehead reads up to {PIPELINE_VERSION}: use the bridgehead that wrote it, or a newer one"
    )]
    Newer {
        /// Its version.
        found: u64,
    },
    /// A version that never was.
    #[error("the pipeline has version {found}: versions count from 1")]
    NoVersion {
        /// Its version.
        found: u64,
    },
    /// The pipeline as a whole is unusable.
    #[error("the pipeline {name:?}: {reason}")]
    Pipeline {
        /// Its name.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
    /// A task's id is not its position.
    #[error("task {name:?} at position {position} has id {}, {}: ids count the tasks from 0, in order",
        .found.0, id_fault(*.position, *.found))]
    Id {
        /// Where it stands.
        position: u64,
        /// Its id.
        found: TaskId,
        /// Its name.
        name: String,
    },
    /// A name is too long, empty or not printable.
    #[error("{what} has a name of {len} bytes ({start:?}): names have 1 to {MAX_NAME} bytes and no control characters")]
    Name {
        /// Whose.
        what: String,
        /// Its length.
        len: usize,
        /// How it begins.
        start: String,
    },
    /// A task needs another that does not exist.
    #[error("{task} ({name}) needs {missing}, which is not in the pipeline: it has {tasks} tasks, numbered from 0")]
    UnknownTask {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
        /// What it names.
        missing: TaskId,
        /// How many there are.
        tasks: usize,
    },
    /// The user holds a result that does not exist.
    #[error("keep names {missing}, which is not in the pipeline: it has {tasks} tasks, numbered from 0")]
    UnknownKept {
        /// What it names.
        missing: TaskId,
        /// How many there are.
        tasks: usize,
    },
    /// A task needs itself.
    #[error("{task} ({name}) waits for itself and could never start: take {task} out of its inputs and after")]
    SelfDependency {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
    },
    /// Tasks wait for one another. In the order in which results would flow, beginning with the lowest id.
    #[error("these tasks wait for one another and none could ever start: {}; remove one of these dependencies", path(.0))]
    Cycle(Vec<(TaskId, String)>),
    /// A function is not in the list.
    #[error("{task} ({name}) calls function {digest}, which is not among the pipeline's functions: add it there")]
    UnknownFunction {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
        /// The function.
        digest: Digest,
    },
    /// A task is unusable in itself.
    #[error("{task} ({name}): {reason}")]
    Task {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
        /// Why, and what to do.
        reason: String,
    },
}

fn id_fault(position: u64, found: TaskId) -> &'static str {
    if found.0 < position {
        "which an earlier task has already"
    } else {
        "which leaves a gap"
    }
}

fn path(cycle: &[(TaskId, String)]) -> String {
    let named = |(id, name): &(TaskId, String)| format!("{name} ({id})");
    let mut names: Vec<String> = cycle.iter().take(SHOWN).map(named).collect();
    if cycle.len() > SHOWN {
        names.push(format!("... {} more ...", cycle.len() - SHOWN));
    }
    names.extend(cycle.first().map(named));
    names.join(" -> ")
}
