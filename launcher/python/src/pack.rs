//! Python values as bytes and back (`docs/formats/value.md`). Owns the layout and the placeholders of inputs; how a value is
//! pickled when the plain way is not right is `bridgehead/_pickling.py`. Hot path: `pack`, `unpack`, once a task each.

use crate::python::api;
use bridgehead_wire::{Input, Value, input, value};
use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyMemoryView, PySlice, PyTuple};
use std::cell::RefCell;
use std::sync::Mutex;

/// First byte of a value that is one pickle.
const PICKLE: u8 = 1;
/// First byte of a value with buffers behind its pickle.
const FRAMED: u8 = 2;
/// Bytes of a framed value before its table of buffers.
const HEAD: usize = 16;
/// Bytes of an entry of that table: offset and length.
const ENTRY: usize = 16;
/// What buffers are aligned to: a cache line, enough for every vector unit.
const ALIGN: usize = 64;
/// Buffers below this many bytes stay in the pickle and arrive as copies that can be written to.
const OUT_OF_BAND: usize = 16 << 10;
/// `None`, pickled.
const NONE: &[u8] = b"\x80\x05N.";
/// `((), {})`, packed.
const NO_ARGUMENTS: &[u8] = b"\x01\x80\x05)}\x86.";
/// Longest packed value that a message may carry.
pub const MOST: usize = bridgehead_wire::MAX_BODY - (1 << 20);

struct Packing {
    owner: Py<PyAny>,
    inputs: Vec<Input>,
}

thread_local! {
    /// The call that this thread is packing, `None` when it packs something else.
    static PACKING: RefCell<Option<Packing>> = const { RefCell::new(None) };
    /// Values of the inputs of the call that this thread is unpacking.
    static UNPACKING: RefCell<Vec<Py<PyAny>>> = const { RefCell::new(Vec::new()) };
}

/// Packed arguments with what their placeholders stand for.
pub struct Call {
    /// The packed `(args, kwargs)`.
    pub args: Bytes,
    /// What the placeholders stand for.
    pub inputs: Vec<Input>,
}

/// Packs the arguments of a call to a task of `owner` (a connection or a pipeline).
///
/// # Errors
/// Something in them cannot be pickled, or stands for a task of another owner.
pub fn pack_call(
    owner: &Bound<'_, PyAny>,
    args: &Bound<'_, PyTuple>,
    kwargs: Option<&Bound<'_, PyDict>>,
) -> PyResult<Call> {
    let py = args.py();
    if args.is_empty() && kwargs.is_none_or(PyDictMethods::is_empty) {
        return Ok(Call {
            args: Bytes::from_static(NO_ARGUMENTS),
            inputs: Vec::new(),
        });
    }
    let kwargs = kwargs.map_or_else(|| PyDict::new(py), Clone::clone);
    let both = PyTuple::new(py, [args.as_any(), kwargs.as_any()])?;
    if kwargs.is_empty() && args.iter().all(|arg| is_plain(&arg)) {
        let inputs = Vec::new();
        return plain(both.as_any()).map(|args| Call { args, inputs });
    }
    let packing = Packing {
        owner: owner.clone().unbind(),
        inputs: Vec::new(),
    };
    let outer = PACKING.replace(Some(packing));
    let packed = pack(both.as_any());
    let inputs = PACKING.replace(outer).map(|packing| packing.inputs).unwrap_or_default();
    Ok(Call { args: packed?, inputs })
}

/// Packs one value.
///
/// # Errors
/// Something in it cannot be pickled, or it is too large to travel.
pub fn pack(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let py = object.py();
    if object.is_none() {
        return Ok(Bytes::from_static(b"\x01\x80\x05N."));
    }
    if is_plain(object) {
        return plain(object);
    }
    let collector = Bound::new(py, Collector::default())?;
    let pickle = pickled(object, &collector)?;
    let buffers = std::mem::take(&mut *crate::link::lock(&collector.get().0));
    let pickle = pickle.as_bytes();
    let len = pickle.len() + buffers.iter().map(|b| b.len_bytes()).sum::<usize>();
    if len > MOST {
        let text =
            format!("a value of {len} bytes is more than the {MOST} that can travel: split it, or write it to a file");
        return Err(api(py)?
            .failures
            .bind(py)
            .call_method1(intern!(py, "too_large"), (text,))
            .map_or_else(|e| e, |e| PyErr::from_value(e)));
    }
    if buffers.is_empty() {
        let mut out = Vec::with_capacity(pickle.len() + 1);
        out.push(PICKLE);
        out.extend_from_slice(pickle);
        return Ok(Bytes::from(out));
    }
    framed(py, pickle, &buffers)
}

/// Whether a value is a scalar: it holds no placeholder, no buffer and nothing of the project's.
fn is_plain(object: &Bound<'_, PyAny>) -> bool {
    object.is_exact_instance_of::<PyInt>()
        || object.is_exact_instance_of::<PyFloat>()
        || object.is_exact_instance_of::<PyBool>()
        || object.is_none()
}

/// Packs scalars without looking for what they cannot hold, which costs several times the pickling.
fn plain(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let py = object.py();
    let pickle = api(py)?.dumps.bind(py).call1((object, 5))?;
    let pickle = pickle.cast::<PyBytes>()?.as_bytes();
    Ok([&[PICKLE], pickle].concat().into())
}

/// Lays out a pickle and its buffers.
fn framed(py: Python<'_>, pickle: &[u8], buffers: &[PyBuffer<u8>]) -> PyResult<Bytes> {
    let mut at = HEAD + ENTRY * buffers.len() + pickle.len();
    let mut out = Vec::with_capacity(at + buffers.iter().map(|b| b.len_bytes() + ALIGN).sum::<usize>());
    out.extend_from_slice(&[FRAMED, 0, 0, 0]);
    out.extend_from_slice(&u32::try_from(buffers.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&(pickle.len() as u64).to_le_bytes());
    for buffer in buffers {
        at = at.next_multiple_of(ALIGN);
        out.extend_from_slice(&(at as u64).to_le_bytes());
        out.extend_from_slice(&(buffer.len_bytes() as u64).to_le_bytes());
        at += buffer.len_bytes();
    }
    out.extend_from_slice(pickle);
    for buffer in buffers {
        let start = out.len().next_multiple_of(ALIGN);
        out.resize(start + buffer.len_bytes(), 0);
        buffer.copy_to_slice(py, &mut out[start..])?;
    }
    Ok(Bytes::from(out))
}

/// Takes the buffers that a pickle leaves out.
#[pyclass(frozen)]
#[derive(Default)]
struct Collector(Mutex<Vec<PyBuffer<u8>>>);

#[pymethods]
impl Collector {
    /// `True` leaves the buffer in the pickle.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(raw) = buffer.call_method0(intern!(buffer.py(), "raw")) else {
            return Ok(true); // Not contiguous: only the pickle can hold it.
        };
        let raw = PyBuffer::<u8>::get(&raw)?;
        if raw.len_bytes() < OUT_OF_BAND {
            return Ok(true);
        }
        crate::link::lock(&self.0).push(raw);
        Ok(false)
    }
}

fn pickled<'py>(object: &Bound<'py, PyAny>, collector: &Bound<'py, Collector>) -> PyResult<Bound<'py, PyBytes>> {
    let py = object.py();
    let api = api(py)?;
    let named = PyDict::new(py);
    named.set_item(intern!(py, "protocol"), 5)?;
    named.set_item(intern!(py, "buffer_callback"), collector)?;
    let plain = api.dumps.bind(py).call((object,), Some(&named));
    if let Ok(bytes) = &plain {
        let bytes = bytes.cast::<PyBytes>()?;
        let by_value = intern!(py, "must_travel_by_value");
        if !api.pickling.bind(py).call_method1(by_value, (bytes,))?.is_truthy()? {
            return Ok(bytes.clone());
        }
    }
    crate::link::lock(&collector.get().0).clear(); // The first try may have left something behind.
    PACKING.with_borrow_mut(|packing| {
        if let Some(packing) = packing {
            packing.inputs.clear();
        }
    });
    let by_value = intern!(py, "dumps_by_value");
    let bytes = api.pickling.bind(py).call_method1(by_value, (object, collector))?;
    Ok(bytes.cast_into::<PyBytes>()?)
}

fn damaged(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "a value cannot be read: {what}; it is damaged, or was packed by a newer bridgehead"
    ))
}

/// The value in packed `bytes`.
///
/// # Errors
/// They are not packed, or hold what cannot be made here.
pub fn unpack<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match bytes {
        [PICKLE, pickle @ ..] if pickle == NONE => Ok(py.None().into_bound(py)),
        [PICKLE, pickle @ ..] => api(py)?.loads.bind(py).call1((PyBytes::new(py, pickle),)),
        [FRAMED, ..] => unpack_framed(PyMemoryView::from(&PyBytes::new(py, bytes))?.as_any(), bytes),
        [form, ..] => Err(damaged(&format!("its form {form} is unknown"))),
        [] => Err(damaged("it is empty")),
    }
}

/// The value in a framed `view`, whose bytes are `bytes`: its buffers are slices of the view and keep it alive.
fn unpack_framed<'py>(view: &Bound<'py, PyAny>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let py = view.py();
    let number = |at: usize| -> PyResult<usize> {
        let raw = bytes.get(at..at + 8).ok_or_else(|| damaged("its table is cut off"))?;
        let raw = u64::from_le_bytes(raw.try_into().expect("eight bytes were taken"));
        usize::try_from(raw).map_err(|_| damaged("a length is beyond this machine"))
    };
    let count = number(0)? >> 32;
    let slice = |from: usize, len: usize| -> PyResult<Bound<'py, PyAny>> {
        let to = from.checked_add(len).filter(|&to| to <= bytes.len());
        let to = to.ok_or_else(|| damaged("a buffer is cut off"))?;
        let index = |n: usize| isize::try_from(n).map_err(|_| damaged("a length is beyond this machine"));
        view.get_item(PySlice::new(py, index(from)?, index(to)?, 1))
    };
    let buffers = PyList::empty(py);
    for i in 0..count {
        let entry = HEAD + ENTRY * i;
        buffers.append(slice(number(entry)?, number(entry + 8)?)?)?;
    }
    let pickle = slice(HEAD + ENTRY * count, number(8)?)?;
    let named = PyDict::new(py);
    named.set_item(intern!(py, "buffers"), buffers)?;
    api(py)?.loads.bind(py).call((pickle,), Some(&named))
}

/// Whether packed arguments are none at all.
pub fn is_empty_call(bytes: &[u8]) -> bool {
    bytes == NO_ARGUMENTS
}

/// A value that travelled.
///
/// # Errors
/// It cannot be read here.
pub fn unpack_value<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    let failures = &api(py)?.failures;
    match &value.kind {
        Some(value::Kind::Inline(bytes)) => unpack(py, bytes),
        Some(value::Kind::Program(r)) => {
            let outputs = PyDict::new(py);
            for pair in &r.outputs {
                outputs.set_item(&pair.key, &pair.value)?;
            }
            let (out, err) = (PyBytes::new(py, &r.stdout), PyBytes::new(py, &r.stderr));
            let fields = (r.exit_code, out, err, outputs, r.dropped);
            failures.bind(py).call_method1(intern!(py, "program_result"), fields)
        }
        Some(value::Kind::File(file)) => failures
            .bind(py)
            .call_method1(intern!(py, "load_file"), (file.path.as_str(),)),
        Some(value::Kind::Stored(_)) => Err(damaged("it lies in a store that this process has no connection to")),
        None => Err(damaged("the message held none")),
    }
}

/// Unpacks a value whose placeholders stand for `inputs`.
///
/// # Errors
/// As `unpack_value`.
pub fn unpack_value_with<'py>(py: Python<'py>, value: &Value, inputs: Vec<Py<PyAny>>) -> PyResult<Bound<'py, PyAny>> {
    let outer = UNPACKING.replace(inputs);
    let value = unpack_value(py, value);
    UNPACKING.set(outer);
    value
}

/// What a placeholder stands for; pickles of arguments call it.
#[pyfunction]
#[pyo3(name = "_input")]
pub fn load_input(py: Python<'_>, number: usize) -> PyResult<Py<PyAny>> {
    UNPACKING
        .with_borrow(|inputs| inputs.get(number).map(|v| v.clone_ref(py)))
        .ok_or_else(|| PyRuntimeError::new_err("a placeholder was unpickled outside the task that it was given to"))
}

fn note(input: Input) -> Option<usize> {
    PACKING.with_borrow_mut(|packing| {
        let inputs = &mut packing.as_mut()?.inputs;
        let same = inputs.iter().position(|other| *other == input);
        Some(same.unwrap_or_else(|| {
            inputs.push(input);
            inputs.len() - 1
        }))
    })
}

/// Notes the result of task `token` of `owner` as an input of the call that is being packed: its placeholder's number, or
/// `None` when no call to a task of that owner is being packed.
#[pyfunction]
pub fn note_task(owner: &Bound<'_, PyAny>, token: u64) -> Option<usize> {
    let own = PACKING.with_borrow(|packing| packing.as_ref().is_some_and(|p| p.owner.is(owner)));
    let kind = Some(input::Kind::Task(token));
    own.then(|| note(Input { kind })).flatten()
}

/// Notes a packed value as an input of the call that is being packed.
#[pyfunction]
pub fn note_value(packed: &[u8]) -> Option<usize> {
    let kind = Some(input::Kind::Value(Value::inline(Bytes::copy_from_slice(packed))));
    note(Input { kind })
}

/// Packs the arguments of a pipeline's task: the bytes, and the tasks that its placeholders stand for.
#[pyfunction]
pub fn pack_arguments<'py>(
    owner: &Bound<'py, PyAny>,
    args: &Bound<'py, PyTuple>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<(Bound<'py, PyBytes>, Vec<u64>)> {
    let call = pack_call(owner, args, Some(kwargs))?;
    let tasks = call.inputs.iter().map(|input| match input.kind {
        Some(input::Kind::Task(task)) => Ok(task),
        _ => Err(PyRuntimeError::new_err(
            "a pipeline's arguments can only hold nodes and plain values",
        )),
    });
    let tasks = tasks.collect::<PyResult<Vec<u64>>>()?;
    Ok((PyBytes::new(args.py(), &call.args), tasks))
}

/// Packs a value into bytes.
#[pyfunction]
pub fn pack_bytes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let outer = PACKING.replace(None);
    let packed = pack(object);
    PACKING.set(outer);
    Ok(PyBytes::new(object.py(), &packed?))
}

/// The value in a buffer that `pack_bytes` filled; arrays in it are views of the buffer.
#[pyfunction]
pub fn unpack_bytes<'py>(buffer: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = buffer.py();
    if let Ok(bytes) = buffer.cast::<PyBytes>() {
        let data = bytes.as_bytes();
        if data.first() == Some(&FRAMED) {
            return unpack_framed(PyMemoryView::from(bytes)?.as_any(), data);
        }
        return unpack(py, data);
    }
    let data = PyBuffer::<u8>::get(buffer)?.to_vec(py)?;
    unpack(py, &data)
}
