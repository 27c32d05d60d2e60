//! Bytes on their way out. A lone message is written by the thread that has it; a burst is left to a thread of its own,
//! which takes everything that came while it woke up. Hot path: `push`, once a task.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Messages closer together than this are a burst.
const BURST: Duration = Duration::from_micros(50);

#[derive(Debug)]
struct State {
    buffer: Vec<u8>,
    last: Instant,
    /// The thread has been told and has not yet taken the buffer.
    told: bool,
    closed: bool,
    broken: bool,
}

/// The sending half of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Outbox(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    idle: Condvar,
    /// One writer at a time, so that frames are never interleaved.
    stream: Mutex<UnixStream>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    /// Starts the thread.
    pub(crate) fn new(stream: UnixStream) -> Self {
        let state = State {
            buffer: Vec::new(),
            last: Instant::now(),
            told: false,
            closed: false,
            broken: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            idle: Condvar::new(),
            stream: Mutex::new(stream),
        });
        let this = Self(shared);
        let thread = this.clone();
        std::thread::spawn(move || thread.run());
        this
    }

    /// Adds what `encode` writes, and sees to it that it is sent soon. `false` when the connection is broken.
    pub(crate) fn push(&self, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        let mut state = lock(&self.0.state);
        if state.broken {
            return false;
        }
        encode(&mut state.buffer);
        if state.told {
            return true;
        }
        let now = Instant::now();
        let lone = now.duration_since(state.last) > BURST;
        state.last = now;
        if lone {
            if let Ok(stream) = self.0.stream.try_lock() {
                let bytes = std::mem::take(&mut state.buffer);
                drop(state);
                return self.write(stream, &bytes);
            }
        }
        state.told = true;
        self.0.wake.notify_one();
        true
    }

    /// Waits until everything that was pushed is with the kernel.
    pub(crate) fn flush(&self) {
        let mut state = lock(&self.0.state);
        while !state.buffer.is_empty() && !state.broken {
            if !state.told {
                state.told = true;
                self.0.wake.notify_one();
            }
            state = self.0.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        drop(lock(&self.0.stream)); // A write that is under way has its lock.
    }

    /// Ends the thread and the connection.
    pub(crate) fn close(&self) {
        self.flush();
        lock(&self.0.state).closed = true;
        self.0.wake.notify_one();
        let _ = lock(&self.0.stream).shutdown(std::net::Shutdown::Both); // The peer may have closed already.
    }

    fn write(&self, mut stream: MutexGuard<'_, UnixStream>, bytes: &[u8]) -> bool {
        let done = stream.write_all(bytes).is_ok();
        drop(stream);
        if !done {
            lock(&self.0.state).broken = true;
        }
        done
    }

    fn run(&self) {
        let mut bytes = Vec::new();
        loop {
            let mut state = lock(&self.0.state);
            while state.buffer.is_empty() {
                state.told = false;
                self.0.idle.notify_all();
                if state.closed {
                    return;
                }
                state = self.0.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            std::mem::swap(&mut bytes, &mut state.buffer);
            // The lock on the stream is taken under that on the state, so that a lone message cannot overtake this batch.
            let stream = lock(&self.0.stream);
            drop(state);
            if !self.write(stream, &bytes) {
                self.0.idle.notify_all();
                return;
            }
            bytes.clear();
        }
    }
}
