//! Exit codes, each with its errors; the table for people is `docs/guide/exit-codes.md`.

use bridgehead_local::{ClientError, FolderError};
use std::fmt;

/// All went well.
pub(crate) const OK: u8 = 0;
/// The run failed or was cancelled.
pub(crate) const RUN_FAILED: u8 = 1;
/// Something that was named is not there.
pub(crate) const NOT_FOUND: u8 = 3;
/// No head can be reached.
pub(crate) const NO_HEAD: u8 = 4;
/// The run folder is damaged or of a newer version.
pub(crate) const DAMAGED: u8 = 6;
/// The system refused, or a bug.
pub(crate) const BROKEN: u8 = 70;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct CliError {
    code: u8,
    message: String,
}

impl CliError {
    pub(crate) fn new(code: u8, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<FolderError> for CliError {
    fn from(e: FolderError) -> Self {
        let code = match e {
            FolderError::NotFound { .. } | FolderError::Ambiguous { .. } => NOT_FOUND,
            FolderError::Io { .. } | FolderError::Unsafe { .. } => BROKEN,
        };
        Self::new(code, e.to_string())
    }
}

impl From<ClientError> for CliError {
    fn from(e: ClientError) -> Self {
        Self::new(NO_HEAD, e.to_string())
    }
}

impl From<bridgehead_head::journal::JournalError> for CliError {
    fn from(e: bridgehead_head::journal::JournalError) -> Self {
        Self::new(DAMAGED, e.to_string())
    }
}

impl From<std::io::Error> for CliError {
    fn from(e: std::io::Error) -> Self {
        Self::new(BROKEN, e.to_string())
    }
}
