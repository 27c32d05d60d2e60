//! From a pipeline and a cluster to a launch plan. Owns the decision and its reasons.

use crate::document::{AgentPlan, GangPlan, LaunchPlan, PLAN_VERSION, Reason, Topic};
use crate::facts::{Facts, facts};
use crate::fit::{self, PlanError};
use crate::profile::ClusterProfile;
use bridgehead_spec::{CheckedPipeline, GroupSpec, TaskId};

/// Plans `pipeline` on `cluster`: one gang with an agent on every node of the profile.
///
/// # Errors
/// A task that no node can run, named with what it lacks.
pub fn plan(pipeline: &CheckedPipeline, cluster: &ClusterProfile) -> Result<LaunchPlan, PlanError> {
    fit::check(pipeline, cluster)?;
    let facts = facts(pipeline);
    let gang = GangPlan {
        id: 0,
        agents: agents(cluster),
        groups: pipeline.groups().keys().cloned().collect(),
        tasks: pipeline.tasks().len() as u64,
        programs: facts.programs,
        critical_path: facts.critical_path,
        critical_end: facts.critical_ends.map(|(_, last)| last),
        width: facts.width,
    };
    let mut reasons = Vec::new();
    let mut say = |about, text| reasons.push(Reason { about, text });
    gang_reasons(pipeline, cluster, &mut say);
    say(Topic::Graph, graph_reason(pipeline, &facts));
    agent_reasons(&gang, &mut say);
    say(Topic::Limit, limit_reason(&gang, &facts));
    Ok(LaunchPlan {
        version: PLAN_VERSION,
        pipeline: pipeline.name().to_owned(),
        backend: cluster.backend.clone(),
        gangs: vec![gang],
        reasons,
    })
}

fn agents(cluster: &ClusterProfile) -> Vec<AgentPlan> {
    let agent = |(rank, node): (u32, &crate::NodeProfile)| AgentPlan {
        rank,
        node: node.name.clone(),
        resources: node.resources.clone(),
        workers: node.workers,
    };
    (0u32..).zip(&cluster.nodes).map(agent).collect()
}

fn gang_reasons(pipeline: &CheckedPipeline, cluster: &ClusterProfile, say: &mut impl FnMut(Topic, String)) {
    if pipeline.groups().is_empty() {
        say(
            Topic::Gangs,
            "one gang: no part of the graph asks for an allocation of its own".to_owned(),
        );
        return;
    }
    let backend = &cluster.backend;
    say(
        Topic::Gangs,
        format!("one gang: the {backend} backend has one allocation, so all groups share it"),
    );
    for (name, group) in pipeline.groups() {
        if let Some(wishes) = wishes(group) {
            say(
                Topic::Gangs,
                format!("group {name} asks for {wishes}; here it gets what the gang has"),
            );
        }
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
    format!(
        "{}: {chain}; up to {} at the same distance from the start",
        counted(tasks, "task"),
        facts.width
    )
}

fn agent_reasons(gang: &GangPlan, say: &mut impl FnMut(Topic, String)) {
    let agents = gang.agents.len() as u64;
    let workers: u64 = gang.agents.iter().map(|a| u64::from(a.workers)).sum();
    let text = format!(
        "{} with {}: one agent on every node of the profile",
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
