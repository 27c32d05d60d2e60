//! From a pipeline and a cluster to a launch plan. Owns the decision and its reasons.

use crate::document::{AgentPlan, GangPlan, LaunchPlan, PLAN_VERSION, Reason, Topic};
use crate::facts::{Facts, Measure};
use crate::fit::{self, PlanError};
use crate::gangs::{self, Cut};
use crate::profile::{ClusterProfile, NodeProfile};
use bridgehead_spec::{CheckedPipeline, GroupSpec, TaskId};
use std::collections::BTreeSet;

/// Plans `pipeline` on `cluster`: a gang with an agent on every node of the profile, and further gangs for groups that ask for
/// allocations of their own.
///
/// # Errors
/// A task that no node can run, named with what it lacks.
pub fn plan(pipeline: &CheckedPipeline, cluster: &ClusterProfile) -> Result<LaunchPlan, PlanError> {
    fit::check(pipeline, cluster)?;
    let cuts = gangs::cut(pipeline, cluster);
    let mut measure = Measure::new(pipeline);
    let measured: Vec<(GangPlan, Facts)> = (0u32..)
        .zip(&cuts)
        .map(|(id, cut)| {
            let facts = measure.facts(&cut.tasks);
            (gang(pipeline, cluster, id, cut, cuts.len() == 1, &facts), facts)
        })
        .collect();
    let mut reasons = Vec::new();
    let mut say = |about, text| reasons.push(Reason { about, text });
    gang_reasons(pipeline, cluster, &measured, &mut say);
    let whole = (cuts.len() > 1).then(|| measure.facts(pipeline.topological_order()));
    let whole = whole.as_ref().or(measured.first().map(|(_, facts)| facts));
    say(Topic::Graph, graph_reason(pipeline, whole.unwrap_or(&Facts::default())));
    for ((gang, facts), cut) in measured.iter().zip(&cuts) {
        let name = if cuts.len() == 1 {
            String::new()
        } else {
            format!("gang {}: ", gang.id)
        };
        let mut say = |about, text| say(about, format!("{name}{text}"));
        agent_reasons(gang, cut.group, &mut say);
        say(Topic::Limit, limit_reason(gang, facts));
    }
    Ok(LaunchPlan {
        version: PLAN_VERSION,
        pipeline: pipeline.name().to_owned(),
        backend: cluster.backend.clone(),
        gangs: measured.into_iter().map(|(gang, _)| gang).collect(),
        reasons,
    })
}

fn gang(
    pipeline: &CheckedPipeline,
    cluster: &ClusterProfile,
    id: u32,
    cut: &Cut<'_>,
    alone: bool,
    facts: &Facts,
) -> GangPlan {
    let spec = cut.group.and_then(|group| pipeline.groups().get(group));
    GangPlan {
        id,
        agents: agents(&gangs::nodes(pipeline, cluster, cut.group)),
        groups: groups(pipeline, cut, alone),
        partition: spec.and_then(|spec| spec.partition.clone()),
        after: id.checked_sub(1).into_iter().collect(),
        tasks: cut.tasks.len() as u64,
        ranges: if alone { Vec::new() } else { gangs::ranges(&cut.tasks) },
        programs: facts.programs,
        critical_path: facts.critical_path,
        critical_end: facts.critical_ends.map(|(_, last)| last),
        width: facts.width,
    }
}

/// The groups that run in a gang.
fn groups(pipeline: &CheckedPipeline, cut: &Cut<'_>, alone: bool) -> Vec<String> {
    if alone {
        return pipeline.groups().keys().cloned().collect();
    }
    let groups = cut.tasks.iter().filter_map(|&id| pipeline.task(id)?.group.as_ref());
    let groups: BTreeSet<&String> = groups.collect();
    groups.into_iter().cloned().collect()
}

fn agents(nodes: &[NodeProfile]) -> Vec<AgentPlan> {
    let agent = |(rank, node): (u32, &NodeProfile)| AgentPlan {
        rank,
        node: node.name.clone(),
        resources: node.resources.clone(),
        workers: node.workers,
    };
    (0u32..).zip(nodes).map(agent).collect()
}

fn gang_reasons(
    pipeline: &CheckedPipeline,
    cluster: &ClusterProfile,
    gangs: &[(GangPlan, Facts)],
    say: &mut impl FnMut(Topic, String),
) {
    if pipeline.groups().is_empty() {
        say(
            Topic::Gangs,
            "one gang: no part of the graph asks for an allocation of its own".to_owned(),
        );
        return;
    }
    let backend = &cluster.backend;
    let count = gangs.len();
    if backend == "local" {
        say(
            Topic::Gangs,
            format!("one gang: the {backend} backend has one allocation, so all groups share it"),
        );
    } else if count == 1 {
        say(
            Topic::Gangs,
            "one gang: all tasks ask for the same allocation".to_owned(),
        );
    } else {
        say(
            Topic::Gangs,
            format!(
                "{count} gangs, one after another: values that cross from one to a later one go through the run folder"
            ),
        );
    }
    for (name, group) in pipeline.groups() {
        let Some(wishes) = wishes(group) else { continue };
        if gangs::own(pipeline, cluster, name).is_none() {
            say(
                Topic::Gangs,
                format!("group {name} asks for {wishes}; here it gets what the gang has"),
            );
            continue;
        }
        let theirs = gangs.iter().filter(|(gang, _)| gang.groups.contains(name));
        let theirs: Vec<String> = theirs.map(|(gang, _)| gang.id.to_string()).collect();
        let text = match theirs.as_slice() {
            [] => format!("group {name} asks for {wishes}, but has no tasks"),
            [id] => format!("group {name} asks for {wishes}: gang {id}"),
            ids => format!(
                "group {name} asks for {wishes}: gangs {}, because others run between its tasks",
                ids.join(", ")
            ),
        };
        say(Topic::Gangs, text);
    }
}

fn wishes(group: &GroupSpec) -> Option<String> {
    let nodes = group.nodes.map(|n| counted(n.into(), "node"));
    let gpus = group.gpus.map(|n| format!("{} a node", counted(n.into(), "GPU")));
    let partition = group.partition.as_ref().map(|name| format!("partition {name}"));
    let all: Vec<String> = [nodes, gpus, partition].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", "))
}

fn graph_reason(pipeline: &CheckedPipeline, facts: &Facts) -> String {
    let tasks = pipeline.tasks().len() as u64;
    let Some((first, last)) = facts.critical_ends else {
        return "the pipeline has no tasks".to_owned();
    };
    let name = |id: TaskId| pipeline.task(id).map_or("", |task| task.name.as_str());
    let chain = if first == last {
        "no task waits for another".to_owned()
    } else {
        format!(
            "the longest chain has {}, from {} to {}",
            facts.critical_path,
            name(first),
            name(last)
        )
    };
    let gangs = match facts.gangs {
        0 => String::new(),
        gangs => format!(
            "; {} run by several ranks, the widest needs {}",
            if gangs == 1 {
                "1 is".to_owned()
            } else {
                format!("{gangs} are")
            },
            facts.widest
        ),
    };
    format!(
        "{}: {chain}; up to {} at the same distance from the start{gangs}",
        counted(tasks, "task"),
        facts.width
    )
}

fn agent_reasons(gang: &GangPlan, group: Option<&str>, say: &mut impl FnMut(Topic, String)) {
    let agents = gang.agents.len() as u64;
    let whose = group.map_or("of the profile".to_owned(), |group| format!("of group {group}"));
    let workers: u64 = gang.agents.iter().map(|a| u64::from(a.workers)).sum();
    let text = format!(
        "{} with {}: one agent on every node {whose}",
        counted(agents, "agent"),
        counted(workers, "Python worker")
    );
    say(Topic::Agents, text);
    // Tasks that add tasks may use what the written graph does not, so this is advice and not a decision.
    let functions = gang.tasks - gang.programs;
    if functions > 0 && gang.programs == 0 && gang.width < workers {
        let width = gang.width;
        let text = format!(
            "{} would do where all tasks take equally long",
            counted(width, "worker")
        );
        say(Topic::Agents, text);
    }
}

/// What most rounds are needed of: a chain of that many tasks, or the whole gang filled that many times.
fn limit_reason(gang: &GangPlan, facts: &Facts) -> String {
    let limits = rounds(gang, facts);
    // The first of equals: the chain cannot be bought off with nodes.
    let worst = limits.into_iter().reduce(|a, b| if b.1 > a.1 { b } else { a });
    match worst {
        None | Some((_, 0)) => "nothing to wait for".to_owned(),
        Some((Limit::Chain, n)) => format!(
            "the longest chain limits: {} one after another; more nodes would not help",
            counted(n, "task")
        ),
        Some((Limit::Of(what), n)) => format!(
            "{what} limit: all tasks together fill them {} over; more would help",
            times(n)
        ),
    }
}

enum Limit {
    Chain,
    Of(String),
}

fn rounds(gang: &GangPlan, facts: &Facts) -> Vec<(Limit, u64)> {
    let total = |f: &dyn Fn(&AgentPlan) -> u64| gang.agents.iter().map(|a| u128::from(f(a))).sum::<u128>();
    let mut limits = vec![(Limit::Chain, facts.critical_path)];
    let mut add = |what: &str, asked: u128, there: u128| {
        if asked > 0 && there > 0 {
            limits.push((
                Limit::Of(what.to_owned()),
                u64::try_from(asked.div_ceil(there)).unwrap_or(u64::MAX),
            ));
        }
    };
    add("cpus", facts.cpu_millis, total(&|a| a.resources.cpu_millis));
    add(
        "Python workers",
        (gang.tasks - gang.programs).into(),
        total(&|a| a.workers.into()),
    );
    add("memory", facts.memory, total(&|a| a.resources.memory));
    add("gpus", facts.gpus, total(&|a| a.resources.gpus.into()));
    for (name, &asked) in &facts.named {
        add(
            name,
            asked,
            total(&|a| a.resources.named.get(name).copied().unwrap_or(0)),
        );
    }
    limits
}

pub(crate) fn counted(n: u64, what: &str) -> String {
    if n == 1 {
        format!("1 {what}")
    } else {
        format!("{n} {what}s")
    }
}

fn times(n: u64) -> String {
    match n {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        n => format!("{n} times"),
    }
}
