//! The command line's words.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Carries one Python pipeline from a laptop to a cluster, unchanged.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs the head of a run and the agent of its node (started by a backend, not by hand).
    #[command(hide = true)]
    Head(Head),
    /// Runs an agent of a further node (started by a backend, not by hand).
    #[command(hide = true)]
    Agent(Agent),
    /// Ends what an agent leaves running when it dies (started by an agent, not by hand).
    #[command(hide = true)]
    Reaper(Reaper),
}

#[derive(Debug, Args)]
pub(crate) struct Head {
    /// The run folder.
    #[arg(long)]
    pub run_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Agent {
    /// The run folder.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// The agent's rank in the gang; 0 is the head's.
    #[arg(long)]
    pub rank: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Reaper {
    /// The agent's mark.
    #[arg(long)]
    pub incarnation: String,
    /// The agent's socket folder, removed at the end.
    #[arg(long)]
    pub socket_dir: PathBuf,
}
