//! Golden plans: each case of `golden/` gives exactly the bytes that lie beside it, either a plan in both forms or a refusal.
//! To accept a change, copy what a failing case prints after reading it.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_plan::{ClusterProfile, LaunchPlan, plan};
use bridgehead_spec::PipelineSpec;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn cases() -> Vec<String> {
    let names = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".spec.json").map(str::to_owned))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn check_file(name: &str, found: &str) {
    let expected = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
    assert!(
        expected == found,
        "{name} holds\n{expected}\nbut this was made:\n{found}"
    );
}

fn check(case: &str) {
    let spec = std::fs::read(folder().join(format!("{case}.spec.json"))).unwrap();
    let cluster = std::fs::read(folder().join(format!("{case}.cluster.json"))).unwrap();
    let pipeline = PipelineSpec::parse(&spec).unwrap();
    let cluster: ClusterProfile = serde_json::from_slice(&cluster).unwrap();
    match plan(&pipeline, &cluster) {
        Ok(made) => {
            let text = made.to_canonical_json();
            assert_eq!(
                LaunchPlan::parse(text.as_bytes()).unwrap(),
                made,
                "{case}: reading what was printed"
            );
            assert_eq!(
                plan(&pipeline, &cluster).unwrap().to_canonical_json(),
                text,
                "{case}: planning again"
            );
            check_file(&format!("{case}.plan.json"), &format!("{text}\n"));
            check_file(&format!("{case}.txt"), &made.to_human());
        }
        Err(error) => check_file(&format!("{case}.error.txt"), &format!("{error}\n")),
    }
}

#[test]
fn plans_are_the_golden_ones() {
    for case in cases() {
        check(&case);
    }
}

#[test]
fn a_plan_of_another_version_is_refused() {
    let error = LaunchPlan::parse(br#"{"version":2,"novelty":true}"#)
        .unwrap_err()
        .to_string();
    assert!(error.contains("version 2, this bridgehead reads version 1"), "{error}");
    let error = LaunchPlan::parse(br#"{"version":1}"#).unwrap_err().to_string();
    assert!(error.contains("missing field `pipeline`"), "{error}");
}
