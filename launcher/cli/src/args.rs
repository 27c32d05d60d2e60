//! The command line's words.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Carries one Python pipeline from a laptop to a cluster, unchanged.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Runs a script; its pipelines run on local agents.
    Run(Run),
    /// Prints what a script's pipeline would be run as, and why; starts nothing.
    Plan(Plan),
    /// Starts a script's pipeline, prints the run's id and returns.
    Submit(Submit),
    /// Lists runs.
    Ps(Ps),
    /// Shows how a run stands.
    Status(OneRun),
    /// Follows a run to its end.
    Watch(OneRun),
    /// Prints what tasks printed.
    Logs(Logs),
    /// Says in sentences what failed or what a run waits for, and the way out.
    Why(Why),
    /// Cancels what has not finished.
    Cancel(Cancel),
    /// Goes on with a run that was killed, cancelled or failed: what finished is not run again.
    Resume(Resume),
    /// Lists the results that a run left.
    Results(OneRun),
    /// Shows what this machine has and what each lack costs.
    Doctor(Doctor),
    /// Removes folders of ended runs, and the sockets of dead processes; never a run at work.
    Gc(Gc),
    /// Prints a completion script for a shell.
    Completions(Completions),
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
pub(crate) struct Script {
    /// Agents to share this machine, each with workers and a store of its own.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub agents: Option<u32>,
    /// Cores to use; all where left out.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpus: Option<u32>,
    /// Bytes that each agent's store may hold in memory, `8GiB` for instance; beyond it values go to disk.
    #[arg(long, value_name = "SIZE")]
    pub store: Option<String>,
    /// The Python interpreter.
    #[arg(long, value_name = "FILE", env = "BRIDGEHEAD_PYTHON")]
    pub python: Option<PathBuf>,
    /// The script.
    pub script: PathBuf,
    /// Its arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Trace {
    /// Write a Chrome trace (open it in Perfetto) to this file.
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub trace: Trace,
    #[command(flatten)]
    pub script: Script,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub script: Script,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub trace: Trace,
    #[command(flatten)]
    pub script: Script,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Ended runs too.
    #[arg(long, short)]
    pub all: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct OneRun {
    /// The run: its id, a unique prefix of it, or its folder.
    pub run: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// The run: its id, a unique prefix of it, or its folder.
    pub run: String,
    /// Only this task: its number, or a name for all tasks that have it.
    pub task: Option<String>,
    /// Wait for more until the run ends.
    #[arg(long, short)]
    pub follow: bool,
    /// As JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Why {
    /// The run: its id, a unique prefix of it, or its folder.
    pub run: String,
    /// This task: its number, or a name for all tasks that have it.
    pub task: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Cancel {
    /// The run: its id, a unique prefix of it, or its folder.
    pub run: String,
    /// Why, for the journal.
    #[arg(long, default_value = "cancelled by the user")]
    pub reason: String,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Resume {
    /// The run: its id, a unique prefix of it, or its folder.
    pub run: String,
    /// Return at once instead of following it.
    #[arg(long)]
    pub detach: bool,
    /// As JSON, one object a line.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Gc {
    /// Only runs whose last word is at least so many days old.
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    pub older_than: u64,
    /// Runs too whose head died, and that could be resumed.
    #[arg(long)]
    pub lost: bool,
    /// Only say what would be removed.
    #[arg(long)]
    pub dry_run: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell.
    pub shell: clap_complete::Shell,
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
