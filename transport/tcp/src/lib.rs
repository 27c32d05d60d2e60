//! The fabric over plain TCP sockets: always there, authenticated, received straight into the destination.
//!
//! Owns sockets, frames and the thread that serves peers while nobody waits. Knows nothing of objects.
//! Hot paths: `send::Tx::flush`, `receive::Rx::receive`, `codec::Codec`.
//!
//! Each side has its own connections for what it begins: one for messages, one for small and one or more for large operations, so
//! that nothing small waits behind bulk and two sides that begin at once need no rule. One thread at a time does the
//! network's work: whoever is in `Fabric::wait`, which saves the wake-up of a second thread, else the fabric's own.

mod address;
mod codec;
mod connection;
mod engine;
mod fabric;
mod frame;
mod handshake;
mod interface;
mod lead;
mod options;
mod peer;
mod receive;
mod region;
mod send;
mod socket;
mod stranger;
#[cfg(test)]
mod tests_support;

pub use address::{Address, AddressError};
pub use fabric::TcpFabric;
pub use interface::{ChooseError, Subnet, choose_address};
pub use options::{DataKey, Integrity, Options};
