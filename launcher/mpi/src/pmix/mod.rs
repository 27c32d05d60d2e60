//! PMIx, which Open MPI speaks. Open MPI's own libpmix serves it, inside a helper process, so that no crash, thread or variable of it
//! touches the agent (`docs/decisions/0017-pmix-in-a-helper-process.md`).
//!
//! On the agent's side `frames` has the messages to the helper, `gang` knows what a gang's gatherings and questions mean (pure),
//! `host` keeps helpers, `helper` moves the frames of one. The side of the helper process is `server`.

mod frames;
mod gang;
mod helper;
mod host;
pub(crate) mod server;

pub(crate) use host::{Helpers, Service};
