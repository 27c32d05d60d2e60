//! What a task asks for, prepared once and cloned into each submit.

use bridgehead_spec::RanksSpec;
use bridgehead_wire::{Amounts, NamedAmount, Pair, ProgramCall, Ranks, Retry, TaskSubmit};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::collections::BTreeMap;

/// Options of a task, as they travel.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
#[derive(Debug, Clone)]
pub struct Options {
    resources: Option<Amounts>,
    retry: Option<Retry>,
    priority: i32,
    timeout_ms: u64,
    name: String,
    program: Option<ProgramCall>,
    ranks: Option<Ranks>,
}

type ProgramFields = (Vec<String>, BTreeMap<String, String>, String, BTreeMap<String, String>);

fn pairs(map: BTreeMap<String, String>) -> Vec<Pair> {
    map.into_iter().map(|(key, value)| Pair { key, value }).collect()
}

#[pymethods]
impl Options {
    #[new]
    #[pyo3(signature = (*, cpu_millis, memory, gpus, named, retries, priority, timeout_ms, name, program=None, ranks=None))]
    #[allow(clippy::too_many_arguments)] // One call site, all by name.
    fn new(
        cpu_millis: u64,
        memory: u64,
        gpus: u32,
        named: BTreeMap<String, u64>,
        retries: (u32, u32, u32, u32, u32),
        priority: i32,
        timeout_ms: u64,
        name: String,
        program: Option<ProgramFields>,
        ranks: Option<&str>,
    ) -> PyResult<Self> {
        let ranks = ranks.map(serde_json::from_str::<RanksSpec>).transpose();
        let ranks = ranks.map_err(|error| PyValueError::new_err(error.to_string()))?;
        let named = named
            .into_iter()
            .map(|(key, value)| NamedAmount { key, value })
            .collect();
        let amounts = Amounts {
            cpu_millis,
            memory,
            gpus,
            named,
        };
        let usual = Amounts {
            cpu_millis: 1000,
            ..Amounts::default()
        };
        let (lost_node, preempted, walltime, oom, user) = retries;
        Ok(Self {
            ranks: ranks.as_ref().map(Ranks::from),
            resources: (amounts != usual).then_some(amounts),
            retry: Some(Retry {
                lost_node,
                preempted,
                walltime,
                oom,
                user,
            }),
            priority,
            timeout_ms,
            name,
            program: program.map(|(argv, env, cwd, outputs)| ProgramCall {
                argv,
                env: pairs(env),
                cwd,
                outputs: pairs(outputs),
            }),
        })
    }
}

impl Options {
    /// Writes them into a submit.
    pub fn apply(&self, submit: &mut TaskSubmit) {
        submit.resources.clone_from(&self.resources);
        submit.retry = self.retry;
        submit.priority = self.priority;
        submit.timeout_ms = self.timeout_ms;
        submit.name.clone_from(&self.name);
        submit.program.clone_from(&self.program);
        submit.ranks = self.ranks;
    }
}
