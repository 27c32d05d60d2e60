//! Where a run goes: the words of the command line turned into a target, and a target into its scheduler. The one place that
//! names the backends which are not this machine.

pub(crate) mod kubernetes;
pub(crate) mod slurm;

use crate::args::Target;
use crate::error::{CliError, USAGE};
use bridgehead_backend::{BackendError, JobRef, JobReport, LaunchRequest};
use bridgehead_plan::ClusterProfile;
use bridgehead_spec::{GroupSpec, TargetConfig};
use serde_json::{Map, Value};
use std::os::unix::net::UnixStream;
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
    fn find(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<Option<JobRef>, BackendError>;
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
    /// What it can do that needs no shared file system, where its nodes share none with this machine.
    fn far(&self) -> Option<&dyn FarScheduler> {
        None
    }
}

/// A scheduler whose nodes do not share this machine's file system.
pub(crate) trait FarScheduler {
    /// A connection to the folder service of the head that a job runs.
    fn dial(&self, job: &JobRef) -> Result<UnixStream, BackendError>;
    /// What is unwise about what is asked of it, as sentences.
    fn warnings(&self) -> Vec<String>;
    /// Whether the run folder outlives the job's pods.
    fn keeps_folder(&self) -> bool;
    /// Has a job give its nodes back and keep its place.
    fn suspend(&self, job: &JobRef) -> Result<(), BackendError>;
    /// Lets a suspended job go on.
    fn resume(&self, job: &JobRef) -> Result<(), BackendError>;
    /// The job that lends a kept folder to this machine: it serves the folder of the request's run, and nothing else.
    fn submit_reader(&self, request: &LaunchRequest) -> Result<JobRef, BackendError>;
    /// Removes what a submission that never came to be has left; what was removed.
    fn sweep(&self, request: &LaunchRequest) -> Result<Vec<String>, BackendError>;
    /// What the scheduler itself kept of what the job printed.
    fn logs(&self, job: &JobRef) -> Result<String, BackendError>;
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
    match target.backend.as_str() {
        // Its jobs are started again by the cluster itself, and nobody is told before their end but by the head's own clock.
        bridgehead_kubernetes::NAME => Ok(EndRules {
            notice: None,
            continuations: 0,
        }),
        _ => slurm::end_rules(target),
    }
}

impl Target {
    /// What was asked for, by the options' names in Python; `cpus` is the cores of each node.
    ///
    /// # Errors
    /// `--slurm` or `--kubernetes` without a `=`.
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
            ("queue", &self.queue),
            ("flavor", &self.flavor),
            ("priority", &self.priority),
            ("image", &self.image),
            ("namespace", &self.namespace),
            ("context", &self.context),
            ("volume", &self.volume),
            ("keep", &self.keep),
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
        let slurm = self.slurm.iter().map(|pair| ("slurm", "Slurm", pair));
        let kubernetes = self.kubernetes.iter().map(|pair| ("kubernetes", "Kubernetes", pair));
        for (option, class, pair) in slurm.chain(kubernetes) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                let message =
                    format!("--{option} {pair}: give KEY=VALUE, with a name of bridgehead.{class} as the key");
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
    match target.backend.as_str() {
        bridgehead_slurm::NAME => slurm::open(target),
        bridgehead_kubernetes::NAME => kubernetes::open(target),
        other => {
            let (slurm, kubernetes) = (bridgehead_slurm::NAME, bridgehead_kubernetes::NAME);
            let message = format!("there is no backend {other:?}: there are {slurm} and {kubernetes}");
            Err(CliError::new(USAGE, message))
        }
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

/// What `ask` finds out, or why it does not, or that it has not by now.
fn in_time(ask: impl FnOnce() -> Result<String, String> + Send + 'static) -> String {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(ask().unwrap_or_else(|reason| reason)); // Nobody waits any more: the answer came too late.
    });
    let late = || format!("there is one, and it has not answered for {} s", DOCTOR.as_secs());
    told.recv_timeout(DOCTOR).unwrap_or_else(|_| late())
}
