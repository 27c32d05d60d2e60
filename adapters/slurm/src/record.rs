//! What Slurm says of jobs, partitions and nodes, in words of no door. Owns these records and what follows from several of
//! them; reads no format.

use bridgehead_backend::JobState;
use std::collections::BTreeMap;

/// One record of a job; an array has several.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JobRecord {
    /// Its own number.
    pub id: u64,
    /// The array that it belongs to, 0 for none.
    pub array: u64,
    /// Slurm's words: the first is the base state, `RUNNING`; flags such as `COMPLETING` follow.
    pub states: Vec<String>,
    /// Slurm's reason code, `Resources`; empty where there is none.
    pub reason: String,
    /// How it ended.
    pub exit: Exit,
    /// Its nodes, as `n[1-2]`.
    pub nodes: String,
    /// Its comment.
    pub comment: String,
    /// Its user's name; empty where nobody said it.
    pub user: String,
    /// Its partition.
    pub partition: String,
    /// When it ends or ended, in seconds since 1970; `None` where nobody knows.
    pub end: Option<u64>,
}

/// How a job ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exit {
    /// The batch script's exit code.
    pub code: u32,
    /// The signal that killed it, 0 for none.
    pub signal: u32,
}

impl Exit {
    /// Reads what `wait` gives.
    #[must_use]
    pub fn of_status(status: u32) -> Self {
        Self {
            code: (status >> 8) & 0xff,
            signal: status & 0x7f,
        }
    }
}

impl JobRecord {
    /// The base state, in upper case; empty where Slurm said none.
    #[must_use]
    pub fn word(&self) -> &str {
        self.states.first().map_or("", String::as_str)
    }

    /// Whether it is, or belongs to, the job `id`.
    #[must_use]
    pub fn is_of(&self, id: u64) -> bool {
        self.id == id || self.array == id
    }

    /// The number by which the whole job is known.
    #[must_use]
    pub fn whole(&self) -> u64 {
        if self.array > 0 { self.array } else { self.id }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> JobState {
        match self.word() {
            "PENDING" | "REQUEUED" | "REQUEUE_FED" | "REQUEUE_HOLD" | "SPECIAL_EXIT" | "RESV_DEL_HOLD" => {
                JobState::Pending
            }
            // A job that is being configured has nodes, but no process yet.
            "CONFIGURING" => JobState::Pending,
            "RUNNING" if self.states.iter().any(|word| word == "CONFIGURING") => JobState::Pending,
            "RUNNING" | "SUSPENDED" | "STOPPED" | "SIGNALING" | "STAGE_OUT" | "RESIZING" => JobState::Running,
            // Its processes are being ended; a job that is queued again has the base state PENDING with this flag.
            "COMPLETING" => JobState::Running,
            "" => JobState::Unknown,
            _ => JobState::Ended,
        }
    }
}

/// Where a job of these records stands as a whole, and the record that says most about it. An array runs while one of its
/// elements does, and waits while none does and one waits.
#[must_use]
pub fn speaks_for(records: &[JobRecord]) -> Option<&JobRecord> {
    let rank = |record: &&JobRecord| match (record.state(), record.word()) {
        (JobState::Running, _) => 0,
        (JobState::Pending, _) => 1,
        // Of the ended ones, one that went wrong says more.
        (JobState::Ended, word) => 2 + u8::from(word == "COMPLETED"),
        (JobState::Unknown, _) => 4,
    };
    records.iter().min_by_key(rank)
}

/// A partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Whether jobs that name none go there; `None` where this version does not tell.
    pub default: Option<bool>,
    /// `UP`, `DOWN`, `DRAIN` or `INACTIVE`.
    pub state: String,
    /// Nodes of a job at most.
    pub max_nodes: Option<u32>,
    /// Minutes of a job at most.
    pub max_minutes: Option<u32>,
    /// Minutes of a job that asks for none.
    pub default_minutes: Option<u32>,
    /// Nodes that it has.
    pub total_nodes: u32,
    /// Accounts that may use it; empty where all may.
    pub accounts: Vec<String>,
}

/// The accounts of a list as Slurm prints it; none where all may.
pub(crate) fn accounts(list: &str) -> Vec<String> {
    let named = list.split(',').map(str::trim).filter(|name| !name.is_empty());
    let named: Vec<String> = named.map(str::to_owned).collect();
    if named.iter().any(|name| name.eq_ignore_ascii_case("all")) {
        return Vec::new();
    }
    named
}

/// A node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Slurm's words, in upper case: `IDLE`, `DOWN`, `DRAIN`.
    pub states: Vec<String>,
    /// Cores, as Slurm counts them.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// GPUs by type; the type is empty where the site names none.
    pub gpus: BTreeMap<String, u32>,
    /// The partitions that it belongs to.
    pub partitions: Vec<String>,
}

impl Node {
    /// Whether a job can be given it, now or when other jobs end.
    #[must_use]
    pub fn usable(&self) -> bool {
        let gone = [
            "DOWN", "DRAIN", "DRAINED", "DRAINING", "FAIL", "FAILING", "ERROR", "FUTURE", "UNKNOWN",
        ];
        !self.states.iter().any(|state| gone.contains(&state.as_str()))
    }

    /// GPUs of this type, or of all types.
    #[must_use]
    pub fn gpus_of(&self, kind: Option<&str>) -> u32 {
        match kind {
            Some(kind) => self.gpus.get(kind).copied().unwrap_or(0),
            None => self.gpus.values().sum(),
        }
    }
}

/// GPUs by type in a node's resources, as `gpu:a100:2(S:0-1),gpu:1,shard:8`.
#[must_use]
pub fn gpus(gres: &str) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    // Brackets hold sockets and indices, with commas of their own.
    let mut depth = 0_i32;
    let flat: String = gres
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let keep = depth <= 0;
            depth -= i32::from(*c == ')');
            keep
        })
        .collect();
    for part in flat.split(',') {
        let words: Vec<&str> = part.trim().split(':').collect();
        let (kind, count) = match words.as_slice() {
            ["gpu"] => ("", "1"),
            ["gpu", count] => ("", *count),
            ["gpu", kind, count] => (*kind, *count),
            _ => continue,
        };
        *found.entry(kind.to_owned()).or_insert(0) += count.parse::<u32>().unwrap_or(0);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(states: &[&str]) -> JobRecord {
        JobRecord {
            states: states.iter().map(|&s| s.to_owned()).collect(),
            ..JobRecord::default()
        }
    }

    #[test]
    fn the_base_state_says_where_a_job_stands() {
        assert_eq!(record(&["PENDING"]).state(), JobState::Pending);
        assert_eq!(record(&["RUNNING", "CONFIGURING"]).state(), JobState::Pending);
        assert_eq!(record(&["CANCELLED", "COMPLETING"]).state(), JobState::Ended);
        assert_eq!(record(&["NODE_FAIL"]).state(), JobState::Ended);
        assert_eq!(record(&["A_STATE_OF_TOMORROW"]).state(), JobState::Ended);
        assert_eq!(record(&[]).state(), JobState::Unknown);
    }

    #[test]
    fn an_array_runs_while_an_element_does() {
        let all = [record(&["COMPLETED"]), record(&["PENDING"]), record(&["RUNNING"])];
        assert_eq!(speaks_for(&all).map(JobRecord::word), Some("RUNNING"));
        assert_eq!(speaks_for(&all[..2]).map(JobRecord::word), Some("PENDING"));
        let ended = [record(&["COMPLETED"]), record(&["FAILED"])];
        assert_eq!(speaks_for(&ended).map(JobRecord::word), Some("FAILED"));
        assert_eq!(speaks_for(&[]), None);
    }

    #[test]
    fn gpus_are_counted_by_type() {
        let counts = |gres: &str| gpus(gres).into_iter().collect::<Vec<_>>();
        assert_eq!(counts("gpu:2(S:0-1)"), [(String::new(), 2)]);
        assert_eq!(counts("gpu:a100:4(S:0,1),shard:8"), [("a100".to_owned(), 4)]);
        assert_eq!(counts("(null)"), []);
    }

    #[test]
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(Exit::of_status(768), Exit { code: 3, signal: 0 });
        assert_eq!(Exit::of_status(139), Exit { code: 0, signal: 11 });
    }
}
