//! What a process and its node's store say to one another (`docs/formats/store-memory.md`): one datagram a message over a
//! Unix socket that keeps order and bounds (`SOCK_SEQPACKET`), descriptors beside it. Owns bytes and meanings.

use bridgehead_spec::ObjectId;
use bridgehead_store_core::Extent;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socket_with,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The version of this protocol.
pub(crate) const VERSION: u64 = 2;
/// Most bytes of a message.
const MOST: usize = 4096;
/// Most descriptors beside a message.
const MOST_FDS: usize = 4;
const WORDS: usize = 5;

/// What a message is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Client: version. Agent's answer: version, node, bytes of all arenas, 1 where objects are to have sums; descriptors of index,
    /// lease table and memory; as text bytes a number for each arena: 1 + its NUMA node, 0 without one.
    Hello = 1,
    /// Client: bytes wanted, places wanted, 1 + the arena that they should be in (0: any). Answer: offset, length; the places
    /// follow as text bytes.
    Grant = 2,
    /// Client: offset, length of a granted range that it does not need. No answer.
    GiveBack = 3,
    /// Client: an object that it wants to read. Answer: its place in the index; it is pinned until `Close`.
    Open = 4,
    /// Client: it has its lease, or does not want it any more. No answer.
    Close = 5,
    /// The answer when something cannot be done; the text says why. First word: 1 when it can never be done.
    Refused = 6,
    /// Client: an object whose copy in a GPU's memory it wants to read there; third word: 1 and the GPU that it is copied to
    /// where it has none. Answer: the GPU, bytes of the export; then as text the export and the object's first bytes; the
    /// export's descriptor where it has one. It stays until `Unview`.
    View = 7,
    /// Client: it does not look at that copy any more. No answer.
    Unview = 8,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Hello,
            2 => Self::Grant,
            3 => Self::GiveBack,
            4 => Self::Open,
            5 => Self::Close,
            6 => Self::Refused,
            7 => Self::View,
            8 => Self::Unview,
            _ => return None,
        })
    }
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub kind: Kind,
    pub words: [u64; WORDS],
    pub text: Vec<u8>,
}

impl Message {
    pub(crate) fn new(kind: Kind, words: &[u64]) -> Self {
        let mut all = [0; WORDS];
        all[..words.len()].copy_from_slice(words);
        Self {
            kind,
            words: all,
            text: Vec::new(),
        }
    }

    /// About an object.
    pub(crate) fn about(kind: Kind, id: ObjectId) -> Self {
        Self::new(kind, &[(id.0 >> 64) as u64, id.0 as u64])
    }

    pub(crate) fn refused(never: bool, text: &str) -> Self {
        let mut message = Self::new(Kind::Refused, &[u64::from(never)]);
        message.text = text.as_bytes()[..text.len().min(2048)].to_vec();
        message
    }

    pub(crate) fn id(&self) -> ObjectId {
        ObjectId(u128::from(self.words[0]) << 64 | u128::from(self.words[1]))
    }

    /// The first two words as a range.
    pub(crate) fn extent(&self) -> Extent {
        Extent::new(self.words[0], self.words[1])
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(1 + WORDS * 8 + self.text.len());
        out.push(self.kind as u8);
        for word in self.words {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&self.text);
        out
    }

    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let bad = |why| io::Error::new(io::ErrorKind::InvalidData, why);
        let (&kind, rest) = bytes.split_first().ok_or_else(|| bad("an empty message"))?;
        let kind = Kind::from_byte(kind).ok_or_else(|| bad("a message of an unknown kind"))?;
        if rest.len() < WORDS * 8 {
            return Err(bad("a message that is cut off"));
        }
        let (numbers, text) = rest.split_at(WORDS * 8);
        let mut words = [0; WORDS];
        for (word, raw) in words.iter_mut().zip(numbers.chunks_exact(8)) {
            *word = u64::from_le_bytes(raw.try_into().expect("eight bytes each"));
        }
        Ok(Self {
            kind,
            words,
            text: text.to_vec(),
        })
    }
}

/// A socket of the protocol's kind.
pub(crate) fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

/// Sends a message with descriptors.
pub(crate) fn send(socket: impl AsFd, message: &Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = message.encode();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "too many descriptors for one message",
        ));
    }
    loop {
        match sendmsg(&socket, &[IoSlice::new(&bytes)], &mut beside, SendFlags::NOSIGNAL) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

/// The next message with its descriptors; `None` when the other side is gone.
pub(crate) fn receive(socket: impl AsFd) -> io::Result<Option<(Message, Vec<OwnedFd>)>> {
    let mut bytes = [0; MOST];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_FDS))];
    loop {
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut beside,
            RecvFlags::CMSG_CLOEXEC,
        );
        let got = match got {
            Err(rustix::io::Errno::INTR) => continue,
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            result => result?,
        };
        if got.bytes == 0 {
            return Ok(None);
        }
        let mut fds = Vec::new();
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        return Message::decode(&bytes[..got.bytes]).map(|message| Some((message, fds)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reads_back_as_it_was_written() {
        for kind in 1..=8 {
            let mut message = Message::new(Kind::from_byte(kind).expect("known"), &[1, u64::MAX, 3]);
            message.text = b"why".to_vec();
            assert_eq!(Message::decode(&message.encode()).ok(), Some(message));
        }
    }

    #[test]
    fn whatever_bytes_come_decoding_says_no_and_nothing_worse() {
        let mut state = 1_u64;
        for len in 0..300 {
            let bytes: Vec<u8> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    (state >> 56) as u8
                })
                .collect();
            if let Ok(message) = Message::decode(&bytes) {
                assert!((1..=8).contains(&(message.kind as u8)) && len > WORDS * 8);
            }
        }
    }
}
