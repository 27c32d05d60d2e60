//! Decisions of a node's store: where an object's bytes go, who may write where, what is moved to disk, what is freed.
//! Pure: no clock, no I/O, no memory of its own; the shell (`store/node`) moves the bytes and asks here first.
//!
//! An object is written once, by a client that was granted the place, and never changes after it is published. It lives
//! until the run releases it; pins and leases keep its bytes where they are, views those on a device. Hot path: `Core::grant`, `Core::publish`,
//! `Core::pin`, once an object each.

mod arenas;
mod extents;
mod media;
mod objects;
mod slots;

pub use arenas::{Arena, divide};
pub use extents::{ALIGN, Extent, Extents};
pub use media::{Device, Medium, NotThere};
pub use objects::{ClientId, Core, Denied, Freed, Place, PublishError, Spill, Usage};
pub use slots::SlotId;
