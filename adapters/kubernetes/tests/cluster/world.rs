//! The cluster that the tests run against and the small jobs that they make of it. Owns the clean-up: a job that a failed test left is
//! deleted by the administrator.

use bridgehead_backend::{JobRef, JobState};
use bridgehead_kubernetes::{Flavor, Kubernetes, KubernetesOptions, Manifest, SecretData};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The cluster, by its ordinary user, and by its administrator for what that user may not see.
pub struct World {
    pub user: Kubernetes,
    state: PathBuf,
}

fn options(kubeconfig: PathBuf) -> KubernetesOptions {
    KubernetesOptions {
        kubeconfig: Some(kubeconfig),
        ..KubernetesOptions::default()
    }
}

/// The flavours that the cluster is tested with.
pub fn flavors() -> [Flavor; 4] {
    [Flavor::Volcano, Flavor::Kueue, Flavor::AppWrapper, Flavor::IndexedJob]
}

/// The same user by a connection of its own.
pub fn fresh(world: &World) -> Kubernetes {
    Kubernetes::connect(&options(world.state.join("user.kubeconfig"))).unwrap()
}

/// Waits until `done`; what is not done in time is named.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(200));
    }
}

impl World {
    /// The cluster; none where no kubeconfig is named.
    pub fn find() -> Option<Self> {
        let Some(file) = std::env::var_os("BRIDGEHEAD_TEST_KUBECONFIG").map(PathBuf::from) else {
            println!("skipped: BRIDGEHEAD_TEST_KUBECONFIG names no kubeconfig of a test cluster's ordinary user");
            return None;
        };
        let state = file.parent().unwrap().to_owned();
        let user = Kubernetes::connect(&options(file)).unwrap();
        Some(Self { user, state })
    }

    /// Another user of the cluster, by the name of the kubeconfig.
    pub fn of(user: &str) -> Option<Kubernetes> {
        let file = PathBuf::from(std::env::var_os("BRIDGEHEAD_TEST_KUBECONFIG")?);
        let other = file.with_file_name(format!("{user}.kubeconfig"));
        Some(Kubernetes::connect(&options(other)).unwrap())
    }

    fn kubectl(&self, args: &[&str]) -> Command {
        let env = std::fs::read_to_string(self.state.join("env.sh")).unwrap();
        let path = env.lines().find_map(|line| line.strip_prefix("export PATH=")).unwrap();
        let mut command = Command::new(format!("{}/kubectl", path.split(':').next().unwrap()));
        let kubeconfig = self.state.join("kubeconfig");
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .args(["-n", "hpc"])
            .args(args);
        command
    }

    /// What kubectl prints for the administrator.
    pub fn admin(&self, args: &[&str]) -> String {
        let out = self.kubectl(args).output().unwrap();
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    }

    /// Makes an object as the administrator.
    pub fn apply(&self, object: &Value) {
        let mut command = self.kubectl(&["apply", "--server-side", "-f", "-"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(object.to_string().as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "{object}");
    }

    /// Closes a queue of Volcano, as its own command line does: by a command to it.
    pub fn close_queue(&self, name: &str) {
        let state = || {
            self.admin(&[
                "get",
                "queues.scheduling.volcano.sh",
                name,
                "-o",
                "jsonpath={.status.state}",
            ])
        };
        until("the queue is open", || state() == "Open" || state() == "Closed");
        let uid = self.admin(&[
            "get",
            "queues.scheduling.volcano.sh",
            name,
            "-o",
            "jsonpath={.metadata.uid}",
        ]);
        let target = json!({"apiVersion": "scheduling.volcano.sh/v1beta1", "kind": "Queue", "name": name, "uid": uid});
        let command = json!({"apiVersion": "bus.volcano.sh/v1alpha1", "kind": "Command",
            "metadata": {"name": format!("close-{name}"), "namespace": "hpc", "ownerReferences": [target]},
            "action": "CloseQueue", "target": target});
        self.apply(&command);
        until("the queue is closed", || state() == "Closed");
    }

    /// A LocalQueue `team` with a little quota.
    pub fn kueue_queue(&self) {
        let (version, flavor) = ("kueue.x-k8s.io/v1beta2", "test");
        self.apply(&json!({"apiVersion": version, "kind": "ResourceFlavor", "metadata": {"name": flavor}}));
        let quota = |name: &str, quota: &str| json!({"name": name, "nominalQuota": quota});
        let flavors = json!([{"name": flavor, "resources": [quota("cpu", "2"), quota("memory", "2Gi")]}]);
        self.apply(&json!({"apiVersion": version, "kind": "ClusterQueue", "metadata": {"name": "test"},
            "spec": {"namespaceSelector": {}, "resourceGroups": [{"coveredResources": ["cpu", "memory"], "flavors": flavors}]}}));
        self.apply(
            &json!({"apiVersion": version, "kind": "LocalQueue", "metadata": {"name": "team", "namespace": "hpc"},
            "spec": {"clusterQueue": "test"}}),
        );
    }
}

/// A small job and the cluster that it is for.
pub struct Job<'a> {
    world: &'a World,
    pub manifest: Manifest,
    pub data: SecretData,
}

fn labels() -> Value {
    json!({"app.kubernetes.io/managed-by": "bridgehead"})
}

/// A pod that ends at once when it is told to.
fn pod() -> Value {
    let resources = json!({"cpu": "10m", "memory": "64Mi"});
    json!({
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 2,
        "automountServiceAccountToken": false,
        "containers": [{"name": "agent", "image": "localhost/test-base:1", "command": ["sleep", "600"],
            "resources": {"requests": resources, "limits": resources}}],
    })
}

fn indexed(metadata: Value, nodes: u32) -> Value {
    json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": {
        "completions": nodes, "parallelism": nodes, "completionMode": "Indexed", "backoffLimit": 0,
        "template": {"metadata": {"labels": labels()}, "spec": pod()}}})
}

fn job_object(flavor: Flavor, name: &str, nodes: u32) -> Value {
    let metadata = json!({"name": name, "namespace": "hpc", "labels": labels(),
        "annotations": {"bridgehead.dev/hash": "one"}});
    match flavor {
        Flavor::Volcano => {
            json!({"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "metadata": metadata, "spec": {
            "schedulerName": "volcano", "queue": "default", "minAvailable": nodes, "maxRetry": 10,
            "policies": [{"event": "PodFailed", "action": "TerminateJob"}],
            "tasks": [{"name": "agents", "replicas": nodes, "template": {"metadata": {"labels": labels()}, "spec": pod()}}]}})
        }
        Flavor::Kueue => {
            let mut job = indexed(json!({}), nodes);
            let template = json!({"metadata": {"labels": labels()}, "spec": job["spec"].take()});
            json!({"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": metadata, "spec": {
                "replicatedJobs": [{"name": "agents", "replicas": 1, "template": template}]}})
        }
        Flavor::AppWrapper => {
            let part = indexed(json!({"name": name, "namespace": "hpc", "labels": labels()}), nodes);
            json!({"apiVersion": "workload.codeflare.dev/v1beta2", "kind": "AppWrapper", "metadata": metadata, "spec": {
                "components": [{"template": part, "podSets": [{"replicas": nodes, "path": "template.spec.template"}]}]}})
        }
        _ => indexed(metadata, nodes),
    }
}

impl<'a> Job<'a> {
    /// A gang of that many pods that sleep, with a Service and a Secret.
    pub fn sleeping(world: &'a World, flavor: Flavor, word: &str, nodes: u32) -> Self {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let next = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("t-{word}-{}-{next}", std::process::id());
        let side = |kind: &str, name: &str, rest: Value| {
            let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "hpc", "labels": labels()}});
            object
                .as_object_mut()
                .unwrap()
                .extend(rest.as_object().unwrap().clone());
            object
        };
        let secret = format!("{name}-run");
        let mut data = SecretData::default();
        data.0
            .entry(secret.clone())
            .or_default()
            .insert("ticket".to_owned(), b"secret".to_vec());
        let job = job_object(flavor, &name, nodes);
        let ports = json!({"spec": {"selector": {"none": "such"}, "ports": [{"port": 7641}]}});
        for piece in 0..2 {
            let file = (format!("part-00{piece}"), vec![piece; 1000]);
            data.0.insert(format!("{name}-code-{piece}"), [file].into());
        }
        Self {
            world,
            manifest: Manifest {
                flavor,
                namespace: "hpc".to_owned(),
                hash: "one".to_owned(),
                text: job.to_string(),
                side: vec![
                    side("Service", &name, ports),
                    side("Secret", &secret, json!({"type": "Opaque"})),
                    side(
                        "Secret",
                        &format!("{name}-code-0"),
                        json!({"type": "Opaque", "immutable": true}),
                    ),
                    side(
                        "Secret",
                        &format!("{name}-code-1"),
                        json!({"type": "Opaque", "immutable": true}),
                    ),
                ],
                job,
                name,
            },
            data,
        }
    }

    /// The container of the first group.
    pub fn container(&mut self) -> &mut Value {
        let spec = &mut self.manifest.job["spec"];
        let template = match self.manifest.flavor {
            Flavor::Volcano => &mut spec["tasks"][0]["template"],
            Flavor::Kueue => &mut spec["replicatedJobs"][0]["template"]["spec"]["template"],
            Flavor::AppWrapper => &mut spec["components"][0]["template"]["spec"]["template"],
            _ => &mut spec["template"],
        };
        &mut template["spec"]["containers"][0]
    }

    /// Asks for that much of a resource.
    pub fn ask(&mut self, resource: &str, quantity: &str) {
        for of in ["requests", "limits"] {
            self.container()["resources"][of][resource] = quantity.into();
        }
    }

    /// Runs a shell's text in place of sleeping.
    pub fn run(&mut self, text: &str) {
        self.container()["command"] = json!(["bash", "-c", text]);
    }

    /// The selector of its pods.
    pub fn pods(&self) -> String {
        let label = match self.manifest.flavor {
            Flavor::Volcano => "volcano.sh/job-name",
            Flavor::Kueue => "jobset.sigs.k8s.io/jobset-name",
            Flavor::AppWrapper => "workload.codeflare.dev/appwrapper",
            _ => "batch.kubernetes.io/job-name",
        };
        format!("{label}={}", self.manifest.name)
    }

    pub fn submit(&self) -> JobRef {
        self.world
            .user
            .submit(&self.manifest, &self.data)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn await_state(&self, job: &JobRef, state: JobState) {
        let mut last = None;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let report = self.world.user.observe(std::slice::from_ref(job)).unwrap().remove(0);
            if report.state == state {
                return;
            }
            last = Some(report);
            std::thread::sleep(Duration::from_millis(200)); // Between two looks.
        }
        panic!("{} is not {state:?}: {last:?}", self.manifest.name);
    }

    pub fn cancel(&self, job: &JobRef) {
        self.world.user.cancel(job).unwrap_or_else(|error| panic!("{error}"));
        self.assert_nothing_left();
    }

    /// Neither the job nor anything that was made for it is there.
    pub fn assert_nothing_left(&self) {
        let kinds = "jobs.batch.volcano.sh,jobs.batch,jobsets.jobset.x-k8s.io,appwrappers.workload.codeflare.dev,pods,services,secrets";
        let left = self.world.admin(&["get", kinds, "-o", "name"]);
        let left: Vec<&str> = left.lines().filter(|line| line.contains(&self.manifest.name)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for Job<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let kind = match self.manifest.flavor {
                Flavor::Volcano => "jobs.batch.volcano.sh",
                Flavor::Kueue => "jobsets.jobset.x-k8s.io",
                Flavor::AppWrapper => "appwrappers.workload.codeflare.dev",
                _ => "jobs.batch",
            };
            let name = &self.manifest.name;
            for (kind, name) in [
                (kind, name.clone()),
                ("service", name.clone()),
                ("secret", format!("{name}-run")),
            ] {
                let mut command = self
                    .world
                    .kubectl(&["delete", kind, &name, "--ignore-not-found", "--wait=false"]);
                let _ = command.status(); // The test has failed already.
            }
        }
    }
}
