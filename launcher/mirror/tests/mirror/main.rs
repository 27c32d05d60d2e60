//! Laws of the folder service and its clients, over real TLS and real sockets.

#![allow(clippy::unwrap_used, reason = "what a case cannot set up fails it")]

mod agents;
mod clients;
mod harness;
mod service;
