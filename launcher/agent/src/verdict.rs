//! Words for how processes end: of programs and of workers. Decides whose fault an end is; ends nothing itself.

use crate::capture::Kept;
use crate::spawn::{End, signal_name};
use bridgehead_wire::{Failure, FailureCause, Outcome, Pair, ProgramCall, ProgramResult, Value, value};
use bytes::Bytes;
use std::ffi::OsStr;
use std::io;
use std::path::Path;

/// Variables by which a process is told its GPUs.
pub(crate) const DEVICE_VARIABLES: [&str; 2] = ["CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"];
/// Lines of standard error or of a log that a failure quotes.
const QUOTED: usize = 5;

fn user(kind: &str, message: String) -> Failure {
    Failure::new(FailureCause::User, kind, message)
}

pub(crate) fn not_found(name: &str, path: Option<&OsStr>, cwd: &Path) -> Failure {
    if !cwd.is_dir() {
        return no_folder(name, cwd, &io::Error::from(io::ErrorKind::NotFound));
    }
    let path = path.unwrap_or_default().display();
    user(
        "not-found",
        format!("cannot find {name} in PATH, which is {path}: give its full path, or load its module before the run"),
    )
}

pub(crate) fn no_folder(name: &str, cwd: &Path, error: &io::Error) -> Failure {
    user(
        "no-folder",
        format!("cannot start {name} in its working folder {}: {error}", cwd.display()),
    )
}

pub(crate) fn not_loaded(name: &str, file: &Path, path: Option<&OsStr>, error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::NotFound => {
            let path = path.unwrap_or_default().display();
            user(
                "not-found",
                format!(
                    "cannot start {name}: {error} ({}, or the interpreter that it names); PATH is {path}",
                    file.display()
                ),
            )
        }
        _ => user(
            "not-executable",
            format!("cannot start {name} ({}): {error}", file.display()),
        ),
    }
}

pub(crate) fn bad_argument(name: &str) -> Failure {
    let name: String = name.chars().filter(|&c| c != '\0').collect();
    user(
        "bad-argument",
        format!("an argument or path of {name} has a NUL character in it"),
    )
}

/// What a program's end means.
pub(crate) fn judge(end: End, program: &ProgramCall, cwd: &Path, out: Kept, err: Kept) -> Outcome {
    let name = program.argv.first().map_or("the program", String::as_str);
    let dropped = out.dropped() + err.dropped();
    let (out, err) = (out.into_bytes(), err.into_bytes());
    let mut failure = match end {
        End::Code(0) => match outputs(name, program, cwd) {
            Ok(outputs) => {
                let result = ProgramResult {
                    exit_code: 0,
                    stdout: Bytes::from(out),
                    stderr: Bytes::from(err),
                    outputs,
                    dropped,
                };
                let kind = Some(value::Kind::Program(result));
                return Outcome::value(Value {
                    kind,
                    ..Value::default()
                });
            }
            Err(failure) => failure,
        },
        End::Code(code) => user("exit-code", format!("{name} exited with {code}{}", last_lines(&err))),
        End::Signal(signal) => {
            user("signal", format!("{name} was ended by {end}{}", last_lines(&err))).with_signal(signal)
        }
    };
    if let End::Code(code) = end {
        failure.exit_code = Some(code);
    }
    Outcome::failure(failure)
}

trait WithSignal {
    fn with_signal(self, signal: i32) -> Self;
}

impl WithSignal for Failure {
    fn with_signal(mut self, signal: i32) -> Self {
        self.signal = Some(signal);
        self
    }
}

fn outputs(name: &str, program: &ProgramCall, cwd: &Path) -> Result<Vec<Pair>, Failure> {
    let found = program.outputs.iter().map(|pair| {
        let path = cwd.join(&pair.value);
        if path.exists() {
            let value = path.display().to_string();
            return Ok(Pair {
                key: pair.key.clone(),
                value,
            });
        }
        let message = format!(
            "{name} exited with 0 but left no output {:?} at {}",
            pair.key,
            path.display()
        );
        Err(user("missing-output", message))
    });
    found.collect()
}

/// The value of a gang's first rank with the files that all of them left.
pub(crate) fn with_outputs(value: Value, program: &ProgramCall, cwd: &Path) -> Outcome {
    let name = program.argv.first().map_or("the program", String::as_str);
    let Some(value::Kind::Program(mut result)) = value.kind else {
        return Outcome::value(value);
    };
    match outputs(name, program, cwd) {
        Ok(outputs) => result.outputs = outputs,
        Err(failure) => return Outcome::failure(failure),
    }
    Outcome::value(Value {
        kind: Some(value::Kind::Program(result)),
        ..Value::default()
    })
}

fn last_lines(stderr: &[u8]) -> String {
    let from = stderr.len().saturating_sub(8 << 10);
    let text = String::from_utf8_lossy(&stderr[from..]);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(QUOTED)..].join("\n");
    if last.is_empty() {
        "; it printed nothing on standard error".to_owned()
    } else {
        format!("; the end of its standard error: {last}")
    }
}

/// Words the death of a worker for the task that it ran.
pub(crate) fn death(end: Option<End>, out_of_memory: bool, log: &str) -> Outcome {
    let (cause, kind, what) = match end {
        Some(End::Signal(libc::SIGKILL)) if out_of_memory => (
            FailureCause::OutOfMemory,
            "out-of-memory",
            "was killed for want of memory (signal 9, SIGKILL): ask for more memory".to_owned(),
        ),
        Some(End::Signal(libc::SIGKILL)) => (
            FailureCause::LostNode,
            "worker-killed",
            "was killed from outside (signal 9, SIGKILL)".to_owned(),
        ),
        Some(End::Signal(n)) => (
            FailureCause::User,
            "worker-died",
            format!("died of signal {n} ({})", signal_name(n)),
        ),
        Some(End::Code(code)) => (
            FailureCause::User,
            "worker-died",
            format!("ended with exit code {code} in the middle of its task"),
        ),
        None => (FailureCause::LostNode, "worker-killed", "went away".to_owned()),
    };
    let last = if log.is_empty() {
        String::new()
    } else {
        format!("; the end of its log: {log}")
    };
    let mut failure = Failure::new(cause, kind, format!("the worker process that ran it {what}{last}"));
    match end {
        Some(End::Signal(signal)) => failure.signal = Some(signal),
        Some(End::Code(code)) => failure.exit_code = Some(code),
        None => {}
    }
    Outcome::failure(failure)
}

/// A program that was killed while memory ran out.
pub(crate) fn out_of_memory(outcome: Outcome) -> Outcome {
    let Some(bridgehead_wire::outcome::Kind::Failure(mut failure)) = outcome.kind else {
        return outcome;
    };
    failure.cause = FailureCause::OutOfMemory.into();
    "out-of-memory".clone_into(&mut failure.kind);
    failure.message = format!("{}, for want of memory: ask for more memory", failure.message);
    Outcome::failure(failure)
}
