//! The handshake: both sides prove that they know the run's data key, and get keys of their own for the connection.
//! Owns its bytes and their checking; no sockets (`docs/formats/data-frames.md`, `docs/decisions/0003-data-plane-authentication.md`).

use crate::address::array;
use crate::frame::PROTOCOL;
use crate::options::{DataKey, Integrity};
use ring::hmac;
use thiserror::Error;

const MAGIC: [u8; 8] = *b"BHDATA\r\n";
/// Bytes that the connecting side sends first.
pub const HELLO_LEN: usize = 72;
/// Bytes of the answer.
pub const CHALLENGE_LEN: usize = 76;
/// Bytes of the answer that its proof covers.
const COVERED: usize = 44;
/// Bytes of the connecting side's proof, which is the last of the handshake.
pub const PROOF_LEN: usize = 32;
/// Random bytes of each side.
pub type Nonce = [u8; 32];

/// Why a connection did not come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Refusal {
    /// The first bytes are not ours.
    #[error("what is there does not speak bridgehead's data protocol")]
    Foreign,
    /// Other versions.
    #[error("the peer speaks another version of the data protocol: use the same bridgehead version on both sides")]
    Version,
    /// Another agent listens there.
    #[error("another agent than the one asked for answers there")]
    Number,
    /// The same number, but started anew.
    #[error("the agent asked for has ended; another process answers there")]
    Incarnation,
    /// The two sides protect bytes differently.
    #[error("the two sides disagree on integrity: set the same on all agents")]
    Integrity,
    /// The peer has removed this side.
    #[error("the peer has removed this agent")]
    Removed,
    /// The proof is wrong.
    #[error("the peer does not know the run's data key")]
    Key,
    /// The bytes contradict themselves.
    #[error("the peer's handshake is damaged")]
    Damaged,
}

impl Refusal {
    const ON_THE_WIRE: [Self; 5] = [
        Self::Version,
        Self::Number,
        Self::Incarnation,
        Self::Integrity,
        Self::Removed,
    ];

    fn status(self) -> u16 {
        let at = Self::ON_THE_WIRE.iter().position(|refusal| *refusal == self);
        at.and_then(|at| u16::try_from(at + 1).ok()).unwrap_or(u16::MAX)
    }

    fn of_status(status: u16) -> Self {
        let at = usize::from(status).wrapping_sub(1);
        Self::ON_THE_WIRE.get(at).copied().unwrap_or(Self::Damaged)
    }
}

/// The connecting side's first words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hello {
    /// How it protects bytes.
    pub integrity: u8,
    /// Its use of the connection; `Lane as u8`.
    pub lane: u8,
    /// Its number.
    pub from: u32,
    /// The number that it wants to reach.
    pub to: u32,
    /// Its incarnation.
    pub from_incarnation: u64,
    /// The incarnation that it wants to reach.
    pub to_incarnation: u64,
    /// Its random bytes.
    pub nonce: Nonce,
}

impl Hello {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HELLO_LEN] {
        let mut out = [0; HELLO_LEN];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&PROTOCOL.to_le_bytes());
        out[10] = self.integrity;
        out[11] = self.lane;
        out[12..16].copy_from_slice(&self.from.to_le_bytes());
        out[16..20].copy_from_slice(&self.to.to_le_bytes());
        out[20..28].copy_from_slice(&self.from_incarnation.to_le_bytes());
        out[28..36].copy_from_slice(&self.to_incarnation.to_le_bytes());
        out[40..].copy_from_slice(&self.nonce);
        out
    }

    /// The inverse of `encode`.
    ///
    /// # Errors
    /// The bytes are foreign, or of another version.
    pub fn decode(bytes: &[u8; HELLO_LEN]) -> Result<Self, Refusal> {
        if bytes[..8] != MAGIC {
            return Err(Refusal::Foreign);
        }
        if u16::from_le_bytes(array(bytes, 8)) != PROTOCOL {
            return Err(Refusal::Version);
        }
        if bytes[36..40] != [0; 4] {
            return Err(Refusal::Damaged);
        }
        Ok(Self {
            integrity: bytes[10],
            lane: bytes[11],
            from: u32::from_le_bytes(array(bytes, 12)),
            to: u32::from_le_bytes(array(bytes, 16)),
            from_incarnation: u64::from_le_bytes(array(bytes, 20)),
            to_incarnation: u64::from_le_bytes(array(bytes, 28)),
            nonce: array(bytes, 40),
        })
    }
}

/// The two keys of a connection, one a direction.
pub struct Keys {
    /// From the connecting to the accepting side.
    pub out: [u8; 16],
    /// The other way.
    pub back: [u8; 16],
}

/// A refusal as bytes: an answer without nonce and proof.
#[must_use]
pub fn refuse(refusal: Refusal) -> [u8; CHALLENGE_LEN] {
    let mut out = [0; CHALLENGE_LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&PROTOCOL.to_le_bytes());
    out[10..12].copy_from_slice(&refusal.status().to_le_bytes());
    out
}

/// The accepting side's answer, with its proof.
#[must_use]
pub fn challenge(key: &DataKey, hello: &[u8; HELLO_LEN], nonce: &Nonce) -> [u8; CHALLENGE_LEN] {
    let mut out = [0; CHALLENGE_LEN];
    out[..8].copy_from_slice(&MAGIC);
    out[8..10].copy_from_slice(&PROTOCOL.to_le_bytes());
    out[12..COVERED].copy_from_slice(nonce);
    let proof = proof(key, b"accept", hello, &out[..COVERED]);
    out[COVERED..].copy_from_slice(proof.as_ref());
    out
}

/// Checks the accepting side's answer; gives this side's proof and the keys.
///
/// # Errors
/// It refused, or does not know the key.
pub fn answer(
    key: &DataKey,
    hello: &[u8; HELLO_LEN],
    challenge: &[u8; CHALLENGE_LEN],
) -> Result<([u8; PROOF_LEN], Keys), Refusal> {
    if challenge[..8] != MAGIC {
        return Err(Refusal::Foreign);
    }
    if u16::from_le_bytes(array(challenge, 8)) != PROTOCOL {
        return Err(Refusal::Version);
    }
    let status = u16::from_le_bytes(array(challenge, 10));
    if status != 0 {
        return Err(Refusal::of_status(status));
    }
    verify(key, b"accept", hello, &challenge[..COVERED], &challenge[COVERED..])?;
    let own = proof(key, b"connect", hello, &challenge[..COVERED]);
    let own = own.as_ref().try_into().map_err(|_| Refusal::Damaged)?;
    Ok((own, keys(key, hello, challenge)))
}

/// Checks the connecting side's proof; gives the keys.
///
/// # Errors
/// It does not know the key.
pub fn accept(
    key: &DataKey,
    hello: &[u8; HELLO_LEN],
    challenge: &[u8; CHALLENGE_LEN],
    proof: &[u8; PROOF_LEN],
) -> Result<Keys, Refusal> {
    verify(key, b"connect", hello, &challenge[..COVERED], proof)?;
    Ok(keys(key, hello, challenge))
}

/// The number of an integrity on the wire.
#[must_use]
pub fn integrity_byte(integrity: Integrity) -> u8 {
    match integrity {
        Integrity::Mac => 1,
        Integrity::Crc32c => 2,
        Integrity::Encrypt => 3,
    }
}

fn proof(key: &DataKey, role: &[u8], hello: &[u8], challenge: &[u8]) -> hmac::Tag {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    let mut context = hmac::Context::with_key(&key);
    [b"bridgehead data proof ", role, b"\0", hello, challenge]
        .iter()
        .for_each(|part| context.update(part));
    context.sign()
}

fn verify(key: &DataKey, role: &[u8], hello: &[u8], challenge: &[u8], tag: &[u8]) -> Result<(), Refusal> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &key.0);
    let all = [b"bridgehead data proof ", role, b"\0", hello, challenge].concat();
    hmac::verify(&key, &all, tag).map_err(|_| Refusal::Key)
}

/// Extract and expand, as HKDF does it: a key of the connection from both nonces, then one a direction.
fn keys(key: &DataKey, hello: &[u8], challenge: &[u8]) -> Keys {
    let secret = proof(key, b"session", hello, challenge);
    let session = hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref());
    let expand = |label: &[u8]| array(hmac::sign(&session, label).as_ref(), 0);
    Keys {
        out: expand(b"bridgehead data out \x01"),
        back: expand(b"bridgehead data back \x01"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Hello {
        Hello {
            integrity: 1,
            lane: 0,
            from: 3,
            to: 5,
            from_incarnation: 11,
            to_incarnation: 12,
            nonce: [1; 32],
        }
    }

    #[test]
    fn both_sides_get_the_same_keys_and_different_ones_a_direction() {
        let key = DataKey([9; 32]);
        let hello = hello().encode();
        let challenge = challenge(&key, &hello, &[2; 32]);
        let (proof, ours) = answer(&key, &hello, &challenge).expect("the same key");
        let theirs = accept(&key, &hello, &challenge, &proof).expect("the same key");
        assert_eq!((ours.out, ours.back), (theirs.out, theirs.back));
        assert_ne!(ours.out, ours.back);
    }

    #[test]
    fn no_proof_stands_for_another_key_nonce_number_or_role() {
        let key = DataKey([9; 32]);
        let bytes = hello().encode();
        let good = challenge(&key, &bytes, &[2; 32]);
        let (proof, _) = answer(&key, &bytes, &good).expect("the same key");
        let refused =
            |key: &DataKey, hello: &[u8; HELLO_LEN], challenge: &[u8; CHALLENGE_LEN], proof: &[u8; PROOF_LEN]| {
                assert_eq!(accept(key, hello, challenge, proof).err(), Some(Refusal::Key));
            };
        refused(&DataKey([8; 32]), &bytes, &good, &proof);
        refused(&key, &Hello { from: 4, ..hello() }.encode(), &good, &proof);
        refused(&key, &bytes, &challenge(&key, &bytes, &[3; 32]), &proof);
        refused(&key, &bytes, &good, &array(&good, COVERED));
        assert_eq!(answer(&DataKey([8; 32]), &bytes, &good).err(), Some(Refusal::Key));
        let other = Hello {
            nonce: [4; 32],
            ..hello()
        }
        .encode();
        assert_eq!(
            answer(&key, &other, &good).err(),
            Some(Refusal::Key),
            "a replayed answer"
        );
    }

    #[test]
    fn every_altered_byte_of_the_answer_is_found() {
        let key = DataKey([9; 32]);
        let bytes = hello().encode();
        let good = challenge(&key, &bytes, &[2; 32]);
        for at in 0..CHALLENGE_LEN {
            let mut bad = good;
            bad[at] ^= 1;
            assert!(answer(&key, &bytes, &bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn refusals_say_why_and_garbage_is_foreign() {
        for refusal in Refusal::ON_THE_WIRE {
            let answered = answer(&DataKey([9; 32]), &hello().encode(), &refuse(refusal));
            assert_eq!(answered.err(), Some(refusal));
        }
        assert_eq!(Hello::decode(&[0; HELLO_LEN]), Err(Refusal::Foreign));
        assert_eq!(Hello::decode(&hello().encode()), Ok(hello()));
    }
}
