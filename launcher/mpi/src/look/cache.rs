//! Reads the list that the loader of glibc keeps of libraries (`/etc/ld.so.cache`). Owns that format's reading; every offset in
//! it is checked.

use std::collections::HashMap;
use std::path::PathBuf;

const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;

/// Files by library name. Empty of what is not of the format of glibc 2.2 and later.
pub(super) fn parse(bytes: &[u8]) -> HashMap<String, Vec<PathBuf>> {
    // An older list may stand before it; places of strings count from this one's beginning.
    let start = bytes
        .windows(MAGIC.len())
        .position(|window| window == MAGIC)
        .unwrap_or(bytes.len());
    let bytes = &bytes[start..];
    let count = number(bytes, MAGIC.len()).unwrap_or(0);
    let mut list: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for entry in 0..count {
        let at = HEADER + entry * ENTRY;
        let (Some(key), Some(value)) = (number(bytes, at + 4), number(bytes, at + 8)) else {
            break;
        };
        let (Some(key), Some(value)) = (string(bytes, key), string(bytes, value)) else {
            continue;
        };
        list.entry(key).or_default().push(PathBuf::from(value));
    }
    list
}

fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_ne_bytes(four) as usize)
}

fn string(bytes: &[u8], at: usize) -> Option<String> {
    let rest = bytes.get(at..)?;
    let end = rest.iter().position(|byte| *byte == 0)?;
    Some(String::from_utf8_lossy(&rest[..end]).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A list of these entries, whose strings are at these places.
    fn list(entries: &[(u32, u32)], strings: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend((entries.len() as u32).to_ne_bytes());
        bytes.resize(HEADER, 0);
        for (key, value) in entries {
            bytes.extend(3_u32.to_ne_bytes());
            bytes.extend(key.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            bytes.extend([0; 12]);
        }
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn entries_are_found_by_name() {
        let bytes = list(&[(72, 77)], b"l.so\0/x/l.so\0");
        let expected = HashMap::from([("l.so".to_owned(), vec![PathBuf::from("/x/l.so")])]);
        assert_eq!(parse(&bytes), expected);
        assert_eq!(parse(&[b"an older list", &bytes[..]].concat()), expected);
    }

    #[test]
    fn places_outside_are_passed_over() {
        assert!(parse(&list(&[(u32::MAX, 1), (72, 9999)], b"l.so\0")).is_empty());
        let mut cut = list(&[(72, 77)], b"l.so\0/x/l.so\0");
        cut[MAGIC.len()..MAGIC.len() + 4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(parse(&cut[..60]).is_empty());
        assert!(parse(b"").is_empty());
    }
}
