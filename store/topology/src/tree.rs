//! Small files under a root folder. Owns the reading; what is missing or not text is `None`.

use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Files below a root.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// Where `path`, absolute or not, lies.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, without white space around it.
    pub(crate) fn text(&self, path: &str) -> Option<String> {
        let bytes = std::fs::read(self.path(path)).ok()?;
        Some(String::from_utf8(bytes).ok()?.trim().to_owned())
    }

    /// A file that holds one value.
    pub(crate) fn value<T: FromStr>(&self, path: &str) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// The value behind `key` in lines like `key: value` or `key value`.
    pub(crate) fn field(&self, path: &str, key: &str) -> Option<String> {
        field_of(&self.text(path)?, key)
    }

    /// Names in a folder, sorted; those that are numbers behind `prefix` by number.
    pub(crate) fn names(&self, path: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.path(path)).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Numbers of the entries `prefix<number>` of a folder, sorted.
    pub(crate) fn numbers(&self, path: &str, prefix: &str) -> Vec<u32> {
        let names = self.names(path).into_iter();
        let mut numbers: Vec<u32> = names
            .filter_map(|name| name.strip_prefix(prefix)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub(crate) fn exists(&self, path: &str) -> bool {
        self.path(path).exists()
    }
}

/// The value behind `key` in lines like `key: value` or `key value`.
pub(crate) fn field_of(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let rest = line.trim_start().strip_prefix(key)?;
        let rest = rest
            .strip_prefix(':')
            .or_else(|| rest.starts_with(char::is_whitespace).then_some(rest))?;
        Some(rest.trim().to_owned())
    })
}

/// Bytes of a value such as `16384 kB`.
pub(crate) fn kib(text: &str) -> Option<u64> {
    let number: u64 = text.strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}
