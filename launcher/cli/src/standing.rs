//! How runs stand: what their folders tell, and, for those that were handed to a scheduler, what it says of their jobs. All
//! runs of a scheduler are asked for with one question.

use crate::error::CliError;
use crate::target;
use crate::{far, folder, launch};
use bridgehead_backend::ledger::{self, LaunchRecord};
use bridgehead_backend::{JobReport, JobState};
use bridgehead_spec::{RunConfig, RunFolder, TargetConfig};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Launches of a run that are asked for: earlier ones are over.
const ASKED: usize = 16;
/// A scheduler that has just lost sight of a job is not believed as long as its head writes.
const HEARD: Duration = Duration::from_secs(60);

/// A launch and what its scheduler says of it.
pub(crate) struct Job {
    pub record: LaunchRecord,
    /// `None` where it was never answered, or could not be asked for.
    pub report: Option<JobReport>,
}

impl Job {
    fn is(&self, state: JobState) -> bool {
        self.report.as_ref().is_some_and(|report| report.state == state)
    }

    /// Whether its processes are being ended.
    fn is_winding_up(&self) -> bool {
        self.report.as_ref().is_some_and(|report| report.word == "COMPLETING")
    }

    /// Whether it was told to give its nodes back and keep its place.
    pub(crate) fn is_suspended(&self) -> bool {
        self.report
            .as_ref()
            .is_some_and(|report| report.word == bridgehead_kubernetes::SUSPENDED)
    }

    /// Whether its scheduler still has to do with it.
    pub(crate) fn is_open(&self) -> bool {
        self.is(JobState::Pending) || self.is(JobState::Running)
    }

    fn to_json(&self) -> Value {
        let job = self.record.job.as_ref().map(|job| job.0.as_str());
        let mut value =
            json!({ "launch": self.record.launch, "gang": self.record.gang, "job": job, "door": self.record.door });
        if let Some(report) = &self.report {
            value["state"] = json!(report.state);
            for (name, text) in [
                ("word", &report.word),
                ("reason", &report.reason),
                ("nodes", &report.nodes),
            ] {
                if !text.is_empty() {
                    value[name] = json!(text);
                }
            }
        }
        value
    }
}

/// A run as it stands.
pub(crate) struct Standing {
    /// What `status` shows; `None` as long as nothing has been written.
    pub status: Option<Value>,
    /// The newest launches, if it was handed to a scheduler.
    pub jobs: Vec<Job>,
    /// Why the scheduler could not be asked.
    pub silent: Option<String>,
}

impl Standing {
    /// Whether the run has had its last word.
    pub(crate) fn is_over(&self) -> bool {
        self.status.as_ref().is_some_and(is_final)
    }

    /// The phase, `starting` where nothing has been written.
    pub(crate) fn phase(&self) -> &str {
        let phase = self.status.as_ref().and_then(|status| status["phase"].as_str());
        phase.unwrap_or("starting")
    }
}

/// How one run stands.
pub(crate) fn of(folder: &RunFolder) -> Result<Standing, CliError> {
    only(judge_all(std::slice::from_ref(folder), Told::read_fresh))
}

/// The same for a folder that is up to date: no head is asked for what is newer.
pub(crate) fn of_synced(folder: &RunFolder) -> Result<Standing, CliError> {
    only(judge_all(std::slice::from_ref(folder), Told::read))
}

fn only(mut found: Vec<Result<Standing, CliError>>) -> Result<Standing, CliError> {
    found.pop().expect("one answer for each run")
}

/// How runs stand, in their order; what is wrong with one does not hide the others.
pub(crate) fn of_all(folders: &[RunFolder]) -> Vec<Result<Standing, CliError>> {
    judge_all(folders, Told::read_fresh)
}

fn judge_all(
    folders: &[RunFolder],
    read: impl Fn(&RunFolder) -> Result<Told, CliError>,
) -> Vec<Result<Standing, CliError>> {
    let read: Vec<_> = folders.iter().map(read).collect();
    let mut asked: BTreeMap<String, (&TargetConfig, Vec<bridgehead_backend::JobRef>)> = BTreeMap::new();
    for told in read.iter().flatten() {
        if let Some(target) = told.target().filter(|_| told.must_ask()) {
            let (_, jobs) = asked.entry(door_of(target)).or_insert((target, Vec::new()));
            jobs.extend(told.records.iter().filter_map(|record| record.job.clone()));
        }
    }
    let answers: BTreeMap<String, _> = asked
        .into_iter()
        .map(|(door, (target, jobs))| (door, ask(target, &jobs)))
        .collect();
    read.into_iter()
        .zip(folders)
        .map(|(told, folder)| {
            let told = told?;
            let far = told.config.as_ref().is_some_and(far::is_far);
            let standing = told.standing(folder, &answers)?;
            if !far || standing.phase() != "lost" {
                return Ok(standing);
            }
            // It may have ended after its folder was read and before its job was asked for: then its last word is there now.
            Told::read_fresh(folder)?.standing(folder, &answers)
        })
        .collect()
}

/// The launches that may still be at work: what has a successor is over or about to be.
fn newest(mut records: Vec<LaunchRecord>) -> Vec<LaunchRecord> {
    records.drain(..records.len().saturating_sub(ASKED));
    let mut followed: Vec<u32> = records.iter().filter_map(|record| record.follows).collect();
    followed.sort_unstable();
    followed.pop(); // The one before the last may be ending at this moment.
    records.retain(|record| !followed.contains(&record.launch));
    records
}

type Answer = Result<BTreeMap<String, JobReport>, String>;

fn ask(target: &TargetConfig, jobs: &[bridgehead_backend::JobRef]) -> Answer {
    let scheduler = target::open(target).map_err(|e| e.to_string())?;
    let reports = scheduler.observe(jobs).map_err(|e| e.to_string())?;
    Ok(jobs.iter().map(|job| job.0.clone()).zip(reports).collect())
}

/// What makes a scheduler another one: runs that have it alike share a question.
fn door_of(target: &TargetConfig) -> String {
    let names = [
        "door",
        "rest_url",
        "token_file",
        "user",
        "kubeconfig",
        "context",
        "namespace",
        "flavor",
    ];
    let options = names.map(|name| target.options[name].to_string());
    format!("{} {}", target.backend, options.join(" "))
}

/// What a run folder tells.
struct Told {
    /// `None` where it cannot be read: then the folder is all that tells of the run.
    config: Option<RunConfig>,
    records: Vec<LaunchRecord>,
    status: Option<Value>,
    /// Why the folder that is mirrored here, and is kept where it is, could not be read just now.
    unread: Option<String>,
}

impl Told {
    /// What a folder tells that is brought up to date first, where it is a mirror.
    fn read_fresh(folder: &RunFolder) -> Result<Self, CliError> {
        let config = folder::config(folder).ok();
        let unread = config.map(|config| far::refresh(folder, &config, false)).transpose()?;
        let unread = unread.flatten();
        Ok(Self {
            unread,
            ..Self::read(folder)?
        })
    }

    fn read(folder: &RunFolder) -> Result<Self, CliError> {
        let config = folder::config(folder).ok();
        let records = newest(ledger::read(folder)?);
        let status = folder::written(folder)?;
        Ok(Self {
            config,
            records,
            status,
            unread: None,
        })
    }

    /// What was written by the newest launch; older news are of a life that is over.
    fn fresh(&self) -> Option<&Value> {
        let before = self.records.last().map_or(0, |record| record.attempts);
        let attempt = |status: &Value| status["attempt"].as_u64().unwrap_or(0);
        self.status.as_ref().filter(|status| attempt(status) > before.into())
    }

    fn target(&self) -> Option<&TargetConfig> {
        self.config.as_ref()?.target.as_ref()
    }

    fn must_ask(&self) -> bool {
        !self.fresh().is_some_and(is_final)
    }

    fn standing(self, folder: &RunFolder, answers: &BTreeMap<String, Answer>) -> Result<Standing, CliError> {
        let (Some(config), Some(target)) = (&self.config, self.target()) else {
            let status = folder::snapshot(folder)?;
            return Ok(Standing {
                status,
                jobs: Vec::new(),
                silent: None,
            });
        };
        let answer = answers.get(&door_of(target)).filter(|_| self.must_ask());
        let silent = answer.and_then(|answer| answer.as_ref().err().cloned());
        let known = answer.and_then(|answer| answer.as_ref().ok());
        let report = |record: &LaunchRecord| known?.get(&record.job.as_ref()?.0).cloned();
        let jobs: Vec<Job> = self
            .records
            .iter()
            .map(|record| Job {
                report: report(record),
                record: record.clone(),
            })
            .collect();
        let (phase, message) = match self.fresh() {
            Some(status) if is_final(status) => (text(status, "phase"), text(status, "message")),
            fresh => {
                let judged = judge(&jobs, fresh, silent.as_deref(), heard(folder));
                self.unread
                    .as_deref()
                    .map_or(judged.clone(), |reason| unless_kept(judged, fresh, reason))
            }
        };
        let mut status = match self.status {
            Some(status) => status,
            None => {
                let tasks = folder::spec(folder)?.map_or(0, |spec| spec.tasks.len());
                json!({ "name": config.name, "tasks": { "waiting": tasks } })
            }
        };
        status["run"] = json!(config.run);
        status["phase"] = json!(phase);
        status["message"] = json!(message);
        status["jobs"] = jobs.iter().map(Job::to_json).collect();
        Ok(Standing {
            status: Some(status),
            jobs,
            silent,
        })
    }
}

fn text(status: &Value, key: &str) -> String {
    status[key].as_str().unwrap_or("").to_owned()
}

/// What the newest launch of a run has written; its scheduler is not asked.
pub(crate) fn by_folder(folder: &RunFolder) -> Result<Option<Value>, CliError> {
    let told = Told::read(folder)?;
    Ok(told.fresh().cloned())
}

/// Whether the newest launch of a run has written its last word; its scheduler is not asked.
pub(crate) fn has_ended(folder: &RunFolder) -> Result<bool, CliError> {
    Ok(by_folder(folder)?.as_ref().is_some_and(is_final))
}

/// Whether a status is the last word of a run.
pub(crate) fn is_final(status: &Value) -> bool {
    matches!(status["phase"].as_str(), Some("finished" | "failed" | "cancelled"))
}

/// Whether the head has written a short while ago.
fn heard(folder: &RunFolder) -> bool {
    let age = std::fs::metadata(folder.status()).and_then(|facts| facts.modified());
    age.is_ok_and(|written| written.elapsed().is_ok_and(|age| age < HEARD))
}

/// Phase and message of a run that has not ended, by its jobs and what its newest launch has written.
fn judge(jobs: &[Job], fresh: Option<&Value>, silent: Option<&str>, heard: bool) -> (String, String) {
    let say = |phase: &str, message: &str| (phase.to_owned(), message.to_owned());
    let written = fresh.map(|status| text(status, "phase"));
    let open = fresh
        .filter(|status| folder::is_open(status))
        .map(|status| text(status, "phase"));
    if let Some(reason) = silent {
        let phase = written.unwrap_or_else(|| "queued".to_owned());
        return (phase, format!("as far as its folder tells: {reason}"));
    }
    if jobs.iter().any(|job| job.is(JobState::Running) && !job.is_winding_up()) {
        return match open {
            Some(phase) => (phase, String::new()),
            None => say("starting", "its job has its nodes; the head is not up yet"),
        };
    }
    if let Some(job) = jobs.iter().find(|job| job.is(JobState::Pending)) {
        let reason = job.report.as_ref().map_or("", |report| &report.reason);
        return say("queued", reason.strip_prefix("waits: ").unwrap_or(reason));
    }
    if jobs.iter().any(Job::is_winding_up) {
        return (
            open.unwrap_or_else(|| "running".to_owned()),
            "its job is coming to its end".to_owned(),
        );
    }
    let Some(last) = jobs.last() else {
        return say("lost", "it was never handed over");
    };
    match (open, &last.report) {
        (_, None) => say(
            "lost",
            "whether it was handed over is not known, because the answer was lost",
        ),
        (Some(phase), Some(report)) if heard && report.state == JobState::Unknown => (phase, String::new()),
        (Some(_), Some(report)) => {
            let how = if report.reason.is_empty() {
                "its job is over"
            } else {
                &report.reason
            };
            (
                "lost".to_owned(),
                format!("its head is gone without having ended it: {how}"),
            )
        }
        (None, Some(_)) if written.as_deref() == Some("paused") => {
            let message = fresh.map_or_else(String::new, |status| text(status, "message"));
            ("paused".to_owned(), message)
        }
        (None, Some(report)) => {
            let word = if report.word.is_empty() { "over" } else { &report.word };
            let job = last.record.job.as_ref().map_or("", |job| &job.0);
            let reason = if report.reason.is_empty() {
                String::new()
            } else {
                format!(": {}", report.reason)
            };
            let message = format!(
                "job {job} is {word}{reason}; its head never came up (logs/ in the run folder; is that folder seen by the nodes?)"
            );
            ("lost".to_owned(), message)
        }
    }
}

/// A run whose job is over is not lost as long as the folder that is kept could not be read: its end may stand there.
fn unless_kept(judged: (String, String), fresh: Option<&Value>, reason: &str) -> (String, String) {
    if judged.0 != "lost" {
        return judged;
    }
    let phase = fresh.map_or_else(|| "starting".to_owned(), |status| text(status, "phase"));
    let message = format!("its job is over, and the run folder on its volume cannot be read just now: {reason}");
    (phase, message)
}

/// A scheduler and the jobs that it has.
pub(crate) type OpenJobs = (Box<dyn target::Scheduler>, Vec<Job>);

/// The jobs of a run that its scheduler still has to do with, and the scheduler; `None` for a run on this machine.
pub(crate) fn open_jobs(folder: &RunFolder, config: &RunConfig) -> Result<Option<OpenJobs>, CliError> {
    let Some(scheduler) = launch::scheduler_of(config)? else {
        return Ok(None);
    };
    let records = newest(ledger::read(folder)?);
    let refs: Vec<_> = records.iter().filter_map(|record| record.job.clone()).collect();
    let mut reports = scheduler.observe(&refs)?.into_iter();
    let jobs = records.into_iter().map(|record| {
        let report = record.job.as_ref().and_then(|_| reports.next());
        Job { record, report }
    });
    let jobs: Vec<Job> = jobs.filter(|job| job.is_open() || job.record.job.is_none()).collect();
    Ok(Some((scheduler, jobs)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridgehead_backend::JobRef;

    fn job(state: Option<JobState>, reason: &str) -> Job {
        Job {
            record: LaunchRecord {
                version: 1,
                launch: 1,
                gang: 0,
                backend: "slurm".to_owned(),
                door: "cli".to_owned(),
                key: "r/1".to_owned(),
                job: state.map(|_| JobRef("7".to_owned())),
                follows: None,
                after: Vec::new(),
                attempts: 0,
                submitted_s: 0,
            },
            report: state.map(|state| JobReport {
                reason: reason.to_owned(),
                ..JobReport::of(state)
            }),
        }
    }

    /// The phase that `judge` gives.
    fn check(jobs: &[Job], written: Option<&str>, heard: bool) -> String {
        let status = written.map(|phase| json!({ "phase": phase, "message": "" }));
        judge(jobs, status.as_ref(), None, heard).0
    }

    #[test]
    fn a_run_is_what_its_jobs_and_its_head_say_together() {
        let (pending, running) = (JobState::Pending, JobState::Running);
        let (ended, unknown) = (JobState::Ended, JobState::Unknown);
        for (state, written, heard, phase) in [
            (Some(pending), None, false, "queued"),
            (Some(pending), Some("running"), true, "queued"),
            (Some(pending), Some("paused"), false, "queued"),
            (Some(running), None, false, "starting"),
            (Some(running), Some("paused"), false, "starting"),
            (Some(running), Some("running"), true, "running"),
            (Some(running), Some("cancelling"), true, "cancelling"),
            (Some(ended), Some("running"), true, "lost"),
            (Some(ended), Some("paused"), true, "paused"),
            (Some(ended), None, false, "lost"),
            (Some(unknown), Some("running"), true, "running"),
            (Some(unknown), Some("running"), false, "lost"),
            (None, None, false, "lost"),
        ] {
            let found = check(&[job(state, "")], written, heard);
            assert_eq!(found, phase, "{state:?} {written:?} {heard}");
        }
        assert_eq!(check(&[], None, false), "lost");
        let chain = [job(Some(ended), ""), job(Some(pending), "after 7")];
        assert_eq!(check(&chain, Some("paused"), true), "queued");
    }

    #[test]
    fn a_run_is_not_lost_as_long_as_its_kept_folder_has_not_been_read() {
        let status = json!({ "phase": "running" });
        let judged = |phase: &str| (phase.to_owned(), String::new());
        let (phase, message) = unless_kept(judged("lost"), Some(&status), "no pod");
        assert_eq!(phase, "running");
        assert!(message.contains("no pod"), "{message}");
        assert_eq!(unless_kept(judged("queued"), None, "no pod").0, "queued");
    }

    #[test]
    fn a_scheduler_that_cannot_be_asked_leaves_what_the_folder_tells() {
        let status = json!({ "phase": "running" });
        let (phase, message) = judge(&[job(None, "")], Some(&status), Some("no route"), true);
        assert_eq!(phase, "running");
        assert!(message.contains("no route"), "{message}");
    }
}
