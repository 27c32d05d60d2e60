//! Declarations of UCX's UCP interface, as far as the fabric over UCX uses it, and the opening of libucp at run time.
//!
//! Owns layouts, constants and the table of functions; no behaviour. Written from the headers of UCX 1.13; they fit newer releases of
//! the same library name (`libucp.so.0`) too, because structures only grow at their end and each carries a mask of the fields
//! that are set. `tests/layout.rs` checks sizes and offsets, against the headers themselves where a compiler and headers are there.
//! What the library is asked for with these is `bridgehead-ucx`'s matter.
#![allow(unsafe_code)] // Declarations of a C library and the opening of it.

mod library;
mod types;

pub use library::{OpenError, Ucp, candidates};
pub use types::*;
