//! PMI-1, which the MPICH family speaks: lines over a socket that each rank inherits.
//!
//! `line` reads and writes single lines, `state` knows what they mean (pure), `serve` moves them between sockets and state.

mod line;
mod serve;
mod state;

pub(crate) use serve::Service;
