//! The data port: what a store may ask of a network, whatever the network is.
//!
//! Owns the words (regions, operations, completions, capabilities, peer loss), a simulated network (`sim`), the choice
//! among several (`Choice`) and the laws that every fabric keeps (`conformance`). It owns no socket, and knows nothing of objects.
//!
//! The promises, each a law in `conformance`:
//! - Nothing here blocks but `Fabric::wait`. A full queue is `Posted::Busy`, a value; `Completion::Ready` follows once there is room.
//! - Every accepted operation completes exactly once, with `Done` or `Failed`, also when the peer dies, freezes or is removed.
//! - A read writes only inside its local slice, and neither it nor a write touches local memory after its completion.
//! - Messages to one peer arrive in the order of their sending, each once, until the peer is lost.
//! - What a peer asks for wrongly fails at the one who asks, and harms nobody else.

mod choice;
pub mod conformance;
mod memory;
mod port;
pub mod sim;

pub use choice::Choice;
pub use memory::{Buffer, Memory};
pub use port::{
    Access, Capabilities, Completion, Fabric, FabricError, LocalSlice, OpId, PeerId, Posted, Reason, RegionKey,
    RemoteKey, RemoteSlice,
};
