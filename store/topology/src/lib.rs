//! Facts of this machine: processors, NUMA nodes, memory, GPUs, limits.
