//! A process's connection to a run, without an interpreter: the socket of frames that all processes use, the first words of a
//! process of a program, and what C and Fortran do with the run's named arrays. Owns no format; the node's store is `store-node`'s.

mod array;
mod enter;
mod error;
mod guest;
pub mod link;
mod memory;

pub use array::{Draft, View};
pub use enter::{Entered, Surroundings};
pub use error::GuestError;
pub use guest::{Guest, Patience, Watch};
