//! The thread on which all calls run. Owns the runtime behind the blocking facade: it works also while nobody waits, so that
//! forwarded connections go on.

use crate::NAME;
use bridgehead_backend::BackendError;
use std::future::Future;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

/// A runtime on a thread of its own, which ends with the value.
#[derive(Debug)]
pub(crate) struct Engine {
    handle: Handle,
    /// Dropped to end the thread. Nobody waits for that: a plug-in of the kubeconfig may hold it up.
    _running: oneshot::Sender<()>,
}

fn lost(doing: &'static str, reason: String) -> BackendError {
    BackendError::Unreachable {
        backend: NAME,
        doing,
        reason,
    }
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread or no descriptors left.
    pub(crate) fn start() -> Result<Self, BackendError> {
        let failed = |e: std::io::Error| lost("start", format!("no thread for its calls: {e}"));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (running, ended) = oneshot::channel::<()>();
        std::thread::Builder::new()
            .name("kubernetes".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(ended); // The sender is only ever dropped.
                runtime.shutdown_background();
            })
            .map_err(failed)?;
        Ok(Self {
            handle,
            _running: running,
        })
    }

    /// Runs `work` there and waits for what it gives.
    ///
    /// # Errors
    /// It gave nothing within `limit`, or it panicked.
    pub(crate) fn wait<T: Send + 'static>(
        &self,
        doing: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Result<T, BackendError> {
        let (tell, told) = std::sync::mpsc::channel();
        let task = self.handle.spawn(async move {
            let _ = tell.send(work.await); // Nobody waits any more where it took too long.
        });
        match told.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => {
                task.abort();
                Err(lost(doing, format!("no answer for {} s", limit.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => Err(lost(doing, "the client's thread failed".to_owned())),
        }
    }

    /// Where tasks are started that outlive a call.
    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}
