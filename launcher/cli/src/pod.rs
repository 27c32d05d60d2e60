//! `pod`: a pod's part of a gang. Rank 0 has the run folder, is the head with agent 0 and serves the folder to the others and to
//! clients; the others have a copy of what they need, and ship what they write. Owns the order in which these begin and end.

use crate::echo::Echo;
use crate::error::{BROKEN, DAMAGED, OK, RUN_FAILED};
use crate::join::Awaited;
use crate::node;
use crate::pod_place::PodPlace;
use crate::processes::{self, HeadPart, Surroundings};
use crate::{args, orders, output, place, standing};
use bridgehead_head::{Allocation, RunOutcome};
use bridgehead_kubernetes::pod::{BUNDLE, HOME, PORT, SECRET};
use bridgehead_mirror::{Credentials, Remote, ServeOptions, Service};
use bridgehead_spec::{RunConfig, RunFolder};
use bridgehead_wire::Ticket;
use serde_json::json;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long the others of a gang may take to find the head: their images may still be pulled.
const JOIN_PATIENCE: Duration = Duration::from_secs(600);
/// How long a bundle may take that a client brings.
const BUNDLE_PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// How long a kept folder is lent at most.
const LEND_PATIENCE: Duration = Duration::from_secs(600);
/// How long agents have to ship their last words once their run is over.
const LAST_WORDS: Duration = Duration::from_secs(15);
/// Most time that a run is given to come to rest before its time limit.
const NOTICE: Duration = Duration::from_secs(120);
/// Between looks for another head.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// What a pod ends with that is to be started again: it was told to go before its run had ended.
const AGAIN: u8 = 75;
/// Where Kubernetes reads a container's last words, at most so many bytes.
const TERMINATION: (&str, usize) = ("/dev/termination-log", 4096);

/// `bridgehead pod`.
pub(crate) fn pod(args: &args::Pod) -> u8 {
    let done = PodPlace::read(&place::variables()).map_err(Into::into);
    let (code, end) = match done.and_then(|place| Pod::new(args, place)?.run()) {
        Ok(ended) => ended,
        Err(error) => {
            output::note(format!("cannot go on: {error}"));
            (BROKEN, error.to_string())
        }
    };
    last_words(args, code, &end);
    code
}

/// What `why` reads of a pod whose logs are gone.
fn last_words(args: &args::Pod, code: u8, end: &str) {
    let end: String = end.chars().take(TERMINATION.1 / 8).collect();
    let rank = PodPlace::read(&place::variables()).ok().map(|place| place.rank);
    let words = json!({ "rank": rank, "launch": args.launch, "code": code, "end": end }).to_string();
    let _ = std::fs::write(TERMINATION.0, words); // Outside a pod there is nobody to read it.
}

struct Pod {
    folder: RunFolder,
    place: PodPlace,
    echo: Echo,
}

impl Pod {
    fn new(args: &args::Pod, place: PodPlace) -> Result<Self> {
        // Where all pods mount the volume, it is the head's alone: an agent has a copy of its own.
        let folder = match args.run_dir.file_name() {
            Some(run) if !place.is_head() => RunFolder::new(Path::new(HOME).join("runs").join(run)),
            _ => RunFolder::new(&args.run_dir),
        };
        make_folder(&folder)?;
        let out = File::from(std::io::stdout().as_fd().try_clone_to_owned()?);
        let mine = if place.is_head() { is_heads } else { is_agents };
        let echo = Echo::start(folder.logs(), mine, out);
        node::log_into(&folder, place.rank)?;
        processes::begin();
        orders::may_leave(AGAIN);
        orders::watch()?;
        Ok(Self { folder, place, echo })
    }

    /// The exit code, and the end in words.
    fn run(self) -> Result<(u8, String)> {
        let ended = if self.place.lends {
            self.lend()
        } else if self.place.is_head() {
            self.head()
        } else {
            self.agent()
        };
        match &ended {
            Ok((DAMAGED, reason)) => tracing::error!(reason, "cannot begin"),
            Ok(_) => {}
            Err(error) => tracing::error!(%error, "cannot go on"),
        }
        self.echo.stop();
        ended
    }

    fn serve(&self) -> Result<Service> {
        // What an earlier life left here names nothing that is alive.
        let _ = std::fs::remove_file(self.folder.head());
        let secret = Path::new(SECRET);
        Ok(Service::start(ServeOptions {
            folder: self.folder.clone(),
            listen: SocketAddr::new(self.place.listen(), PORT),
            head: Credentials::read(secret, "head")?,
            client_certificate: std::fs::read_to_string(secret.join("client.pem"))?,
            life: self.place.life.clone(),
            agents: self.place.nodes,
        })?)
    }

    /// Lends a kept folder until a client has what it wants.
    fn lend(&self) -> Result<(u8, String)> {
        let service = self.serve()?;
        orders::may_leave(OK);
        tracing::info!("lending the run folder");
        let collected = service.wait_collected(LEND_PATIENCE);
        service.stop();
        let end = if collected {
            "lent the run folder"
        } else {
            "nobody came for the run folder"
        };
        Ok((OK, end.to_owned()))
    }

    fn head(&self) -> Result<(u8, String)> {
        let service = self.serve()?;
        if let Err(error) = self.unpack(|| {
            tracing::info!("waiting for the run's files: `bridgehead watch` brings them");
            let bundle = service.wait_bundle(BUNDLE_PATIENCE);
            let bundle = bundle.ok_or("nobody brought the run's files")?;
            Ok(std::fs::read(bundle)?)
        }) {
            return Ok((DAMAGED, error.to_string()));
        }
        let config = self.config()?;
        if let Err(reason) = check_python(&config) {
            return Ok((DAMAGED, reason));
        }
        report_transport(&config);
        let surroundings = self.surroundings(&config, None);
        let part = HeadPart {
            allocation: Some(self.allocation()),
            hosts: Vec::new(),
            life: self.place.life.clone(),
            gang: None,
        };
        orders::stays();
        let outcome = processes::run_head(&self.folder, config, surroundings, part);
        let code = outcome.as_ref().map_or(BROKEN, exit_code);
        orders::may_leave(code);
        let outcome = outcome?;
        // Agents of a run that goes on stay, and ship what is left to the next head.
        if code != AGAIN && !service.wait_done(self.place.nodes - 1, LAST_WORDS) {
            tracing::warn!("not every agent has shipped its log");
        }
        if code != AGAIN && !self.place.keep.is_zero() {
            let minutes = self.place.keep.as_secs() / 60;
            tracing::info!(
                minutes,
                phase = outcome.phase,
                "the run is over; waiting for its results to be fetched"
            );
            if !service.wait_collected(self.place.keep) {
                tracing::warn!("nobody fetched the results in time: they go with this pod");
            }
        }
        service.stop();
        let end = if outcome.message.is_empty() {
            outcome.phase
        } else {
            format!("{}: {}", outcome.phase, outcome.message)
        };
        Ok((code, end))
    }

    fn agent(&self) -> Result<(u8, String)> {
        let secret = Path::new(SECRET);
        let agent = Credentials::read(secret, "agent")?;
        let remote = Arc::new(Remote::new(self.place.addresses(), &agent, &self.place.life)?);
        if let Err(error) = self.unpack(|| Ok(remote.bundle(BUNDLE_PATIENCE)?)) {
            return Ok((DAMAGED, error.to_string()));
        }
        let config = self.config()?;
        report_transport(&config);
        let shipping = remote.ship_logs(&self.folder, self.place.rank)?;
        let served = self.serve_heads(&remote, &config);
        if let Err(error) = shipping.finish() {
            tracing::warn!(%error, "the last words of this agent's log stay here");
        }
        served
    }

    /// Serves one head after another until one dismisses this agent.
    fn serve_heads(&self, remote: &Arc<Remote>, config: &RunConfig) -> Result<(u8, String)> {
        let rank = self.place.rank;
        let mut last = Vec::new();
        loop {
            let ticket = another_ticket(remote, rank, &last)?;
            bridgehead_head::tls::write_secret(&self.folder.ticket(rank), &serde_json::to_vec(&ticket)?)?;
            last = ticket.secret;
            let awaited = Awaited::Life {
                life: &self.place.life,
                after: 0, // It is there already.
            };
            let surroundings = self.surroundings(config, Some(remote.clone()));
            let over = || false;
            orders::stays();
            let served = processes::run_agent(
                &self.folder,
                config,
                &surroundings,
                rank,
                &awaited,
                JOIN_PATIENCE,
                &over,
            );
            orders::may_leave(AGAIN);
            let served = served?;
            if !served.forsaken && !served.goes_on {
                return Ok((OK, "dismissed by the head".to_owned()));
            }
            tracing::info!("the head is gone; another one may come");
        }
    }

    /// Puts the run's files where they are not yet: from the mounted pieces, or as `bring` has them.
    fn unpack(&self, bring: impl FnOnce() -> Result<Vec<u8>>) -> Result<()> {
        let pieces = Path::new(BUNDLE);
        let bundle = if pieces.is_dir() {
            bridgehead_mirror::read_parts(pieces)?
        } else {
            bring()?
        };
        Ok(bridgehead_mirror::unpack(
            &bundle,
            self.folder.path(),
            &self.place.project(),
        )?)
    }

    /// The run's configuration as it is here: other paths, and agents that measure their own pods.
    fn config(&self) -> Result<RunConfig> {
        let mut config = processes::read_config(&self.folder)?;
        let there = config.project.take();
        let here = self.place.project();
        let moved = |path: &Path| {
            let rest = path.strip_prefix(there.as_deref()?).ok()?;
            let path = here.join(rest);
            path.is_dir().then_some(path)
        };
        // What lies outside the project stays behind: the image has its own packages.
        let entries = config.sys_path.iter().filter_map(|entry| moved(Path::new(entry)));
        config.sys_path = entries.map(|entry| entry.display().to_string()).collect();
        config.cwd = moved(&config.cwd).unwrap_or(here);
        config.python = self.place.python.clone();
        config.transport.ucx = None; // The image has its own, or none.
        config.trace = config.trace.map(|_| self.folder.logs().join("trace.json"));
        config.agents = vec![self.place.own(config.store_limit); self.place.nodes as usize];
        config.join_timeout_ms = u64::try_from(JOIN_PATIENCE.as_millis())?;
        Ok(config)
    }

    fn surroundings(&self, config: &RunConfig, far: Option<Arc<Remote>>) -> Surroundings {
        let folder = self.folder.clone();
        Surroundings {
            own: self.place.own(config.store_limit),
            address: self.place.address,
            far: far.map(|remote| Arc::new(FarFolder { remote, folder }) as Arc<dyn bridgehead_agent::FarFolder>),
        }
    }

    fn allocation(&self) -> Allocation {
        let limit = self.place.time_limit;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = limit.and_then(|limit| u64::try_from((now + limit).as_nanos()).ok());
        Allocation {
            end_ns: end,
            notice: limit.map_or(NOTICE, |limit| NOTICE.min(limit / 4)),
        }
    }
}

/// Refuses an image whose interpreter cannot read what the run's functions were pickled to.
fn check_python(config: &RunConfig) -> std::result::Result<(), String> {
    let Some(made) = &config.python_version else {
        return Ok(());
    };
    let python = config.python.display();
    let asked = std::process::Command::new(&config.python)
        .args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"])
        .output();
    let said = asked.map_err(|e| {
        format!("the image cannot start {python}: {e}; name its interpreter with --kubernetes python=FILE")
    })?;
    let here = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    if here == *made {
        return Ok(());
    }
    Err(format!(
        "{python} of the image is Python {here}, and the run was made with Python {made}: take an image or an interpreter of the same version"
    ))
}

/// How bytes will go between the pods and why, and what could hold RDMA up: a container gets its limit of locked memory from its
/// node's runtime, whatever the pod asks for.
fn report_transport(config: &RunConfig) {
    let machine = bridgehead_topology::Topology::here();
    let locked = machine.limits.locked_memory;
    let locked = locked.map_or("without limit".to_owned(), |bytes| format!("{bytes} bytes at most"));
    match crate::transport::decide_here(&config.transport) {
        Ok(decision) => {
            let (transport, reason) = (decision.name(), decision.reason());
            tracing::info!(transport, reason, locked_memory = locked, "between pods");
        }
        Err(reason) => tracing::warn!(reason, locked_memory = locked, "no transport"),
    }
}

/// The ticket of another head than the one whose ticket had the secret `last`: one that was lost may answer still. Attempts do not
/// tell heads apart, since one whose folder went with its pod counts from the beginning.
fn another_ticket(remote: &Remote, rank: u32, last: &[u8]) -> Result<Ticket> {
    let end = Instant::now() + JOIN_PATIENCE;
    loop {
        let ticket = remote.ticket(rank, end.saturating_duration_since(Instant::now()))?;
        if ticket.secret != last {
            return Ok(ticket);
        }
        if Instant::now() > end {
            return Err("no other head came".into());
        }
        std::thread::sleep(AGAIN_AFTER); // The head of before has to notice that it is gone.
    }
}

/// What an agent has of the head's folder.
#[derive(Debug)]
struct FarFolder {
    remote: Arc<Remote>,
    folder: RunFolder,
}

impl bridgehead_agent::FarFolder for FarFolder {
    fn bring(&self, relative: &Path) -> std::io::Result<()> {
        self.remote.bring(&self.folder, relative)
    }

    fn send(&self, relative: &Path) -> std::io::Result<()> {
        self.remote.send(&self.folder, relative)
    }
}

/// A run that is over is not to be started again, whatever its end; one that was cut off is.
fn exit_code(outcome: &RunOutcome) -> u8 {
    let over = standing::is_final(&json!({ "phase": outcome.phase }));
    match outcome.phase.as_str() {
        "finished" => OK,
        _ if over => RUN_FAILED,
        "paused" if outcome.cause == "walltime" => RUN_FAILED, // `resume` goes on, with more time.
        _ => AGAIN,
    }
}

fn is_heads(name: &str) -> bool {
    name == "head.log" || name == "tasks-0.jsonl"
}

/// Of an agent's own copy all is its own, but for what workers say of themselves.
fn is_agents(name: &str) -> bool {
    name.starts_with("agent-") || name.starts_with("tasks-")
}

/// The run folder's folders, seen by nobody else.
fn make_folder(folder: &RunFolder) -> Result<()> {
    let blobs = folder.path().join("blobs");
    let parts = [
        folder.path().to_owned(),
        folder.journal(),
        folder.logs(),
        folder.results(),
        folder.mailbox(),
        folder.tls(),
        blobs,
    ];
    for part in parts {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&part);
        made.map_err(|e| {
            format!(
                "cannot make {}: {e}; can this pod's user write its volume?",
                part.display()
            )
        })?;
    }
    Ok(())
}
