//! Shared memory of ranks: a folder for what can be sent to one, and the removal of what killed ranks left elsewhere. Owns the names that
//! MPIs give it and the question whether anybody uses it.
//!
//! Open MPI names its memory by host and number on the host, so two agents on one machine need two folders. MPICH's names and folder
//! are fixed in its code. A file that no process has open or mapped, in whatever container, has no more use: its maker keeps it
//! mapped as long as it may be attached to. The kernel knows that: it lends a file out for writing only to its one user.
#![allow(unsafe_code)] // Two calls of fcntl that no safe crate has.

use rustix::fs::{Mode, OFlags, open};
use std::fs::{DirBuilder, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Folders of shared memory; `/tmp` is MPICH's second choice.
const FOLDERS: &[&str] = &["/dev/shm", "/tmp"];

/// How names begin: MPICH before 5, MPICH 5, UCX, Open MPI 4, Open MPI 5.
const NAMES: &[&str] = &[
    "mpich_shar_tmp",
    "mpich_shm_",
    "ucx_shm_posix_",
    "vader_segment.",
    "sm_segment.",
];

/// Of Linux, for all processors; `libc` lacks it.
const F_SETSIG: libc::c_int = 10;

/// How our own folders' names begin, and the file in them that is open as long as the gang is.
const OWN: &str = "bridgehead-mpi.";
const HELD: &str = "held";

/// A folder in shared memory for one gang's ranks on one node. It goes when this is dropped, or, where the agent was killed, with
/// the next call of [`leftovers`] of the same user.
pub(crate) struct SharedFolder {
    path: PathBuf,
    _held: File,
}

impl SharedFolder {
    /// None: there is no shared memory to write to, or somebody has this name.
    pub fn make(name: &str) -> Option<Self> {
        Self::make_in(Path::new(FOLDERS[0]), name)
    }

    fn make_in(folder: &Path, name: &str) -> Option<Self> {
        let path = folder.join(format!("{OWN}{name}"));
        DirBuilder::new().mode(0o700).create(&path).ok()?;
        match File::create_new(path.join(HELD)) {
            Ok(held) => Some(Self { path, _held: held }),
            Err(_) => {
                // It was made here a moment ago and is empty.
                let _ = std::fs::remove_dir(&path);
                None
            }
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SharedFolder {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next gang's end.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// Removes what MPIs of this user left in shared memory and nobody uses; gives what was removed. Call it when the ranks of a gang have
/// ended; [`Bootstrap`](crate::Bootstrap) does when it is dropped. It is safe at any time: what is used stays.
pub fn leftovers() -> Vec<PathBuf> {
    FOLDERS
        .iter()
        .flat_map(|folder| leftovers_in(Path::new(folder)))
        .collect()
}

fn leftovers_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let remove = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with(OWN) {
            return unused(&path.join(HELD)).is_some_and(|_lent| std::fs::remove_dir_all(path).is_ok());
        }
        let named = NAMES.iter().any(|begin| name.starts_with(begin));
        named && unused(path).is_some_and(|_lent| std::fs::remove_file(path).is_ok())
    };
    entries.flatten().map(|entry| entry.path()).filter(remove).collect()
}

/// The file, lent to us alone. None: somebody uses it, it is another user's, or no file.
fn unused(path: &Path) -> Option<OwnedFd> {
    // Not through a link, and not waiting at a pipe: the folder is everybody's.
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = open(path, flags, Mode::empty()).ok()?;
    let stat = rustix::fs::fstat(&file).ok()?;
    let regular = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile;
    if !regular || stat.st_uid != rustix::process::geteuid().as_raw() {
        return None;
    }
    // Who opens the file while it is lent makes the kernel signal us: by a signal that nobody heeds, not by SIGIO, which ends a process.
    // SAFETY: both calls take a descriptor that is open and two numbers, and touch no memory.
    let lent = unsafe {
        libc::fcntl(file.as_raw_fd(), F_SETSIG, libc::SIGURG) == 0
            && libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_WRLCK) == 0
    };
    lent.then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let used = folder.path().join("mpich_shar_tmpAAAAAA");
        let left = folder.path().join("ucx_shm_posix_1");
        let other = folder.path().join("notes");
        let mut held = Some(File::create(&used).unwrap());
        for path in [&left, &other] {
            File::create(path).unwrap();
        }
        std::os::unix::fs::symlink(&other, folder.path().join("mpich_shm_link")).unwrap();
        assert_eq!(leftovers_in(folder.path()), [left]);
        assert!(used.exists() && other.exists());
        drop(held.take());
        assert_eq!(leftovers_in(folder.path()), [used]);
    }

    #[test]
    fn a_folder_goes_with_its_owner_or_with_the_next_sweep() {
        let root = tempfile::tempdir_in("/dev/shm").unwrap();
        let folder = SharedFolder::make_in(root.path(), "gang-1.0").unwrap();
        assert!(
            SharedFolder::make_in(root.path(), "gang-1.0").is_none(),
            "one has the name"
        );
        assert_eq!(leftovers_in(root.path()), Vec::<PathBuf>::new());
        let path = folder.path().to_owned();
        drop(folder);
        assert!(!path.exists());
        // As an agent leaves it that was killed.
        std::fs::create_dir(&path).unwrap();
        File::create(path.join(HELD)).unwrap();
        File::create(path.join("vader_segment.node.0.1.0")).unwrap();
        assert_eq!(leftovers_in(root.path()), [path]);
    }

    /// Another process opens a file while it is lent to us: it waits until we are done, and we live.
    #[test]
    fn who_opens_a_lent_file_ends_nobody() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = folder.path().join("mpich_shar_tmpBBBBBB");
        File::create(&path).unwrap();
        let lent = unused(&path).unwrap();
        let mut reader = std::process::Command::new("cat").arg(&path).spawn().unwrap();
        // It is in the kernel, waiting for us to give the file back.
        let waits = || std::fs::read_to_string(format!("/proc/{}/syscall", reader.id())).unwrap_or_default();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        let opens = [libc::SYS_openat, libc::SYS_openat2].map(|number| format!("{number} "));
        while !opens.iter().any(|open| waits().starts_with(open.as_str())) {
            assert!(std::time::Instant::now() < deadline, "the other process opens the file");
            std::thread::yield_now();
        }
        drop(lent);
        assert!(reader.wait().unwrap().success());
    }
}
