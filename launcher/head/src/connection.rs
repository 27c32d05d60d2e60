//! One connection: frames in as events, messages out in batches. Owns reading and writing; knows no meaning.
//! Hot path: `read_client` and the writer, once a batch.

use crate::core::ConnId;
use bridgehead_wire::{AgentToHead, ClientToHead, FrameError, Frames};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What connections tell the head.
#[derive(Debug)]
pub enum Event {
    /// A client that passed authentication is there; bytes for it go to `out`.
    ClientCame {
        /// Its connection.
        conn: ConnId,
        /// Encoded frames for it.
        out: UnboundedSender<Vec<u8>>,
    },
    /// A client's message.
    Client(ConnId, ClientToHead),
    /// A client's connection ended.
    ClientGone(ConnId),
    /// An agent whose certificate and ticket were checked is there.
    AgentCame {
        /// Its connection.
        conn: ConnId,
        /// Its number.
        agent: u32,
        /// Its first message.
        join: bridgehead_wire::AgentJoin,
        /// Encoded frames for it.
        out: UnboundedSender<Vec<u8>>,
    },
    /// A message that came over an agent's connection.
    Agent(ConnId, AgentToHead),
    /// An agent's connection ended, and why.
    AgentGone(ConnId, String),
}

const READ: usize = 64 << 10;

/// Writes what arrives on the returned sender; ends when all senders are gone or the peer is.
pub fn spawn_writer(mut half: impl AsyncWrite + Unpin + 'static) -> UnboundedSender<Vec<u8>> {
    let (out, mut queue): (_, UnboundedReceiver<Vec<u8>>) = unbounded_channel();
    tokio::task::spawn_local(async move {
        while let Some(bytes) = queue.recv().await {
            if half.write_all(&bytes).await.is_err() || half.flush().await.is_err() {
                return; // The reader sees the same end and reports it.
            }
        }
        let _ = half.shutdown().await;
    });
    out
}

/// Why reading ended.
pub enum ReadEnd {
    /// The peer closed.
    Closed,
    /// The system's word.
    Io(std::io::Error),
    /// The peer sent what is no message.
    Frame(FrameError),
}

impl std::fmt::Display for ReadEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed => f.write_str("it closed the connection"),
            Self::Io(e) => e.fmt(f),
            Self::Frame(e) => e.fmt(f),
        }
    }
}

/// Reads frames for ever and hands each to `take`.
pub async fn read_frames(
    half: &mut (impl AsyncRead + Unpin),
    frames: &mut Frames,
    mut take: impl FnMut(u16, &[u8]) -> Result<(), FrameError>,
) -> ReadEnd {
    loop {
        loop {
            match frames.next_frame() {
                Ok(Some((kind, body))) => {
                    if let Err(e) = take(kind, body) {
                        return ReadEnd::Frame(e);
                    }
                }
                Ok(None) => break,
                Err(e) => return ReadEnd::Frame(e),
            }
        }
        match half.read(frames.space(READ)).await {
            Ok(0) => return ReadEnd::Closed,
            Ok(n) => frames.filled(n),
            Err(e) => return ReadEnd::Io(e),
        }
    }
}

/// Reads the first frame of a connection, for the handshake; `None` when the peer closed or sent none in `limit`.
pub async fn first_frame(
    half: &mut (impl AsyncRead + Unpin),
    frames: &mut Frames,
    limit: std::time::Duration,
) -> Option<(u16, Vec<u8>)> {
    let read = async {
        loop {
            match frames.next_frame() {
                Ok(Some((kind, body))) => return Some((kind, body.to_vec())),
                Ok(None) => {}
                Err(e) => {
                    tracing::warn!(error = %e, "refused a connection: its first bytes are no frame");
                    return None;
                }
            }
            match half.read(frames.space(4096)).await {
                Ok(0) | Err(_) => return None,
                Ok(n) => frames.filled(n),
            }
        }
    };
    tokio::time::timeout(limit, read).await.ok().flatten()
}

/// Serves one client until it goes.
pub async fn serve_client<S>(stream: S, conn: ConnId, events: UnboundedSender<Event>)
where
    S: AsyncRead + AsyncWrite + 'static,
{
    let (mut read, write) = tokio::io::split(stream);
    let out = spawn_writer(write);
    if events.send(Event::ClientCame { conn, out }).is_err() {
        return;
    }
    let end = read_frames(&mut read, &mut Frames::new(), |kind, body| {
        let message = ClientToHead::decode(kind, body)?;
        let _ = events.send(Event::Client(conn, message)); // The head's loop is gone only when the process ends.
        Ok(())
    })
    .await;
    if let ReadEnd::Frame(e) = &end {
        tracing::warn!(conn = conn.0, error = %e, "a client sent what is no message; its connection is closed");
    }
    let _ = events.send(Event::ClientGone(conn));
}
