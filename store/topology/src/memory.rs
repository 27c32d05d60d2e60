//! Memory of the machine, huge pages, and the size of `/dev/shm`.

use crate::tree::{Tree, field_of, kib};
use serde::{Deserialize, Serialize};

const THP: &str = "sys/kernel/mm/transparent_hugepage";
const HUGETLB: &str = "sys/kernel/mm/hugepages";

/// Memory, in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Memory {
    /// All of the machine's.
    pub total: u64,
    /// What programs could take without swapping.
    pub available: u64,
    /// Transparent huge pages for ordinary memory: `always`, `madvise` or `never`.
    pub transparent: Option<String>,
    /// Transparent huge pages for shared memory: `always`, `within_size`, `advise`, `never`, `deny` or `force`.
    pub transparent_shared: Option<String>,
    /// Pools of reserved huge pages, by size.
    pub huge_pages: Vec<HugePages>,
}

/// A pool of reserved huge pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HugePages {
    /// Bytes of a page.
    pub size: u64,
    /// Pages that are reserved.
    pub total: u64,
    /// Pages of them that are free.
    pub free: u64,
}

/// What can be shared through `/dev/shm`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedMemory {
    /// Its size.
    pub size: u64,
    /// What is free of it.
    pub free: u64,
}

pub(crate) fn read(tree: &Tree) -> Memory {
    let meminfo = tree.text("proc/meminfo").unwrap_or_default();
    let bytes = |key: &str| field_of(&meminfo, key).as_deref().and_then(kib);
    let pools = tree.names(HUGETLB).into_iter().filter_map(|name| pool(tree, &name));
    let mut huge_pages: Vec<_> = pools.collect();
    huge_pages.sort_by_key(|pool| pool.size);
    Memory {
        total: bytes("MemTotal").unwrap_or(0),
        available: bytes("MemAvailable").or_else(|| bytes("MemFree")).unwrap_or(0),
        transparent: tree.text(&format!("{THP}/enabled")).as_deref().and_then(chosen),
        transparent_shared: tree.text(&format!("{THP}/shmem_enabled")).as_deref().and_then(chosen),
        huge_pages,
    }
}

fn pool(tree: &Tree, name: &str) -> Option<HugePages> {
    let size = kib(name.strip_prefix("hugepages-")?)?;
    let count = |file: &str| tree.value(&format!("{HUGETLB}/{name}/{file}"));
    Some(HugePages {
        size,
        total: count("nr_hugepages")?,
        free: count("free_hugepages").unwrap_or(0),
    })
}

/// The word in brackets: `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

pub(crate) fn shared(tree: &Tree) -> Option<SharedMemory> {
    let facts = rustix::fs::statvfs(tree.path("dev/shm")).ok()?;
    Some(SharedMemory {
        size: facts.f_blocks.saturating_mul(facts.f_frsize),
        free: facts.f_bavail.saturating_mul(facts.f_frsize),
    })
}
