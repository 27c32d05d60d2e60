//! A Job of Volcano (`batch.volcano.sh/v1alpha1`): one task for each group. Owns its failure policies.
//!
//! Volcano has no failure policy of its own, so a gang with a dead rank would stay `Running`. It takes the first policy of a task that fits an
//! event, then the first of the job; a policy by exit code looks at the first container of the failed pod. So exit codes stand before events.
//! No plugin is asked for: `svc`, `ssh` and `env` give lists of names and keys that nobody here reads. Nothing is said of pods that wait
//! (`PodPending`): it would end a gang that is only queued for long.

use super::{Objects, metadata, side_objects};
use crate::Flavor;
use crate::gang::{Gang, Group};
use crate::template::template;
use bridgehead_backend::BackendError;
use serde_json::{Value, json};

/// Resumes that a job may have. Each eats one of `maxRetry`, as a restart does, so the number is added to it; where no
/// resume comes, the gang may be started that much more often.
const RESUMES: u32 = 8;

pub(super) fn objects(gang: &Gang) -> Result<Objects, BackendError> {
    let groups = gang.groups(Flavor::Volcano);
    let tasks = groups.iter().map(|group| task(gang, group, groups.len() > 1));
    let mut spec = json!({
        "schedulerName": "volcano",
        "queue": gang.queue.as_deref().unwrap_or("default"),
        "minAvailable": gang.minimum,
        // It counts attempts, the first among them.
        "maxRetry": gang.restarts + 1 + RESUMES,
        "ttlSecondsAfterFinished": gang.ttl_s,
        "policies": policies(gang),
        "tasks": tasks.collect::<Result<Vec<_>, _>>()?,
    });
    if let Some(class) = &gang.priority {
        spec["priorityClassName"] = json!(class);
    }
    let rank_zero = [("volcano.sh/task-index", "0"), ("volcano.sh/task-spec", groups[0].name)];
    Ok(Objects {
        job: json!({
            "apiVersion": "batch.volcano.sh/v1alpha1",
            "kind": "Job",
            "metadata": metadata(gang, &gang.name),
            "spec": spec,
        }),
        side: side_objects(gang, &rank_zero),
    })
}

fn policies(gang: &Gang) -> Value {
    let end = |code: &i32| json!({ "exitCode": code, "action": "TerminateJob" });
    let mut policies: Vec<Value> = gang.final_exits.iter().map(end).collect();
    let action = if gang.restarts == 0 {
        "TerminateJob"
    } else {
        "RestartJob"
    };
    policies.push(json!({ "events": ["PodFailed", "PodEvicted"], "action": action }));
    Value::Array(policies)
}

/// With two groups the job is done when the head is: it ends last, and agents that hang keep nobody waiting.
fn task(gang: &Gang, group: &Group, several: bool) -> Result<Value, BackendError> {
    let mut task = json!({
        "name": group.name,
        "replicas": group.replicas,
        "minAvailable": group.replicas,
        "template": template(gang, group, Flavor::Volcano)?,
    });
    if several && group.first_rank == 0 {
        task["policies"] = json!([{ "event": "TaskCompleted", "action": "CompleteJob" }]);
    }
    Ok(task)
}
