//! Plain numpy arrays as values of their own form, without a pickle (`docs/formats/value.md`, form 3). Owns which arrays are
//! plain and how one is made of its bytes; where the bytes go is `layout.rs`'s. Hot path: `PlainArray::of`, `load`, once an array.

use crate::layout::damaged;
use crate::pack::OUT_OF_BAND;
use bridgehead_guest::link::lock;
use bridgehead_wire::{ArrayError, ArrayHead, MOST_AXES, Numbers};
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyImportError, PyMemoryError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyTuple, PyType};
use std::collections::HashMap;
use std::ffi::CStr;
use std::sync::Mutex;

/// An array that needs no pickle: contiguous numbers of the machine's own.
pub struct PlainArray {
    /// All but the numbers.
    pub head: ArrayHead,
    /// The numbers.
    pub buffer: PyUntypedBuffer,
}

impl PlainArray {
    /// The object as one; `None` for all that is not exactly a numpy array, or has to be pickled.
    pub fn of(object: &Bound<'_, PyAny>) -> Option<Self> {
        if cfg!(target_endian = "big") || !is_ndarray(object) {
            return None;
        }
        let buffer = PyUntypedBuffer::get(object).ok()?; // Some types (dates) have no buffer.
        if buffer.dimensions() > MOST_AXES || !(buffer.is_c_contiguous() || buffer.is_fortran_contiguous()) {
            return None;
        }
        let numbers = numbers_of(buffer.format(), buffer.item_size())?;
        let head = ArrayHead::new(numbers, !buffer.is_c_contiguous(), buffer.shape().to_vec()).ok()?;
        Some(Self { head, buffer })
    }
}

/// What numbers a buffer says that it has, where they are plain ones in the machine's order of bytes.
fn numbers_of(format: &CStr, size: usize) -> Option<Numbers> {
    let kind = match format.to_bytes() {
        b"?" => b'b',
        [b'b' | b'h' | b'i' | b'l' | b'q'] => b'i',
        [b'B' | b'H' | b'I' | b'L' | b'Q'] => b'u',
        [b'e' | b'f' | b'd' | b'g'] => b'f',
        [b'Z', b'f' | b'd' | b'g'] => b'c',
        _ => return None,
    };
    Numbers::new(kind, u8::try_from(size).ok()?).ok()
}

/// What is used of numpy, once it was needed.
struct Numpy {
    ndarray: Py<PyType>,
    dtype: Py<PyAny>,
    known: Mutex<HashMap<Numbers, Py<PyAny>>>,
}

static NUMPY: PyOnceLock<Numpy> = PyOnceLock::new();

fn numpy(py: Python<'_>) -> PyResult<&Numpy> {
    NUMPY.get_or_try_init(py, || {
        let module = py.import("numpy")?;
        Ok(Numpy {
            ndarray: module.getattr("ndarray")?.cast_into::<PyType>()?.unbind(),
            dtype: module.getattr("dtype")?.unbind(),
            known: Mutex::default(),
        })
    })
}

/// Whether it is a numpy array and of no class that was derived from it. Imports numpy only where there is one.
fn is_ndarray(object: &Bound<'_, PyAny>) -> bool {
    let (py, kind) = (object.py(), object.get_type());
    if let Some(numpy) = NUMPY.get(py) {
        return kind.is(&numpy.ndarray);
    }
    let named = kind.name().is_ok_and(|name| name == "ndarray");
    named && numpy(py).is_ok_and(|numpy| kind.is(&numpy.ndarray))
}

impl Numpy {
    fn dtype<'py>(&self, py: Python<'py>, numbers: Numbers) -> PyResult<Bound<'py, PyAny>> {
        if let Some(dtype) = lock(&self.known).get(&numbers) {
            return Ok(dtype.bind(py).clone());
        }
        let name = format!("{}{}", char::from(numbers.kind), numbers.size);
        let dtype = self.dtype.bind(py).call1((name,))?;
        lock(&self.known).insert(numbers, dtype.clone().unbind());
        Ok(dtype)
    }
}

/// The array in packed `bytes`. A small one is a copy that can be written to, a larger one shows the memory that `view` gives:
/// an exporter of all of `bytes`, which the array keeps alive.
///
/// # Errors
/// The bytes are damaged, or numpy cannot be imported.
pub fn load<'py>(
    py: Python<'py>,
    bytes: &[u8],
    view: impl FnOnce() -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let (head, place) = ArrayHead::read(bytes).map_err(|e| refused(&e))?;
    if head.bytes() < OUT_OF_BAND {
        let copy = PyByteArray::new(py, &bytes[place]);
        return shown(py, &head, copy.as_any(), 0);
    }
    shown(py, &head, &view()?, place.start)
}

/// An array with this head whose numbers begin at `offset` of what `memory` exports.
///
/// # Errors
/// numpy cannot be imported, or does not know the numbers.
pub fn shown<'py>(
    py: Python<'py>,
    head: &ArrayHead,
    memory: &Bound<'py, PyAny>,
    offset: usize,
) -> PyResult<Bound<'py, PyAny>> {
    let numpy = numpy(py).map_err(|e| {
        let why = format!("the value is an array, for which numpy is needed here: {e}; install numpy");
        if e.is_instance_of::<PyMemoryError>(py) {
            e
        } else {
            PyImportError::new_err(why)
        }
    })?;
    let order = if head.fortran {
        intern!(py, "F")
    } else {
        intern!(py, "C")
    };
    let (shape, dtype) = (PyTuple::new(py, &head.shape)?, numpy.dtype(py, head.numbers)?);
    numpy
        .ndarray
        .bind(py)
        .call1((shape, dtype, memory, offset, py.None(), order))
}

/// What to raise for bytes that are no array.
pub fn refused(error: &ArrayError) -> PyErr {
    damaged(&error.to_string())
}
