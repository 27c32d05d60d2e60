//! An agent's logs on their way to the head's folder, as they grow. Owns the thread and the note of where in the head's file this
//! folder's part begins, so that neither a lost answer nor a restarted agent doubles a line.

use crate::agent::{FIRST_PAUSE, LONGEST_PAUSE, Remote, nothing};
use crate::body;
use crate::link::Trouble;
use crate::paths::{FilePath, Top};
use crate::tree::Tree;
use bridgehead_spec::RunFolder;
use hyper::Method;
use hyper::header::CONTENT_LENGTH;
use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Between two looks at the logs.
const PERIOD: Duration = Duration::from_millis(500);
/// Bytes of one append.
const PIECE: usize = 1 << 20;
/// An append that is answered with another length so often is given up until the next look.
const MOST_TURNS: u32 = 8;
/// The note, in the local folder. It is hidden, so nobody takes it for a part of the run.
const NOTE: &str = ".shipped.json";

/// A thread that ships logs until it is told to finish.
#[derive(Debug)]
pub struct Shipping {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Shipping {
    /// Ships what has come last and tells the head that this agent has shipped all.
    ///
    /// # Errors
    /// The head was away for too long, or a log cannot be read.
    pub fn finish(mut self) -> io::Result<()> {
        if let Some(end) = self.end.take() {
            let _ = end.send(()); // It waits for this as long as it lives.
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the thread that ships logs is gone")),
        }
    }
}

impl Drop for Shipping {
    /// Stops without a last look and without a word to the head.
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // What it could not ship was logged.
        }
    }
}

impl Remote {
    /// Ships what the logs of `folder` grow by, twice a second, until [`Shipping::finish`], as the agent with this rank.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub fn ship_logs(self: &Arc<Self>, folder: &RunFolder, rank: u32) -> io::Result<Shipping> {
        let mut shipper = Shipper::new(self.clone(), folder);
        let (end, ended) = channel();
        let thread = std::thread::Builder::new()
            .name("ship-logs".to_owned())
            .spawn(move || {
                let (mut pause, mut attempt) = (PERIOD, 1_u32);
                loop {
                    match ended.recv_timeout(pause) {
                        Ok(()) => return shipper.last().and_then(|()| shipper.remote.done(rank)),
                        Err(RecvTimeoutError::Disconnected) => return Ok(()),
                        Err(RecvTimeoutError::Timeout) => {}
                    }
                    match shipper.round() {
                        Ok(()) => (pause, attempt) = (PERIOD, 1),
                        Err(trouble) => {
                            tracing::warn!(attempt, %trouble, "logs cannot be shipped; trying again");
                            attempt += 1;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                        }
                    }
                }
            })?;
        Ok(Shipping {
            end: Some(end),
            thread: Some(thread),
        })
    }
}

struct Shipper {
    remote: Arc<Remote>,
    tree: Tree,
    note: PathBuf,
    /// By log: where in the head's file this folder's begins. A log of an earlier agent of this rank may lie before it.
    begins: BTreeMap<String, u64>,
    /// By log: bytes of it that the head has, once it was asked.
    shipped: BTreeMap<String, u64>,
}

impl Shipper {
    fn new(remote: Arc<Remote>, folder: &RunFolder) -> Self {
        let note = folder.path().join(NOTE);
        // Without a note that can be read every log begins where the head's ends.
        let begins = std::fs::read(&note).ok();
        let begins = begins
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default();
        Self {
            remote,
            tree: Tree::new(folder.path()),
            note,
            begins,
            shipped: BTreeMap::new(),
        }
    }

    /// The last look, with patience.
    fn last(&mut self) -> io::Result<()> {
        let patience = self.remote.patience();
        let (end, mut pause, mut attempt) = (Instant::now() + patience, FIRST_PAUSE, 1_u32);
        loop {
            match self.round() {
                Ok(()) => return Ok(()),
                Err(trouble) if !trouble.passes() || Instant::now() + pause > end => {
                    let what = format!("ship the last of the logs ({attempt} attempts, patience {patience:?})");
                    return Err(trouble.of(&what));
                }
                Err(trouble) => tracing::warn!(attempt, %trouble, "the last of the logs; trying again"),
            }
            std::thread::sleep(pause); // Nothing tells when a head is there again.
            pause = (pause * 2).min(LONGEST_PAUSE);
            attempt += 1;
        }
    }

    /// Ships what there is now.
    fn round(&mut self) -> Result<(), Trouble> {
        for log in self.tree.list(Top::Logs).map_err(Trouble::Here)? {
            if let Some(path) = FilePath::parse(&log.path) {
                self.ship(&path, log.size)?;
            }
        }
        Ok(())
    }

    fn ship(&mut self, path: &FilePath, size: u64) -> Result<(), Trouble> {
        let known = self.shipped.get(&path.name).copied().filter(|&shipped| shipped <= size);
        let mut shipped = match known {
            Some(shipped) => shipped,
            None if size == 0 => return Ok(()),
            None => {
                let len = self.far_len(path)?;
                self.meet(path, size, 0, len).map_err(Trouble::Here)?
            }
        };
        let mut turns = 0;
        while shipped < size {
            let bytes = self.piece(path, shipped, size).map_err(Trouble::Here)?;
            let begin = self.begins.get(&path.name).copied().unwrap_or(0);
            match self.append(path, begin + shipped, &bytes) {
                Ok(()) => shipped += bytes.len() as u64,
                Err(Trouble::Refused { len: Some(len), .. }) if turns < MOST_TURNS => {
                    turns += 1;
                    shipped = self.meet(path, size, shipped, len).map_err(Trouble::Here)?;
                }
                Err(trouble) => return Err(trouble),
            }
            self.shipped.insert(path.name.clone(), shipped);
        }
        Ok(())
    }

    /// The head's file has `len` bytes: how many of this folder's, which has `size`, of which it had `shipped`, are among them.
    fn meet(&mut self, path: &FilePath, size: u64, shipped: u64, len: u64) -> io::Result<u64> {
        let (begin, shipped) = place(self.begins.get(&path.name).copied(), size, shipped, len);
        if self.begins.insert(path.name.clone(), begin) != Some(begin) {
            self.write_note()?; // Before the first byte goes: an agent that is started again reads it.
        }
        self.shipped.insert(path.name.clone(), shipped);
        Ok(shipped)
    }

    fn write_note(&self) -> io::Result<()> {
        let part = self.note.with_extension("part");
        std::fs::write(&part, serde_json::to_vec(&self.begins)?)?;
        std::fs::rename(&part, &self.note)
    }

    fn piece(&self, path: &FilePath, from: u64, size: u64) -> io::Result<Vec<u8>> {
        let (file, _) = self.tree.read(path)?;
        let len = usize::try_from(size - from).unwrap_or(PIECE).min(PIECE);
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, from)?;
        Ok(bytes)
    }

    fn far_len(&self, path: &FilePath) -> Result<u64, Trouble> {
        let (ways, target) = (self.remote.ways(), format!("files/{path}"));
        let asked = self.remote.wait(async move {
            ways.ask((Method::HEAD, &target), None, body::empty(), |response| async move {
                let len = response
                    .headers()
                    .get(CONTENT_LENGTH)
                    .and_then(|len| len.to_str().ok()?.parse().ok());
                let unsaid = || {
                    Trouble::Here(io::Error::other(
                        "the head's folder service does not say a log's length",
                    ))
                };
                nothing(response).await?;
                len.ok_or_else(unsaid)
            })
            .await
        });
        match asked.map_err(Trouble::Here)? {
            Err(trouble) if trouble.is_absent() => Ok(0),
            asked => asked,
        }
    }

    fn append(&self, path: &FilePath, at: u64, bytes: &[u8]) -> Result<(), Trouble> {
        let (ways, target) = (self.remote.ways(), format!("files/{path}"));
        let range = format!("bytes {at}-{}/*", at + bytes.len() as u64 - 1);
        let body = body::bytes(bytes.to_vec());
        let asked = async move { ways.ask((Method::PUT, &target), Some(range), body, nothing).await };
        self.remote.wait(asked).map_err(Trouble::Here)?
    }
}

/// Where in the head's file of `len` bytes a log begins, and how much of it is there. `begin` is where it began as far as is known,
/// `size` is its length, and the head was thought to have `shipped` of it.
fn place(begin: Option<u64>, size: u64, shipped: u64, len: u64) -> (u64, u64) {
    match begin {
        // An answer was lost, an agent was started again, or the head has an older state of its folder.
        Some(begin) if begin <= len && len - begin <= size => (begin, len - begin),
        // The head has another folder, or somebody else has written: what follows goes behind what is there.
        Some(begin) if len > begin => (len - shipped.min(len), shipped.min(len)),
        _ => (len, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_goes_on_where_the_head_has_it_and_begins_behind_what_is_not_its_own() {
        // (begin, size, shipped, length at the head) to (begin, shipped).
        for (found, expected) in [
            ((None, 10, 0, 0), (0, 0)),        // A new log.
            ((None, 10, 0, 7), (7, 0)),        // An earlier agent's lies there.
            ((Some(0), 10, 4, 8), (0, 8)),     // An answer was lost.
            ((Some(7), 10, 0, 12), (7, 5)),    // The agent was started again.
            ((Some(7), 10, 5, 0), (0, 0)),     // The head has another folder.
            ((Some(0), 10, 10, 25), (15, 10)), // Somebody else has written.
        ] {
            let (begin, size, shipped, len) = found;
            assert_eq!(place(begin, size, shipped, len), expected, "{found:?}");
        }
    }
}
