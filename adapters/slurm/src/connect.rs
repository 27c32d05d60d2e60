//! The choice of a door, and why it was chosen. Owns the order in which ways to Slurm are looked for.

use crate::commands::Commands;
use crate::door::{Door, Trouble};
use crate::options::{DoorKind, SlurmOptions};
use crate::rest::{Knock, Place, Rest};
use crate::surroundings::Surroundings;
use crate::token::{Secret, Source, Tokens};
use crate::waiter::Waiter;
use std::sync::Arc;

/// Variables that tell where slurmrestd is.
const URLS: [&str; 2] = ["SLURM_RESTD", "SLURMRESTD"];

/// A way that was chosen: which, where, why.
#[derive(Debug, PartialEq, Eq)]
struct Choice {
    url: Option<String>,
    why: String,
}

fn choose(options: &SlurmOptions, around: &Surroundings) -> Result<Choice, Trouble> {
    let variable = URLS.iter().find_map(|name| Some((*name, around.var(name)?)));
    let configured = match (&options.rest_url, variable) {
        (Some(url), _) => Some((url.clone(), "rest_url is given".to_owned())),
        (None, Some((name, url))) => Some((url.to_owned(), format!("{name} is set"))),
        (None, None) => None,
    };
    let sbatch = around.program("sbatch");
    match (options.door, configured, sbatch) {
        (Some(DoorKind::Rest), None, _) => Err(Trouble::Unreachable(
            "door=\"rest\" is asked for, but nothing tells where slurmrestd is: give rest_url".to_owned(),
        )),
        (Some(DoorKind::Cli), _, None) => Err(Trouble::Unreachable(
            "door=\"cli\" is asked for, but sbatch is not on the PATH: load the site's slurm module".to_owned(),
        )),
        (None | Some(DoorKind::Rest), Some((url, why)), _) => Ok(Choice { url: Some(url), why }),
        (Some(DoorKind::Cli), _, Some(_)) => Ok(Choice {
            url: None,
            why: "it is asked for".to_owned(),
        }),
        (None, None, Some(path)) => Ok(Choice {
            url: None,
            why: format!("no slurmrestd is configured and {} is there", path.display()),
        }),
        (None, None, None) => Err(Trouble::Unreachable(
            "there is no way to it: sbatch is not on the PATH (go to a login node, or load the site's slurm module), \
             and neither rest_url nor SLURM_RESTD tells where slurmrestd is"
                .to_owned(),
        )),
    }
}

/// Opens the door that fits, with the reason for people.
pub(crate) fn open(options: &SlurmOptions, around: &Surroundings) -> Result<(Box<dyn Door>, String), Trouble> {
    let choice = choose(options, around)?;
    let waiter = Arc::new(Waiter::new().map_err(|e| Trouble::Unreachable(e.to_string()))?);
    let commands = Commands::new(waiter.clone(), around.clone());
    match choice.url {
        None => Ok((Box::new(commands), format!("by sbatch: {}", choice.why))),
        Some(url) => match knock(waiter, url, options, &commands, around) {
            Ok(rest) => {
                let why = format!("by slurmrestd {}: {}", rest.version(), choice.why);
                Ok((Box::new(rest), why))
            }
            // A site's slurmrestd may be reached from login nodes only, while a node has the commands, or the other way round.
            Err(Trouble::Unreachable(words)) if options.door.is_none() && around.program("sbatch").is_some() => {
                let why = format!("by sbatch: {}, but it cannot be reached ({words})", choice.why);
                Ok((Box::new(commands), why))
            }
            Err(trouble) => Err(trouble),
        },
    }
}

/// Asks without a token where none is configured: a slurmrestd of the user's own wants none.
fn knock(
    waiter: Arc<Waiter>,
    url: String,
    options: &SlurmOptions,
    commands: &Commands,
    around: &Surroundings,
) -> Result<Rest, Trouble> {
    let configured = match (&options.token_file, around.var("SLURM_JWT")) {
        (Some(path), _) => Some(Source::File(path.clone())),
        (None, Some(token)) => Some(Source::Variable(Secret::new(token))),
        (None, None) => None,
    };
    let place = Place {
        url,
        user: options.user.clone().or_else(|| login(around, commands)),
        tokens: configured.map(Tokens::new),
        caller: around
            .for_commands()
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .collect(),
    };
    let mut place = match Rest::knock(waiter.clone(), place)? {
        Knock::Open(rest) => return Ok(rest),
        Knock::WhoIsIt(place) => place,
    };
    if around.program("scontrol").is_none() {
        return Err(Trouble::Denied(format!(
            "slurmrestd at {} wants a token: give token_file (what `scontrol token` prints, mode 0600)",
            place.url
        )));
    }
    place.tokens = Some(Tokens::new(Source::Command(commands.clone(), options.user.clone())));
    match Rest::knock(waiter, place)? {
        Knock::Open(rest) => Ok(rest),
        Knock::WhoIsIt(place) => Err(Trouble::Denied(format!("slurmrestd at {} accepts no token", place.url))),
    }
}

/// The login name: of the environment, else of the system.
fn login(around: &Surroundings, commands: &Commands) -> Option<String> {
    let told = around.user().map(str::to_owned);
    told.or_else(|| commands.ask("id", &["-un"], "").ok().map(|name| name.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn around(vars: &[(&str, &str)]) -> Surroundings {
        vars.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// The choice, or the refusal, has this word.
    fn check(options: &SlurmOptions, vars: &[(&str, &str)], url: Option<&str>, word: &str) {
        match choose(options, &around(vars)) {
            Ok(choice) => {
                assert_eq!(choice.url.as_deref(), url);
                assert!(choice.why.contains(word), "{choice:?}");
            }
            Err(Trouble::Unreachable(reason)) => {
                assert_eq!(url, Some("none"), "{reason}");
                assert!(reason.contains(word), "{reason}");
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn rest_is_taken_where_it_is_configured_else_the_commands() {
        let folder = tempfile::tempdir().expect("a folder");
        let sbatch = folder.path().join("sbatch");
        std::fs::write(&sbatch, "#!/bin/sh\n").expect("written");
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&sbatch, executable).expect("set");
        let path = folder.path().to_str().expect("text");
        let none = SlurmOptions::default();
        let with_url = SlurmOptions {
            rest_url: Some("http://a:1".to_owned()),
            ..SlurmOptions::default()
        };
        let door = |door| SlurmOptions {
            door: Some(door),
            ..SlurmOptions::default()
        };
        check(&none, &[("PATH", path)], None, "sbatch");
        check(
            &none,
            &[("PATH", path), ("SLURM_RESTD", "http://b:1")],
            Some("http://b:1"),
            "SLURM_RESTD",
        );
        check(
            &with_url,
            &[("SLURMRESTD", "http://b:1")],
            Some("http://a:1"),
            "rest_url",
        );
        check(&none, &[("PATH", "/nowhere")], Some("none"), "login node");
        check(&door(DoorKind::Rest), &[("PATH", path)], Some("none"), "give rest_url");
        check(
            &door(DoorKind::Cli),
            &[("SLURM_RESTD", "http://b:1")],
            Some("none"),
            "slurm module",
        );
        check(
            &door(DoorKind::Cli),
            &[("PATH", path), ("SLURM_RESTD", "http://b:1")],
            None,
            "asked for",
        );
    }
}
