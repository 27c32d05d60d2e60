//! The Python objects that the extension calls, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyModule;

/// What is called from here.
pub struct Api {
    /// `pickle.dumps`.
    pub dumps: Py<PyAny>,
    /// `pickle.loads`.
    pub loads: Py<PyAny>,
    /// `object.__new__`.
    pub new: Py<PyAny>,
    /// `bridgehead._future.Future`.
    pub future: Py<PyAny>,
    /// The string `FINISHED` by which `concurrent.futures` knows a future that is done.
    pub finished: Py<PyAny>,
    /// `bridgehead._pickling`.
    pub pickling: Py<PyModule>,
    /// `bridgehead._own`.
    pub own: Py<PyModule>,
    /// `bridgehead._failures`.
    pub failures: Py<PyModule>,
}

static API: PyOnceLock<Api> = PyOnceLock::new();

/// The objects; the first call imports their modules.
///
/// # Errors
/// A module of the package is missing.
pub fn api(py: Python<'_>) -> PyResult<&Api> {
    API.get_or_try_init(py, || {
        let pickle = py.import("pickle")?;
        let future = py.import("bridgehead._future")?;
        Ok(Api {
            dumps: pickle.getattr("dumps")?.unbind(),
            loads: pickle.getattr("loads")?.unbind(),
            new: py.import("builtins")?.getattr("object")?.getattr("__new__")?.unbind(),
            future: future.getattr("Future")?.unbind(),
            finished: py.import("concurrent.futures._base")?.getattr("FINISHED")?.unbind(),
            pickling: py.import("bridgehead._pickling")?.unbind(),
            own: py.import("bridgehead._own")?.unbind(),
            failures: py.import("bridgehead._failures")?.unbind(),
        })
    })
}
