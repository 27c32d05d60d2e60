//! The pipeline as it is written down: `spec.json`, version 1 (`docs/formats/pipeline-spec.md`). Owns the document's types and
//! its canonical text; what makes a document a pipeline is `check.rs`.

use crate::{Digest, Resources, TaskId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version that this program writes, and the newest that it reads.
pub const PIPELINE_VERSION: u32 = 1;

/// `spec.json`, unchecked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipelineSpec {
    /// Version of this document.
    pub version: u32,
    /// The pipeline's name.
    pub name: String,
    /// Where the tasks' code comes from.
    pub environment: EnvironmentSpec,
    /// Functions by the digest of their pickled code, which lies in `blobs/`.
    pub functions: BTreeMap<Digest, FunctionSpec>,
    /// Tasks; ids are their positions.
    pub tasks: Vec<TaskSpec>,
    /// Parts that ask for an allocation of their own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, GroupSpec>,
    /// Tasks whose results the user holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<TaskId>,
}

/// The Python that the pipeline was made with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// Version, `3.11.7`.
    pub python: String,
    /// Versions of packages that the functions may meet, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub packages: BTreeMap<String, String>,
}

/// A function, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionSpec {
    /// `module.qualname`.
    pub name: String,
    /// Bytes of its pickled code.
    pub size: u64,
}

/// One task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskSpec {
    /// Its position in the list.
    pub id: TaskId,
    /// For people.
    pub name: String,
    /// What it does.
    pub call: CallSpec,
    /// Tasks whose results are arguments, by the number of their placeholder.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<TaskId>,
    /// Tasks that must have finished first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<TaskId>,
    /// What it asks for.
    #[serde(default)]
    pub resources: Resources,
    /// Retries by cause.
    #[serde(default)]
    pub retries: Retries,
    /// Time limit in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
    /// When its result is written to the run folder.
    #[serde(default)]
    pub persist: PersistSpec,
    /// The group that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde hands a reference.
fn is_zero(n: &i32) -> bool {
    *n == 0
}

/// What a task does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CallSpec {
    /// A Python function.
    Function {
        /// Digest of its pickled code.
        digest: Digest,
        /// Packed `(args, kwargs)`, base64.
        #[serde(default, with = "base64_bytes", skip_serializing_if = "Vec::is_empty")]
        args: Vec<u8>,
        /// Digest of packed `(args, kwargs)` that lie in `blobs/`, instead of `args`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        args_blob: Option<Digest>,
    },
    /// An executable.
    Program(ProgramSpec),
}

/// An executable with its arguments; no shell is involved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSpec {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables on top of the agent's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Output files by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
}

/// How often a task may be tried again, by cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// After its node, agent or worker was lost.
    pub lost_node: u32,
    /// After a preemption.
    pub preempted: u32,
    /// After a time limit.
    pub walltime: u32,
    /// After running out of memory.
    pub oom: u32,
    /// After an error of its own.
    pub user: u32,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            lost_node: 3,
            preempted: 3,
            walltime: 0,
            oom: 0,
            user: 0,
        }
    }
}

/// When a result is written to the run folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PersistSpec {
    /// Small ones, and those that the user holds.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// A part of the graph that asks for an allocation of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GroupSpec {
    /// Nodes.
    pub nodes: Option<u32>,
    /// GPUs a node.
    pub gpus: Option<u32>,
    /// Partition or queue.
    pub partition: Option<String>,
}

mod base64_bytes {
    //! Bytes as base64 text.
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(d)?;
        STANDARD
            .decode(text.as_bytes())
            .map_err(|e| serde::de::Error::custom(format!("args is no base64 text: {e}")))
    }
}
