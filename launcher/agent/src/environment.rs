//! Variables for new processes: the agent's own with the run's on top, made ready once, so that a program adds its few.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A set of variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// Name to `name=value`.
    vars: BTreeMap<OsString, CString>,
}

impl Environment {
    /// The variables of this process.
    pub(crate) fn inherited() -> Self {
        let mut all = Self::default();
        for (name, value) in std::env::vars_os() {
            all.set(&name, &value);
        }
        all
    }

    /// Sets a variable; one that no environment can hold (a NUL in it) is left out.
    pub(crate) fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let name = name.as_ref();
        if let Some(pair) = pair(name, value.as_ref()) {
            self.vars.insert(name.to_owned(), pair);
        }
    }

    /// Sets a variable that is not there yet.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        if !self.vars.contains_key(OsStr::new(name)) {
            self.set(name, value);
        }
    }

    /// Takes a variable away.
    pub(crate) fn unset(&mut self, name: &str) {
        self.vars.remove(OsStr::new(name));
    }

    /// Keeps the variables whose names `keep` approves; those that are no text are kept.
    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.vars.retain(|name, _| name.to_str().is_none_or(&keep));
    }

    /// All variables with their values.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.vars.iter().filter_map(|(name, pair)| {
            let value = pair.to_bytes().get(name.len() + 1..)?;
            Some((name.as_os_str(), OsStr::from_bytes(value)))
        })
    }

    /// The value of a variable.
    pub(crate) fn get(&self, name: &str) -> Option<&OsStr> {
        let pair = self.vars.get(OsStr::new(name))?.to_bytes();
        pair.get(name.len() + 1..).map(OsStr::from_bytes)
    }

    /// What exec takes: these variables with those of `over` in place of or besides them.
    pub(crate) fn block<'a>(&'a self, over: &'a Environment) -> Vec<&'a CStr> {
        let kept = self.vars.iter().filter(|(name, _)| !over.vars.contains_key(*name));
        kept.map(|(_, pair)| pair)
            .chain(over.vars.values())
            .map(CString::as_c_str)
            .collect()
    }
}

fn pair(name: &OsStr, value: &OsStr) -> Option<CString> {
    let mut bytes = Vec::with_capacity(name.len() + value.len() + 2);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(b'=');
    bytes.extend_from_slice(value.as_bytes());
    CString::new(bytes).ok()
}

/// The file that `name` means, as a shell started in `cwd` with `path` as its PATH would find it.
pub(crate) fn find_executable(name: &str, path: Option<&OsStr>, cwd: &Path) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)); // The kernel takes it from the working folder.
    }
    let path = path.unwrap_or(OsStr::new("/usr/local/bin:/usr/bin:/bin"));
    std::env::split_paths(path)
        .map(|folder| cwd.join(folder).join(name))
        .find(|file| rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok() && file.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_of_the_task_replaces_that_of_the_run() {
        let mut run = Environment::default();
        run.set("A", "1");
        run.set("B", "2");
        run.set_default("A", "9");
        let mut task = Environment::default();
        task.set("A", "3");
        assert_eq!(run.block(&task), [c"B=2", c"A=3"]);
        assert_eq!(run.get("A"), Some(OsStr::new("1")));
    }
}
