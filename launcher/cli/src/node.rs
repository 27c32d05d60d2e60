//! `node`: a node's part of a gang that a batch system started. Rank 0 is the head with agent 0, the others are agents that
//! find it by their tickets in the run folder. What they log goes to `logs/` of the run folder, as on this machine.

use crate::args;
use crate::error::{BROKEN, OK};
use crate::join::Awaited;
use crate::place::{self, Place, Variables};
use crate::processes::{self, HeadPart, Surroundings};
use crate::{launch, standing, survivor};
use bridgehead_backend::{JobRef, ledger};
use bridgehead_head::Allocation;
use bridgehead_spec::{RunConfig, RunFolder};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long an agent of an array waits for a head: the job that carries it may start later, or again.
const ARRAY_PATIENCE: Duration = Duration::from_secs(600);
/// How long the scheduler is asked for the end of the allocation; without an answer there is none that we know of.
const ASK_PATIENCE: Duration = Duration::from_secs(5);
/// Most time that a run is given to come to rest before its allocation ends, where nobody has said.
const NOTICE: Duration = Duration::from_secs(120);

/// `bridgehead node`.
pub(crate) fn node(args: &args::Node) -> u8 {
    match run(args) {
        Ok(code) => code,
        Err(error) => {
            crate::output::note(format!("cannot go on: {error}"));
            BROKEN
        }
    }
}

fn run(args: &args::Node) -> Result<u8> {
    let variables = place::variables();
    let place = Place::read(&variables)?;
    let path = std::fs::canonicalize(&args.run_dir).map_err(|e| {
        let dir = args.run_dir.display();
        format!(
            "the run folder {dir} is not seen on this node ({e}): set BRIDGEHEAD_HOME to a folder that all nodes share"
        )
    })?;
    let folder = RunFolder::new(path);
    log_into(&folder, place.rank)?;
    processes::begin();
    let (config, surroundings) = surroundings(&folder, &place, &variables)?;
    if place.is_head() {
        let part = head_part(&folder, &config, &place, args.launch);
        return Ok(processes::report(processes::run_head(
            &folder,
            config,
            surroundings,
            part,
        )));
    }
    serve(&folder, &config, &surroundings, &place, args.launch)
}

/// From now on standard error is this process's log.
pub(crate) fn log_into(folder: &RunFolder, rank: u32) -> Result<()> {
    let name = if rank == 0 {
        "head.log".to_owned()
    } else {
        format!("agent-{rank}.log")
    };
    let path = folder.logs().join(name);
    let log = std::fs::OpenOptions::new().append(true).create(true).open(&path);
    let log = log.map_err(|e| format!("cannot write {}: {e}", path.display()))?;
    rustix::stdio::dup2_stderr(log.as_fd())?;
    rustix::stdio::dup2_stdout(log.as_fd())?;
    Ok(())
}

/// The run's configuration with agents as they are here, and this node's own part.
fn surroundings(folder: &RunFolder, place: &Place, variables: &Variables) -> Result<(RunConfig, Surroundings)> {
    let mut config = processes::read_config(folder)?;
    let machine = bridgehead_topology::Topology::here();
    let own = place::measure(variables, &machine, config.store_limit);
    let agents = usize::try_from(place.nodes * place.elements)?;
    config.agents = vec![own.clone(); agents];
    if place.elements > 1 {
        config.min_agents = Some(place.nodes); // The others help as soon as their jobs start.
    }
    let address = match address(variables) {
        Ok(address) => address,
        Err(_) if agents == 1 => Ipv4Addr::LOCALHOST.into(),
        Err(error) => return Err(error),
    };
    Ok((
        config,
        Surroundings {
            own,
            address,
            far: None,
        },
    ))
}

/// The address of this node in the network of the gang; `BRIDGEHEAD_SUBNET` chooses one of several.
fn address(variables: &Variables) -> Result<IpAddr> {
    let subnet = variables.get("BRIDGEHEAD_SUBNET").filter(|text| !text.is_empty());
    let subnet = subnet.map(|text| text.parse().map_err(|e| format!("BRIDGEHEAD_SUBNET={text}: {e}")));
    Ok(bridgehead_tcp::choose_address(subnet.transpose()?)?)
}

fn head_part(folder: &RunFolder, config: &RunConfig, place: &Place, launch: u32) -> HeadPart {
    let gang = ledger::read(folder)
        .ok()
        .and_then(|records| records.into_iter().find(|record| record.launch == launch))
        .map(|record| record.gang);
    HeadPart {
        allocation: Some(allocation(config, place)),
        hosts: place.hosts.clone(),
        life: place.life.clone(),
        gang,
    }
}

fn allocation(config: &RunConfig, place: &Place) -> Allocation {
    let end_s = place.end_s.or_else(|| asked_end(config, &place.job));
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let asked = config.target.as_ref().map(crate::target::end_rules);
    let asked = asked.and_then(|rules| rules.ok()?.notice);
    let left = end_s.map_or(u64::MAX, |end| end.saturating_sub(now));
    let notice = asked.unwrap_or_else(|| NOTICE.min(Duration::from_secs(left / 4)));
    Allocation {
        end_ns: end_s.map(|end| end.saturating_mul(1_000_000_000)),
        notice,
    }
}

/// The end as the scheduler has it, if it answers soon.
fn asked_end(config: &RunConfig, job: &str) -> Option<u64> {
    let (config, job) = (config.clone(), JobRef(job.to_owned()));
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let end = launch::scheduler_of(&config).ok().flatten();
        let end = end.and_then(|scheduler| scheduler.end_of(&job).ok().flatten());
        let _ = tell.send(end); // Nobody waits any more: the answer came too late.
    });
    told.recv_timeout(ASK_PATIENCE).ok().flatten()
}

/// An agent: joins, works, and where others may carry the run on joins the next head.
fn serve(
    folder: &RunFolder,
    config: &RunConfig,
    surroundings: &Surroundings,
    place: &Place,
    launch: u32,
) -> Result<u8> {
    let alone = place.elements == 1;
    let patience = if alone {
        Duration::from_millis(config.join_timeout_ms)
    } else {
        ARRAY_PATIENCE
    };
    let over = || !alone && is_over(folder);
    let mut after = 0;
    loop {
        let awaited = Awaited::Life {
            life: &place.life,
            after,
        };
        match processes::run_agent(folder, config, surroundings, place.rank, &awaited, patience, &over) {
            Ok(served) if alone && served.forsaken => {
                return survivor::see_to_it(folder, config, launch, &place.job);
            }
            Ok(_) if alone => return Ok(OK),
            Ok(served) => after = served.attempt,
            Err(_) if over() => return Ok(OK),
            Err(error) => {
                tracing::error!(%error, "cannot go on");
                return Ok(BROKEN);
            }
        }
        if over() {
            return Ok(OK);
        }
        tracing::info!("the head is gone; another one may come");
    }
}

/// Whether the run has its end. What an earlier launch has written of its own end does not count.
pub(crate) fn is_over(folder: &RunFolder) -> bool {
    told(folder).is_some_and(|status| standing::is_final(&status))
}

/// Whether the head has put the run to rest: what follows is the batch job's to see to.
pub(crate) fn is_paused(folder: &RunFolder) -> bool {
    told(folder).is_some_and(|status| status["phase"] == "paused")
}

/// What the newest launch has written; a folder that cannot be read just now tells nothing.
fn told(folder: &RunFolder) -> Option<serde_json::Value> {
    standing::by_folder(folder).ok().flatten()
}
