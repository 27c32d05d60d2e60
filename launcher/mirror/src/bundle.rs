//! The bundle: what a run begins with, for nodes that do not see the client's files. A tar, compressed with gzip; equal files give
//! equal bytes, so a bundle can be named by its digest. Owns which of a project's files travel.

use bridgehead_spec::RunFolder;
use flate2::Compression;
use flate2::write::GzEncoder;
use ignore::{DirEntry, WalkBuilder};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};
use thiserror::Error;

/// Names of files in a project's folder that are not to travel, in `.gitignore`'s words.
pub const IGNORE_FILE: &str = ".bridgeheadignore";

/// A larger file of a project is data, not code.
const FILE_MOST: u64 = 16 << 20;
/// Most bytes of a project's files together.
const PROJECT_MOST: u64 = 256 << 20;
/// Most bytes of all files together; what unpacks takes no more.
pub(crate) const ALL_MOST: u64 = 2 << 30;
/// Most files; what unpacks takes no more.
pub(crate) const FILES_MOST: usize = 100_000;
/// Files of the run folder itself that a run begins with.
pub(crate) const RUN_FILES: [&str; 3] = ["run.json", "spec.json", "plan.json"];
/// Folders of it.
pub(crate) const RUN_FOLDERS: [&str; 4] = ["blobs", "launches", "journal", "results"];

/// Why a bundle cannot be made.
#[derive(Debug, Error)]
pub enum BundleError {
    /// A file cannot be read.
    #[error("cannot read {path} for the bundle: {source}")]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The project's files are too large together.
    #[error(
        "the files of {project} have {total} bytes together, {PROJECT_MOST} are the limit; the largest are {largest}: name what is not code in {IGNORE_FILE}"
    )]
    TooLarge {
        /// The project's folder.
        project: PathBuf,
        /// Bytes of its files.
        total: u64,
        /// The largest ones.
        largest: String,
    },
    /// What the run has already is too large.
    #[error(
        "what the run has in {folder} has {total} bytes, {ALL_MOST} are the limit of a bundle: its values are too large to travel"
    )]
    RunTooLarge {
        /// The run folder.
        folder: PathBuf,
        /// Bytes of its files.
        total: u64,
    },
    /// There are too many files.
    #[error("a bundle of {count} files is more than the limit of {FILES_MOST}: name what is not code in {IGNORE_FILE}")]
    TooMany {
        /// So many.
        count: usize,
    },
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> BundleError {
    let path = path.to_owned();
    move |source| BundleError::Read { path, source }
}

/// A file on its way into a bundle.
struct Found {
    name: String,
    path: PathBuf,
    size: u64,
    program: bool,
}

/// Packs what a run begins with: under `run/` its documents, blobs, launches, journal and results as far as they are there, under
/// `project/` the files of the project's folder. Left out there: what `.gitignore` or [`IGNORE_FILE`] names, hidden files, links,
/// byte code, virtual environments, files over 16 MiB, and the run folder itself.
///
/// # Errors
/// A file cannot be read, or there is too much; the error names the largest files and the way out.
pub fn pack(folder: &RunFolder, project: Option<&Path>) -> Result<Vec<u8>, BundleError> {
    let mut found = run_files(folder)?;
    let total = found.iter().map(|file| file.size).sum::<u64>();
    if total > ALL_MOST - PROJECT_MOST {
        let folder = folder.path().to_owned();
        return Err(BundleError::RunTooLarge { folder, total });
    }
    if let Some(project) = project {
        found.extend(project_files(project, folder.path())?);
    }
    if found.len() > FILES_MOST {
        return Err(BundleError::TooMany { count: found.len() });
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let mut tar = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    for file in &found {
        add(&mut tar, file).map_err(unreadable(&file.path))?;
    }
    let written = tar.into_inner().and_then(GzEncoder::finish);
    written.map_err(unreadable(folder.path()))
}

fn add(tar: &mut Builder<GzEncoder<Vec<u8>>>, found: &Found) -> io::Result<()> {
    // A journal that somebody still writes is taken as long as it was.
    let file = io::Read::take(std::fs::File::open(&found.path)?, found.size);
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(found.size);
    header.set_mode(if found.program { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    let mut read = Counted(file, 0);
    tar.append_data(&mut header, &found.name, &mut read)?;
    if read.1 == found.size {
        Ok(())
    } else {
        Err(io::Error::other("it became shorter while it was read"))
    }
}

struct Counted<R>(R, u64);

impl<R: io::Read> io::Read for Counted<R> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(bytes)?;
        self.1 += n as u64;
        Ok(n)
    }
}

/// A regular file; none where it is a link or something else.
fn found(name: String, path: PathBuf) -> Result<Option<Found>, BundleError> {
    let facts = std::fs::symlink_metadata(&path).map_err(unreadable(&path))?;
    Ok(facts.is_file().then(|| Found {
        name,
        size: facts.len(),
        program: facts.permissions().mode() & 0o100 != 0,
        path,
    }))
}

fn run_files(folder: &RunFolder) -> Result<Vec<Found>, BundleError> {
    let mut all = Vec::new();
    for name in RUN_FILES {
        let path = folder.path().join(name);
        if path.exists() {
            all.extend(found(format!("run/{name}"), path)?);
        }
    }
    for top in RUN_FOLDERS {
        let path = folder.path().join(top);
        let entries = match std::fs::read_dir(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries.map_err(unreadable(&path))?,
        };
        for entry in entries {
            let entry = entry.map_err(unreadable(&path))?;
            let name = entry.file_name();
            if let Some(name) = name.to_str().filter(|name| crate::paths::is_plain(name)) {
                all.extend(found(format!("run/{top}/{name}"), entry.path())?);
            }
        }
    }
    Ok(all)
}

/// Whether the walk goes on here: not into virtual environments and byte code, nor into the run folder.
fn travels(entry: &DirEntry, run_folder: &Path) -> bool {
    let name = entry.file_name().to_string_lossy();
    if entry.file_type().is_some_and(|kind| kind.is_dir()) {
        return name != "__pycache__" && !entry.path().join("pyvenv.cfg").exists() && entry.path() != run_folder;
    }
    !name.ends_with(".pyc")
}

fn project_files(project: &Path, run_folder: &Path) -> Result<Vec<Found>, BundleError> {
    let project = std::fs::canonicalize(project).map_err(unreadable(project))?;
    let run_folder = std::fs::canonicalize(run_folder).map_err(unreadable(run_folder))?;
    let walk = WalkBuilder::new(&project)
        .standard_filters(false)
        .hidden(true)
        .parents(true)
        .git_ignore(true)
        .require_git(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(move |entry| entry.depth() == 0 || travels(entry, &run_folder))
        .build();
    let mut all = Vec::new();
    for entry in walk {
        let entry = entry.map_err(|e| BundleError::Read {
            path: project.clone(),
            source: io::Error::other(e),
        })?;
        let Some(name) = entry.path().strip_prefix(&project).ok().and_then(Path::to_str) else {
            tracing::warn!(path = %entry.path().display(), "not in the bundle: its name is no text");
            continue;
        };
        if !entry.file_type().is_some_and(|kind| kind.is_file()) {
            continue; // Folders are made as they are needed; where links lead, another machine has nothing.
        }
        match found(format!("project/{name}"), entry.path().to_owned())? {
            Some(file) if file.size > FILE_MOST => {
                tracing::warn!(
                    path = name,
                    bytes = file.size,
                    "not in the bundle: larger than {FILE_MOST} bytes"
                );
            }
            file => all.extend(file),
        }
    }
    check_size(&project, &all)?;
    Ok(all)
}

fn check_size(project: &Path, all: &[Found]) -> Result<(), BundleError> {
    let total = all.iter().map(|file| file.size).sum::<u64>();
    if total <= PROJECT_MOST {
        return Ok(());
    }
    let mut by_size: Vec<&Found> = all.iter().collect();
    by_size.sort_by_key(|file| std::cmp::Reverse(file.size));
    let largest = by_size.iter().take(5).map(|file| {
        let name = file.name.trim_start_matches("project/");
        format!("{name} ({} bytes)", file.size)
    });
    Err(BundleError::TooLarge {
        project: project.to_owned(),
        total,
        largest: largest.collect::<Vec<_>>().join(", "),
    })
}

/// A bundle in pieces of up to `most` bytes, for places that take no more at once; `part-000`, `part-001` and so on by name.
///
/// # Panics
/// `most` is zero.
#[must_use]
pub fn split(bytes: &[u8], most: usize) -> Vec<Vec<u8>> {
    bytes.chunks(most).map(<[u8]>::to_vec).collect()
}

/// The pieces in a folder, put together again: `part-000`, `part-001` and so on, which may be links.
///
/// # Errors
/// There is none, one between others is missing, or one cannot be read.
pub fn read_parts(dir: &Path) -> io::Result<Vec<u8>> {
    let of = |path: &Path, error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut count = 0;
    for entry in std::fs::read_dir(dir).map_err(|e| of(dir, e))? {
        let name = entry.map_err(|e| of(dir, e))?.file_name();
        count += usize::from(name.to_string_lossy().starts_with("part-"));
    }
    if count == 0 {
        return Err(of(
            dir,
            io::Error::new(io::ErrorKind::NotFound, "no part of a bundle is there"),
        ));
    }
    let mut all = Vec::new();
    for number in 0..count {
        let path = dir.join(format!("part-{number:03}"));
        all.extend(std::fs::read(&path).map_err(|e| of(&path, e))?);
    }
    Ok(all)
}

#[cfg(test)]
#[path = "bundle_tests.rs"]
mod tests;
