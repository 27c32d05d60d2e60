//! Bodies of messages: a piece of a file that is sent as it is read, bytes, nothing; and reading a peer's body with a bound on its
//! size and on its silences.

use crate::SILENCE;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::oneshot;

/// Read from a file at a time.
const PIECE: usize = 64 << 10;

/// A body of this crate.
pub(crate) type Sent = http_body_util::combinators::BoxBody<Bytes, io::Error>;

/// Nothing.
pub(crate) fn empty() -> Sent {
    Empty::new().map_err(|never| match never {}).boxed()
}

/// These bytes.
pub(crate) fn bytes(bytes: impl Into<Bytes>) -> Sent {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// `len` bytes of a file from `at`; a file that is shorter by then breaks the message off.
pub(crate) fn file(file: File, at: u64, len: u64) -> Sent {
    FileBody { file, at, left: len }.boxed()
}

struct FileBody {
    file: File,
    at: u64,
    left: u64,
}

impl Body for FileBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let wanted = usize::try_from(self.left).unwrap_or(PIECE).min(PIECE);
        let mut piece = vec![0; wanted];
        Poll::Ready(Some(self.file.read_at(&mut piece, self.at).and_then(|n| {
            if n == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter"));
            }
            piece.truncate(n);
            self.at += n as u64;
            self.left -= n as u64;
            Ok(Frame::data(piece.into()))
        })))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

/// A body that is sent once somebody says so, and broken off where nobody will.
pub(crate) fn gated(body: Sent, gate: oneshot::Receiver<()>) -> Sent {
    let gate = Some(gate);
    Gated { body, gate }.boxed()
}

struct Gated {
    body: Sent,
    gate: Option<oneshot::Receiver<()>>,
}

impl Body for Gated {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(gate) = &mut self.gate {
            match Pin::new(gate).poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(_)) => return Poll::Ready(Some(Err(io::Error::other("it is not wanted")))),
                Poll::Ready(Ok(())) => self.gate = None,
            }
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The next bytes of a peer's body; none at its end.
///
/// # Errors
/// The connection broke, or the peer says nothing for too long.
pub(crate) async fn next(body: &mut Incoming) -> io::Result<Option<Bytes>> {
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await;
        let silent = || io::Error::new(io::ErrorKind::TimedOut, format!("nothing came for {SILENCE:?}"));
        match frame.map_err(|_| silent())? {
            None => return Ok(None),
            Some(Err(error)) => return Err(io::Error::other(format!("the connection broke in a message: {error}"))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                } // Trailers say nothing to us.
            }
        }
    }
}

/// A whole body of up to `most` bytes; none where there are more.
///
/// # Errors
/// As [`next`].
pub(crate) async fn whole(body: &mut Incoming, most: u64) -> io::Result<Option<Vec<u8>>> {
    let mut all = Vec::new();
    while let Some(piece) = next(body).await? {
        if all.len() as u64 + piece.len() as u64 > most {
            return Ok(None);
        }
        all.extend_from_slice(&piece);
    }
    Ok(Some(all))
}
