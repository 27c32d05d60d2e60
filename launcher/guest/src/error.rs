//! What can go wrong for a guest, by what its program can do about it. Owns the kinds; the words come from who refused.

use bridgehead_store_node::ClientError;
use bridgehead_wire::{ArrayError, Failure};
use std::io;
use thiserror::Error;

/// Why a guest did not get what it asked for.
#[derive(Debug, Error)]
pub enum GuestError {
    /// This process is of no program of a run, or its variables were changed.
    #[error("{0}")]
    Outside(String),
    /// The agent will not have it.
    #[error("the run does not let this process take part: {0}")]
    Refused(String),
    /// The connection is over.
    #[error("the run is gone: {0}")]
    Gone(String),
    /// An argument is wrong.
    #[error("{0}")]
    Wrong(String),
    /// There is no such name or version, and nobody wanted to wait for it.
    #[error("{0}")]
    Unknown(String),
    /// The stream has dropped the version.
    #[error("{0}")]
    VersionGone(String),
    /// It did not come in time, or nobody made room.
    #[error("{0}")]
    Timeout(String),
    /// The name was closed.
    #[error("{0}")]
    Closed(String),
    /// The task that wrote the name has failed.
    #[error("{0}")]
    Broken(String),
    /// The only copy went down with its node.
    #[error("{0}")]
    Lost(String),
    /// The store has no room.
    #[error("{0}")]
    Full(String),
    /// The value is no plain array.
    #[error("{0}")]
    NoArray(String),
    /// Something that should not happen.
    #[error("{0}")]
    Other(String),
}

impl GuestError {
    /// What the table of names, or the agent, said.
    pub(crate) fn of_failure(failure: &Failure) -> Self {
        let why = failure.message.clone();
        match failure.kind.as_str() {
            "name-bad" => Self::Wrong(why),
            "name-unknown" => Self::Unknown(why),
            "name-timeout" => Self::Timeout(why),
            "version-gone" => Self::VersionGone(why),
            "stream-closed" => Self::Closed(why),
            "stream-broken" => Self::Broken(why),
            "object-lost" => Self::Lost(why),
            kind => Self::Other(format!("{kind}: {why}")),
        }
    }

    /// Why there is no room to write.
    pub(crate) fn of_room(error: ClientError) -> Self {
        match error {
            ClientError::Io(error) => Self::Gone(error.to_string()),
            ClientError::Full(why) | ClientError::Never(why) => Self::Full(why),
        }
    }

    /// Why an object cannot be read.
    pub(crate) fn of_reading(error: ClientError) -> Self {
        match error {
            ClientError::Io(error) => Self::Gone(error.to_string()),
            ClientError::Full(why) | ClientError::Never(why) => Self::Lost(why),
        }
    }

    /// A value that is no array.
    pub(crate) fn of_array(name: &str, error: &ArrayError) -> Self {
        let advice = "put a contiguous numpy array of numbers, not a list or another object that holds some";
        Self::NoArray(format!("the value of {name:?} cannot be read here: {error}; {advice}"))
    }
}

impl From<io::Error> for GuestError {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}
