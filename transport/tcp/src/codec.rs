//! Codes over frames: seals what goes out, checks what comes in. Owns keys and counters of one direction of one connection.
//!
//! Hot path: the codes of a chunk run at memory speed or are what a transfer waits for.

use crate::frame::{CODE_LEN, FIELDS_LEN, HEADER_LEN, Header};
use crate::options::Integrity;
use ring::aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, Tag, UnboundKey};

/// A code did not match: the bytes were altered, replayed or cut, or changed at their source while they were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged;

/// Which of a frame's two codes; they use the same counter with different nonces.
#[derive(Clone, Copy)]
enum Part {
    Header = 0,
    Payload = 1,
}

/// One direction of a connection: every frame advances the counter, so a frame is good at one place in the stream only.
pub struct Codec {
    key: Option<LessSafeKey>,
    encrypt: bool,
    counter: u64,
}

impl Codec {
    /// The codec of a direction with its own key.
    ///
    /// # Panics
    /// Never: an AES-128 key has 16 bytes.
    #[must_use]
    pub fn new(integrity: Integrity, key: &[u8; 16]) -> Self {
        let keyed = || LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes are an AES-128 key"));
        Self {
            key: (integrity != Integrity::Crc32c).then(keyed),
            encrypt: integrity == Integrity::Encrypt,
            counter: 0,
        }
    }

    /// Whether payloads must be given as owned bytes, to be encrypted in place.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        self.encrypt
    }

    /// The header of the next frame, whose payload stays as it is.
    #[must_use]
    pub fn seal(&mut self, header: &Header, payload: &[u8]) -> [u8; HEADER_LEN] {
        let code = self.code(Part::Payload, payload);
        self.seal_header(header, code)
    }

    /// The header of the next frame, whose payload is encrypted in place.
    #[must_use]
    pub fn seal_in_place(&mut self, header: &Header, payload: &mut [u8]) -> [u8; HEADER_LEN] {
        let code = match &self.key {
            Some(key) if !payload.is_empty() => {
                tag_bytes(key.seal_in_place_separate_tag(self.nonce(Part::Payload), Aad::empty(), payload))
            }
            _ => self.code(Part::Payload, payload),
        };
        self.seal_header(header, code)
    }

    fn seal_header(&mut self, header: &Header, payload_code: [u8; CODE_LEN]) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..FIELDS_LEN].copy_from_slice(&header.encode());
        out[FIELDS_LEN..FIELDS_LEN + CODE_LEN].copy_from_slice(&payload_code);
        let code = self.code(Part::Header, &out[..FIELDS_LEN + CODE_LEN]);
        out[FIELDS_LEN + CODE_LEN..].copy_from_slice(&code);
        self.counter += 1;
        out
    }

    /// Checks a header that came and advances the counter.
    ///
    /// # Errors
    /// The code does not match.
    pub fn open_header(&mut self, bytes: &[u8; HEADER_LEN]) -> Result<(), Damaged> {
        let (covered, code) = bytes.split_at(FIELDS_LEN + CODE_LEN);
        self.check(Part::Header, covered, code)?;
        self.counter += 1;
        Ok(())
    }

    /// Checks the payload of the header that was opened last, and decrypts it in place if payloads are encrypted.
    ///
    /// # Errors
    /// The code does not match.
    pub fn open_payload(&self, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> Result<(), Damaged> {
        let before = Self { key: None, encrypt: self.encrypt, counter: self.counter - 1 };
        let code = &header[FIELDS_LEN..FIELDS_LEN + CODE_LEN];
        match &self.key {
            Some(key) if self.encrypt && !payload.is_empty() => {
                let tag = Tag::try_from(code).map_err(|_| Damaged)?;
                key.open_in_place_separate_tag(before.nonce(Part::Payload), Aad::empty(), tag, payload, 0..)
                    .map(|_| ())
                    .map_err(|_| Damaged)
            }
            Some(key) => check_tag(key, before.nonce(Part::Payload), payload, code),
            None => before.check(Part::Payload, payload, code),
        }
    }

    fn check(&self, part: Part, covered: &[u8], code: &[u8]) -> Result<(), Damaged> {
        match &self.key {
            Some(key) => check_tag(key, self.nonce(part), covered, code),
            None => (self.code(part, covered) == code).then_some(()).ok_or(Damaged),
        }
    }

    fn code(&self, part: Part, covered: &[u8]) -> [u8; CODE_LEN] {
        match &self.key {
            Some(key) => tag_bytes(key.seal_in_place_separate_tag(self.nonce(part), Aad::from(covered), &mut [])),
            None => self.crc(part, covered),
        }
    }

    fn crc(&self, part: Part, covered: &[u8]) -> [u8; CODE_LEN] {
        let mut out = [0; CODE_LEN];
        let crc = crc32c::crc32c_append(crc32c::crc32c(covered), &[part as u8]);
        let crc = crc32c::crc32c_append(crc, &self.counter.to_le_bytes());
        out[..4].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn nonce(&self, part: Part) -> Nonce {
        let mut bytes = [0; NONCE_LEN];
        bytes[0] = part as u8;
        bytes[4..].copy_from_slice(&self.counter.to_le_bytes());
        Nonce::assume_unique_for_key(bytes)
    }
}

fn check_tag(key: &LessSafeKey, nonce: Nonce, covered: &[u8], code: &[u8]) -> Result<(), Damaged> {
    let tag = Tag::try_from(code).map_err(|_| Damaged)?;
    key.open_in_place_separate_tag(nonce, Aad::from(covered), tag, &mut [], 0..)
        .map(|_| ())
        .map_err(|_| Damaged)
}

fn tag_bytes(tag: Result<Tag, ring::error::Unspecified>) -> [u8; CODE_LEN] {
    let tag = tag.expect("a frame is far below the limits of AES-GCM");
    tag.as_ref().try_into().expect("a tag has 16 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Kind;

    const ALL: [Integrity; 3] = [Integrity::Mac, Integrity::Crc32c, Integrity::Encrypt];

    fn frame(codec: &mut Codec, payload: &[u8]) -> ([u8; HEADER_LEN], Vec<u8>) {
        let header = Header { len: u32::try_from(payload.len()).expect("short"), ..Header::new(Kind::Message, 4) };
        let mut payload = payload.to_vec();
        let head = if codec.encrypts() { codec.seal_in_place(&header, &mut payload) } else { codec.seal(&header, &payload) };
        (head, payload)
    }

    fn open(codec: &mut Codec, (head, payload): &([u8; HEADER_LEN], Vec<u8>)) -> Result<Vec<u8>, Damaged> {
        codec.open_header(head)?;
        let mut payload = payload.clone();
        codec.open_payload(head, &mut payload).map(|()| payload)
    }

    #[test]
    fn frames_open_in_order_and_only_once() {
        for integrity in ALL {
            let (mut out, mut into) = (Codec::new(integrity, &[7; 16]), Codec::new(integrity, &[7; 16]));
            let frames: Vec<_> = [&b"first"[..], b"", b"third"].iter().map(|text| frame(&mut out, text)).collect();
            assert_eq!(open(&mut into, &frames[1]), Err(Damaged), "{integrity:?}: out of order");
            assert_eq!(open(&mut into, &frames[0]), Ok(b"first".to_vec()));
            assert_eq!(open(&mut into, &frames[0]), Err(Damaged), "{integrity:?}: replayed");
            assert_eq!(open(&mut into, &frames[1]), Ok(Vec::new()));
            assert_eq!(open(&mut into, &frames[2]), Ok(b"third".to_vec()));
        }
    }

    #[test]
    fn every_altered_bit_is_found() {
        for integrity in ALL {
            let good = frame(&mut Codec::new(integrity, &[7; 16]), b"payload");
            for bit in 0..8 * (HEADER_LEN + good.1.len()) {
                let mut bad = good.clone();
                match bit / 8 {
                    at if at < HEADER_LEN => bad.0[at] ^= 1 << (bit % 8),
                    at => bad.1[at - HEADER_LEN] ^= 1 << (bit % 8),
                }
                let opened = open(&mut Codec::new(integrity, &[7; 16]), &bad);
                assert_eq!(opened, Err(Damaged), "{integrity:?}: bit {bit}");
            }
        }
    }

    #[test]
    fn another_key_opens_nothing_and_encryption_hides_the_payload() {
        let sealed = frame(&mut Codec::new(Integrity::Mac, &[7; 16]), b"payload");
        assert_eq!(open(&mut Codec::new(Integrity::Mac, &[8; 16]), &sealed), Err(Damaged));
        let hidden = frame(&mut Codec::new(Integrity::Encrypt, &[7; 16]), b"payload");
        assert_ne!(hidden.1, b"payload");
    }
}
