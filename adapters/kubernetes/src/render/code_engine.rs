//! A job run of IBM Cloud Code Engine (`codeengine.cloud.ibm.com/v1beta1`, `JobRun`): an array of equal pods. Owns its limits.
//!
//! Nothing of this has been run on the service: the object follows what its documents show of one. A pod has its index as `JOB_INDEX`; indices may
//! have gaps, so a rank is the place in the sorted list, which `BRIDGEHEAD_INDICES` has. There is no Service of ours and no name of a life: with several pods the head must be
//! reachable some other way, at the address that the variable `BRIDGEHEAD_HEAD` gives. The service has its own queue, places pods itself and has no
//! GPUs, so options for those are refused. An object has 10 KiB at most. A failed pod alone is tried again.

use super::{Objects, metadata, secrets};
use crate::Flavor;
use crate::gang::{Gang, USER, unfit};
use crate::template::{GRACE_S, array, bare_container, merged, pull_secrets, volumes};
use bridgehead_backend::BackendError;
use serde_json::json;

/// Bytes of an object at most.
const MOST_BYTES: usize = 10 << 10;
/// Seconds of a run at most.
const MOST_SECONDS: u64 = 24 * 3600;
/// Bytes kept free for the annotations that come on top.
const SPARE: usize = 256;

pub(super) fn objects(gang: &Gang) -> Result<Objects, BackendError> {
    check(gang)?;
    let group = &gang.groups(Flavor::CodeEngine)[0];
    let mut template = json!({
        "containers": [bare_container(gang, group, Flavor::CodeEngine)?],
        "volumes": volumes(gang, group),
    });
    if !gang.pod.pull_secrets.is_empty() {
        template["imagePullSecrets"] = pull_secrets(&gang.pod);
    }
    let mut run = json!({
        "arraySpec": array(gang),
        "retryLimit": gang.restarts,
        "template": merged(template, &gang.pod.patch)?,
    });
    if let Some(limit) = gang.time_limit_s {
        run["maxExecutionTime"] = json!((limit + GRACE_S).min(MOST_SECONDS));
    }
    let job = json!({
        "apiVersion": "codeengine.cloud.ibm.com/v1beta1",
        "kind": "JobRun",
        "metadata": metadata(gang, &gang.name),
        "spec": { "jobDefinitionSpec": run },
    });
    let bytes = job.to_string().len() + SPARE;
    if bytes > MOST_BYTES {
        return unfit(format!(
            "the job run has {bytes} bytes and Code Engine takes {MOST_BYTES}: give variables in the image or its own \
             configuration, or upload the bundle"
        ));
    }
    Ok(Objects {
        job,
        side: secrets(gang),
    })
}

/// What the service does not have. An option that would do nothing is refused.
fn check(gang: &Gang) -> Result<(), BackendError> {
    let shape = &gang.pod;
    let asked: [(&str, bool); 11] = [
        ("gpus", shape.gpus > 0),
        ("resources", !shape.resources.is_empty()),
        ("queue", gang.queue.is_some()),
        ("priority", gang.priority.is_some()),
        ("topology", gang.topology.is_some()),
        ("node_selector", !shape.node_selector.is_empty()),
        ("tolerations", !shape.tolerations.is_empty()),
        ("annotations", !shape.annotations.is_empty()),
        ("fs_group", shape.fs_group.is_some()),
        ("run_as_user", shape.user.is_some_and(|user| user != USER)),
        ("rdma", shape.rdma),
    ];
    if let Some((name, _)) = asked.into_iter().find(|(_, asked)| *asked) {
        let reason = format!("option {name}: Code Engine has nothing for it: leave it out, or use another flavor");
        return unfit(reason);
    }
    if gang.time_limit_s.is_some_and(|limit| limit > MOST_SECONDS) {
        return unfit(
            "option time: a run on Code Engine has a day at most: ask for 24h or less, or use another flavor",
        );
    }
    if gang.nodes > 1 && !shape.env.contains_key("BRIDGEHEAD_HEAD") {
        return unfit(
            "Code Engine gives pods no way to find the head: set BRIDGEHEAD_HEAD=host:port in the option env to where it can be reached, \
             or ask for --nodes 1",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{KubernetesOptions, Surroundings, render};
    use bridgehead_backend::LaunchRequest;
    use bridgehead_spec::RunId;
    use serde_json::Value;

    /// A run is refused with this word.
    fn refused(options: &Value, word: &str) {
        let mut options = KubernetesOptions::read(options).expect("the options are read");
        options.image = Some("app:1".to_owned());
        let run = RunId::parse("sweep").expect("it is an id");
        let request = LaunchRequest::first(run, "/runs/sweep".into(), "bridgehead".into(), 2);
        let gang = Gang::new(&request, &options, "team", &Surroundings::default()).expect("it is a gang");
        let error = render(&gang, Flavor::CodeEngine)
            .expect_err("it is refused")
            .to_string();
        assert!(error.contains(word), "{error} lacks {word}");
    }

    #[test]
    fn what_the_service_does_not_have_is_refused() {
        refused(&json!({}), "BRIDGEHEAD_HEAD");
        refused(&json!({"gpus": 1}), "option gpus");
        refused(&json!({"queue": "team"}), "option queue");
        refused(&json!({"run_as_user": 1000}), "option run_as_user");
        refused(&json!({"time": "25h"}), "option time");
        refused(
            &json!({"env": {"BRIDGEHEAD_HEAD": "h:1", "A": "x".repeat(9000)}}),
            "10240",
        );
    }
}
