//! What a program prints: read while it runs, its beginning and end kept, its lines handed on as they come.
//! Owns the reading and the bounds; knows no task. Hot path: `follow`, once a program.

use crate::spawn::Process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// Bytes of a stream's beginning and of its end that are kept; what lies between is counted only.
pub(crate) const KEEP: usize = 512 << 10;
/// Text is handed on after this time at the latest.
const LOG_EVERY: Duration = Duration::from_millis(100);
/// And as soon as there is this much of it.
const LOG_SIZE: usize = 32 << 10;
/// Most of a stream that goes to the log while it comes; the end follows at the end.
const LOG_LIMIT: usize = 8 << 20;

/// The kept parts of a stream.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    dropped: u64,
}

impl Kept {
    fn add(&mut self, mut bytes: &[u8]) {
        let room = KEEP - self.head.len();
        if room > 0 {
            let (now, rest) = bytes.split_at(room.min(bytes.len()));
            self.head.extend_from_slice(now);
            bytes = rest;
        }
        self.tail.extend(bytes);
        let over = self.tail.len().saturating_sub(KEEP);
        self.tail.drain(..over);
        self.dropped += over as u64;
    }

    /// Bytes that were not kept.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The beginning and the end, with a line between them that says how much is missing.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        if self.dropped > 0 {
            let note = format!("\n[bridgehead: {} bytes left out here]\n", self.dropped);
            self.head.extend_from_slice(note.as_bytes());
        }
        self.head.extend(self.tail);
        self.head
    }
}

/// One of a program's two streams.
struct Stream {
    name: &'static str,
    /// `None` once it has ended.
    fd: Option<OwnedFd>,
    kept: Kept,
    pending: Vec<u8>,
    since: Option<Instant>,
    logged: usize,
}

impl Stream {
    fn new(name: &'static str, fd: OwnedFd) -> Self {
        Self {
            name,
            fd: Some(fd),
            kept: Kept::default(),
            pending: Vec::new(),
            since: None,
            logged: 0,
        }
    }

    /// Reads what is there; `false` when the stream has ended.
    fn read(&mut self, buffer: &mut [u8]) {
        while let Some(fd) = &self.fd {
            match rustix::io::read(fd, &mut *buffer) {
                Ok(0) => self.fd = None,
                Ok(n) => {
                    self.take(&buffer[..n]);
                    if n < buffer.len() {
                        return;
                    }
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => self.fd = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        self.kept.add(bytes);
        if self.logged < LOG_LIMIT {
            self.pending.extend_from_slice(bytes);
            self.since.get_or_insert_with(Instant::now);
        }
    }

    /// Hands on whole lines when it is time, and all that is left at the end.
    fn hand_on(&mut self, end: bool, log: &mut dyn FnMut(&'static str, String)) {
        let due = self.since.is_some_and(|since| since.elapsed() >= LOG_EVERY);
        if self.pending.is_empty() || !(end || due || self.pending.len() >= LOG_SIZE) {
            return;
        }
        let whole = self.pending.iter().rposition(|&b| b == b'\n').map(|at| at + 1);
        let upto = match whole {
            Some(upto) if !end => upto,
            _ if end || self.pending.len() >= LOG_SIZE => self.pending.len(),
            _ => {
                self.since = Some(Instant::now()); // Half a line waits for its other half.
                return;
            }
        };
        let text: Vec<u8> = self.pending.drain(..upto).collect();
        self.logged += text.len();
        self.since = (!self.pending.is_empty()).then(Instant::now);
        log(self.name, String::from_utf8_lossy(&text).into_owned());
        if self.logged >= LOG_LIMIT {
            self.pending.clear();
            self.since = None;
            let note = format!("[bridgehead: more than {LOG_LIMIT} bytes printed; the rest is not logged]\n");
            log(self.name, note);
        }
    }
}

/// Reads both streams until the process has ended and what it wrote is read. A child that it left behind and that keeps
/// the streams open is not waited for.
pub(crate) fn follow(
    process: &Process,
    out: OwnedFd,
    err: OwnedFd,
    mut log: impl FnMut(&'static str, String),
) -> io::Result<[Kept; 2]> {
    let mut streams = [Stream::new("stdout", out), Stream::new("stderr", err)];
    let mut buffer = vec![0; 32 << 10];
    loop {
        if streams.iter().all(|s| s.fd.is_none()) {
            break; // It can print no more, so its end is all that is left to wait for.
        }
        let ended = wait_any(process, &streams)?;
        for stream in &mut streams {
            stream.read(&mut buffer);
            stream.hand_on(ended, &mut log);
        }
        if ended {
            break;
        }
    }
    for stream in &mut streams {
        stream.hand_on(true, &mut log);
    }
    Ok(streams.map(|s| s.kept))
}

/// Sleeps until there is something to read, to hand on, or the process has ended; `true` in the last case.
fn wait_any(process: &Process, streams: &[Stream; 2]) -> io::Result<bool> {
    let pending = streams.iter().any(|s| s.since.is_some());
    let timeout = pending.then(|| Timespec::try_from(LOG_EVERY).expect("a tenth of a second is a valid time"));
    let mut fds = Vec::with_capacity(3);
    fds.push(PollFd::from_borrowed_fd(process.pidfd.as_fd(), PollFlags::IN));
    let open = streams.iter().filter_map(|s| s.fd.as_ref());
    fds.extend(open.map(|fd| PollFd::new(fd, PollFlags::IN)));
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(!fds[0].revents().is_empty()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_and_the_end_are_kept_and_the_rest_is_counted() {
        let mut kept = Kept::default();
        for chunk in 0..64u8 {
            kept.add(&vec![chunk; 32 << 10]);
        }
        assert_eq!(kept.dropped(), (2 << 20) - 2 * KEEP as u64);
        let bytes = kept.into_bytes();
        assert_eq!((bytes[0], bytes.last()), (0, Some(&63)));
        assert!(bytes.len() < 2 * KEEP + 100);
    }
}
