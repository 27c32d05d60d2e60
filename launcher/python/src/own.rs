//! Values whose arrays this process may write (`bridgehead.get(ref, writable=True)`): their buffers lie in memory of its own,
//! which is the store's until it is written (`store/node/src/own.rs`). Owns the buffers; unpickling so that arrays use them
//! as what they are is `bridgehead/_own.py`'s. Hot path: `unpack`, once a large value.

use crate::array;
use crate::home::fill_view;
use crate::layout::{FRAMED, PICKLE, damaged, parts};
use crate::python::api;
use bridgehead_store_node::{Lease, Own};
use bridgehead_wire::{ARRAY, ArrayHead};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use std::ops::Range;
use std::sync::Arc;

/// A range of memory of this process. Arrays that were made of it keep it alive, with the whole object.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
pub struct OwnBuffer {
    memory: Arc<Own>,
    range: Range<usize>,
}

#[pymethods]
impl OwnBuffer {
    #[allow(unsafe_code)]
    // SAFETY of both: Python calls them with a valid view. The range was checked to lie inside the memory, which lives as long
    // as this object, which the view keeps alive; nobody but this process's own code reads or writes it.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut pyo3::ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let OwnBuffer { memory, range } = slf.get();
        let start = memory.as_mut_ptr().wrapping_add(range.start);
        // SAFETY: as above.
        unsafe { fill_view(slf.as_any(), view, (start, range.len()), false, flags) }
    }

    #[allow(unsafe_code)]
    unsafe fn __releasebuffer__(&self, _view: *mut pyo3::ffi::Py_buffer) {}
}

/// The value in an object of the store.
///
/// # Errors
/// It is damaged, or cannot be made here.
pub fn unpack_lease<'py>(py: Python<'py>, lease: Lease) -> PyResult<Bound<'py, PyAny>> {
    let read = lease.clone();
    unpack_with(py, read.bytes(), || lease.own())
}

/// The value in packed bytes of this process, which stay as they are.
///
/// # Errors
/// As `unpack_lease`.
pub fn unpack<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    unpack_with(py, bytes, || Own::copy_of(bytes))
}

fn unpack_with<'py>(py: Python<'py>, bytes: &[u8], own: impl FnOnce() -> Own + Send) -> PyResult<Bound<'py, PyAny>> {
    let buffers = PyList::empty(py);
    let pickle = match bytes.first() {
        Some(&PICKLE) => 1..bytes.len(),
        Some(&FRAMED) => {
            let (pickle, ranges) = parts(bytes)?;
            let memory = Arc::new(py.detach(own));
            for range in ranges {
                let memory = memory.clone();
                buffers.append(Bound::new(py, OwnBuffer { memory, range })?)?;
            }
            pickle
        }
        Some(&ARRAY) => {
            let (head, range) = ArrayHead::read(bytes).map_err(|e| array::refused(&e))?;
            let memory = Arc::new(py.detach(own));
            let buffer = Bound::new(py, OwnBuffer { memory, range })?;
            return array::shown(py, &head, buffer.as_any(), 0);
        }
        _ => return Err(damaged("its form is unknown")),
    };
    let pickle = PyBytes::new(py, &bytes[pickle]);
    api(py)?
        .own
        .bind(py)
        .call_method1(intern!(py, "loads"), (pickle, buffers))
}
