//! Kubernetes as a target: what its jobs carry along, since its nodes share no file system with this machine, and what `doctor`
//! says of it.

use super::{FarScheduler, Rendered, Scheduler};
use crate::error::{CliError, USAGE};
use crate::{far, folder, secrets};
use bridgehead_backend::{BackendError, JobRef, JobReport, LaunchRequest};
use bridgehead_kubernetes::pod::PROJECT;
use bridgehead_kubernetes::{Flavor, Gang, Kubernetes, KubernetesOptions, Manifest, NAME, SecretData, Surroundings};
use bridgehead_plan::ClusterProfile;
use bridgehead_spec::{GroupSpec, RunConfig, RunFolder, TargetConfig};
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Bytes of a bundle in one Secret, which may have 1 MiB with all that is around them.
const PIECE: usize = 700 << 10;
/// Pieces that travel with the job; a larger bundle is carried to the head once it is up. They lie in the cluster's own store.
const PIECES: usize = 12;
/// What says to a pod that its bundle will be brought.
const BROUGHT: &str = "BRIDGEHEAD_BUNDLE";
/// What says to the renderer how many pieces there are.
const PARTS: &str = "BRIDGEHEAD_BUNDLE_PARTS";
/// What says to a pod that it is to lend the run folder and do nothing else.
pub(crate) const LEND: &str = "BRIDGEHEAD_LEND";

/// Kubernetes, if there is a way to it.
pub(super) fn open(target: &TargetConfig) -> Result<Box<dyn Scheduler>, CliError> {
    let options = KubernetesOptions::read(&target.options).map_err(|e| CliError::new(USAGE, e.to_string()))?;
    let kubernetes = connected(&options)?;
    Ok(Box::new(KubernetesTarget { options, kubernetes }))
}

/// What leads to another cluster, or to another door of it.
type Way = (Option<PathBuf>, Option<String>, Option<String>, Option<Flavor>);

/// The cluster of these options. A command opens its target several times, and to find the way asks the cluster for all that it
/// serves, a document of some hundred KiB: the way that was found is kept as long as the process lives.
fn connected(options: &KubernetesOptions) -> Result<Arc<Kubernetes>, BackendError> {
    static FOUND: Mutex<Vec<(Way, Arc<Kubernetes>)>> = Mutex::new(Vec::new());
    let way = (
        options.kubeconfig.clone(),
        options.context.clone(),
        options.namespace.clone(),
        options.flavor,
    );
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, kubernetes)) = found.iter().find(|(known, _)| *known == way) {
        return Ok(kubernetes.clone());
    }
    let kubernetes = Arc::new(Kubernetes::connect(options)?);
    found.push((way, kubernetes.clone()));
    Ok(kubernetes)
}

/// Kubernetes, with what the run asks of it.
struct KubernetesTarget {
    options: KubernetesOptions,
    kubernetes: Arc<Kubernetes>,
}

/// What a job carries along.
struct Luggage {
    /// Pieces of the bundle; none where it is brought later.
    pieces: Vec<Vec<u8>>,
    data: SecretData,
}

fn unfit(reason: impl Into<String>) -> BackendError {
    BackendError::Unfit {
        backend: NAME,
        reason: reason.into(),
    }
}

fn said(error: CliError) -> BackendError {
    BackendError::Refused {
        backend: NAME,
        doing: "prepare the run",
        reason: error.to_string(),
    }
}

impl KubernetesTarget {
    /// The objects of a gang, whose group may ask for other nodes than the run does. `parts` are the pieces of its bundle.
    fn manifest(
        &self,
        request: &LaunchRequest,
        group: Option<&GroupSpec>,
        parts: usize,
    ) -> Result<Manifest, BackendError> {
        let mut request = request.clone();
        if parts > 0 {
            request.env.insert(PARTS.to_owned(), parts.to_string());
        } else {
            request.env.insert(BROUGHT.to_owned(), "brought".to_owned());
        }
        let folder = RunFolder::new(&request.run_dir);
        // What is only planned has no folder yet, and shows the place that a run would have.
        let config = folder::config(&folder).ok();
        let flavor = self.kubernetes.flavor();
        let project = config.as_ref().and_then(project);
        // A job run of Code Engine mounts nothing but Secrets.
        if let Some(place) = project.filter(|path| flavor != Flavor::CodeEngine && is_mountable(path)) {
            request.env.insert(PROJECT.to_owned(), place.display().to_string());
        }
        let options = match group {
            None => self.options.clone(),
            Some(group) => self
                .options
                .for_group(group.nodes, group.gpus, group.partition.as_deref()),
        };
        self.render_gang(&request, &options, flavor)
    }

    fn render_gang(
        &self,
        request: &LaunchRequest,
        options: &KubernetesOptions,
        flavor: Flavor,
    ) -> Result<Manifest, BackendError> {
        let surroundings = Surroundings {
            openshift: self.kubernetes.is_openshift(),
        };
        let gang = Gang::new(request, options, self.kubernetes.namespace(), &surroundings)?;
        bridgehead_kubernetes::render(&gang, flavor)
    }

    /// Packs what the pods need. A bundle that is too large to travel with the job waits in the run folder.
    fn pack(&self, request: &LaunchRequest) -> Result<Luggage, BackendError> {
        let folder = RunFolder::new(&request.run_dir);
        let config = folder::config(&folder).map_err(said)?;
        if let Some(left) = config.project.as_deref().filter(|project| holds_much_else(project)) {
            crate::output::note(format!(
                "{} is not carried to the pods: modules and files beside the script are not seen there; \
                 move the script into a folder of its own",
                left.display()
            ));
        }
        let bundle = bridgehead_mirror::pack(&folder, project(&config).as_deref()).map_err(|e| unfit(e.to_string()))?;
        let mut pieces = bridgehead_mirror::split(&bundle, PIECE);
        if pieces.len() > PIECES {
            far::keep_bundle(&folder, request.launch, &bundle).map_err(said)?;
            pieces.clear();
        }
        let mut data = SecretData::default();
        let files = secrets::for_pods(&folder, &request.run, request.launch).map_err(said)?;
        data.0.insert("run".to_owned(), files);
        for (number, piece) in pieces.iter().enumerate() {
            let part = [(format!("part-{number:03}"), piece.clone())];
            data.0.insert(format!("code-{number}"), part.into());
        }
        Ok(Luggage { pieces, data })
    }
}

/// The folder of the user's code, unless it is one that holds much else: a home, or the root.
fn project(config: &RunConfig) -> Option<PathBuf> {
    config.project.clone().filter(|project| !holds_much_else(project))
}

fn holds_much_else(folder: &Path) -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    folder == Path::new("/") || home.as_deref() == Some(folder)
}

/// Folders of an image that a volume must not hide, with all below them.
const OF_IMAGES: [&str; 13] = [
    "/bin",
    "/boot",
    "/bridgehead",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
];

/// Whether the user's files can lie where they lie here: then what the code says of its own place is true in a pod as well.
fn is_mountable(path: &Path) -> bool {
    let plain = path.to_str().is_some_and(|text| !text.contains(':'));
    let deep = path.components().count() > 2; // `/opt` or `/home` as a whole may hold parts of the image.
    plain && deep && !OF_IMAGES.iter().any(|place| path.starts_with(place))
}

/// Secrets by the names that they have in a manifest.
fn named(manifest: &Manifest, data: SecretData) -> SecretData {
    let named = data
        .0
        .into_iter()
        .map(|(suffix, files)| (format!("{}-{suffix}", manifest.name), files));
    SecretData(named.collect())
}

impl Scheduler for KubernetesTarget {
    fn door(&self) -> (String, String) {
        self.kubernetes.door()
    }

    fn profile(&self) -> Result<ClusterProfile, BackendError> {
        self.kubernetes.profile(&self.options)
    }

    fn render(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<Rendered, BackendError> {
        let manifest = self.manifest(request, group, 1)?;
        let mut warnings = self.warnings();
        warnings.extend(self.kubernetes.check_rights()?);
        Ok(Rendered {
            text: manifest.text,
            warnings,
        })
    }

    fn find(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<Option<JobRef>, BackendError> {
        let luggage = self.pack(request)?;
        self.kubernetes
            .find(&self.manifest(request, group, luggage.pieces.len())?)
    }

    fn submit(&self, request: &LaunchRequest, group: Option<&GroupSpec>) -> Result<JobRef, BackendError> {
        self.kubernetes.check_rights()?; // What is only convenient to have, `plan` names.
        let luggage = self.pack(request)?;
        let manifest = self.manifest(request, group, luggage.pieces.len())?;
        let data = named(&manifest, luggage.data);
        self.kubernetes.submit(&manifest, &data)
    }

    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        self.kubernetes.observe(jobs)
    }

    fn cancel(&self, job: &JobRef) -> Result<(), BackendError> {
        self.kubernetes.cancel(job)
    }

    fn rechain(&self, _: &JobRef, _: &[JobRef]) -> Result<(), BackendError> {
        Err(unfit("jobs on Kubernetes do not wait for one another"))
    }

    fn end_of(&self, _: &JobRef) -> Result<Option<u64>, BackendError> {
        Ok(None) // The head counts by itself from its own start.
    }

    fn far(&self) -> Option<&dyn FarScheduler> {
        Some(self)
    }
}

impl FarScheduler for KubernetesTarget {
    fn warnings(&self) -> Vec<String> {
        let keep = self.options.keep.as_deref().unwrap_or("1h");
        let warning = format!(
            "there is no --volume: the run folder goes with the head's pod, so a gang that starts again begins anew, \
             and results have to be fetched within {keep} of the run's end"
        );
        self.options.volume.is_none().then_some(warning).into_iter().collect()
    }

    fn dial(&self, job: &JobRef) -> Result<UnixStream, BackendError> {
        self.kubernetes.forward(job, bridgehead_kubernetes::pod::PORT)
    }

    fn keeps_folder(&self) -> bool {
        self.options.volume.is_some()
    }

    fn suspend(&self, job: &JobRef) -> Result<(), BackendError> {
        self.kubernetes.suspend(job)
    }

    fn resume(&self, job: &JobRef) -> Result<(), BackendError> {
        self.kubernetes.resume(job)
    }

    fn submit_reader(&self, request: &LaunchRequest) -> Result<JobRef, BackendError> {
        let folder = RunFolder::new(&request.run_dir);
        let mut data = SecretData::default();
        let files = secrets::for_pods(&folder, &request.run, request.launch).map_err(said)?;
        data.0.insert("run".to_owned(), files);
        let mut request = LaunchRequest {
            agents: 1,
            ..request.clone()
        };
        request.env.insert(LEND.to_owned(), "folder".to_owned());
        // One small pod needs no gang scheduler, and none that may be behind with its queues.
        let manifest = self.render_gang(&request, &for_reader(&self.options), Flavor::IndexedJob)?;
        let data = named(&manifest, data);
        self.kubernetes.submit(&manifest, &data)
    }

    fn sweep(&self, request: &LaunchRequest) -> Result<Vec<String>, BackendError> {
        let manifest = self.manifest(request, None, PIECES)?;
        let names = manifest
            .side
            .iter()
            .filter_map(|side| side["metadata"]["name"].as_str());
        self.kubernetes.sweep(&names.map(str::to_owned).collect::<Vec<_>>())
    }

    fn logs(&self, job: &JobRef) -> Result<String, BackendError> {
        let logs = self.kubernetes.pod_logs(job, true)?;
        Ok(logs.into_iter().map(|log| log.text).collect())
    }
}

/// A pod that only lends the run's volume needs little, and what the run asks of nodes it does not.
fn for_reader(options: &KubernetesOptions) -> KubernetesOptions {
    KubernetesOptions {
        nodes: Some(1),
        cpus: Some(1),
        memory: Some("256MiB".to_owned()),
        gpus: None,
        resources: BTreeMap::new(),
        shm: None,
        time: None,
        topology: None,
        rdma: None,
        restarts: Some(0),
        queue: None,
        ..options.clone()
    }
}

/// The way to a cluster from here, in a line; why there is none, where there is none.
pub(crate) fn in_words() -> String {
    super::in_time(|| {
        let kubernetes = Kubernetes::connect(&KubernetesOptions::default()).map_err(|e| e.to_string())?;
        let (flavor, reason) = kubernetes.door();
        Ok(format!("{flavor} ({reason})"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_files_never_hide_a_part_of_the_image() {
        for (path, mountable) in [
            ("/home/ada/sweep", true),
            ("/tmp/x", true),
            ("/opt", false),
            ("/usr/local/work", false),
            ("/bridgehead/home", false),
            ("/home/a:b/c", false),
        ] {
            assert_eq!(is_mountable(Path::new(path)), mountable, "{path}");
        }
    }
}
