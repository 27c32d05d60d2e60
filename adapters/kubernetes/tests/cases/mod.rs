//! The cases of `golden/`: options and a request each, and the manifests that they give. Shared by the tests that look at them.

use bridgehead_backend::LaunchRequest;
use bridgehead_kubernetes::{Flavor, Gang, KubernetesOptions, Manifest, Surroundings, render};
use bridgehead_spec::RunId;
use serde_json::Value;
use std::path::{Path, PathBuf};

pub const FLAVORS: [(Flavor, &str); 5] = [
    (Flavor::Volcano, "volcano"),
    (Flavor::Kueue, "kueue"),
    (Flavor::AppWrapper, "appwrapper"),
    (Flavor::IndexedJob, "indexed-job"),
    (Flavor::CodeEngine, "code-engine"),
];

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub fn cases() -> Vec<(String, Value)> {
    let names = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut cases: Vec<String> = names
        .filter_map(|name| name.strip_suffix(".case.json").map(str::to_owned))
        .collect();
    cases.sort();
    assert!(cases.len() >= 3, "{cases:?}");
    let read = |case: String| {
        let text = std::fs::read_to_string(folder().join(format!("{case}.case.json"))).unwrap();
        (case, serde_json::from_str(&text).unwrap())
    };
    cases.into_iter().map(read).collect()
}

pub fn gang(case: &Value) -> Gang {
    let agents = u32::try_from(case["agents"].as_u64().unwrap()).unwrap();
    let run = RunId::parse(case["run"].as_str().unwrap()).unwrap();
    let mut request = LaunchRequest::first(run, "/bridgehead/runs/x".into(), "bridgehead".into(), agents);
    request.launch = u32::try_from(case["launch"].as_u64().unwrap_or(1)).unwrap();
    let env = case["env"].as_object().into_iter().flatten();
    request.env = env
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect();
    let options = KubernetesOptions::read(&case["options"]).unwrap();
    let surroundings = Surroundings {
        openshift: case["openshift"] == true,
    };
    Gang::new(&request, &options, "team-a", &surroundings).unwrap()
}

/// All manifests of all cases, by their names.
pub fn manifests() -> Vec<(String, Manifest)> {
    let mut all = Vec::new();
    for (case, document) in cases() {
        for (flavor, word) in FLAVORS {
            if let Ok(manifest) = render(&gang(&document), flavor) {
                all.push((format!("{case}.{word}"), manifest));
            }
        }
    }
    all
}
