//! Golden jobs: each case of `golden/` gives exactly the script and the bodies that lie beside it, or a refusal. To accept a
//! change, copy what a failing case prints after reading it.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_backend::{JobRef, LaunchRequest};
use bridgehead_slurm::{SlurmJob, SlurmOptions, Version, for_sbatch, submission};
use bridgehead_spec::RunId;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// `BRIDGEHEAD_FREEZE=1` writes what is made now; the difference is then for people to judge.
fn check_file(name: &str, found: &str) {
    if std::env::var_os("BRIDGEHEAD_FREEZE").is_some() {
        std::fs::write(folder().join(name), found).unwrap();
    }
    let expected = std::fs::read_to_string(folder().join(name)).unwrap_or_default();
    assert!(
        expected == found,
        "{name} holds\n{expected}\nbut this was made:\n{found}"
    );
}

fn request(case: &Value) -> LaunchRequest {
    let path = |key: &str, default: &str| case[key].as_str().unwrap_or(default).into();
    let agents = u32::try_from(case["agents"].as_u64().unwrap()).unwrap();
    let mut request = LaunchRequest::first(
        RunId::parse("sweep-7").unwrap(),
        path("run_dir", "/shared/runs/sweep-7"),
        path("program", "/opt/bridgehead/bin/bridgehead"),
        agents,
    );
    request.launch = u32::try_from(case["launch"].as_u64().unwrap_or(1)).unwrap();
    let after = case["after"].as_array().into_iter().flatten();
    request.after = after.map(|id| JobRef(id.as_str().unwrap().to_owned())).collect();
    let env = case["env"].as_object().into_iter().flatten();
    request.env = env
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    request
}

fn caller() -> BTreeMap<String, String> {
    let vars = [
        ("HOME", "/home/ada"),
        ("USER", "ada"),
        ("PATH", "/usr/bin:/bin"),
        ("BASH_FUNC_ml%%", "() { :; }"),
        ("OMP_NUM_THREADS", "4"),
    ];
    vars.into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

fn check(case: &str) {
    let text = std::fs::read_to_string(folder().join(format!("{case}.case.json"))).unwrap();
    let document: Value = serde_json::from_str(&text).unwrap();
    let options = SlurmOptions::read(&document["options"]).unwrap();
    let job = match SlurmJob::new(&request(&document), &options) {
        Ok(job) => job,
        Err(error) => return check_file(&format!("{case}.error.txt"), &format!("{error}\n")),
    };
    assert_eq!(
        SlurmJob::new(&request(&document), &options).as_ref(),
        Ok(&job),
        "{case}: again"
    );
    check_file(&format!("{case}.sh"), &for_sbatch(&job));
    for last in [38, 40] {
        match submission(&job, Version::new(last).unwrap(), &caller()) {
            Ok(body) => check_file(&format!("{case}.v0.0.{last}.json"), &format!("{body:#}\n")),
            Err(error) => check_file(&format!("{case}.v0.0.{last}.error.txt"), &format!("{error}\n")),
        }
    }
    for last in 41..=44 {
        let body = |last| submission(&job, Version::new(last).unwrap(), &caller()).ok();
        assert_eq!(body(last), body(40), "{case}: v0.0.{last} takes what v0.0.40 takes");
    }
}

#[test]
fn jobs_are_the_golden_ones() {
    let names = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".case.json").map(str::to_owned))
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    for case in cases {
        check(&case);
    }
}

#[test]
fn golden_scripts_are_sound_for_the_shell() {
    let scripts = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    for script in scripts.filter(|path| path.extension().is_some_and(|end| end == "sh")) {
        let checked = std::process::Command::new("bash")
            .arg("-n")
            .arg(&script)
            .output()
            .unwrap();
        assert!(checked.status.success(), "{}: {checked:?}", script.display());
    }
}
