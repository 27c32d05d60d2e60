//! Bodies of messages about named values: what a process asks of the run's table of names, and what the head answers. Who
//! sends which to whom is in `message.rs`.

use crate::values::{Outcome, Value};
use prost::{Enumeration, Message};

/// What is asked of the table of names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum NameOp {
    /// A new version of a name, with `value`.
    Put = 0,
    /// The value of a version, of the newest one without.
    Get = 1,
    /// That a version is there, without its value.
    Wait = 2,
    /// The first version after `version`, for the watch `about`.
    Next = 3,
    /// The watch `about` is over.
    Unwatch = 4,
    /// The versions that are kept.
    Versions = 5,
    /// All names.
    List = 6,
    /// Forgets a name with its versions.
    Delete = 7,
    /// No more versions will come.
    Close = 8,
    /// Makes the name a stream that keeps `keep` versions; `wait`: a put waits until the oldest one has been taken.
    Stream = 9,
    /// The request with the token `about` is waited for no longer; it is answered at once if it has not been.
    Forget = 10,
    /// Said by an agent: the worker `from_worker` is gone.
    Gone = 11,
}

/// A request to the table of names.
#[derive(Clone, PartialEq, Message)]
pub struct NameRequest {
    /// Comes back in the reply.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// What is asked.
    #[prost(enumeration = "NameOp", tag = "2")]
    pub op: i32,
    /// The name; empty for what is about none.
    #[prost(string, tag = "3")]
    pub name: String,
    /// The version, from 1. For `Next`: the last one that was taken, 0 for none.
    #[prost(uint64, optional, tag = "4")]
    pub version: Option<u64>,
    /// For `Put`. A stored value was put before, and the head takes a hold of its own.
    #[prost(message, optional, tag = "5")]
    pub value: Option<Value>,
    /// For `Stream`: how many versions are kept; 0: all.
    #[prost(uint32, tag = "6")]
    pub keep: u32,
    /// For `Get` and `Wait`: waits for what is not there yet. For `Stream`: see there.
    #[prost(bool, tag = "7")]
    pub wait: bool,
    /// The watch, or the token of another request: see [`NameOp`].
    #[prost(uint64, tag = "8")]
    pub about: u64,
    /// Set by the agent when a worker asks: that worker.
    #[prost(uint32, optional, tag = "9")]
    pub from_worker: Option<u32>,
    /// The task that was running when a worker asked.
    #[prost(uint64, optional, tag = "10")]
    pub task: Option<u64>,
}

/// The answer to a [`NameRequest`].
#[derive(Clone, PartialEq, Message)]
pub struct NameReply {
    /// The asker's token.
    #[prost(uint64, tag = "1")]
    pub token: u64,
    /// A value or a failure, where the answer is one. A stored value carries one hold for the receiver.
    #[prost(message, optional, tag = "2")]
    pub outcome: Option<Outcome>,
    /// The version that the answer is about.
    #[prost(uint64, tag = "3")]
    pub version: u64,
    /// Versions that are kept.
    #[prost(uint64, repeated, tag = "4")]
    pub versions: Vec<u64>,
    /// Names.
    #[prost(string, repeated, tag = "5")]
    pub names: Vec<String>,
    /// For `Next`: no more versions will come.
    #[prost(bool, tag = "6")]
    pub ended: bool,
    /// Between head and agent: the worker that it is for.
    #[prost(uint32, optional, tag = "7")]
    pub for_worker: Option<u32>,
}
