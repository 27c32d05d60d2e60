//! The backend: submits once and only once, observes many jobs with one list, tells why they wait, ends them, opens a way to the
//! gang's first pod. Owns the blocking facade over the client; each call waits for its answer, and none longer than a limit.

use crate::client::{Around, Broken, Cluster, Engine, JobName, LogLine, PodLog, Wish, refused, word};
use crate::{Flavor, KubernetesOptions, Manifest, NAME, SecretData};
use bridgehead_backend::{BackendError, JobRef, JobReport};
use bridgehead_plan::{ClusterProfile, NodeProfile};
use bridgehead_spec::{Resources, parse_memory};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// How long a connection may take, with a credential plug-in that asks a person to log in.
const CONNECT: Duration = Duration::from_secs(120);
/// How long an answer of several calls may take.
const ANSWER: Duration = Duration::from_secs(90);
/// How long a job may take to be handed over: one call for each part of a bundle.
const SUBMIT: Duration = Duration::from_secs(300);
/// Lines of logs that wait for a slow reader.
const LINES: usize = 1024;
/// Memory of a pod for each of its cores, where nothing is said.
const MEMORY_PER_CORE: u64 = 2 << 30;

/// A cluster of Kubernetes. Its methods wait for the answer and block the thread that calls them; forwarded connections go on in a
/// thread of its own for as long as the value lives.
#[derive(Debug)]
pub struct Kubernetes {
    cluster: Cluster,
    flavor: Flavor,
    reason: String,
    broken: Broken,
    engine: Engine,
}

/// The lines of a job's pods as they are printed; ends with the job. What breaks it is the last item.
#[derive(Debug)]
pub struct LogLines(tokio::sync::mpsc::Receiver<Result<LogLine, BackendError>>);

impl Iterator for LogLines {
    type Item = Result<LogLine, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.blocking_recv()
    }
}

fn unfit(reason: impl ToString) -> BackendError {
    BackendError::Unfit {
        backend: NAME,
        reason: reason.to_string(),
    }
}

impl Kubernetes {
    /// Finds the way to the cluster: a pod's service account where there is one and no kubeconfig is named, else the kubeconfig.
    /// Chooses the flavour by what the cluster has.
    ///
    /// # Errors
    /// There is no way, the cluster does not answer or does not accept who asks, or it lacks the flavour.
    pub fn connect(options: &KubernetesOptions) -> Result<Self, BackendError> {
        let engine = Engine::start()?;
        let asked = options.clone();
        let open = async move { Cluster::open(&asked, &Around::of_process()).await };
        let cluster = engine.wait("connect", CONNECT, open)?;
        let (flavor, reason) = cluster.features.choose(options.flavor)?;
        Ok(Self {
            cluster,
            flavor,
            reason,
            broken: Broken::default(),
            engine,
        })
    }

    /// The flavour that gangs become, and why, with the context and the namespace.
    #[must_use]
    pub fn door(&self) -> (String, String) {
        let reason = format!("{}; {}", self.reason, self.cluster.words());
        (word(self.flavor).to_owned(), reason)
    }

    /// Context, server and namespace.
    #[must_use]
    pub fn context_in_words(&self) -> String {
        self.cluster.words()
    }

    /// The flavour that gangs become.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        self.flavor
    }

    /// The flavour for other options: of a group, for instance.
    ///
    /// # Errors
    /// The cluster lacks it; the words name those that it has.
    pub fn choose(&self, asked: Option<Flavor>) -> Result<(Flavor, String), BackendError> {
        self.cluster.features.choose(asked)
    }

    /// The flavours that the cluster can do, the one that is taken first in front.
    #[must_use]
    pub fn flavors(&self) -> &[Flavor] {
        &self.cluster.features.flavors
    }

    /// The namespace of what is made.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.cluster.namespace
    }

    /// The cluster is OpenShift, which gives pods their user ids.
    #[must_use]
    pub fn is_openshift(&self) -> bool {
        self.cluster.features.openshift
    }

    /// Kueue queues jobs there that name a queue.
    #[must_use]
    pub fn has_kueue(&self) -> bool {
        self.cluster.features.kueue.is_some()
    }

    /// What there is to plan on: as many pods as are asked for, each with what is asked for. No node is looked at.
    ///
    /// # Errors
    /// The memory cannot be read.
    pub fn profile(&self, options: &KubernetesOptions) -> Result<ClusterProfile, BackendError> {
        profile(options)
    }

    /// Refuses where the user lacks a right that a gang needs; gives what is lost for want of others, as sentences.
    ///
    /// # Errors
    /// A right is missing, all of them named; or the cluster cannot be asked.
    pub fn check_rights(&self) -> Result<Vec<String>, BackendError> {
        let (cluster, flavor) = (self.cluster.clone(), self.flavor);
        let namespace = cluster.namespace.clone();
        self.ask("tell what you may do", ANSWER, async move {
            cluster.check_rights(flavor, &namespace).await
        })
    }

    /// Hands a manifest over, with the data of its Secrets. One whose job is there already is not made again.
    ///
    /// # Errors
    /// The cluster refused, and nothing was left behind; or it cannot be reached.
    pub fn submit(&self, manifest: &Manifest, data: &SecretData) -> Result<JobRef, BackendError> {
        let (cluster, manifest, data) = (self.cluster.clone(), manifest.clone(), data.clone());
        self.ask("submit", SUBMIT, async move { cluster.submit(&manifest, &data).await })
    }

    /// The job of this very manifest, in whatever state, if it is there.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub fn find(&self, manifest: &Manifest) -> Result<Option<JobRef>, BackendError> {
        let (cluster, manifest) = (self.cluster.clone(), manifest.clone());
        self.ask(
            "look for a job",
            ANSWER,
            async move { cluster.find_job(&manifest).await },
        )
    }

    /// Where jobs stand, in their order, with one list for each flavour and namespace.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        let (cluster, jobs) = (self.cluster.clone(), jobs.to_vec());
        self.ask("observe jobs", ANSWER, async move { cluster.reports(&jobs).await })
    }

    /// Why a job waits or how it ended, the most telling sentence first.
    ///
    /// # Errors
    /// The cluster cannot be asked.
    pub fn why(&self, job: &JobRef) -> Result<Vec<String>, BackendError> {
        let (cluster, job) = (self.cluster.clone(), job_name("tell why", job)?);
        self.ask("tell why", ANSWER, async move { cluster.why(&job).await })
    }

    /// Ends a job and waits until it, its pods and what belongs to it are gone. One that is not there is no error.
    ///
    /// # Errors
    /// The cluster refused, or a node holds a pod for longer than a minute.
    pub fn cancel(&self, job: &JobRef) -> Result<(), BackendError> {
        let Some(job) = JobName::read(job) else {
            return Ok(()); // Never was a job, so it is over.
        };
        let cluster = self.cluster.clone();
        self.ask("cancel", SUBMIT, async move { cluster.cancel_job(&job).await })
    }

    /// Has a job give back what it holds; [`Kubernetes::resume`] lets it go on.
    ///
    /// # Errors
    /// The job is over, or its scheduler does not act.
    pub fn suspend(&self, job: &JobRef) -> Result<(), BackendError> {
        self.pause(job, Wish::Suspend)
    }

    /// Lets a suspended job go on.
    ///
    /// # Errors
    /// The job is over, or its scheduler does not act.
    pub fn resume(&self, job: &JobRef) -> Result<(), BackendError> {
        self.pause(job, Wish::Resume)
    }

    fn pause(&self, job: &JobRef, wish: Wish) -> Result<(), BackendError> {
        let (cluster, job) = (self.cluster.clone(), job_name("suspend or resume", job)?);
        self.ask(
            "suspend or resume",
            ANSWER,
            async move { cluster.pause(&job, wish).await },
        )
    }

    /// Removes services and secrets whose job is not there: of these names, and where services may be listed, of all that are
    /// older than ten minutes. Gives what was removed, as `secrets/NAME`.
    ///
    /// # Errors
    /// The cluster cannot be asked, or refused.
    pub fn sweep(&self, names: &[String]) -> Result<Vec<String>, BackendError> {
        let (cluster, names) = (self.cluster.clone(), names.to_vec());
        self.ask("remove what jobs have left", SUBMIT, async move {
            cluster.sweep_names(&names).await
        })
    }

    /// A connection to a port of the pod of rank 0. Whether something listens there shows with the first bytes: the connection
    /// ends where nothing does, and [`Kubernetes::forward_broke`] tells. Ending one direction ends both.
    ///
    /// # Errors
    /// The pod does not run (`Refused`), the user lacks the right (`Denied`), or the connection cannot be made (`Unreachable`).
    pub fn forward(&self, job: &JobRef, port: u16) -> Result<UnixStream, BackendError> {
        let (cluster, broken) = (self.cluster.clone(), self.broken.clone());
        let job = job_name("reach the first pod", job)?;
        self.ask("reach the first pod", ANSWER, async move {
            cluster.open_port(&job, port, &broken).await
        })
    }

    /// Why the last forwarded connection broke that did, in words.
    #[must_use]
    pub fn forward_broke(&self) -> Option<String> {
        self.broken.lock().ok()?.clone()
    }

    /// What the pods of a job have printed that are there: rank 0 and those that failed, or all of them.
    ///
    /// # Errors
    /// The cluster cannot be asked, or the user lacks the right.
    pub fn pod_logs(&self, job: &JobRef, all: bool) -> Result<Vec<PodLog>, BackendError> {
        let (cluster, job) = (self.cluster.clone(), job_name("read logs", job)?);
        self.ask("read logs", SUBMIT, async move { cluster.logs(&job, all).await })
    }

    /// The same while the job runs, line by line. A pod that is started anew comes with another uid.
    ///
    /// # Errors
    /// `job` is no job of Kubernetes.
    pub fn follow_logs(&self, job: &JobRef, all: bool) -> Result<LogLines, BackendError> {
        let job = job_name("read logs", job)?;
        let (to, from) = tokio::sync::mpsc::channel(LINES);
        self.engine.handle().spawn(self.cluster.clone().follow(job, all, to));
        Ok(LogLines(from))
    }

    fn ask<T: Send + 'static>(
        &self,
        doing: &'static str,
        limit: Duration,
        work: impl Future<Output = Result<T, BackendError>> + Send + 'static,
    ) -> Result<T, BackendError> {
        self.engine.wait(doing, limit, work)
    }
}

fn job_name(doing: &'static str, job: &JobRef) -> Result<JobName, BackendError> {
    JobName::read(job).ok_or_else(|| refused(doing, format!("{:?} is no job of Kubernetes", job.0)))
}

fn profile(options: &KubernetesOptions) -> Result<ClusterProfile, BackendError> {
    let cpus = options.cpus.unwrap_or(1);
    let memory = match &options.memory {
        Some(text) => parse_memory(text).map_err(|e| unfit(format!("memory: {e}")))?,
        None => MEMORY_PER_CORE * u64::from(cpus),
    };
    let resources = Resources {
        cpu_millis: u64::from(cpus) * 1000,
        memory,
        gpus: options.gpus.unwrap_or(0),
        ..Resources::zero()
    };
    let node = |rank: u32| NodeProfile {
        name: format!("{NAME}-{rank}"),
        resources: resources.clone(),
        workers: cpus,
    };
    Ok(ClusterProfile {
        backend: NAME.to_owned(),
        nodes: (0..options.nodes.unwrap_or(1)).map(node).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_what_was_asked_for() {
        let options = KubernetesOptions {
            nodes: Some(3),
            cpus: Some(2),
            gpus: Some(1),
            ..KubernetesOptions::default()
        };
        let found = profile(&options).unwrap();
        assert_eq!((found.backend.as_str(), found.nodes.len()), ("kubernetes", 3));
        let node = &found.nodes[2];
        assert_eq!(
            (node.resources.memory, node.resources.gpus, node.workers),
            (4 << 30, 1, 2)
        );
        let bad = KubernetesOptions {
            memory: Some("lots".to_owned()),
            ..options
        };
        assert!(profile(&bad).unwrap_err().to_string().contains("lots"));
    }
}
