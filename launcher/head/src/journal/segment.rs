//! Segments: the journal's bytes on disk. Owns header, record framing, checksums, exclusive creation and the cutting of
//! a torn tail. Hot path: `Writer::push` (once a transition) and `Writer::commit` (once a batch).
//!
//! A segment is `"BHJOURN\0" | version: u16 LE | reserved: u16 | attempt: u32 LE`, then records
//! `length: u32 LE | crc32c: u32 LE | protobuf Record`. See `docs/formats/journal.md`.

use super::record::{Event, Record};
use prost::Message;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"BHJOURN\0";
/// The version that this program writes, and the newest that it reads.
pub const VERSION: u16 = 1;
const HEADER: usize = 16;
/// Longest record that is believed; inline values are far below it.
const MAX_RECORD: usize = 64 << 20;

/// What can go wrong with a journal.
#[derive(Debug, Error)]
pub enum JournalError {
    /// Reading or writing failed.
    #[error("cannot {doing} journal {path}: {source}")]
    Io {
        /// The verb.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// Another head writes this attempt already.
    #[error(
        "journal segment {path} exists: another head runs attempt {attempt} of this run; cancel it or wait for its end"
    )]
    Taken {
        /// The segment.
        path: PathBuf,
        /// The attempt.
        attempt: u32,
    },
    /// Written by a newer program; nothing was touched.
    #[error(
        "journal {path} has version {found}, this program reads up to {VERSION}: use the bridgehead that wrote it, or a newer one"
    )]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its version.
        found: u16,
    },
    /// Not a journal at all.
    #[error("{path} is not a journal segment (its first bytes are wrong): remove it from the run folder or restore it")]
    NotAJournal {
        /// The file.
        path: PathBuf,
    },
}

fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> JournalError {
    move |source| JournalError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// The path of the segment that `attempt` writes in `folder`.
#[must_use]
pub fn segment_path(folder: &Path, attempt: u32) -> PathBuf {
    folder.join(format!("{attempt:06}.bhj"))
}

/// The attempts that have a segment in `folder`, in order.
///
/// # Errors
/// The folder cannot be read (a missing one is an empty list).
pub fn attempts(folder: &Path) -> Result<Vec<u32>, JournalError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error("list", folder)(e)),
    };
    let mut found: Vec<u32> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".bhj")?.parse().ok())
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Appends records to the one segment of this attempt.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    buffer: Vec<u8>,
    dirty: bool,
}

impl Writer {
    /// Creates the segment of `attempt`, which must not exist.
    ///
    /// # Errors
    /// The segment exists (another head has this attempt) or cannot be made.
    pub fn create(folder: &Path, attempt: u32) -> Result<Self, JournalError> {
        let path = segment_path(folder, attempt);
        let file = OpenOptions::new().append(true).create_new(true).mode(0o600).open(&path);
        let file = match file {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(JournalError::Taken { path, attempt });
            }
            Err(e) => return Err(io_error("create", &path)(e)),
        };
        let mut buffer = Vec::with_capacity(64 << 10);
        buffer.extend_from_slice(MAGIC);
        buffer.extend_from_slice(&VERSION.to_le_bytes());
        buffer.extend_from_slice(&[0, 0]);
        buffer.extend_from_slice(&attempt.to_le_bytes());
        let mut writer = Self {
            file,
            path,
            buffer,
            dirty: false,
        };
        writer.commit()?;
        Ok(writer)
    }

    /// Adds a record to the batch; nothing reaches the disk before `commit`.
    pub fn push(&mut self, record: &Record) {
        let len = record.encoded_len();
        let start = self.buffer.len();
        self.buffer
            .extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
        self.buffer.extend_from_slice(&[0; 4]);
        record.encode_raw(&mut self.buffer);
        let crc = crc32c::crc32c(&self.buffer[start + 8..]);
        self.buffer[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    }

    /// Hands the batch to the kernel, so that it survives the death of this process.
    ///
    /// # Errors
    /// The write failed (disk full); the batch is kept and a later `commit` tries again.
    pub fn commit(&mut self) -> Result<(), JournalError> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let mut done = 0;
        while done < self.buffer.len() {
            match self.file.write(&self.buffer[done..]) {
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    self.buffer.drain(..done);
                    return Err(io_error("write", &self.path)(e));
                }
            }
        }
        self.buffer.clear();
        self.dirty = true;
        Ok(())
    }

    /// A second handle for syncing from another thread, if something was written since the last call.
    pub fn take_dirty(&mut self) -> Option<File> {
        std::mem::take(&mut self.dirty)
            .then(|| self.file.try_clone().ok())
            .flatten()
    }

    /// Writes and syncs everything.
    ///
    /// # Errors
    /// The disk refused.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        self.commit()?;
        self.file.sync_data().map_err(io_error("sync", &self.path))?;
        self.dirty = false;
        Ok(())
    }
}

/// What reading one segment gave.
#[derive(Debug)]
pub struct Segment {
    /// The attempt that wrote it.
    pub attempt: u32,
    /// Its whole records, in order.
    pub records: Vec<Record>,
    /// What was dropped at the end, if the tail was torn or damaged: bytes and reason.
    pub dropped: Option<(usize, String)>,
}

impl Segment {
    /// How many records of earlier segments its head began from, where it says so.
    pub(super) fn replayed(&self) -> Option<u64> {
        match self.records.first()?.event.as_ref()? {
            Event::RunStarted(started) => started.replayed,
            _ => None,
        }
    }
}

/// Reads a segment; a torn or damaged tail is dropped and reported, what stands before it is kept. The file is not changed.
///
/// # Errors
/// The file cannot be read, is no journal, or is of a newer version.
pub fn read_segment(path: &Path) -> Result<Segment, JournalError> {
    let bytes = std::fs::read(path).map_err(io_error("read", path))?;
    parse_segment(path, &bytes)
}

fn parse_segment(path: &Path, bytes: &[u8]) -> Result<Segment, JournalError> {
    if bytes.len() < HEADER {
        // A head that died while it made its segment leaves less than a header: an empty segment, not a foreign file.
        let torn = MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]);
        return if torn {
            let dropped = Some((bytes.len(), "the header is cut".to_owned()));
            Ok(Segment {
                attempt: 0,
                records: Vec::new(),
                dropped,
            })
        } else {
            Err(JournalError::NotAJournal { path: path.to_owned() })
        };
    }
    if &bytes[..8] != MAGIC {
        return Err(JournalError::NotAJournal { path: path.to_owned() });
    }
    let version = u16::from_le_bytes([bytes[8], bytes[9]]);
    if version > VERSION {
        return Err(JournalError::Newer {
            path: path.to_owned(),
            found: version,
        });
    }
    let attempt = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    let (records, dropped) = parse_records(&bytes[HEADER..]);
    Ok(Segment {
        attempt,
        records,
        dropped,
    })
}

fn parse_records(mut rest: &[u8]) -> (Vec<Record>, Option<(usize, String)>) {
    let mut records = Vec::new();
    while !rest.is_empty() {
        match parse_record(rest) {
            Ok((record, used)) => {
                records.push(record);
                rest = &rest[used..];
            }
            Err(reason) => return (records, Some((rest.len(), reason))),
        }
    }
    (records, None)
}

fn parse_record(bytes: &[u8]) -> Result<(Record, usize), String> {
    let header = bytes.first_chunk::<8>().ok_or("a record's header is cut")?;
    let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let crc = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    if len > MAX_RECORD {
        return Err(format!("a record claims {len} bytes"));
    }
    let body = bytes.get(8..8 + len).ok_or("a record is cut")?;
    if crc32c::crc32c(body) != crc {
        return Err("a record's checksum is wrong".to_owned());
    }
    let record = Record::decode(body).map_err(|e| format!("a record cannot be read: {e}"))?;
    Ok((record, 8 + len))
}
