//! The rules of the source tree, each a pure function from facts to what breaks it. Owns the layer table, the list of crates
//! with `unsafe` code and the limits; `deny.toml` owns licences and duplicates. Reading the tree is `tests/workspace.rs`'s.

pub mod layers;
pub mod metadata;
pub mod policy;
pub mod sources;
