//! The head: drives one run. Owns the journal, phases, retries, the control service for clients and agents, status and
//! trace. It moves references, never data, and knows no scheduler outside the allocation.

mod allocation;
mod connection;
mod core;
mod functions;
mod gang;
pub mod journal;
mod listen;
pub mod mailbox;
mod names;
mod objects;
mod options;
mod run;
mod server;
mod silence;
pub mod state;
mod status;
mod syncer;
pub mod tls;
mod trace;

pub use allocation::Allocation;
pub use options::{AgentLink, HeadError, HeadOptions, RunOutcome};
pub use run::run;
