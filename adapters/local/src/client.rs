//! A control client: one blocking connection to a head, on this machine or elsewhere. Owns the handshake and framing; for
//! commands, not for the hot path (that is the Python extension's).

use crate::tls::tls_config;
use bridgehead_spec::{HeadInfo, RunFolder};
use bridgehead_wire::{
    ALPN_CLIENT, ClientHello, ClientToHead, FrameError, Frames, HEAD_NAME, HeadToClient, Ticket, Welcome,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Why a head cannot be reached.
#[derive(Debug, Error)]
pub enum ClientError {
    /// No head lives.
    #[error(
        "no head is running for {run}: it ended, or was killed; `bridgehead status` shows what it left, `bridgehead resume` goes on"
    )]
    NoHead {
        /// The run folder.
        run: PathBuf,
    },
    /// The head did not come up.
    #[error("the head of {run} did not come up: {log}")]
    NotUp {
        /// The run folder.
        run: PathBuf,
        /// The end of its log.
        log: String,
    },
    /// The connection broke.
    #[error("the connection to the head broke: {0}")]
    Io(#[from] std::io::Error),
    /// The head speaks otherwise.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The head refused.
    #[error("the head refused: {0}")]
    Refused(String),
}

/// How long a head elsewhere has to answer a connection; a firewall that drops it must not hold a command up.
const DIAL: Duration = Duration::from_secs(3);

/// What carries a connection: on this machine a socket that only this user can open, elsewhere mutual TLS.
#[derive(Debug)]
enum Stream {
    Here(UnixStream),
    There(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    fn io(&mut self) -> &mut dyn ReadWrite {
        match self {
            Self::Here(stream) => stream,
            Self::There(stream) => stream.as_mut(),
        }
    }

    fn set_read_timeout(&self, limit: Duration) -> std::io::Result<()> {
        match self {
            Self::Here(stream) => stream.set_read_timeout(Some(limit)),
            Self::There(stream) => stream.sock.set_read_timeout(Some(limit)),
        }
    }
}

trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// A connection to a head.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    frames: Frames,
    /// What the head said at the start.
    pub welcome: Welcome,
}

/// What `head.json` says, if it can be read.
#[must_use]
pub(crate) fn head_info(folder: &RunFolder) -> Option<HeadInfo> {
    serde_json::from_slice(&std::fs::read(folder.head()).ok()?).ok()
}

/// A TLS connection whose handshake is done.
fn dial(address: &str, config: &Arc<ClientConfig>) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let mut last = std::io::Error::other("the address names no host");
    for address in address.to_socket_addrs()? {
        let socket = match TcpStream::connect_timeout(&address, DIAL) {
            Ok(socket) => socket,
            Err(error) => {
                last = error;
                continue;
            }
        };
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(DIAL))?;
        let name = ServerName::try_from(HEAD_NAME).map_err(std::io::Error::other)?;
        let session = ClientConnection::new(config.clone(), name).map_err(std::io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        return Ok(stream);
    }
    Err(last)
}

impl Client {
    /// Connects to the living head of a run; an attached run ends with its `owner`.
    ///
    /// # Errors
    /// There is none, or it refuses.
    pub fn connect(folder: &RunFolder, owner: bool) -> Result<Self, ClientError> {
        let none = || ClientError::NoHead {
            run: folder.path().to_owned(),
        };
        let info = head_info(folder).ok_or_else(none)?;
        let stream = UnixStream::connect(&info.socket).map_err(|_| none())?;
        Self::greet(Stream::Here(stream), folder, owner)
    }

    /// Connects to the living head of a run wherever it is: on this machine, else at the addresses that it left in the run
    /// folder for clients, with the certificate that it left there.
    ///
    /// # Errors
    /// None of them answers with a certificate of the run.
    pub fn reach(folder: &RunFolder) -> Result<Self, ClientError> {
        if let Ok(client) = Self::connect(folder, false) {
            return Ok(client);
        }
        let none = || ClientError::NoHead {
            run: folder.path().to_owned(),
        };
        let bytes = std::fs::read(folder.client_ticket()).map_err(|_| none())?;
        let ticket: Ticket = serde_json::from_slice(&bytes).map_err(|_| none())?;
        let config = Arc::new(tls_config(&ticket, ALPN_CLIENT).map_err(|_| none())?);
        for address in &ticket.addresses {
            if let Ok(stream) = dial(address, &config) {
                return Self::greet(Stream::There(Box::new(stream)), folder, false);
            }
        }
        Err(none())
    }

    /// The connection itself, with bytes that were read ahead, if it is one to a head on this machine.
    #[must_use]
    pub fn into_parts(self) -> Option<(UnixStream, Frames, Welcome)> {
        match self.stream {
            Stream::Here(stream) => Some((stream, self.frames, self.welcome)),
            Stream::There(_) => None,
        }
    }

    /// Waits until a head that was just started is up (and is not the head of an older attempt than `attempt`), and connects.
    ///
    /// # Errors
    /// It ends or is not up within a bounded time.
    pub fn wait(folder: &RunFolder, attempt: u32, pid: u32, owner: bool) -> Result<Self, ClientError> {
        let end = Instant::now() + Duration::from_secs(30);
        let mut pause = Duration::from_micros(200);
        loop {
            if head_info(folder).is_some_and(|info| info.attempt >= attempt) {
                if let Ok(client) = Self::connect(folder, owner) {
                    return Ok(client);
                }
            }
            if !crate::is_alive(pid) || Instant::now() > end {
                let log = std::fs::read_to_string(folder.logs().join("head.log")).unwrap_or_default();
                let lines: Vec<&str> = log.lines().rev().take(5).collect();
                let log = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
                return Err(ClientError::NotUp {
                    run: folder.path().to_owned(),
                    log,
                });
            }
            std::thread::sleep(pause); // There is no event to wait for: the file appears when the head listens.
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn greet(stream: Stream, folder: &RunFolder, owner: bool) -> Result<Self, ClientError> {
        let run = folder
            .path()
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let mut client = Self {
            stream,
            frames: Frames::new(),
            welcome: Welcome::default(),
        };
        client.send(
            &ClientHello {
                run,
                pid: std::process::id(),
                owner,
            }
            .into(),
        )?;
        match client.receive(Duration::from_secs(10))? {
            HeadToClient::Welcome(welcome) => client.welcome = welcome,
            _ => return Err(ClientError::Refused("it did not greet back".to_owned())),
        }
        Ok(client)
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, message: &ClientToHead) -> Result<(), ClientError> {
        let mut bytes = Vec::new();
        message.encode(&mut bytes);
        let io = self.stream.io();
        io.write_all(&bytes)?;
        Ok(io.flush()?)
    }

    /// The next message, waiting up to `limit`.
    ///
    /// # Errors
    /// None came in time, or the connection broke.
    pub fn receive(&mut self, limit: Duration) -> Result<HeadToClient, ClientError> {
        self.stream.set_read_timeout(limit)?;
        loop {
            if let Some((kind, body)) = self.frames.next_frame()? {
                return match HeadToClient::decode(kind, body)? {
                    HeadToClient::Refused(refused) => Err(ClientError::Refused(refused.message)),
                    message => Ok(message),
                };
            }
            let n = self.stream.io().read(self.frames.space(16 << 10))?;
            if n == 0 {
                return Err(ClientError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.frames.filled(n);
        }
    }
}
