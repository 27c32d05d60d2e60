//! What a head needs to begin, how its run ends, and why it could not go on.

use crate::allocation::Allocation;
use crate::core::LoadError;
use crate::journal::JournalError;
use crate::tls::TlsError;
use bridgehead_plan::PlanReadError;
use bridgehead_spec::{RunConfig, RunFolder};
use bridgehead_wire::{AgentToHead, HeadToAgent};
use std::path::PathBuf;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

/// The link to the agent in this process.
#[derive(Debug)]
pub struct AgentLink {
    /// To the agent.
    pub to_agent: UnboundedSender<HeadToAgent>,
    /// From the agent.
    pub from_agent: UnboundedReceiver<AgentToHead>,
}

/// What a head needs.
#[derive(Debug)]
pub struct HeadOptions {
    /// The run folder; `run.json` is in it.
    pub folder: RunFolder,
    /// What `run.json` says.
    pub config: RunConfig,
    /// A folder of mode 0700 for sockets.
    pub socket_dir: PathBuf,
    /// Path of the store socket of agent 0.
    pub store_socket: PathBuf,
    /// The agent in this process.
    pub agent0: AgentLink,
    /// This host's name.
    pub host: String,
    /// Address to listen on for agents and remote clients; a free port is taken. On one that is not the loopback's the head
    /// listens even if it has no other agent, and writes a ticket for clients.
    pub listen: std::net::IpAddr,
    /// Names or addresses of this host that the others are told, to be tried in order; `listen` itself where empty.
    pub advertise: Vec<String>,
    /// The allocation of this attempt, where a scheduler lent one: then SIGUSR1 brings the run to rest before the allocation's
    /// end, and SIGTERM pauses it at once. Without one SIGTERM cancels the run.
    pub allocation: Option<Allocation>,
    /// The hosts of the agents by rank, as far as they are known.
    pub expected_hosts: Vec<String>,
    /// What tickets are marked with, so that an agent of a later start of the same job does not take an old one.
    pub life: String,
    /// The gang of the launch plan that this head runs, with what earlier ones left open; all tasks where left out. The run is
    /// paused when only tasks of later gangs are left.
    pub gang: Option<u32>,
}

/// How the run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunOutcome {
    /// `finished`, `failed` or `cancelled`; `paused` where another attempt is to go on, `superseded` where one does already.
    pub phase: String,
    /// Why it was paused, as `RunPaused` says it; empty otherwise.
    pub cause: String,
    /// For people.
    pub message: String,
}

/// Why a head could not run.
#[derive(Debug, Error)]
pub enum HeadError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The pipeline or its blobs.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The launch plan.
    #[error("{path}: {source}")]
    Plan {
        /// The file.
        path: PathBuf,
        /// Why it is none.
        source: PlanReadError,
    },
    /// The system.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Another head runs this run.
    #[error(
        "process {pid} is the head of this run and at work: `bridgehead watch` follows it, `bridgehead cancel` ends it"
    )]
    AtWork {
        /// Its process id.
        pid: u32,
    },
}

pub(crate) fn io_error(doing: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> HeadError {
    move |source| HeadError::Io { doing, path, source }
}
