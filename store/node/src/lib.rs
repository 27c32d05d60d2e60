//! The store of one node: an arena in shared memory, the index of what lies in it, leases, spill to disk, reads from other
//! nodes. The thin shell of `store/core`: it moves bytes and wakes those who wait; what goes where is decided there.
//!
//! [`Node`] is the agent's side, [`Client`] that of every other process of the node (workers, the driver). A producer asks
//! for a range, fills it and names it in its own message to the agent or the head; that publishes it. A reader maps the
//! arena once and takes leases in shared memory. Hot path: `Client::reserve`, `Client::lease`, once an object each.

mod arrive;
mod client;
mod device_view;
mod devices;
mod files;
mod index;
mod lending;
mod map;
mod moves;
mod node;
mod numa;
mod own;
mod protocol;
mod remote;
mod room;
mod server;
mod traffic;
mod verify;

pub use bridgehead_store_core::{Arena, divide};
pub use client::{Client, ClientError, Lease, Reservation, new_id};
pub use device_view::DeviceView;
pub use devices::DeviceUse;
pub use node::{Arrival, Node, NodeOptions, StoreError};
pub use numa::Binding;
pub use own::Own;
pub use traffic::{Moved, Traffic};
pub use verify::sum_of;
