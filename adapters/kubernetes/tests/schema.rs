//! Every manifest against the schemas of those who read it: the definitions of Volcano, JobSet and AppWrapper out of the Go module cache, and the
//! types of Kubernetes itself. Where the cache lacks a module, its part is skipped and says so.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

mod cases;
mod crd;

use bridgehead_kubernetes::{Flavor, Manifest};
use cases::manifests;
use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use k8s_openapi::api::core::v1::{PodTemplateSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The module, the file with the definition, its version, of a flavour that has one.
const DEFINITIONS: [(Flavor, &str, &str, &str, &str); 3] = [
    (
        Flavor::Volcano,
        "volcano",
        "volcano.sh/volcano",
        "config/crd/volcano/bases/batch.volcano.sh_jobs.yaml",
        "v1alpha1",
    ),
    (
        Flavor::Kueue,
        "jobset",
        "sigs.k8s.io/jobset",
        "config/components/crd/bases/jobset.x-k8s.io_jobsets.yaml",
        "v1alpha2",
    ),
    (
        Flavor::AppWrapper,
        "appwrapper",
        "github.com/project-codeflare/appwrapper",
        "config/crd/bases/workload.codeflare.dev_appwrappers.yaml",
        "v1beta2",
    ),
];

/// The schema of a flavour, where its module is there.
fn schema(flavor: Flavor) -> Option<Value> {
    let (_, folder, module, file, version) = DEFINITIONS.into_iter().find(|one| one.0 == flavor)?;
    match crd::module(folder, module) {
        Ok(dir) => Some(crd::schema(&std::fs::read_to_string(dir.join(file)).unwrap(), version)),
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}

fn of(flavor: Flavor) -> Vec<(String, Manifest)> {
    let all: Vec<_> = manifests()
        .into_iter()
        .filter(|(_, one)| one.flavor == flavor)
        .collect();
    assert!(all.len() >= 3, "{flavor:?} has cases");
    all
}

#[test]
fn top_objects_are_what_their_definitions_allow() {
    for (flavor, ..) in DEFINITIONS {
        let Some(mut schema) = schema(flavor) else {
            continue;
        };
        // An API server checks the metadata of every object by its own type, as is done below.
        schema["properties"]["metadata"] = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
        for (name, manifest) in of(flavor) {
            assert_eq!(crd::violations(&schema, &manifest.job, ""), [""; 0], "{name}");
        }
    }
}

#[test]
fn a_field_that_is_none_is_found_in_each_definition() {
    for (flavor, ..) in DEFINITIONS {
        let Some(schema) = schema(flavor) else {
            continue;
        };
        let (_, manifest) = of(flavor).remove(0);
        let mut job = manifest.job;
        job["metadata"] = json!({});
        job["spec"]["minAvailible"] = json!(1);
        let found = crd::violations(&schema, &job, "");
        assert!(
            found.contains(&".spec.minAvailible: is no field".to_owned()),
            "{found:?}"
        );
    }
}

/// `value` is a `T` and nothing more: what is read and written again is the same.
fn is<T: DeserializeOwned + Serialize>(value: &Value, name: &str) {
    let read: T = serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{name}: {e} in {value:#}"));
    let back = serde_json::to_value(read).unwrap();
    let lost = difference(value, &back, "");
    assert_eq!(lost, None, "{name}: a field is unknown or of another type");
}

/// The first place where two values differ.
fn difference(a: &Value, b: &Value, path: &str) -> Option<String> {
    match (a, b) {
        (Value::Object(left), Value::Object(right)) => {
            let keys = left.keys().chain(right.keys());
            let mut found = keys.filter_map(|key| difference(&a[key], &b[key], &format!("{path}.{key}")));
            found.next()
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let mut pairs = left.iter().zip(right).enumerate();
            pairs.find_map(|(number, (one, other))| difference(one, other, &format!("{path}[{number}]")))
        }
        _ => (a != b).then(|| format!("{path}: {a} against {b}")),
    }
}

#[test]
fn plain_objects_are_kubernetes_own() {
    for (name, manifest) in manifests() {
        is::<ObjectMeta>(&manifest.job["metadata"], &name);
        for object in &manifest.side {
            match object["kind"].as_str().unwrap() {
                "Service" => is::<Service>(object, &name),
                "Secret" => is::<Secret>(object, &name),
                other => panic!("{name}: {other} is no side object"),
            }
        }
        let spec = &manifest.job["spec"];
        let each = |key: &str| {
            spec[key]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| &one["template"])
                .collect::<Vec<_>>()
        };
        match manifest.flavor {
            Flavor::Volcano => each("tasks")
                .into_iter()
                .for_each(|one| is::<PodTemplateSpec>(one, &name)),
            Flavor::Kueue => each("replicatedJobs")
                .into_iter()
                .for_each(|one| is::<JobTemplateSpec>(one, &name)),
            Flavor::IndexedJob => is::<Job>(&manifest.job, &name),
            Flavor::AppWrapper => {
                let parts = each("components");
                is::<Service>(parts[0], &name);
                is::<Job>(parts[1], &name);
                let path = &spec["components"][1]["podSets"][0]["path"];
                assert_eq!(path, "template.spec.template", "{name}");
                assert!(
                    parts[1]["spec"]["template"]["spec"].is_object(),
                    "{name}: there are pods at the path"
                );
            }
            // There is no public schema of a job run; its pods are a subset of Kubernetes' own.
            Flavor::CodeEngine => {
                let template = json!({ "spec": spec["jobDefinitionSpec"]["template"] });
                is::<PodTemplateSpec>(&template, &name);
            }
        }
    }
}

/// AppWrapper ignores an annotation that it does not know: each of ours stands in its source.
#[test]
fn annotations_of_app_wrappers_are_spelt_as_in_its_source() {
    let (_, folder, module, ..) = DEFINITIONS[2];
    let dir = match crd::module(folder, module) {
        Ok(dir) => dir,
        Err(why) => return println!("skipped: {why}"),
    };
    let source = std::fs::read_to_string(dir.join("api/v1beta2/appwrapper_types.go")).unwrap();
    for (name, manifest) in of(Flavor::AppWrapper) {
        let annotations = manifest.job["metadata"]["annotations"].as_object().unwrap();
        let theirs: Vec<&String> = annotations
            .keys()
            .filter(|key| key.starts_with("workload.codeflare"))
            .collect();
        assert_eq!(theirs.len(), 6, "{name}");
        for key in theirs {
            assert!(
                source.contains(&format!("= \"{key}\"")),
                "{name}: {key} is not in the source"
            );
        }
    }
}

/// What pods are told by labels and annotations that others set: each stands in the source of who sets it.
#[test]
fn labels_that_pods_read_are_set_by_their_controllers() {
    let words = [
        (
            "volcano",
            "volcano.sh/apis",
            "pkg/apis/batch/v1alpha1/labels.go",
            "volcano.sh/task-index",
        ),
        (
            "volcano",
            "volcano.sh/apis",
            "pkg/apis/batch/v1alpha1/labels.go",
            "volcano.sh/job-version",
        ),
        (
            "volcano",
            "volcano.sh/apis",
            "pkg/apis/batch/v1alpha1/labels.go",
            "volcano.sh/task-spec",
        ),
        (
            "jobset",
            "sigs.k8s.io/jobset",
            "pkg/constants/constants.go",
            "restart-attempt",
        ),
        (
            "jobset",
            "sigs.k8s.io/jobset",
            "api/jobset/v1alpha2/jobset_types.go",
            "jobset.sigs.k8s.io/replicatedjob-name",
        ),
        (
            "kueue",
            "sigs.k8s.io/kueue",
            "apis/kueue/v1beta2/topology_types.go",
            "kueue.x-k8s.io/podset-preferred-topology",
        ),
        (
            "kueue",
            "sigs.k8s.io/kueue",
            "apis/kueue/v1beta2/topology_types.go",
            "kueue.x-k8s.io/podset-required-topology",
        ),
        (
            "kueue",
            "sigs.k8s.io/kueue",
            "apis/kueue/v1beta2/topology_types.go",
            "kueue.x-k8s.io/podset-group-name",
        ),
    ];
    for (folder, module, file, word) in words {
        match crd::module(folder, module) {
            Ok(dir) => {
                let source = std::fs::read_to_string(dir.join(file)).unwrap();
                assert!(
                    source.contains(&format!("{word}\"")),
                    "{word} is not in {file} of {module}"
                );
            }
            Err(why) => println!("skipped: {why}"),
        }
    }
}
