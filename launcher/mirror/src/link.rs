//! One connection to a folder service: TLS, then requests one after another. Owns telling what passes from what does not; who
//! tries again is above.

use crate::body::{self, Sent};
use crate::{LENGTH_HEADER, SILENCE};
use bridgehead_wire::HEAD_NAME;
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{EXPECT, HOST, RETRY_AFTER};
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_rustls::TlsConnector;

/// Bodies go at least so fast, in bytes a second, or are given up.
const SLOWEST: u64 = 64 << 10;
/// Bodies up to so many bytes are sent unasked.
const UNASKED: u64 = 16 << 10;

/// Why a request came to nothing.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The connection could not be made, or broke.
    Broken(io::Error),
    /// This side cannot: its own files, its own arguments.
    Here(io::Error),
    /// The service said no.
    Refused {
        status: StatusCode,
        text: String,
        /// It may be there later.
        later: bool,
        /// The length of the file, where an append did not fit.
        len: Option<u64>,
    },
}

impl Trouble {
    /// Whether the same request may succeed later.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Here(_) => false,
            Self::Refused { status, later, .. } => *later || status.is_server_error(),
        }
    }

    /// Whether the service is there and only has nothing yet.
    pub(crate) fn is_later(&self) -> bool {
        matches!(self, Self::Refused { later: true, .. })
    }

    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status, .. } if *status == StatusCode::NOT_FOUND)
    }

    fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Broken(error) | Self::Here(error) => error.kind(),
            Self::Refused { status, .. } => match *status {
                StatusCode::NOT_FOUND => io::ErrorKind::NotFound,
                StatusCode::FORBIDDEN | StatusCode::CONFLICT => io::ErrorKind::PermissionDenied,
                StatusCode::PAYLOAD_TOO_LARGE => io::ErrorKind::FileTooLarge,
                StatusCode::INSUFFICIENT_STORAGE => io::ErrorKind::StorageFull,
                _ => io::ErrorKind::Other,
            },
        }
    }

    /// As an error of what was to be done.
    pub(crate) fn of(self, what: &str) -> io::Error {
        io::Error::new(self.kind(), format!("cannot {what}: {self}"))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(error) | Self::Here(error) => error.fmt(f),
            Self::Refused { status, text, .. } => write!(f, "the head's folder service says {status}: {text}"),
        }
    }
}

fn broken(error: impl fmt::Display) -> Trouble {
    Trouble::Broken(io::Error::other(error.to_string()))
}

/// A connection on which one request at a time is made.
#[derive(Debug)]
pub(crate) struct Link(SendRequest<Sent>);

impl Link {
    /// Greets the service on a stream. Must be called inside a runtime, which drives the connection.
    pub(crate) async fn open<S>(stream: S, tls: Arc<ClientConfig>) -> Result<Self, Trouble>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let greeted = async {
            let name = ServerName::try_from(HEAD_NAME).map_err(broken)?;
            let stream = TlsConnector::from(tls).connect(name, stream).await;
            let stream = stream.map_err(Trouble::Broken)?;
            hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(broken)
        };
        let greeted = tokio::time::timeout(SILENCE, greeted).await;
        let (sender, connection) = greeted.map_err(|_| broken("it did not greet back in time"))??;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to the folder service ended"); // Who asked has heard it.
            }
        });
        Ok(Self(sender))
    }

    /// Makes a request and gives its answer, if it is one of success.
    pub(crate) async fn ask(
        &mut self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Sent,
    ) -> Result<Response<Incoming>, Trouble> {
        let len = body.size_hint().exact().unwrap_or(0);
        let patience = 2 * SILENCE + Duration::from_secs(len / SLOWEST);
        let mut request = offered(body);
        *request.method_mut() = method;
        *request.uri_mut() = path
            .parse()
            .map_err(|e| Trouble::Here(io::Error::other(format!("{path}: {e}"))))?;
        request.headers_mut().extend(headers);
        request
            .headers_mut()
            .insert(HOST, hyper::header::HeaderValue::from_static(HEAD_NAME));
        let answered = async {
            self.0.ready().await.map_err(broken)?;
            self.0.send_request(request).await.map_err(broken)
        };
        let answered = tokio::time::timeout(patience, answered).await;
        let response = answered.map_err(|_| broken(format!("no answer in {patience:?}")))??;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(refused(response).await)
        }
    }
}

/// Whether a body is sent only when the service has said that it takes it. A refusal of a large one would be lost otherwise: the
/// service hangs up, and what it said is gone with the connection that is being written to.
pub(crate) fn is_large(body: &Sent) -> bool {
    body.size_hint().exact().is_none_or(|len| len > UNASKED)
}

/// A request with this body.
fn offered(body: Sent) -> Request<Sent> {
    if !is_large(&body) {
        return Request::new(body);
    }
    let (open, gate) = oneshot::channel();
    let open = Mutex::new(Some(open));
    let mut request = Request::new(body::gated(body, gate));
    request
        .headers_mut()
        .insert(EXPECT, hyper::header::HeaderValue::from_static("100-continue"));
    hyper::ext::on_informational(&mut request, move |word| {
        let open = open.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(open) = open.filter(|_| word.status() == StatusCode::CONTINUE) {
            let _ = open.send(()); // The connection is gone otherwise, and says so.
        }
    });
    request
}

async fn refused(response: Response<Incoming>) -> Trouble {
    let (parts, mut body) = response.into_parts();
    let text = body::whole(&mut body, 4 << 10).await.ok().flatten().unwrap_or_default();
    let len = parts
        .headers
        .get(LENGTH_HEADER)
        .and_then(|len| len.to_str().ok()?.parse().ok());
    Trouble::Refused {
        status: parts.status,
        text: String::from_utf8_lossy(&text).trim().to_owned(),
        later: parts.headers.contains_key(RETRY_AFTER),
        len,
    }
}

/// A whole answer of up to `most` bytes.
pub(crate) async fn read(response: Response<Incoming>, most: u64) -> Result<Vec<u8>, Trouble> {
    let read = body::whole(&mut response.into_body(), most)
        .await
        .map_err(Trouble::Broken)?;
    read.ok_or_else(|| {
        Trouble::Here(io::Error::other(format!(
            "the head's answer has more than {most} bytes"
        )))
    })
}
