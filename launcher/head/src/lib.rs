//! The head: drives one run. Owns the journal, phases, retries, the control service for clients and agents, status and
//! trace. It moves references, never data, and knows no scheduler outside the allocation.

mod allocation;
mod connection;
mod core;
mod functions;
mod gang;
pub mod journal;
pub mod mailbox;
mod objects;
mod run;
mod server;
mod silence;
pub mod state;
mod status;
mod syncer;
pub mod tls;
mod trace;

pub use allocation::Allocation;
pub use run::{AgentLink, HeadError, HeadOptions, RunOutcome, run};
