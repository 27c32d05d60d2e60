//! Slurm as a target: its options from the command line's words, and what `doctor` says of it.

use super::{EndRules, Rendered, Scheduler};
use crate::error::{CliError, USAGE};
use bridgehead_backend::{Backend, BackendError, JobRef, JobReport, LaunchRequest};
use bridgehead_plan::ClusterProfile;
use bridgehead_slurm::{Lint, OptionError, Partition, Slurm, SlurmManifest, SlurmOptions};
use bridgehead_spec::{GroupSpec, TargetConfig};
use std::time::Duration;

fn bad(error: &OptionError) -> CliError {
    CliError::new(USAGE, error.to_string())
}

/// What a target says of the end of its jobs.
pub(super) fn end_rules(target: &TargetConfig) -> Result<EndRules, CliError> {
    let options = SlurmOptions::read(&target.options).map_err(|e| bad(&e))?;
    let notice = options.told_before().map_err(|e| bad(&e))?;
    Ok(EndRules {
        notice: notice.map(|seconds| Duration::from_secs(seconds.into())),
        continuations: options.most_continuations(),
    })
}

/// Slurm, if there is a way to it.
pub(super) fn open(target: &TargetConfig) -> Result<Box<dyn Scheduler>, CliError> {
    let options = SlurmOptions::read(&target.options).map_err(|e| bad(&e))?;
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

    fn find(&self, request: &LaunchRequest, _: Option<&GroupSpec>) -> Result<Option<JobRef>, BackendError> {
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

/// The way to Slurm from here and the partitions that it has, in a line; why there is none, where there is none.
pub(crate) fn in_words() -> String {
    super::in_time(|| {
        let slurm = Slurm::connect(&SlurmOptions::default()).map_err(|e| e.to_string())?;
        let cluster = slurm.cluster().map_err(|e| e.to_string())?;
        let partitions = cluster.partitions.iter().map(partition).collect::<Vec<_>>().join(", ");
        let (door, reason) = slurm.door();
        Ok(format!("by {door} ({reason}); partitions {partitions}"))
    })
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
