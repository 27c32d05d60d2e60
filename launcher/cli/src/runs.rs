//! `ps`, `cancel`, `resume`, `gc`: what is done to whole runs.

use crate::args::{Cancel, Gc, Ps, Resume};
use crate::error::{CliError, NO_HEAD, OK};
use crate::follow;
use bridgehead_backend::{Backend, LaunchRequest};
use bridgehead_head::state::RunState;
use bridgehead_head::{journal, mailbox};
use bridgehead_local::{Client, Local, home, is_alive, list_runs, resolve_run};
use bridgehead_spec::{HeadInfo, RunConfig, RunFolder};
use bridgehead_wire::CancelTasks;
use serde_json::{Value, json};
use std::time::{Duration, SystemTime};

/// What `status.json` says, with `lost` for the phase of a run whose head is gone without having ended it.
pub(crate) fn snapshot(folder: &RunFolder) -> Option<Value> {
    let mut status: Value = serde_json::from_slice(&std::fs::read(folder.status()).ok()?).ok()?;
    let running = matches!(status["phase"].as_str(), Some("running" | "cancelling"));
    if running && !head_lives(folder) {
        status["phase"] = json!("lost");
    }
    Some(status)
}

pub(crate) fn head_info(folder: &RunFolder) -> Option<HeadInfo> {
    serde_json::from_slice(&std::fs::read(folder.head()).ok()?).ok()
}

pub(crate) fn head_lives(folder: &RunFolder) -> bool {
    head_info(folder).is_some_and(|info| is_alive(info.pid) && info.socket.exists())
}

pub(crate) fn ps(args: &Ps) -> Result<u8, CliError> {
    let home = home();
    let mut rows = Vec::new();
    for run in list_runs(&home) {
        let folder = RunFolder::new(home.join("runs").join(run.as_str()));
        let status = snapshot(&folder).unwrap_or_else(|| json!({ "run": run.as_str(), "phase": "unknown" }));
        let open = matches!(status["phase"].as_str(), Some("running" | "cancelling" | "lost"));
        if open || args.all {
            rows.push(status);
        }
    }
    if args.json {
        println!("{}", Value::from(rows));
        return Ok(OK);
    }
    if rows.is_empty() {
        println!("no {}runs", if args.all { "" } else { "open " });
        return Ok(OK);
    }
    println!(
        "{:<48} {:<11} {:>9} {:>8} {:>8}",
        "RUN", "PHASE", "FINISHED", "FAILED", "TASKS"
    );
    for row in rows {
        let count = |name: &str| row["tasks"][name].as_u64().unwrap_or(0);
        let total = ["waiting", "running", "finished", "failed", "cancelled"]
            .iter()
            .map(|n| count(n))
            .sum::<u64>();
        let text = |name: &str| row[name].as_str().unwrap_or("?").to_owned();
        println!(
            "{:<48} {:<11} {:>9} {:>8} {:>8}",
            text("run"),
            text("phase"),
            count("finished"),
            count("failed"),
            total
        );
    }
    Ok(OK)
}

pub(crate) fn cancel(args: &Cancel) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    if let Ok(mut client) = Client::connect(&folder, false) {
        let reason = args.reason.clone();
        client.send(
            &CancelTasks {
                tasks: Vec::new(),
                all: true,
                reason,
                from_worker: None,
            }
            .into(),
        )?;
        // The connection is closed only when the head has read it: its status answers after the cancel.
        client.send(&bridgehead_wire::StatusRequest {}.into())?;
        client.receive(Duration::from_secs(10))?;
        println!("cancelling {}", folder.path().display());
        return Ok(OK);
    }
    let open = snapshot(&folder).is_some_and(|s| matches!(s["phase"].as_str(), Some("running" | "cancelling")));
    if !open {
        return Err(CliError::new(
            NO_HEAD,
            "there is nothing to cancel: the run has ended, or its head is gone",
        ));
    }
    mailbox::leave(
        &folder,
        &mailbox::CancelRequest {
            kind: "cancel".to_owned(),
            reason: args.reason.clone(),
        },
    )?;
    println!("the head cannot be reached from here; the request lies in its mailbox");
    Ok(OK)
}

pub(crate) fn resume(args: &Resume) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    if head_lives(&folder) {
        return Err(CliError::new(
            NO_HEAD,
            "the run is at work: `bridgehead watch` follows it",
        ));
    }
    let mut config = read_config(&folder)?;
    if !config.has_pipeline {
        let message = "this run has no pipeline: the calls of an Executor cannot be made again without its program";
        return Err(CliError::new(crate::error::DAMAGED, message));
    }
    // What the head would refuse is refused here, where it is seen.
    for segment in journal::read_all(&folder.journal())? {
        if let Some((bytes, reason)) = segment.dropped {
            let attempt = segment.attempt;
            eprintln!("the journal of attempt {attempt} is damaged: its last {bytes} bytes are dropped ({reason})");
        }
    }
    if config.attached {
        config.attached = false; // Nobody holds this attempt: it ends by itself.
        let text = serde_json::to_vec(&config).map_err(std::io::Error::from)?;
        let part = folder.config().with_extension("part");
        std::fs::write(&part, text)?;
        std::fs::rename(&part, folder.config())?;
    }
    let attempt = journal::attempts(&folder.journal())?.last().copied().unwrap_or(0) + 1;
    let pid = launch(&folder, &config)?;
    let followed = Client::wait(&folder, attempt, pid, false)
        .map_err(CliError::from)
        .and_then(|client| {
            println!("resumed {} as attempt {attempt}", config.run);
            if args.detach {
                Ok(OK)
            } else {
                follow::to_the_end(client, false)
            }
        });
    // With little left to do a run can be over before anybody has connected: the journal knows.
    followed.or_else(|error| match end_of(&folder, attempt)? {
        Some((phase, message)) => Ok(follow::tell_end(&phase, &message, false)),
        None => Err(error),
    })
}

/// Phase and message with which `attempt` (or a later one) ended, if it did.
fn end_of(folder: &RunFolder, attempt: u32) -> Result<Option<(String, String)>, CliError> {
    let mut state = RunState::new(false);
    for segment in journal::read_all(&folder.journal())? {
        segment.records.iter().for_each(|record| state.apply(record));
    }
    Ok(state.ended.filter(|_| state.attempt >= attempt))
}

fn launch(folder: &RunFolder, config: &RunConfig) -> Result<u32, CliError> {
    let wrong = |e: bridgehead_backend::BackendError| CliError::new(crate::error::BROKEN, e.to_string());
    let agents = u32::try_from(config.agents.len()).unwrap_or(u32::MAX);
    let request = LaunchRequest {
        run_dir: folder.path().to_owned(),
        program: std::env::current_exe()?,
        agents,
    };
    let job = Local.submit(&Local.render(&request).map_err(wrong)?).map_err(wrong)?;
    Ok(job.0.split('@').next().and_then(|pid| pid.parse().ok()).unwrap_or(0))
}

pub(crate) fn read_config(folder: &RunFolder) -> Result<RunConfig, CliError> {
    let path = folder.config();
    let bytes = std::fs::read(&path)?;
    serde_json::from_slice(&bytes)
        .map_err(|e| CliError::new(crate::error::DAMAGED, format!("{} is not valid: {e}", path.display())))
}

pub(crate) fn gc(args: &Gc) -> Result<u8, CliError> {
    let home = home();
    let limit = Duration::from_secs(args.older_than * 24 * 3600);
    let mut removed = 0;
    for run in list_runs(&home) {
        let folder = RunFolder::new(home.join("runs").join(run.as_str()));
        let changed = std::fs::metadata(folder.status()).or_else(|_| std::fs::metadata(folder.path()));
        let age = changed
            .and_then(|m| m.modified())
            .ok()
            .and_then(|t| SystemTime::now().duration_since(t).ok());
        if head_lives(&folder) || age.is_none_or(|age| age < limit) {
            continue;
        }
        removed += 1;
        println!("{} {run}", if args.dry_run { "would remove" } else { "removed" });
        if !args.dry_run {
            std::fs::remove_dir_all(folder.path())?;
        }
    }
    println!("{removed} run(s)");
    Ok(OK)
}
