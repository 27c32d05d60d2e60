//! A bundle taken apart. Its bytes are a stranger's: only plain files, only where a run and a project have them, within bounds.

use crate::bundle::{ALL_MOST, FILES_MOST, RUN_FILES, RUN_FOLDERS};
use crate::paths::is_plain;
use flate2::read::GzDecoder;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Entry, EntryType};

/// What tar adds to a file: its head, and what fills its last block.
const PER_FILE: u64 = 4096;

fn bad(text: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the bundle is refused: {text}"))
}

/// Where an entry belongs.
enum Place {
    /// A file of the run folder, and whether one that is there is replaced.
    Run {
        path: PathBuf,
        replace: bool,
    },
    Project(PathBuf),
}

/// Unpacks a bundle. What the run folder has already stays, since it may be newer, except `run.json` and launches; files of the
/// project are replaced.
///
/// # Errors
/// It is no bundle, holds what no bundle may hold or too much of it, or a file cannot be written. What was unpacked until then stays.
pub fn unpack(bytes: &[u8], run_dir: &Path, project_dir: &Path) -> io::Result<()> {
    let most = ALL_MOST + PER_FILE * FILES_MOST as u64;
    let mut archive = Archive::new(GzDecoder::new(bytes).take(most));
    let mut left = ALL_MOST;
    for (number, entry) in archive.entries().map_err(bad)?.enumerate() {
        let mut entry = entry.map_err(bad)?;
        if number >= FILES_MOST {
            return Err(bad(format!("it has more than {FILES_MOST} files")));
        }
        left = left
            .checked_sub(entry.size())
            .ok_or_else(|| bad(format!("it has more than {ALL_MOST} bytes")))?;
        if entry.header().entry_type() != EntryType::Regular {
            return Err(bad(format!(
                "{} is no plain file",
                entry.path().map_err(bad)?.display()
            )));
        }
        let (root, path, replace) = match place(&entry.path().map_err(bad)?)? {
            Place::Run { path, replace } => (run_dir, path, replace),
            Place::Project(path) => (project_dir, path, true),
        };
        write(&mut entry, root, &path, replace)?;
    }
    Ok(())
}

fn place(path: &Path) -> io::Result<Place> {
    let unfit = || bad(format!("{} does not belong in it", path.display()));
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => names.push(name.to_str().ok_or_else(unfit)?),
            _ => return Err(unfit()),
        }
    }
    match names.as_slice() {
        ["run", name] if RUN_FILES.contains(name) => Ok(Place::Run {
            path: PathBuf::from(name),
            replace: *name == "run.json",
        }),
        ["run", top, name] if RUN_FOLDERS.contains(top) && is_plain(name) => Ok(Place::Run {
            path: Path::new(top).join(name),
            replace: *top == "launches",
        }),
        ["project", below @ ..] if !below.is_empty() => Ok(Place::Project(below.iter().collect())),
        _ => Err(unfit()),
    }
}

/// Makes the folders down to a file; a link among them leads nowhere.
fn folders(root: &Path, path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(root)?;
    let mut folder = root.to_owned();
    for name in path.parent().into_iter().flat_map(Path::components) {
        folder.push(name);
        match std::fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !std::fs::symlink_metadata(&folder)?.is_dir() {
                    return Err(bad(format!("{} is there and is no folder", folder.display())));
                }
            }
            made => made?,
        }
    }
    Ok(())
}

fn write(entry: &mut Entry<'_, impl Read>, root: &Path, path: &Path, replace: bool) -> io::Result<()> {
    folders(root, path)?;
    let target = root.join(path);
    if !replace && std::fs::symlink_metadata(&target).is_ok() {
        return Ok(());
    }
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let _ = std::fs::remove_file(&part); // Of one that was cut off.
    let written = fill(entry, &part).and_then(|()| std::fs::rename(&part, &target));
    if written.is_err() {
        let _ = std::fs::remove_file(&part); // The write's own error is the one to tell.
    }
    written.map_err(|e| io::Error::new(e.kind(), format!("cannot unpack {}: {e}", target.display())))
}

fn fill(entry: &mut Entry<'_, impl Read>, part: &Path) -> io::Result<()> {
    let program = entry.header().mode()? & 0o100 != 0;
    let size = entry.size();
    let mut file = File::create_new(part)?;
    if io::copy(entry, &mut file)? != size {
        return Err(bad("it is cut off"));
    }
    file.set_permissions(std::fs::Permissions::from_mode(if program { 0o755 } else { 0o644 }))
}
