//! Who reads a link: a thread that waits for an answer reads itself (no hand-over between threads), otherwise a background
//! thread does, which stands back while others read. Owns that choice; what a frame means is its `Sink`'s.
//! Hot path: `pump`.

use crate::futures::Answer;
use bridgehead_guest::link::{Found, Link, lock};
use bridgehead_wire::{FrameError, Frames};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

/// The background thread stands back this long after another thread has read.
const STAND_BACK: Duration = Duration::from_millis(1);

/// What takes frames.
pub trait Sink {
    /// Takes one frame; answers for futures go to `answers`.
    ///
    /// # Errors
    /// It is no message of this direction.
    fn take(&self, kind: u16, body: &[u8], answers: &mut Vec<Answer>) -> Result<(), FrameError>;
}

/// What reading brought.
#[derive(Debug)]
pub enum Pumped {
    /// Answers, to be handed over and then reported with `delivered`.
    Answers(Vec<Answer>),
    /// Nothing for futures.
    Nothing,
    /// Another thread waits in here; it or the background thread will hand over all answers.
    Taken,
    /// The connection is over, for this reason.
    Closed(String),
}

/// The reading side of a link.
#[derive(Debug)]
pub struct Reader {
    frames: Mutex<Frames>,
    /// Threads that wait for answers in `pump`.
    pumping: AtomicU32,
    /// Batches that were read and are not yet with their futures.
    delivering: AtomicU32,
    begun: Instant,
    last_pump_ns: AtomicU64,
}

impl Default for Reader {
    fn default() -> Self {
        Self::new(Frames::new())
    }
}

impl Reader {
    /// A reader that goes on where `frames` stands.
    pub fn new(frames: Frames) -> Self {
        Self {
            frames: Mutex::new(frames),
            pumping: AtomicU32::new(0),
            delivering: AtomicU32::new(0),
            begun: Instant::now(),
            last_pump_ns: AtomicU64::new(0),
        }
    }

    /// Reads once, waiting up to `limit` (for ever without one).
    pub fn pump(&self, link: &Link, sink: &impl Sink, limit: Option<Duration>) -> Pumped {
        self.pump_unless(link, sink, limit, || false)
    }

    /// As `pump`, but does not wait where what it would wait for is `there`: another thread may have read it since the caller looked.
    pub fn pump_unless(
        &self,
        link: &Link,
        sink: &impl Sink,
        limit: Option<Duration>,
        there: impl FnOnce() -> bool,
    ) -> Pumped {
        let others = self.pumping.fetch_add(1, Ordering::SeqCst);
        let pumped = if others > 0 {
            Pumped::Taken
        } else {
            self.pump_alone(link, sink, limit, there)
        };
        let now = u64::try_from(self.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_pump_ns.store(now, Ordering::Relaxed);
        self.pumping.fetch_sub(1, Ordering::SeqCst);
        pumped
    }

    fn pump_alone(
        &self,
        link: &Link,
        sink: &impl Sink,
        limit: Option<Duration>,
        there: impl FnOnce() -> bool,
    ) -> Pumped {
        let mut frames = lock(&self.frames); // Held by the background thread for one read at most.
        if there() {
            return Pumped::Nothing; // Nobody reads while the lock is held, so it cannot come unseen from here on.
        }
        if self.delivering.load(Ordering::SeqCst) > 0 {
            drop(frames);
            rustix::thread::sched_yield();
            return Pumped::Nothing; // The answer may be in that batch, so sleeping on the socket could be for ever.
        }
        let found = link.read_wait(&mut frames, limit);
        self.cut(&mut frames, found, sink)
    }

    fn cut(&self, frames: &mut Frames, found: Found, sink: &impl Sink) -> Pumped {
        let mut answers = Vec::new();
        let broken = loop {
            match frames.next_frame() {
                Ok(Some((kind, body))) => {
                    if let Err(e) = sink.take(kind, body, &mut answers) {
                        break Some(e.to_string());
                    }
                }
                Ok(None) => break None,
                Err(e) => break Some(e.to_string()),
            }
        };
        if !answers.is_empty() {
            self.delivering.fetch_add(1, Ordering::SeqCst);
            return Pumped::Answers(answers); // A broken or closed link is seen again at the next read.
        }
        match (broken, found) {
            (Some(reason), _) => Pumped::Closed(reason),
            (None, Found::Closed) => Pumped::Closed("the other side closed the connection".to_owned()),
            (None, _) => Pumped::Nothing,
        }
    }

    /// Says that a batch of answers is with its futures.
    pub fn delivered(&self) {
        self.delivering.fetch_sub(1, Ordering::SeqCst);
    }

    /// The background thread's turn: waits, up to `limit`, for something to read while nobody else does, and reads it.
    pub fn background(&self, link: &Link, sink: &impl Sink, limit: Option<Duration>) -> Pumped {
        if self.is_pumped() {
            std::thread::sleep(STAND_BACK);
            return Pumped::Nothing;
        }
        if let Ok(false) = link.wait_readable(limit) {
            return Pumped::Nothing;
        }
        if self.is_pumped() {
            return Pumped::Nothing;
        }
        let mut frames = match self.frames.try_lock() {
            Ok(frames) => frames,
            Err(TryLockError::WouldBlock) => return Pumped::Nothing,
            Err(TryLockError::Poisoned(e)) => e.into_inner(),
        };
        let found = link.read_some(&mut frames);
        self.cut(&mut frames, found, sink)
    }

    fn is_pumped(&self) -> bool {
        let last = Duration::from_nanos(self.last_pump_ns.load(Ordering::Relaxed));
        self.pumping.load(Ordering::SeqCst) > 0 || (last > Duration::ZERO && self.begun.elapsed() < last + STAND_BACK)
    }
}
