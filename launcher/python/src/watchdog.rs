//! What goes on beside a running task, without the interpreter: queued calls go back when the task runs long, results and
//! printed text are not kept waiting, the socket is read on, and the process ends with its agent.

use crate::receive::Pumped;
use crate::shared::Shared;
use bridgehead_guest::link::lock;
use pyo3::Python;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A task that runs longer keeps nobody waiting behind it.
const SLOW: Duration = Duration::from_millis(5);
const TICK: Duration = Duration::from_micros(2500);
/// Ticks without a task after which the thread sleeps until the next one.
const IDLE_TICKS: u32 = 40;
/// Unsent results older than this are sent from here.
const STALE: Duration = Duration::from_millis(1);

/// How the loop wakes the watchdog after an idle time.
#[derive(Debug, Default)]
pub struct Parking {
    parked: AtomicBool,
    lock: Mutex<()>,
    woken: Condvar,
}

impl Parking {
    /// A task begins. Costs one load while the watchdog is awake.
    pub fn wake(&self) {
        if self.parked.load(Ordering::SeqCst) {
            let _guard = lock(&self.lock);
            self.parked.store(false, Ordering::SeqCst);
            self.woken.notify_one();
        }
    }

    fn park(&self) {
        let mut guard = lock(&self.lock);
        while self.parked.load(Ordering::SeqCst) {
            guard = self.woken.wait(guard).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts the thread; it ends with the process.
///
/// # Errors
/// No thread can be had.
pub fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = shared.clone();
    std::thread::Builder::new()
        .name("bh-watchdog".to_owned())
        .spawn(move || watch(&shared))?;
    Ok(())
}

fn watch(shared: &Shared) {
    let mut idle = 0;
    loop {
        std::thread::sleep(TICK);
        if shared.link.oldest().is_some_and(|age| age > STALE) {
            let _ = shared.link.write_some(); // A broken link is noticed by whoever reads.
        }
        if lock(&shared.current).is_some() {
            idle = 0;
            if shared.return_queued(SLOW) {
                attend(shared);
            }
        } else {
            idle += 1;
            if idle > IDLE_TICKS {
                shared.watchdog.parked.store(true, Ordering::SeqCst);
                if lock(&shared.current).is_none() {
                    shared.watchdog.park(); // A task that began in between has not seen `parked`, hence the look.
                }
                shared.watchdog.parked.store(false, Ordering::SeqCst);
                idle = 0;
            }
        }
    }
}

/// Stays with a task that runs long: reads for it, sends what it prints.
fn attend(shared: &Shared) {
    while shared.return_queued(SLOW) {
        shared.add_logs();
        let _ = shared.link.write_some(); // A broken link is noticed below.
        match shared.reader.background(&shared.link, shared, Some(8 * TICK)) {
            Pumped::Answers(answers) => {
                // The task waits elsewhere than in our futures, or in another thread.
                if Python::try_attach(|py| shared.deliver(py, answers)).is_none() {
                    return;
                }
            }
            Pumped::Closed(_) => return end_with_task(shared),
            Pumped::Nothing | Pumped::Taken => {}
        }
        if shared.stop.load(Ordering::SeqCst) {
            return end_with_task(shared);
        }
    }
}

/// The agent is gone or ends this worker. If a task runs, nothing of it can be used any more and the process ends with it; if the task
/// has just ended, the loop ends the process, which a rank does together with the others.
fn end_with_task(shared: &Shared) {
    if lock(&shared.current).is_some() {
        end_process();
    }
}

fn end_process() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    std::process::abort()
}
