//! The two ends of a worker: its socket and its process; and the sockets of guests. Owns reading, writing and waiting; knows no
//! meaning.
//! Hot path: `Outbox::flush` and `read_all`, once a batch.

use crate::spawn::{End, Process};
use bridgehead_wire::{AgentToGuest, AgentToWorker, FrameError, Frames, WorkerToAgent};
use rustix::process::{Signal, kill_process_group};
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

/// A worker that closed its socket has this long to end.
pub(crate) const GRACE: Duration = Duration::from_millis(500);
const READ: usize = 64 << 10;

/// What a worker tells the agent.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// A message.
    Message(WorkerToAgent),
    /// The process has ended and everything that it said was read. The text says what was wrong with its last words.
    Ended(Option<End>, String),
}

/// A connection's socket, and what waits for it.
#[derive(Debug)]
pub(crate) struct Shared {
    stream: UnixStream,
    /// Bytes that the socket had no room for.
    rest: RefCell<Vec<u8>>,
    more: Notify,
}

impl Shared {
    /// The socket.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

/// Frames that wait to be written to a worker or a guest; one write takes all.
#[derive(Debug)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    shared: Rc<Shared>,
}

impl Outbox {
    /// Adds a message.
    pub(crate) fn push(&mut self, message: impl Into<AgentToWorker>) {
        message.into().encode(&mut self.buffer);
    }

    /// Adds a message to a guest.
    pub(crate) fn push_to_guest(&mut self, message: impl Into<AgentToGuest>) {
        message.into().encode(&mut self.buffer);
    }

    /// The socket.
    pub(crate) fn stream(&self) -> &UnixStream {
        &self.shared.stream
    }

    /// Starts to send what the socket had no room for, until the task that this returns is ended.
    pub(crate) fn serve(&self) -> JoinHandle<()> {
        tokio::task::spawn_local(write_rest(self.shared.clone()))
    }

    /// Sends what was added; what the socket has no room for is sent later. A dead worker is noticed by its reader.
    pub(crate) fn flush(&mut self) {
        if self.buffer.is_empty() {
            return;
        }
        let mut rest = self.shared.rest.borrow_mut();
        if rest.is_empty() {
            let written = self.shared.stream.try_write(&self.buffer).unwrap_or(0);
            self.buffer.drain(..written);
        }
        if !self.buffer.is_empty() {
            rest.append(&mut self.buffer);
            self.shared.more.notify_one();
        }
    }
}

/// An outbox for a socket, and what its reader shares with it.
pub(crate) fn outbox(stream: UnixStream) -> (Outbox, Rc<Shared>) {
    let shared = Rc::new(Shared {
        stream,
        rest: RefCell::default(),
        more: Notify::new(),
    });
    let buffer = Vec::new();
    (
        Outbox {
            buffer,
            shared: shared.clone(),
        },
        shared,
    )
}

/// Serves a worker: what it says goes to `take`, what is pushed into the outbox is written, its end is waited for, for `grace` once
/// it has closed its socket.
pub(crate) fn attach(
    stream: UnixStream,
    process: Process,
    grace: Duration,
    take: impl Fn(FromWorker) + 'static,
) -> Outbox {
    let (outbox, shared) = outbox(stream);
    let writer = outbox.serve();
    tokio::task::spawn_local(async move {
        let ended = serve(&shared.stream, &process, grace, &take).await;
        writer.abort();
        take(ended);
    });
    outbox
}

async fn write_rest(shared: Rc<Shared>) {
    loop {
        shared.more.notified().await;
        while !shared.rest.borrow().is_empty() {
            if shared.stream.writable().await.is_err() {
                return;
            }
            let mut rest = shared.rest.borrow_mut();
            match shared.stream.try_write(&rest) {
                Ok(written) => drop(rest.drain(..written)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return, // The reader learns why.
            }
        }
    }
}

async fn serve(stream: &UnixStream, process: &Process, grace: Duration, take: &impl Fn(FromWorker)) -> FromWorker {
    let mut frames = Frames::new();
    let mut reason = String::new();
    let exited = exited(process);
    tokio::pin!(exited);
    tokio::select! {
        biased;
        result = read_all(stream, &mut frames, take) => {
            reason = result.err().map(|e| e.to_string()).unwrap_or_default();
            // It closed its socket or said nonsense: nobody can reach it any more.
            if !reason.is_empty() || tokio::time::timeout(grace, &mut exited).await.is_err() {
                kill(process);
                exited.await;
            }
        }
        () = &mut exited => {
            // What it said last may still be on its way; its children, which may hold the socket open, go with it.
            kill(process);
            let rest = tokio::time::timeout(GRACE, read_all(stream, &mut frames, take)).await;
            if let Ok(Err(error)) = rest {
                reason = error.to_string();
            }
        }
    }
    kill(process);
    FromWorker::Ended(process.end().await, reason)
}

/// Its number is ours until `wait`; that the group is empty already is no error.
fn kill(process: &Process) {
    let _ = kill_process_group(process.pid, Signal::KILL);
}

async fn exited(process: &Process) {
    let Ok(fd) = process.watch() else {
        return; // Out of descriptors: `wait` blocks until the group, which is then killed, has ended.
    };
    let _ = fd.readable().await; // Only fails when the runtime ends.
}

/// Why nothing more can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Frame(#[from] FrameError),
}

async fn read_all(stream: &UnixStream, frames: &mut Frames, take: &impl Fn(FromWorker)) -> Result<(), ReadError> {
    let decode = |kind, body: &[u8]| {
        take(FromWorker::Message(WorkerToAgent::decode(kind, body)?));
        Ok(())
    };
    read_frames(stream, frames, decode).await
}

/// Gives each frame that comes to `take`, until the other side closes.
///
/// # Errors
/// The connection broke, or what came is no frame that `take` knows.
pub(crate) async fn read_frames(
    stream: &UnixStream,
    frames: &mut Frames,
    take: impl Fn(u16, &[u8]) -> Result<(), FrameError>,
) -> Result<(), ReadError> {
    loop {
        stream.readable().await?;
        match stream.try_read(frames.space(READ)) {
            Ok(0) => return Ok(()),
            Ok(n) => frames.filled(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => continue,
            Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return Ok(()), // It died with bytes unread.
            Err(e) => return Err(e.into()),
        }
        while let Some((kind, body)) = frames.next_frame()? {
            take(kind, body)?;
        }
    }
}
