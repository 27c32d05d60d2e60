//! The words of Bridgehead: ids, resources and the pipeline specification, parsed once into checked types.
//! Owns no policy, no I/O and no clock.

mod check;
mod error;
mod graph;
mod ids;
mod pipeline;
mod ranks;
mod resources;
mod retry;
mod run;
mod units;

pub use check::CheckedPipeline;
pub use error::SpecError;
pub use ids::{AgentId, Attempt, Digest, ObjectId, RunId, TaskId, WorkerId};
pub use pipeline::{
    CallSpec, EnvironmentSpec, FunctionSpec, GroupSpec, PIPELINE_VERSION, PersistSpec, PipelineSpec, ProgramSpec,
    TaskSpec,
};
pub use ranks::{LauncherSpec, MAX_RANKS, MapSpec, MpiSpec, RanksSpec, ReturnsSpec};
pub use resources::Resources;
pub use retry::{Cause, Retries};
pub use run::{
    AgentConfig, HeadInfo, RunConfig, RunFolder, TargetConfig, TransportChoice, TransportConfig, running_note,
};
pub use units::{UnitError, format_memory, parse_duration, parse_memory};
