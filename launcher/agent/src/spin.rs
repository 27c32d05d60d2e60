//! A short spin before sleeping: a blocked wake-up costs about 40 µs on common virtual machines, a spin a fraction of one.
//! Owns when to spin; yields the processor at each turn, so that workers on the same core are not held up.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Longest spin after the last activity. Measured with a worker that spins too: no gain in calls a second, none worth
/// naming in a round trip up to 40 µs, a loss from 80 µs; programs lose 15 %, so only calls of workers spin at all.
const SPIN: Duration = Duration::from_micros(20);

/// Told about activity; keeps the runtime awake for a moment after it.
#[derive(Debug, Clone)]
pub(crate) struct Spin {
    last: Rc<Cell<Instant>>,
    wake: Rc<Notify>,
}

impl Spin {
    /// Starts the spinning task. Must be called inside a `LocalSet`.
    pub(crate) fn start() -> Self {
        let spin = Self {
            last: Rc::new(Cell::new(Instant::now())),
            wake: Rc::new(Notify::new()),
        };
        let this = spin.clone();
        tokio::task::spawn_local(async move {
            loop {
                this.wake.notified().await;
                while this.last.get().elapsed() < SPIN {
                    rustix::thread::sched_yield();
                    tokio::task::yield_now().await;
                }
            }
        });
        spin
    }

    /// Something happened while calls are out: more is likely to come at once.
    pub(crate) fn active(&self) {
        self.last.set(Instant::now());
        self.wake.notify_one();
    }
}
