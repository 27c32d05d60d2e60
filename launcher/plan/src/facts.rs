//! What the graph is like: chains, width, and how much it asks for in all. Owns the counting.
//! Hot path: linear in tasks and edges; a plan of a million tasks must not be felt.

use bridgehead_spec::{CallSpec, CheckedPipeline, Resources, TaskId};
use std::collections::BTreeMap;

/// Totals are in 128 bits, since a million tasks may ask for as many bytes as 64 bits can count.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub programs: u64,
    pub critical_path: u64,
    /// First and last task of the longest chain.
    pub critical_ends: Option<(TaskId, TaskId)>,
    pub width: u64,
    pub cpu_millis: u128,
    pub memory: u128,
    pub gpus: u128,
    pub named: BTreeMap<String, u128>,
}

pub(crate) fn facts(pipeline: &CheckedPipeline) -> Facts {
    let mut facts = Facts::default();
    for task in pipeline.tasks() {
        facts.programs += u64::from(matches!(task.call, CallSpec::Program(_)));
        facts.add(&task.resources);
    }
    facts.measure(pipeline);
    facts
}

impl Facts {
    fn add(&mut self, r: &Resources) {
        self.cpu_millis += u128::from(r.cpu_millis);
        self.memory += u128::from(r.memory);
        self.gpus += u128::from(r.gpus);
        for (name, &amount) in &r.named {
            // Few names over many tasks: the key is copied once.
            match self.named.get_mut(name) {
                Some(sum) => *sum += u128::from(amount),
                None => _ = self.named.insert(name.clone(), amount.into()),
            }
        }
    }

    /// Distances from the start along the longest way, and where such a way begins.
    fn measure(&mut self, pipeline: &CheckedPipeline) {
        let tasks = pipeline.tasks();
        let mut depth = vec![0u32; tasks.len()];
        let mut first: Vec<u32> = (0u32..).take(tasks.len()).collect();
        let mut levels: Vec<u64> = Vec::new();
        let mut deepest = None;
        // Positions fit: the pipeline has been checked.
        let at = |id: TaskId| usize::try_from(id.0).unwrap_or(usize::MAX);
        for &id in pipeline.topological_order() {
            let task = at(id);
            for need in tasks[task].needs().map(at) {
                if depth[need] + 1 > depth[task] {
                    depth[task] = depth[need] + 1;
                    first[task] = first[need];
                }
            }
            let level = depth[task] as usize;
            if level == levels.len() {
                levels.push(0);
                deepest = Some((TaskId(first[task].into()), id));
            }
            levels[level] += 1;
        }
        self.critical_path = levels.len() as u64;
        self.critical_ends = deepest;
        self.width = levels.into_iter().max().unwrap_or(0);
    }
}
