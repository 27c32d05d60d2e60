//! The ledger of a run: which jobs were handed to a scheduler for it, one file a launch in `launches/` of the run folder.
//! A record is there before the job is submitted, so that no answer that gets lost leaves a job that nobody knows of.

use crate::JobRef;
use bridgehead_spec::RunFolder;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::PathBuf;
use thiserror::Error;

/// The version that this program writes and reads.
pub const LEDGER_VERSION: u32 = 1;

/// One launch: a job at a scheduler, or the intention to submit it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LaunchRecord {
    /// Version of this document.
    pub version: u32,
    /// Which launch of the run, from 1.
    pub launch: u32,
    /// The gang of the launch plan.
    pub gang: u32,
    /// The backend's name.
    pub backend: String,
    /// The way to the scheduler that was taken, `rest` for instance.
    pub door: String,
    /// What names the job at its scheduler.
    pub key: String,
    /// The job; `None` as long as its submission has not been answered.
    pub job: Option<JobRef>,
    /// The launch whose work it goes on with, if it is a follow-up.
    #[serde(default)]
    pub follows: Option<u32>,
    /// Launches that have to be over before it starts.
    #[serde(default)]
    pub after: Vec<u32>,
    /// Attempts at the run that there were when it was submitted: what the run folder tells of those is older than this.
    pub attempts: u32,
    /// When it was submitted, in seconds since the epoch.
    pub submitted_s: u64,
}

/// Why the ledger cannot be used.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The file system.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A record that is none, or of a newer version.
    #[error("{path} is damaged or of a newer version: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

fn io(doing: &'static str, path: PathBuf) -> impl FnOnce(std::io::Error) -> LedgerError {
    move |source| LedgerError::Io { doing, path, source }
}

fn path(folder: &RunFolder, launch: u32) -> PathBuf {
    folder.launches().join(format!("{launch}.json"))
}

/// All launches, in their order.
///
/// # Errors
/// The folder or a record cannot be read; a folder without `launches/` has none.
pub fn read(folder: &RunFolder) -> Result<Vec<LaunchRecord>, LedgerError> {
    let launches = folder.launches();
    let entries = match std::fs::read_dir(&launches) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io("list", launches)(e)),
    };
    let mut records = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|e| e == "json") {
            records.push(read_one(path)?);
        }
    }
    records.sort_by_key(|record| record.launch);
    Ok(records)
}

fn read_one(path: PathBuf) -> Result<LaunchRecord, LedgerError> {
    let bytes = std::fs::read(&path).map_err(io("read", path.clone()))?;
    let invalid = |reason: String| LedgerError::Invalid {
        path: path.clone(),
        reason,
    };
    let record: LaunchRecord = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
    if record.version != LEDGER_VERSION {
        return Err(invalid(format!(
            "its version is {}, not {LEDGER_VERSION}",
            record.version
        )));
    }
    Ok(record)
}

impl LedgerError {
    /// Whether another process has taken the number of a launch.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::AlreadyExists)
    }
}

/// Claims the number of a launch for good: two processes never take the same.
///
/// # Errors
/// The file system refuses, or another process has taken the number ([`LedgerError::is_taken`]).
pub fn begin(folder: &RunFolder, record: &LaunchRecord) -> Result<(), LedgerError> {
    let launches = folder.launches();
    std::fs::create_dir_all(&launches).map_err(io("make", launches))?;
    let path = path(folder, record.launch);
    // A hard link is made whole or not at all, and only once, on shared file systems too.
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let done = write(&part, record).and_then(|()| std::fs::hard_link(&part, &path));
    let _ = std::fs::remove_file(&part); // What is left of a failed try is no record.
    done.map_err(io("write", path))
}

/// Writes a record that was begun anew, with its job for instance.
///
/// # Errors
/// The file system refuses.
pub fn update(folder: &RunFolder, record: &LaunchRecord) -> Result<(), LedgerError> {
    let path = path(folder, record.launch);
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let done = write(&part, record).and_then(|()| std::fs::rename(&part, &path));
    done.map_err(io("write", path))
}

/// Takes back a launch whose job was certainly not submitted.
///
/// # Errors
/// The file system refuses.
pub fn withdraw(folder: &RunFolder, launch: u32) -> Result<(), LedgerError> {
    let path = path(folder, launch);
    std::fs::remove_file(&path).map_err(io("remove", path))
}

fn write(path: &std::path::Path, record: &LaunchRecord) -> std::io::Result<()> {
    let mut file = std::fs::File::create(path)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(launch: u32) -> LaunchRecord {
        LaunchRecord {
            version: LEDGER_VERSION,
            launch,
            gang: 0,
            backend: "fake".to_owned(),
            door: String::new(),
            key: format!("run-1/{launch}"),
            job: None,
            follows: None,
            after: Vec::new(),
            attempts: 0,
            submitted_s: 1,
        }
    }

    #[test]
    fn a_number_is_taken_once_and_what_is_begun_can_be_completed_or_withdrawn() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(dir.path());
        assert_eq!(read(&folder).expect("none yet"), []);
        begin(&folder, &record(1)).expect("the number is free");
        assert!(begin(&folder, &record(1)).is_err_and(|e| e.is_taken()));
        begin(&folder, &record(2)).expect("the next one is free");
        let done = LaunchRecord {
            job: Some(JobRef("7".to_owned())),
            ..record(1)
        };
        update(&folder, &done).expect("it is there");
        withdraw(&folder, 2).expect("it is there");
        assert_eq!(read(&folder).expect("one"), [done]);
        let files = std::fs::read_dir(folder.launches()).expect("there").count();
        assert_eq!(files, 1, "nothing else is left");
    }

    #[test]
    fn a_record_that_is_none_is_refused_by_its_name() {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::new(dir.path());
        let newer = LaunchRecord {
            version: 2,
            ..record(1)
        };
        begin(&folder, &newer).expect("the number is free");
        let error = read(&folder).expect_err("a newer version").to_string();
        assert!(error.contains("1.json") && error.contains("version is 2"), "{error}");
    }
}
