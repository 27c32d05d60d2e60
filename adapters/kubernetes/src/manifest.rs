//! What the API server is handed for one gang. Owns the words for it; who fills them is `render`, who sends them the client.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The kind of object that a gang becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavor {
    /// A Job of Volcano.
    Volcano,
    /// A JobSet, queued by Kueue where a queue is named.
    Kueue,
    /// An AppWrapper (v1beta2) around a Service and an Indexed Job.
    #[serde(rename = "appwrapper")]
    AppWrapper,
    /// An Indexed Job of plain Kubernetes.
    IndexedJob,
    /// A job run of IBM Cloud Code Engine.
    CodeEngine,
}

/// What the API server is handed for one gang: equal for equal requests.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The kind of its top object.
    pub flavor: Flavor,
    /// The namespace of all objects.
    pub namespace: String,
    /// The name of the top object; side objects have it as the beginning of theirs.
    pub name: String,
    /// Of everything in it, in hexadecimal digits; the top object has it as an annotation.
    pub hash: String,
    /// The top object.
    pub job: Value,
    /// What is made before it and owned by it: the Service of the head, and Secrets without their data.
    pub side: Vec<Value>,
    /// All of it as a YAML stream, side objects first.
    pub text: String,
}

/// The data of a Secret of a manifest, by the Secret's name and the key in it. Never written down, never shown.
#[derive(Clone, Default)]
pub struct SecretData(pub BTreeMap<String, BTreeMap<String, Vec<u8>>>);

impl std::fmt::Debug for SecretData {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&String> = self.0.keys().collect();
        write!(f, "SecretData {names:?}") // Keys must not reach a log.
    }
}
