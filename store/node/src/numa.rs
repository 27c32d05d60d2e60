//! Memory of the machine's NUMA nodes: binding ranges of the store to them, and where this thread runs. Owns the two system
//! calls; which range belongs where is decided in `store/core` (`divide`).

#![allow(unsafe_code)] // Two system calls without a wrapper; each site says why it is sound.

use crate::map::Mapping;
use bridgehead_store_core::Arena;
use std::io;

/// What was asked of the kernel for an arena, and what it answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// The NUMA node whose memory is preferred.
    pub numa: u32,
    /// Where the arena begins in the store, in bytes.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// Why the kernel did not do it; the arena is used all the same, with memory of the kernel's choice.
    pub refused: Option<String>,
}

/// Asks for each arena's pages in its NUMA node's memory, before any of them is taken. The policy is the memory file's, so it
/// holds for every process that touches a page first. Preferred and not demanded: a node that has run out must not end a
/// process that writes.
pub(crate) fn bind_all(memory: &Mapping, arenas: &[Arena]) -> Vec<Binding> {
    let mut offset = 0;
    let mut bindings = Vec::new();
    for arena in arenas {
        if let Some(numa) = arena.numa {
            let refused = bind(memory, offset, arena.len, numa).err().map(|e| e.to_string());
            bindings.push(Binding {
                numa,
                offset,
                len: arena.len,
                refused,
            });
        }
        offset += arena.len;
    }
    bindings
}

fn bind(memory: &Mapping, offset: u64, len: u64, numa: u32) -> io::Result<()> {
    const BITS: u32 = u64::BITS;
    let mut mask = vec![0_u64; (numa / BITS) as usize + 1];
    mask[(numa / BITS) as usize] |= 1 << (numa % BITS);
    // The kernel reads one bit fewer than it is told (mbind(2), get_nodes).
    let bits = mask.len() * BITS as usize + 1;
    // SAFETY: the range lies inside the mapping, which `at` checks, and a policy changes no contents; the mask lives and has as
    // many bits as are named.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mbind,
            memory.at(offset, len),
            len,
            libc::MPOL_PREFERRED,
            mask.as_ptr(),
            bits,
            0_u32,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The NUMA node of the processor that this thread runs on; `None` where the kernel does not tell.
pub(crate) fn here() -> Option<u32> {
    let mut node = 0_u32;
    // SAFETY: the kernel writes one number of 32 bits, into a variable that lives; the other places are not asked for.
    let done = unsafe {
        libc::syscall(
            libc::SYS_getcpu,
            std::ptr::null_mut::<u32>(),
            &raw mut node,
            std::ptr::null_mut::<u8>(),
        )
    };
    (done == 0).then_some(node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::{Access, sealed};

    #[test]
    fn each_arena_is_bound_to_its_node_and_what_the_kernel_refuses_is_recorded() {
        let len = 64 << 20;
        let memory = sealed("test-arena", len).expect("memory");
        let memory = Mapping::new(&memory, len, Access::Write).expect("a mapping");
        let arena = |numa, len| Arena {
            numa,
            len,
            nearest: vec![0],
        };
        let here = here().expect("the kernel tells");
        let arenas = [
            arena(Some(here), 16 << 20),
            arena(None, 16 << 20),
            arena(Some(1000), 32 << 20),
        ];
        let bindings = bind_all(&memory, &arenas);
        let plan: Vec<_> = bindings.iter().map(|b| (b.numa, b.offset, b.len)).collect();
        assert_eq!(plan, [(here, 0, 16 << 20), (1000, 32 << 20, 32 << 20)]);
        assert_eq!(bindings[0].refused, None);
        assert!(bindings[1].refused.is_some(), "no machine has a node 1000");
    }
}
