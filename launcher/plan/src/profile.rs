//! What there is to plan on: a backend and its nodes. Owns the words only; who measured them is the caller's business.

use bridgehead_spec::Resources;
use serde::{Deserialize, Serialize};

/// What there is to plan on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterProfile {
    /// The backend's name, as users write it: `local`.
    pub backend: String,
    /// The nodes to be used, one agent each, by rank.
    pub nodes: Vec<NodeProfile>,
}

/// One node, or on this machine one agent's share of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeProfile {
    /// Its name, for people.
    pub name: String,
    /// What its agent may give to tasks.
    pub resources: Resources,
    /// Python workers that the agent keeps; each runs one function at a time.
    pub workers: u32,
}
