//! From text to a checked pipeline: after this nothing is validated again. Owns every rule that a document must keep.

use crate::pipeline::{CallSpec, FunctionSpec, PIPELINE_VERSION, PipelineSpec, TaskSpec};
use crate::{Digest, TaskId};
use std::collections::BTreeMap;
use thiserror::Error;

/// Longest name of a pipeline or task, in bytes.
const MAX_NAME: usize = 256;

/// Why a document is no pipeline.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SpecError {
    /// Not the JSON that it should be.
    #[error("the pipeline is not valid: {0}")]
    Json(String),
    /// Written by a newer program.
    #[error(
        "the pipeline has version {found}, this bridgehead reads up to {PIPELINE_VERSION}: use the version that wrote it, or a newer one"
    )]
    Newer {
        /// Its version.
        found: u64,
    },
    /// A task's id is not its position.
    #[error("task at position {position} has id {found}: ids count the tasks from 0, in order")]
    Id {
        /// Where it stands.
        position: u64,
        /// Its id.
        found: TaskId,
    },
    /// A name is too long or empty.
    #[error("{what} has a name of {len} bytes: names have 1 to {MAX_NAME}")]
    Name {
        /// Whose.
        what: String,
        /// Its length.
        len: usize,
    },
    /// A task names another that does not exist.
    #[error("{task} ({name}) needs {missing}, which is not in the pipeline of {tasks} tasks")]
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
    /// Tasks wait for one another.
    #[error("these tasks wait for one another and none can start: {}", path(.0))]
    Cycle(Vec<(TaskId, String)>),
    /// A function is not in the list.
    #[error("{task} ({name}) calls function {digest}, which is not among the pipeline's functions")]
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

fn path(cycle: &[(TaskId, String)]) -> String {
    let names: Vec<String> = cycle.iter().map(|(id, name)| format!("{name} ({id})")).collect();
    format!("{} -> {}", names.join(" -> "), names.first().map_or("", String::as_str))
}

/// A pipeline that keeps all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedPipeline {
    spec: PipelineSpec,
    order: Vec<TaskId>,
}

impl CheckedPipeline {
    /// Reads and checks `spec.json`.
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        #[derive(serde::Deserialize)]
        struct Version {
            version: u64,
        }
        let version: Version = serde_json::from_slice(bytes).map_err(|e| SpecError::Json(e.to_string()))?;
        if version.version > u64::from(PIPELINE_VERSION) {
            return Err(SpecError::Newer { found: version.version });
        }
        let spec = serde_json::from_slice(bytes).map_err(|e| SpecError::Json(e.to_string()))?;
        Self::check(spec)
    }

    /// Checks a document.
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn check(spec: PipelineSpec) -> Result<Self, SpecError> {
        check_name("the pipeline", &spec.name)?;
        for (position, task) in (0..).zip(&spec.tasks) {
            if task.id.0 != position {
                return Err(SpecError::Id {
                    position,
                    found: task.id,
                });
            }
            check_task(&spec, task)?;
        }
        for &id in &spec.keep {
            if id.0 >= spec.tasks.len() as u64 {
                let tasks = spec.tasks.len();
                return Err(SpecError::UnknownTask {
                    task: id,
                    name: "keep".to_owned(),
                    missing: id,
                    tasks,
                });
            }
        }
        let order = topological_order(&spec)?;
        Ok(Self { spec, order })
    }

    /// The canonical text: one line, keys in a fixed order, defaults left out.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        serde_json::to_string(&self.spec).expect("plain data can be written")
    }

    /// The document.
    #[must_use]
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Its tasks, by id.
    #[must_use]
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.spec.tasks
    }

    /// Its functions.
    #[must_use]
    pub fn functions(&self) -> &BTreeMap<Digest, FunctionSpec> {
        &self.spec.functions
    }

    /// The tasks whose results the user holds.
    #[must_use]
    pub fn keep(&self) -> &[TaskId] {
        &self.spec.keep
    }

    /// All tasks, each after those that it needs.
    #[must_use]
    pub fn topological_order(&self) -> &[TaskId] {
        &self.order
    }
}

fn check_name(what: &str, name: &str) -> Result<(), SpecError> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(SpecError::Name {
            what: what.to_owned(),
            len: name.len(),
        });
    }
    Ok(())
}

fn check_task(spec: &PipelineSpec, task: &TaskSpec) -> Result<(), SpecError> {
    let (id, name) = (task.id, task.name.clone());
    check_name(&format!("task {id}"), &task.name)?;
    for &needed in task.inputs.iter().chain(&task.after) {
        if needed.0 >= spec.tasks.len() as u64 {
            return Err(SpecError::UnknownTask {
                task: id,
                name,
                missing: needed,
                tasks: spec.tasks.len(),
            });
        }
    }
    let refuse = |reason: &str| {
        Err(SpecError::Task {
            task: id,
            name: task.name.clone(),
            reason: reason.to_owned(),
        })
    };
    match &task.call {
        CallSpec::Function { digest, .. } if !spec.functions.contains_key(digest) => {
            return Err(SpecError::UnknownFunction {
                task: id,
                name,
                digest: *digest,
            });
        }
        CallSpec::Function { args, args_blob, .. } if args.is_empty() == args_blob.is_none() => {
            return refuse("give its arguments either as args or as args_blob");
        }
        CallSpec::Program(program) if program.argv.first().is_none_or(String::is_empty) => {
            return refuse("a program needs an argv whose first word is the executable");
        }
        CallSpec::Program(_) if !task.inputs.is_empty() => {
            return refuse(
                "a program cannot take results of tasks; format them in a function, or let it run `after` them",
            );
        }
        _ => {}
    }
    if task.timeout_ms == Some(0) {
        return refuse("a time limit of 0 would never let it run; leave it out for none");
    }
    match &task.group {
        Some(group) if !spec.groups.contains_key(group) => refuse(&format!("its group {group:?} is not in groups")),
        _ => Ok(()),
    }
}

/// Kahn's algorithm over positions; iterative, because a pipeline may be a million tasks deep.
fn topological_order(spec: &PipelineSpec) -> Result<Vec<TaskId>, SpecError> {
    let n = spec.tasks.len();
    let needs = |task: &TaskSpec| -> Vec<usize> {
        // Positions fit: they were compared with the number of tasks.
        task.inputs
            .iter()
            .chain(&task.after)
            .filter_map(|id| usize::try_from(id.0).ok())
            .collect()
    };
    let mut open = vec![0u32; n];
    let mut dependents = vec![Vec::new(); n];
    for (i, task) in spec.tasks.iter().enumerate() {
        for need in needs(task) {
            open[i] += 1;
            dependents[need].push(i);
        }
    }
    let mut order: Vec<usize> = (0..n).filter(|&i| open[i] == 0).collect();
    let mut at = 0;
    while at < order.len() {
        for &dependent in &dependents[order[at]] {
            open[dependent] -= 1;
            if open[dependent] == 0 {
                order.push(dependent);
            }
        }
        at += 1;
    }
    if order.len() < n {
        return Err(SpecError::Cycle(find_cycle(spec, &open, needs)));
    }
    Ok(order.into_iter().map(|i| TaskId(i as u64)).collect())
}

/// Walks from a task that cannot start to one that it waits for, until a task comes again.
fn find_cycle(spec: &PipelineSpec, open: &[u32], needs: impl Fn(&TaskSpec) -> Vec<usize>) -> Vec<(TaskId, String)> {
    let mut seen = vec![usize::MAX; spec.tasks.len()];
    let mut walk = Vec::new();
    let mut at = open.iter().position(|&n| n > 0).unwrap_or(0);
    while seen[at] == usize::MAX {
        seen[at] = walk.len();
        walk.push(at);
        at = needs(&spec.tasks[at])
            .into_iter()
            .find(|&need| open[need] > 0)
            .unwrap_or(at);
    }
    let mut cycle: Vec<_> = walk[seen[at]..]
        .iter()
        .map(|&i| (spec.tasks[i].id, spec.tasks[i].name.clone()))
        .collect();
    cycle.reverse(); // In the order in which results would flow.
    cycle
}
