//! Facts of this machine, read from procfs and sysfs: processors, NUMA nodes, memory, limits, GPUs, network cards. Owns the
//! types and the reading; decides nothing, changes nothing. What the system does not tell is `None` or empty, never an error:
//! half a description of a machine is better than none.
//!
//! Everything is read below a root folder, `/` for this machine, so that other machines can be described by a tree of files.

mod cgroup;
mod devices;
mod memory;
mod numa;
mod processors;
mod set;
mod tree;

pub use cgroup::Limits;
pub use devices::{Gpu, InfinibandPort, NetworkCard};
pub use memory::{HugePages, Memory, SharedMemory};
pub use numa::NumaNode;
pub use processors::Processors;
pub use set::NumberSet;

use serde::{Deserialize, Serialize};
use std::path::Path;
use tree::Tree;

/// What a machine has, as seen by this process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Topology {
    /// Processors, and which of them this process may use.
    pub processors: Processors,
    /// NUMA nodes, by number; at least one.
    pub numa: Vec<NumaNode>,
    /// Memory of the whole machine.
    pub memory: Memory,
    /// What is shared through `/dev/shm`; `None` where there is none.
    pub shared_memory: Option<SharedMemory>,
    /// Limits on this process, its control groups' among them.
    pub limits: Limits,
    /// GPUs.
    pub gpus: Vec<Gpu>,
    /// Network cards that are hardware.
    pub network: Vec<NetworkCard>,
    /// Ports of InfiniBand and RoCE adapters.
    pub infiniband: Vec<InfinibandPort>,
}

impl Topology {
    /// This machine's.
    #[must_use]
    pub fn here() -> Self {
        Self::read(Path::new("/"))
    }

    /// That of the machine whose files lie under `root`.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let tree = Tree::new(root);
        let processors = processors::read(&tree);
        let memory = memory::read(&tree);
        Self {
            numa: numa::read(&tree, &processors, &memory),
            processors,
            memory,
            shared_memory: memory::shared(&tree),
            limits: cgroup::read(&tree),
            gpus: devices::gpus(&tree),
            network: devices::network(&tree),
            infiniband: devices::infiniband(&tree),
        }
    }

    /// Cores' worth of time that this process can use at once, in thousandths: its processors, less if a quota is lower.
    #[must_use]
    pub fn usable_cpu_millis(&self) -> u64 {
        let allowed = 1000 * self.processors.allowed.len() as u64;
        self.limits.cpu_millis.map_or(allowed, |quota| quota.min(allowed))
    }

    /// Bytes that this process can use: the machine's memory, less if a limit is lower.
    #[must_use]
    pub fn usable_memory(&self) -> u64 {
        let total = self.memory.total;
        self.limits.memory.map_or(total, |limit| limit.min(total))
    }
}
