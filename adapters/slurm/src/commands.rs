//! The command-line door: sbatch, squeue, scancel, scontrol and sacct, with the formats that `from_text` reads. Owns how they
//! are run: with a time limit, without the variables of an outer job, their words shown where they fail.

use crate::door::{Door, Trouble};
use crate::from_text;
use crate::job::SlurmJob;
use crate::options::DoorKind;
use crate::record::{JobRecord, Node, Partition};
use crate::script;
use crate::surroundings::Surroundings;
use crate::waiter::Waiter;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// How long a command may take; the controller's own answer may take 10 s and more under load.
const PATIENCE: Duration = Duration::from_secs(60);

/// Slurm's commands as they are found on the PATH.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    waiter: Arc<Waiter>,
    around: Surroundings,
    patience: Duration,
}

impl Commands {
    pub(crate) fn new(waiter: Arc<Waiter>, around: Surroundings) -> Self {
        Self {
            waiter,
            around,
            patience: PATIENCE,
        }
    }

    /// Another limit, for tests of it.
    #[cfg(test)]
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Runs a command; what it printed if it ended well, else the trouble that its words tell of.
    pub(crate) fn ask(&self, name: &str, arguments: &[&str], input: &str) -> Result<String, Trouble> {
        let output = self.run(name, arguments, input)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(Trouble::of(&said(name, &output)))
    }

    fn run(&self, name: &str, arguments: &[&str], input: &str) -> Result<Output, Trouble> {
        let program = self.around.program(name).ok_or_else(|| {
            Trouble::Unreachable(format!(
                "{name} is not on the PATH: load the site's slurm module, or give rest_url"
            ))
        })?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(self.around.for_commands());
        if name != "sbatch" {
            // Times as seconds since 1970. A job must not inherit it from sbatch.
            command.env("SLURM_TIME_FORMAT", "%s");
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        let ended = self.waiter.wait(async {
            let work = async {
                let mut child = command.spawn()?;
                let mut stdin = child.stdin.take();
                let feed = async {
                    if let Some(pipe) = &mut stdin {
                        // A command that does not read its input has ended for another reason, which it says itself.
                        let _ = pipe.write_all(input.as_bytes()).await;
                    }
                    stdin.take();
                };
                let (output, ()) = tokio::join!(child.wait_with_output(), feed);
                output
            };
            tokio::time::timeout(self.patience, work).await
        });
        match ended {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(e)) => Err(Trouble::Unreachable(format!("{name} could not be started: {e}"))),
            Err(_) => Err(Trouble::Lost(format!(
                "{name} did not end within {} s",
                self.patience.as_secs()
            ))),
        }
    }

    fn queue(&self, which: &[&str]) -> Result<Vec<JobRecord>, Trouble> {
        let format = format!("--Format={}", from_text::QUEUE);
        let arguments = [&["--noheader", "--states=all", &format], which].concat();
        match self.ask("squeue", &arguments, "") {
            Ok(text) => Ok(from_text::queue(&text)),
            Err(Trouble::Refused(words)) if unknown_job(&words) => Ok(Vec::new()),
            Err(trouble) => Err(trouble),
        }
    }
}

/// Whether Slurm said that it does not know the job.
fn unknown_job(words: &str) -> bool {
    words.to_ascii_lowercase().contains("invalid job id")
}

/// What a failed command said, on one line and without its own name before it.
fn said(name: &str, output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    let prefix = format!("{name}: ");
    let lines = text
        .lines()
        .map(|line| line.trim().trim_start_matches(&prefix).trim_start_matches("error: "));
    let words: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    if words.is_empty() {
        format!("{name} ended with {} and said nothing", output.status)
    } else {
        format!("{name}: {}", words.join("; "))
    }
}

fn list(ids: &[u64]) -> String {
    ids.iter().map(u64::to_string).collect::<Vec<_>>().join(",")
}

impl Door for Commands {
    fn kind(&self) -> DoorKind {
        DoorKind::Cli
    }

    fn render(&self, job: &SlurmJob) -> Result<String, String> {
        Ok(script::for_sbatch(job))
    }

    fn submit(&self, text: &str) -> Result<u64, Trouble> {
        let answer = self.ask("sbatch", &["--parsable"], text)?;
        // The number, and behind a semicolon the cluster's name; a site's plugin may print lines before it.
        let line = answer
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default();
        let id = line.split(';').next().and_then(|id| id.trim().parse().ok());
        id.ok_or_else(|| Trouble::Lost(format!("sbatch printed {answer:?}, which names no job")))
    }

    fn jobs(&self, ids: &[u64]) -> Result<Vec<JobRecord>, Trouble> {
        let found = self.queue(&[&format!("--jobs={}", list(ids))])?;
        Ok(found
            .into_iter()
            .filter(|record| ids.iter().any(|&id| record.is_of(id)))
            .collect())
    }

    fn by_comment(&self, comment: &str) -> Result<Vec<JobRecord>, Trouble> {
        let found = self.queue(&["--me"])?;
        Ok(found.into_iter().filter(|record| record.comment == comment).collect())
    }

    fn accounted(&self, ids: &[u64]) -> Vec<JobRecord> {
        let (jobs, format) = (
            format!("--jobs={}", list(ids)),
            format!("--format={}", from_text::ACCOUNTED),
        );
        // Without a start sacct looks at today only, at some versions.
        let arguments = [
            "--noheader",
            "--parsable2",
            "--allocations",
            "--starttime=2000-01-01",
            &jobs,
            &format,
        ];
        let answer = self.ask("sacct", &arguments, "");
        answer.map_or_else(|_| Vec::new(), |text| from_text::accounted(&text))
    }

    fn cancel(&self, id: u64) -> Result<(), Trouble> {
        match self.ask("scancel", &[&id.to_string()], "") {
            Err(Trouble::Refused(words)) if unknown_job(&words) || words.contains("already complet") => Ok(()),
            other => other.map(drop),
        }
    }

    fn depend(&self, id: u64, dependency: &str) -> Result<(), Trouble> {
        let (job, dependency) = (format!("JobId={id}"), format!("Dependency={dependency}"));
        self.ask("scontrol", &["update", &job, &dependency], "").map(drop)
    }

    fn partitions(&self) -> Result<Vec<Partition>, Trouble> {
        let text = self.ask("scontrol", &["show", "partition", "--oneliner"], "")?;
        Ok(from_text::partitions(&text))
    }

    fn nodes(&self) -> Result<Vec<Node>, Trouble> {
        let text = self.ask("scontrol", &["show", "node", "--oneliner"], "")?;
        Ok(from_text::nodes(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Commands of which `name` is this shell text. Stand-ins, not Slurm's.
    fn commands(folder: &tempfile::TempDir, name: &str, text: &str) -> Commands {
        let path = folder.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("set");
        let path = format!("{}:/usr/bin:/bin", folder.path().display());
        let vars = [
            ("PATH", path),
            ("SLURM_JOB_ID", "7".to_owned()),
            ("SLURM_CONF", "/etc/s".to_owned()),
        ];
        let around = vars.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Commands::new(Arc::new(Waiter::new().expect("a runtime")), around)
    }

    #[test]
    fn a_command_that_does_not_end_is_ended_and_its_answer_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let pid = folder.path().join("pid");
        let text = format!("echo $$ > {}; exec sleep 600", pid.display());
        let commands = commands(&folder, "sbatch", &text).with_patience(Duration::from_secs(2));
        let trouble = commands.submit("#!/bin/sh\n").expect_err("it does not end");
        assert!(matches!(trouble, Trouble::Lost(_)), "{trouble:?}");
        // A machine under load may have ended it before its first line.
        let pid = std::fs::read_to_string(pid).unwrap_or_else(|_| "none".to_owned());
        let stat = || std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        while stat().is_ok_and(|stat| !stat.contains(") Z ")) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_command_says_is_shown() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "echo 'sbatch: error: Batch job submission failed: Invalid partition name specified' >&2; exit 1";
        let trouble = commands(&folder, "sbatch", text)
            .submit("#!/bin/sh\n")
            .expect_err("it is refused");
        let Trouble::Refused(words) = trouble else {
            panic!("{trouble:?}");
        };
        assert!(
            words.contains("Invalid partition name specified: `sinfo -s`"),
            "{words}"
        );
    }

    #[test]
    fn a_number_is_read_from_what_sbatch_prints_and_its_variables_are_clean() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "[ \"$SLURM_CONF$SLURM_JOB_ID$SLURM_TIME_FORMAT\" = /etc/s ] || exit 1; cat >/dev/null; echo 'welcome'; echo '42;virt'";
        assert_eq!(commands(&folder, "sbatch", text).submit("#!/bin/sh\n"), Ok(42));
        let odd = commands(&folder, "sbatch", "echo nothing");
        assert!(
            matches!(odd.submit(""), Err(Trouble::Lost(_))),
            "a job may have been made"
        );
    }

    #[test]
    fn a_job_that_slurm_does_not_know_is_no_trouble() {
        let folder = tempfile::tempdir().expect("a folder");
        let unknown = "echo 'x: error: Invalid job id specified' >&2; exit 1";
        assert_eq!(commands(&folder, "squeue", unknown).jobs(&[1]), Ok(Vec::new()));
        assert_eq!(commands(&folder, "scancel", unknown).cancel(1), Ok(()));
        let no_accounting = commands(
            &folder,
            "sacct",
            "echo 'Slurm accounting storage is disabled' >&2; exit 1",
        );
        assert_eq!(no_accounting.accounted(&[1]), []);
    }
}
