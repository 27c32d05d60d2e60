//! Plans a checked pipeline on a cluster profile, purely: which gangs are launched, of which agents, and why; and what the ranks
//! of an MPI gang are bound to on a node. Owns the launch plan and its two forms, for programs and for people, and the rules of
//! binding. No clock, no I/O: the same input gives the same bytes.

pub mod binding;
mod document;
mod facts;
mod fit;
mod gangs;
mod human;
mod planner;
mod profile;

pub use document::{AgentPlan, GangPlan, LaunchPlan, PLAN_VERSION, PlanReadError, Reason, Topic};
pub use fit::PlanError;
pub use planner::plan;
pub use profile::{ClusterProfile, NodeProfile};
