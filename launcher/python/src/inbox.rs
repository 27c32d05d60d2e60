//! Bytes on their way in. Any thread may pump: it spins for a moment, which saves a wake-up of 40 µs, then sleeps in
//! `poll`. Hot path: `read`, once a batch.

use bridgehead_wire::{FrameError, Frames};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How long a reader spins before it sleeps.
const SPIN: Duration = Duration::from_micros(50);
const READ: usize = 256 << 10;

/// The receiving half of a connection; the stream is non-blocking for reading through `MSG_DONTWAIT`.
#[derive(Debug)]
pub(crate) struct Inbox {
    stream: UnixStream,
    frames: Frames,
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// New bytes.
    Bytes,
    /// Nothing in time.
    Nothing,
    /// The peer is gone.
    End,
}

impl Inbox {
    pub(crate) fn new(stream: UnixStream, frames: Frames) -> Self {
        Self { stream, frames }
    }

    /// Reads what is there without waiting.
    pub(crate) fn try_read(&mut self) -> Got {
        use rustix::net::{RecvFlags, recv};
        match recv(&self.stream, self.frames.space(READ), RecvFlags::DONTWAIT) {
            Ok((0, _)) => Got::End,
            Ok((n, _)) => {
                self.frames.filled(n);
                Got::Bytes
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Got::Nothing,
            Err(_) => Got::End,
        }
    }

    /// Reads, waiting up to `limit` (`None`: for ever): spinning first, then asleep.
    pub(crate) fn read(&mut self, limit: Option<Duration>) -> Got {
        let start = Instant::now();
        loop {
            match self.try_read() {
                Got::Nothing => {}
                got => return got,
            }
            let spent = start.elapsed();
            if limit.is_some_and(|limit| spent >= limit) {
                return Got::Nothing;
            }
            if spent < SPIN {
                rustix::thread::sched_yield();
            } else if !wait_readable(&self.stream, limit.map(|limit| limit.saturating_sub(spent))) {
                return Got::Nothing;
            }
        }
    }

    /// The next whole frame.
    pub(crate) fn next_frame(&mut self) -> Result<Option<(u16, &[u8])>, FrameError> {
        self.frames.next_frame()
    }

    /// Reads whatever a blocking read gives; for start-up, before anything is urgent.
    pub(crate) fn read_blocking(&mut self) -> Got {
        match self.stream.read(self.frames.space(READ)) {
            Ok(n) if n > 0 => {
                self.frames.filled(n);
                Got::Bytes
            }
            _ => Got::End,
        }
    }
}

/// Sleeps until `stream` can be read; `false` when the time is over or a signal came.
pub(crate) fn wait_readable(stream: &UnixStream, limit: Option<Duration>) -> bool {
    let mut fds = [PollFd::new(stream, PollFlags::IN)];
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    matches!(poll(&mut fds, limit.as_ref()), Ok(n) if n > 0)
}
