//! A way to a port of the gang's first pod, through the API server. Owns the choice of the pod and the two ends of a socket pair;
//! nothing listens anywhere, so nobody else can come in.

use super::connect::Cluster;
use super::ends::index;
use super::kinds::group_label;
use super::reference::JobName;
use super::trouble::{Trouble, refused};
use crate::NAME;
use bridgehead_backend::BackendError;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use serde_json::Value;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

const FORWARD: &str = "reach the first pod";
/// The group that the first pod is in, where there are several.
const HEAD: &str = "head";

/// Why the last forwarded connection broke, in words; shared with the tasks that carry them.
pub(crate) type Broken = Arc<Mutex<Option<String>>>;

/// Of the pods of a job those of rank 0, those that run first.
fn first_pods(job: &JobName, pods: &[Value]) -> Vec<Value> {
    let group = |pod: &Value| group_label(job.flavor).map(|label| pod["metadata"]["labels"][label] == HEAD);
    let has_head = pods.iter().any(|pod| group(pod) == Some(true));
    let first = |pod: &&Value| index(job.flavor, pod) == Some(0) && (!has_head || group(pod) == Some(true));
    let mut found: Vec<Value> = pods.iter().filter(first).cloned().collect();
    found.sort_by_key(|pod| !runs(pod));
    found
}

/// The pod runs and is not about to go.
fn runs(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running" && !pod["metadata"]["deletionTimestamp"].is_string()
}

impl Cluster {
    /// Opens a connection to that port of rank 0's pod; its bytes are carried by tasks of this runtime.
    pub(crate) async fn open_port(
        &self,
        job: &JobName,
        port: u16,
        broken: &Broken,
    ) -> Result<UnixStream, BackendError> {
        let pods = self.pods(job).await.map_err(|t| t.error(FORWARD))?;
        let pods = first_pods(job, &pods);
        let Some(pod) = pods.first() else {
            return Err(refused(
                FORWARD,
                format!("{} has no pod of rank 0 yet: it waits, or it is over", job.name),
            ));
        };
        let name = pod["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        if !runs(pod) {
            let phase = pod["status"]["phase"].as_str().unwrap_or("unknown");
            let going = if pod["metadata"]["deletionTimestamp"].is_string() {
                ", and going"
            } else {
                ""
            };
            return Err(refused(FORWARD, format!("pod {name} does not run ({phase}{going})")));
        }
        let api: Api<Pod> = Api::namespaced(self.calls.client.clone(), &job.namespace);
        let opened = tokio::time::timeout(super::calls::CALL, api.portforward(&name, &[port])).await;
        let late = |_| Trouble::Lost("the API server did not open the connection".to_owned());
        let opened = opened.map_err(late).and_then(|opened| opened.map_err(Trouble::from));
        let forwarder = match opened {
            Ok(forwarder) => forwarder,
            Err(trouble) if trouble.code() == Some(403) => {
                return Err(BackendError::Denied {
                    backend: NAME,
                    doing: FORWARD,
                    reason: format!(
                        "no right to create pods/portforward in namespace {}; see deploy/kubernetes/role.yaml",
                        job.namespace
                    ),
                });
            }
            Err(trouble) => return Err(trouble.error(FORWARD)),
        };
        let (ours, theirs) = UnixStream::pair().map_err(|e| refused(FORWARD, e.to_string()))?;
        carry(forwarder, port, ours, &name, broken.clone()).map_err(|e| refused(FORWARD, e.to_string()))?;
        Ok(theirs)
    }
}

/// Carries bytes both ways until one side ends. The server tells on a channel of its own why a port does not answer.
fn carry(
    mut forwarder: kube::api::Portforwarder,
    port: u16,
    ours: UnixStream,
    pod: &str,
    broken: Broken,
) -> std::io::Result<()> {
    ours.set_nonblocking(true)?;
    let mut ours = tokio::net::UnixStream::from_std(ours)?;
    let (Some(mut stream), Some(error)) = (forwarder.take_stream(port), forwarder.take_error(port)) else {
        return Err(std::io::Error::other("the server forwards another port"));
    };
    let place = format!("port {port} of pod {pod}");
    tokio::spawn(async move {
        let copied = tokio::select! {
            copied = tokio::io::copy_bidirectional(&mut ours, &mut stream) => copied.err().map(|e| e.to_string()),
            said = refusal(error) => Some(said),
        };
        drop(stream);
        let lost = forwarder.join().await.err().map(|e| e.to_string());
        if let (Some(words), Ok(mut slot)) = (copied.or(lost), broken.lock()) {
            *slot = Some(format!("{place}: {}", super::reasons::clean(&words, 300)));
        }
    });
    Ok(())
}

/// What the server says against a port. It says nothing where all is well, and then what came is still to be read.
async fn refusal(error: impl Future<Output = Option<String>>) -> String {
    match error.await {
        Some(said) => said,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flavor;
    use serde_json::json;

    #[test]
    fn the_first_pod_is_the_heads_where_there_is_one() {
        let job = JobName {
            flavor: Flavor::Volcano,
            namespace: "n".to_owned(),
            name: "j".to_owned(),
            uid: "u".to_owned(),
        };
        let pod = |name: &str, task: &str, index: &str, phase: &str| {
            json!({"metadata": {"name": name, "labels": {"volcano.sh/task-spec": task, "volcano.sh/task-index": index}},
                "status": {"phase": phase}})
        };
        let names = |pods: &[Value]| -> Vec<String> {
            first_pods(&job, pods)
                .iter()
                .map(|pod| pod["metadata"]["name"].as_str().unwrap().to_owned())
                .collect()
        };
        let one = [
            pod("a-1", "agents", "1", "Running"),
            pod("a-0", "agents", "0", "Running"),
        ];
        assert_eq!(names(&one), ["a-0"]);
        let two = [
            pod("a-0", "agents", "0", "Running"),
            pod("h-0", "head", "0", "Failed"),
            pod("h-0b", "head", "0", "Running"),
        ];
        assert_eq!(names(&two), ["h-0b", "h-0"]);
    }
}
