//! The fabric over UCX: RDMA where the devices are, else shared memory or TCP, through libucp, which is opened at run time.
//!
//! Owns the run's use of libucp: one context and one worker an agent, endpoints, registered memory, and the messages by which peers
//! prove themselves and hand out memory keys (`docs/formats/data-frames.md`). Knows nothing of objects. Lives in the agent's process
//! only, and sets UCX up by calls, never through the environment, so that nothing of it reaches the user's processes.
//! Hot paths: `drive::Shared::turn`, `core::Core::post`, `worker::Worker`.
//!
//! Reads and writes are UCX's one-sided gets and puts, with memory keys that the owner of a region hands to a peer once, when that first asks
//! for it, and takes back before a region is deregistered. What UCX itself does not protect is said in
//! `docs/decisions/0011-ucx.md`.

mod codec;
mod context;
mod core;
mod drive;
mod fabric;
mod options;
mod peer;
mod regions;
mod session;
mod staging;
mod worker;

pub use context::{Device, Found, probe};
pub use fabric::{CannotStart, UcxFabric};
pub use options::Options;
