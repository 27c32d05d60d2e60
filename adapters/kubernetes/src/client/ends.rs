//! How pods ended, by cause: what the cluster took, what ran out of memory, what the program said. Pure. Owns the reading of our own
//! termination message, which is a stranger's text like any other.

use super::kinds::index_label;
use super::reasons::{Seen, clean};
use crate::Flavor;
use serde_json::Value;

/// Pods of one cause that are named; the others are counted.
const NAMED: usize = 3;

/// What our program leaves in the termination message.
#[derive(Debug, Default, serde::Deserialize)]
struct Left {
    rank: Option<u64>,
    end: Option<String>,
}

/// A pod that ended without success.
struct End {
    pod: String,
    rank: Option<u64>,
    cause: String,
}

/// The index of a pod within its group.
pub(crate) fn index(flavor: Flavor, pod: &Value) -> Option<u64> {
    let labels = &pod["metadata"]["labels"];
    labels[index_label(flavor)]
        .as_str()
        .and_then(|index| index.parse().ok())
}

fn condition<'a>(pod: &'a Value, kind: &str) -> Option<&'a Value> {
    let all = pod["status"]["conditions"].as_array()?;
    all.iter().find(|c| c["type"] == kind && c["status"] == "True")
}

/// Why a pod was taken away, for the reasons that Kubernetes gives.
fn taken(reason: &str) -> &str {
    match reason {
        "PreemptionByScheduler" | "PreemptionByKubeScheduler" => "preempted by a job of higher priority",
        "DeletionByTaintManager" => "its node was tainted or lost",
        "EvictionByEvictionAPI" => "evicted, as when a node is drained",
        "DeletionByPodGC" => "its node is gone",
        "TerminationByKubelet" => "ended by its node, which ran short or shut down",
        other => other,
    }
}

fn end(flavor: Flavor, pod: &Value) -> Option<End> {
    let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let ended = &pod["status"]["containerStatuses"][0]["state"]["terminated"];
    let code = ended["exitCode"].as_i64();
    let message = ended["message"].as_str().unwrap_or_default();
    let left: Option<Left> = serde_json::from_str(message).ok();
    let said = match &left {
        Some(left) => left.end.clone().unwrap_or_default(),
        None => message.to_owned(),
    };
    let said = if said.is_empty() {
        said
    } else {
        format!(": {}", clean(&said, 300))
    };
    let cause = if let Some(condition) = condition(pod, "DisruptionTarget") {
        let reason = condition["reason"].as_str().unwrap_or_default();
        format!("{}: the cluster took it", clean(taken(reason), 100))
    } else if text("/status/reason") == "Evicted" {
        format!("evicted: {}", clean(text("/status/message"), 200))
    } else if ended["reason"] == "OOMKilled" {
        "killed for want of memory (OOMKilled); ask for more --memory".to_owned()
    } else {
        match code {
            Some(0) => return None,
            Some(143) => format!("was told to end (exit code 143){said}"),
            Some(code) => format!("exit code {code}{said}"),
            None if text("/status/phase") == "Failed" => {
                clean(&format!("{} {}", text("/status/reason"), text("/status/message")), 200)
            }
            None => return None,
        }
    };
    Some(End {
        pod: text("/metadata/name").to_owned(),
        rank: left.and_then(|left| left.rank).or_else(|| index(flavor, pod)),
        cause,
    })
}

/// One sentence for each cause.
pub(crate) fn sentences(seen: &Seen) -> Vec<String> {
    let mut causes: Vec<(String, Vec<String>)> = Vec::new();
    for end in seen.pods.iter().filter_map(|pod| end(seen.flavor, pod)) {
        let who = match end.rank {
            Some(rank) => format!("rank {rank} ({})", end.pod),
            None => end.pod,
        };
        match causes.iter_mut().find(|(cause, _)| *cause == end.cause) {
            Some((_, pods)) => pods.push(who),
            None => causes.push((end.cause, vec![who])),
        }
    }
    let sentence = |(cause, pods): &(String, Vec<String>)| {
        let more = pods.len().saturating_sub(NAMED);
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        format!("{}{more} ended: {cause}", pods[..pods.len().min(NAMED)].join(", "))
    };
    causes.iter().map(sentence).collect()
}
