//! Where a run goes: the words of the command line turned into a target, and a target into its scheduler. The one place that
//! names the backends which are not this machine.

use crate::args::Target;
use crate::error::{CliError, USAGE};
use bridgehead_backend::{Backend, BackendError, JobRef, JobReport, LaunchRequest};
use bridgehead_plan::ClusterProfile;
use bridgehead_slurm::{Lint, Partition, Slurm, SlurmManifest, SlurmOptions};
use bridgehead_spec::{GroupSpec, TargetConfig};
use serde_json::{Map, Value};
use std::time::Duration;

/// What a scheduler would be handed for one gang.
pub(crate) struct Rendered {
    /// Exactly that, as text.
    pub text: String,
    /// What is unwise about it, as sentences.
    pub warnings: Vec<String>,
}

/// A scheduler, whichever it is. A gang's group overrides what the run asks for.
pub(crate) trait Scheduler {
    /// The way to it that was taken, and why.
    fn door(&self) -> (String, String);
    /// What there is to plan on.
    fn profile(&self) -> Result<ClusterProfile, BackendError>;
    /// What would be handed over; an error where it would be refused, or would wait for ever.
    fn render(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<Rendered, BackendError>;
    /// The job of a gang that was handed over before and whose answer was lost, if it is there.
    fn find(&self, request: &LaunchRequest) -> Result<Option<JobRef>, BackendError>;
    /// Hands a gang over.
    fn submit(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<JobRef, BackendError>;
    /// Where jobs stand, with one question.
    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError>;
    /// Ends a job.
    fn cancel(&self, job: &JobRef) -> Result<(), BackendError>;
    /// Has a waiting job start only after others.
    fn rechain(&self, job: &JobRef, after: &[JobRef]) -> Result<(), BackendError>;
    /// When a running job will be ended, in seconds since the epoch, where that is known.
    fn end_of(&self, job: &JobRef) -> Result<Option<u64>, BackendError>;
}

/// What a target says of the end of its jobs. It needs no way to the scheduler.
pub(crate) struct EndRules {
    /// How long before the end a job is told; `None` where nobody has said.
    pub notice: Option<Duration>,
    /// Most follow-up jobs.
    pub continuations: u32,
}

/// The rules of a target's options.
///
/// # Errors
/// They make no sense.
pub(crate) fn end_rules(target: &TargetConfig) -> Result<EndRules, CliError> {
    let bad = |e: bridgehead_slurm::OptionError| CliError::new(USAGE, e.to_string());
    let options = SlurmOptions::read(&target.options).map_err(bad)?;
    let notice = options.told_before().map_err(bad)?;
    Ok(EndRules {
        notice: notice.map(|seconds| Duration::from_secs(seconds.into())),
        continuations: options.most_continuations(),
    })
}

impl Target {
    /// What was asked for, by the options' names in Python; `cpus` is the cores of each node.
    ///
    /// # Errors
    /// `--slurm` without a `=`.
    pub(crate) fn options(&self, cpus: Option<u32>) -> Result<Map<String, Value>, CliError> {
        let mut options = Map::new();
        let numbers = [("nodes", self.nodes), ("gpus", self.gpus), ("cpus", cpus)];
        options.extend(
            numbers
                .into_iter()
                .filter_map(|(key, n)| Some((key.to_owned(), n?.into()))),
        );
        let texts = [
            ("memory", &self.memory),
            ("time", &self.time),
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("constraint", &self.constraint),
            ("reservation", &self.reservation),
            ("exclude", &self.exclude),
            ("array", &self.array),
            ("door", &self.slurm_door),
            ("rest_url", &self.rest_url),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key.to_owned(), text.clone()?.into())));
        options.extend(texts);
        if let Some(file) = &self.token_file {
            let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
            options.insert("token_file".to_owned(), file.display().to_string().into());
        }
        for pair in &self.slurm {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                let message = format!("--slurm {pair}: give KEY=VALUE, with a name of bridgehead.Slurm as the key");
                CliError::new(USAGE, message)
            })?;
            let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
            options.insert(key.replace('-', "_"), value);
        }
        if !self.sbatch.is_empty() {
            options.insert("native".to_owned(), self.sbatch.clone().into());
        }
        Ok(options)
    }
}

/// The scheduler of a target.
///
/// # Errors
/// There is none of that name, its options make no sense, or there is no way to it.
pub(crate) fn open(target: &TargetConfig) -> Result<Box<dyn Scheduler>, CliError> {
    if target.backend != bridgehead_slurm::NAME {
        let message = format!(
            "there is no backend {:?}: {} is the one",
            target.backend,
            bridgehead_slurm::NAME
        );
        return Err(CliError::new(USAGE, message));
    }
    let options = SlurmOptions::read(&target.options).map_err(|e| CliError::new(USAGE, e.to_string()))?;
    let slurm = Slurm::connect(&options)?;
    Ok(Box::new(SlurmTarget { options, slurm }))
}

/// Slurm, with what the run asks of it.
struct SlurmTarget {
    options: SlurmOptions,
    slurm: Slurm,
}

impl SlurmTarget {
    /// The job of a gang, whose group may ask for other nodes than the run does.
    fn manifest(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<SlurmManifest, BackendError> {
        match group {
            None => self.slurm.render(request),
            Some(group) => {
                let options = self
                    .options
                    .for_group(group.nodes, group.gpus, group.partition.as_deref());
                self.slurm.render_with(request, &options)
            }
        }
    }
}

impl Scheduler for SlurmTarget {
    fn door(&self) -> (String, String) {
        let (door, reason) = self.slurm.door();
        (door.to_owned(), reason.to_owned())
    }

    fn profile(&self) -> Result<ClusterProfile, BackendError> {
        self.slurm.profile()
    }

    fn render(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<Rendered, BackendError> {
        let manifest = self.manifest(request, group)?;
        let (errors, warnings): (Vec<Lint>, Vec<Lint>) =
            self.slurm.lint(&manifest.job)?.into_iter().partition(|lint| lint.error);
        if !errors.is_empty() {
            let errors: Vec<String> = errors.into_iter().map(|lint| lint.words).collect();
            return Err(BackendError::Unfit {
                backend: bridgehead_slurm::NAME,
                reason: errors.join("; "),
            });
        }
        Ok(Rendered {
            text: bridgehead_slurm::shown(&manifest.text),
            warnings: warnings.into_iter().map(|lint| lint.words).collect(),
        })
    }

    fn find(&self, request: &LaunchRequest) -> Result<Option<JobRef>, BackendError> {
        self.slurm.find(&request.key())
    }

    fn submit(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<JobRef, BackendError> {
        self.slurm.submit(&self.manifest(request, group)?)
    }

    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        self.slurm.observe(jobs)
    }

    fn cancel(&self, job: &JobRef) -> Result<(), BackendError> {
        self.slurm.cancel(job)
    }

    fn rechain(&self, job: &JobRef, after: &[JobRef]) -> Result<(), BackendError> {
        self.slurm.rechain(job, after)
    }

    fn end_of(&self, job: &JobRef) -> Result<Option<u64>, BackendError> {
        self.slurm.job_end(job)
    }
}

/// Overrides what is asked of a target, option by option.
pub(crate) fn merge(target: &mut TargetConfig, changes: Map<String, Value>) {
    match &mut target.options {
        Value::Object(options) => options.extend(changes),
        other => *other = Value::Object(changes),
    }
}

/// How long `doctor` waits for a scheduler's answer.
const DOCTOR: Duration = Duration::from_secs(5);

/// The way to Slurm from here and the partitions that it has, in a line; why there is none, where there is none.
pub(crate) fn slurm_in_words() -> String {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let slurm = Slurm::connect(&SlurmOptions::default());
        let words = slurm.and_then(|slurm| {
            let partitions = slurm
                .cluster()?
                .partitions
                .iter()
                .map(partition)
                .collect::<Vec<_>>()
                .join(", ");
            let (door, reason) = slurm.door();
            Ok(format!("by {door} ({reason}); partitions {partitions}"))
        });
        let _ = tell.send(words); // Nobody waits any more: the answer came too late.
    });
    match told.recv_timeout(DOCTOR) {
        Ok(words) => words.unwrap_or_else(|error| error.to_string()),
        Err(_) => format!("there is one, and it has not answered for {} s", DOCTOR.as_secs()),
    }
}

fn partition(partition: &Partition) -> String {
    let default = if partition.default == Some(true) { "*" } else { "" };
    let limit = partition
        .max_minutes
        .map_or(String::new(), |minutes| format!(", {minutes} min at most"));
    let state = if partition.state == "UP" {
        String::new()
    } else {
        format!(", {}", partition.state.to_lowercase())
    };
    format!(
        "{}{default} ({} nodes{limit}{state})",
        partition.name, partition.total_nodes
    )
}
