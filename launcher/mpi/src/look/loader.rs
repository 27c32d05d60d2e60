//! Finds libraries as the system's loader does: the file's own folders, `LD_LIBRARY_PATH`, the loader's list, the system's folders.
//! Owns the order; reads of each candidate only whether it is for the same processor.

use super::cache;
use super::elf::{self, Needs};
use std::collections::HashMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Where the loader keeps its list.
const LIST: &str = "/etc/ld.so.cache";
/// Of glibc and musl, on the distributions that there are.
const FOLDERS: &[&str] = &[
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

pub(super) struct Loader {
    library_path: Vec<PathBuf>,
    list: HashMap<String, Vec<PathBuf>>,
}

impl Loader {
    /// This system's, with the value of `LD_LIBRARY_PATH`.
    pub fn of_system(library_path: Option<OsString>) -> Self {
        let library_path = library_path
            .map(|list| std::env::split_paths(&list).collect())
            .unwrap_or_default();
        // A system without a list (musl) has folders only.
        let list = std::fs::read(LIST)
            .map(|bytes| cache::parse(&bytes))
            .unwrap_or_default();
        Self { library_path, list }
    }

    /// The file of a library that `by` needs; `inherited` are the folders that count before all others.
    pub fn find(&self, library: &str, by: &Needs, inherited: &[PathBuf]) -> Option<PathBuf> {
        let fits = |path: &PathBuf| {
            path.is_file()
                && elf::read(path)
                    .ok()
                    .flatten()
                    .is_some_and(|found| found.kind == by.kind)
        };
        if library.contains('/') {
            return Some(PathBuf::from(library)).filter(fits);
        }
        // A file with a runpath does not look into what it inherits.
        let first = if by.runpath.is_empty() { inherited } else { &[] };
        let own = first
            .iter()
            .chain(&self.library_path)
            .chain(&by.runpath)
            .map(|folder| folder.join(library));
        let listed = self.list.get(library).into_iter().flatten().cloned();
        let system = FOLDERS.iter().map(|folder| Path::new(folder).join(library));
        own.chain(listed).chain(system).find(fits)
    }
}
