//! Exit codes, each with its errors; the table for people is `docs/guide/exit-codes.md`.

use bridgehead_backend::BackendError;
use bridgehead_backend::ledger::LedgerError;
use bridgehead_head::journal::JournalError;
use bridgehead_local::{ClientError, FolderError};
use std::fmt;
use std::io::ErrorKind;
use std::path::Path;

/// All went well.
pub(crate) const OK: u8 = 0;
/// The run failed or was cancelled.
pub(crate) const RUN_FAILED: u8 = 1;
/// Wrong usage, as the command line's parser has it.
pub(crate) const USAGE: u8 = 2;
/// Something that was named is not there.
pub(crate) const NOT_FOUND: u8 = 3;
/// The run's head is not as the command needs it: none can be reached, or one is at work.
pub(crate) const HEAD: u8 = 4;
/// The system refused: permission, space, a program that cannot be started.
pub(crate) const SYSTEM: u8 = 5;
/// The run folder is damaged or of a newer version.
pub(crate) const DAMAGED: u8 = 6;
/// The scheduler refused, or cannot do what it is asked.
pub(crate) const REFUSED: u8 = 7;
/// The scheduler cannot be reached.
pub(crate) const UNREACHABLE: u8 = 8;
/// The scheduler does not accept who asks.
pub(crate) const DENIED: u8 = 9;
/// A bug.
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

    /// Standard output was closed by its reader: nothing to say, nothing went wrong.
    pub(crate) fn reader_left() -> Self {
        Self::new(OK, "")
    }

    /// The system refused to do something with a path.
    pub(crate) fn system(doing: &str, path: &Path, error: &std::io::Error) -> Self {
        Self::new(SYSTEM, format!("cannot {doing} {}: {error}", path.display()))
    }

    /// A file of a run folder could not be read: missing ones are damage, the rest is the system's refusal.
    pub(crate) fn unreadable(path: &Path, error: &std::io::Error) -> Self {
        let code = if error.kind() == ErrorKind::NotFound {
            DAMAGED
        } else {
            SYSTEM
        };
        Self::new(code, format!("cannot read {}: {error}", path.display()))
    }

    /// A file of a run folder does not hold what it should.
    pub(crate) fn invalid(path: &Path, error: impl fmt::Display) -> Self {
        let path = path.display();
        Self::new(DAMAGED, format!("{path} is damaged or of a newer version: {error}"))
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

impl std::error::Error for CliError {}

impl From<FolderError> for CliError {
    fn from(e: FolderError) -> Self {
        let code = match e {
            FolderError::NotFound { .. } | FolderError::Ambiguous { .. } => NOT_FOUND,
            FolderError::Io { .. } | FolderError::Unsafe { .. } => SYSTEM,
        };
        Self::new(code, e.to_string())
    }
}

impl From<ClientError> for CliError {
    fn from(e: ClientError) -> Self {
        Self::new(HEAD, e.to_string())
    }
}

impl From<BackendError> for CliError {
    fn from(e: BackendError) -> Self {
        let code = match e {
            BackendError::Unfit { .. } | BackendError::Refused { .. } => REFUSED,
            BackendError::Unreachable { .. } => UNREACHABLE,
            BackendError::Denied { .. } => DENIED,
        };
        Self::new(code, e.to_string())
    }
}

impl From<LedgerError> for CliError {
    fn from(e: LedgerError) -> Self {
        let code = match e {
            LedgerError::Io { .. } => SYSTEM,
            LedgerError::Invalid { .. } => DAMAGED,
        };
        Self::new(code, e.to_string())
    }
}

impl From<JournalError> for CliError {
    fn from(e: JournalError) -> Self {
        let code = match e {
            JournalError::Io { .. } => SYSTEM,
            JournalError::Taken { .. } => HEAD,
            JournalError::Newer { .. } | JournalError::NotAJournal { .. } => DAMAGED,
        };
        Self::new(code, e.to_string())
    }
}
