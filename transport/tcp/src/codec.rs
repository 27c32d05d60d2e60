//! Codes over frames: seals what goes out, checks what comes in. Owns keys and counters of one direction of one connection.
//!
//! Hot path: the codes of a chunk run at memory speed or are what a transfer waits for.

use crate::frame::{CODE_LEN, FIELDS_LEN, HEADER_LEN, Header};
use crate::options::Integrity;
use aegis::aegis128l::Aegis128L;
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

/// What makes the codes.
enum Means {
    /// AEGIS-128L without a plaintext.
    Mac([u8; 16]),
    /// AES-128-GCM, boxed because its tables are large.
    Encrypt(Box<LessSafeKey>),
    Crc32c,
}

/// One direction of a connection: every frame advances the counter, so a frame is good at one place in the stream only.
pub struct Codec {
    means: Means,
    counter: u64,
}

impl Codec {
    /// The codec of a direction with its own key.
    ///
    /// # Panics
    /// Never: an AES-128 key has 16 bytes.
    #[must_use]
    pub fn new(integrity: Integrity, key: &[u8; 16]) -> Self {
        let gcm = || LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes are an AES-128 key"));
        let means = match integrity {
            Integrity::Mac => Means::Mac(*key),
            Integrity::Encrypt => Means::Encrypt(Box::new(gcm())),
            Integrity::Crc32c => Means::Crc32c,
        };
        Self { means, counter: 0 }
    }

    /// Whether payloads must be given as owned bytes, to be encrypted in place.
    #[must_use]
    pub fn encrypts(&self) -> bool {
        matches!(self.means, Means::Encrypt(_))
    }

    /// The header of the next frame, whose payload stays as it is.
    #[must_use]
    pub fn seal(&mut self, header: &Header, payload: &[u8]) -> [u8; HEADER_LEN] {
        let code = if payload.is_empty() {
            [0; CODE_LEN]
        } else {
            self.code(Part::Payload, self.counter, payload)
        };
        self.seal_header(header, code)
    }

    /// The header of the next frame, whose payload is encrypted in place if payloads are.
    #[must_use]
    pub fn seal_in_place(&mut self, header: &Header, payload: &mut [u8]) -> [u8; HEADER_LEN] {
        let Means::Encrypt(key) = &self.means else {
            return self.seal(header, payload);
        };
        let code =
            tag_bytes(key.seal_in_place_separate_tag(gcm_nonce(Part::Payload, self.counter), Aad::empty(), payload));
        self.seal_header(header, code)
    }

    fn seal_header(&mut self, header: &Header, payload_code: [u8; CODE_LEN]) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[..FIELDS_LEN].copy_from_slice(&header.encode());
        out[FIELDS_LEN..FIELDS_LEN + CODE_LEN].copy_from_slice(&payload_code);
        let code = self.code(Part::Header, self.counter, &out[..FIELDS_LEN + CODE_LEN]);
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
        self.check(Part::Header, self.counter, covered, code)?;
        self.counter += 1;
        Ok(())
    }

    /// Checks the payload of the header that was opened last, and decrypts it in place if payloads are encrypted.
    ///
    /// # Errors
    /// The code does not match.
    pub fn open_payload(&self, header: &[u8; HEADER_LEN], payload: &mut [u8]) -> Result<(), Damaged> {
        if payload.is_empty() {
            // The header, which was checked, says that it is empty.
            return Ok(());
        }
        let code = &header[FIELDS_LEN..FIELDS_LEN + CODE_LEN];
        let counter = self.counter - 1;
        let Means::Encrypt(key) = &self.means else {
            return self.check(Part::Payload, counter, payload, code);
        };
        let tag = Tag::try_from(code).map_err(|_| Damaged)?;
        key.open_in_place_separate_tag(gcm_nonce(Part::Payload, counter), Aad::empty(), tag, payload, 0..)
            .map(|_| ())
            .map_err(|_| Damaged)
    }

    fn check(&self, part: Part, counter: u64, covered: &[u8], code: &[u8]) -> Result<(), Damaged> {
        let code: &[u8; CODE_LEN] = code.try_into().map_err(|_| Damaged)?;
        match &self.means {
            Means::Mac(key) => Aegis128L::<CODE_LEN>::new(key, &aegis_nonce(part, counter))
                .decrypt_in_place(&mut [], code, covered)
                .map_err(|_| Damaged),
            Means::Encrypt(key) => {
                let tag = Tag::try_from(&code[..]).map_err(|_| Damaged)?;
                key.open_in_place_separate_tag(gcm_nonce(part, counter), Aad::from(covered), tag, &mut [], 0..)
                    .map(|_| ())
                    .map_err(|_| Damaged)
            }
            Means::Crc32c => (crc(part, counter, covered) == *code).then_some(()).ok_or(Damaged),
        }
    }

    fn code(&self, part: Part, counter: u64, covered: &[u8]) -> [u8; CODE_LEN] {
        match &self.means {
            Means::Mac(key) => {
                Aegis128L::<CODE_LEN>::new(key, &aegis_nonce(part, counter)).encrypt_in_place(&mut [], covered)
            }
            Means::Encrypt(key) => {
                tag_bytes(key.seal_in_place_separate_tag(gcm_nonce(part, counter), Aad::from(covered), &mut []))
            }
            Means::Crc32c => crc(part, counter, covered),
        }
    }
}

fn crc(part: Part, counter: u64, covered: &[u8]) -> [u8; CODE_LEN] {
    let mut out = [0; CODE_LEN];
    let crc = crc32c::crc32c_append(crc32c::crc32c(covered), &[part as u8]);
    let crc = crc32c::crc32c_append(crc, &counter.to_le_bytes());
    out[..4].copy_from_slice(&crc.to_le_bytes());
    out
}

fn gcm_nonce(part: Part, counter: u64) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    bytes[0] = part as u8;
    bytes[4..].copy_from_slice(&counter.to_le_bytes());
    Nonce::assume_unique_for_key(bytes)
}

fn aegis_nonce(part: Part, counter: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[0] = part as u8;
    bytes[8..].copy_from_slice(&counter.to_le_bytes());
    bytes
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
        let header = Header {
            len: u32::try_from(payload.len()).expect("short"),
            ..Header::new(Kind::Message, 4)
        };
        let mut payload = payload.to_vec();
        let head = if codec.encrypts() {
            codec.seal_in_place(&header, &mut payload)
        } else {
            codec.seal(&header, &payload)
        };
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
            let frames: Vec<_> = [&b"first"[..], b"", b"third"]
                .iter()
                .map(|text| frame(&mut out, text))
                .collect();
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
