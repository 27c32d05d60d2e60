//! A structural schema of a CustomResourceDefinition, as an API server applies it to an object: types, required and unknown fields, ranges,
//! patterns, unique keys of lists. Rules in CEL are not run; a webhook's are not in the schema.

use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

/// The folder of a Go module in the module cache, at the version that the cluster of the tests uses; else why it is not there. Nothing is
/// fetched.
pub fn module(folder: &str, module: &str) -> Result<PathBuf, String> {
    let modules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/clusters/kubernetes/modules");
    let listed = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", module])
        .current_dir(modules.join(folder))
        .envs([
            ("GOPROXY", "off"),
            ("GOFLAGS", "-mod=readonly"),
            ("GOTOOLCHAIN", "local"),
        ])
        .output()
        .map_err(|e| format!("go cannot be run: {e}"))?;
    let dir = PathBuf::from(String::from_utf8_lossy(&listed.stdout).trim());
    if listed.status.success() && dir.is_absolute() && dir.is_dir() {
        return Ok(dir);
    }
    let said = String::from_utf8_lossy(&listed.stderr);
    Err(format!("{module} is not in the Go module cache {said}"))
}

/// The schema of `version` in the text of a definition.
pub fn schema(definition: &str, version: &str) -> Value {
    let definition: Value = serde_saphyr::from_str(definition).expect("a definition is YAML");
    let versions = definition["spec"]["versions"].as_array().expect("it has versions");
    let found = versions.iter().find(|one| one["name"] == version);
    let found = found.unwrap_or_else(|| panic!("the definition has {version}"));
    assert_eq!(found["served"], true, "{version} is served");
    found["schema"]["openAPIV3Schema"].clone()
}

/// What an object breaks; `path` names the place.
pub fn violations(schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    check(schema, value, path, &mut wrong);
    wrong
}

fn check(schema: &Value, value: &Value, path: &str, wrong: &mut Vec<String>) {
    if !has_type(schema, value) {
        wrong.push(format!("{path}: {value} is no {}", schema["type"]));
        return;
    }
    if let Some(allowed) = schema["enum"].as_array().filter(|allowed| !allowed.contains(value)) {
        wrong.push(format!("{path}: {value} is none of {allowed:?}"));
    }
    match value {
        Value::Object(map) => check_object(schema, map, path, wrong),
        Value::Array(items) => check_array(schema, items, path, wrong),
        Value::String(text) => check_text(schema, text, path, wrong),
        Value::Number(number) => check_number(schema, number.as_f64().unwrap_or(f64::NAN), path, wrong),
        Value::Bool(_) | Value::Null => {}
    }
}

fn has_type(schema: &Value, value: &Value) -> bool {
    if schema["x-kubernetes-int-or-string"] == true {
        return value.is_i64() || value.is_string();
    }
    match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("boolean") => value.is_boolean(),
        Some("integer") => value.is_i64(),
        Some("number") => value.is_number(),
        None => true,
        Some(other) => panic!("a schema has the type {other}"),
    }
}

fn check_object(schema: &Value, map: &serde_json::Map<String, Value>, path: &str, wrong: &mut Vec<String>) {
    for name in schema["required"].as_array().into_iter().flatten() {
        if !map.contains_key(name.as_str().expect("a name is text")) {
            wrong.push(format!("{path}: {name} is missing"));
        }
    }
    let open = schema["x-kubernetes-preserve-unknown-fields"] == true;
    for (name, inner) in map {
        let path = format!("{path}.{name}");
        let known = schema["properties"]
            .get(name)
            .or_else(|| schema.get("additionalProperties"));
        match known {
            Some(known) => check(known, inner, &path, wrong),
            None if open => {}
            None => wrong.push(format!("{path}: is no field")),
        }
    }
}

fn check_array(schema: &Value, items: &[Value], path: &str, wrong: &mut Vec<String>) {
    let count = items.len() as f64;
    if schema["minItems"].as_f64().is_some_and(|least| count < least)
        || schema["maxItems"].as_f64().is_some_and(|most| count > most)
    {
        wrong.push(format!("{path}: {count} items"));
    }
    let keys: Vec<&str> = schema["x-kubernetes-list-map-keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut seen = BTreeSet::new();
    for (number, item) in items.iter().enumerate() {
        let path = format!("{path}[{number}]");
        let named: Vec<String> = keys.iter().map(|key| item[key].to_string()).collect();
        if !keys.is_empty() && !seen.insert(named) {
            wrong.push(format!("{path}: {item} is there twice"));
        }
        check(&schema["items"], item, &path, wrong);
    }
}

fn check_text(schema: &Value, text: &str, path: &str, wrong: &mut Vec<String>) {
    let count = text.chars().count() as f64;
    if schema["minLength"].as_f64().is_some_and(|least| count < least)
        || schema["maxLength"].as_f64().is_some_and(|most| count > most)
    {
        wrong.push(format!("{path}: {text:?} has {count} characters"));
    }
    if let Some(pattern) = schema["pattern"].as_str() {
        let fits = Regex::new(pattern).expect("a schema's pattern is one").is_match(text);
        if !fits {
            wrong.push(format!("{path}: {text:?} does not fit {pattern}"));
        }
    }
}

fn check_number(schema: &Value, number: f64, path: &str, wrong: &mut Vec<String>) {
    let range = match schema["format"].as_str() {
        Some("int32") => f64::from(i32::MIN)..=f64::from(i32::MAX),
        _ => f64::MIN..=f64::MAX,
    };
    if !range.contains(&number)
        || schema["minimum"].as_f64().is_some_and(|least| number < least)
        || schema["maximum"].as_f64().is_some_and(|most| number > most)
    {
        wrong.push(format!("{path}: {number} is out of range"));
    }
}
