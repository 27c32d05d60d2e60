//! The processes of a run, put together: the head with the agent of its node, further agents, reapers.

use crate::args;
use crate::error::{BROKEN, OK, RUN_FAILED};
use bridgehead_agent::{AgentOptions, Link};
use bridgehead_fabric::Fabric;
use bridgehead_head::{AgentLink, HeadOptions, RunOutcome};
use bridgehead_spec::{AgentId, RunConfig, RunFolder};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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

fn read_config(folder: &RunFolder) -> Result<RunConfig> {
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
        let _hang_up = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup())?;
        future.await
    })
}

fn report(result: Result<RunOutcome>) -> u8 {
    match result {
        Ok(outcome) if outcome.phase == "finished" => OK,
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

/// `bridgehead head`.
pub(crate) fn head(args: &args::Head) -> u8 {
    log();
    bridgehead_agent::take_orphans();
    report(run_head(&args.run_dir))
}

fn run_head(run_dir: &Path) -> Result<RunOutcome> {
    let folder = RunFolder::new(std::fs::canonicalize(run_dir)?);
    let config = read_config(&folder)?;
    let incarnation = random_name()?;
    let socket_dir = bridgehead_local::socket_dir(&incarnation)?;
    let (to_agent, from_head) = unbounded_channel();
    let (to_head, from_agent) = unbounded_channel();
    let agent = agent_options(&folder, &config, 0, incarnation, socket_dir.clone())?;
    let options = HeadOptions {
        store_socket: socket_dir.join("store-0.sock"),
        agent0: AgentLink { to_agent, from_agent },
        host: host(),
        listen: std::net::Ipv4Addr::LOCALHOST.into(),
        advertise: Vec::new(),
        allocation: None,
        expected_hosts: Vec::new(),
        gang: None,
        socket_dir: socket_dir.clone(),
        folder,
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
    rank: u32,
    incarnation: String,
    socket_dir: PathBuf,
) -> Result<AgentOptions> {
    let agent = config
        .agents
        .get(rank as usize)
        .ok_or_else(|| format!("the run has no agent {rank}"))?;
    Ok(AgentOptions {
        agent: AgentId(rank),
        folder: folder.clone(),
        resources: agent.resources.clone(),
        store_limit: agent.store_limit,
        incarnation,
        socket_dir,
        reaper: std::env::current_exe()?,
        ticket: Vec::new(),
        run: config.run.to_string(),
        host: host(),
        fabric: bridgehead_agent::FabricMaker(Box::new(make_fabric)),
        known: (rank == 0).then(|| bridgehead_agent::foreseen(config, None)),
    })
}

/// The network between the stores of a local run: TCP on loopback.
fn make_fabric(agent: u32, key: [u8; 32]) -> std::result::Result<Arc<dyn Fabric>, String> {
    let options = bridgehead_tcp::Options::new(agent, key, std::net::Ipv4Addr::LOCALHOST.into());
    let fabric = bridgehead_tcp::TcpFabric::start(options).map_err(|e| e.to_string())?;
    Ok(Arc::new(fabric))
}

/// `bridgehead agent`.
pub(crate) fn agent(args: &args::Agent) -> u8 {
    log();
    bridgehead_agent::take_orphans();
    match run_agent(&args.run_dir, args.rank) {
        Ok(()) => OK,
        Err(error) => {
            tracing::error!(%error, "cannot go on");
            BROKEN
        }
    }
}

fn run_agent(run_dir: &Path, rank: u32) -> Result<()> {
    let started = std::time::SystemTime::now() - std::time::Duration::from_secs(1);
    let folder = RunFolder::new(std::fs::canonicalize(run_dir)?);
    let config = read_config(&folder)?;
    let incarnation = random_name()?;
    block_on(async move {
        let ticket = crate::join::wait_ticket(&folder.ticket(rank), started).await?;
        let link = crate::join::join(&ticket).await?;
        // Not before it is needed: the reaper, which removes it however this process ends, starts with the agent.
        let socket_dir = bridgehead_local::socket_dir(&incarnation)?;
        let mut options = agent_options(&folder, &config, rank, incarnation, socket_dir.clone())?;
        options.ticket.clone_from(&ticket.secret);
        let result = bridgehead_agent::run(options, link).await;
        let _ = std::fs::remove_dir_all(&socket_dir); // Mostly the reaper has done it.
        result?;
        Ok(())
    })
}

/// `bridgehead reaper`.
pub(crate) fn reaper(args: &args::Reaper) -> u8 {
    bridgehead_agent::reaper_main(&args.incarnation, &args.socket_dir);
    OK
}
