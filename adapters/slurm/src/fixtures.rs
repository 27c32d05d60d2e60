//! The readers against answers that real slurmrestd daemons gave, of four releases and six versions of the API
//! (`tests/fixtures`, which says how they were recorded).

use crate::door::Trouble;
use crate::from_json::{self, Complaint};
use crate::record::{JobRecord, speaks_for};
use bridgehead_backend::JobState;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The folders `RELEASE/VERSION`.
fn folders() -> Vec<PathBuf> {
    let below = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path());
        entries.filter(|path| path.is_dir()).collect()
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let all: Vec<PathBuf> = below(&root).iter().flat_map(|release| below(release)).collect();
    assert_eq!(all.len(), 9, "{all:?}");
    all
}

fn answer(folder: &Path, name: &str) -> Value {
    let path = folder.join(format!("{name}.json"));
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).expect("a document")
}

/// Calls `test` with the answer `name` of each version.
fn check(name: &str, test: impl Fn(&Value, &str)) {
    for folder in folders() {
        test(&answer(&folder, name), &folder.display().to_string());
    }
}

fn only(answer: &Value) -> JobRecord {
    let mut jobs = from_json::jobs(answer);
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

fn is_first(place: &str) -> bool {
    place.ends_with("v0.0.38")
}

#[test]
fn a_submission_names_its_job() {
    for name in ["submit-ok", "submit-held"] {
        check(name, |answer, place| {
            assert!(from_json::made(answer).is_some(), "{place}");
            let dropped = from_json::warnings(answer)
                .into_iter()
                .any(|w| w.starts_with("Ignoring unknown field"));
            assert!(!dropped, "{place}");
        });
    }
}

#[test]
fn a_key_that_was_dropped_is_told_apart() {
    check("submit-unknown-key", |answer, place| {
        let dropped = from_json::warnings(answer)
            .into_iter()
            .any(|w| w.starts_with("Ignoring unknown field"));
        assert_eq!(from_json::made(answer).is_some(), !is_first(place), "{place}");
        assert_eq!(dropped, !is_first(place), "{place}");
        assert_eq!(from_json::complaints(answer).is_empty(), !is_first(place), "{place}");
    });
}

#[test]
fn a_refusal_has_its_number_and_its_words() {
    check("submit-bad-partition", |answer, place| {
        assert_eq!(from_json::made(answer), None, "{place}");
        let complaints = from_json::complaints(answer);
        assert_eq!(complaints[0].code, 2000, "{place}");
        assert!(matches!(Trouble::of(&complaints[0].words), Trouble::Refused(words) if words.contains("sinfo")));
    });
    for name in ["job-missing", "delete-missing"] {
        check(name, |answer, place| {
            let codes: Vec<u64> = from_json::complaints(answer)
                .iter()
                .map(|c: &Complaint| c.code)
                .collect();
            // From 24.11 on v0.0.40 and v0.0.41 say nothing when a job that it does not know is to be deleted.
            let silent = name == "delete-missing" && codes.is_empty() && !place.contains("v0.0.38");
            assert!(silent || codes == [2017], "{place}: {codes:?}");
        });
    }
    check("bad-token", |answer, place| {
        let complaints = from_json::complaints(answer);
        let told = complaints[0].code == 1007 || complaints[0].words.contains("Unspecified error");
        assert!(told, "{place}: {complaints:?}");
    });
}

#[test]
fn jobs_are_read_in_all_their_states() {
    check("job-running", |answer, place| {
        let job = only(answer);
        assert_eq!(job.state(), JobState::Running, "{place}");
        assert_eq!(
            (job.comment.as_str(), job.user.as_str(), job.partition.as_str()),
            ("hello", "root", "main"),
            "{place}"
        );
        assert!(!job.nodes.is_empty() && job.reason.is_empty(), "{place}");
        assert!(job.end.is_some_and(|end| end > 1_700_000_000), "{place}");
    });
    check("job-failed", |answer, place| {
        let job = only(answer);
        assert_eq!(
            (job.word(), job.exit.code, job.exit.signal),
            ("FAILED", 3, 0),
            "{place}"
        );
    });
    check("job-signalled", |answer, place| {
        let job = only(answer);
        assert_eq!(
            (job.word(), job.exit.code, job.exit.signal),
            ("FAILED", 0, 11),
            "{place}"
        );
    });
    check("job-cancelled", |answer, place| {
        let job = only(answer);
        assert_eq!((job.state(), job.word()), (JobState::Ended, "CANCELLED"), "{place}");
    });
    check("job-held", |answer, place| {
        let job = only(answer);
        assert_eq!(job.state(), JobState::Pending, "{place}");
        assert!(
            crate::sentence(&job).contains("held"),
            "{place}: {}",
            crate::sentence(&job)
        );
    });
}

#[test]
fn an_array_is_seen_as_a_whole() {
    check("job-array", |answer, place| {
        let jobs = from_json::jobs(answer);
        assert!(jobs.len() > 1, "{place}");
        assert!(
            jobs.iter().all(|job| job.is_of(5) && job.whole() == 5),
            "{place}: {jobs:?}"
        );
        assert_eq!(
            speaks_for(&jobs).map(JobRecord::state),
            Some(JobState::Running),
            "{place}"
        );
    });
}

#[test]
fn partitions_and_nodes_are_read() {
    check("partitions", |answer, place| {
        let all = from_json::partitions(answer);
        let main = all
            .iter()
            .find(|partition| partition.name == "main")
            .expect("it is there");
        assert_eq!(
            (main.max_minutes, main.default_minutes, main.max_nodes),
            (Some(1440), Some(10), None),
            "{place}"
        );
        assert_eq!(main.state, "UP", "{place}");
        assert!(main.total_nodes > 0, "{place}");
        assert_eq!(main.default, is_first(place).then_some(true), "{place}");
    });
    check("nodes", |answer, place| {
        let node = from_json::nodes(answer).remove(0);
        assert_eq!((node.cpus, node.gpus_of(None)), (8, 2), "{place}");
        assert!(node.memory_mib >= 8000 && node.usable(), "{place}: {node:?}");
        assert!(node.partitions.iter().any(|name| name == "main"), "{place}");
    });
}

#[test]
fn every_list_of_jobs_is_read_whole() {
    check("jobs", |answer, place| {
        let listed = answer["jobs"].as_array().expect("a list").len();
        let jobs = from_json::jobs(answer);
        assert_eq!(jobs.len(), listed, "{place}");
        assert!(jobs.iter().all(|job| job.state() != JobState::Unknown), "{place}");
    });
}
