//! The backend: renders, submits once and only once, observes many jobs with one question, cancels, and tells what the cluster
//! has. Owns the rule for a lost answer: the job is looked for by its key, and nothing is submitted again before that look.

use crate::connect;
use crate::door::{Door, Trouble};
use crate::job::{self, SlurmJob};
use crate::lint::{self, Cluster, Lint};
use crate::options::{DoorKind, SlurmOptions};
use crate::record::{JobRecord, Node, Partition, speaks_for};
use crate::surroundings::Surroundings;
use crate::{NAME, why};
use bridgehead_backend::{Backend, BackendError, JobRef, JobReport, JobState, LaunchRequest};
use bridgehead_plan::{ClusterProfile, NodeProfile};
use bridgehead_spec::Resources;
use std::sync::OnceLock;
use std::time::Duration;

/// Waits before further tries to submit; a loaded controller recovers within seconds or not at all.
const RETRIES: [Duration; 5] = [
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
];

/// Slurm, by one of its doors. Its methods wait for the answer and block the thread that calls them.
#[derive(Debug)]
pub struct Slurm {
    options: SlurmOptions,
    door: Box<dyn Door>,
    reason: String,
    cluster: OnceLock<Cluster>,
    retries: Vec<Duration>,
}

/// A job and the exact text that is handed over for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlurmManifest {
    /// The job, in words of no door.
    pub job: SlurmJob,
    /// The script for sbatch, or the body for slurmrestd.
    pub text: String,
}

fn unfit(reason: impl ToString) -> BackendError {
    BackendError::Unfit {
        backend: NAME,
        reason: reason.to_string(),
    }
}

fn job_ref(id: u64) -> JobRef {
    JobRef(id.to_string())
}

impl Slurm {
    /// Finds the way to Slurm: the one asked for, else slurmrestd where it is configured, else the commands.
    ///
    /// # Errors
    /// An option cannot be used, there is no way, or who asks is not accepted.
    pub fn connect(options: &SlurmOptions) -> Result<Self, BackendError> {
        Self::connect_in(options, &Surroundings::of_process())
    }

    /// The same for a process with these variables.
    ///
    /// # Errors
    /// As [`Slurm::connect`].
    pub fn connect_in(options: &SlurmOptions, around: &Surroundings) -> Result<Self, BackendError> {
        options.check().map_err(unfit)?;
        let (door, reason) = connect::open(options, around).map_err(|trouble| trouble.error("connect"))?;
        Ok(Self {
            options: options.clone(),
            door,
            reason,
            cluster: OnceLock::new(),
            retries: RETRIES.to_vec(),
        })
    }

    /// The same with other waits before further tries to submit.
    #[must_use]
    pub fn with_retries(self, retries: Vec<Duration>) -> Self {
        Self { retries, ..self }
    }

    /// The door (`rest` or `cli`), and why it was chosen.
    #[must_use]
    pub fn door(&self) -> (&str, &str) {
        let name = match self.door.kind() {
            DoorKind::Rest => "rest",
            DoorKind::Cli => "cli",
        };
        (name, &self.reason)
    }

    /// The user's job with this key ([`LaunchRequest::key`]), in whatever state, if Slurm knows one.
    ///
    /// # Errors
    /// Slurm cannot be asked.
    pub fn find(&self, key: &str) -> Result<Option<JobRef>, BackendError> {
        self.look(&job::comment(key))
            .map_err(|trouble| trouble.error("look for a job"))
    }

    fn look(&self, comment: &str) -> Result<Option<JobRef>, Trouble> {
        let found = self.door.by_comment(comment)?;
        Ok(found.iter().map(JobRecord::whole).min().map(job_ref))
    }

    /// What can be told of a job before it is submitted. An error among the findings means that it could never start.
    ///
    /// # Errors
    /// Slurm cannot be asked what it has.
    pub fn lint(&self, job: &SlurmJob) -> Result<Vec<Lint>, BackendError> {
        Ok(lint::lint(job, self.cluster()?))
    }

    /// What the cluster has; asked for once.
    ///
    /// # Errors
    /// Slurm cannot be asked.
    pub fn cluster(&self) -> Result<&Cluster, BackendError> {
        if let Some(cluster) = self.cluster.get() {
            return Ok(cluster);
        }
        let ask = || {
            Ok(Cluster {
                partitions: self.door.partitions()?,
                nodes: self.door.nodes()?,
            })
        };
        let cluster = ask().map_err(|trouble: Trouble| trouble.error("tell what it has"))?;
        Ok(self.cluster.get_or_init(|| cluster))
    }

    /// What there is to plan on: as many nodes as are asked for, each with what is asked for; where nodes are taken whole, with
    /// the least that a node of the partition has.
    ///
    /// # Errors
    /// Slurm cannot be asked, or no node fits.
    pub fn profile(&self) -> Result<ClusterProfile, BackendError> {
        let checked = self.options.check().map_err(unfit)?;
        let cluster = self.cluster()?;
        let partition = cluster.partition(self.options.partition.as_deref());
        let nodes = || cluster.nodes_of(partition).filter(|node| self.could_be_given(node));
        let Some(cpus) = self.options.cpus.or_else(|| nodes().map(|node| node.cpus).min()) else {
            return Err(unfit(self.nothing_fits(cluster, partition)));
        };
        let share = |node: &Node| node.memory_mib * u64::from(cpus) / u64::from(node.cpus.max(1));
        let per_core = checked.memory_per_cpu_mib.map(|mib| mib * u64::from(cpus));
        let memory_mib = checked
            .memory_mib
            .or(per_core)
            .or_else(|| nodes().map(share).min())
            .unwrap_or(0);
        let resources = Resources {
            cpu_millis: u64::from(cpus) * 1000,
            memory: memory_mib << 20,
            gpus: self.options.gpus.unwrap_or(0),
            ..Resources::zero()
        };
        let count = self.options.nodes.unwrap_or(1) * checked.array.map_or(1, |array| array.count);
        let node = |rank: u32| NodeProfile {
            name: format!("{NAME}-{rank}"),
            resources: resources.clone(),
            workers: cpus,
        };
        Ok(ClusterProfile {
            backend: NAME.to_owned(),
            nodes: (0..count).map(node).collect(),
        })
    }

    /// Why there is no node to plan on.
    fn nothing_fits(&self, cluster: &Cluster, partition: Option<&Partition>) -> String {
        let kind = self.options.gpu_type.as_deref();
        let place = partition.map_or("this cluster".to_owned(), |p| format!("partition {}", p.name));
        let Some(most) = cluster.nodes_of(partition).map(|node| node.gpus_of(kind)).max() else {
            return format!("no node of {place} is shown: give cpus, so that it can be planned");
        };
        let asked = self.options.gpus.unwrap_or(0);
        let kind = kind.map_or(String::new(), |kind| format!(" of type {kind}"));
        format!(
            "{asked} GPUs{kind} a node are asked for, the nodes of {place} have at most {most}: ask for fewer, or for another partition"
        )
    }

    fn could_be_given(&self, node: &Node) -> bool {
        let gpus = self.options.gpus.unwrap_or(0) <= node.gpus_of(self.options.gpu_type.as_deref());
        gpus && self.options.cpus.unwrap_or(1) <= node.cpus
    }

    /// Makes a waiting job wait for `after` in place of what it waited for.
    ///
    /// # Errors
    /// One of them is no job of Slurm, or Slurm refused.
    pub fn rechain(&self, job: &JobRef, after: &[JobRef]) -> Result<(), BackendError> {
        let number = |job: &JobRef| job::number(job).ok_or_else(|| unfit(format!("{:?} is no job of Slurm", job.0)));
        let ids = after.iter().map(number).collect::<Result<Vec<u64>, _>>()?;
        let dependency = job::dependency(&ids).unwrap_or_default();
        let changed = self.door.depend(number(job)?, &dependency);
        changed.map_err(|trouble| trouble.error("chain jobs"))
    }

    /// As [`Backend::render`], asking for what `options` say in place of the run's own: a group's nodes, for instance.
    ///
    /// # Errors
    /// The request cannot be met, with the way out.
    pub fn render_with(&self, request: &LaunchRequest, options: &SlurmOptions) -> Result<SlurmManifest, BackendError> {
        let job = SlurmJob::new(request, options).map_err(unfit)?;
        let text = self.door.render(&job).map_err(unfit)?;
        Ok(SlurmManifest { job, text })
    }

    /// When a running job reaches its time limit, in seconds since 1970: the first of its elements to do so. `None` where it
    /// does not run or has no limit.
    ///
    /// # Errors
    /// Slurm cannot be asked.
    pub fn job_end(&self, job: &JobRef) -> Result<Option<u64>, BackendError> {
        let Some(id) = job::number(job) else {
            return Ok(None);
        };
        let records = self.door.jobs(&[id]).map_err(|trouble| trouble.error("observe jobs"))?;
        let running = records.iter().filter(|record| record.state() == JobState::Running);
        Ok(running.filter_map(|record| record.end).min())
    }

    /// Refuses what could never start. A cluster that does not tell what it has is asked by the submission itself.
    fn refuse_hopeless(&self, job: &SlurmJob) -> Result<(), BackendError> {
        let findings = self.lint(job).unwrap_or_default();
        let errors: Vec<String> = findings
            .into_iter()
            .filter(|lint| lint.error)
            .map(|lint| lint.words)
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(unfit(errors.join("; ")))
        }
    }

    /// Tries until Slurm has the job or refuses it.
    fn submit_once(&self, manifest: &SlurmManifest) -> Result<JobRef, Trouble> {
        let mut waits = self.retries.iter();
        loop {
            let trouble = match self.door.submit(&manifest.text) {
                Ok(id) => return Ok(job_ref(id)),
                Err(trouble @ (Trouble::Denied(_) | Trouble::Refused(_))) => return Err(trouble),
                Err(trouble) => trouble,
            };
            let mut may_be_there = matches!(trouble, Trouble::Lost(_));
            loop {
                let wait = waits.next();
                std::thread::sleep(wait.copied().unwrap_or_default());
                if may_be_there {
                    match self.look(&manifest.job.comment) {
                        Ok(Some(job)) => return Ok(job),
                        Ok(None) => may_be_there = false,
                        // Old versions lose the answer to a submission whose token has ended.
                        Err(denied @ Trouble::Denied(_)) => return Err(denied),
                        Err(_) => {} // Still not known: look again before anything is submitted.
                    }
                }
                match (wait, may_be_there) {
                    (None, _) => return Err(trouble),
                    (Some(_), true) => {}
                    (Some(_), false) => break,
                }
            }
        }
    }
}

fn report(records: &[JobRecord]) -> JobReport {
    let Some(record) = speaks_for(records) else {
        return JobReport::of(JobState::Unknown);
    };
    let state = record.state();
    let mut nodes: Vec<&str> = records
        .iter()
        .filter(|r| r.state() == state)
        .map(|r| r.nodes.as_str())
        .collect();
    nodes.retain(|list| !list.is_empty());
    nodes.sort_unstable();
    nodes.dedup();
    JobReport {
        state,
        word: record.word().to_owned(),
        reason: why::sentence(record),
        nodes: nodes.join(","),
    }
}

impl Backend for Slurm {
    type Manifest = SlurmManifest;

    fn name(&self) -> &'static str {
        NAME
    }

    fn render(&self, request: &LaunchRequest) -> Result<SlurmManifest, BackendError> {
        self.render_with(request, &self.options)
    }

    fn submit(&self, manifest: &SlurmManifest) -> Result<JobRef, BackendError> {
        self.refuse_hopeless(&manifest.job)?;
        self.submit_once(manifest).map_err(|trouble| trouble.error("submit"))
    }

    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        let ids: Vec<u64> = jobs.iter().filter_map(job::number).collect();
        let mut records = Vec::new();
        if !ids.is_empty() {
            records = self.door.jobs(&ids).map_err(|trouble| trouble.error("observe jobs"))?;
            let gone = |id: &u64| !records.iter().any(|record| record.is_of(*id));
            let vanished: Vec<u64> = ids.iter().copied().filter(gone).collect();
            if !vanished.is_empty() {
                records.extend(self.door.accounted(&vanished));
            }
        }
        let of = |job: &JobRef| match job::number(job) {
            Some(id) => report(
                &records
                    .iter()
                    .filter(|record| record.is_of(id))
                    .cloned()
                    .collect::<Vec<_>>(),
            ),
            None => JobReport::of(JobState::Unknown),
        };
        Ok(jobs.iter().map(of).collect())
    }

    fn cancel(&self, job: &JobRef) -> Result<(), BackendError> {
        let Some(id) = job::number(job) else {
            return Ok(()); // Never was a job, so it is over.
        };
        self.door.cancel(id).map_err(|trouble| trouble.error("cancel"))
    }
}
