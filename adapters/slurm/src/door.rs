//! The port inside this crate: what both ways to Slurm can do, and how either fails. Owns the sorting of Slurm's words into
//! kinds of trouble, which REST and the commands share.

use crate::job::SlurmJob;
use crate::options::DoorKind;
use crate::record::{JobRecord, Node, Partition};
use crate::why;
use bridgehead_backend::BackendError;

/// A way to Slurm.
pub(crate) trait Door: std::fmt::Debug + Send + Sync {
    /// Which way it is.
    fn kind(&self) -> DoorKind;
    /// The exact text that is handed over for `job`. Pure.
    fn render(&self, job: &SlurmJob) -> Result<String, String>;
    /// Hands the text over; the job's number.
    fn submit(&self, text: &str) -> Result<u64, Trouble>;
    /// What Slurm says of these jobs, with one question; a job that it does not know has no record.
    fn jobs(&self, ids: &[u64]) -> Result<Vec<JobRecord>, Trouble>;
    /// The user's jobs with this comment.
    fn by_comment(&self, comment: &str) -> Result<Vec<JobRecord>, Trouble>;
    /// What accounting says of these jobs; nothing where there is none.
    fn accounted(&self, ids: &[u64]) -> Vec<JobRecord>;
    /// Ends a job; one that is over or unknown is no trouble.
    fn cancel(&self, id: u64) -> Result<(), Trouble>;
    /// Sets what a waiting job waits for.
    fn depend(&self, id: u64, dependency: &str) -> Result<(), Trouble>;
    /// The partitions.
    fn partitions(&self) -> Result<Vec<Partition>, Trouble>;
    /// The nodes.
    fn nodes(&self) -> Result<Vec<Node>, Trouble>;
}

/// Why Slurm did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The answer is lost: whether it was done is not known.
    Lost(String),
    /// It was not done, but may be at another try.
    Busy(String),
    /// It was never reached.
    Unreachable(String),
    /// Who asks is not accepted.
    Denied(String),
    /// It does not do that.
    Refused(String),
}

/// Words of Slurm that tell that an answer is lost.
const LOST: &[&str] = &[
    "socket timed out",
    "zero bytes were transmitted",
    "connection reset",
    "timed out",
    "send failure",
    "receive failure",
];
/// Words that tell that nobody was reached.
const UNREACHABLE: &[&str] = &[
    "unable to contact slurm controller",
    "connection refused",
    "connect failure",
    "connection failure",
    "not responding",
    "unable to establish",
    "could not load conf",
    "slurmctld communications connection error",
];
/// Words that tell that another try may do.
const BUSY: &[&str] = &["temporarily un", "try again", "too many connections", "rate limit"];
/// Words that tell that who asks is not accepted.
const DENIED: &[&str] = &[
    "authentication",
    "credential",
    "unauthorized",
    "access/permission denied",
    "munge",
    "user id",
];

impl Trouble {
    /// Sorts Slurm's words.
    pub(crate) fn of(words: &str) -> Self {
        let lower = words.to_ascii_lowercase();
        let any = |list: &[&str]| list.iter().any(|part| lower.contains(part));
        let said = words.to_owned();
        if any(UNREACHABLE) {
            Self::Unreachable(format!(
                "{said}; `scontrol ping` and `sinfo` tell whether Slurm is up here"
            ))
        } else if any(LOST) {
            Self::Lost(said)
        } else if any(BUSY) {
            Self::Busy(said)
        } else if any(DENIED) {
            Self::Denied(format!(
                "{said}; `scontrol ping` and `munge -n | unmunge` tell whether you are known here"
            ))
        } else {
            let way = why::way_out(words);
            Self::Refused(if way.is_empty() { said } else { format!("{said}: {way}") })
        }
    }

    /// As the port says it.
    pub(crate) fn error(self, doing: &'static str) -> BackendError {
        let backend = crate::NAME;
        match self {
            Self::Lost(reason) | Self::Busy(reason) | Self::Unreachable(reason) => {
                BackendError::Unreachable { backend, doing, reason }
            }
            Self::Denied(reason) => BackendError::Denied { backend, doing, reason },
            Self::Refused(reason) => BackendError::Refused { backend, doing, reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slurms_words_are_sorted() {
        let lost = "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation";
        assert!(matches!(Trouble::of(lost), Trouble::Lost(_)));
        assert!(matches!(
            Trouble::of("Unable to contact slurm controller (connect failure)"),
            Trouble::Unreachable(_)
        ));
        assert!(matches!(
            Trouble::of("Resource temporarily unavailable"),
            Trouble::Busy(_)
        ));
        assert!(matches!(
            Trouble::of("Protocol authentication error"),
            Trouble::Denied(_)
        ));
        let Trouble::Refused(said) = Trouble::of("Invalid partition name specified") else {
            panic!("a wrong partition is refused");
        };
        assert!(said.contains("sinfo"), "{said}");
    }
}
