//! What can be told of a job before it is submitted, from what the cluster has. Owns the findings; an error among them means
//! that Slurm would refuse the job or leave it waiting for ever.

use crate::job::SlurmJob;
use crate::record::{Node, Partition};

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lint {
    /// Whether the job could never start.
    pub error: bool,
    /// What is wrong and the way out.
    pub words: String,
}

fn error(words: String) -> Lint {
    Lint { error: true, words }
}

fn warning(words: String) -> Lint {
    Lint { error: false, words }
}

/// What the cluster has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cluster {
    /// Its partitions.
    pub partitions: Vec<Partition>,
    /// Its nodes.
    pub nodes: Vec<Node>,
}

impl Cluster {
    /// The partition that a job goes to: the one it names, else the default one.
    #[must_use]
    pub fn partition(&self, named: Option<&str>) -> Option<&Partition> {
        match (named, self.partitions.as_slice()) {
            (Some(name), all) => all.iter().find(|partition| partition.name == name),
            (None, [only]) => Some(only),
            (None, all) => all.iter().find(|partition| partition.default == Some(true)),
        }
    }

    /// The nodes of a partition, all nodes where it is not known.
    pub fn nodes_of<'a>(&'a self, partition: Option<&'a Partition>) -> impl Iterator<Item = &'a Node> {
        let within = move |node: &&Node| partition.is_none_or(|p| node.partitions.contains(&p.name));
        self.nodes.iter().filter(within)
    }
}

/// Everything that can be told of `job` on `cluster`.
#[must_use]
pub fn lint(job: &SlurmJob, cluster: &Cluster) -> Vec<Lint> {
    let mut found = Vec::new();
    // A job may name several partitions; Slurm takes the first that can.
    let named: Vec<&str> = job
        .partition
        .iter()
        .flat_map(|names| names.split(','))
        .map(str::trim)
        .collect();
    for name in &named {
        if cluster.partition(Some(name)).is_none() {
            found.push(error(format!(
                "there is no partition {name}; there are {}",
                names(cluster)
            )));
        }
    }
    if found.is_empty() {
        match named.as_slice() {
            [] => found.extend(within(job, cluster, cluster.partition(None))),
            [name] => found.extend(within(job, cluster, cluster.partition(Some(name)))),
            _ => {}
        }
    }
    if job.time_minutes.is_none() {
        found.push(no_limit(cluster.partition(named.first().copied())));
    }
    found
}

fn names(cluster: &Cluster) -> String {
    let names: Vec<&str> = cluster
        .partitions
        .iter()
        .map(|partition| partition.name.as_str())
        .collect();
    if names.is_empty() {
        "none that you may see".to_owned()
    } else {
        names.join(", ")
    }
}

fn no_limit(partition: Option<&Partition>) -> Lint {
    let default = partition.and_then(|p| p.default_minutes.or(p.max_minutes));
    warning(match default {
        Some(minutes) => {
            format!("no time is asked for, so the partition's {minutes} min apply; a shorter time may start sooner")
        }
        None => "no time is asked for, so the partition's limit applies; a shorter time may start sooner".to_owned(),
    })
}

fn within(job: &SlurmJob, cluster: &Cluster, partition: Option<&Partition>) -> Vec<Lint> {
    let mut found: Vec<Lint> = partition.map_or_else(Vec::new, |partition| limits(job, partition));
    let nodes: Vec<&Node> = cluster.nodes_of(partition).collect();
    if nodes.is_empty() {
        return found; // A site may hide its nodes.
    }
    let place = partition.map_or("this cluster".to_owned(), |p| format!("partition {}", p.name));
    let fitting: Vec<&&Node> = nodes.iter().filter(|node| lacks(job, node).is_none()).collect();
    let up = fitting.iter().filter(|node| node.usable()).count();
    let wanted = job.nodes as usize;
    if fitting.is_empty() {
        let largest = nodes
            .iter()
            .max_by_key(|node| (node.gpus_of(None), node.cpus, node.memory_mib));
        let why = largest.and_then(|node| lacks(job, node)).unwrap_or_default();
        found.push(error(format!("no node of {place} has what is asked for: {why}")));
    } else if fitting.len() < wanted {
        let has = fitting.len();
        found.push(error(format!(
            "{wanted} nodes are asked for, {place} has {has} that fit: ask for fewer"
        )));
    } else if up < wanted {
        found.push(warning(format!(
            "only {up} of the nodes of {place} that fit are up, {wanted} are asked for: it will wait"
        )));
    }
    found
}

fn limits(job: &SlurmJob, partition: &Partition) -> Vec<Lint> {
    let name = &partition.name;
    let mut found = Vec::new();
    if !partition.state.is_empty() && partition.state != "UP" {
        let words = format!(
            "partition {name} is {}: jobs wait in it or are refused",
            partition.state
        );
        found.push(warning(words));
    }
    found.extend(stranger(job, partition));
    if let Some(most) = partition.max_nodes.filter(|&most| job.nodes > most) {
        let words = format!(
            "{} nodes are asked for, partition {name} gives a job at most {most}: ask for fewer",
            job.nodes
        );
        found.push(error(words));
    }
    if let (Some(asked), Some(most)) = (job.time_minutes, partition.max_minutes)
        && asked > most
    {
        found.push(error(format!(
            "{asked} min are asked for, partition {name} gives a job at most {most} min: ask for less; \
             a run that is not done by then goes on in a follow-up job"
        )));
    }
    found.extend(early_signal(job, partition));
    found
}

/// A job of an account for which the partition is not: Slurm takes it where it keeps no accounts, and never starts it.
fn stranger(job: &SlurmJob, partition: &Partition) -> Option<Lint> {
    let (name, may) = (&partition.name, partition.accounts.join(", "));
    if may.is_empty() {
        return None;
    }
    let Some(account) = &job.account else {
        return Some(warning(format!(
            "partition {name} is for {may} only, and no account is given: if yours is another, the job waits for ever"
        )));
    };
    let known = partition.accounts.iter().any(|one| one.eq_ignore_ascii_case(account));
    (!known).then(|| {
        error(format!(
            "account {account} may not use partition {name}, which is for {may}: give another account or partition"
        ))
    })
}

/// A signal that comes no later than the job's start would drain every job of the run before it does anything.
fn early_signal(job: &SlurmJob, partition: &Partition) -> Option<Lint> {
    let limit = partition
        .default_minutes
        .or(partition.max_minutes)
        .filter(|_| job.time_minutes.is_none())?;
    let before = job.signal_before.filter(|&before| before >= limit.saturating_mul(60))?;
    Some(error(format!(
        "no time is asked for, so partition {} gives {limit} min, and the agents would be told to drain {before} s before that: \
         at once; ask for time, or set signal_before",
        partition.name
    )))
}

/// What a node lacks for the job, with what it has.
fn lacks(job: &SlurmJob, node: &Node) -> Option<String> {
    if let Some(gpus) = &job.gpus {
        let has = node.gpus_of(gpus.kind.as_deref());
        if gpus.count > has {
            let kind = gpus
                .kind
                .as_ref()
                .map_or(String::new(), |kind| format!(" of type {kind}"));
            let kinds: Vec<&str> = node
                .gpus
                .keys()
                .map(String::as_str)
                .filter(|kind| !kind.is_empty())
                .collect();
            let types = if kinds.is_empty() {
                String::new()
            } else {
                format!(" (types: {})", kinds.join(", "))
            };
            let words = format!(
                "{} GPUs{kind} a node are asked for, {} has {has}{types}",
                gpus.count, node.name
            );
            return Some(words);
        }
    }
    if let Some(cpus) = job.cpus.filter(|&cpus| cpus > node.cpus) {
        return Some(format!(
            "{cpus} cores a node are asked for, {} has {}",
            node.name, node.cpus
        ));
    }
    let per_cpu = job
        .memory_per_cpu_mib
        .map(|mib| mib * u64::from(job.cpus.unwrap_or(node.cpus)));
    let memory = job.memory_mib.or(per_cpu).filter(|&mib| mib > node.memory_mib)?;
    Some(format!(
        "{memory} MiB a node are asked for, {} has {} MiB",
        node.name, node.memory_mib
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::SlurmOptions;
    use bridgehead_backend::LaunchRequest;
    use bridgehead_spec::RunId;
    use serde_json::json;

    fn cluster() -> Cluster {
        let partition = |name: &str, state: &str, max_nodes, max_minutes| Partition {
            name: name.to_owned(),
            default: Some(name == "main"),
            state: state.to_owned(),
            max_nodes,
            max_minutes,
            default_minutes: Some(10),
            total_nodes: 2,
            accounts: Vec::new(),
        };
        let node = |name: &str, states: &[&str]| Node {
            name: name.to_owned(),
            states: states.iter().map(|&s| s.to_owned()).collect(),
            cpus: 8,
            memory_mib: 16_000,
            gpus: crate::record::gpus("gpu:a100:2"),
            partitions: vec!["main".to_owned(), "old".to_owned()],
        };
        Cluster {
            partitions: vec![
                partition("main", "UP", Some(4), Some(60)),
                partition("old", "DOWN", None, None),
                Partition {
                    accounts: vec!["physics".to_owned()],
                    ..partition("closed", "UP", None, None)
                },
            ],
            nodes: vec![node("n1", &["IDLE"]), node("n2", &["IDLE", "DRAIN"])],
        }
    }

    /// A job of two nodes with these options has findings with these words; the first letter tells error or warning.
    fn check(options: &serde_json::Value, expected: &[(char, &str)]) {
        let agents = options["nodes"]
            .as_u64()
            .map_or(1, |n| u32::try_from(n).expect("small"));
        let run = RunId::parse("lint-1").expect("a sound id");
        let request = LaunchRequest::first(run, "/r".into(), "/p".into(), agents);
        let options = SlurmOptions::read(options).expect("sound options");
        let job = SlurmJob::new(&request, &options).expect("a sound job");
        let found = lint(&job, &cluster());
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (lint, (kind, word)) in found.iter().zip(expected) {
            assert_eq!(lint.error, *kind == 'e', "{lint:?}");
            assert!(lint.words.contains(word), "{lint:?} lacks {word}");
        }
    }

    #[test]
    fn a_job_that_fits_has_no_findings() {
        check(
            &json!({"time": "30m", "gpus": 2, "gpu_type": "a100", "memory": "8GiB"}),
            &[],
        );
    }

    #[test]
    fn what_can_never_start_is_an_error() {
        check(
            &json!({"time": "30m", "partition": "nope"}),
            &[('e', "main, old, closed")],
        );
        check(
            &json!({"time": "30m", "nodes": 5}),
            &[('e', "at most 4"), ('e', "has 2 that fit")],
        );
        check(&json!({"time": "2h"}), &[('e', "at most 60 min")]);
        check(
            &json!({"time": "2h", "partition": "closed", "account": "chemistry"}),
            &[('e', "which is for physics")],
        );
        check(&json!({"time": "30m", "gpus": 3}), &[('e', "3 GPUs")]);
        check(
            &json!({"time": "30m", "gpus": 1, "gpu_type": "h100"}),
            &[('e', "types: a100")],
        );
        check(&json!({"time": "30m", "cpus": 9}), &[('e', "9 cores")]);
        check(&json!({"time": "30m", "memory": "32GiB"}), &[('e', "MiB")]);
    }

    #[test]
    fn a_signal_at_the_start_is_an_error() {
        check(
            &json!({"signal_before": 600}),
            &[('e', "set signal_before"), ('w', "10 min")],
        );
        check(&json!({"signal_before": 599}), &[('w', "10 min")]);
    }

    #[test]
    fn what_only_waits_is_a_warning() {
        check(&json!({}), &[('w', "10 min")]);
        check(&json!({"time": "30m", "partition": "old"}), &[('w', "DOWN")]);
        check(&json!({"time": "30m", "partition": "closed"}), &[('w', "no account")]);
        check(&json!({"time": "30m", "nodes": 2}), &[('w', "only 1")]);
    }
}
