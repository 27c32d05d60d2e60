//! The text by which a job is known to the rest of the launcher: `<flavour>/<namespace>/<name>/<uid>`. Owns its grammar, which is
//! strict, because the text comes back from files.

use super::kinds::{FLAVORS, word};
use crate::Flavor;
use bridgehead_backend::JobRef;

/// A job, by what the API server knows it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobName {
    /// What kind of object it is.
    pub flavor: Flavor,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: a job of the same name and another uid is another job.
    pub uid: String,
}

/// Letters, digits, `-` and, in names, `.`: nothing that means something in a path.
fn is_name(text: &str, dots: bool) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || (dots && c == '.');
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 253 && text.chars().all(fits) && ends(text.chars().next()) && ends(text.chars().last())
}

impl JobName {
    /// Reads a reference; `None` for what is none.
    pub(crate) fn read(job: &JobRef) -> Option<Self> {
        let parts: Vec<&str> = job.0.split('/').collect();
        let [flavor, namespace, name, uid] = parts[..] else {
            return None;
        };
        let flavor = FLAVORS.into_iter().find(|known| word(*known) == flavor)?;
        let sound = is_name(namespace, false) && is_name(name, true) && is_name(uid, false);
        sound.then(|| Self {
            flavor,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.to_owned(),
        })
    }

    /// The reference to it.
    pub(crate) fn reference(&self) -> JobRef {
        JobRef(format!(
            "{}/{}/{}/{}",
            word(self.flavor),
            self.namespace,
            self.name,
            self.uid
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_reads_back_and_nothing_else_reads() {
        let name = JobName {
            flavor: Flavor::IndexedJob,
            namespace: "hpc".to_owned(),
            name: "bh-run.1".to_owned(),
            uid: "0a1b-2c".to_owned(),
        };
        assert_eq!(JobName::read(&name.reference()), Some(name));
        for bad in [
            "",
            "volcano/hpc/a",
            "volcano/hpc/a/u/x",
            "slurm/hpc/a/u",
            "volcano/../a/u",
            "volcano/hpc/a?b/u",
            "volcano/hpc//u",
            "volcano/hpc/A/u",
            "12",
        ] {
            assert_eq!(JobName::read(&JobRef(bad.to_owned())), None, "{bad}");
        }
    }
}
