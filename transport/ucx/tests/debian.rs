//! The laws of the port over UCX 1.13, as Debian 12 has it: over its TCP lane and its shared memory lanes. Only where asked for,
//! because that release is not taken without RDMA: it may end the process when a peer is lost and comes back.

mod common;

use common::Source;
use std::path::{Path, PathBuf};

/// Installed, or fetched and unpacked.
static SOURCE: Source = Source {
    name: "debian",
    variable: "BRIDGEHEAD_UCX_DEBIAN",
    fetch: "apt-get download libucx0 && dpkg -x libucx0_*.deb .",
    only_if_asked: Some(
        "UCX 1.13 may end this process when a peer is lost and comes back (docs/decisions/0011-ucx.md)",
    ),
    within,
};

fn within(folder: &Path) -> Option<PathBuf> {
    let libraries = std::fs::read_dir(folder.join("usr/lib")).ok()?;
    let mut files = libraries.filter_map(|entry| Some(entry.ok()?.path().join("libucp.so.0")));
    files.find(|file| file.exists())
}
