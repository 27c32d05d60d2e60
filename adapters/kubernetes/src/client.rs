//! The client of the API server. Owns every call; what it hands on and takes are words of the port and of this crate, none of kube's.
//!
//! Pure: `kinds`, `reference`, `phases`, `ask`, `reasons`, `ends`. The shell: `connect`, `calls` and what is made of them.

mod ask;
mod calls;
mod connect;
mod discover;
mod end;
mod ends;
mod engine;
mod forward;
mod kinds;
mod logs;
#[cfg(test)]
mod mocked;
mod observe;
mod pause;
mod phases;
mod reasons;
#[cfg(test)]
mod recorded;
mod reference;
mod rights;
mod submit;
mod trouble;
mod watch;
mod why;

pub(crate) use connect::{Around, Cluster};
pub(crate) use engine::Engine;
pub(crate) use forward::Broken;
pub(crate) use kinds::word;
pub use logs::{LogLine, PodLog};
pub(crate) use pause::Wish;
pub(crate) use reference::JobName;
pub(crate) use trouble::refused;
