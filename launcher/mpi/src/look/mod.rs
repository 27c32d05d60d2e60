//! Which MPI a program needs: asked of its file, of a running process, or of a library's path.
//!
//! `elf` reads what one file needs, `loader` finds files as the system's loader would, `cache` reads the loader's list. Nothing
//! of the program is run for it. Everything in these files is a stranger's: read with bounds.

mod cache;
mod elf;
mod loader;

use crate::bootstrap::Family;
use elf::Needs;
use loader::Loader;
use std::collections::{HashSet, VecDeque};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// More libraries than this no program has.
const LIBRARIES_LIMIT: usize = 4096;

/// What an executable or a library says of its MPI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which bootstrap it needs.
    pub family: Family,
    /// The MPI library.
    pub library: PathBuf,
    /// The libpmix that it uses, or that will do for it; only of Open MPI.
    pub libpmix: Option<PathBuf>,
}

/// Why nothing can be said of a program.
#[derive(Debug, thiserror::Error)]
pub enum LookError {
    /// It would not start.
    #[error("{by} needs {library}, which is not found: set LD_LIBRARY_PATH or load the module that brings it")]
    Missing {
        /// The library's name.
        library: String,
        /// What needs it.
        by: PathBuf,
    },
    /// Its file, or that of a library, cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// Which MPI a program needs, along the libraries that its loader would find for it with the variables of `env`. None: it needs
/// none that can be seen; it may be a script, linked as a whole, or load an MPI later.
///
/// # Errors
/// A library that it needs is missing, or a file cannot be read.
pub fn look_at(executable: &Path, env: impl Fn(&str) -> Option<OsString>) -> Result<Option<Found>, LookError> {
    let loader = Loader::of_system(env("LD_LIBRARY_PATH"));
    let mut found = None;
    walk(&loader, executable, |path, needs| {
        if found.is_none() && is_mpi(path) {
            found = Some(family_of(needs).map(|family| (family, path.to_owned())));
        }
    })?;
    Ok(found
        .flatten()
        .map(|(family, library)| complete(&loader, family, library)))
}

/// The MPI that a running process has loaded. None too where the process is gone or not ours.
#[must_use]
pub fn loaded_by(pid: u32) -> Option<Found> {
    let maps = std::fs::read(format!("/proc/{pid}/maps")).ok()?;
    let maps = String::from_utf8_lossy(&maps);
    let paths = maps
        .lines()
        .filter_map(|line| Some(Path::new(&line[line.find('/')?..])));
    paths.filter(|path| is_mpi(path)).find_map(of_library)
}

/// What the library of an MPI at this path is.
#[must_use]
pub fn of_library(path: &Path) -> Option<Found> {
    let needs = elf::read(path).ok()??;
    let loader = Loader::of_system(std::env::var_os("LD_LIBRARY_PATH"));
    family_of(&needs).map(|family| complete(&loader, family, path.to_owned()))
}

/// By its name: the library of an MPI's C functions. `libmpi_cxx` and the like need it too.
fn is_mpi(path: &Path) -> bool {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    ["libmpi.so", "libmpich.so", "libmpi_abi.so"].iter().any(|begin| {
        let rest = name.strip_prefix(begin);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// By what it stands on, because names are shared: `libmpi.so.12` was Open MPI 1.10 before it was MPICH.
fn family_of(needs: &Needs) -> Option<Family> {
    let stands_on = |name: &str| needs.needed.iter().any(|needed| needed.starts_with(name));
    let called = |names: &[&str]| names.iter().any(|name| needs.soname.starts_with(name));
    if stands_on("libopen-pal.so") || stands_on("libopen-rte.so") || called(&["libmpi.so.40", "libmpi.so.80"]) {
        return Some(Family::OpenMpi);
    }
    called(&["libmpi.so.12", "libmpich.so", "libmpi_abi.so"]).then_some(Family::Mpich)
}

fn complete(loader: &Loader, family: Family, library: PathBuf) -> Found {
    let libpmix = (family == Family::OpenMpi)
        .then(|| libpmix_of(loader, &library))
        .flatten();
    Found {
        family,
        library,
        libpmix,
    }
}

/// Open MPI 5 needs it; Open MPI 4 loads it as a plug-in, or has one inside that any other one serves.
fn libpmix_of(loader: &Loader, library: &Path) -> Option<PathBuf> {
    let needed_by = |file: &Path| {
        let mut found = None;
        let done = walk(loader, file, |path, needs| {
            if needs.soname.starts_with("libpmix.so") {
                found.get_or_insert_with(|| path.to_owned());
            }
        });
        done.ok().and(found)
    };
    let real = library.canonicalize().ok()?;
    let folder = real.parent()?;
    let plugins = || {
        let folders = ["openmpi", "openmpi/lib/openmpi3", "openmpi/lib/openmpi", "openmpi3"];
        let entries = folders
            .iter()
            .filter_map(|name| std::fs::read_dir(folder.join(name)).ok())
            .flatten()
            .flatten();
        let plugins = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("mca_pmix_ext"));
        plugins.map(|entry| entry.path()).find_map(|path| needed_by(&path))
    };
    let beside = || {
        let places = [
            "libpmix.so.2",
            "openmpi/libpmix.so.2",
            "pmix/lib/libpmix.so.2",
            "pmix2/lib/libpmix.so.2",
        ];
        places
            .iter()
            .map(|place| folder.join(place))
            .find(|path| path.is_file())
    };
    needed_by(&real).or_else(plugins).or_else(beside).or_else(|| {
        let needs = elf::read(&real).ok()??;
        loader.find("libpmix.so.2", &needs, &[])
    })
}

/// Visits a file and all that it needs, the nearest first.
fn walk(loader: &Loader, file: &Path, mut visit: impl FnMut(&Path, &Needs)) -> Result<(), LookError> {
    let read = |path: &Path| {
        elf::read(path).map_err(|source| LookError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let Some(first) = read(file)? else { return Ok(()) };
    let mut seen: HashSet<String> = HashSet::from([first.soname.clone()]);
    let mut queue = VecDeque::from([(file.to_owned(), first, Vec::<PathBuf>::new())]);
    while let Some((path, needs, inherited)) = queue.pop_front() {
        visit(&path, &needs);
        let own = needs.inherits(&inherited);
        for library in &needs.needed {
            if seen.len() >= LIBRARIES_LIMIT || !seen.insert(library.clone()) {
                continue;
            }
            let missing = || LookError::Missing {
                library: library.clone(),
                by: path.clone(),
            };
            let found = loader.find(library, &needs, &own).ok_or_else(missing)?;
            if let Some(its) = read(&found)? {
                queue.push_back((found, its, own.clone()));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
