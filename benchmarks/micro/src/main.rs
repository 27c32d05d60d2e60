//! `micro`: what our own code costs, alone: the scheduler engine with simulated agents, the journal, frames, writable views, sums, manifests. Owns the
//! command line and the report; what is measured lies in `engine`, `formats`, `views`, `sums` and `manifests`. Compares with no peer (`../versus` does).
//!
//! A plain program and not criterion: figures of several units stand in one table, memory among them, each shape is run a few
//! times in one process of some seconds, and `--quick` shows CI that everything runs without a word about time.

mod engine;
mod formats;
mod manifests;
mod meter;
mod report;
mod sums;
mod views;

use clap::Parser;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;

/// Micro benchmarks of our own code.
#[derive(Debug, Parser)]
struct Args {
    /// Everything small: shows that it runs; the times mean nothing.
    #[arg(long)]
    quick: bool,
    /// Writes the rows as JSON too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only rows whose name contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let mut report = Report::new(args.quick, args.only);
    engine::measure(&mut report);
    if let Err(e) = formats::measure(&mut report) {
        eprintln!("micro: the journal cannot be measured in the temporary folder: {e}");
        return ExitCode::FAILURE;
    }
    if let Err(e) = views::measure(&mut report).and_then(|()| sums::measure(&mut report)) {
        eprintln!("micro: no store to measure: {e}");
        return ExitCode::FAILURE;
    }
    if let Err(e) = manifests::measure(&mut report) {
        eprintln!("micro: a gang that cannot be rendered: {e}");
        return ExitCode::FAILURE;
    }
    print!("{}", report.table());
    let written = args.json.map(|path| (std::fs::write(&path, report.json()), path));
    if let Some((Err(e), path)) = written {
        eprintln!("micro: cannot write {}: {e}", path.display());
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
