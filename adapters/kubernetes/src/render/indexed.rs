//! An Indexed Job of plain Kubernetes (`batch/v1`), and the part that JobSet and AppWrapper have of one. Owns its failure policy.
//!
//! It is the flavour of clusters without a gang scheduler: pods are placed one by one, and one that is lost is replaced alone and joins again.
//! What the cluster takes (`DisruptionTarget`) eats no restart. The budget is one number for all pods, so it is the restarts of a
//! gang times its pods. A named queue is Kueue's, which suspends the Job itself.

use super::{Objects, queued_metadata, side_objects};
use crate::Flavor;
use crate::gang::{Gang, Group};
use crate::template::{CONTAINER, template};
use bridgehead_backend::BackendError;
use serde_json::{Value, json};

pub(super) fn objects(gang: &Gang) -> Result<Objects, BackendError> {
    let group = &gang.groups(Flavor::IndexedJob)[0];
    let mut spec = job_spec(gang, group, Flavor::IndexedJob)?;
    let budget = i32::try_from(u64::from(gang.restarts) * u64::from(gang.nodes)).unwrap_or(i32::MAX);
    let taken = json!({ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget", "status": "True" }] });
    spec["backoffLimit"] = json!(budget);
    spec["podFailurePolicy"] = json!({ "rules": [final_exits(gang), taken] });
    spec["ttlSecondsAfterFinished"] = json!(gang.ttl_s);
    Ok(Objects {
        job: json!({
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": queued_metadata(gang),
            "spec": spec,
        }),
        side: side_objects(gang, &[RANK_ZERO]),
    })
}

/// The label of the pod with rank 0.
pub(super) const RANK_ZERO: (&str, &str) = ("batch.kubernetes.io/job-completion-index", "0");

/// The spec of a Job that fails with its first pod; what is around it starts the whole gang again.
pub(super) fn whole(gang: &Gang, group: &Group, flavor: Flavor) -> Result<Value, BackendError> {
    let mut spec = job_spec(gang, group, flavor)?;
    spec["backoffLimit"] = json!(0);
    spec["podFailurePolicy"] = json!({ "rules": [final_exits(gang)] });
    Ok(spec)
}

fn job_spec(gang: &Gang, group: &Group, flavor: Flavor) -> Result<Value, BackendError> {
    Ok(json!({
        "completionMode": "Indexed",
        "completions": group.replicas,
        "parallelism": group.replicas,
        // Two pods never hold one rank.
        "podReplacementPolicy": "Failed",
        "template": template(gang, group, flavor)?,
    }))
}

fn final_exits(gang: &Gang) -> Value {
    let codes = json!({ "containerName": CONTAINER, "operator": "In", "values": gang.final_exits });
    json!({ "action": "FailJob", "onExitCodes": codes })
}
