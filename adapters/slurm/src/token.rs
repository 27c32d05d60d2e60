//! The token for slurmrestd: from a file, from the environment, or made by `scontrol token`. Owns when it is made anew, and
//! that nobody sees it: no argument, no variable of another process, no log, no debug print.

use crate::commands::Commands;
use crate::door::Trouble;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// A token is made anew when it has so many seconds left: longer than any request takes.
const MARGIN: u64 = 120;

/// A text that no debug print shows.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the header of a request.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// Where tokens come from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A file of mode 0600.
    File(PathBuf),
    /// SLURM_JWT of this process, which cannot be made anew.
    Variable(Secret),
    /// `scontrol token`, for this user where it is not the caller.
    Command(Commands, Option<String>),
}

/// A token that is kept valid.
#[derive(Debug)]
pub(crate) struct Tokens {
    source: Source,
    current: Mutex<Option<Secret>>,
}

impl Tokens {
    pub(crate) fn new(source: Source) -> Self {
        Self {
            source,
            current: Mutex::new(None),
        }
    }

    /// A token that is valid for some time.
    pub(crate) fn current(&self) -> Result<Secret, Trouble> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        match &*current {
            Some(token) if !ends_soon(token) => Ok(token.clone()),
            _ => {
                let token = self.fetch()?;
                *current = Some(token.clone());
                Ok(token)
            }
        }
    }

    /// Another token than `refused`, if the source has one.
    pub(crate) fn instead_of(&self, refused: &Secret) -> Option<Secret> {
        let token = self.fetch().ok().filter(|token| token != refused)?;
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = Some(token.clone());
        Some(token)
    }

    /// What to do where the token is refused.
    pub(crate) fn way_out(&self) -> String {
        match &self.source {
            Source::File(path) => format!(
                "put a new token into {} (`scontrol token lifespan=86400`, mode 0600)",
                path.display()
            ),
            Source::Variable(_) => "set SLURM_JWT to a new token (`scontrol token`), or give token_file".to_owned(),
            Source::Command(..) => {
                "see whether `scontrol token` works for you, give token_file, or use door=\"cli\"".to_owned()
            }
        }
    }

    fn fetch(&self) -> Result<Secret, Trouble> {
        let token = match &self.source {
            Source::File(path) => read(path)?,
            Source::Variable(token) => token.clone(),
            Source::Command(commands, user) => made(commands, user.as_deref())?,
        };
        match end(&token) {
            Some(end) if end <= now() => Err(Trouble::Denied(format!(
                "the token for slurmrestd ended {} s ago: {}",
                now() - end,
                self.way_out()
            ))),
            _ => Ok(token),
        }
    }
}

fn read(path: &Path) -> Result<Secret, Trouble> {
    let refuse = |why: String| Trouble::Denied(format!("token_file {}: {why}", path.display()));
    let meta = path.metadata().map_err(|e| refuse(e.to_string()))?;
    if meta.permissions().mode() & 0o077 != 0 {
        return Err(refuse("others may read it: chmod 600".to_owned()));
    }
    let text = std::fs::read_to_string(path).map_err(|e| refuse(e.to_string()))?;
    parse(&text).ok_or_else(|| refuse("it holds no token: write what `scontrol token` prints".to_owned()))
}

fn made(commands: &Commands, user: Option<&str>) -> Result<Secret, Trouble> {
    let user = user.map(|user| format!("username={user}"));
    let arguments: Vec<&str> = ["token"].into_iter().chain(user.as_deref()).collect();
    let text = commands
        .ask("scontrol", &arguments, "")
        .map_err(|trouble| match trouble {
            Trouble::Refused(words) | Trouble::Denied(words) => Trouble::Denied(format!(
                "no token could be made: {words}: give token_file, or use door=\"cli\""
            )),
            other => other,
        })?;
    parse(&text).ok_or_else(|| Trouble::Denied("`scontrol token` printed no token: give token_file".to_owned()))
}

/// A token as it is, or behind `SLURM_JWT=`.
fn parse(text: &str) -> Option<Secret> {
    let text = text.trim();
    let token = text.strip_prefix("SLURM_JWT=").unwrap_or(text).trim();
    let sound = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    sound.then(|| Secret::new(token))
}

/// When a token ends, in seconds since 1970, if it says so.
fn end(token: &Secret) -> Option<u64> {
    let claims = token.0.split('.').nth(1)?;
    let bytes = URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?;
    serde_json::from_slice::<serde_json::Value>(&bytes).ok()?["exp"].as_u64()
}

fn ends_soon(token: &Secret) -> bool {
    end(token).is_some_and(|end| end <= now() + MARGIN)
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A token that ends at `exp`; nobody has signed it.
    fn token(exp: u64) -> String {
        let claims = URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{exp},\"sun\":\"u\"}}"));
        format!("e30.{claims}.c2ln")
    }

    fn file(text: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(mode)).expect("set");
        file
    }

    fn tokens(file: &tempfile::NamedTempFile) -> Tokens {
        Tokens::new(Source::File(file.path().to_owned()))
    }

    /// No token is had from a file with this text and mode, for a reason with this word.
    fn denied(text: &str, mode: u32, word: &str) {
        let file = file(text, mode);
        let Err(Trouble::Denied(reason)) = tokens(&file).current() else {
            panic!("{text:?} with mode {mode:o} was taken");
        };
        assert!(reason.contains(word), "{reason}");
        assert!(
            text.trim().is_empty() || !reason.contains(text.trim()),
            "the token is shown: {reason}"
        );
    }

    #[test]
    fn a_file_that_others_read_or_that_holds_no_valid_token_is_refused() {
        denied(&token(now() + 9999), 0o644, "chmod 600");
        denied(&token(now() - 5), 0o600, "ended");
        denied("  \n", 0o600, "no token");
    }

    #[test]
    fn a_token_is_read_anew_before_it_ends_and_never_shown() {
        let old = token(now() + MARGIN / 2);
        let source = file(&format!("SLURM_JWT={old}\n"), 0o600);
        let tokens = tokens(&source);
        assert_eq!(tokens.current().expect("still valid").reveal(), old);
        let new = token(now() + 9999);
        std::fs::write(source.path(), &new).expect("written");
        assert_eq!(tokens.current().expect("valid").reveal(), new);
        assert!(!format!("{tokens:?}").contains(&new[4..]), "a token must not be shown");
        assert_eq!(tokens.instead_of(&Secret::new(new)), None, "the file holds no other");
    }
}
