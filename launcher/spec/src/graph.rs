//! The graph between tasks: an order in which each comes after those it needs, and who needs whom. Owns the one cycle check.
//! Hot path: everything here is linear in tasks and edges and iterative, because a pipeline may be a million tasks deep.

use crate::TaskId;
use crate::error::SpecError;
use crate::pipeline::{PipelineSpec, TaskSpec};

/// Order and reversed edges; 4 bytes an edge, 12 a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Graph {
    pub order: Vec<TaskId>,
    /// Where each task's consumers begin in `consumers`; one more entry than tasks.
    starts: Vec<u32>,
    consumers: Vec<u32>,
}

impl Graph {
    /// Builds the graph. All ids that tasks name have been checked to be positions.
    pub(crate) fn build(spec: &PipelineSpec) -> Result<Self, SpecError> {
        let edges: usize = spec.tasks.iter().map(|t| t.inputs.len() + t.after.len()).sum();
        if u32::try_from(edges.max(spec.tasks.len())).is_err() {
            return Err(SpecError::Pipeline {
                name: spec.name.clone(),
                reason: format!(
                    "{} tasks with {edges} dependencies are more than 4 billion; cut it up",
                    spec.tasks.len()
                ),
            });
        }
        let (mut open, starts, consumers) = reverse(&spec.tasks);
        let mut graph = Self {
            order: Vec::new(),
            starts,
            consumers,
        };
        let order = graph.sort(&mut open);
        if order.len() < spec.tasks.len() {
            return Err(SpecError::Cycle(find_cycle(&spec.tasks, &open)));
        }
        graph.order = order.into_iter().map(|i| TaskId(i.into())).collect();
        Ok(graph)
    }

    /// The tasks that need the task at `position`, each once, by id.
    pub(crate) fn consumers(&self, position: usize) -> &[u32] {
        let end = |at: usize| {
            self.starts
                .get(at)
                .map_or(self.consumers.len(), |&start| start as usize)
        };
        &self.consumers[end(position)..end(position + 1)]
    }

    /// Kahn's algorithm; what it does not reach keeps a count above 0 in `open`.
    fn sort(&self, open: &mut [u32]) -> Vec<u32> {
        let mut order: Vec<u32> = (0u32..)
            .zip(open.iter())
            .filter(|&(_, &n)| n == 0)
            .map(|(i, _)| i)
            .collect();
        order.reserve_exact(open.len() - order.len());
        let mut at = 0;
        while let Some(&done) = order.get(at) {
            for &consumer in self.consumers(done as usize) {
                let left = &mut open[consumer as usize];
                *left -= 1;
                if *left == 0 {
                    order.push(consumer);
                }
            }
            at += 1;
        }
        order
    }
}

fn positions(task: &TaskSpec) -> impl Iterator<Item = usize> {
    task.needs().filter_map(|id| usize::try_from(id.0).ok())
}

/// For each task the number of tasks that it needs (each counted once), and the edges turned around.
fn reverse(tasks: &[TaskSpec]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut open = vec![0u32; tasks.len()];
    let mut starts = vec![0u32; tasks.len() + 1];
    each_edge(tasks, |consumer, need| {
        open[consumer] += 1;
        starts[need + 1] += 1;
    });
    for i in 1..starts.len() {
        starts[i] += starts[i - 1];
    }
    let mut next = starts.clone();
    let mut consumers = vec![0u32; starts.last().map_or(0, |&n| n as usize)];
    each_edge(tasks, |consumer, need| {
        // The number of tasks was compared with u32 before.
        consumers[next[need] as usize] = u32::try_from(consumer).unwrap_or(u32::MAX);
        next[need] += 1;
    });
    (open, starts, consumers)
}

/// Calls `f(consumer, need)` for every pair, once each though a task may name another several times.
fn each_edge(tasks: &[TaskSpec], mut f: impl FnMut(usize, usize)) {
    let mut seen = vec![usize::MAX; tasks.len()];
    for (consumer, task) in tasks.iter().enumerate() {
        for need in positions(task) {
            if std::mem::replace(&mut seen[need], consumer) != consumer {
                f(consumer, need);
            }
        }
    }
}

/// Walks from a task that cannot start to one that it waits for, until a task comes again.
fn find_cycle(tasks: &[TaskSpec], open: &[u32]) -> Vec<(TaskId, String)> {
    let mut seen = vec![usize::MAX; tasks.len()];
    let mut walk = Vec::new();
    let mut at = open.iter().position(|&n| n > 0).unwrap_or(0);
    while seen[at] == usize::MAX {
        seen[at] = walk.len();
        walk.push(at);
        // A task that waits has at least one need that waits, or it would have been released.
        at = positions(&tasks[at]).find(|&need| open[need] > 0).unwrap_or(at);
    }
    let mut cycle = walk.split_off(seen[at]);
    cycle.reverse(); // The order in which results would flow.
    let lowest = cycle
        .iter()
        .enumerate()
        .min_by_key(|(_, i)| **i)
        .map_or(0, |(at, _)| at);
    cycle.rotate_left(lowest);
    cycle.iter().map(|&i| (tasks[i].id, tasks[i].name.clone())).collect()
}
