//! Waits for a future from ordinary code, also where the caller is within an async runtime of its own. Owns that runtime.

use std::future::Future;
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime of one thread: the one that waits.
#[derive(Debug)]
pub(crate) struct Waiter(Option<Runtime>);

impl Waiter {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(Some(Builder::new_current_thread().enable_all().build()?)))
    }

    /// Waits for `future`. Within another runtime the wait is on a thread of its own, because a runtime may not be entered
    /// from within one; the caller's thread waits for it.
    pub(crate) fn wait<F>(&self, future: F) -> F::Output
    where
        F: Future + Send,
        F::Output: Send,
    {
        let runtime = self.0.as_ref().expect("it is there until the drop");
        if Handle::try_current().is_err() {
            return runtime.block_on(future);
        }
        let there = std::thread::scope(|scope| scope.spawn(|| runtime.block_on(future)).join());
        there.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        // A plain drop waits, which is forbidden within another runtime; nothing of ours is left to wait for.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_and_goes_also_within_another_runtime() {
        let outer = Waiter::new().expect("a runtime");
        let answer = outer.wait(async {
            let inner = Waiter::new().expect("a runtime");
            inner.wait(async {
                tokio::task::yield_now().await;
                42
            })
        });
        assert_eq!(answer, 42);
    }
}
