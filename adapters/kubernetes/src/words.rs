//! Names as Kubernetes takes them: DNS labels, label values, keys with a prefix; and the names that a gang's objects get. Owns their grammar
//! and nothing of what they name.

use bridgehead_spec::RunId;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// Most characters of a gang's name: `NAME-agents-0-99999-abcde`, the longest pod of a JobSet, still is a DNS label.
const NAME_MAX: usize = 40;
/// Hexadecimal digits of the hash in a shortened name.
const HASH_DIGITS: usize = 10;

/// Lower case letters, digits and dashes, ends with no dash, at most 63 characters.
pub(crate) fn is_label(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    text.len() <= 63 && edge(text.bytes().next()) && edge(text.bytes().last()) && text.bytes().all(inner)
}

/// DNS labels with dots between, at most 253 characters: what most objects may be called.
pub(crate) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_label)
}

/// What a label may have as its value; the empty text too.
pub(crate) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_word(text)
}

/// `name` or `prefix/name`: a key of a label or an annotation, or the name of a resource.
pub(crate) fn is_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_word(name),
        None => is_word(text),
    }
}

fn is_word(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.bytes().next())
        && edge(text.bytes().last())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// What an environment variable may be called.
pub(crate) fn is_variable(text: &str) -> bool {
    let first = text.bytes().next();
    first.is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The name of a launch's objects: a DNS label that starts with a letter. A run id that is none, or is long, is cut and gets a hash
/// of the whole.
#[must_use]
pub fn gang_name(run: &RunId, launch: u32) -> String {
    let launch = launch.to_string();
    let plain = run.as_str();
    let starts = plain.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    if starts && is_label(plain) && plain.len() + 1 + launch.len() <= NAME_MAX {
        return format!("{plain}-{launch}");
    }
    let mut word: String = plain
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    if !word.starts_with(|c: char| c.is_ascii_lowercase()) {
        word.insert(0, 'r');
    }
    word.truncate(NAME_MAX - 2 - HASH_DIGITS - launch.len());
    let word = word.trim_end_matches('-');
    format!("{word}-{}-{launch}", hash(plain.as_bytes(), HASH_DIGITS))
}

/// What the label `bridgehead.dev/run` has as its value: the run id where it may be one, else its beginning and a hash.
#[must_use]
pub fn run_label(run: &RunId) -> String {
    let plain = run.as_str();
    if is_label_value(plain) {
        return plain.to_owned();
    }
    let word = plain.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let word = &word[..word.len().min(63 - 2 - HASH_DIGITS)];
    format!("r{word}-{}", hash(plain.as_bytes(), HASH_DIGITS))
}

/// The first digits of the SHA-256 of `bytes`, in hexadecimal.
pub(crate) fn hash(bytes: &[u8], digits: usize) -> String {
    let mut text = String::with_capacity(64);
    for byte in Sha256::digest(bytes) {
        write!(text, "{byte:02x}").expect("a text takes what is written");
    }
    text.truncate(digits);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run id out of a counter: all characters that ids may have, all lengths.
    fn id(seed: u64) -> RunId {
        let alphabet = b"abcxyzABCXYZ0189._-";
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let length = usize::try_from(next() % 64).expect("it is small") + 1;
        let text: String = (0..length)
            .map(|_| char::from(alphabet[usize::try_from(next() % 19).expect("it is small")]))
            .collect();
        RunId::parse(&text).unwrap_or_else(|| RunId::parse(&format!("a{}", &text[1..])).expect("a letter starts it"))
    }

    #[test]
    fn every_run_has_a_name_that_fits_and_is_its_own() {
        let mut seen = std::collections::BTreeMap::new();
        for seed in 0..20_000 {
            let run = id(seed);
            let launch = [1, 12, u32::MAX][usize::try_from(seed % 3).expect("it is small")];
            let name = gang_name(&run, launch);
            assert!(is_label(&name), "{run}: {name}");
            assert!(name.starts_with(|c: char| c.is_ascii_lowercase()), "{run}: {name}");
            assert!(is_label(&format!("{name}-agents-0-99999-abcde")), "{run}: {name}");
            assert!(is_label(&format!("{name}-code-999")), "{run}: {name}");
            assert_eq!(name, gang_name(&run, launch), "again");
            let other = seen.insert(name.clone(), (run.clone(), launch));
            assert!(
                other.is_none_or(|other| other == (run.clone(), launch)),
                "{name} is two runs'"
            );
        }
    }

    #[test]
    fn every_run_has_a_label_value() {
        for seed in 0..20_000 {
            let value = run_label(&id(seed));
            assert!(is_label_value(&value) && !value.is_empty(), "{}: {value}", id(seed));
        }
        let long = RunId::parse(&"x".repeat(64)).expect("64 characters are an id");
        assert!(run_label(&long).starts_with("rxxx"));
    }

    #[test]
    fn short_plain_ids_are_kept_as_they_are() {
        let run = RunId::parse("sweep-7").expect("it is an id");
        assert_eq!(gang_name(&run, 2), "sweep-7-2");
        assert_eq!(run_label(&run), "sweep-7");
        let run = RunId::parse("2026_Sweep").expect("it is an id");
        assert!(gang_name(&run, 1).starts_with("r2026-sweep-"));
        assert_eq!(run_label(&run), "2026_Sweep");
    }

    #[test]
    fn keys_and_names_are_told_from_what_is_none() {
        assert!(is_key("rdma/hca") && is_key("app") && is_key("k8s.v1.cni.cncf.io/networks"));
        assert!(!is_key("/a") && !is_key("a/") && !is_key("a/b/c") && !is_key("A/b") && !is_key("a b"));
        assert!(is_subdomain("my.claim-1") && !is_subdomain("a..b") && !is_subdomain("-a") && !is_subdomain(""));
        assert!(is_variable("_A1") && !is_variable("1A") && !is_variable("A-B") && !is_variable(""));
    }
}
