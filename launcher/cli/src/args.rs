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
    /// Has a run give its nodes back; `resume` goes on with it (Kubernetes).
    Suspend(OneRun),
    /// Goes on with a run that was killed, cancelled, suspended or failed: what finished is not run again.
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
    /// Serves PMIx to the ranks of a node, for an agent at its standard input (started by an agent, not by hand).
    #[command(hide = true)]
    PmixServer,
    /// Hands a run folder's gangs to its scheduler (started by the Python package, not by hand).
    #[command(hide = true)]
    Launch(Launch),
    /// Answers what a scheduler has and what it would be handed (asked by the Python package, not by hand).
    #[command(hide = true)]
    Backend,
    /// Runs a node's part of a gang: the head or an agent (started by a batch job, not by hand).
    #[command(hide = true)]
    Node(Node),
    /// Runs a pod's part of a gang: the head or an agent (started by Kubernetes, not by hand).
    #[command(hide = true)]
    Pod(Pod),
    /// Keeps the mirrored folder of a run current until standard input ends (started by the Python package, not by hand).
    #[command(hide = true)]
    Mirror(Mirror),
    /// Sees to what follows a gang that has ended (started by a batch job, not by hand).
    #[command(hide = true)]
    After(Node),
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

/// Where the pipeline goes. Without `--on` it stays on this machine, or goes where the script says.
#[derive(Debug, Args, Default)]
pub(crate) struct Target {
    /// The scheduler to hand the pipeline to.
    #[arg(long, value_name = "WHERE", value_parser = ["local", "slurm", "kubernetes"], help_heading = "Where")]
    pub on: Option<String>,
    /// Nodes; with `--cpus`, `--gpus` and `--memory` for each of them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Where")]
    pub nodes: Option<u32>,
    /// GPUs of each node.
    #[arg(long, value_name = "N", help_heading = "Where")]
    pub gpus: Option<u32>,
    /// Memory of each node, `8GiB` for instance.
    #[arg(long, value_name = "SIZE", help_heading = "Where")]
    pub memory: Option<String>,
    /// Time limit, `30m`, `2h` or `1-12:00:00` for instance.
    #[arg(long, value_name = "TIME", help_heading = "Where")]
    pub time: Option<String>,
    /// Partition.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub partition: Option<String>,
    /// Account to be charged.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub account: Option<String>,
    /// Quality of service.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub qos: Option<String>,
    /// Features that the nodes must have.
    #[arg(long, value_name = "LIST", help_heading = "Where")]
    pub constraint: Option<String>,
    /// Reservation.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub reservation: Option<String>,
    /// Nodes not to use.
    #[arg(long, value_name = "LIST", help_heading = "Where")]
    pub exclude: Option<String>,
    /// An array of N equal jobs of `--nodes` nodes each, at most M of them at a time: each helps as soon as it starts.
    #[arg(long, value_name = "N[%M]", help_heading = "Where")]
    pub array: Option<String>,
    /// The way to Slurm; chosen by what is there if left out.
    #[arg(long, value_name = "DOOR", value_parser = ["rest", "cli"], help_heading = "Where")]
    pub slurm_door: Option<String>,
    /// Where slurmrestd listens: `http://host:port`, `https://host:port` or `unix:/path`.
    #[arg(long, value_name = "URL", help_heading = "Where")]
    pub rest_url: Option<String>,
    /// A file with a token for slurmrestd.
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    pub token_file: Option<PathBuf>,
    /// Any other option of `bridgehead.Slurm`, by its name there; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Where")]
    pub slurm: Vec<String>,
    /// Queue: Volcano's, or the LocalQueue of Kueue.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub queue: Option<String>,
    /// What a gang becomes on Kubernetes; chosen by what the cluster has if left out.
    #[arg(long, value_name = "KIND", value_parser = ["volcano", "kueue", "appwrapper", "indexed-job", "code-engine"], help_heading = "Where")]
    pub flavor: Option<String>,
    /// Priority class of the pods.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub priority: Option<String>,
    /// Image that the agents run in.
    #[arg(long, value_name = "IMAGE", help_heading = "Where")]
    pub image: Option<String>,
    /// Namespace; the context's if left out.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub namespace: Option<String>,
    /// Context of the kubeconfig; the current one if left out.
    #[arg(long, value_name = "NAME", help_heading = "Where")]
    pub context: Option<String>,
    /// PersistentVolumeClaim that keeps the run folder; without one it goes with the head's pod.
    #[arg(long, value_name = "CLAIM", help_heading = "Where")]
    pub volume: Option<String>,
    /// How long the head waits for its results to be fetched where there is no volume; `1h` if left out.
    #[arg(long, value_name = "TIME", help_heading = "Where")]
    pub keep: Option<String>,
    /// Any other option of `bridgehead.Kubernetes`, by its name there; may be given several times.
    #[arg(long, value_name = "KEY=VALUE", help_heading = "Where")]
    pub kubernetes: Vec<String>,
    /// An option of `sbatch` that is handed on as it is, `--mail-type=END` for instance; may be given several times.
    #[arg(long, value_name = "OPTION", allow_hyphen_values = true, help_heading = "Where")]
    pub sbatch: Vec<String>,
}

/// How much at a time, and how much may go wrong.
#[derive(Debug, Args, Default)]
pub(crate) struct Limits {
    /// Most tasks that run at a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_running: Option<u32>,
    /// Tasks that may fail; one more ends the run.
    #[arg(long, value_name = "N")]
    pub max_fails: Option<u32>,
}

/// How bytes go between nodes, and whether they are checked.
#[derive(Debug, Args, Default)]
pub(crate) struct Transport {
    /// How bytes go between nodes: `auto` is UCX where it would use RDMA devices, else TCP.
    #[arg(long, value_name = "NAME", value_parser = ["auto", "tcp", "ucx"])]
    pub transport: Option<String>,
    /// The same, and end the run with the reason where it cannot be had, instead of taking TCP.
    #[arg(long, value_name = "NAME", value_parser = ["ucx"], conflicts_with = "transport")]
    pub require_transport: Option<String>,
    /// Take a sum of each object of the store, and check it wherever its bytes are moved: to another node, to a file, and back.
    #[arg(long)]
    pub verify_objects: bool,
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
    pub limits: Limits,
    #[command(flatten)]
    pub transport: Transport,
    #[command(flatten)]
    pub script: Script,
}

#[derive(Debug, Args)]
pub(crate) struct Plan {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub target: Target,
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
    pub target: Target,
    #[command(flatten)]
    pub limits: Limits,
    #[command(flatten)]
    pub transport: Transport,
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
    #[command(flatten)]
    pub target: Target,
}

#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// The ways between nodes: what there is, what a run would take and why, and how fast each is on this machine. Takes some seconds.
    #[arg(long)]
    pub transport: bool,
    /// Another machine, from the XML of hwloc (`lstopo --of xml`): its processors, NUMA nodes, GPUs and cards.
    #[arg(long, value_name = "FILE", conflicts_with = "transport")]
    pub topology: Option<PathBuf>,
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

#[derive(Debug, Args)]
pub(crate) struct Launch {
    /// The run folder.
    #[arg(long)]
    pub run_dir: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Node {
    /// The run folder.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// Which launch of the run.
    #[arg(long)]
    pub launch: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Pod {
    /// The run folder in this pod.
    #[arg(long)]
    pub run_dir: PathBuf,
    /// Which launch of the run.
    #[arg(long)]
    pub launch: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Mirror {
    /// The run folder.
    pub run_dir: PathBuf,
    /// Bring what there is and end.
    #[arg(long)]
    pub once: bool,
}
