//! The pipeline as it is written down: `spec.json`, version 1 (`docs/formats/pipeline-spec.md`). Owns the document's types and
//! its canonical text; what makes a document a pipeline is `check.rs`.

use crate::{Digest, RanksSpec, Resources, Retries, TaskId};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
use std::marker::PhantomData;

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
    #[serde(deserialize_with = "unique_keys")]
    pub functions: BTreeMap<Digest, FunctionSpec>,
    /// Tasks; ids are their positions.
    pub tasks: Vec<TaskSpec>,
    /// Parts that ask for an allocation of their own.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "unique_keys"
    )]
    pub groups: BTreeMap<String, GroupSpec>,
    /// Tasks whose results the user holds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<TaskId>,
}

/// The Python that the pipeline was made with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentSpec {
    /// Version, `3.11` or `3.11.7`.
    pub python: String,
    /// The interpreter, as a path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<String>,
    /// The folder that the pipeline was made in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Versions of packages that the functions may meet, by name.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "unique_keys"
    )]
    pub packages: BTreeMap<String, String>,
    /// Entries that workers add to `sys.path`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sys_path: Vec<String>,
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
    /// What it asks for; one core if left out.
    #[serde(default, skip_serializing_if = "is_default")]
    pub resources: Resources,
    /// Several ranks run it together, each of which gets what it asks for; one process if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranks: Option<RanksSpec>,
    /// Retries by cause.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: Retries,
    /// Time limit in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Higher goes first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub priority: i32,
    /// When its result is written to the run folder.
    #[serde(default, skip_serializing_if = "is_default")]
    pub persist: PersistSpec,
    /// The group that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}

impl TaskSpec {
    /// The tasks that this one waits for: inputs, then after. One may come several times.
    pub fn needs(&self) -> impl Iterator<Item = TaskId> + '_ {
        self.inputs.iter().chain(&self.after).copied()
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "unique_keys"
    )]
    pub env: BTreeMap<String, String>,
    /// Working folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Output files by name.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "unique_keys"
    )]
    pub outputs: BTreeMap<String, String>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// GPUs a node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Partition or queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
}

/// A map whose text names no key twice: which of the two was meant, nobody knows.
fn unique_keys<'de, D, K, V>(d: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord + Clone + std::fmt::Debug,
    V: Deserialize<'de>,
{
    struct Unique<K, V>(PhantomData<(K, V)>);
    impl<'de, K, V> Visitor<'de> for Unique<K, V>
    where
        K: Deserialize<'de> + Ord + Clone + std::fmt::Debug,
        V: Deserialize<'de>,
    {
        type Value = BTreeMap<K, V>;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, value)) = access.next_entry::<K, V>()? {
                if map.insert(key.clone(), value).is_some() {
                    return Err(serde::de::Error::custom(format!("{key:?} is there twice; keep one")));
                }
            }
            Ok(map)
        }
    }
    d.deserialize_map(Unique(PhantomData))
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
