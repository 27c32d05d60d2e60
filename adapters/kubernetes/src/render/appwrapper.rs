//! An AppWrapper (`workload.codeflare.dev/v1beta2`) around the head's Service and an Indexed Job: one unit to queue, to start again and to take away.
//! Owns its annotations, and the reading of manifests of its dead ancestors.
//!
//! The Job fails with its first pod; the wrapper then deletes and makes everything anew, up to `retryLimit` times, but not after one of the
//! `terminalExitCodes`. It ignores an annotation that it does not know, so a test compares their names with its source.
//! Its grace periods are raised to the most that it takes (a day): the usual minutes would use up the restarts of a gang that only waits.

use super::{Objects, head_service, indexed, metadata, queued_metadata, secrets};
use crate::Flavor;
use crate::gang::Gang;
use bridgehead_backend::BackendError;
use serde_json::{Value, json};

/// What the names of its annotations begin with.
const PREFIX: &str = "workload.codeflare.dev.appwrapper/";
/// For how long it waits for pods to be made and to run.
const PATIENCE: &str = "24h";

pub(super) fn objects(gang: &Gang) -> Result<Objects, BackendError> {
    let group = &gang.groups(Flavor::AppWrapper)[0];
    let job = json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata(gang, &gang.name),
        "spec": indexed::whole(gang, group, Flavor::AppWrapper)?,
    });
    let pods = json!([{ "replicas": group.replicas, "path": "template.spec.template" }]);
    let mut top = queued_metadata(gang);
    top["annotations"] = annotations(gang);
    Ok(Objects {
        job: json!({
            "apiVersion": "workload.codeflare.dev/v1beta2",
            "kind": "AppWrapper",
            "metadata": top,
            "spec": { "components": [
                { "template": head_service(gang, &[indexed::RANK_ZERO]) },
                { "podSets": pods, "template": job },
            ] },
        }),
        side: secrets(gang),
    })
}

fn annotations(gang: &Gang) -> Value {
    let codes: Vec<String> = gang.final_exits.iter().map(ToString::to_string).collect();
    let all = [
        ("admissionGracePeriodDuration", PATIENCE.to_owned()),
        ("warmupGracePeriodDuration", PATIENCE.to_owned()),
        ("retryPausePeriodDuration", "10s".to_owned()),
        ("retryLimit", gang.restarts.to_string()),
        ("successTTLDuration", format!("{}s", gang.ttl_s)),
        ("terminalExitCodes", codes.join(",")),
    ];
    all.into_iter()
        .map(|(name, value)| (format!("{PREFIX}{name}"), json!(value)))
        .collect()
}

/// What is wrong with a manifest of an AppWrapper of the old kinds, and what takes its place; `None` for any other object.
#[must_use]
pub fn refuse_old(object: &Value) -> Option<String> {
    let version = object["apiVersion"].as_str()?;
    let (group, _) = version.split_once('/')?;
    let old = version == "workload.codeflare.dev/v1beta1" || group == "mcad.ibm.com";
    (old && object["kind"] == "AppWrapper").then(|| {
        format!(
            "{version} AppWrapper is of MCAD, which has ended: its successor is workload.codeflare.dev/v1beta2 (the AppWrapper controller, \
             queued by Kueue); `bridgehead plan --on kubernetes --flavor appwrapper` prints one of it"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_wrappers_are_told_what_took_their_place() {
        let object = |version: &str, kind: &str| json!({ "apiVersion": version, "kind": kind });
        for version in ["workload.codeflare.dev/v1beta1", "mcad.ibm.com/v1beta1"] {
            let told = refuse_old(&object(version, "AppWrapper")).expect("it is old");
            assert!(told.contains(version) && told.contains("v1beta2"), "{told}");
        }
        assert_eq!(
            refuse_old(&object("workload.codeflare.dev/v1beta2", "AppWrapper")),
            None
        );
        assert_eq!(refuse_old(&object("batch/v1", "Job")), None);
        assert_eq!(refuse_old(&json!({ "kind": "AppWrapper" })), None);
        assert_eq!(refuse_old(&json!("AppWrapper")), None);
    }
}
