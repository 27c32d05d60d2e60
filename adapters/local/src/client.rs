//! A control client: one blocking connection to a head on this machine. Owns the handshake and framing; for commands, not
//! for the hot path (that is the Python extension's).

use bridgehead_spec::{HeadInfo, RunFolder};
use bridgehead_wire::{ClientHello, ClientToHead, FrameError, Frames, HeadToClient, Welcome};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
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

/// A connection to a head.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    frames: Frames,
    /// What the head said at the start.
    pub welcome: Welcome,
}

/// What `head.json` says, if it can be read.
#[must_use]
pub(crate) fn head_info(folder: &RunFolder) -> Option<HeadInfo> {
    serde_json::from_slice(&std::fs::read(folder.head()).ok()?).ok()
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
        Self::greet(stream, folder, owner)
    }

    /// The connection itself, with bytes that were read ahead.
    #[must_use]
    pub fn into_parts(self) -> (UnixStream, Frames, Welcome) {
        (self.stream, self.frames, self.welcome)
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

    fn greet(stream: UnixStream, folder: &RunFolder, owner: bool) -> Result<Self, ClientError> {
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
        Ok(self.stream.write_all(&bytes)?)
    }

    /// The next message, waiting up to `limit`.
    ///
    /// # Errors
    /// None came in time, or the connection broke.
    pub fn receive(&mut self, limit: Duration) -> Result<HeadToClient, ClientError> {
        self.stream.set_read_timeout(Some(limit))?;
        loop {
            if let Some((kind, body)) = self.frames.next_frame()? {
                return match HeadToClient::decode(kind, body)? {
                    HeadToClient::Refused(refused) => Err(ClientError::Refused(refused.message)),
                    message => Ok(message),
                };
            }
            let n = self.stream.read(self.frames.space(16 << 10))?;
            if n == 0 {
                return Err(ClientError::Io(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.frames.filled(n);
        }
    }
}
