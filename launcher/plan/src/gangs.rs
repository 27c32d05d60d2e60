//! Where the graph is cut into gangs: a gang is one allocation, and groups that ask for another one get it. Owns the cut and the
//! nodes of each gang. Hot path: linear in tasks and edges.

use crate::profile::{ClusterProfile, NodeProfile};
use bridgehead_spec::{CheckedPipeline, GroupSpec, TaskId};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// Tasks that run in one allocation.
#[derive(Debug)]
pub(crate) struct Cut<'a> {
    /// The group whose allocation it is; `None` is the run's own.
    pub group: Option<&'a str>,
    /// Its tasks, each after those that it needs.
    pub tasks: Vec<TaskId>,
}

/// What a group asks for, if its tasks need an allocation of their own: the local backend has one machine for all.
pub(crate) fn own<'a>(pipeline: &'a CheckedPipeline, cluster: &ClusterProfile, group: &str) -> Option<&'a GroupSpec> {
    let spec = pipeline.groups().get(group)?;
    (cluster.backend != "local" && *spec != GroupSpec::default()).then_some(spec)
}

/// The nodes that the tasks of `group` run on.
pub(crate) fn nodes<'a>(
    pipeline: &CheckedPipeline,
    cluster: &'a ClusterProfile,
    group: Option<&str>,
) -> Cow<'a, [NodeProfile]> {
    match group.and_then(|group| own(pipeline, cluster, group)) {
        Some(group) => Cow::Owned(group_nodes(group, cluster)),
        None => Cow::Borrowed(&cluster.nodes),
    }
}

/// Nodes like those of the profile, as many and with as many GPUs as the group asks for.
fn group_nodes(group: &GroupSpec, cluster: &ClusterProfile) -> Vec<NodeProfile> {
    let Some(last) = cluster.nodes.last() else {
        return Vec::new();
    };
    let count = group.nodes.map_or(cluster.nodes.len(), |n| n as usize);
    let node = |rank: usize| {
        let like = cluster.nodes.get(rank);
        let mut node = like.unwrap_or(last).clone();
        if like.is_none() {
            node.name = format!("{}-{rank}", cluster.backend);
        }
        node.resources.gpus = group.gpus.unwrap_or(node.resources.gpus);
        node
    };
    (0..count).map(node).collect()
}

/// Cuts the graph: a task's stage is how often the allocation changes on the way to it, where it changes most often. Tasks of one
/// stage and one group are a gang; gangs are ordered by stage, the run's own before those of groups.
pub(crate) fn cut<'a>(pipeline: &'a CheckedPipeline, cluster: &ClusterProfile) -> Vec<Cut<'a>> {
    let tasks = pipeline.tasks();
    let owners: BTreeSet<&str> = (pipeline.groups().keys().map(String::as_str))
        .filter(|group| own(pipeline, cluster, group).is_some())
        .collect();
    if owners.is_empty() {
        let tasks = pipeline.topological_order().to_vec();
        return vec![Cut { group: None, tasks }];
    }
    let group = |at: usize| tasks[at].group.as_deref().filter(|group| owners.contains(group));
    let mut stage = vec![0u32; tasks.len()];
    let mut gangs: BTreeMap<(u32, Option<&str>), Vec<TaskId>> = BTreeMap::new();
    // Positions fit: the pipeline has been checked.
    let at = |id: TaskId| usize::try_from(id.0).unwrap_or(usize::MAX);
    for &id in pipeline.topological_order() {
        let task = at(id);
        let stages = tasks[task].needs().map(at);
        let stages = stages.map(|need| stage[need] + u32::from(group(need) != group(task)));
        stage[task] = stages.max().unwrap_or(0);
        gangs.entry((stage[task], group(task))).or_default().push(id);
    }
    if gangs.is_empty() {
        gangs.insert((0, None), Vec::new()); // Tasks may be added to it.
    }
    let cuts = gangs.into_iter();
    cuts.map(|((_, group), tasks)| Cut { group, tasks }).collect()
}

/// `tasks` as the first and last id of each stretch.
pub(crate) fn ranges(tasks: &[TaskId]) -> Vec<[TaskId; 2]> {
    let mut ids: Vec<u64> = tasks.iter().map(|id| id.0).collect();
    ids.sort_unstable();
    let stretches = ids.chunk_by(|a, b| a + 1 == *b);
    stretches
        .map(|ids| [TaskId(ids[0]), TaskId(ids[ids.len() - 1])])
        .collect()
}
