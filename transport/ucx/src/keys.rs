//! The codes of messages: who may have made one, and that nothing of it changed. Owns the keys' derivation.
//!
//! Hot path: the code of a part of a region runs at memory speed, or it is what a transfer waits for.

use crate::codec::{CODE_LEN, COVERED, SESSION_AT, Who};
use aegis::aegis128l::Aegis128L;
use ring::hmac;

/// The keys of what one agent says to another one.
pub(crate) struct PairKey {
    /// AEGIS-128L, for what has a place in a session, which is the nonce: no two messages of a pair have the same.
    session: [u8; 16],
    /// HMAC-SHA256, for what has none.
    outside: hmac::Key,
}

impl PairKey {
    /// Extract and expand, as HKDF does it: a key of the pair and its direction, then one a use.
    pub fn new(run: &[u8; 32], from: Who, to: Who) -> Self {
        let run = hmac::Key::new(hmac::HMAC_SHA256, run);
        let mut context = hmac::Context::with_key(&run);
        context.update(b"bridgehead ucx pair\0");
        for who in [from, to] {
            context.update(&who.number.to_le_bytes());
            context.update(&who.incarnation.to_le_bytes());
        }
        let pair = hmac::Key::new(hmac::HMAC_SHA256, context.sign().as_ref());
        let (session, outside) = (hmac::sign(&pair, b"session \x01"), hmac::sign(&pair, b"outside \x01"));
        Self {
            session: session.as_ref()[..16].try_into().expect("a tag has 32 bytes"),
            outside: hmac::Key::new(hmac::HMAC_SHA256, outside.as_ref()),
        }
    }

    /// The code of a header's covered bytes and a payload.
    pub fn code(&self, header: &[u8; COVERED], payload: &[u8]) -> [u8; CODE_LEN] {
        let place: &[u8; 16] = header[SESSION_AT..SESSION_AT + 16]
            .try_into()
            .expect("session and place have 8 bytes each");
        if place[..8] == [0; 8] {
            let mut context = hmac::Context::with_key(&self.outside);
            context.update(header);
            context.update(payload);
            return context.sign().as_ref()[..CODE_LEN]
                .try_into()
                .expect("a tag has 32 bytes");
        }
        // The header takes the place of a plaintext, whose ciphertext nobody needs, so that one pass covers both.
        Aegis128L::<CODE_LEN>::new(&self.session, place).encrypt_in_place(&mut header.clone(), payload)
    }

    /// Compares in constant time.
    pub fn matches(&self, header: &[u8; COVERED], payload: &[u8], code: &[u8; CODE_LEN]) -> bool {
        let ours = self.code(header, payload);
        let differing = ours.iter().zip(code).fold(0, |sum, (a, b)| sum | (a ^ b));
        std::hint::black_box(differing) == 0
    }
}
