//! The Python extension `bridgehead._bridgehead`: what has to be fast or touches the store. Everything else is Python.
//!
//! Hot path: `client::Client::submit`, `futures::complete`, `worker::run`, `pack`. Start reading at `client.rs` and `worker.rs`.

mod array;
mod asking;
mod client;
mod device;
mod draft;
mod fork;
mod futures;
mod guest;
mod home;
mod launch;
mod layout;
mod named;
mod note;
mod options;
mod own;
mod pack;
mod printed;
mod python;
mod receive;
mod shared;
mod watchdog;
mod worker;

use pyo3::prelude::*;

/// The module.
#[pymodule]
fn _bridgehead(m: &Bound<'_, PyModule>) -> PyResult<()> {
    m.add_class::<client::Client>()?;
    m.add_class::<device::DeviceBuffer>()?;
    m.add_class::<draft::Draft>()?;
    m.add_class::<futures::Raw>()?;
    m.add_class::<guest::Guest>()?;
    m.add_class::<home::Kept>()?;
    m.add_class::<home::StoreBuffer>()?;
    m.add_class::<options::Options>()?;
    m.add_class::<own::OwnBuffer>()?;
    m.add_class::<worker::Worker>()?;
    m.add_function(wrap_pyfunction!(pack::load_input, m)?)?;
    m.add_function(wrap_pyfunction!(pack::note_task, m)?)?;
    m.add_function(wrap_pyfunction!(pack::note_kept, m)?)?;
    m.add_function(wrap_pyfunction!(pack::note_reference, m)?)?;
    m.add_function(wrap_pyfunction!(pack::note_object, m)?)?;
    m.add_function(wrap_pyfunction!(fork::end_with_parent, m)?)?;
    m.add_function(wrap_pyfunction!(pack::adopt, m)?)?;
    m.add_function(wrap_pyfunction!(pack::keep_packed, m)?)?;
    m.add_function(wrap_pyfunction!(pack::packing_owner, m)?)?;
    m.add_function(wrap_pyfunction!(pack::keep_here, m)?)?;
    m.add_function(wrap_pyfunction!(pack::pack_arguments, m)?)?;
    m.add_function(wrap_pyfunction!(pack::pack_bytes, m)?)?;
    m.add_function(wrap_pyfunction!(pack::unpack_bytes, m)?)?;
    m.add_function(wrap_pyfunction!(pack::unpack_file, m)?)?;
    m.add_function(wrap_pyfunction!(launch::create_run, m)?)?;
    m.add_function(wrap_pyfunction!(launch::resolve_run, m)?)?;
    m.add_function(wrap_pyfunction!(launch::write_config, m)?)?;
    m.add_function(wrap_pyfunction!(launch::canonical_spec, m)?)?;
    m.add_function(wrap_pyfunction!(launch::start, m)?)?;
    m.add_function(wrap_pyfunction!(launch::machine, m)?)?;
    m.add_function(wrap_pyfunction!(launch::plan, m)?)?;
    m.add_function(wrap_pyfunction!(launch::read_state, m)?)?;
    m.add_function(wrap_pyfunction!(launch::read_journal, m)?)?;
    m.add("__version__", env!("CARGO_PKG_VERSION"))
}
