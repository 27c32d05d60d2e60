//! Facts of a machine: processors, NUMA nodes, memory, limits, GPUs, network cards, and what is near what. Owns the types and
//! the reading; decides nothing, changes nothing.
//!
//! This machine is read from procfs and sysfs below a root folder, `/` for itself, so that other machines can be described by a
//! tree of files. What the system does not tell is `None` or empty, never an error: half a description of a machine is better
//! than none. Other machines are read from the XML of hwloc; a file is whole or refused. With the feature `hwloc` both can be
//! read through libhwloc as well, which the tests compare with (`docs/decisions/0014-topology-from-sysfs-xml-and-hwloc.md`).

mod cgroup;
mod devices;
mod hwloc;
mod locality;
mod memory;
mod numa;
mod placement;
mod processors;
mod set;
mod tree;

pub use cgroup::Limits;
pub use devices::{Gpu, GpuLinks, InfinibandPort, NetworkCard};
#[cfg(feature = "hwloc")]
pub use hwloc::HwlocError;
pub use hwloc::{MAX_XML, XmlError};
pub use locality::Locality;
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
    /// How they are linked, where a file tells.
    pub gpu_links: Vec<GpuLinks>,
    /// Network cards that are hardware.
    pub network: Vec<NetworkCard>,
    /// Ports of InfiniBand and RoCE adapters.
    pub infiniband: Vec<InfinibandPort>,
}

impl Topology {
    /// This machine's, as it is for this process now. `HWLOC_XMLFILE` does not change it: a file of another day, or of another
    /// process's cpuset, would promise processors and memory that are not there.
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
        let numa = numa::read(&tree, &processors, &memory);
        Self {
            processors,
            memory,
            shared_memory: memory::shared(&tree),
            limits: cgroup::read(&tree),
            gpus: devices::gpus(&tree, &numa),
            gpu_links: Vec::new(),
            network: devices::network(&tree, &numa),
            infiniband: devices::infiniband(&tree, &numa),
            numa,
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
