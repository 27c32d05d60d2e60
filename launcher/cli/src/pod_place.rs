//! Where Kubernetes put this process: rank, life, addresses, what the pod may use. Reads the variables that the pod's template sets
//! (`docs/formats/kubernetes.md`); pure but for the environment that is handed in.

use crate::indices::Indices;
use crate::place::{Variables, number};
use crate::target::kubernetes::LEND;
use bridgehead_kubernetes::pod::{HOME, INDICES, PORT, PROJECT};
use bridgehead_spec::{AgentConfig, Resources};
use bridgehead_topology::Topology;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// This pod's place in its gang.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodPlace {
    /// Its rank; 0 is the head's.
    pub rank: u32,
    /// Pods of the gang.
    pub nodes: u32,
    /// Names this start of the gang.
    pub life: String,
    /// The pod's own address.
    pub address: IpAddr,
    /// The name of the head's Service, with its port.
    pub head: String,
    /// The address of that Service, as Kubernetes told it when the pod began.
    pub service: Option<String>,
    /// How long the head waits for its results to be fetched.
    pub keep: Duration,
    /// How long the run may take.
    pub time_limit: Option<Duration>,
    /// The interpreter.
    pub python: PathBuf,
    /// Where the user's files are to lie.
    project: Option<PathBuf>,
    /// Whether it only lends the run folder.
    pub lends: bool,
    cpu_millis: Option<u64>,
    memory: Option<u64>,
    gpus: u32,
}

impl PodPlace {
    /// Reads the place from a pod's variables.
    ///
    /// # Errors
    /// This process was not started by a pod of ours.
    pub(crate) fn read(variables: &Variables) -> Result<Self, String> {
        let needed = |name: &str| {
            let missing =
                || format!("{name} is not set: this is started by Kubernetes, from what `bridgehead submit` writes");
            variables.get(name).cloned().ok_or_else(missing)
        };
        let first: u32 = number(variables, "BRIDGEHEAD_FIRST_RANK").unwrap_or(0);
        let nodes = number(variables, "BRIDGEHEAD_NODES").unwrap_or(1).max(1);
        let address = needed("BRIDGEHEAD_ADDRESS")?;
        let seconds = |name: &str| number(variables, name).map(Duration::from_secs);
        Ok(Self {
            rank: rank(variables, first, nodes)?,
            nodes,
            life: variables.get("BRIDGEHEAD_LIFE").cloned().unwrap_or_default(),
            address: address
                .parse()
                .map_err(|e| format!("BRIDGEHEAD_ADDRESS={address}: {e}"))?,
            head: needed("BRIDGEHEAD_HEAD")?,
            service: variables
                .get("BRIDGEHEAD_HEAD_SERVICE")
                .and_then(|name| service(variables, name)),
            keep: seconds("BRIDGEHEAD_KEEP").unwrap_or_default(),
            time_limit: seconds("BRIDGEHEAD_TIME_LIMIT"),
            python: variables
                .get("BRIDGEHEAD_PYTHON")
                .map_or_else(|| "python3".into(), PathBuf::from),
            project: variables.get(PROJECT).map(PathBuf::from),
            lends: variables.contains_key(LEND),
            cpu_millis: number(variables, "BRIDGEHEAD_CPU_MILLIS"),
            memory: number(variables, "BRIDGEHEAD_MEMORY"),
            gpus: number(variables, "BRIDGEHEAD_GPUS").unwrap_or(0),
        })
    }

    pub(crate) fn is_head(&self) -> bool {
        self.rank == 0
    }

    /// Where the head's folder service listens: on all addresses of its own network namespace.
    pub(crate) fn listen(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// Where the head is dialled, in order: the address needs no name server.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.service.iter().chain([&self.head]).cloned().collect()
    }

    /// Where the user's files lie.
    pub(crate) fn project(&self) -> PathBuf {
        self.project.clone().unwrap_or_else(|| Path::new(HOME).join("project"))
    }

    /// What this pod's agent may give to tasks.
    pub(crate) fn own(&self, store: Option<u64>) -> AgentConfig {
        let machine = Topology::here();
        let there = machine.usable_memory();
        let memory = self.memory.map_or(there, |memory| memory.min(there));
        AgentConfig {
            resources: Resources {
                cpu_millis: self.cpu_millis.unwrap_or_else(|| machine.usable_cpu_millis()),
                memory,
                gpus: self.gpus,
                named: BTreeMap::new(),
            },
            store_limit: store.unwrap_or(memory / 10 * 3),
        }
    }
}

/// The pod's rank: its index after the first rank of its group. Where the indices of an array are told, which may have gaps, the place
/// among them counts.
fn rank(variables: &Variables, first: u32, nodes: u32) -> Result<u32, String> {
    let index = number(variables, "BRIDGEHEAD_INDEX").or_else(|| number(variables, "JOB_INDEX"));
    let index: u32 = index.ok_or("neither BRIDGEHEAD_INDEX nor JOB_INDEX is a number")?;
    let place = match variables.get(INDICES) {
        None => index,
        Some(text) => {
            let indices = Indices::parse(text).map_err(|e| format!("{INDICES}: {e}"))?;
            if indices.count() != u64::from(nodes) {
                return Err(format!(
                    "{INDICES}={text} has {} indices and BRIDGEHEAD_NODES is {nodes}: they have to agree",
                    indices.count()
                ));
            }
            let lacks = || format!("index {index} is not in {INDICES}={text}: it has to be the array that was started");
            indices.rank(index).ok_or_else(lacks)?
        }
    };
    let rank = first.checked_add(place).filter(|rank| *rank < nodes);
    rank.ok_or_else(|| {
        format!("index {index} after rank {first} is no rank of {nodes} pods: {INDICES} names indices with gaps")
    })
}

/// The address of a Service in the variables that Kubernetes gives to every container.
fn service(variables: &Variables, name: &str) -> Option<String> {
    let name = name.to_uppercase().replace(['-', '.'], "_");
    let host = variables.get(&format!("{name}_SERVICE_HOST"))?;
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    Some(format!("{host}:{PORT}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pairs: &[(&str, &str)]) -> Result<PodPlace, String> {
        let base = [
            ("BRIDGEHEAD_ADDRESS", "10.1.2.3"),
            ("BRIDGEHEAD_HEAD", "r-1.hpc.svc:7641"),
        ];
        let pairs = base.iter().chain(pairs);
        PodPlace::read(&pairs.map(|&(k, v)| (k.to_owned(), v.to_owned())).collect())
    }

    #[test]
    fn a_pods_rank_is_its_index_after_the_first_rank_of_its_group() {
        let found = place(&[
            ("BRIDGEHEAD_FIRST_RANK", "1"),
            ("BRIDGEHEAD_INDEX", "2"),
            ("BRIDGEHEAD_NODES", "4"),
        ]);
        let found = found.expect("a pod");
        assert_eq!((found.rank, found.nodes, found.is_head()), (3, 4, false));
        assert!(
            place(&[("JOB_INDEX", "0")]).expect("a pod").is_head(),
            "an array's index counts too"
        );
        assert!(place(&[]).is_err());
    }

    #[test]
    fn an_index_with_gaps_before_it_has_the_rank_of_its_place() {
        let of = |index, indices, nodes| {
            place(&[
                ("JOB_INDEX", index),
                ("BRIDGEHEAD_INDICES", indices),
                ("BRIDGEHEAD_NODES", nodes),
            ])
        };
        assert!(of("4", "4,7", "2").expect("a pod").is_head(), "the lowest one");
        assert_eq!(of("7", "4,7", "2").expect("a pod").rank, 1);
        for (index, indices, nodes, word) in [
            ("5", "4,7", "2", "index 5"),
            ("4", "4,7", "3", "BRIDGEHEAD_NODES is 3"),
            ("4", "4;7", "2", "no range"),
        ] {
            let error = of(index, indices, nodes).expect_err("no pod of this gang");
            assert!(error.contains(word), "{error} lacks {word}");
        }
        let alone = place(&[("JOB_INDEX", "7"), ("BRIDGEHEAD_NODES", "2")]);
        assert!(
            alone
                .expect_err("a gap that was not told")
                .contains("BRIDGEHEAD_INDICES")
        );
    }

    #[test]
    fn the_head_is_dialled_by_the_services_address_before_its_name() {
        let found = place(&[
            ("BRIDGEHEAD_INDEX", "1"),
            ("BRIDGEHEAD_NODES", "2"),
            ("BRIDGEHEAD_HEAD_SERVICE", "r-1"),
            ("R_1_SERVICE_HOST", "fd00::7"),
        ]);
        assert_eq!(
            found.expect("a pod").addresses(),
            ["[fd00::7]:7641", "r-1.hpc.svc:7641"]
        );
        let without = place(&[("BRIDGEHEAD_INDEX", "0"), ("BRIDGEHEAD_HEAD_SERVICE", "r-1")]);
        assert_eq!(without.expect("a pod").addresses(), ["r-1.hpc.svc:7641"]);
    }

    #[test]
    fn a_pod_gives_what_it_was_given() {
        let found = place(&[
            ("BRIDGEHEAD_INDEX", "0"),
            ("BRIDGEHEAD_CPU_MILLIS", "1500"),
            ("BRIDGEHEAD_MEMORY", "1000000"),
            ("BRIDGEHEAD_GPUS", "2"),
        ]);
        let own = found.expect("a pod").own(None);
        assert_eq!(
            (own.resources.cpu_millis, own.resources.memory, own.resources.gpus),
            (1500, 1_000_000, 2)
        );
        assert_eq!(own.store_limit, 300_000);
    }
}
