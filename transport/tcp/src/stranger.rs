//! A connection that came and is not authenticated: a few hundred bytes, until it has proved itself or its time is over.

use crate::address::array;
use crate::engine::Engine;
use crate::handshake::{self, CHALLENGE_LEN, HELLO_LEN, Hello, Keys, PROOF_LEN, Refusal, integrity_byte};
use crate::peer::Standing;
use crate::socket::{self, Part};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

pub(crate) struct Stranger {
    /// Until it is taken by what it has become.
    pub fd: Option<OwnedFd>,
    pub since: Instant,
    buffer: [u8; HELLO_LEN],
    got: usize,
    greeted: Option<([u8; HELLO_LEN], [u8; CHALLENGE_LEN])>,
}

/// What became of a stranger.
pub(crate) enum Verdict {
    /// More bytes are needed.
    Waits,
    /// It proved itself.
    Proved(Hello, Keys),
    /// It is to be dropped.
    Refused(Refusal),
}

impl Stranger {
    pub fn new(fd: OwnedFd) -> Self {
        Self {
            fd: Some(fd),
            since: Instant::now(),
            buffer: [0; HELLO_LEN],
            got: 0,
            greeted: None,
        }
    }

    /// Takes what came. Never more is read than the handshake has, so nothing has to be handed on.
    pub fn readable(&mut self, engine: &Engine) -> Verdict {
        loop {
            let Some(fd) = &self.fd else {
                return Verdict::Refused(Refusal::Damaged);
            };
            let wanted = if self.greeted.is_none() { HELLO_LEN } else { PROOF_LEN };
            match receive_into(fd.as_fd(), &mut self.buffer[self.got..wanted]) {
                Ok(0) => return Verdict::Refused(Refusal::Damaged),
                Ok(came) => self.got += came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Verdict::Waits,
                Err(_) => return Verdict::Refused(Refusal::Damaged),
            }
            if self.got < wanted {
                continue;
            }
            self.got = 0;
            let Some((hello, challenge)) = &self.greeted else {
                match greet(engine, fd.as_fd(), &self.buffer) {
                    Ok(answer) => self.greeted = Some((self.buffer, answer)),
                    Err(refusal) => return Verdict::Refused(refusal),
                }
                continue;
            };
            let proof = array(&self.buffer, 0);
            let keys = handshake::accept(&engine.options.key, hello, challenge, &proof);
            return match (keys, Hello::decode(hello)) {
                (Ok(keys), Ok(hello)) => Verdict::Proved(hello, keys),
                (Err(refusal), _) | (_, Err(refusal)) => Verdict::Refused(refusal),
            };
        }
    }
}

/// Answers a hello; gives the answer.
fn greet(engine: &Engine, fd: BorrowedFd<'_>, hello: &[u8; HELLO_LEN]) -> Result<[u8; CHALLENGE_LEN], Refusal> {
    let judged = Hello::decode(hello).and_then(|hello| judge(engine, &hello));
    match judged {
        // Bytes that are not ours get no answer at all.
        Err(Refusal::Foreign) => Err(Refusal::Foreign),
        Err(refusal) => {
            let _ = send_all(fd, &handshake::refuse(refusal));
            Err(refusal)
        }
        Ok(()) => {
            let nonce = engine.random().ok_or(Refusal::Damaged)?;
            let answer = handshake::challenge(&engine.options.key, hello, &nonce);
            send_all(fd, &answer).map_err(|_| Refusal::Damaged)?;
            Ok(answer)
        }
    }
}

fn judge(engine: &Engine, hello: &Hello) -> Result<(), Refusal> {
    if hello.to != engine.options.number || hello.from == engine.options.number {
        return Err(Refusal::Number);
    }
    if hello.to_incarnation != engine.incarnation {
        return Err(Refusal::Incarnation);
    }
    if hello.integrity != integrity_byte(engine.options.integrity) {
        return Err(Refusal::Integrity);
    }
    let removed = engine
        .known_peer(hello.from)
        .is_some_and(|peer| peer.state().standing == Standing::Removed);
    if removed { Err(Refusal::Removed) } else { Ok(()) }
}

/// Receives once.
#[allow(unsafe_code)] // See the comment at the call.
pub(crate) fn receive_into(fd: BorrowedFd<'_>, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the room is borrowed for the call.
    unsafe { socket::receive(fd, &[Part::room(room)]) }
}

/// Sends the few bytes of a handshake, which always fit into the buffer of a fresh connection.
#[allow(unsafe_code)] // See the comment at the call.
pub(crate) fn send_all(fd: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the bytes are borrowed for the call.
    let sent = unsafe { socket::send(fd, &[Part::of(bytes)]) }?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}
