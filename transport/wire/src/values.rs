//! Values, references and outcomes: what a task takes and gives, as it travels. The bytes of values are opaque here.

use bytes::Bytes;
use prost::{Enumeration, Message, Oneof};

/// Where an object of the store lies. `node` is the agent that holds it; offset and slot are that node's, as far as the
/// writer of the reference knew: a reader finds them true in the node's index, or asks.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct ObjectRef {
    /// High half of the 128-bit object id.
    #[prost(fixed64, tag = "1")]
    pub id_hi: u64,
    /// Low half of the object id.
    #[prost(fixed64, tag = "2")]
    pub id_lo: u64,
    /// Length in bytes.
    #[prost(uint64, tag = "3")]
    pub len: u64,
    /// The agent whose node holds the bytes.
    #[prost(uint32, tag = "4")]
    pub node: u32,
    /// Byte offset within the node's arena.
    #[prost(uint64, tag = "6")]
    pub offset: u64,
    /// Its place in the node's index.
    #[prost(uint64, tag = "7")]
    pub slot: u64,
    /// Where it was placed on purpose: 1 + the number of the node's NUMA node; 0 where nobody chose one.
    #[prost(uint32, tag = "8")]
    pub numa: u32,
    /// Where it was placed on purpose: 1 + the number of the node's GPU in whose memory it lies; 0 where it is in none.
    #[prost(uint32, tag = "9")]
    pub gpu: u32,
    /// The sum of its bytes (XXH3, 64 bits) that its writer has taken; 0 where none was asked for.
    #[prost(fixed64, tag = "10")]
    pub sum: u64,
}

impl ObjectRef {
    /// The object's id.
    #[must_use]
    pub fn id(&self) -> bridgehead_spec::ObjectId {
        bridgehead_spec::ObjectId(u128::from(self.id_hi) << 64 | u128::from(self.id_lo))
    }

    /// A reference to `id`.
    #[must_use]
    pub fn new(id: bridgehead_spec::ObjectId, len: u64, node: u32, offset: u64, slot: u64) -> Self {
        #[allow(clippy::cast_possible_truncation)] // The halves are cut on purpose.
        Self {
            id_hi: (id.0 >> 64) as u64,
            id_lo: id.0 as u64,
            len,
            node,
            offset,
            slot,
            numa: 0,
            gpu: 0,
            sum: 0,
        }
    }

    /// The same object at another node, which finds it by its id.
    #[must_use]
    pub fn at(&self, node: u32) -> Self {
        Self {
            node,
            offset: u64::MAX,
            slot: 0,
            numa: 0,
            gpu: 0,
            ..self.clone()
        }
    }
}

/// A result that was written to the run folder.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct FileRef {
    /// Path relative to the run folder.
    #[prost(string, tag = "1")]
    pub path: String,
    /// Length in bytes.
    #[prost(uint64, tag = "2")]
    pub len: u64,
}

/// A value: inline bytes (packed by Python), a stored object, or a program's result.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// The value itself.
    #[prost(oneof = "value::Kind", tags = "1, 2, 3, 4")]
    pub kind: Option<value::Kind>,
    /// Objects that the packed bytes name, where they do: a stored value holds them.
    #[prost(message, repeated, tag = "5")]
    pub refs: Vec<ObjectRef>,
}

/// The kinds of a [`Value`].
pub mod value {
    use super::{Bytes, FileRef, ObjectRef, Oneof, ProgramResult};

    /// Inline, stored, a program's result, or a file of the run folder.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// Packed bytes.
        #[prost(bytes = "bytes", tag = "1")]
        Inline(Bytes),
        /// An object of the store holding the packed bytes.
        #[prost(message, tag = "2")]
        Stored(ObjectRef),
        /// What a program left.
        #[prost(message, tag = "3")]
        Program(ProgramResult),
        /// A file of the run folder holding the packed bytes (what `Persist` wrote).
        #[prost(message, tag = "4")]
        File(FileRef),
    }
}

impl Value {
    /// A value of inline bytes.
    #[must_use]
    pub fn inline(bytes: Bytes) -> Self {
        Self {
            kind: Some(value::Kind::Inline(bytes)),
            refs: Vec::new(),
        }
    }

    /// A value in the store.
    #[must_use]
    pub fn stored(object: ObjectRef) -> Self {
        Self {
            kind: Some(value::Kind::Stored(object)),
            refs: Vec::new(),
        }
    }

    /// A value in a file of the run folder.
    #[must_use]
    pub fn file(file: FileRef) -> Self {
        Self {
            kind: Some(value::Kind::File(file)),
            refs: Vec::new(),
        }
    }

    /// The store object, if the value is one.
    #[must_use]
    pub fn object(&self) -> Option<&ObjectRef> {
        match &self.kind {
            Some(value::Kind::Stored(object)) => Some(object),
            _ => None,
        }
    }
}

/// An argument that is not in the packed arguments: a task's result or an object.
#[derive(Clone, PartialEq, Message)]
pub struct Input {
    /// What stands in.
    #[prost(oneof = "input::Kind", tags = "1, 2")]
    pub kind: Option<input::Kind>,
    /// The task gets a reference, from which it takes what it needs, instead of the value.
    #[prost(bool, tag = "3")]
    pub lazy: bool,
}

/// The kinds of an [`Input`].
pub mod input {
    use super::{Oneof, Value};

    /// A task of the run, or a value.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// The result of this task.
        #[prost(uint64, tag = "1")]
        Task(u64),
        /// A value that exists already.
        #[prost(message, tag = "2")]
        Value(Value),
    }
}

/// A name and a text.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Pair {
    /// The name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// The text.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A name and an amount.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct NamedAmount {
    /// The resource's name.
    #[prost(string, tag = "1")]
    pub key: String,
    /// Whole units.
    #[prost(uint64, tag = "2")]
    pub value: u64,
}

/// Resources on the wire; see `bridgehead_spec::Resources`.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Amounts {
    /// Thousandths of a core.
    #[prost(uint64, tag = "1")]
    pub cpu_millis: u64,
    /// Bytes.
    #[prost(uint64, tag = "2")]
    pub memory: u64,
    /// Whole GPUs.
    #[prost(uint32, tag = "3")]
    pub gpus: u32,
    /// Site-named resources.
    #[prost(message, repeated, tag = "4")]
    pub named: Vec<NamedAmount>,
}

impl From<&bridgehead_spec::Resources> for Amounts {
    fn from(r: &bridgehead_spec::Resources) -> Self {
        let named = r
            .named
            .iter()
            .map(|(k, &value)| NamedAmount { key: k.clone(), value })
            .collect();
        Self {
            cpu_millis: r.cpu_millis,
            memory: r.memory,
            gpus: r.gpus,
            named,
        }
    }
}

impl From<&Amounts> for bridgehead_spec::Resources {
    fn from(a: &Amounts) -> Self {
        let named = a.named.iter().map(|n| (n.key.clone(), n.value)).collect();
        Self {
            cpu_millis: a.cpu_millis,
            memory: a.memory,
            gpus: a.gpus,
            named,
        }
    }
}

/// How often a task may be tried again, by cause.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Retry {
    /// After its node or worker was lost.
    #[prost(uint32, tag = "1")]
    pub lost_node: u32,
    /// After a preemption.
    #[prost(uint32, tag = "2")]
    pub preempted: u32,
    /// After a time limit.
    #[prost(uint32, tag = "3")]
    pub walltime: u32,
    /// After running out of memory.
    #[prost(uint32, tag = "4")]
    pub oom: u32,
    /// After an error of its own.
    #[prost(uint32, tag = "5")]
    pub user: u32,
}

/// An executable to start, without a shell.
#[derive(Clone, PartialEq, Message)]
pub struct ProgramCall {
    /// The program and its arguments.
    #[prost(string, repeated, tag = "1")]
    pub argv: Vec<String>,
    /// Variables set on top of the agent's own environment.
    #[prost(message, repeated, tag = "2")]
    pub env: Vec<Pair>,
    /// Working folder; empty: the run's.
    #[prost(string, tag = "3")]
    pub cwd: String,
    /// Output files by name (paths relative to the working folder).
    #[prost(message, repeated, tag = "4")]
    pub outputs: Vec<Pair>,
}

/// What a program left behind.
#[derive(Clone, PartialEq, Message)]
pub struct ProgramResult {
    /// The exit code; 128 + n when signal n ended it.
    #[prost(int32, tag = "1")]
    pub exit_code: i32,
    /// Captured standard output, cut at a limit.
    #[prost(bytes = "bytes", tag = "2")]
    pub stdout: Bytes,
    /// Captured standard error, cut at a limit.
    #[prost(bytes = "bytes", tag = "3")]
    pub stderr: Bytes,
    /// Output files by name, as absolute paths.
    #[prost(message, repeated, tag = "4")]
    pub outputs: Vec<Pair>,
    /// Bytes of output that the limit cut off.
    #[prost(uint64, tag = "5")]
    pub dropped: u64,
}

/// Whose fault a failure is; decides which retry count it burns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Enumeration)]
#[repr(i32)]
pub enum FailureCause {
    /// The task's own code.
    User = 0,
    /// The node, agent or worker went away.
    LostNode = 1,
    /// The scheduler took the allocation.
    Preempted = 2,
    /// A time limit.
    Walltime = 3,
    /// Out of memory.
    OutOfMemory = 4,
    /// Bridgehead could not carry the task out (store full, value not to be packed, missing program).
    System = 5,
    /// A task that this one needs failed.
    Upstream = 6,
}

/// Why a task has no value.
#[derive(Clone, PartialEq, Message)]
pub struct Failure {
    /// The cause by which retries are counted.
    #[prost(enumeration = "FailureCause", tag = "1")]
    pub cause: i32,
    /// The exception's type, or a short kind such as `signal` or `timeout`.
    #[prost(string, tag = "2")]
    pub kind: String,
    /// One sentence: the thing, the reason, the way out.
    #[prost(string, tag = "3")]
    pub message: String,
    /// The remote traceback, if there is one.
    #[prost(string, tag = "4")]
    pub traceback: String,
    /// The exception, pickled, when it could be.
    #[prost(bytes = "bytes", tag = "5")]
    pub pickled: Bytes,
    /// Exit code of the process, when it ended.
    #[prost(int32, optional, tag = "6")]
    pub exit_code: Option<i32>,
    /// Signal that ended the process.
    #[prost(int32, optional, tag = "7")]
    pub signal: Option<i32>,
    /// For `Upstream`: the task that failed first.
    #[prost(uint64, optional, tag = "8")]
    pub root: Option<u64>,
}

impl Failure {
    /// A failure of `cause` with a kind and a message.
    #[must_use]
    pub fn new(cause: FailureCause, kind: &str, message: impl Into<String>) -> Self {
        Self {
            cause: cause.into(),
            kind: kind.to_owned(),
            message: message.into(),
            ..Self::default()
        }
    }
}

/// How an attempt ended.
#[derive(Clone, PartialEq, Message)]
pub struct Outcome {
    /// The end.
    #[prost(oneof = "outcome::Kind", tags = "1, 2, 3")]
    pub kind: Option<outcome::Kind>,
}

/// The kinds of an [`Outcome`].
pub mod outcome {
    use super::{Failure, Oneof, Value};

    /// A value, a failure, or cancelled.
    #[derive(Clone, PartialEq, Oneof)]
    pub enum Kind {
        /// The task's value.
        #[prost(message, tag = "1")]
        Value(Value),
        /// Why there is none.
        #[prost(message, tag = "2")]
        Failure(Failure),
        /// Cancelled, with the reason.
        #[prost(string, tag = "3")]
        Cancelled(String),
    }
}

impl Outcome {
    /// The store object that holds its value, if it has a stored one.
    #[must_use]
    pub fn object(&self) -> Option<&ObjectRef> {
        match &self.kind {
            Some(outcome::Kind::Value(value)) => value.object(),
            _ => None,
        }
    }

    /// A value.
    #[must_use]
    pub fn value(value: Value) -> Self {
        Self {
            kind: Some(outcome::Kind::Value(value)),
        }
    }

    /// A failure.
    #[must_use]
    pub fn failure(failure: Failure) -> Self {
        Self {
            kind: Some(outcome::Kind::Failure(failure)),
        }
    }

    /// Cancelled for `reason`.
    #[must_use]
    pub fn cancelled(reason: impl Into<String>) -> Self {
        Self {
            kind: Some(outcome::Kind::Cancelled(reason.into())),
        }
    }
}
