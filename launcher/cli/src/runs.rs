//! `cancel`, `resume`: what is done to whole runs.

use crate::args::{Cancel, OneRun, Resume};
use crate::error::{CliError, DAMAGED, HEAD, OK};
use crate::{folder, follow, handed, output};
use bridgehead_backend::{Backend, LaunchRequest};
use bridgehead_head::{journal, mailbox};
use bridgehead_local::{Client, Local};
use bridgehead_spec::{RunConfig, RunFolder};
use bridgehead_wire::{CancelTasks, StatusRequest};
use serde_json::json;
use std::time::Duration;

/// `bridgehead cancel`.
pub(crate) fn cancel(args: &Cancel) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    if folder::is_handed_over(&folder) {
        return handed::cancel(args, &folder, &folder::config(&folder)?);
    }
    let run = folder::run_id(&folder);
    let how = match Client::connect(&folder, false) {
        Ok(client) => ask_to_cancel(client, &args.reason)?,
        Err(_) => leave_request(&folder, &args.reason)?,
    };
    if args.json {
        output::line(json!({ "run": run, "request": how }))?;
    } else if how == "delivered" {
        output::line(format!("cancelling {run}"))?;
    } else {
        output::line(format!(
            "the head of {run} cannot be reached from here; the request lies in its mailbox"
        ))?;
    }
    Ok(OK)
}

/// Has a head cancel its run.
pub(crate) fn ask_to_cancel(mut client: Client, reason: &str) -> Result<&'static str, CliError> {
    let request = CancelTasks {
        tasks: Vec::new(),
        all: true,
        reason: reason.to_owned(),
        from_worker: None,
    };
    client.send(&request.into())?;
    // The connection is closed only when the head has read it: its status answers after the cancel.
    client.send(&StatusRequest {}.into())?;
    client.receive(Duration::from_secs(10))?;
    Ok("delivered")
}

fn leave_request(folder: &RunFolder, reason: &str) -> Result<&'static str, CliError> {
    let status = folder::snapshot(folder)?;
    if !status.as_ref().is_some_and(folder::is_open) {
        let phase = status.as_ref().and_then(|s| s["phase"].as_str()).unwrap_or("not begun");
        return Err(CliError::new(
            HEAD,
            format!("there is nothing to cancel: the run is {phase}"),
        ));
    }
    let request = mailbox::CancelRequest {
        kind: "cancel".to_owned(),
        reason: reason.to_owned(),
    };
    mailbox::leave(folder, &request).map_err(|e| CliError::system("write into", &folder.mailbox(), &e))?;
    Ok("left in its mailbox")
}

/// `bridgehead suspend`.
pub(crate) fn suspend(args: &OneRun) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    handed::suspend(args, &folder, &folder::config(&folder)?)
}

/// `bridgehead resume`.
pub(crate) fn resume(args: &Resume) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    let config = folder::config(&folder)?;
    if config.target.is_some() {
        return handed::resume(args, &folder, config);
    }
    if args.target.options(None)?.keys().next().is_some() || args.target.on.is_some() {
        let message = "this run was made for this machine: submit its script anew to hand it to a scheduler";
        return Err(CliError::new(crate::error::USAGE, message));
    }
    let run = folder::run_id(&folder);
    if folder::head_lives(&folder) {
        let message = format!("{run} is at work: `bridgehead watch {run}` follows it");
        return Err(CliError::new(HEAD, message));
    }
    let config = detached(&folder)?;
    // What the head would refuse is refused here, where it is seen.
    if matches!(folder::state(&folder)?.ended, Some((phase, _)) if phase == "finished") {
        return nothing_left(&run, args.json);
    }
    let attempt = journal::attempts(&folder.journal())?.last().copied().unwrap_or(0) + 1;
    let pid = launch(&folder, &config)?;
    let client = Client::wait(&folder, attempt, pid, false);
    if client.is_ok() {
        let text = format!("resumed {run} as attempt {attempt}; it goes on if you stop following it");
        output::line(if args.json {
            json!({ "run": run, "attempt": attempt }).to_string()
        } else {
            text
        })?;
        if args.detach {
            return Ok(OK);
        }
    }
    let not_up = client.as_ref().err().map(ToString::to_string);
    // With little left to do a run can be over before anybody has connected: the journal knows.
    follow::to_the_end(client, &folder, attempt, args.json)
        .map_err(|error| not_up.map_or(error, |text| CliError::new(HEAD, text)))
}

/// A run that has finished cannot be resumed, which is no failure.
pub(crate) fn nothing_left(run: &str, as_json: bool) -> Result<u8, CliError> {
    output::line(if as_json {
        json!({ "run": run, "phase": "finished" }).to_string()
    } else {
        format!("{run} has finished: nothing is left to do")
    })?;
    Ok(OK)
}

/// The configuration of a run that can be resumed. Nobody holds this attempt, so it ends by itself.
fn detached(folder: &RunFolder) -> Result<RunConfig, CliError> {
    let mut config = folder::config(folder)?;
    if !config.has_pipeline {
        let message = "this run has no pipeline: the calls of an Executor cannot be made again without its program";
        return Err(CliError::new(DAMAGED, message));
    }
    if config.attached {
        config.attached = false;
        write_config(folder, &config)?;
    }
    Ok(config)
}

/// Writes `run.json` anew, whole or not at all.
pub(crate) fn write_config(folder: &RunFolder, config: &RunConfig) -> Result<(), CliError> {
    let path = folder.config();
    let text = serde_json::to_vec_pretty(config).map_err(|e| CliError::invalid(&path, e))?;
    let part = path.with_extension("part");
    let written = std::fs::write(&part, text).and_then(|()| std::fs::rename(&part, &path));
    written.map_err(|e| CliError::system("write", &path, &e))
}

/// Starts the run's processes; the head's process id.
fn launch(folder: &RunFolder, config: &RunConfig) -> Result<u32, CliError> {
    let program = std::env::current_exe();
    let program = program.map_err(|e| CliError::new(crate::error::SYSTEM, format!("cannot find this program: {e}")))?;
    let agents = u32::try_from(config.agents.len()).unwrap_or(u32::MAX);
    let request = LaunchRequest::first(config.run.clone(), folder.path().to_owned(), program, agents);
    let job = Local.submit(&Local.render(&request)?)?;
    Ok(job.0.split('@').next().and_then(|pid| pid.parse().ok()).unwrap_or(0))
}
