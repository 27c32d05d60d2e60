//! Following a run to its end, with a bar on a terminal and silence in a pipe.

use crate::args::OneRun;
use crate::error::{CliError, OK, RUN_FAILED};
use crate::{folder, handed, output};
use bridgehead_local::{Client, ClientError};
use bridgehead_spec::RunFolder;
use bridgehead_wire::{HeadToClient, Progress, Subscribe};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::time::Duration;

/// `bridgehead watch`.
pub(crate) fn watch(args: &OneRun) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    if folder::is_handed_over(&folder) {
        return handed::watch(&folder, args.json);
    }
    to_the_end(Client::connect(&folder, false), &folder, 0, args.json)
}

/// Follows a run until `attempt` or a later one has ended; the exit code says how. A run can be over before anybody has
/// connected: then the journal knows.
pub(crate) fn to_the_end(
    client: Result<Client, ClientError>,
    folder: &RunFolder,
    attempt: u32,
    as_json: bool,
) -> Result<u8, CliError> {
    let followed = client
        .map_err(CliError::from)
        .and_then(|client| follow(client, as_json));
    let (phase, message) = match followed {
        Ok(end) => end,
        Err(error) if error.code() == crate::error::HEAD => {
            folder::end_of(folder, attempt)?.ok_or_else(|| lost(folder))?
        }
        Err(error) => return Err(error),
    };
    if as_json {
        output::line(json!({ "phase": phase, "message": message }))?;
    } else if message.is_empty() {
        output::line(&phase)?;
    } else {
        output::line(format!("{phase}: {message}"))?;
    }
    Ok(if phase == "finished" { OK } else { RUN_FAILED })
}

fn lost(folder: &RunFolder) -> CliError {
    let run = folder::run_id(folder);
    let message = format!("no head is at work on {run}, and none has ended it: `bridgehead resume {run}` goes on");
    CliError::new(crate::error::HEAD, message)
}

fn follow(mut client: Client, as_json: bool) -> Result<(String, String), CliError> {
    client.send(
        &Subscribe {
            progress: true,
            outcomes: false,
        }
        .into(),
    )?;
    let bar = ProgressBar::new(0); // Draws on standard error, and only where that is a terminal.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    loop {
        match client.receive(Duration::from_secs(24 * 3600))? {
            HeadToClient::Progress(p) if as_json => output::line(json!({ "phase": "running", "tasks": {
                "waiting": p.waiting, "running": p.running, "finished": p.finished, "failed": p.failed, "cancelled": p.cancelled,
            } }))?,
            HeadToClient::Progress(p) => show(&bar, p),
            HeadToClient::RunEnd(end) => {
                bar.finish_and_clear();
                return Ok((end.phase, end.message));
            }
            _ => {}
        }
    }
}

fn show(bar: &ProgressBar, p: Progress) {
    bar.set_length(p.waiting + p.running + p.finished + p.failed + p.cancelled);
    bar.set_position(p.finished + p.failed + p.cancelled);
    bar.set_message(match p.failed {
        0 => format!("{} running", p.running),
        n => format!("{} running, {n} failed", p.running),
    });
}
