//! A list of names with bytes each: addresses and region keys of several fabrics together. Owns the layout; the bytes come from the network.

use bytes::Bytes;

const VERSION: u8 = 1;
/// Fabrics that one agent may have.
const MOST: usize = 8;

/// Version, then for each: length of the name, name, length of the bytes (2, little endian), bytes.
pub(super) fn encode(parts: impl Iterator<Item = (&'static str, Bytes)>) -> Bytes {
    let mut out = vec![VERSION];
    for (name, bytes) in parts {
        out.push(u8::try_from(name.len()).expect("names of fabrics are short"));
        out.extend_from_slice(name.as_bytes());
        let length = u16::try_from(bytes.len()).expect("addresses and keys are short");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&bytes);
    }
    out.into()
}

/// The inverse; nothing if it is no such list.
pub(super) fn decode(bytes: &[u8]) -> Option<Vec<(String, Bytes)>> {
    let (version, mut rest) = bytes.split_first()?;
    if *version != VERSION || rest.is_empty() {
        return None;
    }
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest[1..].split_at_checked(usize::from(rest[0]))?;
        let (length, after) = after.split_first_chunk::<2>()?;
        let (value, after) = after.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        parts.push((
            std::str::from_utf8(name).ok()?.to_owned(),
            Bytes::copy_from_slice(value),
        ));
        rest = after;
    }
    (parts.len() <= MOST).then_some(parts)
}

/// The bytes of that name.
pub(super) fn find(parts: &[(String, Bytes)], name: &str) -> Option<Bytes> {
    let found = parts.iter().find(|(known, _)| known == name);
    found.map(|(_, bytes)| bytes.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_frozen_and_come_back() {
        let parts = [("ucx", Bytes::from_static(b"ab")), ("tcp", Bytes::new())];
        let bytes = encode(parts.clone().into_iter());
        assert_eq!(&bytes[..], b"\x01\x03ucx\x02\x00ab\x03tcp\x00\x00");
        let back = decode(&bytes).expect("a list");
        assert_eq!(find(&back, "ucx"), Some(parts[0].1.clone()));
        assert_eq!(find(&back, "ofi"), None);
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let many: Vec<u8> = std::iter::once(1).chain([1, b'x', 0, 0].repeat(MOST + 1)).collect();
        for bytes in [
            &b""[..],
            b"\x01",
            b"\x02\x03ucx\x00\x00",
            b"\x01\x09ucx",
            b"\x01\x03ucx\x05\x00a",
            b"\x01\x01\xff\x00\x00",
            &many,
        ] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
    }
}
