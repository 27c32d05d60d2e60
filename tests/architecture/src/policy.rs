//! Licences, duplicates and sources of what we depend on, as `deny.toml` allows them. The file is cargo-deny's, so that both
//! read the same words; its advisories need the network and are cargo-deny's alone.

use crate::metadata::Metadata;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The parts of `deny.toml` that need no network.
#[derive(Debug, Deserialize)]
pub struct Policy {
    licenses: Licences,
    bans: Bans,
    sources: Sources,
}

#[derive(Debug, Deserialize)]
struct Licences {
    allow: Vec<String>,
    #[serde(default)]
    exceptions: Vec<Exception>,
}

/// What one package may have besides.
#[derive(Debug, Deserialize)]
struct Exception {
    #[serde(rename = "crate")]
    package: String,
    allow: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Bans {
    skip: Vec<Skip>,
    deny: Vec<Banned>,
}

#[derive(Debug, Deserialize)]
struct Skip {
    #[serde(rename = "crate")]
    package: String,
}

#[derive(Debug, Deserialize)]
struct Banned {
    #[serde(rename = "crate")]
    package: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Sources {
    allow_registry: Vec<String>,
}

impl Policy {
    /// Reads `deny.toml`.
    ///
    /// # Errors
    /// It is not valid.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// What the packages break.
    #[must_use]
    pub fn violations(&self, metadata: &Metadata) -> Vec<String> {
        let mut wrong = self.licences(metadata);
        wrong.extend(self.duplicates(metadata));
        wrong.extend(self.banned(metadata));
        wrong.extend(self.foreign(metadata));
        wrong
    }

    fn licences(&self, metadata: &Metadata) -> Vec<String> {
        let allowed = |package: &str, asked: &String| {
            let mut besides = self.licenses.exceptions.iter().filter(|one| one.package == package);
            self.licenses.allow.contains(asked) || besides.any(|one| one.allow.contains(asked))
        };
        let refused = |package: &str, text: &str| match spdx::Expression::parse_mode(text, spdx::ParseMode::LAX) {
            Ok(expression) => !expression.evaluate(|asked| allowed(package, &asked.to_string())),
            Err(_) => true,
        };
        let packages = metadata.packages.iter();
        packages
            .filter(|package| {
                package
                    .license
                    .as_deref()
                    .is_none_or(|text| refused(&package.name, text))
            })
            .map(|package| {
                let licence = package.license.as_deref().unwrap_or("none");
                format!(
                    "{} {}: licence {licence:?} is not allowed",
                    package.name, package.version
                )
            })
            .collect()
    }

    fn duplicates(&self, metadata: &Metadata) -> Vec<String> {
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for package in &metadata.packages {
            let skipped = self.bans.skip.iter().any(|skip| {
                let (name, version) = skip.package.split_once('@').unwrap_or((&skip.package, ""));
                name == package.name && package.version.starts_with(version)
            });
            if !skipped {
                versions.entry(&package.name).or_default().push(&package.version);
            }
        }
        let several = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
        several
            .map(|(name, versions)| format!("{name} is there in versions {versions:?}"))
            .collect()
    }

    fn banned(&self, metadata: &Metadata) -> Vec<String> {
        let packages = metadata.packages.iter();
        packages
            .filter(|package| self.bans.deny.iter().any(|banned| banned.package == package.name))
            .map(|package| format!("{} is banned", package.name))
            .collect()
    }

    fn foreign(&self, metadata: &Metadata) -> Vec<String> {
        let packages = metadata
            .packages
            .iter()
            .filter_map(|package| Some((package, package.source.as_ref()?)));
        packages
            .filter(|(_, source)| {
                let url = source.strip_prefix("registry+").unwrap_or(source);
                !self.sources.allow_registry.iter().any(|allowed| allowed == url)
            })
            .map(|(package, source)| format!("{} comes from {source}", package.name))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const POLICY: &str = r#"
        [licenses]
        allow = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]
        exceptions = [{ crate = "tool", allow = ["MPL-2.0"] }]
        [bans]
        skip = [{ crate = "old@1", reason = "somebody needs it" }]
        deny = [{ crate = "openssl-sys" }]
        [sources]
        allow-registry = ["https://index"]
    "#;

    fn package(name: &str, version: &str, license: Option<&str>, source: Option<&str>) -> Value {
        json!({ "name": name, "version": version, "license": license, "source": source,
            "manifest_path": "/w/Cargo.toml", "dependencies": [] })
    }

    /// These packages give complaints that contain these words.
    fn check(packages: &[Value], complaints: &[&str]) {
        let document = json!({ "packages": packages, "workspace_root": "/w" });
        let metadata = serde_json::from_value(document).unwrap();
        let found = Policy::parse(POLICY).unwrap().violations(&metadata);
        assert_eq!(found.len(), complaints.len(), "{found:?}");
        for (found, expected) in found.iter().zip(complaints) {
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn one_allowed_licence_of_several_is_enough() {
        let from = Some("registry+https://index");
        check(
            &[
                package("a", "1.0.0", Some("MIT OR GPL-3.0-only"), from),
                package("b", "1.0.0", Some("MIT/Apache-2.0"), from),
                package("c", "1.0.0", Some("Apache-2.0 WITH LLVM-exception"), from),
                package("ours", "1.0.0", Some("MIT"), None),
            ],
            &[],
        );
    }

    #[test]
    fn an_exception_is_one_package_s() {
        let from = Some("registry+https://index");
        check(
            &[
                package("tool", "1.0.0", Some("MPL-2.0"), from),
                package("other", "1.0.0", Some("MPL-2.0"), from),
            ],
            &["other 1.0.0"],
        );
    }

    #[test]
    fn a_licence_that_is_not_allowed_is_named() {
        check(
            &[
                package("a", "1.0.0", Some("GPL-3.0-only"), None),
                package("b", "1.0.0", Some("MIT AND GPL-3.0-only"), None),
                package("c", "1.0.0", None, None),
                package("d", "1.0.0", Some("no such licence"), None),
            ],
            &[
                "\"GPL-3.0-only\"",
                "\"MIT AND GPL-3.0-only\"",
                "\"none\"",
                "\"no such licence\"",
            ],
        );
    }

    #[test]
    fn two_versions_of_a_package_are_refused_unless_one_is_excused() {
        check(
            &[
                package("old", "1.9.0", Some("MIT"), None),
                package("old", "2.0.0", Some("MIT"), None),
                package("a", "1.0.0", Some("MIT"), None),
                package("a", "2.0.0", Some("MIT"), None),
            ],
            &["a is there in versions"],
        );
    }

    #[test]
    fn a_banned_package_and_a_foreign_source_are_refused() {
        check(
            &[package(
                "openssl-sys",
                "1.0.0",
                Some("MIT"),
                Some("git+https://elsewhere"),
            )],
            &["openssl-sys is banned", "comes from git+https://elsewhere"],
        );
    }
}
