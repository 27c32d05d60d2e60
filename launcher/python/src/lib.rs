//! The Python extension `bridgehead._bridgehead`: connections of clients and workers, run folders, launching.
//! Owns what must not hold the interpreter's lock while it waits; everything that is policy or API is Python.

mod client;
mod convert;
mod inbox;
mod launch;
mod outbox;
mod worker;

use pyo3::prelude::*;

#[pymodule]
fn _bridgehead(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<client::Client>()?;
    m.add_class::<worker::Worker>()?;
    m.add_function(wrap_pyfunction!(launch::new_run, m)?)?;
    m.add_function(wrap_pyfunction!(launch::start, m)?)?;
    m.add_function(wrap_pyfunction!(launch::find_run, m)?)?;
    m.add_function(wrap_pyfunction!(launch::plan_pipeline, m)?)?;
    m.add_function(wrap_pyfunction!(launch::check_pipeline, m)?)?;
    m.add_function(wrap_pyfunction!(launch::read_journal, m)?)?;
    m.add_function(wrap_pyfunction!(launch::read_state, m)?)?;
    m.add_function(wrap_pyfunction!(launch::next_attempt, m)?)?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))?;
    Ok(())
}
