//! What a user may ask of Kubernetes. Owns the names of the options; their grammar is `check`'s, and nothing is rendered here.

use crate::Flavor;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use thiserror::Error;

/// What a user may ask of Kubernetes. Every part is optional; the keys are the names in Python, and on the command line with dashes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KubernetesOptions {
    /// Pods of the gang, one agent each; 1 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Cores of each pod, requests and limits alike; 1 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory of each pod, as `8GiB`; 2 GiB for each core where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// GPUs of each pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// The resource that GPUs are; `nvidia.com/gpu` where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_resource: Option<String>,
    /// Further resources of each pod, by their names there, as `rdma/hca`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub resources: BTreeMap<String, u64>,
    /// Most bytes of `/dev/shm`, as `1GiB`; part of the pod's memory. A quarter of it where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shm: Option<String>,
    /// The time limit, as `30m`, `2h` or `1-12:00:00`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The kind of object; chosen by what the cluster has where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor: Option<Flavor>,
    /// The queue: Volcano's, or the LocalQueue of Kueue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The priority class of the pods.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// How often the gang is started again after it lost a pod; 3 where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,
    /// The image that the agents run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// When it is pulled: `Always`, `IfNotPresent` (where nothing is said) or `Never`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<String>,
    /// Secrets with credentials for its registry.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pull_secrets: Vec<String>,
    /// The Python interpreter in the image; `python3` where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// The namespace; that of the context where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; the current one where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
    /// The kubeconfig; `KUBECONFIG` or `~/.kube/config` where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kubeconfig: Option<PathBuf>,
    /// A PersistentVolumeClaim that keeps the run folder; without one it goes with the head's pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// How long the head's pod waits after the run's end for its results to be fetched, as `1h` (where nothing is said); without
    /// a volume only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<String>,
    /// How long the cluster keeps the ended job, as `1h`; a day where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
    /// Labels that nodes must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations of the pods, as in a pod's `spec.tolerations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Value>,
    /// The label of nodes within whose equal values all pods are to be, as `topology.kubernetes.io/rack`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// Whether that is a must; a wish where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology_required: Option<bool>,
    /// Labels that all objects get besides ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations that all pods get besides ours.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Variables of the agents and their tasks. Never a secret.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// The user id of the pods; 65532 where nothing is said, and none on OpenShift, which gives its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_as_user: Option<i64>,
    /// The group that files of volumes belong to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fs_group: Option<i64>,
    /// RDMA: the pods may lock memory (capability `IPC_LOCK`). Neither the restricted nor the baseline profile allows that, so the
    /// namespace has to be a privileged one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rdma: Option<bool>,
    /// Merged into the pod's `spec` (RFC 7386), for what has no option.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub pod: Value,
}

/// Why options make no sense.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct OptionError(pub String);

impl KubernetesOptions {
    /// The options in a target of `run.json`.
    ///
    /// # Errors
    /// An unknown name, with the valid ones, a value of the wrong kind, or one out of its grammar.
    pub fn read(options: &Value) -> Result<Self, OptionError> {
        if options.is_null() {
            return Ok(Self::default());
        }
        let read: Self =
            serde_json::from_value(options.clone()).map_err(|e| OptionError(format!("options for Kubernetes: {e}")))?;
        read.check()?;
        Ok(read)
    }

    /// The options as a document; what [`KubernetesOptions::read`] takes.
    ///
    /// # Panics
    /// Never: texts, numbers and JSON always have a JSON form.
    #[must_use]
    pub fn document(&self) -> Value {
        serde_json::to_value(self).expect("texts, numbers and JSON have a JSON form")
    }

    /// The same options for one gang, with what its group asks for in place of what the run asks for; a group's partition is a
    /// queue here.
    #[must_use]
    pub fn for_group(&self, nodes: Option<u32>, gpus: Option<u32>, partition: Option<&str>) -> Self {
        Self {
            nodes: nodes.or(self.nodes),
            gpus: gpus.or(self.gpus),
            queue: partition.map(str::to_owned).or_else(|| self.queue.clone()),
            ..self.clone()
        }
    }
}
