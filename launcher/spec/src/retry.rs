//! Retries: how often a task may be tried again, counted by whose fault the failure was. Owns the causes and the default
//! counts; what happened and what is left is the head's.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why an attempt was lost. Only the last is the user's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Cause {
    /// The node, its agent or the worker went away.
    #[serde(rename = "lost_node")]
    LostNode,
    /// The cluster's scheduler took the allocation back.
    #[serde(rename = "preempted")]
    Preempted,
    /// A time limit, the task's or the allocation's.
    #[serde(rename = "walltime")]
    Walltime,
    /// The task needed more memory than there was.
    #[serde(rename = "oom")]
    OutOfMemory,
    /// The task's own code failed.
    #[serde(rename = "user")]
    User,
}

impl Cause {
    /// All causes, in the order of [`Retries`].
    pub const ALL: [Self; 5] = [
        Self::LostNode,
        Self::Preempted,
        Self::Walltime,
        Self::OutOfMemory,
        Self::User,
    ];

    /// The name of its count in [`Retries`].
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LostNode => "lost_node",
            Self::Preempted => "preempted",
            Self::Walltime => "walltime",
            Self::OutOfMemory => "oom",
            Self::User => "user",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How often a task may be tried again after its first attempt, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// After its node, agent or worker was lost.
    pub lost_node: u32,
    /// After a preemption.
    pub preempted: u32,
    /// After a time limit.
    pub walltime: u32,
    /// After running out of memory.
    pub oom: u32,
    /// After an error of its own.
    pub user: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            lost_node: 3,
            preempted: 3,
            walltime: 0,
            oom: 0,
            user: 0,
        }
    }
}

impl Retries {
    /// How often an attempt lost to `cause` may be made good.
    #[must_use]
    pub fn of(&self, cause: Cause) -> u32 {
        match cause {
            Cause::LostNode => self.lost_node,
            Cause::Preempted => self.preempted,
            Cause::Walltime => self.walltime,
            Cause::OutOfMemory => self.oom,
            Cause::User => self.user,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_names_its_own_count() {
        for (n, cause) in (1..).zip(Cause::ALL) {
            let text = format!("{{\"{cause}\":{n}}}");
            let retries: Retries = serde_json::from_str(&text).unwrap();
            assert_eq!(retries.of(cause), n);
            assert_eq!(serde_json::to_string(&cause).unwrap(), format!("\"{cause}\""));
        }
    }
}
