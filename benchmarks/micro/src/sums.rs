//! What sums of objects cost (`--verify-objects`): a put of an object with and without, and the sum alone. Owns a store of each
//! kind; the sum is `store/node/src/verify.rs`'s.

use crate::meter::cpu_ns;
use crate::report::Report;
use bridgehead_store_node::{Client, Node, NodeOptions, new_id, sum_of};
use std::error::Error;
use std::hint::black_box;

const SIZES: [(usize, &str); 3] = [(1 << 10, "1 KiB"), (1 << 20, "1 MiB"), (64 << 20, "64 MiB")];

/// Adds the rows.
///
/// # Errors
/// There is no store to be had.
pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn Error>> {
    for (size, name) in SIZES {
        let rows = ["put, no sum", "put, with its sum", "the sum alone"].map(|what| format!("object: {name}, {what}"));
        if !rows.iter().any(|row| report.wants(row)) {
            continue;
        }
        let bytes = vec![7; size];
        let times = report.size((1 << 30) / size).min(100_000);
        for (row, verify) in rows.iter().zip([false, true]) {
            let best = puts(report.repeats(), times, &bytes, verify)?;
            report.add(row.clone(), best, "ns", None);
        }
        let sum = || sum_of(black_box(&bytes));
        let best = (0..report.repeats()).map(|_| {
            each(times, || {
                black_box(sum());
            })
        });
        report.add(rows[2].clone(), best.fold(f64::MAX, f64::min), "ns", None);
    }
    Ok(())
}

fn each(times: usize, mut work: impl FnMut()) -> f64 {
    let begin = cpu_ns();
    (0..times).for_each(|_| work());
    (cpu_ns() - begin) as f64 / times as f64
}

/// Best time of a put, each object released before the next.
fn puts(repeats: usize, times: usize, bytes: &[u8], verify: bool) -> Result<f64, Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let options = NodeOptions {
        verify,
        ..NodeOptions::new(0, folder.path(), 256 << 20)
    };
    let node = Node::start(options)?;
    let client = Client::connect(&folder.path().join("store.sock"))?;
    let put = || -> Result<(), Box<dyn Error>> {
        let mut reservation = client.reserve(bytes.len())?;
        reservation.bytes().copy_from_slice(bytes);
        let (object, lease) = reservation.seal(new_id()?);
        node.publish(&object)?;
        drop(lease);
        node.release(object.id());
        Ok(())
    };
    put()?;
    let mut failed = Ok(());
    let best = (0..repeats).map(|_| {
        each(times, || {
            if failed.is_ok() {
                failed = put();
            }
        })
    });
    let best = best.fold(f64::MAX, f64::min);
    failed.map(|()| best)
}
