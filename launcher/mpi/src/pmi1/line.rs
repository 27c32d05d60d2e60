//! One line of PMI-1: `cmd=NAME key=value key=value...`. Owns the splitting and its bounds; what commands mean is `state`'s matter.

/// Most bytes of a line. Clients' own buffers are 1024 bytes (MPICH before 4.1) to some KiB.
pub(crate) const LONGEST: usize = 16 << 10;

/// Bytes of one rank that have come but are no whole line yet.
#[derive(Default)]
pub(crate) struct Lines {
    bytes: Vec<u8>,
}

/// A rank sends a line that has no end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Endless;

impl Lines {
    /// Takes bytes; gives the lines that are whole now, without their ends.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Endless> {
        self.bytes.extend_from_slice(bytes);
        let mut lines = Vec::new();
        let mut start = 0;
        while let Some(length) = self.bytes[start..].iter().position(|byte| *byte == b'\n') {
            if length > LONGEST {
                return Err(Endless);
            }
            lines.push(self.bytes[start..start + length].to_vec());
            start += length + 1;
        }
        self.bytes.drain(..start);
        if self.bytes.len() > LONGEST {
            Err(Endless)
        } else {
            Ok(lines)
        }
    }
}

/// The value of a key that is one word.
pub(crate) fn word<'a>(line: &'a [u8], key: &str) -> Option<&'a [u8]> {
    line.split(|byte| *byte == b' ')
        .find_map(|field| field.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
}

/// The value of the last key of a line: all that follows, verbatim, blanks and equals signs too.
pub(crate) fn rest<'a>(line: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let key = format!(" {key}=").into_bytes();
    let at = line.windows(key.len()).position(|window| window == key)?;
    Some(&line[at + key.len()..])
}

/// The number that a key has.
pub(crate) fn number<T: std::str::FromStr>(line: &[u8], key: &str) -> Option<T> {
    std::str::from_utf8(word(line, key)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_where_they_end() {
        let mut lines = Lines::default();
        assert_eq!(lines.feed(b"cmd=in").unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(
            lines.feed(b"it\ncmd=get_maxes\ncm").unwrap(),
            [b"cmd=init".to_vec(), b"cmd=get_maxes".to_vec()]
        );
        assert_eq!(lines.feed(b"d\n").unwrap(), [b"cmd".to_vec()]);
    }

    #[test]
    fn a_line_without_an_end_is_not_kept() {
        let mut lines = Lines::default();
        assert!(lines.feed(&[b'x'; LONGEST]).is_ok());
        assert_eq!(lines.feed(b"x"), Err(Endless));
    }

    #[test]
    fn values_are_verbatim() {
        let line = b"cmd=put kvsname=k_0 key=P0 value=a b=c  d#";
        assert_eq!(word(line, "key"), Some(&b"P0"[..]));
        assert_eq!(rest(line, "value"), Some(&b"a b=c  d#"[..]));
        assert_eq!(word(line, "value"), Some(&b"a"[..]));
        assert_eq!(
            (
                number::<i32>(b"cmd=abort exitcode=-3", "exitcode"),
                number::<i32>(line, "key")
            ),
            (Some(-3), None)
        );
        assert_eq!((word(b"", "cmd"), rest(b"value=1", "value")), (None, None));
    }
}
