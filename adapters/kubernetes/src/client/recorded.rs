//! The reasons on what a real cluster answered (`tests/fixtures`). Tests only.

use super::phases::{self, Standing};
use super::reasons::{Look, Seen, sentences};
use crate::Flavor;
use bridgehead_backend::JobState;
use serde_json::{Value, json};

/// All that was recorded of one job.
fn recorded(name: &str) -> Seen {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/1.35.3");
    let text = std::fs::read_to_string(format!("{folder}/{name}.json")).unwrap();
    let mut document: Value = serde_json::from_str(&text).unwrap();
    let list = |value: Value| value.as_array().cloned().unwrap_or_default();
    Seen {
        flavor: serde_json::from_value(document["flavor"].take()).unwrap(),
        group: match document["group"].take() {
            Value::Null => Look::Absent,
            group => Look::Is(group),
        },
        queue: Look::NoRight,
        job: document["job"].take(),
        pods: list(document["pods"].take()),
        events: list(document["events"].take()),
        blind: false,
    }
}

fn said(seen: &Seen) -> (Standing, Vec<String>) {
    let standing = phases::of(seen.flavor, &seen.job);
    let said = sentences(seen, &standing);
    (standing, said)
}

/// The first sentence about a recorded job has these words.
fn says(name: &str, state: JobState, words: &[&str]) {
    let (standing, said) = said(&recorded(name));
    println!("{name}: {} {said:?}", standing.word);
    assert_eq!(standing.state, state, "{name}");
    let first = said.first().map_or("", String::as_str);
    for word in words {
        assert!(first.contains(word), "{name}: no {word:?} in {first:?}");
    }
}

#[test]
fn a_gang_that_volcano_does_not_let_in_is_told_what_it_asks_for() {
    says(
        "big",
        JobState::Pending,
        &[
            "asks for 3 x (64 cores, 64Mi",
            "queue default",
            "--cpus",
            "cannot see the queue: no right",
        ],
    );
}

#[test]
fn a_gang_that_no_nodes_fit_is_told_the_resource() {
    says(
        "partial",
        JobState::Pending,
        &["2 x 3 cores", "Insufficient cpu", "--cpus"],
    );
    says(
        "plain",
        JobState::Pending,
        &["2 x 64 cores", "Insufficient cpu", "--nodes"],
    );
}

#[test]
fn an_image_that_cannot_be_had_is_named() {
    says(
        "image",
        JobState::Pending,
        &["3 of 3 pods", "localhost/none:7", "ErrImagePull", "--image"],
    );
}

#[test]
fn a_volume_that_is_missing_is_named() {
    says("mount", JobState::Pending, &["\"no-such\" not found", "volume"]);
    says("claim", JobState::Pending, &["\"no-claim\" not found", "--volume"]);
}

#[test]
fn pods_that_failed_are_told_by_cause() {
    says("oom", JobState::Ended, &["rank 0", "want of memory", "--memory"]);
    says(
        "fail",
        JobState::Ended,
        &["rank 0 (rec-fail-agents-0), rank 1", "exit code 7"],
    );
}

#[test]
fn a_queue_of_kueue_that_is_not_there_is_named() {
    says("kueue", JobState::Pending, &["no queue no-queue", "--queue"]);
}

#[test]
fn a_closed_or_missing_queue_comes_before_what_the_gang_asks_for() {
    let mut seen = recorded("big");
    seen.queue = Look::Is(json!({"status": {"state": "Closed"}}));
    assert!(
        said(&seen).1[0].contains("queue default is closed"),
        "{:?}",
        said(&seen)
    );
    seen.queue = Look::Absent;
    assert!(said(&seen).1[0].contains("no queue default"), "{:?}", said(&seen));
}

#[test]
fn what_the_cluster_took_is_not_what_the_program_did() {
    let mut seen = recorded("fail");
    seen.pods.truncate(1);
    let reason = json!({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"});
    seen.pods[0]["status"]["conditions"]
        .as_array_mut()
        .unwrap()
        .push(reason);
    let first = said(&seen).1.remove(0);
    assert!(first.contains("preempted") && !first.contains("exit code"), "{first}");
}

#[test]
fn the_message_of_our_own_program_is_read_and_strange_text_is_cleaned() {
    let mut seen = recorded("fail");
    seen.pods.truncate(1);
    let left = |seen: &mut Seen, text: &str| {
        seen.pods[0]["status"]["containerStatuses"][0]["state"]["terminated"]["message"] = text.into();
    };
    left(&mut seen, r#"{"rank": 5, "end": "the run failed"}"#);
    assert!(said(&seen).1[0].contains("rank 5 (rec-fail-agents-0) ended: exit code 7: the run failed"));
    left(&mut seen, &format!("bell\u{7}\n{}", "x".repeat(5000)));
    let first = said(&seen).1.remove(0);
    assert!(first.len() < 500 && !first.contains(char::is_control), "{first}");
}

#[test]
fn quota_and_suspension_say_what_to_do() {
    let mut seen = recorded("plain");
    seen.pods.clear();
    let message = "pods \"x\" is forbidden: exceeded quota: small";
    seen.events = vec![json!({"reason": "FailedCreate", "message": message})];
    assert!(said(&seen).1[0].contains("exceeded quota"), "{:?}", said(&seen));
    seen.events.clear();
    seen.job["spec"]["suspend"] = true.into();
    assert!(said(&seen).1[0].starts_with("suspended"), "{:?}", said(&seen));
}

#[test]
fn nothing_of_a_strange_answer_makes_it_panic() {
    for flavor in [
        Flavor::Volcano,
        Flavor::Kueue,
        Flavor::AppWrapper,
        Flavor::IndexedJob,
        Flavor::CodeEngine,
    ] {
        for object in [
            json!(null),
            json!([]),
            json!({"spec": 3, "status": "x", "metadata": []}),
        ] {
            let seen = Seen {
                flavor,
                job: object.clone(),
                group: Look::Is(object.clone()),
                queue: Look::Is(object.clone()),
                pods: vec![object.clone()],
                events: vec![object.clone()],
                blind: true,
            };
            said(&seen);
        }
    }
}
