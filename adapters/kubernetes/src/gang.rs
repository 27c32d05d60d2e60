//! One gang in words of no scheduler: groups of equal ranks, what a pod has, when the gang is started again and when it is not. Owns what a
//! launch request and the options come to; writes no object.

use crate::check::Checked;
use crate::words::{gang_name, is_label, is_variable, run_label};
use crate::{Flavor, KubernetesOptions, NAME, OptionError, pod};
use bridgehead_backend::{BackendError, LaunchRequest};
use serde_json::Value;
use std::collections::BTreeMap;

/// The user of pods where nothing is said: the one that small images call `nonroot`.
pub(crate) const USER: i64 = 65532;
/// Pieces of a bundle at most: their names have three digits.
const MOST_PARTS: u32 = 1000;
/// Bytes of one variable at most.
const MOST_VARIABLE: usize = 32 << 10;
/// A hint for rendering in a request's variables: how many Secrets carry the bundle.
const PARTS: &str = "BRIDGEHEAD_BUNDLE_PARTS";

/// What the cluster is, as far as it changes what is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// It is OpenShift, which gives every pod a user id of its own and refuses others.
    pub openshift: bool,
}

/// Equal ranks: pods of one template, next to each other in the order of ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// `head` or `agents`.
    pub name: &'static str,
    /// The rank of its first pod.
    pub first_rank: u32,
    /// Pods.
    pub replicas: u32,
    /// Whether they have the claim that keeps the run folder.
    pub mounts_volume: bool,
}

/// Nodes within which the pods are to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology {
    /// The label whose values are to be equal.
    pub label: String,
    /// Whether that is a must.
    pub required: bool,
}

/// What one pod has; requests and limits are the same.
#[derive(Debug, Clone, PartialEq)]
pub struct PodShape {
    /// The image.
    pub image: String,
    /// When it is pulled.
    pub pull_policy: String,
    /// Secrets with credentials for its registry.
    pub pull_secrets: Vec<String>,
    /// Cores.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory: u64,
    /// Most bytes of `/dev/shm`, part of the memory.
    pub shm: u64,
    /// GPUs.
    pub gpus: u32,
    /// All resources besides cores and memory, GPUs among them, by their names.
    pub resources: BTreeMap<String, u64>,
    /// The Python interpreter in the image; the agent's own choice where there is none.
    pub python: Option<String>,
    /// Variables of the user and of the request. None is a secret.
    pub env: BTreeMap<String, String>,
    /// Annotations of the user.
    pub annotations: BTreeMap<String, String>,
    /// Labels that nodes must have.
    pub node_selector: BTreeMap<String, String>,
    /// Tolerations, as in a pod's spec.
    pub tolerations: Vec<Value>,
    /// The user id; `None` leaves it to the cluster.
    pub user: Option<i64>,
    /// The group id; `None` leaves it to the cluster.
    pub group: Option<i64>,
    /// The group of files of volumes.
    pub fs_group: Option<i64>,
    /// Whether it may lock memory, which the restricted profile does not allow.
    pub rdma: bool,
    /// Merged into its spec last.
    pub patch: Value,
}

/// One gang: all of its pods or none.
#[derive(Debug, Clone, PartialEq)]
pub struct Gang {
    /// The name of the top object and the beginning of all others': a DNS label.
    pub name: String,
    /// The namespace of all objects.
    pub namespace: String,
    /// The run's id.
    pub run: String,
    /// Which launch of the run it is.
    pub launch: u32,
    /// What names the launch at every scheduler, `RUN/LAUNCH`.
    pub key: String,
    /// Labels of all objects.
    pub labels: BTreeMap<String, String>,
    /// Pods, one agent each.
    pub nodes: u32,
    /// Pods without which none is started: all.
    pub minimum: u32,
    /// How often the gang is started again after it lost a pod.
    pub restarts: u32,
    /// Exit codes after which it is not started again.
    pub final_exits: Vec<i32>,
    /// The queue; the scheduler's usual one where there is none.
    pub queue: Option<String>,
    /// The priority class of the pods.
    pub priority: Option<String>,
    /// Where the pods are to be.
    pub topology: Option<Topology>,
    /// The time limit in seconds.
    pub time_limit_s: Option<u64>,
    /// Seconds for which the ended job is kept.
    pub ttl_s: u64,
    /// Seconds for which the head's pod waits for its results to be fetched; 0 with a volume.
    pub keep_s: u64,
    /// The claim that keeps the run folder.
    pub volume: Option<String>,
    /// Secrets that carry the bundle; 0 where it is uploaded.
    pub code_parts: u32,
    /// What each pod has.
    pub pod: PodShape,
}

impl Gang {
    /// The gang of a request. Pure: the same for the same request, options and surroundings.
    ///
    /// # Errors
    /// What cannot be met, with the way out.
    pub fn new(
        request: &LaunchRequest,
        options: &KubernetesOptions,
        namespace: &str,
        surroundings: &Surroundings,
    ) -> Result<Self, BackendError> {
        let checked = options.check().map_err(|OptionError(reason)| unfit_error(reason))?;
        check_request(request, options, namespace)?;
        let (env, code_parts) = variables(request, options)?;
        let topology = options.topology.clone().map(|label| Topology {
            label,
            required: options.topology_required.unwrap_or(false),
        });
        Ok(Self {
            name: gang_name(&request.run, request.launch),
            namespace: namespace.to_owned(),
            run: request.run.to_string(),
            launch: request.launch,
            key: request.key(),
            labels: labels(request, options),
            nodes: request.agents,
            minimum: request.agents,
            restarts: checked.restarts,
            final_exits: pod::FINAL_EXITS.to_vec(),
            queue: options.queue.clone(),
            priority: options.priority.clone(),
            topology,
            time_limit_s: checked.time_s,
            ttl_s: checked.ttl_s,
            keep_s: if options.volume.is_some() { 0 } else { checked.keep_s },
            volume: options.volume.clone(),
            code_parts,
            pod: shape(options, &checked, surroundings, env)?,
        })
    }

    /// Where the user's files lie in the pods, if they are to lie where they do on the user's machine.
    #[must_use]
    pub fn project(&self) -> Option<&str> {
        self.pod.env.get(pod::PROJECT).map(String::as_str)
    }

    /// The groups of equal ranks as `flavor` has them: the head apart where it alone has the volume, if the flavour can have two.
    #[must_use]
    pub fn groups(&self, flavor: Flavor) -> Vec<Group> {
        let two = matches!(flavor, Flavor::Volcano | Flavor::Kueue);
        let group = |name, first_rank, replicas, mounts_volume| Group {
            name,
            first_rank,
            replicas,
            mounts_volume,
        };
        match &self.volume {
            Some(_) if two && self.nodes > 1 => {
                vec![group("head", 0, 1, true), group("agents", 1, self.nodes - 1, false)]
            }
            Some(_) if two => vec![group("head", 0, 1, true)],
            volume => vec![group("agents", 0, self.nodes, volume.is_some())],
        }
    }
}

/// A request that cannot be met, as the port says it.
pub(crate) fn unfit_error(reason: impl Into<String>) -> BackendError {
    BackendError::Unfit {
        backend: NAME,
        reason: reason.into(),
    }
}

pub(crate) fn unfit<T>(reason: impl Into<String>) -> Result<T, BackendError> {
    Err(unfit_error(reason))
}

fn check_request(request: &LaunchRequest, options: &KubernetesOptions, namespace: &str) -> Result<(), BackendError> {
    if request.agents == 0 {
        return unfit("a gang has at least one agent: ask for --nodes 1 or more");
    }
    if let Some(asked) = options.nodes.filter(|&asked| asked != request.agents) {
        return unfit(format!(
            "{asked} nodes are not the {} agents of the plan",
            request.agents
        ));
    }
    if !is_label(namespace) {
        return unfit(format!("{namespace:?} is no name of a namespace: give --namespace"));
    }
    if !request.after.is_empty() {
        return unfit("no job of Kubernetes can wait for another's end: submit this one when those before it are over");
    }
    Ok(())
}

fn labels(request: &LaunchRequest, options: &KubernetesOptions) -> BTreeMap<String, String> {
    let mut labels = options.labels.clone();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "bridgehead".to_owned());
    labels.insert("bridgehead.dev/run".to_owned(), run_label(&request.run));
    labels.insert("bridgehead.dev/launch".to_owned(), request.launch.to_string());
    labels
}

/// The variables of user and request, and how many Secrets carry the bundle.
fn variables(
    request: &LaunchRequest,
    options: &KubernetesOptions,
) -> Result<(BTreeMap<String, String>, u32), BackendError> {
    let mut env = options.env.clone();
    env.extend(request.env.clone());
    let parts = match env.remove(PARTS) {
        None => 0,
        Some(text) => match text.parse() {
            Ok(parts) if parts <= MOST_PARTS => parts,
            _ => {
                return unfit(format!(
                    "{PARTS}={text} is no number from 0 to {MOST_PARTS}: upload the bundle instead"
                ));
            }
        },
    };
    for (name, value) in &env {
        if !is_variable(name) {
            return unfit(format!("{name:?} is no name of a variable"));
        }
        if value.len() > MOST_VARIABLE || value.contains('\0') {
            return unfit(format!(
                "the value of {name} is over 32 KiB or holds a zero byte: put it in a file"
            ));
        }
    }
    Ok((env, parts))
}

fn shape(
    options: &KubernetesOptions,
    checked: &Checked,
    surroundings: &Surroundings,
    env: BTreeMap<String, String>,
) -> Result<PodShape, BackendError> {
    let Some(image) = options.image.clone() else {
        return unfit(
            "no image is named: give --image (a target's option `image`) one that has bridgehead and your packages; \
             deploy/kubernetes has the recipe of such an image",
        );
    };
    let mut resources = options.resources.clone();
    if let Some(gpus) = options.gpus {
        resources.insert(options.gpu_resource().to_owned(), u64::from(gpus));
    }
    let own = !surroundings.openshift;
    Ok(PodShape {
        image,
        pull_policy: options.pull_policy.clone().unwrap_or_else(|| "IfNotPresent".to_owned()),
        pull_secrets: options.pull_secrets.clone(),
        cpus: checked.cpus,
        memory: checked.memory,
        shm: checked.shm,
        gpus: options.gpus.unwrap_or(0),
        resources,
        python: options.python.clone(),
        env,
        annotations: options.annotations.clone(),
        node_selector: options.node_selector.clone(),
        tolerations: options.tolerations.clone(),
        user: options.run_as_user.or_else(|| own.then_some(USER)),
        group: own.then_some(0),
        fs_group: options.fs_group,
        rdma: options.rdma.unwrap_or(false),
        patch: options.pod.clone(),
    })
}
