//! Resources: what a task asks for and what a node has. Owns amounts and their comparison; placement is plan's and schedule's.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Amounts of everything that a task can hold while it runs, or that an agent has to give.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Processor cores, in thousandths (1000 is one core), so that shares add up exactly.
    pub cpu_millis: u64,
    /// Host memory in bytes; 0 says "not counted".
    #[serde(default)]
    pub memory: u64,
    /// Whole GPUs.
    #[serde(default)]
    pub gpus: u32,
    /// Site-named resources (licences, burst buffers), whole units.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub named: BTreeMap<String, u64>,
}

impl Default for Resources {
    fn default() -> Self {
        Self {
            cpu_millis: 1000,
            memory: 0,
            gpus: 0,
            named: BTreeMap::new(),
        }
    }
}

impl Resources {
    /// Nothing at all.
    #[must_use]
    pub fn zero() -> Self {
        Self {
            cpu_millis: 0,
            memory: 0,
            gpus: 0,
            named: BTreeMap::new(),
        }
    }

    /// Whether `self` fits into `free`.
    #[must_use]
    pub fn fits(&self, free: &Self) -> bool {
        self.lacking(free).is_none()
    }

    /// The first resource that `free` lacks, as (name, asked, there).
    #[must_use]
    pub fn lacking(&self, free: &Self) -> Option<(String, u64, u64)> {
        if self.cpu_millis > free.cpu_millis {
            return Some(("cpu_millis".into(), self.cpu_millis, free.cpu_millis));
        }
        if self.memory > free.memory {
            return Some(("memory".into(), self.memory, free.memory));
        }
        if self.gpus > free.gpus {
            return Some(("gpus".into(), self.gpus.into(), free.gpus.into()));
        }
        self.named.iter().find_map(|(name, &asked)| {
            let there = free.named.get(name).copied().unwrap_or(0);
            (asked > there).then(|| (name.clone(), asked, there))
        })
    }
}
