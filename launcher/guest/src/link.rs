//! One Unix stream socket of frames: writes in batches from any thread, reads by one thread at a time with a short spin.
//! Owns bytes and waiting; knows no message. Hot path: `send`, `read_some`.

use bridgehead_wire::Frames;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A blocked wake-up costs about as much as this spin.
const SPIN: Duration = Duration::from_micros(50);
/// After a write, more is likely to come at once: it is left to the sender thread, which sends it together.
const TOGETHER: Duration = Duration::from_micros(50);
/// How long the sender thread naps between batches, and how many empty naps end its watch.
const NAP: Duration = Duration::from_micros(100);
const EMPTY_NAPS: u32 = 8;
/// Bytes that wait to be written before those who add more have to wait.
const MOST_WAITING: usize = 32 << 20;
const READ: usize = 128 << 10;

/// A panic in another thread leaves these plain buffers usable.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Waiting {
    bytes: Vec<u8>,
    since: Instant,
    last_write: Instant,
    watched: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct Writing {
    bytes: Vec<u8>,
    at: usize,
}

/// What a read found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Bytes, now in the frames.
    Bytes,
    /// Nothing yet.
    Nothing,
    /// The peer has closed, or the connection broke.
    Closed,
}

/// A socket with its buffers.
#[derive(Debug)]
pub struct Link {
    stream: UnixStream,
    waiting: Mutex<Waiting>,
    /// Told when the sender thread has to look, and when waiting bytes went out.
    changed: Condvar,
    writing: Mutex<Writing>,
    forsaken: AtomicBool,
}

impl Link {
    /// Takes over a connected socket.
    ///
    /// # Errors
    /// It cannot be made non-blocking.
    pub fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        let long_ago = Instant::now();
        Ok(Self {
            stream,
            waiting: Mutex::new(Waiting {
                bytes: Vec::with_capacity(64 << 10),
                since: long_ago,
                last_write: long_ago,
                watched: false,
                closed: false,
            }),
            changed: Condvar::new(),
            writing: Mutex::default(),
            forsaken: AtomicBool::new(false),
        })
    }

    /// Adds frames written by `encode`; they go out at once if the line is quiet, else with the sender thread's next batch.
    /// Returns whether so much waits that the caller should call `wait_for_room`.
    pub fn send(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.closed {
            return false;
        }
        let quiet = waiting.bytes.is_empty() && waiting.last_write.elapsed() > TOGETHER;
        encode(&mut waiting.bytes);
        let full = waiting.bytes.len() > MOST_WAITING;
        if quiet {
            waiting.last_write = Instant::now();
            drop(waiting);
            if let Ok(true) = self.write_some() {
                return full;
            }
            waiting = lock(&self.waiting); // The socket is full: the sender thread waits for it.
        }
        if !waiting.watched {
            waiting.watched = true;
            drop(waiting);
            self.changed.notify_all();
        }
        full
    }

    /// Adds frames without sending them. Returns how long the oldest has been waiting.
    pub fn add(&self, encode: impl FnOnce(&mut Vec<u8>)) -> Duration {
        let mut waiting = lock(&self.waiting);
        if waiting.bytes.is_empty() {
            waiting.since = Instant::now();
            encode(&mut waiting.bytes);
            return Duration::ZERO;
        }
        encode(&mut waiting.bytes);
        waiting.since.elapsed()
    }

    /// How long the oldest unsent frame has been waiting, if there is one.
    pub fn oldest(&self) -> Option<Duration> {
        let waiting = lock(&self.waiting);
        (!waiting.bytes.is_empty()).then(|| waiting.since.elapsed())
    }

    /// Blocks until what waits is within bounds.
    pub fn wait_for_room(&self) {
        let mut waiting = lock(&self.waiting);
        while waiting.bytes.len() > MOST_WAITING && !waiting.closed {
            waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Writes what waits until all is out (`true`) or the socket is full.
    ///
    /// # Errors
    /// The connection broke.
    pub fn write_some(&self) -> io::Result<bool> {
        if self.forsaken.load(Ordering::Relaxed) {
            return Err(io::Error::new(
                ErrorKind::NotConnected,
                "it is the connection of the parent of this process",
            ));
        }
        let mut writing = lock(&self.writing);
        loop {
            if writing.at == writing.bytes.len() {
                writing.bytes.clear();
                writing.at = 0;
                let mut waiting = lock(&self.waiting);
                if waiting.bytes.is_empty() {
                    return Ok(true);
                }
                std::mem::swap(&mut waiting.bytes, &mut writing.bytes);
                waiting.last_write = Instant::now();
                if writing.bytes.len() > MOST_WAITING {
                    drop(waiting);
                    self.changed.notify_all();
                }
            }
            let Writing { bytes, at } = &mut *writing;
            // A program in C would be killed by the signal that a closed socket gives.
            match send(&self.stream, &bytes[*at..], SendFlags::NOSIGNAL) {
                Ok(n) => *at += n,
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Writes all that waits, however long the peer takes.
    ///
    /// # Errors
    /// The connection broke.
    pub fn write_all(&self) -> io::Result<()> {
        while !self.write_some()? {
            self.wait(PollFlags::OUT, None)?;
        }
        Ok(())
    }

    /// The sender thread: writes in batches until the link is closed or broken.
    pub fn run_sender(&self) {
        let mut empty = 0;
        loop {
            let mut waiting = lock(&self.waiting);
            if waiting.bytes.is_empty() {
                empty += 1;
                if waiting.closed {
                    return;
                }
                if empty > EMPTY_NAPS {
                    waiting.watched = false;
                    while !waiting.watched && !waiting.closed {
                        waiting = self.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
                    }
                    empty = 0;
                }
            } else {
                empty = 0;
            }
            drop(waiting);
            if self.write_all().is_err() {
                self.close(); // The reader reports it.
                return;
            }
            std::thread::sleep(NAP);
        }
    }

    /// Reads what is there into `frames`.
    pub fn read_some(&self, frames: &mut Frames) -> Found {
        if self.forsaken.load(Ordering::Relaxed) {
            return Found::Closed;
        }
        loop {
            return match (&self.stream).read(frames.space(READ)) {
                Ok(0) => Found::Closed,
                Ok(n) => {
                    frames.filled(n);
                    Found::Bytes
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => Found::Nothing,
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(_) => Found::Closed,
            };
        }
    }

    /// Reads into `frames`: spins briefly, then sleeps up to `limit`. Returns early, with `Nothing`, on a signal.
    pub fn read_wait(&self, frames: &mut Frames, limit: Option<Duration>) -> Found {
        let begun = Instant::now();
        loop {
            let found = self.read_some(frames);
            if found != Found::Nothing {
                return found;
            }
            if begun.elapsed() > SPIN {
                break;
            }
            rustix::thread::sched_yield();
        }
        match self.wait(PollFlags::IN, limit) {
            Ok(true) => self.read_some(frames),
            Ok(false) => Found::Nothing,
            Err(_) => Found::Closed,
        }
    }

    /// Sleeps until the socket can be read, up to `limit`. `false` on time-out or signal.
    ///
    /// # Errors
    /// The system's word.
    pub fn wait_readable(&self, limit: Option<Duration>) -> io::Result<bool> {
        self.wait(PollFlags::IN, limit)
    }

    fn wait(&self, what: PollFlags, limit: Option<Duration>) -> io::Result<bool> {
        let limit = limit.map(|d| Timespec {
            tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: d.subsec_nanos().into(),
        });
        let mut fds = [PollFd::new(&self.stream, what)];
        match poll(&mut fds, limit.as_ref()) {
            Ok(n) => Ok(n > 0),
            Err(Errno::INTR) => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// In a forked child: the socket is the parent's, so nothing is read or written any more.
    pub fn forsake(&self) {
        self.forsaken.store(true, Ordering::Relaxed);
    }

    /// Ends the link: nothing more is sent, readers wake up.
    pub fn close(&self) {
        lock(&self.waiting).closed = true;
        self.changed.notify_all();
        let _ = self.stream.shutdown(std::net::Shutdown::Both); // It may be closed already.
    }
}
