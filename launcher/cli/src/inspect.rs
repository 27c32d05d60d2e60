//! `ps`, `status`, `results`: tables of what run folders tell.

use crate::args::{OneRun, Ps};
use crate::error::{CliError, DAMAGED, OK};
use crate::folder::{self, Names};
use crate::output;
use crate::standing::{self, Standing};
use bridgehead_head::state::{End, Phase, TaskRow};
use bridgehead_local::{home, list_runs};
use bridgehead_spec::RunFolder;
use bridgehead_wire::{Value as WireValue, value};
use indicatif::BinaryBytes;
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::Duration;

/// `bridgehead ps`.
pub(crate) fn ps(args: &Ps) -> Result<u8, CliError> {
    let home = home();
    let runs = list_runs(&home)?;
    let folders: Vec<RunFolder> = runs
        .iter()
        .map(|run| RunFolder::new(home.join("runs").join(run.as_str())))
        .collect();
    let standings = standing::of_all(&folders).into_iter();
    let rows = standings.zip(&folders).zip(&runs);
    let mut rows: Vec<Value> = rows
        .map(|((standing, folder), run)| row(standing, folder, run.as_str()))
        .collect();
    rows.retain(|row| args.all || !standing::is_final(row));
    if args.json {
        output::line(Value::from(rows))?;
        return Ok(OK);
    }
    if rows.is_empty() {
        let hint = if args.all {
            "no runs"
        } else {
            "no open runs; --all lists ended ones too"
        };
        output::line(hint)?;
        return Ok(OK);
    }
    output::line(format_args!(
        "{:<48} {:<11} {:>9} {:>8} {:>8}",
        "RUN", "PHASE", "FINISHED", "FAILED", "TASKS"
    ))?;
    rows.iter().try_for_each(print_row)?;
    Ok(OK)
}

/// One damaged folder must not hide the others, so what is wrong with it is its phase.
fn row(standing: Result<Standing, CliError>, folder: &RunFolder, run: &str) -> Value {
    let other = |phase: &str, message: &str| json!({ "run": run, "phase": phase, "message": message });
    match standing.map(|standing| standing.status) {
        Ok(Some(mut status)) => {
            status["run"] = json!(run); // A copied folder is a run of its own.
            status
        }
        Ok(None) if folder::head_lives(folder) => other("starting", ""),
        Ok(None) => other("lost", "its head never wrote a status"),
        Err(error) => other("damaged", &error.to_string()),
    }
}

fn print_row(row: &Value) -> Result<(), CliError> {
    let count = |name: &str| count(&row["tasks"], name);
    let phases = ["waiting", "running", "finished", "failed", "cancelled"];
    let total = phases.iter().map(|name| count(name)).sum::<u64>();
    let text = |name: &str| row[name].as_str().unwrap_or("?");
    output::line(format_args!(
        "{:<48} {:<11} {:>9} {:>8} {:>8}",
        text("run"),
        text("phase"),
        count("finished"),
        count("failed"),
        total
    ))
}

/// `bridgehead status`.
pub(crate) fn status(args: &OneRun) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    let standing = standing::of(&folder)?;
    let Some(mut status) = standing.status else {
        let log = folder.logs().join("head.log");
        let message = format!(
            "the run has no status: its head never came up, or just now; see {}",
            log.display()
        );
        return Err(CliError::new(DAMAGED, message));
    };
    status["folder"] = json!(folder.path());
    if args.json {
        output::line(status)?;
        return Ok(OK);
    }
    let text = |key: &str| status[key].as_str().unwrap_or("").to_owned();
    output::line(format!("run      {}", text("run")))?;
    output::line(format!("folder   {}", text("folder")))?;
    let colon = if text("message").is_empty() { "" } else { ": " };
    output::line(format!("phase    {}{colon}{}", text("phase"), text("message")))?;
    for job in status["jobs"].as_array().into_iter().flatten() {
        output::line(job_line(job))?;
    }
    if !status["attempt"].is_null() {
        output::line(format!(
            "attempt  {}{}",
            status["attempt"],
            interruptions(&status["interruptions"])
        ))?;
    }
    let t = &status["tasks"];
    output::line(format!(
        "tasks    {} waiting, {} running, {} finished, {} failed, {} cancelled",
        count(t, "waiting"),
        count(t, "running"),
        count(t, "finished"),
        count(t, "failed"),
        count(t, "cancelled")
    ))?;
    for agent in status["agents"].as_array().into_iter().flatten() {
        let host = agent["host"].as_str().unwrap_or("?");
        let (id, pid, cpus) = (&agent["agent"], &agent["pid"], &agent["cpus"]);
        output::line(format!(
            "agent {id}  {host} (pid {pid}), {cpus} cores{}",
            store(&agent["store"])
        ))?;
        for gpu in agent["gpu_memory"].as_array().into_iter().flatten() {
            output::line(format!("  {}", gpu_memory(gpu)))?;
        }
    }
    for failure in status["failures"].as_array().into_iter().flatten() {
        let (name, message) = (failure["name"].as_str(), failure["message"].as_str());
        let (name, message) = (name.unwrap_or("?"), message.unwrap_or(""));
        output::line(format!("failed   {name} (t{}): {message}", failure["task"]))?;
    }
    Ok(OK)
}

fn count(tasks: &Value, phase: &str) -> u64 {
    tasks[phase].as_u64().unwrap_or(0)
}

/// A job at its scheduler.
fn job_line(job: &Value) -> String {
    let text = |key: &str| job[key].as_str().unwrap_or("");
    let state = if text("word").is_empty() {
        text("state")
    } else {
        text("word")
    };
    let nodes = if text("nodes").is_empty() {
        String::new()
    } else {
        format!(" on {}", text("nodes"))
    };
    let reason = if text("reason").is_empty() {
        String::new()
    } else {
        format!(": {}", text("reason"))
    };
    let line = format!("job {:<4} {}{nodes}{reason}", text("job"), state.to_lowercase());
    line.trim_end().to_owned()
}

/// How often an attempt was cut off, by cause.
fn interruptions(counts: &Value) -> String {
    let causes = counts.as_object().into_iter().flatten();
    let told: Vec<String> = causes
        .filter_map(|(cause, n)| n.as_u64().filter(|&n| n > 0).map(|n| format!("{n} for {cause}")))
        .collect();
    if told.is_empty() {
        return String::new();
    }
    format!(", interrupted {}", told.join(", "))
}

/// `bridgehead results`.
pub(crate) fn results(args: &OneRun) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    folder::refresh(&folder, true)?;
    let state = folder::state(&folder)?;
    let names = Names::read(&folder, &state)?;
    let finished = state
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, row)| row.phase == Phase::Finished);
    let rows: Vec<Value> = finished
        .map(|(id, row)| {
            let (kept, bytes) = kept(row);
            json!({ "task": id, "name": names.short(id as u64), "kept": kept, "bytes": bytes, "file": row.persisted.as_deref(),
                "seconds": Duration::from_nanos(row.elapsed_ns).as_secs_f64() })
        })
        .collect();
    if args.json {
        output::line(Value::from(rows))?;
        return Ok(OK);
    }
    output::line(format_args!(
        "{:>6} {:<40} {:<8} {:>12} {:>9}",
        "TASK", "NAME", "KEPT", "BYTES", "SECONDS"
    ))?;
    for row in rows {
        output::line(format_args!(
            "{:>6} {:<40} {:<8} {:>12} {:>9.3}",
            format!("t{}", row["task"]),
            row["name"].as_str().unwrap_or(""),
            row["kept"].as_str().unwrap_or(""),
            row["bytes"],
            row["seconds"].as_f64().unwrap_or(0.0)
        ))?;
    }
    if std::io::stdout().is_terminal() {
        output::note(format!(
            "the values, in Python: bridgehead.connect({:?}).results()",
            args.run
        ));
    }
    Ok(OK)
}

/// Where a finished task's value is, and its size.
pub(crate) fn kept(row: &TaskRow) -> (&'static str, u64) {
    match &row.end {
        End::Value(WireValue {
            kind: Some(value::Kind::Inline(bytes)),
            ..
        }) => ("journal", bytes.len() as u64),
        End::Value(WireValue {
            kind: Some(value::Kind::Stored(object)),
            ..
        }) => (if row.persisted.is_some() { "file" } else { "store" }, object.len),
        End::Value(WireValue {
            kind: Some(value::Kind::Program(p)),
            ..
        }) => ("journal", p.stdout.len() as u64),
        End::Value(WireValue {
            kind: Some(value::Kind::File(f)),
            ..
        }) => ("file", f.len),
        _ => ("no", 0),
    }
}

/// How full an agent's store was at its last beat; nothing before the first one.
fn store(figures: &Value) -> String {
    let bytes = |key: &str| BinaryBytes(figures[key].as_u64().unwrap_or(0));
    match figures["limit"].as_u64() {
        None | Some(0) => String::new(),
        Some(_) => format!(
            ", store {} of {}, {} on disk{}",
            bytes("used"),
            bytes("limit"),
            bytes("spilled"),
            match figures["on_gpus"].as_u64() {
                None | Some(0) => String::new(),
                Some(on_gpus) => format!(", {} on GPUs", BinaryBytes(on_gpus)),
            }
        ),
    }
}

/// What the memory of a GPU is to the store of its node.
fn gpu_memory(gpu: &Value) -> String {
    let limit = BinaryBytes(gpu["limit"].as_u64().unwrap_or(0));
    let name = gpu["name"].as_str().unwrap_or("?");
    let why = gpu["why"].as_str().map_or_else(String::new, |why| format!(" ({why})"));
    format!("{name}{why}: objects may take {limit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_shown_once_it_has_told_of_itself() {
        assert_eq!(store(&json!({ "limit": 0, "used": 0, "spilled": 0 })), "");
        let figures = json!({ "limit": 2_u64 << 30, "used": 3 << 20, "spilled": 512 << 10 });
        assert_eq!(store(&figures), ", store 3.00 MiB of 2.00 GiB, 512.00 KiB on disk");
        let figures = json!({ "limit": 2_u64 << 30, "used": 0, "spilled": 0, "on_gpus": 1 << 20 });
        assert!(store(&figures).ends_with("on disk, 1.00 MiB on GPUs"));
    }

    #[test]
    fn the_memory_of_a_gpu_says_what_it_is() {
        let cuda = json!({ "name": "GPU 0: A, by CUDA", "stand_in": false, "why": null, "limit": 1 << 30 });
        assert_eq!(gpu_memory(&cuda), "GPU 0: A, by CUDA: objects may take 1.00 GiB");
        let host = json!({ "name": "host memory standing in for GPU 1", "why": "no libcuda", "limit": 1 << 20 });
        assert_eq!(
            gpu_memory(&host),
            "host memory standing in for GPU 1 (no libcuda): objects may take 1.00 MiB"
        );
    }
}
