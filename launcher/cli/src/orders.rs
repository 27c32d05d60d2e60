//! The signal to go, for a process that is the first of its container. Owns when it ends the process at once and with which code.

use std::sync::atomic::{AtomicU16, Ordering};
use tokio::signal::unix::{SignalKind, signal};

/// What this process ends with if it is told to go while it only waits; as the first process of its container it would ignore
/// the signal otherwise. While it is head or agent the signal is theirs.
static LEAVES_WITH: AtomicU16 = AtomicU16::new(STAYS);
const STAYS: u16 = u16::MAX;

/// From now on a signal to go ends this process with this code.
pub(crate) fn may_leave(code: u8) {
    LEAVES_WITH.store(code.into(), Ordering::SeqCst);
}

/// From now on a signal to go is for whoever else listens.
pub(crate) fn stays() {
    LEAVES_WITH.store(STAYS, Ordering::SeqCst);
}

/// Watches for the signal to go, in a thread of its own.
///
/// # Errors
/// The system refuses.
pub(crate) fn watch() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (ready, begun) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let term = signal(SignalKind::terminate());
            let _ = ready.send(term.as_ref().err().map(ToString::to_string));
            let Ok(mut term) = term else { return };
            while term.recv().await.is_some() {
                if let Ok(code) = u8::try_from(LEAVES_WITH.load(Ordering::SeqCst)) {
                    std::process::exit(code.into());
                }
            }
        });
    });
    match begun.recv()? {
        Some(error) => Err(format!("cannot listen for SIGTERM: {error}").into()),
        None => Ok(()),
    }
}
