//! The port to a scheduler: render purely, submit, observe many jobs at once, cancel. Owns the words that all schedulers
//! share, a fake scheduler for tests and the suite that every implementation must pass.

pub mod conformance;
mod fake;

pub use fake::Fake;

use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thiserror::Error;

/// What is to be launched: one gang, all of it or nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRequest {
    /// The run folder, on a file system that this machine and the gang share.
    pub run_dir: PathBuf,
    /// The program that is head and agent (`bridgehead`).
    pub program: PathBuf,
    /// Agents, one a node; the first one carries the head.
    pub agents: u32,
}

/// What is handed to the scheduler: one command line an agent, by rank.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this document; 1.
    pub version: u32,
    /// The run folder.
    pub run_dir: PathBuf,
    /// Program and arguments of each rank.
    pub ranks: Vec<Vec<String>>,
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
    /// Its name, as users write it.
    fn name(&self) -> &'static str;

    /// Turns a request into what the scheduler takes. Pure: same request, same manifest.
    ///
    /// # Errors
    /// The request cannot be met, with the way out.
    fn render(&self, request: &LaunchRequest) -> Result<Manifest, BackendError>;

    /// Hands a manifest over.
    ///
    /// # Errors
    /// The scheduler refused; nothing was left behind.
    fn submit(&self, manifest: &Manifest) -> Result<JobRef, BackendError>;

    /// Where `jobs` stand, in their order, with one question to the scheduler.
    ///
    /// # Errors
    /// The scheduler cannot be asked.
    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobState>, BackendError>;

    /// Ends a job. A job that has ended already is no error.
    ///
    /// # Errors
    /// The scheduler refused.
    fn cancel(&self, job: &JobRef) -> Result<(), BackendError>;
}
