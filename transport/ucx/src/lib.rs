//! The fabric over UCX: RDMA where the devices are, else shared memory or TCP, through libucp, which is opened at run time.
//!
//! Owns the run's use of libucp: one context and one worker an agent, endpoints, registered memory, and the messages by which peers
//! prove themselves and hand out memory keys (`docs/formats/data-frames.md`). Knows nothing of objects. Lives in the agent's process
//! only, and sets UCX up by calls, never through the environment, so that nothing of it reaches the user's processes.
//! Hot paths: `drive::Shared::turn`, `core::Core::post`, `worker::Worker`.
//!
//! Reads and writes go in one of two ways (`Moving`). Where devices reach a peer's memory by themselves: UCX's one-sided gets and puts, with memory
//! keys that the owner of a region hands to a peer once, when that first asks for it, and takes back before a region is deregistered. Elsewhere:
//! messages, in parts that are asked for within a window, and that the owner of the region checks and copies itself. What UCX does not
//! protect is said in `docs/decisions/0011-ucx.md`.

mod codec;
mod context;
mod core;
mod drive;
mod fabric;
mod keys;
mod moves;
mod options;
mod peer;
mod regions;
mod session;
mod staging;
mod worker;

pub use context::{Device, Found, probe};
pub use fabric::{CannotStart, UcxFabric};
pub use options::{Moving, Options};
