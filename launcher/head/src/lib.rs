//! The head: drives one run. Owns the journal, phases, retries, the control service for clients and agents, status and
//! trace. It moves references, never data, and knows no scheduler outside the allocation.

pub mod journal;
pub mod state;
pub mod tls;
