//! What the graph is like: chains, width, and how much it asks for in all. Owns the counting.
//! Hot path: linear in tasks and edges; a plan of a million tasks must not be felt.

use bridgehead_spec::{CallSpec, CheckedPipeline, Resources, TaskId};
use std::collections::BTreeMap;

/// Totals are in 128 bits, since a million tasks may ask for as many bytes as 64 bits can count.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub programs: u64,
    /// Tasks that several ranks run, and the most ranks that one of them needs.
    pub gangs: u64,
    pub widest: u32,
    pub critical_path: u64,
    /// First and last task of the longest chain.
    pub critical_ends: Option<(TaskId, TaskId)>,
    pub width: u64,
    pub cpu_millis: u128,
    pub memory: u128,
    pub gpus: u128,
    pub named: BTreeMap<String, u128>,
}

/// Facts of parts of one graph.
pub(crate) struct Measure<'a> {
    pipeline: &'a CheckedPipeline,
    /// By task: its part, once it was measured.
    part: Vec<u32>,
    parts: u32,
    /// By task: its distance from its part's start, and where the longest way to it begins.
    depth: Vec<u32>,
    first: Vec<u32>,
}

impl<'a> Measure<'a> {
    pub(crate) fn new(pipeline: &'a CheckedPipeline) -> Self {
        let tasks = pipeline.tasks().len();
        Self {
            pipeline,
            part: vec![0; tasks],
            parts: 0,
            depth: vec![0; tasks],
            first: vec![0; tasks],
        }
    }

    /// What the part that consists of `tasks` is like, each of which comes after those that it needs.
    pub(crate) fn facts(&mut self, tasks: &[TaskId]) -> Facts {
        let mut facts = Facts::default();
        for &id in tasks {
            let task = &self.pipeline.tasks()[at(id)];
            facts.programs += u64::from(matches!(task.call, CallSpec::Program(_)));
            if let Some(ranks) = task.ranks {
                facts.gangs += 1;
                facts.widest = facts.widest.max(ranks.least);
            }
            // What a gang takes at least, however many ranks more are free when it starts.
            facts.add(&task.resources, task.ranks.map_or(1, |ranks| ranks.least));
        }
        self.measure(tasks, &mut facts);
        facts
    }

    /// Distances from the start along the longest way, and where such a way begins.
    fn measure(&mut self, part: &[TaskId], facts: &mut Facts) {
        let mut levels: Vec<u64> = Vec::new();
        let mut deepest = None;
        self.parts += 1;
        for &id in part {
            let task = at(id);
            self.part[task] = self.parts;
            self.depth[task] = 0;
            self.first[task] = u32::try_from(task).unwrap_or(u32::MAX);
            for need in self.pipeline.tasks()[task].needs().map(at) {
                if self.part[need] == self.parts && self.depth[need] + 1 > self.depth[task] {
                    self.depth[task] = self.depth[need] + 1;
                    self.first[task] = self.first[need];
                }
            }
            let level = self.depth[task] as usize;
            if level == levels.len() {
                levels.push(0);
                deepest = Some((TaskId(self.first[task].into()), id));
            }
            levels[level] += 1;
        }
        facts.critical_path = levels.len() as u64;
        facts.critical_ends = deepest;
        facts.width = levels.into_iter().max().unwrap_or(0);
    }
}

/// Positions fit: the pipeline has been checked.
fn at(id: TaskId) -> usize {
    usize::try_from(id.0).unwrap_or(usize::MAX)
}

impl Facts {
    /// Counts a request `times` over.
    fn add(&mut self, r: &Resources, times: u32) {
        let times = u128::from(times);
        self.cpu_millis += times * u128::from(r.cpu_millis);
        self.memory += times * u128::from(r.memory);
        self.gpus += times * u128::from(r.gpus);
        for (name, &amount) in &r.named {
            // Few names over many tasks: the key is copied once.
            match self.named.get_mut(name) {
                Some(sum) => *sum += times * u128::from(amount),
                None => _ = self.named.insert(name.clone(), times * u128::from(amount)),
            }
        }
    }
}
