//! Descriptions of machines that the suites share: the one made by hand, and those of real machines where this checkout has
//! them beside it.

use std::path::{Path, PathBuf};

/// Made by hand: 2 packages, 4 NUMA nodes, 4 GPUs, 2 network cards.
pub const BY_HAND: &str = include_str!("../machines/by-hand.xml");

/// The files of real machines, by name: in `BRIDGEHEAD_TOPOLOGIES`, or in `shared/topologies` beside the checkout. None, and
/// a word about it, where there are none.
pub fn real_machines() -> Vec<(String, String)> {
    let folder = std::env::var_os("BRIDGEHEAD_TOPOLOGIES").map_or_else(beside, PathBuf::from);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!(
            "skipped: no topologies of real machines in {} (BRIDGEHEAD_TOPOLOGIES names another folder)",
            folder.display()
        );
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
    let mut paths: Vec<PathBuf> = paths
        .filter(|path| path.extension().is_some_and(|end| end == "xml"))
        .collect();
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(&path).expect("the file can be read"))
    };
    paths.into_iter().map(read).collect()
}

/// `shared/topologies` beside the checkout; a worktree lies one folder deeper.
fn beside() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let places = ["../shared/topologies", "../../shared/topologies"].map(|place| checkout.join(place));
    let found = places.iter().find(|place| place.is_dir());
    found.unwrap_or(&places[0]).clone()
}
