//! The launch plan as it is written down: `plan.json`, version 1 (`docs/formats/launch-plan.md`). Owns the document's types,
//! its canonical text and its reader.

use bridgehead_spec::{Resources, TaskId};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The version that this program writes, and the newest that it reads.
pub const PLAN_VERSION: u32 = 1;

/// What is launched for a pipeline, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchPlan {
    /// Version of this document.
    pub version: u32,
    /// The pipeline's name.
    pub pipeline: String,
    /// The backend that the plan is for.
    pub backend: String,
    /// Gangs; each is one allocation that arrives whole or not at all.
    pub gangs: Vec<GangPlan>,
    /// Why the plan is what it is, in the order in which it was decided.
    pub reasons: Vec<Reason>,
}

/// Agents that are launched together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GangPlan {
    /// Its number, from 0.
    pub id: u32,
    /// Its agents, by rank; the first carries the head.
    pub agents: Vec<AgentPlan>,
    /// The pipeline's groups that run in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The partition or queue that its group asks for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// Gangs that have to be over before it may start: it takes what they made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<u32>,
    /// Tasks that it runs.
    pub tasks: u64,
    /// Their ids, as the first and last of each stretch; left out where one gang runs all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ranges: Vec<[TaskId; 2]>,
    /// Those that are programs; the others are Python functions.
    pub programs: u64,
    /// Tasks on the longest chain, each of which waits for the one before it.
    pub critical_path: u64,
    /// The last task of that chain; none without tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub critical_end: Option<TaskId>,
    /// Tasks at the most crowded distance from the start: how many can run at once where all take equally long.
    pub width: u64,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentPlan {
    /// Its rank in the gang.
    pub rank: u32,
    /// The node of the profile that it stands for.
    pub node: String,
    /// What it may give to tasks.
    pub resources: Resources,
    /// Python workers.
    pub workers: u32,
}

/// What a reason is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Topic {
    /// Why so many gangs.
    Gangs,
    /// Why so many agents.
    Agents,
    /// The shape of the graph.
    Graph,
    /// What the run will wait for most.
    Limit,
}

/// One sentence of explanation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reason {
    /// What it is about.
    pub about: Topic,
    /// For people.
    pub text: String,
}

/// Why a text is no launch plan.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlanReadError {
    /// Not the JSON that it should be.
    #[error("the launch plan is not valid: {0}; plan again from spec.json")]
    Json(String),
    /// Written by another version.
    #[error(
        "the launch plan has version {found}, this bridgehead reads version {PLAN_VERSION}: use the bridgehead that wrote it"
    )]
    Version {
        /// Its version.
        found: u64,
    },
}

impl LaunchPlan {
    /// The gang that runs a task of the pipeline; `None` for an id that the plan does not know.
    #[must_use]
    pub fn gang_of(&self, task: TaskId) -> Option<u32> {
        if let [gang] = self.gangs.as_slice() {
            return Some(gang.id);
        }
        let has = |gang: &&GangPlan| {
            let at = gang.ranges.partition_point(|[_, last]| *last < task);
            gang.ranges.get(at).is_some_and(|[first, _]| *first <= task)
        };
        self.gangs.iter().find(has).map(|gang| gang.id)
    }

    /// The canonical text: one line, keys in a fixed order.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        serde_json::to_string(self).expect("plain data can be written")
    }

    /// Reads `plan.json`.
    ///
    /// # Errors
    /// Another version, or not a plan.
    pub fn parse(bytes: &[u8]) -> Result<Self, PlanReadError> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let bad = |e: serde_json::Error| PlanReadError::Json(e.to_string());
        let Version { version: found } = serde_json::from_slice(bytes).map_err(bad)?;
        if found != u64::from(PLAN_VERSION) {
            return Err(PlanReadError::Version { found });
        }
        serde_json::from_slice(bytes).map_err(bad)
    }
}
