//! `status`, `logs`, `why`, `results`: what a run folder tells, with or without a living head.

use crate::args::{Logs, OneRun};
use crate::error::{CliError, DAMAGED, NOT_FOUND, OK};
use crate::runs::{head_lives, read_config, snapshot};
use bridgehead_head::journal;
use bridgehead_head::state::{End, Phase, RunState, TaskRow};
use bridgehead_local::{home, resolve_run};
use bridgehead_spec::{PipelineSpec, RunFolder};
use bridgehead_wire::{Value as WireValue, value};
use serde_json::{Value, json};
use std::io::Write;
use std::time::Duration;

fn state(folder: &RunFolder) -> Result<RunState, CliError> {
    let mut state = RunState::new(true);
    for segment in journal::read_all(&folder.journal())? {
        if let Some((bytes, reason)) = &segment.dropped {
            eprintln!(
                "bridgehead: the journal of attempt {} lost its last {bytes} bytes: {reason}",
                segment.attempt
            );
        }
        segment.records.iter().for_each(|record| state.apply(record));
    }
    Ok(state)
}

/// Names of tasks by number.
fn names(folder: &RunFolder, state: &RunState) -> Vec<String> {
    let spec: Option<PipelineSpec> = std::fs::read(folder.spec())
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let mut names: Vec<String> = spec
        .map(|s| s.tasks.into_iter().map(|t| t.name).collect())
        .unwrap_or_default();
    for added in &state.added {
        let at = usize::try_from(added.task).unwrap_or(usize::MAX);
        if at == names.len() {
            names.push(if added.name.is_empty() {
                format!("t{}", added.task)
            } else {
                added.name.clone()
            });
        }
    }
    names
}

fn name(names: &[String], task: u64) -> String {
    let found = usize::try_from(task).ok().and_then(|i| names.get(i));
    found.map_or_else(|| format!("t{task}"), |name| format!("{name} (t{task})"))
}

pub(crate) fn status(args: &OneRun) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    let status = snapshot(&folder);
    let status = status.ok_or_else(|| {
        CliError::new(
            DAMAGED,
            "the run has no status yet: its head never came up; look at logs/head.log",
        )
    })?;
    if args.json {
        println!("{status}");
        return Ok(OK);
    }
    let text = |key: &str| status[key].as_str().unwrap_or("").to_owned();
    println!("run      {}", text("run"));
    println!("folder   {}", folder.path().display());
    println!("phase    {} {}", text("phase"), text("message"));
    println!("attempt  {}", status["attempt"]);
    let t = &status["tasks"];
    println!(
        "tasks    {} waiting, {} running, {} finished, {} failed, {} cancelled",
        t["waiting"], t["running"], t["finished"], t["failed"], t["cancelled"]
    );
    for agent in status["agents"].as_array().into_iter().flatten() {
        println!(
            "agent {}  {} (pid {}), {} cores",
            agent["agent"], agent["host"], agent["pid"], agent["cpus"]
        );
    }
    for failure in status["failures"].as_array().into_iter().flatten() {
        println!(
            "failed   {} (t{}): {}",
            failure["name"], failure["task"], failure["message"]
        );
    }
    Ok(OK)
}

pub(crate) fn logs(args: &Logs) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    let wanted = args
        .task
        .as_deref()
        .map(|asked| find_task(&folder, asked))
        .transpose()?;
    let mut seen = std::collections::HashMap::new();
    loop {
        let lives = head_lives(&folder); // Asked first, so that what a dying head wrote is still read.
        print_new(&folder, wanted, args.json, &mut seen)?;
        if !args.follow || !lives {
            return Ok(OK);
        }
        std::thread::sleep(Duration::from_millis(200)); // Files on shared file systems tell nobody that they grew.
    }
}

fn find_task(folder: &RunFolder, asked: &str) -> Result<u64, CliError> {
    if let Ok(task) = asked.trim_start_matches('t').parse() {
        return Ok(task);
    }
    let names = names(folder, &state(folder)?);
    let found = names.iter().position(|name| name == asked);
    let found = found.ok_or_else(|| CliError::new(NOT_FOUND, format!("the run has no task named {asked:?}")))?;
    Ok(found as u64)
}

fn print_new(
    folder: &RunFolder,
    wanted: Option<u64>,
    as_json: bool,
    seen: &mut std::collections::HashMap<std::path::PathBuf, usize>,
) -> Result<(), CliError> {
    let mut lines = Vec::new();
    for entry in std::fs::read_dir(folder.logs())?.flatten() {
        let path = entry.path();
        let is_log = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with("tasks-"));
        if !is_log {
            continue;
        }
        let text = std::fs::read_to_string(&path)?;
        let from = seen.get(&path).copied().unwrap_or(0);
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for line in text[from.min(whole)..whole].lines() {
            if let Ok(entry) = serde_json::from_str::<Value>(line) {
                lines.push(entry);
            }
        }
        seen.insert(path, whole);
    }
    lines.sort_by_key(|line| line["t"].as_u64());
    let mut out = std::io::stdout().lock();
    for line in lines
        .iter()
        .filter(|line| wanted.is_none_or(|task| line["task"].as_u64() == Some(task)))
    {
        if as_json {
            writeln!(out, "{line}")?;
        } else {
            write!(out, "{}", line["text"].as_str().unwrap_or(""))?;
        }
    }
    Ok(())
}

pub(crate) fn why(args: &OneRun) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    let sentences = explain(&folder)?;
    if args.json {
        println!(
            "{}",
            json!({ "run": folder.path().file_name().map(|n| n.to_string_lossy()), "because": sentences })
        );
    } else {
        sentences.iter().for_each(|sentence| println!("{sentence}"));
    }
    Ok(OK)
}

fn explain(folder: &RunFolder) -> Result<Vec<String>, CliError> {
    let state = state(folder)?;
    let config = read_config(folder)?;
    let names = names(folder, &state);
    let mut out = Vec::new();
    let lives = head_lives(folder);
    match &state.ended {
        Some((phase, message)) if message.is_empty() => out.push(format!("The run has {phase}.")),
        Some((phase, message)) => out.push(format!("The run is {phase}: {message}.")),
        None if lives => out.push(running(&state)),
        None => out.push(format!(
            "The head is gone without having ended the run: it was killed or its machine went down. `bridgehead resume {}` goes on; what finished is not run again.",
            config.run
        )),
    }
    for (id, row) in state.tasks.iter().enumerate() {
        if let End::Failure(f) = &row.end {
            if f.root.is_none() {
                let trace = f.traceback.lines().last().unwrap_or("");
                out.push(format!(
                    "{} failed ({}): {} {trace}",
                    name(&names, id as u64),
                    f.kind,
                    f.message
                ));
            }
        }
    }
    let held_up = state
        .tasks
        .iter()
        .filter(|row| matches!(&row.end, End::Failure(f) if f.root.is_some()))
        .count();
    if held_up > 0 {
        out.push(format!(
            "{held_up} task(s) could not start because one that they need has no value."
        ));
    }
    let retried: Vec<_> = state
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, row)| row.tries.iter().any(|&n| n > 0))
        .collect();
    for (id, row) in retried.into_iter().take(10) {
        out.push(format!("{} was tried {} times.", name(&names, id as u64), row.attempt));
    }
    Ok(out)
}

fn running(state: &RunState) -> String {
    let c = state.counts;
    if c.running == 0 && c.waiting > 0 {
        return "Nothing runs yet: the head waits for all agents of the gang to join (look at logs/agent-*.log)."
            .to_owned();
    }
    format!("{} task(s) run and {} wait for them or for room.", c.running, c.waiting)
}

pub(crate) fn results(args: &OneRun) -> Result<u8, CliError> {
    let folder = resolve_run(&home(), &args.run)?;
    let state = state(&folder)?;
    let names = names(&folder, &state);
    let rows: Vec<Value> = state
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, row)| row.phase == Phase::Finished)
        .map(|(id, row)| {
            let (kept, bytes) = kept(row);
            json!({ "task": id, "name": names.get(id), "kept": kept, "bytes": bytes, "file": row.persisted.as_deref(),
                "seconds": Duration::from_nanos(row.elapsed_ns).as_secs_f64() })
        })
        .collect();
    if args.json {
        println!("{}", Value::from(rows));
        return Ok(OK);
    }
    println!(
        "{:>6} {:<40} {:<8} {:>12} {:>9}",
        "TASK", "NAME", "KEPT", "BYTES", "SECONDS"
    );
    for row in rows {
        println!(
            "{:>6} {:<40} {:<8} {:>12} {:>9.3}",
            row["task"],
            row["name"].as_str().unwrap_or(""),
            row["kept"].as_str().unwrap_or(""),
            row["bytes"],
            row["seconds"].as_f64().unwrap_or(0.0)
        );
    }
    println!(
        "read the values in Python: bridgehead.connect({:?}).results()",
        args.run
    );
    Ok(OK)
}

/// Where a finished task's value is, and its size.
fn kept(row: &TaskRow) -> (&'static str, u64) {
    match &row.end {
        End::Value(WireValue {
            kind: Some(value::Kind::Inline(bytes)),
        }) => ("journal", bytes.len() as u64),
        End::Value(WireValue {
            kind: Some(value::Kind::Stored(object)),
        }) => (if row.persisted.is_some() { "file" } else { "store" }, object.len),
        End::Value(WireValue {
            kind: Some(value::Kind::Program(p)),
        }) => ("journal", p.stdout.len() as u64),
        End::Value(WireValue {
            kind: Some(value::Kind::File(f)),
        }) => ("file", f.len),
        _ => ("no", 0),
    }
}
