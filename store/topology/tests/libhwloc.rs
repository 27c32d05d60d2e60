//! Our readers and libhwloc say the same of the same machine. Only with the feature `hwloc`.
#![cfg(feature = "hwloc")]
#![allow(clippy::unwrap_used)] // A failed step is a failed test.

mod support;

use bridgehead_topology::Topology;
use support::{BY_HAND, real_machines};

/// A text describes the same machine to both.
fn check(name: &str, text: &str) {
    let ours = Topology::from_xml(text).unwrap();
    let theirs = Topology::from_xml_with_libhwloc(text).unwrap();
    assert_eq!(ours, theirs, "{name}");
}

#[test]
fn xml_says_the_same_to_both() {
    check("by hand", BY_HAND);
    for (name, text) in real_machines() {
        check(&name, &text);
    }
}

#[test]
fn what_is_no_xml_is_refused_by_both() {
    assert!(Topology::from_xml("<topology").is_err());
    let error = Topology::from_xml_with_libhwloc("<topology").unwrap_err();
    assert!(error.to_string().starts_with("libhwloc: "), "{error}");
}

/// In another process: the variable holds for a whole process.
#[test]
fn a_library_that_was_told_of_another_machine_is_not_asked_for_this_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/machines/by-hand.xml");
    let done = std::process::Command::new(std::env::current_exe().unwrap())
        .args([
            "this_machine_is_the_same_from_sysfs_and_from_libhwloc",
            "--exact",
            "--nocapture",
        ])
        .env("HWLOC_XMLFILE", file)
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&done.stdout);
    assert!(
        done.status.success() && out.contains("skipped: libhwloc: it was told"),
        "{out}"
    );
}

#[test]
fn this_machine_is_the_same_from_sysfs_and_from_libhwloc() {
    let theirs = match Topology::here_with_libhwloc() {
        Ok(found) => found,
        Err(error) if std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("HWLOC_")) => {
            println!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let ours = Topology::here();
    let processors = |t: &Topology| {
        let p = t.processors.clone();
        (p.online, p.allowed, p.by_core, p.by_package, p.by_l3)
    };
    assert_eq!(processors(&ours), processors(&theirs));
    let nodes = |t: &Topology| -> Vec<_> {
        let nodes = t.numa.iter().cloned();
        nodes
            .map(|n| (n.node, n.processors, n.memory, n.distances, n.allowed))
            .collect()
    };
    assert_eq!(nodes(&ours), nodes(&theirs));
    let total: u64 = theirs.numa.iter().map(|node| node.memory).sum();
    assert_eq!(ours.memory.total, total);
}
