//! A run folder in several places, for a gang without a shared file system. Owns the folder service of the head, what agents and
//! clients ask of it, and the bundle that brings a run to them (`docs/formats/folder-service.md`). Knows no scheduler, and nothing
//! of what the files say.

mod agent;
mod body;
mod bundle;
mod client;
mod credentials;
mod link;
mod paths;
mod pull;
mod requests;
mod service;
mod ship;
mod tree;
mod unpack;

pub use agent::Remote;
pub use bundle::{BundleError, IGNORE_FILE, pack, read_parts, split};
pub use client::{Mirror, Pulled, Wanted};
pub use credentials::{ALPN_FOLDER, Credentials};
pub use service::{ServeOptions, Service};
pub use ship::Shipping;
pub use unpack::unpack;

/// The version of the protocol's paths, their beginning.
pub(crate) const VERSION: &str = "/v1/";
/// The header by which an agent names the life of the launch that it belongs to.
pub(crate) const LIFE_HEADER: &str = "bridgehead-life";
/// The header by which the service says how long a file is to which an append did not fit.
pub(crate) const LENGTH_HEADER: &str = "bridgehead-length";
/// The header of a list by which the service says which folder it is: one that was begun anew has another name.
pub(crate) const FOLDER_HEADER: &str = "bridgehead-folder";
/// Most bytes of one append.
pub(crate) const APPEND_MOST: u64 = 4 << 20;
/// Most bytes of a document that is read as a whole: a list, a ticket, a status.
pub(crate) const DOCUMENT_MOST: u64 = 64 << 20;
/// A peer that says nothing for so long in the middle of a message is given up.
pub(crate) const SILENCE: std::time::Duration = std::time::Duration::from_secs(60);
