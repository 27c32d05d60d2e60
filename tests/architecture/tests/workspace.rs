//! The rules hold for this workspace. Runs `cargo metadata` and reads every source file that git knows or could know.
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_architecture::metadata::Metadata;
use bridgehead_architecture::policy::Policy;
use bridgehead_architecture::{layers, sources};
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .unwrap()
}

/// Of what is built without being asked for a feature.
fn default_build() -> Metadata {
    metadata_with(&[])
}

fn metadata() -> Metadata {
    metadata_with(&["--all-features"])
}

fn metadata_with(features: &[&str]) -> Metadata {
    let out = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .args(features)
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Nothing broke a rule.
fn check(violations: &[String]) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

/// Rust and Python files of the tree, hidden folders and build outputs left out.
fn files(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let skipped = name.starts_with('.') || ["target", "bridgehead.data", "site"].contains(&name.as_str());
        if path.is_dir() && !skipped {
            files(&path, out);
        } else if name.ends_with(".rs") || name.ends_with(".py") {
            out.push(path);
        }
    }
}

#[test]
fn every_arrow_points_down() {
    let metadata = metadata();
    assert!(metadata.members().count() > 10, "cargo metadata lists our crates");
    check(&layers::violations(&metadata));
}

#[test]
fn licences_duplicates_and_sources_are_as_deny_toml_allows() {
    let policy = Policy::parse(&std::fs::read_to_string(root().join("deny.toml")).unwrap()).unwrap();
    check(&policy.violations(&metadata()));
}

/// The program and the wheel start on machines that have no libhwloc.
#[test]
fn only_a_feature_asks_for_libhwloc() {
    let asks = |metadata: &Metadata| metadata.packages.iter().any(|package| package.name == "hwlocality-sys");
    assert!(asks(&metadata()) && !asks(&default_build()));
}

#[test]
fn sources_are_opened_by_docs_short_and_safe() {
    let (root, mut found) = (root(), Vec::new());
    files(&root, &mut found);
    assert!(found.len() > 50, "the tree has sources");
    let mut wrong = Vec::new();
    for path in found {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        wrong.extend(sources::violations(&name, &std::fs::read_to_string(&path).unwrap()));
    }
    check(&wrong);
}
