//! The socket by which processes of programs come to the agent. Owns listening, and who may come in: processes of this user.
//! What a guest says and is told has the meaning that `agent/guests.rs` gives it.

use crate::io::{Outbox, ReadError, outbox, read_frames};
use bridgehead_wire::{Frames, GuestToAgent};
use rustix::net::{Shutdown, shutdown};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;

/// Without descriptors to spare the next try comes after this long.
const PAUSE: Duration = Duration::from_millis(10);

/// What a guest tells the agent.
#[derive(Debug)]
pub(crate) enum FromGuest {
    /// A message.
    Message(GuestToAgent),
    /// It has gone, and everything that it said was read. The text says what was wrong with its last words.
    Ended(String),
}

/// The listening socket; it goes with this.
#[derive(Debug)]
pub(crate) struct Door {
    path: PathBuf,
    accepting: AbortHandle,
}

impl Door {
    /// Listens at `path`; who comes in is given to `take`. Must be called inside a `LocalSet`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn open(path: &Path, take: impl Fn(UnixStream) + 'static) -> io::Result<Self> {
        let _ = std::fs::remove_file(path); // Left by an agent of the same socket folder; mostly there is none.
        let listener = UnixListener::bind(path)?;
        let accepting = tokio::task::spawn_local(accept_all(listener, take)).abort_handle();
        let path = path.to_owned();
        Ok(Self { path, accepting })
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.accepting.abort();
        let _ = std::fs::remove_file(&self.path); // Its folder goes too, in most cases.
    }
}

async fn accept_all(listener: UnixListener, take: impl Fn(UnixStream)) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if is_same_user(&stream) => take(stream),
            Ok(_) => tracing::warn!("refused a process of another user on the socket for programs"),
            Err(_) => tokio::time::sleep(PAUSE).await, // Out of descriptors: others may close theirs.
        }
    }
}

/// The socket's folder keeps other users out; this does too where somebody has opened the folder.
fn is_same_user(stream: &UnixStream) -> bool {
    let me = rustix::process::geteuid().as_raw();
    stream.peer_cred().is_ok_and(|peer| peer.uid() == me)
}

/// A process of a program, connected to the agent.
#[derive(Debug)]
pub(crate) struct Guest {
    pub outbox: Outbox,
    /// The task that it is a process of, once it has said so.
    pub task: Option<u64>,
    /// When it came.
    pub since: Instant,
}

impl Guest {
    /// Serves a connection: what comes goes to `take`, with its end.
    pub(crate) fn new(stream: UnixStream, take: impl Fn(FromGuest) + 'static) -> Self {
        let (outbox, shared) = outbox(stream);
        let writer = outbox.serve();
        tokio::task::spawn_local(async move {
            let mut frames = Frames::new();
            let read = read_frames(shared.stream(), &mut frames, |kind, body| {
                take(FromGuest::Message(GuestToAgent::decode(kind, body)?));
                Ok(())
            });
            let reason = read.await.err().map(|e: ReadError| e.to_string()).unwrap_or_default();
            writer.abort();
            take(FromGuest::Ended(reason));
        });
        Self {
            outbox,
            task: None,
            since: Instant::now(),
        }
    }

    /// Ends the connection. What was sent before arrives, and what the guest has said before is read; its end follows.
    pub(crate) fn dismiss(&mut self) {
        self.outbox.flush();
        let _ = shutdown(self.outbox.stream(), Shutdown::Both); // It may have gone already.
    }
}
