//! `run`, `plan`, `submit`: the user's script, told by its environment what its pipelines are to do.

use crate::args::{Limits, Plan, Run, Script, Submit, Target, Trace, Transport};
use crate::error::{CliError, NOT_FOUND, SYSTEM, USAGE};
use rustix::io::{FdFlags, fcntl_setfd};
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

/// The interpreter: as asked, else the one beside this program, else the one on the path.
fn python(args: &Script) -> PathBuf {
    if let Some(python) = &args.python {
        return python.clone();
    }
    let beside = std::env::current_exe()
        .ok()
        .and_then(|exe| Some(exe.parent()?.join("python")));
    beside
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("python3"))
}

fn command(args: &Script, what: &str) -> Result<Command, CliError> {
    if !args.script.is_file() {
        let message = format!("there is no script {}", args.script.display());
        return Err(CliError::new(NOT_FOUND, message));
    }
    let mut command = Command::new(python(args));
    command.arg(&args.script).args(&args.args).env("BRIDGEHEAD_DO", what);
    if let Ok(own) = std::env::current_exe() {
        command.env("BRIDGEHEAD_BIN", own);
    }
    for (name, value) in [("BRIDGEHEAD_AGENTS", args.agents), ("BRIDGEHEAD_CPUS", args.cpus)] {
        if let Some(value) = value {
            command.env(name, value.to_string());
        }
    }
    if let Some(store) = &args.store {
        command.env("BRIDGEHEAD_STORE", store);
    }
    Ok(command)
}

fn with_trace(command: &mut Command, trace: &Trace) {
    if let Some(trace) = &trace.trace {
        command.env("BRIDGEHEAD_TRACE", trace);
    }
}

fn with_limits(command: &mut Command, limits: &Limits) {
    let limits = [
        ("BRIDGEHEAD_MAX_RUNNING", limits.max_running),
        ("BRIDGEHEAD_MAX_FAILS", limits.max_fails),
    ];
    for (name, value) in limits {
        if let Some(value) = value {
            command.env(name, value.to_string());
        }
    }
}

fn with_transport(command: &mut Command, transport: &Transport) {
    let asked = [
        ("BRIDGEHEAD_TRANSPORT", &transport.transport),
        ("BRIDGEHEAD_REQUIRE_TRANSPORT", &transport.require_transport),
    ];
    for (name, value) in asked {
        if let Some(value) = value {
            command.env(name, value);
        }
    }
    if transport.verify_objects {
        command.env("BRIDGEHEAD_VERIFY_OBJECTS", "1");
    }
}

/// Tells the script where its pipeline goes; the script's own words are overridden one by one.
fn with_target(command: &mut Command, target: &Target, script: &Script) -> Result<(), CliError> {
    let options = target.options(script.cpus)?;
    if target.on.as_deref() == Some("local") || (target.on.is_none() && options.keys().all(|key| key == "cpus")) {
        if let Some(key) = options.keys().find(|key| *key != "cpus") {
            let message = format!("{key} is for a scheduler, this machine has none: leave it out, or give --on slurm");
            return Err(CliError::new(USAGE, message));
        }
        if let Some(on) = &target.on {
            command.env("BRIDGEHEAD_TARGET", serde_json::json!({ "backend": on }).to_string());
        }
        return Ok(());
    }
    if script.agents.is_some() {
        let message = "--agents shares this machine: for a scheduler give --nodes, each has one agent";
        return Err(CliError::new(USAGE, message));
    }
    let asked = serde_json::json!({ "backend": target.on, "options": options });
    command.env("BRIDGEHEAD_TARGET", asked.to_string());
    Ok(())
}

fn cannot_start(args: &Script, error: &std::io::Error) -> CliError {
    let code = if error.kind() == ErrorKind::NotFound {
        NOT_FOUND
    } else {
        SYSTEM
    };
    CliError::new(code, format!("cannot start {}: {error}", python(args).display()))
}

/// `bridgehead run`: becomes the interpreter, so that signals and exit codes are the script's own.
pub(crate) fn run(args: &Run) -> Result<u8, CliError> {
    let mut command = command(&args.script, "run")?;
    with_trace(&mut command, &args.trace);
    with_limits(&mut command, &args.limits);
    with_transport(&mut command, &args.transport);
    let error = command.exec();
    Err(cannot_start(&args.script, &error))
}

/// `bridgehead plan`.
pub(crate) fn plan(args: &Plan) -> Result<u8, CliError> {
    let mut command = command(&args.script, "plan")?;
    with_target(&mut command, &args.target, &args.script)?;
    ask(command, &args.script, "plan", args.json)
}

/// `bridgehead submit`.
pub(crate) fn submit(args: &Submit) -> Result<u8, CliError> {
    let mut command = command(&args.script, "submit")?;
    with_trace(&mut command, &args.trace);
    with_limits(&mut command, &args.limits);
    with_transport(&mut command, &args.transport);
    with_target(&mut command, &args.target, &args.script)?;
    ask(command, &args.script, "submit", args.json)
}

/// The script's exit code, unless it had no pipeline to plan or submit.
fn ask(mut command: Command, script: &Script, what: &str, as_json: bool) -> Result<u8, CliError> {
    if as_json {
        command.env("BRIDGEHEAD_JSON", "1");
    }
    let (told, tell) = pipe()?;
    command.env("BRIDGEHEAD_FOUND_FD", tell.as_raw_fd().to_string());
    let status = wait(command, tell).map_err(|e| cannot_start(script, &e))?;
    if status.success() && !has_byte(&told) {
        let script = script.script.display();
        let message =
            format!("{script} ended without a pipeline: `bridgehead {what}` needs one that it runs or submits");
        return Err(CliError::new(NOT_FOUND, message));
    }
    let by_signal = status.signal().map(|signal| 128 + signal);
    Ok(u8::try_from(status.code().or(by_signal).unwrap_or(1)).unwrap_or(1))
}

/// A pipe whose second end a child inherits.
fn pipe() -> Result<(OwnedFd, OwnedFd), CliError> {
    let made = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC);
    let made = made.and_then(|(read, write)| fcntl_setfd(&write, FdFlags::empty()).map(|()| (read, write)));
    made.map_err(|e| CliError::new(SYSTEM, format!("cannot make a pipe: {e}")))
}

/// Runs a command to its end. An interrupt is the script's to answer, so it does not end this process.
fn wait(command: Command, tell: OwnedFd) -> std::io::Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let _interrupts = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
        let mut child = tokio::process::Command::from(command).spawn()?;
        drop(tell);
        child.wait().await
    })
}

/// Whether something was written to a pipe; does not wait.
fn has_byte(read: &OwnedFd) -> bool {
    let ready = rustix::event::poll(
        &mut [rustix::event::PollFd::new(read, rustix::event::PollFlags::IN)],
        Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
    );
    ready.is_ok_and(|n| n > 0) && rustix::io::read(read, &mut [0u8; 1][..]).is_ok_and(|n| n > 0)
}
