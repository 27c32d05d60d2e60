//! Where a job stands, read from its object. Pure: each flavour's words become the four states of the port. Owns no reason; an
//! unknown word is shown and taken for a job that waits.

use super::kinds::KUEUE_QUEUE;
use crate::Flavor;
use bridgehead_backend::JobState;
use serde_json::Value;

/// A job's state and the cluster's own word for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    /// In words of the port.
    pub state: JobState,
    /// In the cluster's word.
    pub word: String,
    /// The user suspended it; it waits for `resume` and for nothing else.
    pub suspended: bool,
}

fn standing(state: JobState, word: &str) -> Standing {
    Standing {
        state,
        word: word.to_owned(),
        suspended: false,
    }
}

/// Where the job of this object stands.
pub(crate) fn of(flavor: Flavor, object: &Value) -> Standing {
    let found = match flavor {
        Flavor::Volcano => volcano(object),
        Flavor::Kueue => job_set(object),
        Flavor::AppWrapper => app_wrapper(object),
        Flavor::IndexedJob => job(object),
        Flavor::CodeEngine => job_run(object),
    };
    let leaving = object["metadata"]["deletionTimestamp"].is_string() && found.state != JobState::Ended;
    if leaving {
        standing(JobState::Running, "Deleting")
    } else {
        found
    }
}

fn volcano(object: &Value) -> Standing {
    let phase = object["status"]["state"]["phase"].as_str().unwrap_or("Pending");
    let state = match phase {
        "Running" | "Completing" | "Terminating" => JobState::Running,
        "Completed" | "Failed" | "Terminated" => JobState::Ended,
        _ => JobState::Pending,
    };
    Standing {
        suspended: matches!(phase, "Aborting" | "Aborted"),
        ..standing(state, phase)
    }
}

/// Whether a condition holds.
pub(crate) fn holds(object: &Value, condition: &str) -> bool {
    let all = object["status"]["conditions"].as_array();
    all.is_some_and(|all| all.iter().any(|c| c["type"] == condition && c["status"] == "True"))
}

/// The first of these conditions that holds.
fn first(object: &Value, conditions: &[&'static str]) -> Option<&'static str> {
    conditions.iter().copied().find(|condition| holds(object, condition))
}

/// An object with `spec.suspend` that is set: by Kueue, while it is in a queue, else by the user.
fn held(object: &Value) -> Option<Standing> {
    if object["spec"]["suspend"] != true {
        return None;
    }
    let queued = object["metadata"]["labels"][KUEUE_QUEUE].is_string();
    Some(Standing {
        suspended: !queued,
        ..standing(JobState::Pending, if queued { "Queued" } else { "Suspended" })
    })
}

fn job_set(object: &Value) -> Standing {
    if let Some(word) = first(object, &["Completed", "Failed"]) {
        return standing(JobState::Ended, word);
    }
    if let Some(held) = held(object) {
        return held;
    }
    let jobs = object["spec"]["replicatedJobs"].as_array().cloned().unwrap_or_default();
    let counts = object["status"]["replicatedJobsStatus"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let whole = |job: &Value| {
        let wanted = job["replicas"].as_u64().unwrap_or(1);
        let there = counts.iter().find(|count| count["name"] == job["name"]);
        there.is_some_and(|count| number(&count["ready"]) + number(&count["succeeded"]) >= wanted)
    };
    if !jobs.is_empty() && jobs.iter().all(whole) {
        standing(JobState::Running, "Running")
    } else {
        standing(JobState::Pending, "Starting")
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

fn app_wrapper(object: &Value) -> Standing {
    let phase = object["status"]["phase"].as_str().unwrap_or("Pending");
    match phase {
        "Succeeded" | "Failed" => standing(JobState::Ended, phase),
        "Running" if holds(object, "PodsReady") => standing(JobState::Running, phase),
        "Running" => standing(JobState::Pending, "Starting"),
        "Terminating" => standing(JobState::Running, phase),
        _ => held(object).unwrap_or_else(|| standing(JobState::Pending, phase)),
    }
}

fn job(object: &Value) -> Standing {
    if let Some(word) = first(object, &["Complete", "Failed"]) {
        return standing(JobState::Ended, word);
    }
    if let Some(held) = held(object) {
        return held;
    }
    let status = &object["status"];
    let wanted = object["spec"]["parallelism"].as_u64().unwrap_or(1);
    if let Some(word) = first(object, &["SuccessCriteriaMet", "FailureTarget"]) {
        return standing(JobState::Running, word);
    }
    if number(&status["ready"]) + number(&status["succeeded"]) >= wanted {
        standing(JobState::Running, "Running")
    } else {
        standing(JobState::Pending, "Starting")
    }
}

fn job_run(object: &Value) -> Standing {
    if let Some(word) = first(object, &["Complete", "Failed"]) {
        return standing(JobState::Ended, word);
    }
    match first(object, &["Running"]) {
        Some(word) => standing(JobState::Running, word),
        None => standing(JobState::Pending, "Pending"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn volcano_tells_phases() {
        let at = |phase: &str| of(Flavor::Volcano, &json!({"status": {"state": {"phase": phase}}}));
        for (phase, state) in [
            ("Pending", JobState::Pending),
            ("Running", JobState::Running),
            ("Restarting", JobState::Pending),
            ("Aborted", JobState::Pending),
            ("Completing", JobState::Running),
            ("Completed", JobState::Ended),
            ("Failed", JobState::Ended),
            ("Terminated", JobState::Ended),
            ("SomethingNew", JobState::Pending),
        ] {
            assert_eq!((at(phase).state, at(phase).word.as_str()), (state, phase));
        }
        assert!(at("Aborted").suspended && !at("Pending").suspended);
        assert_eq!(of(Flavor::Volcano, &json!({})).state, JobState::Pending);
        let leaving = json!({"metadata": {"deletionTimestamp": "t"}, "status": {"state": {"phase": "Aborted"}}});
        assert_eq!(of(Flavor::Volcano, &leaving), standing(JobState::Running, "Deleting"));
    }

    #[test]
    fn what_kueue_holds_is_queued_and_what_the_user_holds_is_suspended() {
        let held = json!({"spec": {"suspend": true}});
        let queued = json!({"spec": {"suspend": true}, "metadata": {"labels": {KUEUE_QUEUE: "team"}}});
        for flavor in [Flavor::Kueue, Flavor::IndexedJob, Flavor::AppWrapper] {
            let (held, queued) = (of(flavor, &held), of(flavor, &queued));
            assert!(held.suspended && held.state == JobState::Pending, "{flavor:?}");
            assert!(!queued.suspended && queued.word == "Queued", "{flavor:?}");
        }
    }

    #[test]
    fn a_gang_runs_when_it_is_whole() {
        let job = |ready: u64| json!({"spec": {"parallelism": 3}, "status": {"active": 3, "ready": ready}});
        assert_eq!(of(Flavor::IndexedJob, &job(2)).state, JobState::Pending);
        assert_eq!(of(Flavor::IndexedJob, &job(3)).state, JobState::Running);
        let set = |ready: u64| {
            json!({"spec": {"replicatedJobs": [{"name": "head", "replicas": 1}, {"name": "agents"}]},
                "status": {"replicatedJobsStatus": [{"name": "head", "ready": 1}, {"name": "agents", "ready": ready}]}})
        };
        assert_eq!(of(Flavor::Kueue, &set(0)).state, JobState::Pending);
        assert_eq!(of(Flavor::Kueue, &set(1)).state, JobState::Running);
        let failed = json!({"status": {"conditions": [{"type": "Failed", "status": "True"}]}});
        assert_eq!(of(Flavor::Kueue, &failed), standing(JobState::Ended, "Failed"));
        let wrapped = json!({"status": {"phase": "Running", "conditions": [{"type": "PodsReady", "status": "True"}]}});
        assert_eq!(of(Flavor::AppWrapper, &wrapped).state, JobState::Running);
    }
}
