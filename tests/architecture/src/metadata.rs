//! The part of `cargo metadata` that the rules look at.

use serde::Deserialize;

/// What `cargo metadata --format-version 1` prints.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// All packages, ours and others'.
    pub packages: Vec<Package>,
    /// Absolute path of the workspace.
    pub workspace_root: String,
    /// Target folder: nothing in it is source.
    #[serde(default)]
    pub target_directory: String,
}

/// A package.
#[derive(Debug, Deserialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its licence as an SPDX expression.
    pub license: Option<String>,
    /// Where it comes from; `None` for a path.
    pub source: Option<String>,
    /// Absolute path of its `Cargo.toml`.
    pub manifest_path: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// A dependency as a manifest asks for it.
#[derive(Debug, Deserialize)]
pub struct Dependency {
    /// The name of the other package.
    pub name: String,
    /// `None` for what ships, `dev` or `build` otherwise.
    pub kind: Option<String>,
    /// Its path, where it is one of ours.
    pub path: Option<String>,
}

impl Metadata {
    /// Packages of this workspace.
    pub fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| package.source.is_none())
    }

    /// Folder of a member, relative to the workspace.
    #[must_use]
    pub fn folder<'a>(&self, package: &'a Package) -> &'a str {
        let path = package.manifest_path.strip_prefix(&self.workspace_root);
        let path = path.unwrap_or(&package.manifest_path).trim_start_matches('/');
        path.strip_suffix("Cargo.toml").unwrap_or(path).trim_end_matches('/')
    }
}
