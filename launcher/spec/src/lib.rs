//! The words of Bridgehead: ids, resources and the pipeline specification, parsed once into checked types.
//! Owns no policy, no I/O and no clock.

mod ids;
mod resources;
mod run;

pub use ids::{AgentId, Attempt, Digest, ObjectId, RunId, TaskId, WorkerId};
pub use resources::Resources;
pub use run::{AgentConfig, HeadInfo, RunConfig, RunFolder};
