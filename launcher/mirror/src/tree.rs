//! The files of one run folder by [`FilePath`]: opened from the folder's own descriptor, never through a symbolic link, whatever
//! lies there. Owns parts that become files as a whole, and appends at an exact length.

use crate::paths::{FilePath, Listed, ROOT_FILES, Top, is_plain};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

/// What a part's name ends with. It begins with a dot, so no list has it.
const PART: &str = ".incoming";

/// Numbers parts of this process.
static PARTS: AtomicU64 = AtomicU64::new(0);

/// Notes in a folder, hidden so that nobody takes them for a part of the run: its own name, and that of the one it mirrors.
const OWN_NAME: &str = ".folder";
const MIRRORED_NAME: &str = ".mirrors";

/// A run folder.
#[derive(Debug, Clone)]
pub(crate) struct Tree(PathBuf);

impl Tree {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    fn root(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(CWD, &self.0, flags, Mode::empty())?)
    }

    fn folder(&self, top: Top, make: bool) -> io::Result<OwnedFd> {
        let root = self.root()?;
        let Some(name) = top.folder() else { return Ok(root) };
        if make {
            match rustix::fs::mkdirat(&root, name, Mode::from_raw_mode(FOLDER_MODE)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        opened(rustix::fs::openat(&root, name, flags, Mode::empty()))
    }

    /// Opens a regular file; with its length now.
    pub(crate) fn read(&self, path: &FilePath) -> io::Result<(File, u64)> {
        let folder = self.folder(path.top, false)?;
        // Without blocking: a pipe of that name must not hold anybody up.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = File::from(opened(rustix::fs::openat(&folder, &path.name, flags, Mode::empty()))?);
        let facts = file.metadata()?;
        if facts.is_file() {
            Ok((file, facts.len()))
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is no regular file"),
            ))
        }
    }

    /// The length of a file; none where there is none.
    pub(crate) fn len(&self, path: &FilePath) -> io::Result<Option<u64>> {
        match self.read(path) {
            Ok((_, len)) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The lengths of all files of a top folder that may travel, by name.
    pub(crate) fn lens(&self, top: Top) -> io::Result<HashMap<String, u64>> {
        Ok(self.list(top)?.into_iter().map(|file| (file.path, file.size)).collect())
    }

    /// Opens a file to be written at places in it; it is made where there is none.
    pub(crate) fn write_at(&self, path: &FilePath) -> io::Result<File> {
        let folder = self.folder(path.top, true)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat(&folder, &path.name, flags, Mode::from_raw_mode(FILE_MODE));
        let file = File::from(opened(file)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{path} is no regular file"),
            ))
        }
    }

    /// Appends at `at` if the file is exactly so long, else gives its length.
    pub(crate) fn append(&self, path: &FilePath, at: u64, bytes: &[u8]) -> io::Result<Result<(), u64>> {
        let len = self.len(path)?.unwrap_or(0);
        if len != at {
            return Ok(Err(len));
        }
        let file = self.write_at(path)?;
        if let Err(error) = file.write_all_at(bytes, at) {
            let _ = file.set_len(at); // All or nothing, as far as a full disk lets us.
            return Err(error);
        }
        Ok(Ok(()))
    }

    /// Begins a file that is there once it is whole.
    pub(crate) fn part(&self, path: &FilePath) -> io::Result<Part> {
        let folder = self.folder(path.top, true)?;
        let number = PARTS.fetch_add(1, Ordering::Relaxed);
        let part = format!(".{}.{}-{number}{PART}", path.name, std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(&folder, &part, flags, Mode::from_raw_mode(FILE_MODE))?;
        Ok(Part {
            folder,
            part,
            name: path.name.clone(),
            file: File::from(file),
            done: false,
        })
    }

    /// Writes a file as a whole.
    pub(crate) fn write_whole(&self, path: &FilePath, bytes: &[u8]) -> io::Result<()> {
        let mut part = self.part(path)?;
        part.write(bytes)?;
        part.finish()
    }

    /// The regular files of a top folder that may travel, by name.
    pub(crate) fn list(&self, top: Top) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        let names = match self.names(top) {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        if names.is_empty() {
            return Ok(found);
        }
        let folder = self.folder(top, false)?;
        let travels = |name: &String| is_plain(name) && (top != Top::Root || ROOT_FILES.contains(&name.as_str()));
        for name in names.into_iter().filter(travels) {
            // What goes away while it is looked at, or is no file, is not listed.
            if let Some(size) = regular_len(&folder, &name)? {
                let path = FilePath { top, name }.to_string();
                let kind = top.kind();
                found.push(Listed { path, size, kind });
            }
        }
        Ok(found)
    }

    fn names(&self, top: Top) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self.folder(top, false)?)? {
            let entry = entry?;
            // Some file systems do not say what an entry is; opening it does.
            if matches!(entry.file_type(), FileType::RegularFile | FileType::Unknown) {
                names.extend(entry.file_name().to_str().ok().map(str::to_owned));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// The name of the folder, which it keeps for its life; made the first time that it is asked for.
    pub(crate) fn name(&self) -> io::Result<String> {
        if let Some(name) = self.noted_name(OWN_NAME)? {
            return Ok(name);
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        let name: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        std::fs::write(self.0.join(OWN_NAME), &name)?;
        Ok(name)
    }

    /// Makes this a mirror of the folder of that name: what it has of another one goes.
    pub(crate) fn mirrors(&self, name: &str) -> io::Result<()> {
        match self.noted_name(MIRRORED_NAME)? {
            Some(noted) if noted == name => return Ok(()),
            None => {}
            Some(_) => {
                for top in [Top::Journal, Top::Logs, Top::Results] {
                    for file in self.list(top)? {
                        std::fs::remove_file(self.0.join(file.path))?;
                    }
                }
            }
        }
        std::fs::write(self.0.join(MIRRORED_NAME), name)
    }

    fn noted_name(&self, note: &str) -> io::Result<Option<String>> {
        match std::fs::read_to_string(self.0.join(note)) {
            Ok(name) if !name.is_empty() => Ok(Some(name)),
            Ok(_) => Ok(None), // It was being written when its process died.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the parts that an earlier process left in a top folder.
    pub(crate) fn sweep(&self, top: Top) -> io::Result<()> {
        let names = match self.names(top) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            names => names?,
        };
        let folder = self.folder(top, false)?;
        for name in names
            .iter()
            .filter(|name| name.starts_with('.') && name.ends_with(PART))
        {
            rustix::fs::unlinkat(&folder, name, AtFlags::empty())?;
        }
        Ok(())
    }
}

/// The length of a regular file; none where there is none, or something else.
fn regular_len(folder: &OwnedFd, name: &str) -> io::Result<Option<u64>> {
    match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(facts) if FileType::from_raw_mode(facts.st_mode) == FileType::RegularFile => {
            Ok(Some(u64::try_from(facts.st_size).unwrap_or(0)))
        }
        Ok(_) | Err(rustix::io::Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// A link, or a file where a folder is to be, is a wrong path and no trouble of the system.
fn opened(result: rustix::io::Result<OwnedFd>) -> io::Result<OwnedFd> {
    use rustix::io::Errno;
    result.map_err(|errno| match errno {
        Errno::LOOP | Errno::NOTDIR => io::Error::new(io::ErrorKind::InvalidInput, "a link stands in the way"),
        errno => errno.into(),
    })
}

/// A file on its way; gone without a trace unless it is finished.
#[derive(Debug)]
pub(crate) struct Part {
    folder: OwnedFd,
    part: String,
    name: String,
    file: File,
    done: bool,
}

impl Part {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// Brings it to the disk and gives it its name.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.file.sync_all()?;
        rustix::fs::renameat(&self.folder, &self.part, &self.folder, &self.name)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done {
            let _ = rustix::fs::unlinkat(&self.folder, &self.part, AtFlags::empty()); // Swept at the next start.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(text: &str) -> FilePath {
        FilePath::parse(text).expect("a path that travels")
    }

    #[test]
    fn a_part_is_a_file_once_it_is_finished_and_nothing_before() {
        let dir = tempfile::TempDir::new().unwrap();
        let tree = Tree::new(dir.path());
        let mut part = tree.part(&path("results/1")).unwrap();
        part.write(b"half").unwrap();
        assert!(tree.list(Top::Results).unwrap().is_empty());
        drop(part);
        assert_eq!(std::fs::read_dir(dir.path().join("results")).unwrap().count(), 0);
        tree.write_whole(&path("results/1"), b"whole").unwrap();
        assert_eq!(tree.list(Top::Results).unwrap()[0].size, 5);
    }

    #[test]
    fn what_an_earlier_process_left_is_swept_and_files_stay() {
        let dir = tempfile::TempDir::new().unwrap();
        let tree = Tree::new(dir.path());
        tree.write_whole(&path("results/1"), b"x").unwrap();
        std::fs::write(dir.path().join("results/.2.9-9.incoming"), b"y").unwrap();
        tree.sweep(Top::Results).unwrap();
        assert_eq!(std::fs::read_dir(dir.path().join("results")).unwrap().count(), 1);
        tree.sweep(Top::Blobs).unwrap(); // There is no such folder.
    }

    #[test]
    fn an_append_fits_exactly_or_says_the_length() {
        let dir = tempfile::TempDir::new().unwrap();
        let tree = Tree::new(dir.path());
        let log = path("logs/a.log");
        assert_eq!(tree.append(&log, 0, b"abc").unwrap(), Ok(()));
        assert_eq!(tree.append(&log, 0, b"abc").unwrap(), Err(3));
        assert_eq!(tree.append(&log, 9, b"abc").unwrap(), Err(3));
        assert_eq!(tree.append(&log, 3, b"de").unwrap(), Ok(()));
        assert_eq!(std::fs::read(dir.path().join("logs/a.log")).unwrap(), b"abcde");
    }

    #[test]
    fn no_link_is_followed_and_no_pipe_is_waited_for() {
        let (dir, outside) = (tempfile::TempDir::new().unwrap(), tempfile::TempDir::new().unwrap());
        std::fs::write(outside.path().join("secret"), b"s").unwrap();
        let tree = Tree::new(dir.path());
        std::fs::create_dir(dir.path().join("logs")).unwrap();
        symlink(outside.path().join("secret"), dir.path().join("logs/link")).unwrap();
        symlink(outside.path(), dir.path().join("results")).unwrap();
        rustix::fs::mkfifoat(CWD, dir.path().join("logs/pipe"), Mode::from_raw_mode(0o600)).unwrap();
        assert!(tree.read(&path("logs/link")).is_err());
        assert!(tree.append(&path("logs/link"), 1, b"x").is_err());
        assert!(tree.read(&path("logs/pipe")).is_err());
        assert!(tree.read(&path("results/secret")).is_err());
        assert!(tree.write_whole(&path("results/new"), b"x").is_err());
        assert!(tree.list(Top::Logs).unwrap().is_empty());
        assert_eq!(std::fs::read(outside.path().join("secret")).unwrap(), b"s");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
