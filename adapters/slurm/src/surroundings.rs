//! What the process finds around it: its variables, and programs on its PATH. Owns which variables Slurm's commands get:
//! those of an outer job would change what they do, and a token is nobody's but ours.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Beginnings of variables that change what Slurm's commands do or print.
const SLURMS: &[&str] = &[
    "SLURM_",
    "SBATCH_",
    "SRUN_",
    "SALLOC_",
    "SQUEUE_",
    "SCANCEL_",
    "SACCT_",
    "SCONTROL_",
    "SINFO_",
    "SLURMRESTD_",
];

/// Variables that Slurm gives to a job besides its own: in a job that is submitted from within another they would name what it
/// does not have.
const OF_A_JOB: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "ENVIRONMENT",
    "GPU_DEVICE_ORDINAL",
    "ROCR_VISIBLE_DEVICES",
    "TMPDIR",
    "ZE_AFFINITY_MASK",
];

/// Variables of a process.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    vars: BTreeMap<String, String>,
}

impl std::fmt::Debug for Surroundings {
    /// The names only: a value may be a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.vars.keys()).finish()
    }
}

impl Surroundings {
    /// Those of this process; a variable that is no UTF-8 text is left out.
    #[must_use]
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        std::env::vars_os().filter_map(text).collect()
    }

    /// A variable, if it is set and not empty.
    #[must_use]
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    }

    /// The variables that Slurm's commands get, and with them the job.
    pub(crate) fn for_commands(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = self.vars.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let within_job = self.var("SLURM_JOB_ID").is_some();
        let of_a_job = move |name: &str| within_job && OF_A_JOB.contains(&name);
        let of_slurm = |name: &str| name != "SLURM_CONF" && SLURMS.iter().any(|begin| name.starts_with(begin));
        all.filter(move |(name, _)| !of_slurm(name) && !of_a_job(name))
    }

    /// The program `name` on the PATH.
    pub(crate) fn program(&self, name: &str) -> Option<PathBuf> {
        let folders = std::env::split_paths(self.var("PATH")?);
        folders.map(|folder| folder.join(name)).find(|path| is_program(path))
    }

    /// The login name.
    pub(crate) fn user(&self) -> Option<&str> {
        self.var("USER").or_else(|| self.var("LOGNAME"))
    }
}

impl FromIterator<(String, String)> for Surroundings {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(vars: I) -> Self {
        Self {
            vars: vars.into_iter().collect(),
        }
    }
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata()
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of variables with these names commands get the expected ones.
    fn check(names: &[&str], expected: &[&str]) -> Surroundings {
        let around: Surroundings = names.iter().map(|name| ((*name).to_owned(), "x".to_owned())).collect();
        let kept: Vec<&str> = around.for_commands().map(|(name, _)| name).collect();
        assert_eq!(kept, expected);
        around
    }

    #[test]
    fn commands_get_no_variable_of_an_outer_job_and_no_token() {
        let names = [
            "HOME",
            "SLURM_CONF",
            "SLURM_JWT",
            "SLURM_JOB_ID",
            "SBATCH_PARTITION",
            "SQUEUE_FORMAT",
            "SLURMS",
            "TMPDIR",
        ];
        let around = check(&names, &["HOME", "SLURMS", "SLURM_CONF"]);
        check(&["TMPDIR", "CUDA_VISIBLE_DEVICES"], &["CUDA_VISIBLE_DEVICES", "TMPDIR"]);
        assert!(!format!("{around:?}").contains('x'), "values are not shown");
    }
}
