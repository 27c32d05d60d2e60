//! A thread that waits for one fabric's news and wakes whoever waits for another's. Owns the thread.

use crate::Fabric;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// The thread looks whether it is to end at least so often.
const LONG: Duration = Duration::from_secs(3600);

#[derive(Default)]
struct State {
    /// Whoever waits was woken, and has not polled yet.
    told: bool,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) struct Relay {
    other: Arc<dyn Fabric>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Wakes `first` whenever `other` has news.
    pub fn start(other: Arc<dyn Fabric>, first: Arc<dyn Fabric>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (waiting, told) = (other.clone(), shared.clone());
        let thread = std::thread::Builder::new()
            .name("fabric-relay".to_owned())
            .spawn(move || run(&*waiting, &*first, &told))?;
        Ok(Self {
            other,
            shared,
            thread: Some(thread),
        })
    }

    /// The news were taken.
    pub fn polled(&self) {
        let mut state = self.shared.lock();
        if std::mem::take(&mut state.told) {
            self.shared.changed.notify_one();
        }
    }
}

fn run(other: &dyn Fabric, first: &dyn Fabric, shared: &Shared) {
    loop {
        let news = other.wait(LONG);
        let mut state = shared.lock();
        if news && !state.stop {
            state.told = true;
            first.wake();
        }
        while state.told && !state.stop {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return;
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_one();
        self.other.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A panic of its was printed when it happened.
        }
    }
}
