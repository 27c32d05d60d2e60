//! Options of sbatch that a user hands through as they are. Owns which of them are ours already and must not be given twice,
//! and which ones have a key in the REST API.

use crate::options::OptionError;
use serde_json::{Value, json};

/// Options that the job sets itself, with what to use in their place.
const OURS: &[(&[&str], &str)] = &[
    (&["-N", "--nodes"], "nodes"),
    (
        &["-n", "--ntasks", "--ntasks-per-node"],
        "nodes: there is one agent a node",
    ),
    (&["-c", "--cpus-per-task"], "cpus"),
    (&["-a", "--array"], "array"),
    (
        &["-J", "--job-name", "--comment"],
        "nothing: a job is found again by them",
    ),
    (
        &["-D", "--chdir", "-o", "--output", "-e", "--error", "--open-mode"],
        "nothing: the run folder holds them",
    ),
    (&["-d", "--dependency"], "groups of a pipeline, which are chained"),
    (&["-M", "--clusters"], "SLURM_CONF of the other cluster"),
    (&["--signal"], "signal_before"),
    (&["--requeue", "--no-requeue"], "requeue"),
    (&["--export", "--export-file"], "the run's own env"),
    (
        &[
            "--wrap",
            "-W",
            "--wait",
            "--parsable",
            "--test-only",
            "-h",
            "--help",
            "-V",
            "--version",
        ],
        "nothing: the launcher submits",
    ),
];

/// Checks one option.
///
/// # Errors
/// It is none, spans lines, or is one that the launcher sets.
pub(crate) fn check(option: &str) -> Result<(), OptionError> {
    let refuse = |reason: String| Err(OptionError::new("native", reason));
    if !option.starts_with('-') || option.trim_start_matches('-').is_empty() {
        return refuse(format!(
            "{option:?} is no option of sbatch: write it as --mail-type=END"
        ));
    }
    if option.chars().any(char::is_control) {
        return refuse(format!("{option:?} holds a control character"));
    }
    let (name, _) = split(option);
    // sbatch takes a short option's value also without a space.
    let short = if name.starts_with("--") { None } else { name.get(..2) };
    for (names, instead) in OURS {
        if names.contains(&name) || short.is_some_and(|short| names.contains(&short)) {
            return refuse(format!("{name} is set by the launcher: use {instead}"));
        }
    }
    Ok(())
}

/// Name and value of an option.
fn split(option: &str) -> (&str, &str) {
    let at = option.find([' ', '=']).unwrap_or(option.len());
    (&option[..at], option[at..].trim_start_matches([' ', '=']))
}

/// The key and value in the REST API that mean what `option` means; `None` where there is none that all servers keep.
pub(crate) fn in_rest(option: &str, lists: bool) -> Option<(&'static str, Value)> {
    let (name, value) = split(option);
    let value = value.trim_matches(['"', '\'']);
    match name {
        "--mail-type" if lists => {
            let kinds = value.split(',').map(str::trim);
            Some(("mail_type", kinds.map(str::to_ascii_uppercase).collect()))
        }
        "--mail-type" => Some(("mail_type", json!(value))),
        "--mail-user" => Some(("mail_user", json!(value))),
        "--wckey" => Some(("wckey", json!(value))),
        "--nice" => Some(("nice", json!(value.parse::<i64>().ok()?))),
        "-H" | "--hold" => Some(("hold", json!(true))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An option is taken, or refused with this word.
    fn refused(option: &str, word: Option<&str>) {
        let error = check(option).err().map(|e| e.to_string());
        match (&error, word) {
            (None, None) => {}
            (Some(text), Some(word)) => assert!(text.contains(word), "{text}"),
            _ => panic!("{option}: {error:?}, not {word:?}"),
        }
    }

    #[test]
    fn options_that_the_launcher_sets_name_their_stand_in() {
        refused("--mail-type=END", None);
        refused("--gres-flags=enforce-binding", None);
        refused("--nodes=3", Some("nodes"));
        refused("-N3", Some("nodes"));
        refused("--array 0-3", Some("array"));
        refused("--export=NONE", Some("env"));
        refused("mail-type=END", Some("--mail-type=END"));
        refused("--", Some("no option"));
        refused("--comment=a\n#SBATCH -N9", Some("control character"));
    }

    #[test]
    fn well_known_options_have_a_key() {
        assert_eq!(
            in_rest("--mail-type=END,fail", true),
            Some(("mail_type", json!(["END", "FAIL"])))
        );
        assert_eq!(
            in_rest("--mail-type=END,fail", false),
            Some(("mail_type", json!("END,fail")))
        );
        assert_eq!(in_rest("--nice 10", true), Some(("nice", json!(10))));
        assert_eq!(in_rest("--gres-flags=enforce-binding", true), None);
    }
}
