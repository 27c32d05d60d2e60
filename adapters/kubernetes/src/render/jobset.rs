//! A JobSet (`jobset.x-k8s.io/v1alpha2`), queued by Kueue where a queue is named: one replicated Job for each group. Owns its failure policy.
//!
//! A Job in it never replaces a pod (`backoffLimit` 0): it fails, and the set makes all Jobs anew. A failure by one of the final exit codes has the
//! reason `PodFailurePolicy` and ends the set. Everything else, an eviction too, starts it again and counts. JobSet has an action that does not
//! count, but what would tell an eviction from an exit code is only the text of a message, in a field that earlier versions drop: an exit
//! code would then start the set for ever. What Kueue takes away to give it to others is a suspension, no failure, and counts nothing.

use super::{Objects, indexed, queued_metadata, side_objects};
use crate::Flavor;
use crate::gang::{Gang, Group};
use bridgehead_backend::BackendError;
use serde_json::{Value, json};

pub(super) fn objects(gang: &Gang) -> Result<Objects, BackendError> {
    let groups = gang.groups(Flavor::Kueue);
    let jobs = groups.iter().map(|group| replicated(gang, group));
    let mut spec = json!({
        "network": { "enableDNSHostnames": false },
        "failurePolicy": {
            "maxRestarts": gang.restarts,
            "rules": [{ "name": "finalExit", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"] }],
        },
        "ttlSecondsAfterFinished": gang.ttl_s,
        "replicatedJobs": jobs.collect::<Result<Vec<_>, _>>()?,
    });
    if groups.len() > 1 {
        // The head ends last, and agents that hang keep nobody waiting.
        spec["successPolicy"] = json!({ "operator": "All", "targetReplicatedJobs": [groups[0].name] });
    }
    let rank_zero = [
        ("batch.kubernetes.io/job-completion-index", "0"),
        ("jobset.sigs.k8s.io/replicatedjob-name", groups[0].name),
    ];
    Ok(Objects {
        job: json!({
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": queued_metadata(gang),
            "spec": spec,
        }),
        side: side_objects(gang, &rank_zero),
    })
}

fn replicated(gang: &Gang, group: &Group) -> Result<Value, BackendError> {
    let spec = indexed::whole(gang, group, Flavor::Kueue)?;
    Ok(
        json!({ "name": group.name, "replicas": 1, "template": { "metadata": { "labels": gang.labels }, "spec": spec } }),
    )
}
