//! What a run is told besides its pipeline (`run.json`) and what its head tells of itself (`head.json`).
//! Owns the two documents and the names of the files in a run folder; reads and writes no file.

use crate::{Resources, RunId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `run.json`: written by the client before the head starts, never changed after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Version of this document; 1.
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// The pipeline's name, for people.
    pub name: String,
    /// Whether `spec.json` holds a pipeline, or tasks come from a client only (an Executor).
    pub has_pipeline: bool,
    /// Whether the run ends with the client that owns it.
    pub attached: bool,
    /// The agents, by rank; the first shares the head's process. So many may join.
    pub agents: Vec<AgentConfig>,
    /// The run starts when so many agents are there, further ones may join at any time; all of them where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_agents: Option<u32>,
    /// Python interpreter for workers.
    pub python: PathBuf,
    /// Its version where the run was made, as `3.11`; an interpreter of another one cannot read what functions were pickled to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_version: Option<String>,
    /// Entries added to `sys.path` in workers.
    #[serde(default)]
    pub sys_path: Vec<String>,
    /// Working folder of workers and programs.
    pub cwd: PathBuf,
    /// The folder of the user's code, whose files travel to nodes that do not share this machine's file system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub project: Option<PathBuf>,
    /// Variables set in workers and programs. Never a secret.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Values up to this many bytes travel inline.
    #[serde(default = "default_inline_limit")]
    pub inline_limit: u32,
    /// How long the head waits for all agents, in milliseconds.
    #[serde(default = "default_join_timeout")]
    pub join_timeout_ms: u64,
    /// Where to write a Chrome trace at the end, if wanted.
    #[serde(default)]
    pub trace: Option<PathBuf>,
    /// The scheduler that the run is handed to; this machine where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetConfig>,
    /// Most bytes that the store of an agent holds which measures its own node; three tenths of its memory if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub store_limit: Option<u64>,
    /// Most tasks that run at a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_running: Option<u32>,
    /// Tasks that may fail for good; one more ends the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_fails: Option<u32>,
    /// How bytes go between nodes.
    #[serde(default, skip_serializing_if = "TransportConfig::is_default")]
    pub transport: TransportConfig,
    /// Objects have sums, which are checked wherever their bytes are moved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_objects: bool,
}

/// How bytes go between the nodes of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TransportConfig {
    /// What was asked for.
    pub choice: TransportChoice,
    /// A way other than the one asked for is an error.
    pub required: bool,
    /// UCX's library, or the folder that it is in; where the loader finds it if left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ucx: Option<PathBuf>,
}

impl TransportConfig {
    /// Whether nothing was asked for.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What may be asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TransportChoice {
    /// UCX where it would use RDMA devices, else TCP.
    #[default]
    Auto,
    /// TCP.
    Tcp,
    /// UCX, over whatever it finds.
    Ucx,
}

/// The scheduler that a run is handed to, and what the user asked of it. Agents of such a run measure their own nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// The backend's name: `slurm` or `kubernetes`.
    pub backend: String,
    /// What was asked of it, in the backend's own words. Never a secret.
    pub options: serde_json::Value,
}

/// What one agent gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// What it may give to tasks.
    pub resources: Resources,
    /// Most bytes that its store holds in memory.
    pub store_limit: u64,
}

/// `head.json`: how to reach the head of the latest attempt. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadInfo {
    /// Version of this document; 1.
    pub version: u32,
    /// The head's process id.
    pub pid: u32,
    /// Its host.
    pub host: String,
    /// The attempt (journal segment) that it writes.
    pub attempt: u32,
    /// Unix socket for clients of this machine.
    pub socket: PathBuf,
    /// `host:port` for agents and for clients elsewhere (mutual TLS); empty where nothing listens.
    pub address: String,
    /// All addresses of the head, to be tried in order; the first is `address`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
}

fn default_inline_limit() -> u32 {
    16 << 10
}

fn default_join_timeout() -> u64 {
    60_000
}

/// The names of the files in a run folder; the one place that knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolder(PathBuf);

impl RunFolder {
    /// The run folder at `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The folder itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// `run.json`, a [`RunConfig`].
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("run.json")
    }

    /// `spec.json`, the pipeline.
    #[must_use]
    pub fn spec(&self) -> PathBuf {
        self.0.join("spec.json")
    }

    /// `plan.json`, the launch plan.
    #[must_use]
    pub fn plan(&self) -> PathBuf {
        self.0.join("plan.json")
    }

    /// `head.json`, a [`HeadInfo`].
    #[must_use]
    pub fn head(&self) -> PathBuf {
        self.0.join("head.json")
    }

    /// `status.json`, the last status snapshot.
    #[must_use]
    pub fn status(&self) -> PathBuf {
        self.0.join("status.json")
    }

    /// A blob (function, arguments) by its digest.
    #[must_use]
    pub fn blob(&self, digest: &crate::Digest) -> PathBuf {
        self.0.join("blobs").join(digest.to_string())
    }

    /// The journal's folder; one segment an attempt.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    /// Logs of head, agents, workers and tasks.
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }

    /// The log of a worker process: what it writes to its own standard output and error.
    #[must_use]
    pub fn worker_log(&self, agent: u32, worker: u32) -> PathBuf {
        self.logs().join(format!("worker-{agent}-{worker}.log"))
    }

    /// Results that were too large for the journal.
    #[must_use]
    pub fn results(&self) -> PathBuf {
        self.0.join("results")
    }

    /// Objects that the store of the agent with this rank moved to disk; empty once it has ended.
    #[must_use]
    pub fn spill(&self, rank: u32) -> PathBuf {
        self.0.join("spill").join(rank.to_string())
    }

    /// Jobs that were handed to a scheduler for this run, one file a launch.
    #[must_use]
    pub fn launches(&self) -> PathBuf {
        self.0.join("launches")
    }

    /// Requests of clients that cannot reach the head.
    #[must_use]
    pub fn mailbox(&self) -> PathBuf {
        self.0.join("mailbox")
    }

    /// What the client sent for agents that do not see this folder: code, and what the run begins with.
    #[must_use]
    pub fn bundle(&self) -> PathBuf {
        self.0.join("bundle.tar.gz")
    }

    /// Certificates and tickets; mode 0700.
    #[must_use]
    pub fn tls(&self) -> PathBuf {
        self.0.join("tls")
    }

    /// The ticket of clients on other machines, where the head listens for them; mode 0600.
    #[must_use]
    pub fn client_ticket(&self) -> PathBuf {
        self.tls().join("client.json")
    }

    /// The ticket of the agent with this rank; mode 0600.
    #[must_use]
    pub fn ticket(&self, rank: u32) -> PathBuf {
        self.tls().join(format!("agent-{rank}.json"))
    }
}

/// The file in an agent's folder of sockets in which a worker notes the task that it runs (eight bytes, little endian): after
/// its death the agent reads there whose fault it was, for calls that had ended may not have been reported yet.
#[must_use]
pub fn running_note(socket_dir: &Path, worker: u32) -> PathBuf {
    socket_dir.join(format!("worker-{worker}.running"))
}
