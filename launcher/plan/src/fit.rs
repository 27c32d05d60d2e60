//! Whether every task can run at all. Owns the refusals of a plan.
//! Hot path: equal requests are compared with the nodes once.

use crate::gangs;
use crate::profile::{ClusterProfile, NodeProfile};
use bridgehead_spec::{CallSpec, CheckedPipeline, RanksSpec, Resources, TaskId, TaskSpec, format_memory};
use std::collections::HashSet;
use thiserror::Error;

/// Why there is no plan: the thing, the reason, the way out.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanError {
    /// Nothing to run on.
    #[error("the {backend} cluster profile has no nodes: name at least one")]
    NoNodes {
        /// The backend.
        backend: String,
    },
    /// No node has as much as a task asks for.
    #[error(
        "{task} ({name}) asks for {asked} of {resource}, the most that any node has is {most} ({node}): ask for less, or run on a node that has it"
    )]
    TooMuch {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
        /// The resource.
        resource: String,
        /// What it asks for.
        asked: String,
        /// The most that any node has.
        most: String,
        /// That node.
        node: String,
    },
    /// Each resource is somewhere, but no node has them together.
    #[error(
        "{task} ({name}) asks for {asked} together, which no single node has: {}: ask for less, or run on a node that has all",
        .lacking.join("; ")
    )]
    NotTogether {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
        /// All that it asks for.
        asked: String,
        /// What each kind of node lacks.
        lacking: Vec<String>,
    },
    /// A function has no worker to run in.
    #[error(
        "{task} ({name}) is a Python function, but no node that is large enough for it has a worker: give the nodes at least one worker"
    )]
    NoWorkers {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
    },
    /// A gang that is wider than the allocation.
    #[error(
        "{task} ({name}) needs {ranks} ranks with {each} each at once, the nodes hold {most}: ask for fewer ranks or less for each, or run on more or larger nodes"
    )]
    TooWide {
        /// The task.
        task: TaskId,
        /// Its name.
        name: String,
        /// The fewest ranks with which it starts.
        ranks: u32,
        /// What each of them asks for.
        each: String,
        /// How many the nodes could hold.
        most: u32,
    },
}

/// Compares every task with the nodes.
pub(crate) fn check(pipeline: &CheckedPipeline, cluster: &ClusterProfile) -> Result<(), PlanError> {
    if cluster.nodes.is_empty() {
        return Err(PlanError::NoNodes {
            backend: cluster.backend.clone(),
        });
    }
    let mut seen: HashSet<(&Resources, bool, Option<RanksSpec>, Option<&str>)> = HashSet::new();
    for task in pipeline.tasks() {
        let function = matches!(task.call, CallSpec::Function { .. });
        let group = task.group.as_deref();
        if seen.insert((&task.resources, function, task.ranks, group)) {
            let nodes = gangs::nodes(pipeline, cluster, group);
            check_task(task, function, &nodes)?;
            check_width(task, &nodes)?;
        }
    }
    Ok(())
}

/// Whether all ranks of a gang could run at once; what one of them asks for has been compared with the nodes.
fn check_width(task: &TaskSpec, nodes: &[NodeProfile]) -> Result<(), PlanError> {
    let Some(ranks) = task.ranks else { return Ok(()) };
    let most = ranks.most_on(&task.resources, nodes.iter().map(|node| &node.resources));
    if most >= ranks.least {
        return Ok(());
    }
    let each = amounts(&task.resources).map(|(resource, n)| format!("{} {}", show(&resource, n), title(&resource)));
    Err(PlanError::TooWide {
        task: task.id,
        name: task.name.clone(),
        ranks: ranks.least,
        each: each.collect::<Vec<_>>().join(", "),
        most,
    })
}

fn check_task(task: &TaskSpec, function: bool, nodes: &[NodeProfile]) -> Result<(), PlanError> {
    let mut fitting = nodes
        .iter()
        .filter(|node| task.resources.fits(&node.resources))
        .peekable();
    if fitting.peek().is_none() {
        return Err(too_large(task, nodes));
    }
    if function && fitting.all(|node| node.workers == 0) {
        return Err(PlanError::NoWorkers {
            task: task.id,
            name: task.name.clone(),
        });
    }
    Ok(())
}

fn too_large(task: &TaskSpec, nodes: &[NodeProfile]) -> PlanError {
    for (resource, asked) in amounts(&task.resources) {
        // The first of equals, so that the words do not depend on the order of search.
        let best = nodes
            .iter()
            .map(|n| (amount(&n.resources, &resource), n))
            .reduce(|a, b| if b.0 > a.0 { b } else { a });
        let Some((most, node)) = best else { break };
        if asked > most {
            return PlanError::TooMuch {
                task: task.id,
                name: task.name.clone(),
                asked: show(&resource, asked),
                most: show(&resource, most),
                resource: title(&resource).to_owned(),
                node: node.name.clone(),
            };
        }
    }
    let lacking = nodes.iter().filter_map(|node| {
        let (resource, _, there) = task.resources.lacking(&node.resources)?;
        Some(format!(
            "{} has {} of {}",
            node.name,
            show(&resource, there),
            title(&resource)
        ))
    });
    let asked = amounts(&task.resources).map(|(resource, n)| format!("{} of {}", show(&resource, n), title(&resource)));
    PlanError::NotTogether {
        task: task.id,
        name: task.name.clone(),
        asked: asked.collect::<Vec<_>>().join(", "),
        lacking: shorten(lacking.collect()),
    }
}

/// Everything that a request asks for, by the name of the resource.
fn amounts(r: &Resources) -> impl Iterator<Item = (String, u64)> + '_ {
    let fixed = [
        ("cpu_millis", r.cpu_millis),
        ("memory", r.memory),
        ("gpus", r.gpus.into()),
    ];
    let fixed = fixed
        .into_iter()
        .filter(|&(_, n)| n > 0)
        .map(|(name, n)| (name.to_owned(), n));
    fixed.chain(r.named.iter().map(|(name, &n)| (name.clone(), n)))
}

fn amount(r: &Resources, name: &str) -> u64 {
    match name {
        "cpu_millis" => r.cpu_millis,
        "memory" => r.memory,
        "gpus" => r.gpus.into(),
        named => r.named.get(named).copied().unwrap_or(0),
    }
}

fn title(resource: &str) -> &str {
    if resource == "cpu_millis" { "cpus" } else { resource }
}

fn show(resource: &str, n: u64) -> String {
    match resource {
        "cpu_millis" if n.is_multiple_of(1000) => (n / 1000).to_string(),
        "cpu_millis" => format!("{}.{:03}", n / 1000, n % 1000).trim_end_matches('0').to_owned(),
        "memory" => format_bytes(n),
        _ => n.to_string(),
    }
}

/// Both forms, since two amounts may look alike when rounded.
fn format_bytes(n: u64) -> String {
    if n < 1024 {
        format!("{n} B")
    } else {
        format!("{} ({n} B)", format_memory(n))
    }
}

/// At most four nodes are told; a cluster may have thousands that lack the same.
fn shorten(mut texts: Vec<String>) -> Vec<String> {
    const SHOWN: usize = 4;
    if texts.len() > SHOWN {
        let more = texts.len() - SHOWN;
        texts.truncate(SHOWN);
        texts.push(format!("and {more} more nodes"));
    }
    texts
}
