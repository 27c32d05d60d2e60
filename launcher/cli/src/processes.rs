//! The processes of a run, put together: the head with the agent of its node, further agents, reapers.

use crate::args;
use crate::error::{BROKEN, OK, RUN_FAILED};
use crate::join::{self, Awaited, Dismissed};
use crate::transport;
use bridgehead_agent::{AgentOptions, FarFolder, Link};
use bridgehead_head::{AgentLink, Allocation, HeadOptions, RunOutcome};
use bridgehead_spec::{AgentConfig, AgentId, RunConfig, RunFolder};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::task::LocalSet;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// One set-up of logging for every process: people read it, on standard error (a log file for heads and agents).
fn log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BRIDGEHEAD_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false) // A full disk under the log must not end the process.
        .init();
}

/// What the run folder tells this process to do.
pub(crate) fn read_config(folder: &RunFolder) -> Result<RunConfig> {
    let path = folder.config();
    let bytes = std::fs::read(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    Ok(serde_json::from_slice(&bytes).map_err(|e| format!("{} is not valid: {e}", path.display()))?)
}

fn random_name() -> Result<String> {
    let bytes = bridgehead_head::tls::random::<8>()?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Runs `future` on a runtime of one thread: head and agent share it, so that a message between them is no wake-up.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        // A terminal that goes away takes its processes with it by this signal; a run outlives the shell that started it.
        let _hang_up = signal(SignalKind::hangup())?;
        future.await
    })
}

/// The exit code of a head, with what is to be said about it.
pub(crate) fn report(result: Result<RunOutcome>) -> u8 {
    match result {
        Ok(outcome) if outcome.phase == "finished" => OK,
        Ok(outcome) if outcome.phase == "paused" => {
            tracing::info!(cause = outcome.cause, message = outcome.message, "the run pauses");
            OK
        }
        Ok(outcome) => {
            tracing::info!(phase = outcome.phase, message = outcome.message, "the run has ended");
            RUN_FAILED
        }
        Err(error) => {
            tracing::error!(%error, "cannot go on");
            BROKEN
        }
    }
}

/// What a process of a run finds around it.
pub(crate) struct Surroundings {
    /// What its agent may give to tasks.
    pub own: AgentConfig,
    /// Where it listens for the other nodes.
    pub address: IpAddr,
    /// The way to the run folder's other parts, where this one is a copy.
    pub far: Option<Arc<dyn FarFolder>>,
}

/// What a head is told besides.
#[derive(Default)]
pub(crate) struct HeadPart {
    /// What a scheduler lent.
    pub allocation: Option<Allocation>,
    /// The hosts of the agents, by rank.
    pub hosts: Vec<String>,
    /// What its tickets are marked with.
    pub life: String,
    /// The highest gang whose tasks it runs; all if `None`.
    pub gang: Option<u32>,
}

/// Logging and orphans, before anything else happens in a process of a run.
pub(crate) fn begin() {
    log();
    bridgehead_agent::take_orphans();
}

/// `bridgehead head`.
pub(crate) fn head(args: &args::Head) -> u8 {
    begin();
    report(start_head(&args.run_dir))
}

fn start_head(run_dir: &Path) -> Result<RunOutcome> {
    let folder = RunFolder::new(std::fs::canonicalize(run_dir)?);
    let config = read_config(&folder)?;
    let surroundings = here(&config, 0)?;
    run_head(&folder, config, surroundings, HeadPart::default())
}

/// An agent of this machine, as `run.json` shares it out.
fn here(config: &RunConfig, rank: u32) -> Result<Surroundings> {
    let own = config.agents.get(rank as usize);
    Ok(Surroundings {
        own: own.ok_or_else(|| format!("the run has no agent {rank}"))?.clone(),
        address: Ipv4Addr::LOCALHOST.into(),
        far: None,
    })
}

/// The head and agent 0, in this process, to their end.
pub(crate) fn run_head(
    folder: &RunFolder,
    config: RunConfig,
    surroundings: Surroundings,
    part: HeadPart,
) -> Result<RunOutcome> {
    let incarnation = random_name()?;
    let socket_dir = bridgehead_local::socket_dir(&incarnation)?;
    let (to_agent, from_head) = unbounded_channel();
    let (to_head, from_agent) = unbounded_channel();
    let mut agent = agent_options(folder, &config, &surroundings, 0, incarnation, socket_dir.clone())?;
    let end = part.allocation.and_then(|allocation| allocation.tasks_end_ns());
    agent.known = Some(bridgehead_agent::foreseen(&config, end));
    let options = HeadOptions {
        store_socket: socket_dir.join("store-0.sock"),
        agent0: AgentLink { to_agent, from_agent },
        host: host(),
        listen: surroundings.address,
        advertise: Vec::new(),
        allocation: part.allocation,
        expected_hosts: part.hosts,
        life: part.life,
        gang: part.gang,
        socket_dir: socket_dir.clone(),
        folder: folder.clone(),
        config,
    };
    let result = block_on(async move {
        let agent = tokio::task::spawn_local(bridgehead_agent::run(agent, Link { to_head, from_head }));
        tokio::task::yield_now().await; // The agent's reaper is there before the head's first socket.
        let outcome = bridgehead_head::run(options).await;
        // The agent ends when its link does, and takes its workers with it.
        agent.await??;
        Ok(outcome?)
    });
    let _ = std::fs::remove_dir_all(&socket_dir); // The reaper would do it, a moment later.
    result
}

fn agent_options(
    folder: &RunFolder,
    config: &RunConfig,
    surroundings: &Surroundings,
    rank: u32,
    incarnation: String,
    socket_dir: PathBuf,
) -> Result<AgentOptions> {
    let address = surroundings.address;
    let transport = config.transport.clone();
    if transport.required && config.agents.len() != 1 {
        // Here, and not when the first object is wanted.
        transport::decide_here(&transport)?;
    }
    Ok(AgentOptions {
        agent: AgentId(rank),
        folder: folder.clone(),
        resources: surroundings.own.resources.clone(),
        store_limit: surroundings.own.store_limit,
        verify_objects: config.verify_objects,
        gpu_memory: gpu_memory(&surroundings.own),
        topology: bridgehead_topology::Topology::here(),
        incarnation,
        socket_dir,
        reaper: std::env::current_exe()?,
        ticket: Vec::new(),
        run: config.run.to_string(),
        host: host(),
        fabric: bridgehead_agent::FabricMaker(Box::new(move |agent, key| {
            transport::make(&transport, agent, key, address)
        })),
        known: None,
        far: surroundings.far.clone(),
    })
}

/// The memory of the agent's GPUs: CUDA's, or, where that does not have one, as much host memory as is its share of the store.
fn gpu_memory(own: &AgentConfig) -> Vec<bridgehead_store_gpu::Device> {
    let gpus = own.resources.gpus;
    bridgehead_store_gpu::devices(gpus, own.store_limit / u64::from(gpus.max(1)))
}

/// `bridgehead agent`.
pub(crate) fn agent(args: &args::Agent) -> u8 {
    begin();
    match start_agent(&args.run_dir, args.rank) {
        Ok(()) => OK,
        Err(error) => {
            tracing::error!(%error, "cannot go on");
            BROKEN
        }
    }
}

fn start_agent(run_dir: &Path, rank: u32) -> Result<()> {
    let started = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    let folder = RunFolder::new(std::fs::canonicalize(run_dir)?);
    let config = read_config(&folder)?;
    let surroundings = here(&config, rank)?;
    let awaited = Awaited::Since(started);
    run_agent(&folder, &config, &surroundings, rank, &awaited, join::PATIENCE, &|| {
        false
    })?;
    Ok(())
}

/// How an agent's service ended.
pub(crate) struct Served {
    /// The attempt that it served.
    pub attempt: u32,
    /// The head was gone without a word, so that its node may be lost.
    pub forsaken: bool,
    /// The head has said that another one goes on.
    pub goes_on: bool,
}

/// An agent, from its ticket to its end.
///
/// # Errors
/// No ticket came in time, the head cannot be joined, or the agent cannot go on.
pub(crate) fn run_agent(
    folder: &RunFolder,
    config: &RunConfig,
    surroundings: &Surroundings,
    rank: u32,
    awaited: &Awaited<'_>,
    patience: Duration,
    over: &dyn Fn() -> bool,
) -> Result<Served> {
    let incarnation = random_name()?;
    let awaits_orders = matches!(awaited, Awaited::Life { .. });
    block_on(async move {
        // A scheduler's signals are for the head: it has the agents write down what is needed, and then sends them away.
        let orders = [SignalKind::terminate(), SignalKind::user_defined1()];
        let orders = orders.into_iter().filter(|_| awaits_orders).map(signal);
        let _orders = orders.collect::<std::io::Result<Vec<_>>>()?;
        let (ticket, joined) = join::join_in_time(&folder.ticket(rank), awaited, patience, over).await?;
        // Not before it is needed: the reaper, which removes it however this process ends, starts with the agent.
        let socket_dir = bridgehead_local::socket_dir(&incarnation)?;
        let mut options = agent_options(folder, config, surroundings, rank, incarnation, socket_dir.clone())?;
        options.ticket.clone_from(&ticket.secret);
        let result = bridgehead_agent::run(options, joined.link).await;
        let _ = std::fs::remove_dir_all(&socket_dir); // Mostly the reaper has done it.
        result?;
        Ok(Served {
            attempt: ticket.attempt,
            forsaken: joined.dismissed.get() == Dismissed::No,
            goes_on: joined.dismissed.get() == Dismissed::GoesOn,
        })
    })
}

/// `bridgehead reaper`.
pub(crate) fn reaper(args: &args::Reaper) -> u8 {
    bridgehead_agent::reaper_main(&args.incarnation, &args.socket_dir);
    OK
}
