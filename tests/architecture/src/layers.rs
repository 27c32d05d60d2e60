//! Layers: who may depend on whom. Owns the table; `ARCHITECTURE.md` shows it to people.

use crate::metadata::Metadata;

/// The table, bottom first: a crate may depend on crates of lower layers only.
const LAYERS: &[&[&str]] = &[
    &["bridgehead-spec", "bridgehead-topology"],
    &[
        "bridgehead-plan",
        "bridgehead-schedule",
        "bridgehead-backend",
        "bridgehead-store-core",
        "bridgehead-store-gpu",
        "bridgehead-fabric",
        "bridgehead-wire",
    ],
    &[
        "bridgehead-local",
        "bridgehead-slurm",
        "bridgehead-kubernetes",
        "bridgehead-events",
        "bridgehead-mirror",
        "bridgehead-mpi",
        "bridgehead-store-node",
        "bridgehead-tcp",
        "bridgehead-ucx",
        "bridgehead-ucx-sys",
    ],
    &["bridgehead-head", "bridgehead-agent", "bridgehead-guest"],
    &["bridgehead", "bridgehead-c", "bridgehead-python"],
];

/// The one arrow inside a layer.
const BESIDE: (&str, &str) = ("bridgehead-ucx", "bridgehead-ucx-sys");

/// Folders whose crates are faces: they put things together and nobody depends on them.
const FACES: &[&str] = &["benchmarks/", "tests/"];

/// Drivers of schedulers and networks: only a face names one.
const DRIVERS: &[&str] = &[
    "bridgehead-local",
    "bridgehead-slurm",
    "bridgehead-kubernetes",
    "bridgehead-events",
    "bridgehead-tcp",
    "bridgehead-ucx",
    "bridgehead-ucx-sys",
];

fn layer(name: &str, folder: &str) -> Option<usize> {
    if FACES.iter().any(|face| folder.starts_with(face)) {
        return Some(LAYERS.len() - 1);
    }
    LAYERS.iter().position(|layer| layer.contains(&name))
}

/// Crates that the table lacks, and arrows that do not point down. What only tests use does not count.
#[must_use]
pub fn violations(metadata: &Metadata) -> Vec<String> {
    let mut wrong = Vec::new();
    let layer_of = |name: &str| {
        let package = metadata.members().find(|package| package.name == name)?;
        layer(name, metadata.folder(package))
    };
    for package in metadata.members() {
        let Some(from) = layer_of(&package.name) else {
            wrong.push(format!("{} is in no layer: put it into the table", package.name));
            continue;
        };
        let shipped = package.dependencies.iter().filter(|d| d.kind.as_deref() != Some("dev"));
        for dependency in shipped.filter(|d| d.path.is_some()) {
            let edge = (package.name.as_str(), dependency.name.as_str());
            if edge == BESIDE {
                continue;
            }
            match layer_of(edge.1) {
                Some(to) if to >= from => wrong.push(format!("{} -> {} does not point down", edge.0, edge.1)),
                Some(_) if DRIVERS.contains(&edge.1) && from + 1 < LAYERS.len() => {
                    wrong.push(format!("{} -> {}: only a face names a driver", edge.0, edge.1));
                }
                _ => {} // Downward; or in no layer, which is said once, of that crate.
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A crate: its name, its folder, and the crates that it depends on with the kind of dependency.
    type Crate<'a> = (&'a str, &'a str, &'a [(&'a str, Option<&'a str>)]);

    /// A workspace of crates gives these complaints.
    fn check(crates: &[Crate<'_>], complaints: &[&str]) {
        let packages: Vec<_> = crates
            .iter()
            .map(|(name, folder, needs)| {
                let dependencies: Vec<_> = needs
                    .iter()
                    .map(|(name, kind)| json!({ "name": name, "kind": kind, "path": "/w/x" }))
                    .collect();
                json!({ "name": name, "version": "1.0.0", "license": null, "source": null,
                    "manifest_path": format!("/w/{folder}/Cargo.toml"), "dependencies": dependencies })
            })
            .collect();
        let document = json!({ "packages": packages, "workspace_root": "/w" });
        let found = violations(&serde_json::from_value(document).unwrap());
        assert_eq!(found.len(), complaints.len(), "{found:?}");
        for (found, expected) in found.iter().zip(complaints) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn arrows_down_are_fine() {
        check(
            &[
                ("bridgehead-spec", "launcher/spec", &[]),
                ("bridgehead-local", "adapters/local", &[("bridgehead-spec", None)]),
                ("bridgehead-bench", "benchmarks/micro", &[("bridgehead-local", None)]),
            ],
            &[],
        );
    }

    #[test]
    fn an_arrow_up_or_sideways_is_refused() {
        check(
            &[
                ("bridgehead-spec", "launcher/spec", &[("bridgehead-plan", None)]),
                (
                    "bridgehead-plan",
                    "launcher/plan",
                    &[("bridgehead-wire", Some("build"))],
                ),
                ("bridgehead-wire", "transport/wire", &[]),
            ],
            &[
                "bridgehead-spec -> bridgehead-plan",
                "bridgehead-plan -> bridgehead-wire",
            ],
        );
    }

    #[test]
    fn nobody_depends_on_a_face() {
        check(
            &[
                ("bridgehead-bench", "benchmarks/micro", &[]),
                ("bridgehead", "launcher/cli", &[("bridgehead-bench", None)]),
            ],
            &["bridgehead -> bridgehead-bench"],
        );
    }

    #[test]
    fn only_a_face_names_a_driver() {
        check(
            &[
                ("bridgehead-local", "adapters/local", &[]),
                ("bridgehead-head", "launcher/head", &[("bridgehead-local", None)]),
            ],
            &["only a face names a driver"],
        );
    }

    #[test]
    fn a_crate_that_the_table_lacks_is_named() {
        check(
            &[("bridgehead-new", "launcher/new", &[])],
            &["bridgehead-new is in no layer"],
        );
    }

    #[test]
    fn tests_may_use_what_they_like() {
        check(
            &[
                ("bridgehead-spec", "launcher/spec", &[("bridgehead-wire", Some("dev"))]),
                ("bridgehead-wire", "transport/wire", &[]),
            ],
            &[],
        );
    }
}
