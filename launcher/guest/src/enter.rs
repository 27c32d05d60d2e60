//! How a process of a program comes into its run: the variables that say where, and the first words. Owns the way in; what is
//! said afterwards is its user's.

use crate::error::GuestError;
use bridgehead_wire::{AgentToGuest, Frames, GuestHello, GuestToAgent, WorkerConfig};
use rustix::net::{SendFlags, send};
use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// The agent answers the first words within this time, or it hangs.
const ANSWER: Duration = Duration::from_secs(30);
const READ: usize = 4096;

/// What the variables of a program say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// Where the agent listens.
    pub socket: PathBuf,
    /// The task.
    pub task: u64,
    /// The attempt.
    pub attempt: u32,
    /// This process's rank, where the task has several.
    pub rank: Option<u32>,
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    /// It was started by no run, or what it was told is not whole.
    pub fn of_this_process() -> Result<Self, GuestError> {
        let Some(socket) = std::env::var_os("BRIDGEHEAD_SOCKET") else {
            return Err(GuestError::Outside(
                "this process is no program of a run (BRIDGEHEAD_SOCKET is not set): start it by bridgehead.program"
                    .to_owned(),
            ));
        };
        Ok(Self {
            socket: socket.into(),
            task: needed("BRIDGEHEAD_TASK")?,
            attempt: needed("BRIDGEHEAD_ATTEMPT")?,
            rank: number("BRIDGEHEAD_RANK")?,
        })
    }
}

fn needed<T: FromStr>(name: &str) -> Result<T, GuestError> {
    let missing = || {
        GuestError::Outside(format!(
            "{name} is not set, but BRIDGEHEAD_SOCKET is: leave both as they were"
        ))
    };
    number(name)?.ok_or_else(missing)
}

fn number<T: FromStr>(name: &str) -> Result<Option<T>, GuestError> {
    let Some(value) = std::env::var_os(name) else {
        return Ok(None);
    };
    let number = value.to_str().and_then(|text| text.parse().ok());
    let bad = || GuestError::Outside(format!("{name} is {value:?}, which is no number: leave it as it was"));
    number.map(Some).ok_or_else(bad)
}

/// A connection on which the first words have been said.
#[derive(Debug)]
pub struct Entered {
    /// The socket.
    pub stream: UnixStream,
    /// What was read beyond the answer.
    pub frames: Frames,
    /// What the agent said.
    pub config: WorkerConfig,
}

impl Entered {
    /// Connects to the agent and says who this process is.
    ///
    /// # Errors
    /// Nobody listens, or the agent will not have this process.
    pub fn new(surroundings: &Surroundings) -> Result<Self, GuestError> {
        let Surroundings {
            socket,
            task,
            attempt,
            rank,
        } = surroundings;
        let unreachable = |e| GuestError::Gone(format!("its agent cannot be reached at {}: {e}", socket.display()));
        let stream = UnixStream::connect(socket).map_err(unreachable)?;
        let hello = GuestHello {
            task: *task,
            attempt: *attempt,
            rank: *rank,
            pid: std::process::id(),
        };
        let mut bytes = Vec::new();
        GuestToAgent::from(hello).encode(&mut bytes);
        // A few bytes on a new socket: they go at once or never. Without a signal where it is closed, which would end a program.
        send(&stream, &bytes, SendFlags::NOSIGNAL).map_err(io::Error::from)?;
        stream.set_read_timeout(Some(ANSWER))?;
        let mut frames = Frames::new();
        let config = answer(&stream, &mut frames)?;
        Ok(Self { stream, frames, config })
    }
}

fn answer(mut stream: &UnixStream, frames: &mut Frames) -> Result<WorkerConfig, GuestError> {
    loop {
        let frame = frames.next_frame().map_err(|e| GuestError::Gone(e.to_string()))?;
        if let Some((kind, body)) = frame {
            let message = AgentToGuest::decode(kind, body).map_err(|e| GuestError::Gone(e.to_string()))?;
            return match message {
                AgentToGuest::Config(config) => Ok(config),
                AgentToGuest::Refused(refused) => Err(GuestError::Refused(refused.message)),
                AgentToGuest::Shutdown(shutdown) => Err(GuestError::Gone(shutdown.reason)),
                AgentToGuest::Fetched(_) | AgentToGuest::Name(_) => {
                    Err(GuestError::Gone("its agent answered what nobody asked".to_owned()))
                }
            };
        }
        match stream.read(frames.space(READ)) {
            Ok(0) => return Err(GuestError::Gone("its agent closed the connection".to_owned())),
            Ok(n) => frames.filled(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                return Err(GuestError::Gone(format!("its agent said nothing for {ANSWER:?}")));
            }
            Err(e) => return Err(e.into()),
        }
    }
}
