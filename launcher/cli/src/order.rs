//! The order of words: `bridgehead submit SCRIPT --on kubernetes --nodes 3` means what it says. What follows the script is the
//! script's own, but where `--on` is among it, this program's options there are this program's. After `--` nothing is.

use clap::{ArgAction, Command};
use std::ffi::OsString;

/// Commands whose scripts are told where to go.
const COMMANDS: [&str; 2] = ["plan", "submit"];

/// The words in the order that the parser takes.
pub(crate) fn arranged(words: Vec<OsString>, all: &Command) -> Vec<OsString> {
    let name = words.get(1).and_then(|word| word.to_str()).unwrap_or("");
    let command = all.find_subcommand(name).filter(|_| COMMANDS.contains(&name));
    let Some(command) = command else { return words };
    let Some(script) = script_at(&words, command) else {
        return words;
    };
    let tail = &words[script + 1..];
    let end = tail.iter().position(|word| word == "--").unwrap_or(tail.len());
    if !tail[..end]
        .iter()
        .any(|word| long(word).is_some_and(|(name, _)| name == "on"))
    {
        return words;
    }
    let (mut ours, mut scripts) = (Vec::new(), Vec::new());
    let mut rest = tail[..end].iter().cloned().peekable();
    while let Some(word) = rest.next() {
        match long(&word).and_then(|(name, value)| Some((takes_value(command, name)?, value))) {
            None => scripts.push(word),
            Some((takes, value)) => {
                ours.push(word.clone());
                if takes && !value {
                    ours.extend(rest.next());
                }
            }
        }
    }
    let mut out = words[..2].to_vec();
    out.extend(ours);
    out.extend_from_slice(&words[2..=script]);
    out.extend(scripts);
    out.extend_from_slice(&tail[end..]);
    out
}

/// Where the script stands: the first word that is neither an option nor an option's value.
fn script_at(words: &[OsString], command: &Command) -> Option<usize> {
    let mut at = 2;
    while at < words.len() {
        match long(&words[at]) {
            Some((name, value)) => at += 1 + usize::from(!value && takes_value(command, name)?),
            None if words[at].to_string_lossy().starts_with('-') => return None, // `-h`, or `--` before the script.
            None => return Some(at),
        }
    }
    None
}

/// The name of a long option, and whether its value is in the same word.
fn long(word: &OsString) -> Option<(&str, bool)> {
    let text = word.to_str()?.strip_prefix("--").filter(|text| !text.is_empty())?;
    Some(text.split_once('=').map_or((text, false), |(name, _)| (name, true)))
}

/// Whether an option of ours takes a value; `None` where it is none of ours.
fn takes_value(command: &Command, name: &str) -> Option<bool> {
    let mut arguments = command.get_arguments();
    let found = arguments.find(|argument| argument.get_long() == Some(name))?;
    Some(matches!(found.get_action(), ArgAction::Set | ArgAction::Append))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// These words are arranged as those.
    fn check(words: &str, expected: &str) {
        let words = words.split(' ').map(OsString::from).collect();
        let found = arranged(words, &crate::args::Cli::command());
        let found: Vec<String> = found.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn options_after_the_script_are_ours_where_one_says_where_to_go() {
        check(
            "bridgehead submit s.py --on kubernetes --nodes 3 --queue=team",
            "bridgehead submit --on kubernetes --nodes 3 --queue=team s.py",
        );
        check(
            "bridgehead plan --json s.py 7 --on slurm --verbose --steps 3",
            "bridgehead plan --on slurm --json s.py 7 --verbose --steps 3",
        );
    }

    #[test]
    fn all_else_is_the_scripts_own() {
        for words in [
            "bridgehead submit --on slurm s.py --nodes 3",
            "bridgehead submit s.py --nodes 3",
            "bridgehead submit s.py -- --on slurm",
            "bridgehead run s.py --on slurm",
            "bridgehead submit",
            "bridgehead",
        ] {
            check(words, words);
        }
    }
}
