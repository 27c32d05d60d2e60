//! The sample documents: every valid one is read, printed and read again; every invalid one is refused with the words that
//! its sibling `.txt` holds. The published schema names exactly the fields that the code knows.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_spec::{CheckedPipeline, PipelineSpec};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn samples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let entries = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} holds no sample", folder.display());
    files
}

/// Reading what was printed gives the same pipeline, and printing that gives the same bytes.
fn check(bytes: &[u8], what: &str) -> CheckedPipeline {
    let pipeline = PipelineSpec::parse(bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
    let text = pipeline.to_canonical_json();
    let again = PipelineSpec::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{what}, printed: {error}"));
    assert_eq!(again, pipeline, "{what}");
    assert_eq!(again.to_canonical_json(), text, "{what}");
    pipeline
}

#[test]
fn valid_samples_are_read_and_survive_printing() {
    for path in samples("valid") {
        check(&std::fs::read(&path).unwrap(), &path.display().to_string());
    }
}

#[test]
fn invalid_samples_are_refused_for_their_reason() {
    for path in samples("invalid") {
        let expected = std::fs::read_to_string(path.with_extension("txt")).unwrap();
        let refusal = match PipelineSpec::parse(&std::fs::read(&path).unwrap()) {
            Ok(_) => panic!("{} is accepted", path.display()),
            Err(error) => error.to_string(),
        };
        assert!(refusal.contains(expected.trim_end()), "{}: {refusal}", path.display());
    }
}

fn sorted_keys(value: &Value, what: &str) -> Vec<String> {
    let object = value.as_object().unwrap_or_else(|| panic!("{what} is no object"));
    let mut keys: Vec<_> = object.keys().cloned().collect();
    keys.sort();
    keys
}

#[test]
fn the_schema_names_the_fields_of_the_code() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let schema = std::fs::read(root.join("../../docs/formats/pipeline-spec.schema.json")).unwrap();
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let sample = std::fs::read(root.join("tests/valid/everything.json")).unwrap();
    let sample: Value = serde_json::from_str(&check(&sample, "everything").to_canonical_json()).unwrap();
    // In this sample every optional field has a value somewhere, so that its canonical text shows them all.
    let task = &sample["tasks"][0];
    let program = &sample["tasks"][2]["call"]["program"];
    let first_function = sample["functions"].as_object().unwrap().values().next().unwrap();
    for (definition, value, elsewhere) in [
        (&schema["properties"], &sample, &[][..]),
        (
            &schema["$defs"]["environment"]["properties"],
            &sample["environment"],
            &[],
        ),
        (&schema["$defs"]["function"]["properties"], first_function, &[]),
        (&schema["$defs"]["task"]["properties"], task, &["inputs"]),
        (&schema["$defs"]["resources"]["properties"], &task["resources"], &[]),
        (&schema["$defs"]["retries"]["properties"], &task["retries"], &[]),
        (
            &schema["$defs"]["function_call"]["properties"],
            &task["call"]["function"],
            &["args_blob"],
        ),
        (&schema["$defs"]["program"]["properties"], program, &[]),
        (&schema["$defs"]["ranks"]["properties"], &task["ranks"], &["launcher"]),
        (&schema["$defs"]["group"]["properties"], &sample["groups"]["train"], &[]),
    ] {
        let mut printed = sorted_keys(value, "sample");
        printed.extend(elsewhere.iter().map(ToString::to_string));
        printed.sort();
        assert_eq!(sorted_keys(definition, "schema"), printed);
    }
}
