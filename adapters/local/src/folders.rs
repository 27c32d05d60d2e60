//! Where runs lie on this machine. Owns the home folder, the making and finding of run folders, and the folder of sockets.

use bridgehead_spec::{RunFolder, RunId};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Why a run's folder cannot be had.
#[derive(Debug, Error)]
pub enum FolderError {
    /// The file system refused.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        /// The verb.
        doing: &'static str,
        /// The path.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// No run has this id or prefix.
    #[error("no run {asked:?} in {home}: `bridgehead ps --all` lists what is there")]
    NotFound {
        /// What was asked for.
        asked: String,
        /// Where was looked.
        home: PathBuf,
    },
    /// Several runs have this prefix.
    #[error("{asked:?} could be any of {candidates:?}: give more of the id")]
    Ambiguous {
        /// What was asked for.
        asked: String,
        /// Those that it could be.
        candidates: Vec<String>,
    },
    /// Somebody else owns the folder for sockets.
    #[error(
        "{path} is not a folder of this user with mode 0700: remove it, or set XDG_RUNTIME_DIR to a folder of yours"
    )]
    Unsafe {
        /// The folder.
        path: PathBuf,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> FolderError {
    move |source| FolderError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// `$BRIDGEHEAD_HOME`, else `$XDG_STATE_HOME/bridgehead`, else `~/.local/state/bridgehead`.
#[must_use]
pub fn home() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("BRIDGEHEAD_HOME")
        .or_else(|| set("XDG_STATE_HOME").map(|p| p.join("bridgehead")))
        .or_else(|| set("HOME").map(|p| p.join(".local/state/bridgehead")))
        .unwrap_or_else(|| PathBuf::from("/tmp/bridgehead-home"))
}

/// A new id for a run of `name`: `<name>-<date>-<time>-<random>`, UTC.
#[must_use]
pub fn new_run_id(name: &str, now_s: u64) -> RunId {
    let clean: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
                c
            } else {
                '-'
            }
        })
        .take(32)
        .collect();
    let clean = if clean.is_empty() { "run".to_owned() } else { clean };
    let mut random = [0u8; 4];
    let _ = getrandom::fill(&mut random); // Without it ids are still told apart by their second; a clash is refused.
    let (y, mo, d, h, mi, s) = utc(now_s);
    let random = u32::from_ne_bytes(random); // Two bytes were not enough for a test suite that starts some runs a second.
    let text = format!("{clean}-{y:04}{mo:02}{d:02}-{h:02}{mi:02}{s:02}-{random:08x}");
    RunId::parse(&text).expect("made of allowed characters, shorter than 64")
}

/// Date and time of a Unix time, by Howard Hinnant's `civil_from_days`.
fn utc(now_s: u64) -> (u64, u64, u64, u64, u64, u64) {
    let days = now_s / 86_400 + 719_468;
    let era = days / 146_097;
    let doe = days % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let second = now_s % 86_400;
    (
        year,
        month,
        doy - (153 * mp + 2) / 5 + 1,
        second / 3600,
        second / 60 % 60,
        second % 60,
    )
}

/// Makes the folder of a new run under `home`, mode 0700.
///
/// # Errors
/// The file system refuses, or the run exists.
pub fn create_run(home: &Path, run: &RunId) -> Result<RunFolder, FolderError> {
    let runs = home.join("runs");
    let make = |path: &Path, recursive| {
        std::fs::DirBuilder::new()
            .recursive(recursive)
            .mode(0o700)
            .create(path)
            .map_err(io_error("make", path))
    };
    make(&runs, true)?;
    let folder = RunFolder::new(runs.join(run.as_str()));
    make(folder.path(), false)?;
    for part in [
        folder.journal(),
        folder.logs(),
        folder.results(),
        folder.mailbox(),
        folder.path().join("blobs"),
    ] {
        make(&part, false)?;
    }
    Ok(folder)
}

/// The ids of all runs under `home`, newest last.
///
/// # Errors
/// The folder cannot be read (a missing one is an empty list).
pub fn list_runs(home: &Path) -> Result<Vec<RunId>, FolderError> {
    let runs = home.join("runs");
    let entries = match std::fs::read_dir(&runs) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error("list", &runs)(e)),
    };
    let mut runs: Vec<_> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let facts = entry.metadata().ok().filter(std::fs::Metadata::is_dir)?;
            let made = facts.created().or_else(|_| facts.modified()).ok()?;
            Some((made, RunId::parse(entry.file_name().to_str()?)?))
        })
        .collect();
    runs.sort();
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

/// The run that `asked` means: a path to a run folder, an id, or a prefix that only one run has.
///
/// # Errors
/// None or several match.
pub fn resolve_run(home: &Path, asked: &str) -> Result<RunFolder, FolderError> {
    let as_path = Path::new(asked);
    if asked.contains('/') && as_path.join("run.json").is_file() {
        return Ok(RunFolder::new(as_path));
    }
    let runs = list_runs(home)?;
    let matches: Vec<&RunId> = runs.iter().filter(|run| run.as_str().starts_with(asked)).collect();
    let exact = matches.iter().find(|run| run.as_str() == asked);
    match (exact, matches.as_slice()) {
        (Some(run), _) | (None, [run]) => Ok(RunFolder::new(home.join("runs").join(run.as_str()))),
        (None, []) => Err(FolderError::NotFound {
            asked: asked.to_owned(),
            home: home.to_owned(),
        }),
        (None, several) => Err(FolderError::Ambiguous {
            asked: asked.to_owned(),
            candidates: several.iter().take(10).map(ToString::to_string).collect(),
        }),
    }
}

/// The folder that holds this user's folders of sockets.
fn sockets_top(uid: u32) -> PathBuf {
    let base = std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|p| p.is_dir() && p.as_os_str().len() < 40);
    base.unwrap_or_else(|| PathBuf::from("/tmp"))
        .join(format!("bridgehead-{uid}"))
}

/// Folders of sockets that no process names in its command line or environment: an agent's reaper does as long as the agent
/// lives, and removes the folder after it, unless it was killed itself.
///
/// # Errors
/// The folder of folders or the list of processes cannot be read.
pub fn stale_socket_dirs() -> Result<Vec<PathBuf>, FolderError> {
    let top = sockets_top(rustix::process::geteuid().as_raw());
    let mut found = match std::fs::read_dir(&top) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).collect::<Vec<_>>(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(io_error("list", &top)(e)),
    };
    // One that was made a moment ago may belong to an agent that has no reaper yet.
    let settled = |path: &PathBuf| {
        let made = std::fs::metadata(path).and_then(|facts| facts.modified());
        made.is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() >= 60))
    };
    found.retain(settled);
    let processes = Path::new("/proc");
    for process in std::fs::read_dir(processes)
        .map_err(io_error("list", processes))?
        .flatten()
    {
        for words in ["cmdline", "environ"] {
            let text = std::fs::read(process.path().join(words)).unwrap_or_default(); // Gone, or somebody else's.
            let text = String::from_utf8_lossy(&text).into_owned();
            found.retain(|path| {
                path.file_name()
                    .is_some_and(|name| !text.contains(&*name.to_string_lossy()))
            });
        }
    }
    Ok(found)
}

/// The folder for the sockets of one process of a run: short enough for a socket's name, mode 0700, of this user only.
///
/// # Errors
/// It cannot be made, or is somebody else's.
pub fn socket_dir(name: &str) -> Result<PathBuf, FolderError> {
    let uid = rustix::process::geteuid().as_raw();
    let top = sockets_top(uid);
    for path in [top.clone(), top.join(name)] {
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(io_error("make", &path)(e)),
            _ => {}
        }
        let facts = std::fs::symlink_metadata(&path).map_err(io_error("look at", &path))?;
        if !facts.is_dir() || facts.uid() != uid || facts.mode() & 0o077 != 0 {
            return Err(FolderError::Unsafe { path });
        }
    }
    Ok(top.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_carry_the_date_of_their_second() {
        assert!(
            new_run_id("a b", 951_782_400)
                .as_str()
                .starts_with("a-b-20000229-000000-")
        );
        assert!(
            new_run_id("x", 1_795_471_199)
                .as_str()
                .starts_with("x-20261123-215959-")
        );
    }

    #[test]
    fn runs_of_one_second_have_ids_of_their_own() {
        let ids: std::collections::BTreeSet<_> = (0..500).map(|_| new_run_id("x", 0)).collect();
        assert_eq!(ids.len(), 500); // Of 16 random bits two would be alike most times; of 32 once in 30,000 times.
    }

    #[test]
    fn a_prefix_means_a_run_only_if_one_has_it() {
        let home = tempfile::tempdir().unwrap();
        for id in ["alpha-1", "alpha-2", "beta"] {
            create_run(home.path(), &RunId::parse(id).unwrap()).unwrap();
        }
        let find = |asked: &str| resolve_run(home.path(), asked).map(|f| f.path().to_owned());
        assert!(find("beta").unwrap().ends_with("runs/beta"));
        assert!(find("b").unwrap().ends_with("runs/beta"));
        assert!(matches!(find("alpha"), Err(FolderError::Ambiguous { candidates, .. }) if candidates.len() == 2));
        assert!(matches!(find("gamma"), Err(FolderError::NotFound { .. })));
    }
}
