//! Frames to and from a worker. Owns the socket's two ends; knows no meaning. Hot path: once a batch.

use bridgehead_wire::{AgentToWorker, Frames, WorkerToAgent};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// What a worker's socket tells the agent.
#[derive(Debug)]
pub(crate) enum FromWorker {
    /// A message.
    Message(WorkerToAgent),
    /// The socket ended, with the reason where it is not a plain close.
    Gone(String),
}

const READ: usize = 64 << 10;

/// Frames that wait to be written to a worker; one write takes all.
#[derive(Debug)]
pub(crate) struct Outbox {
    buffer: Vec<u8>,
    writer: UnboundedSender<Vec<u8>>,
}

impl Outbox {
    /// Adds a message.
    pub(crate) fn push(&mut self, message: impl Into<AgentToWorker>) {
        message.into().encode(&mut self.buffer);
    }

    /// Sends what was added.
    pub(crate) fn flush(&mut self) {
        if !self.buffer.is_empty() {
            let _ = self.writer.send(std::mem::take(&mut self.buffer)); // A dead worker is noticed by its reader.
        }
    }
}

/// Serves a worker's socket: what arrives goes to `take`, what is pushed into the outbox is written.
pub(crate) fn attach(stream: UnixStream, take: impl Fn(FromWorker) + 'static) -> Outbox {
    let (read, write) = stream.into_split();
    let (writer, queue) = unbounded_channel();
    tokio::task::spawn_local(write_all(write, queue));
    tokio::task::spawn_local(read_all(read, take));
    Outbox {
        buffer: Vec::new(),
        writer,
    }
}

async fn write_all(mut half: OwnedWriteHalf, mut queue: tokio::sync::mpsc::UnboundedReceiver<Vec<u8>>) {
    while let Some(bytes) = queue.recv().await {
        if half.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

async fn read_all(mut half: OwnedReadHalf, take: impl Fn(FromWorker)) {
    use tokio::io::AsyncReadExt;
    let mut frames = Frames::new();
    let reason = loop {
        match half.read(frames.space(READ)).await {
            Ok(0) => break String::new(),
            Ok(n) => frames.filled(n),
            Err(e) => break e.to_string(),
        }
        if let Err(e) = cut(&mut frames, &take) {
            break e.to_string();
        }
    };
    take(FromWorker::Gone(reason));
}

fn cut(frames: &mut Frames, take: &impl Fn(FromWorker)) -> Result<(), bridgehead_wire::FrameError> {
    while let Some((kind, body)) = frames.next_frame()? {
        take(FromWorker::Message(WorkerToAgent::decode(kind, body)?));
    }
    Ok(())
}
