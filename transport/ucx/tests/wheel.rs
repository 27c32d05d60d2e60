//! The laws of the port over the newest UCX that a wheel on PyPI brings: over its TCP lane and its shared memory lanes.

mod common;

use common::Source;
use std::path::{Path, PathBuf};

/// Downloaded and unpacked.
static SOURCE: Source = Source {
    name: "wheel",
    variable: "BRIDGEHEAD_UCX_WHEEL",
    fetch: "python3 -m pip download --quiet --no-deps libucx-cu12 && python3 -m zipfile -e libucx_cu12-*.whl . && rm *.whl",
    only_if_asked: None,
    within,
};

fn within(folder: &Path) -> Option<PathBuf> {
    let file = folder.join("libucx/lib/libucp.so.0");
    file.exists().then_some(file)
}
