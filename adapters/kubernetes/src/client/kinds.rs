//! The kinds of objects that the client speaks of, and where each flavour keeps what. Owns groups, versions, plurals and the labels
//! by which the pods of a job are found; makes no call.

use crate::Flavor;

/// A kind of object and its place in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Kind {
    /// The group; empty for the core.
    pub group: &'static str,
    /// The version that is spoken.
    pub version: &'static str,
    /// The name in paths.
    pub plural: &'static str,
    /// The name in objects.
    pub kind: &'static str,
}

const fn kind(group: &'static str, version: &'static str, plural: &'static str, kind: &'static str) -> Kind {
    Kind {
        group,
        version,
        plural,
        kind,
    }
}

pub(crate) const POD: Kind = kind("", "v1", "pods", "Pod");
pub(crate) const EVENT: Kind = kind("", "v1", "events", "Event");
pub(crate) const SERVICE: Kind = kind("", "v1", "services", "Service");
pub(crate) const SECRET: Kind = kind("", "v1", "secrets", "Secret");
pub(crate) const POD_GROUP: Kind = kind("scheduling.volcano.sh", "v1beta1", "podgroups", "PodGroup");
pub(crate) const QUEUE: Kind = kind("scheduling.volcano.sh", "v1beta1", "queues", "Queue");
pub(crate) const COMMAND: Kind = kind("bus.volcano.sh", "v1alpha1", "commands", "Command");
pub(crate) const WORKLOAD: Kind = kind("kueue.x-k8s.io", "v1beta2", "workloads", "Workload");
pub(crate) const LOCAL_QUEUE: Kind = kind("kueue.x-k8s.io", "v1beta2", "localqueues", "LocalQueue");
pub(crate) const ACCESS_REVIEW: Kind = kind(
    "authorization.k8s.io",
    "v1",
    "selfsubjectaccessreviews",
    "SelfSubjectAccessReview",
);
pub(crate) const RULES_REVIEW: Kind = kind(
    "authorization.k8s.io",
    "v1",
    "selfsubjectrulesreviews",
    "SelfSubjectRulesReview",
);

impl Kind {
    /// As `apiVersion` says it.
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path of the collection; of the whole cluster where no namespace is given.
    pub(crate) fn path(&self, namespace: Option<&str>) -> String {
        let root = if self.group.is_empty() { "/api" } else { "/apis" };
        let version = self.api_version();
        match namespace {
            Some(namespace) => format!("{root}/{version}/namespaces/{namespace}/{}", self.plural),
            None => format!("{root}/{version}/{}", self.plural),
        }
    }

    /// As people and kubectl say it.
    pub(crate) fn words(&self) -> String {
        if self.group.is_empty() {
            self.plural.to_owned()
        } else {
            format!("{}.{}", self.plural, self.group)
        }
    }
}

/// The label under which Kueue finds the queue of an object.
pub(crate) const KUEUE_QUEUE: &str = "kueue.x-k8s.io/queue-name";
/// The label that all our objects carry, with its value.
pub(crate) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "bridgehead");
/// The annotation of the top object with the hash of its manifest.
pub(crate) const HASH: &str = "bridgehead.dev/hash";

/// What is looked for by `MANAGED_BY`.
pub(crate) fn ours() -> String {
    format!("{}={}", MANAGED_BY.0, MANAGED_BY.1)
}

/// All flavours, in the order in which they are taken where nobody asks for one. Code Engine is taken by name only: its API
/// tells nothing that a plain cluster could not have.
pub(crate) const FLAVORS: [Flavor; 5] = [
    Flavor::Volcano,
    Flavor::Kueue,
    Flavor::AppWrapper,
    Flavor::IndexedJob,
    Flavor::CodeEngine,
];

/// The name of a flavour, as users write it.
pub(crate) const fn word(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Volcano => "volcano",
        Flavor::Kueue => "kueue",
        Flavor::AppWrapper => "appwrapper",
        Flavor::IndexedJob => "indexed-job",
        Flavor::CodeEngine => "code-engine",
    }
}

/// The kind of the top object.
pub(crate) const fn job_kind(flavor: Flavor) -> Kind {
    match flavor {
        Flavor::Volcano => kind("batch.volcano.sh", "v1alpha1", "jobs", "Job"),
        Flavor::Kueue => kind("jobset.x-k8s.io", "v1alpha2", "jobsets", "JobSet"),
        Flavor::AppWrapper => kind("workload.codeflare.dev", "v1beta2", "appwrappers", "AppWrapper"),
        Flavor::IndexedJob => kind("batch", "v1", "jobs", "Job"),
        Flavor::CodeEngine => kind("codeengine.cloud.ibm.com", "v1beta1", "jobruns", "JobRun"),
    }
}

/// The label of a job's pods whose value is the job's name.
pub(crate) const fn job_label(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Volcano => "volcano.sh/job-name",
        Flavor::Kueue => "jobset.sigs.k8s.io/jobset-name",
        Flavor::AppWrapper => "workload.codeflare.dev/appwrapper",
        Flavor::IndexedJob => "batch.kubernetes.io/job-name",
        Flavor::CodeEngine => "codeengine.cloud.ibm.com/job-run",
    }
}

/// The label of a pod with its index within its group.
pub(crate) const fn index_label(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::Volcano => "volcano.sh/task-index",
        Flavor::CodeEngine => "codeengine.cloud.ibm.com/job-index",
        _ => "batch.kubernetes.io/job-completion-index",
    }
}

/// The label of a pod with the name of its group, where the flavour has groups.
pub(crate) const fn group_label(flavor: Flavor) -> Option<&'static str> {
    match flavor {
        Flavor::Volcano => Some("volcano.sh/task-spec"),
        Flavor::Kueue => Some("jobset.sigs.k8s.io/replicatedjob-name"),
        _ => None,
    }
}
