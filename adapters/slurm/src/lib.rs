//! Slurm as a backend: one homogeneous batch job a gang, handed over by slurmrestd or by sbatch.
//!
//! The core is pure: options (`options`) and a launch request become a [`SlurmJob`] (`job`), which becomes a script
//! (`script`) or a body for REST (`body`); answers become records (`record`, read by `from_json` and `from_text`), sentences
//! (`why`) and findings (`lint`). The shell is thin: two doors (`rest`, `commands`) behind one port (`door`), the choice between
//! them (`connect`), and [`Slurm`], which submits without ever making a job twice. It knows nothing of stores or Python.

mod body;
mod commands;
mod connect;
mod door;
#[cfg(test)]
mod fixtures;
mod from_json;
mod from_text;
mod job;
mod lint;
mod native;
mod options;
mod record;
mod rest;
mod script;
mod slurm;
mod surroundings;
mod token;
mod waiter;
mod why;

pub use body::{Version, shown, submission};
pub use job::{Container, Gpus, SlurmJob, comment};
pub use lint::{Cluster, Lint, lint};
pub use options::{Array, ContainerTool, DoorKind, GpuForm, OptionError, SlurmOptions};
pub use record::{Exit, JobRecord, Node, Partition, speaks_for};
pub use script::{for_rest, for_sbatch};
pub use slurm::{Slurm, SlurmManifest};
pub use surroundings::Surroundings;
pub use why::sentence;

/// The backend's name, as users write it.
pub const NAME: &str = "slurm";
