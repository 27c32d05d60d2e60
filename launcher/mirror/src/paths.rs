//! Which files of a run folder may travel, and how they grow. Owns the rules for names; both sides apply them to what the other
//! one says, so that no path leads out of a folder.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a file comes to be, which says how a copy of it is brought up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// It only grows at its end.
    Append,
    /// It is replaced as a whole, again and again.
    Whole,
    /// It is written once, as a whole.
    Once,
}

/// A line of the service's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listed {
    /// Relative to the run folder.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// How it comes to be.
    pub kind: Kind,
}

/// The top folders with files that travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Top {
    /// The run folder itself: `status.json` and `head.json`.
    Root,
    Journal,
    Logs,
    Results,
    Blobs,
    Mailbox,
}

impl Top {
    /// The folder's name; none for the run folder itself.
    pub(crate) fn folder(self) -> Option<&'static str> {
        Some(match self {
            Self::Root => return None,
            Self::Journal => "journal",
            Self::Logs => "logs",
            Self::Results => "results",
            Self::Blobs => "blobs",
            Self::Mailbox => "mailbox",
        })
    }

    /// How its files come to be.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Self::Journal | Self::Logs => Kind::Append,
            Self::Root | Self::Mailbox => Kind::Whole,
            Self::Results | Self::Blobs => Kind::Once,
        }
    }

    fn named(folder: &str) -> Option<Self> {
        let all = [Self::Journal, Self::Logs, Self::Results, Self::Blobs, Self::Mailbox];
        all.into_iter().find(|top| top.folder() == Some(folder))
    }
}

/// The files of the run folder itself that travel.
pub(crate) const ROOT_FILES: [&str; 2] = ["status.json", "head.json"];

/// A file that may travel: one of the top folders, and a plain name in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePath {
    pub top: Top,
    pub name: String,
}

impl FilePath {
    /// Takes a relative path apart; none where the rules do not let it travel.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (top, name) = match text.split_once('/') {
            Some((folder, name)) => (Top::named(folder)?, name),
            None if ROOT_FILES.contains(&text) => (Top::Root, text),
            None => return None,
        };
        is_plain(name).then(|| Self {
            top,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.top.folder() {
            Some(folder) => write!(f, "{folder}/{}", self.name),
            None => f.write_str(&self.name),
        }
    }
}

/// Whether a name is of one level, not hidden, not a file that is still being written, and needs no quoting anywhere.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.+@=,~".contains(&byte);
    (1..=200).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.') && !name.ends_with(".part")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_top_folders_travel_and_read_back_as_they_were() {
        for path in [
            "journal/000001.bhj",
            "logs/head.log",
            "results/7.bhv",
            "status.json",
            "mailbox/12.json",
        ] {
            assert_eq!(FilePath::parse(path).map(|p| p.to_string()).as_deref(), Some(path));
        }
    }

    #[test]
    fn no_path_leads_elsewhere() {
        for path in [
            "",
            "/",
            "run.json",
            "tls/agent-1.json",
            "bundle.tar.gz",
            "results",
            "results/",
            "results/.",
            "results/..",
            "results/../run.json",
            "../results/x",
            "/results/x",
            "results//x",
            "results/a/b",
            "results/.hidden",
            "results/x.part",
            "results/a b",
            "results/a%2fb",
            "results/a\0b",
            "results/a\\b",
            "results/\u{e9}",
            "./status.json",
            "logs/../status.json",
            "spill/0",
            "launches/1.json",
        ] {
            assert_eq!(FilePath::parse(path), None, "{path:?}");
        }
        assert_eq!(FilePath::parse(&format!("logs/{}", "x".repeat(201))), None);
    }
}
