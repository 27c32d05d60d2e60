//! `watch`: a run to its end, with a bar on a terminal and silence in a pipe.

use crate::args::OneRun;
use crate::error::{CliError, OK, RUN_FAILED};
use crate::runs::snapshot;
use bridgehead_local::{Client, home, resolve_run};
use bridgehead_wire::{HeadToClient, Progress, Subscribe};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::time::Duration;

pub(crate) fn watch(args: &OneRun) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    match Client::connect(&folder, false) {
        Ok(client) => to_the_end(client, args.json),
        Err(error) => match snapshot(&folder) {
            Some(status) if status["phase"] != "lost" => {
                let phase = status["phase"].as_str().unwrap_or("?").to_owned();
                Ok(tell_end(&phase, status["message"].as_str().unwrap_or(""), args.json))
            }
            _ => Err(error.into()),
        },
    }
}

fn code(phase: &str) -> u8 {
    if phase == "finished" { OK } else { RUN_FAILED }
}

/// Says how a run ended; the exit code for it.
pub(crate) fn tell_end(phase: &str, message: &str, as_json: bool) -> u8 {
    if as_json {
        println!("{}", json!({ "phase": phase, "message": message }));
    } else if message.is_empty() {
        println!("{phase}");
    } else {
        println!("{phase}: {message}");
    }
    code(phase)
}

/// Follows a run until it ends; the exit code says how.
pub(crate) fn to_the_end(mut client: Client, as_json: bool) -> Result<u8, CliError> {
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
            HeadToClient::Progress(p) => show(&bar, p),
            HeadToClient::RunEnd(end) => {
                bar.finish_and_clear();
                return Ok(tell_end(&end.phase, &end.message, as_json));
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
