//! What a writable view of an object costs: a private mapping of the store's pages against a copy of the bytes. Owns a store
//! of its own; who chooses between the two is `store/node/src/own.rs`.

use crate::meter::cpu_ns;
use crate::report::{Report, Target};
use bridgehead_store_node::{Client, Lease, Node, NodeOptions, Own, new_id};
use std::error::Error;
use std::hint::black_box;

/// Objects of these sizes, named for people: one that is mapped only just, and a large one.
const SIZES: [(usize, &str); 2] = [(1 << 20, "1 MiB"), (64 << 20, "64 MiB")];

/// Adds the rows.
///
/// # Errors
/// There is no store to be had.
pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    let wanted = |(_, name): &(usize, &str)| report.wants(&row("mapped", name)) || report.wants(&row("copied", name));
    if !SIZES.iter().any(wanted) {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let node = Node::start(NodeOptions::new(0, folder.path(), 256 << 20))?;
    let client = Client::connect(&folder.path().join("store.sock"))?;
    for (size, name) in SIZES {
        let mut reservation = client.reserve(size)?;
        reservation.bytes().fill(7);
        let (object, lease) = reservation.seal(new_id()?);
        node.publish(&object)?;
        let mapped = best(report, size, &lease, Lease::own);
        let copied = best(report, size, &lease, |lease| Own::copy_of(lease.bytes()));
        report.add(row("mapped", name), mapped, "ns", Some(Target::AtMost(copied)));
        report.add(row("copied", name), copied, "ns", None);
    }
    Ok(())
}

fn row(how: &str, name: &str) -> String {
    format!("view: writable, {name}, one page touched, {how}")
}

/// Best time of making a view, writing to one page of it, and dropping it.
fn best(report: &Report, size: usize, lease: &Lease, own: impl Fn(Lease) -> Own) -> f64 {
    let times = report.size((1 << 30) / size);
    let run = || {
        let begin = cpu_ns();
        for _ in 0..times {
            let view = own(lease.clone());
            touch(&view);
            black_box(&view);
        }
        (cpu_ns() - begin) as f64 / times as f64
    };
    (0..report.repeats()).map(|_| run()).fold(f64::MAX, f64::min)
}

#[allow(unsafe_code)]
fn touch(view: &Own) {
    // SAFETY: the view is not empty, and nobody else has it.
    unsafe { view.as_mut_ptr().write_volatile(1) };
}
