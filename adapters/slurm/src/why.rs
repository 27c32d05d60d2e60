//! Slurm's reason codes and end states in words, each with the way out. Owns these sentences; asks nobody.

use crate::record::JobRecord;
use bridgehead_backend::JobState;

/// Why a job waits or how it ended; empty where there is nothing to say.
#[must_use]
pub fn sentence(record: &JobRecord) -> String {
    match record.state() {
        JobState::Pending => waiting(&record.reason, &record.partition),
        JobState::Ended => ended(record),
        JobState::Running if record.word() == "SUSPENDED" => {
            "is suspended: it goes on when the job that took its place ends, or when an administrator resumes it"
                .to_owned()
        }
        JobState::Running | JobState::Unknown => String::new(),
    }
}

/// Limits that Slurm names in several spellings: what the code begins with, and what it means.
const LIMITS: &[(&str, &str)] = &[
    (
        "QOSMaxSubmit",
        "the quality of service allows no more jobs in the queue: wait for others to end, or ask for another qos",
    ),
    (
        "QOSMaxJobs",
        "the quality of service allows no more running jobs of yours: it starts when one ends",
    ),
    (
        "QOSMaxNode",
        "it asks for more nodes than the quality of service allows: ask for fewer nodes or another qos",
    ),
    (
        "QOSMaxCpu",
        "it asks for more cores than the quality of service allows: ask for fewer cores or another qos",
    ),
    (
        "QOSMaxMem",
        "it asks for more memory than the quality of service allows: ask for less or another qos",
    ),
    (
        "QOSMaxGRES",
        "it asks for more GPUs than the quality of service allows: ask for fewer or another qos",
    ),
    (
        "QOSMaxWall",
        "its time limit is longer than the quality of service allows: ask for less time or another qos",
    ),
    (
        "QOSGrp",
        "all users of its quality of service together are at its limit: it starts when others end",
    ),
    (
        "QOSMin",
        "it asks for less than the quality of service demands: ask for more or another qos",
    ),
    (
        "QOSNotAllowed",
        "the partition does not admit its quality of service: ask for another qos or partition",
    ),
    (
        "QOSUsageThreshold",
        "its quality of service has used up its share: it starts when the usage decays, or with another qos",
    ),
    (
        "QOS",
        "a limit of its quality of service holds it back: it starts when others end, or with another qos",
    ),
    (
        "AssocGrp",
        "all users of its account together are at the account's limit: it starts when others end, or with another account",
    ),
    (
        "AssocMaxWall",
        "its time limit is longer than the account allows: ask for less time or another account",
    ),
    (
        "AssocMax",
        "it is over a limit of your account: ask for less, or wait for your other jobs to end",
    ),
    (
        "Assoc",
        "a limit of its account holds it back: it starts when others end, or with another account",
    ),
    (
        "MaxSubmit",
        "you have as many jobs in the queue as the site allows: wait for some to end",
    ),
];

/// Codes with one meaning.
const CODES: &[(&str, &str)] = &[
    ("Resources", "it is the next one and waits for nodes to become free"),
    (
        "Priority",
        "jobs of higher priority are before it; fewer nodes or a shorter time may start sooner",
    ),
    ("Dependency", "it waits for another job to end"),
    (
        "DependencyNeverSatisfied",
        "the job that it waits for ended in a way that lets it never start: cancel it and submit again",
    ),
    (
        "BeginTime",
        "its start lies ahead: Slurm queued it again or it was asked to start later",
    ),
    (
        "JobHeldUser",
        "it is held by its user: `scontrol release JOB` lets it go",
    ),
    ("JobHeldAdmin", "it is held by an administrator: ask them"),
    (
        "JobHoldMaxRequeue",
        "it failed to start too often and is held: see the log in the run folder, then `scontrol release JOB`",
    ),
    (
        "Licenses",
        "its licences are in use: it starts when they are given back",
    ),
    ("Reservation", "it waits for its reservation to begin"),
    (
        "ReservationDeleted",
        "its reservation is gone: submit it with another one, or with none",
    ),
    (
        "InvalidAccount",
        "its account is not valid (any more): `sacctmgr show assoc user=$USER` lists yours",
    ),
    (
        "InvalidQOS",
        "its quality of service is not valid (any more): ask for another qos",
    ),
    (
        "AccountNotAllowed",
        "the partition does not admit its account: ask for another account or partition",
    ),
    (
        "PartitionTimeLimit",
        "its time limit is longer than its partition allows: ask for less time or another partition",
    ),
    (
        "PartitionNodeLimit",
        "it asks for more nodes than its partition gives to a job: ask for fewer or another partition",
    ),
    (
        "PartitionConfig",
        "its partition cannot give what it asks for: `sinfo -l` tells what partitions have",
    ),
    (
        "PartitionDown",
        "its partition is down: ask for another one or wait for the site",
    ),
    (
        "PartitionInactive",
        "its partition takes no jobs now: ask for another one or wait for the site",
    ),
    (
        "BadConstraints",
        "no node has what it asks for: `scontrol show node` lists features, cores, memory and GPUs",
    ),
    (
        "NodeDown",
        "a node that it needs is down: leave nodelist out or wait for the site",
    ),
    (
        "ReqNodeNotAvail",
        "nodes that it needs are down, drained or reserved: leave nodelist out, ask for less time, or wait",
    ),
    ("FrontEndDown", "the site's front end is down: wait for the site"),
    (
        "JobArrayTaskLimit",
        "as many elements of its array run as were allowed at a time",
    ),
    ("Cleaning", "Slurm still cleans up after its earlier run"),
    ("Prolog", "the site's prolog still runs on its nodes"),
    ("BurstBufferResources", "it waits for room in the burst buffer"),
    ("BurstBufferStageIn", "its data are being brought into the burst buffer"),
    ("NodeFailure", "a node failed and it was queued again"),
    (
        "launch failed requeued held",
        "it could not be started on its node and is held: `scontrol release JOB` tries again",
    ),
    (
        "AccountingPolicy",
        "a limit of accounting holds it back: ask for less, or wait for your other jobs to end",
    ),
    (
        "MaxMemPerLimit",
        "it asks for more memory than the partition gives to a job: ask for less memory or more nodes",
    ),
    (
        "DeadLine",
        "it cannot end before its deadline any more: submit it again with a later one",
    ),
];

fn waiting(reason: &str, partition: &str) -> String {
    // ReqNodeNotAvail, and some others, carry a list of nodes behind a comma.
    let (code, detail) = reason.split_once(',').unwrap_or((reason, ""));
    let code = code.trim().trim_matches(['(', ')']);
    let meaning = CODES
        .iter()
        .find(|(known, _)| known.eq_ignore_ascii_case(code))
        .or_else(|| LIMITS.iter().find(|(begin, _)| code.starts_with(begin)));
    let place = if partition.is_empty() {
        String::new()
    } else {
        format!(" (partition {partition})")
    };
    let detail = if detail.trim().is_empty() {
        String::new()
    } else {
        format!(" [{}]", detail.trim())
    };
    match meaning {
        Some((_, meaning)) => format!("waits: {meaning}{place}{detail}"),
        None if code.is_empty() || code == "None" => "waits: Slurm has not looked at it yet".to_owned(),
        None => format!("waits: Slurm says {reason:?}{place}; `scontrol show job JOB` may tell more"),
    }
}

fn ended(record: &JobRecord) -> String {
    let exit = exit(record);
    match record.word() {
        "COMPLETED" => String::new(),
        "FAILED" => match record.reason.as_str() {
            "JobLaunchFailure" | "launch_failed" => {
                format!("failed to start{exit}: the log in the run folder and slurmd's on the node tell why")
            }
            "BadConstraints" => "failed: no node has what it asked for".to_owned(),
            _ => format!("failed{exit}: see slurm-*.out among the run's logs"),
        },
        "TIMEOUT" => {
            "reached its time limit before the run had drained: ask for more time, or a larger signal_before".to_owned()
        }
        "NODE_FAIL" => "a node failed, and the job was not to be queued again: resume the run".to_owned(),
        "PREEMPTED" => "a job of higher priority took its nodes: resume the run, or ask for requeue".to_owned(),
        "OUT_OF_MEMORY" => {
            "its processes took more memory than the job asked for: ask for more memory, or fewer tasks a node"
                .to_owned()
        }
        "CANCELLED" => cancelled(record),
        "BOOT_FAIL" => {
            "its nodes did not boot: resume the run; if it happens again, exclude them and tell the site".to_owned()
        }
        "DEADLINE" => "it could not end before its deadline: submit it again with a later one".to_owned(),
        "REVOKED" => "another cluster of the federation took it".to_owned(),
        other => format!("ended as {other}{exit}"),
    }
}

fn cancelled(record: &JobRecord) -> String {
    match record.reason.as_str() {
        "DependencyNeverSatisfied" | "Dependency" => {
            "was cancelled because the job that it waited for failed".to_owned()
        }
        by if by.starts_with("by ") => format!("was cancelled {}: `bridgehead resume` goes on with the run", user(by)),
        _ => "was cancelled, by its user or by an administrator: `bridgehead resume` goes on with the run".to_owned(),
    }
}

/// `by 1000` as `by user 1000`.
fn user(by: &str) -> String {
    format!("by user {}", by.trim_start_matches("by "))
}

fn exit(record: &JobRecord) -> String {
    match (record.exit.code, record.exit.signal) {
        (0, 0) => String::new(),
        (code, 0) => format!(" with exit code {code}"),
        (_, signal) => format!(" by signal {signal}"),
    }
}

/// The way out of what Slurm refused, by its words; empty where they say it all.
#[must_use]
pub(crate) fn way_out(words: &str) -> &'static str {
    const WAYS: &[(&str, &str)] = &[
        ("invalid partition", "`sinfo -s` lists the partitions"),
        (
            "invalid account",
            "`sacctmgr show assoc user=$USER` lists your accounts and partitions",
        ),
        (
            "invalid qos",
            "`sacctmgr show assoc user=$USER format=account,qos` lists yours",
        ),
        (
            "time limit",
            "ask for less time, or for a partition that allows it (`sinfo -l`)",
        ),
        (
            "node count",
            "ask for fewer nodes, or for a partition that has them (`sinfo -s`)",
        ),
        (
            "node configuration is not available",
            "no node of the partition has as many cores, as much memory or as many GPUs: ask for less",
        ),
        (
            "memory specification",
            "ask for less memory a node, or leave memory out",
        ),
        ("invalid feature", "`sinfo -o \"%P %f\"` lists the features of nodes"),
        (
            "invalid generic resource",
            "`sinfo -o \"%P %G\"` lists the GPUs of nodes and their types",
        ),
        (
            "reservation",
            "`scontrol show reservation` lists reservations and who may use them",
        ),
        ("license", "`scontrol show licenses` lists licences"),
        (
            "dependency",
            "the job that it is to wait for is unknown: submit again without it",
        ),
        ("node name", "`sinfo -N` lists the nodes"),
        (
            "submit limit",
            "you have as many jobs in the queue as the site allows: wait for some to end",
        ),
        (
            "accounting/qos policy",
            "a limit of your account or qos: ask for less, or wait for your jobs to end",
        ),
        (
            "invalid job array",
            "`scontrol show config | grep MaxArraySize` tells how many elements an array may have",
        ),
    ];
    let words = words.to_ascii_lowercase();
    let found = WAYS.iter().find(|(part, _)| words.contains(part));
    found.map_or("", |(_, way)| way)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(state: &str, reason: &str) -> JobRecord {
        JobRecord {
            states: vec![state.to_owned()],
            reason: reason.to_owned(),
            ..JobRecord::default()
        }
    }

    /// A job in this state with this reason is described with this word.
    fn check(state: &str, reason: &str, word: &str) {
        let said = sentence(&record(state, reason));
        assert!(said.contains(word), "{state} {reason}: {said:?} lacks {word:?}");
    }

    #[test]
    fn a_waiting_job_says_what_it_waits_for() {
        check("PENDING", "Resources", "nodes to become free");
        check("PENDING", "Priority", "higher priority");
        check("PENDING", "PartitionTimeLimit", "less time");
        check("PENDING", "PartitionNodeLimit", "fewer");
        check("PENDING", "QOSMaxCpuPerUserLimit", "cores");
        check("PENDING", "QOSMaxWallDurationPerJobLimit", "less time");
        check("PENDING", "AssocGrpGRES", "account's limit");
        check("PENDING", "AssocMaxJobsLimit", "your account");
        check("PENDING", "DependencyNeverSatisfied", "cancel it");
        check(
            "PENDING",
            "ReqNodeNotAvail, UnavailableNodes:n[3-4]",
            "[UnavailableNodes:n[3-4]]",
        );
        check("PENDING", "SomethingOfTomorrow", "SomethingOfTomorrow");
        check("PENDING", "", "not looked");
    }

    #[test]
    fn an_ended_job_says_how_it_ended() {
        check("TIMEOUT", "TimeLimit", "time limit");
        check("NODE_FAIL", "", "resume");
        check("PREEMPTED", "", "higher priority");
        check("OUT_OF_MEMORY", "", "more memory");
        check("CANCELLED", "by 1000", "by user 1000");
        check("BOOT_FAIL", "", "boot");
        check("DEADLINE", "", "deadline");
        check("SUSPENDED", "", "goes on");
        let mut failed = record("FAILED", "NonZeroExitCode");
        failed.exit.code = 3;
        assert!(sentence(&failed).contains("exit code 3"));
        failed.exit.signal = 9;
        assert!(sentence(&failed).contains("signal 9"));
        assert_eq!(sentence(&record("COMPLETED", "")), "");
        assert_eq!(sentence(&record("RUNNING", "")), "");
    }

    #[test]
    fn a_refusal_names_the_way_out() {
        assert!(way_out("Invalid partition name specified").contains("sinfo"));
        assert!(way_out("Requested node configuration is not available").contains("ask for less"));
        assert_eq!(way_out("Weather"), "");
    }
}
