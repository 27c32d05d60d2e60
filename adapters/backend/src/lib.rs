//! The port to a scheduler: render purely, submit, observe many jobs at once, cancel. Owns the words that all schedulers
//! share, the ledger of a run's jobs, a fake scheduler for tests and the suite that every implementation must pass.

pub mod conformance;
mod fake;
pub mod ledger;

pub use fake::Fake;

use bridgehead_spec::RunId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use thiserror::Error;

/// What is to be launched: one gang, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRequest {
    /// The run.
    pub run: RunId,
    /// The run folder, on a file system that this machine and the gang share.
    pub run_dir: PathBuf,
    /// The program that is head and agent (`bridgehead`).
    pub program: PathBuf,
    /// Which launch of the run this is, from 1; with the run it names the job, so that one is never submitted twice.
    pub launch: u32,
    /// The gang of the launch plan.
    pub gang: u32,
    /// Agents, one a node; the first one carries the head.
    pub agents: u32,
    /// Jobs that have to be over before this one may start.
    pub after: Vec<JobRef>,
    /// Variables of the processes. Never a secret.
    pub env: BTreeMap<String, String>,
}

impl LaunchRequest {
    /// The first launch of a run of one gang.
    #[must_use]
    pub fn first(run: RunId, run_dir: PathBuf, program: PathBuf, agents: u32) -> Self {
        Self {
            run,
            run_dir,
            program,
            launch: 1,
            gang: 0,
            agents,
            after: Vec::new(),
            env: BTreeMap::new(),
        }
    }

    /// What names the job at its scheduler: the same for every try to submit it, and for no other job.
    #[must_use]
    pub fn key(&self) -> String {
        format!("{}/{}", self.run, self.launch)
    }
}

/// A job at its scheduler. Opaque text, safe to write down; only its own backend reads it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct JobRef(pub String);

/// Where a job stands at its scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Queued.
    Pending,
    /// Whole and at work.
    Running,
    /// Over, however it ended; the run folder tells how.
    Ended,
    /// The scheduler does not know it (any more).
    Unknown,
}

/// What a scheduler says of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobReport {
    /// Where it stands.
    pub state: JobState,
    /// The scheduler's own word for that, `NODE_FAIL` for instance; empty where it has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub word: String,
    /// Why it waits or how it ended, as a sentence with the way out; empty where there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Nodes that it has, in the scheduler's own form.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub nodes: String,
}

impl JobReport {
    /// A report that says no more than the state.
    #[must_use]
    pub fn of(state: JobState) -> Self {
        Self {
            state,
            word: String::new(),
            reason: String::new(),
            nodes: String::new(),
        }
    }
}

/// Why a scheduler did not do what it was asked.
#[derive(Debug, Error)]
pub enum BackendError {
    /// The request cannot be rendered.
    #[error("cannot launch on {backend}: {reason}")]
    Unfit {
        /// The backend's name.
        backend: &'static str,
        /// The reason and the way out.
        reason: String,
    },
    /// The scheduler cannot be reached, or did not answer in time; whether it did what it was asked is not known.
    #[error("{backend} cannot be reached to {doing}: {reason}")]
    Unreachable {
        /// The backend's name.
        backend: &'static str,
        /// The verb.
        doing: &'static str,
        /// The reason and the way out.
        reason: String,
    },
    /// The scheduler does not accept who asks.
    #[error("{backend} does not let you {doing}: {reason}")]
    Denied {
        /// The backend's name.
        backend: &'static str,
        /// The verb.
        doing: &'static str,
        /// The reason and the way out.
        reason: String,
    },
    /// The scheduler or the system refused.
    #[error("{backend} cannot {doing}: {reason}")]
    Refused {
        /// The backend's name.
        backend: &'static str,
        /// The verb.
        doing: &'static str,
        /// The reason.
        reason: String,
    },
}

/// A scheduler.
pub trait Backend {
    /// What is handed to the scheduler, complete: the same text for the same request.
    type Manifest: Clone + PartialEq + std::fmt::Debug;

    /// Its name, as users write it.
    fn name(&self) -> &'static str;

    /// Turns a request into what the scheduler takes. Pure: same request, same manifest.
    ///
    /// # Errors
    /// The request cannot be met, with the way out.
    fn render(&self, request: &LaunchRequest) -> Result<Self::Manifest, BackendError>;

    /// Hands a manifest over. One whose job is at the scheduler already, because an answer was lost, is not submitted again.
    ///
    /// # Errors
    /// The scheduler refused, and nothing was left behind; or it cannot be reached.
    fn submit(&self, manifest: &Self::Manifest) -> Result<JobRef, BackendError>;

    /// Where `jobs` stand, in their order, with one question to the scheduler.
    ///
    /// # Errors
    /// The scheduler cannot be asked.
    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError>;

    /// Ends a job. A job that has ended already is no error.
    ///
    /// # Errors
    /// The scheduler refused.
    fn cancel(&self, job: &JobRef) -> Result<(), BackendError>;
}
