//! `run`, `plan`, `submit`: the user's script, told by its environment what its pipelines are to do.

use crate::args::Script;
use crate::error::{BROKEN, CliError, NOT_FOUND};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

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

/// Becomes the interpreter, so that signals and exit codes are the script's own.
pub(crate) fn execute(args: &Script, what: &str) -> Result<u8, CliError> {
    if !args.script.is_file() {
        return Err(CliError::new(
            NOT_FOUND,
            format!("there is no script {}", args.script.display()),
        ));
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
    if let Some(trace) = &args.trace {
        command.env("BRIDGEHEAD_TRACE", trace);
    }
    let error = command.exec();
    Err(CliError::new(
        BROKEN,
        format!("cannot start {}: {error}", python(args).display()),
    ))
}
