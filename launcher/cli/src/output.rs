//! What commands print. A reader that has seen enough (`| head -1`) is no failure: the command ends silently.

use crate::error::CliError;
use std::fmt::Display;
use std::io::{ErrorKind, Write};

/// Prints a line on standard output.
pub(crate) fn line(text: impl Display) -> Result<(), CliError> {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes on standard output as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(bytes).and_then(|()| out.flush());
    written.map_err(|e| match e.kind() {
        ErrorKind::BrokenPipe => CliError::reader_left(),
        _ => CliError::new(crate::error::SYSTEM, format!("cannot write to standard output: {e}")),
    })
}

/// Tells people something that is no data, on standard error.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "bridgehead: {text}"); // Nobody is left to tell if that fails.
}
