//! Where a batch job put this process: rank, hosts, what it may use of its node. Reads the variables that Slurm sets
//! (`man srun`, "OUTPUT ENVIRONMENT VARIABLES"); pure but for the environment that is handed in.

use bridgehead_spec::{AgentConfig, Resources};
use bridgehead_topology::Topology;
use std::collections::BTreeMap;

/// This process's place in its gang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Its rank; 0 is the head's.
    pub rank: u32,
    /// Nodes of each job of the array, or of the only job.
    pub nodes: u32,
    /// Jobs of the array; 1 without one.
    pub elements: u32,
    /// The job, as the scheduler's commands take it.
    pub job: String,
    /// Names this life of the launch: a job that was started again has another name.
    pub life: String,
    /// Host names of this job's nodes, in the order of ranks; empty where they could not be read.
    pub hosts: Vec<String>,
    /// When the job will be ended, in seconds since the epoch, if the scheduler told.
    pub end_s: Option<u64>,
}

/// Variables by name.
pub(crate) type Variables = BTreeMap<String, String>;

/// The variables of this process that can be read as text.
pub(crate) fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The number that a variable holds.
pub(crate) fn number<T: std::str::FromStr>(variables: &Variables, name: &str) -> Option<T> {
    variables.get(name)?.trim().parse().ok()
}

impl Place {
    /// Reads the place from a job step's variables.
    ///
    /// # Errors
    /// This process was not started by Slurm.
    pub(crate) fn read(variables: &Variables) -> Result<Self, String> {
        let job: String =
            number(variables, "SLURM_JOB_ID").ok_or("SLURM_JOB_ID is not set: start this in a Slurm job")?;
        let node: u32 = number(variables, "SLURM_NODEID").unwrap_or(0);
        let nodes = number(variables, "SLURM_STEP_NUM_NODES").or_else(|| number(variables, "SLURM_NNODES"));
        let nodes: u32 = nodes.unwrap_or(1).max(1);
        let first: u32 = number(variables, "SLURM_ARRAY_TASK_MIN").unwrap_or(0);
        let element = number(variables, "SLURM_ARRAY_TASK_ID").map_or(0, |id: u32| id.saturating_sub(first));
        let elements = number(variables, "SLURM_ARRAY_TASK_COUNT").unwrap_or(1);
        // Another element of an array is started again without the head's: the array as a whole has one life.
        let life = match number::<String>(variables, "SLURM_ARRAY_JOB_ID") {
            Some(array) => array,
            None => format!("{job}.{}", number(variables, "SLURM_RESTART_COUNT").unwrap_or(0)),
        };
        let list = variables
            .get("SLURM_STEP_NODELIST")
            .or_else(|| variables.get("SLURM_JOB_NODELIST"));
        Ok(Self {
            rank: element * nodes + node,
            nodes,
            elements,
            job,
            life,
            hosts: list.and_then(|list| expand(list)).unwrap_or_default(),
            end_s: number(variables, "SLURM_JOB_END_TIME"),
        })
    }

    pub(crate) fn is_head(&self) -> bool {
        self.rank == 0
    }
}

/// What an agent may give to tasks: what the job was given of this node, or what the machine lets this process use.
pub(crate) fn measure(variables: &Variables, machine: &Topology, store: Option<u64>) -> AgentConfig {
    let cpus: Option<u64> = number(variables, "SLURM_CPUS_ON_NODE");
    let cpu_millis = cpus.map_or_else(|| machine.usable_cpu_millis(), |n| n * 1000);
    let mib = number(variables, "SLURM_MEM_PER_NODE");
    let mib = mib.or_else(|| Some(number::<u64>(variables, "SLURM_MEM_PER_CPU")? * cpus?));
    let there = machine.usable_memory();
    // A whole node without a limit of its own is told as 0.
    let memory = mib.filter(|&mib| mib > 0).map_or(there, |mib| (mib << 20).min(there));
    let visible = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"].map(|name| variables.get(name));
    let visible = visible.into_iter().flatten().next();
    let gpus = match visible {
        Some(list) => list.split(',').filter(|part| !part.trim().is_empty()).count(),
        None => number(variables, "SLURM_GPUS_ON_NODE").unwrap_or(0),
    };
    AgentConfig {
        resources: Resources {
            cpu_millis,
            memory,
            gpus: u32::try_from(gpus).unwrap_or(u32::MAX),
            named: BTreeMap::new(),
        },
        store_limit: store.unwrap_or(memory / 10 * 3),
    }
}

/// The names of a host list in Slurm's form, `n[1-3,07],m1`; `None` where it is none.
fn expand(list: &str) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for part in split(list) {
        let Some((prefix, rest)) = part.split_once('[') else {
            names.push(part.to_owned());
            continue;
        };
        let (inner, suffix) = rest.split_once(']')?;
        if suffix.contains('[') {
            return None; // Several brackets in one name are met on very large machines only.
        }
        for range in inner.split(',') {
            let (from, to) = range.split_once('-').unwrap_or((range, range));
            let width = from.len();
            let (from, to): (u32, u32) = (from.parse().ok()?, to.parse().ok()?);
            if to < from || to - from > 100_000 {
                return None;
            }
            names.extend((from..=to).map(|n| format!("{prefix}{n:0width$}{suffix}")));
        }
    }
    Some(names)
}

/// Parts between commas that are in no bracket.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut from) = (Vec::new(), 0i32, 0);
    for (at, c) in list.char_indices() {
        match c {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&list[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&list[from..]);
    parts.retain(|part| !part.is_empty());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(pairs: &[(&str, &str)]) -> Variables {
        pairs.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    #[test]
    fn a_step_of_one_job_has_its_nodes_number_as_rank_and_a_life_for_each_start() {
        let found = Place::read(&variables(&[
            ("SLURM_JOB_ID", "12"),
            ("SLURM_NODEID", "2"),
            ("SLURM_STEP_NUM_NODES", "3"),
            ("SLURM_RESTART_COUNT", "1"),
            ("SLURM_JOB_NODELIST", "n[1-3]"),
        ]));
        let found = found.expect("a job");
        assert_eq!(
            (found.rank, found.nodes, found.elements, found.is_head()),
            (2, 3, 1, false)
        );
        assert_eq!(found.life, "12.1");
        assert_eq!(found.hosts, ["n1", "n2", "n3"]);
        assert!(Place::read(&variables(&[])).is_err());
    }

    #[test]
    fn elements_of_an_array_have_ranks_one_after_another_and_one_life() {
        let found = Place::read(&variables(&[
            ("SLURM_JOB_ID", "15"),
            ("SLURM_ARRAY_JOB_ID", "12"),
            ("SLURM_ARRAY_TASK_ID", "3"),
            ("SLURM_ARRAY_TASK_MIN", "1"),
            ("SLURM_ARRAY_TASK_COUNT", "4"),
            ("SLURM_NODEID", "1"),
            ("SLURM_NNODES", "2"),
        ]));
        let found = found.expect("a job");
        assert_eq!((found.rank, found.elements, found.life.as_str()), (5, 4, "12"));
    }

    #[test]
    fn host_lists_are_expanded_as_slurm_writes_them() {
        let check = |list: &str, names: &[&str]| assert_eq!(expand(list).unwrap_or_default(), names, "{list}");
        check("n1", &["n1"]);
        check("n[1-3]", &["n1", "n2", "n3"]);
        check("a[08-10,12]-ib,b7", &["a08-ib", "a09-ib", "a10-ib", "a12-ib", "b7"]);
        check("n[1-", &[]);
        check("n[3-1]", &[]);
        check("r[1-2]n[1-2]", &[]);
    }

    #[test]
    fn a_node_gives_what_the_job_was_given_of_it() {
        let machine = Topology::here();
        let given = measure(
            &variables(&[
                ("SLURM_CPUS_ON_NODE", "6"),
                ("SLURM_MEM_PER_CPU", "10"),
                ("CUDA_VISIBLE_DEVICES", "2,3"),
            ]),
            &machine,
            None,
        );
        let r = &given.resources;
        assert_eq!((r.cpu_millis, r.memory, r.gpus), (6000, 60 << 20, 2));
        assert_eq!(given.store_limit, r.memory / 10 * 3);
        let whole = measure(&variables(&[("SLURM_MEM_PER_NODE", "0")]), &machine, Some(7));
        assert_eq!(whole.resources.memory, machine.usable_memory());
        assert_eq!(
            (whole.resources.cpu_millis, whole.store_limit),
            (machine.usable_cpu_millis(), 7)
        );
    }
}
