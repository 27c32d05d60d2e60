//! The words of Bridgehead: ids, resources and the pipeline specification, parsed once into checked types.
//! Owns no policy, no I/O and no clock.

mod check;
mod ids;
mod pipeline;
mod resources;
mod run;

pub use check::{CheckedPipeline, SpecError};
pub use ids::{AgentId, Attempt, Digest, ObjectId, RunId, TaskId, WorkerId};
pub use pipeline::{
    CallSpec, EnvironmentSpec, FunctionSpec, GroupSpec, PIPELINE_VERSION, PersistSpec, PipelineSpec, ProgramSpec,
    Retries, TaskSpec,
};
pub use resources::Resources;
pub use run::{AgentConfig, HeadInfo, RunConfig, RunFolder};
