//! Files of the store: objects that were moved to disk, results written for good. Owns names and whole writes.

use bridgehead_spec::ObjectId;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The folder of moved objects of one agent's life; removed with the store.
#[derive(Debug)]
pub(crate) struct SpillFolder(PathBuf);

impl SpillFolder {
    /// The folder at `path`. What earlier lives of the same agent left beside it, because they were killed, is removed.
    pub(crate) fn new(path: PathBuf) -> Self {
        let beside = path.parent().and_then(|folder| std::fs::read_dir(folder).ok());
        for entry in beside.into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir_all(entry.path()); // A later life tries again.
        }
        Self(path)
    }

    pub(crate) fn path(&self, id: ObjectId) -> PathBuf {
        self.0.join(format!("{:032x}.bhs", id.0))
    }

    /// Writes an object; nothing is left of a file that could not be written whole.
    pub(crate) fn write(&self, id: ObjectId, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
        let path = self.path(id);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path);
        let result = file.and_then(|mut file| file.write_all(bytes));
        if result.is_err() {
            self.remove(id);
        }
        result
    }

    /// Reads an object back; the file must be exactly as long as it.
    pub(crate) fn read(&self, id: ObjectId, into: &mut [u8]) -> io::Result<()> {
        let mut file = File::open(self.path(id))?;
        file.read_exact(into)?;
        if file.read(&mut [0])? > 0 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the file is longer than the object",
            ));
        }
        Ok(())
    }

    pub(crate) fn remove(&self, id: ObjectId) {
        let _ = std::fs::remove_file(self.path(id)); // It goes with the folder at the latest.
    }
}

impl Drop for SpillFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // Not there when nothing was moved.
        for folder in self.0.ancestors().skip(1).take(2) {
            let _ = std::fs::remove_dir(folder); // Goes only when it is empty: others may use it.
        }
    }
}

/// Writes `bytes` to `path`: to a temporary name beside it, synced, then renamed, so that the name only ever stands for
/// the whole.
pub(crate) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<u64> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    let part = PathBuf::from(name);
    let written = File::create(&part).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    let result = written.and_then(|()| std::fs::rename(&part, path));
    if result.is_err() {
        let _ = std::fs::remove_file(&part); // The write's own error is the one to tell.
    }
    result.map(|()| bytes.len() as u64)
}
