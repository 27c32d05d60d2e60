//! What a forked rank asks of the kernel (`_forkserver.py`).

use pyo3::prelude::*;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// This process ends with its parent, whose number is `parent`; now, if that is gone already.
#[pyfunction]
pub fn end_with_parent(parent: i32) -> PyResult<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(std::io::Error::from)?;
    if getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(parent) {
        std::process::exit(1);
    }
    Ok(())
}
