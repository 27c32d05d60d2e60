//! Python values as bytes and back (`docs/formats/value.md`). Owns pickling and the placeholders of inputs; the layout of
//! the bytes is `layout.rs`'s, how a value is pickled when the plain way is not right is `bridgehead/_pickling.py`. Hot path: `pack`, `unpack`, once a task each.

use crate::array::{self, PlainArray};
use crate::home::{Home, Kept, StoreBuffer, home_of, write};
use crate::layout::{FRAMED, Layout, PICKLE, damaged, unpack_framed};
use crate::python::api;
use bridgehead_guest::link::lock;
use bridgehead_store_node::Lease;
use bridgehead_wire::{ARRAY, Input, ObjectRef, Value, input, value};
use bytes::Bytes;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyMemoryView, PySlice, PyTuple};
use std::cell::RefCell;
use std::sync::{Arc, Mutex};

/// Buffers below this many bytes stay in the pickle and arrive as copies that can be written to.
pub const OUT_OF_BAND: usize = 16 << 10;
/// `None`, pickled.
const NONE: &[u8] = b"\x80\x05N.";
/// `((), {})`, packed.
const NO_ARGUMENTS: &[u8] = b"\x01\x80\x05)}\x86.";

struct Packing {
    owner: Py<PyAny>,
    inputs: Vec<Input>,
}

thread_local! {
    /// The call that this thread is packing, `None` when it packs something else.
    static PACKING: RefCell<Option<Packing>> = const { RefCell::new(None) };
    /// Objects that the value which this thread is packing names, where it may name some.
    static NAMING: RefCell<Option<Vec<ObjectRef>>> = const { RefCell::new(None) };
    /// The run whose value this thread is reading, where it may name objects of it.
    static READING: RefCell<Option<Arc<Home>>> = const { RefCell::new(None) };
    /// Values of the inputs of the call that this thread is unpacking.
    static UNPACKING: RefCell<Vec<Py<PyAny>>> = const { RefCell::new(Vec::new()) };
}

/// Packed arguments with what their placeholders stand for.
pub struct Call {
    /// The packed `(args, kwargs)`.
    pub args: Packed,
    /// What the placeholders stand for.
    pub inputs: Vec<Input>,
}

/// A packed value: its bytes, or an object that this process wrote and that no message has named yet. Its range is this
/// process's until then, so nothing has to hold it.
pub enum Packed {
    /// Bytes that travel in the message.
    Inline(Bytes),
    /// An object of this node's store, with those that its bytes name.
    Stored(ObjectRef, Vec<ObjectRef>),
}

impl Packed {
    /// The value as it travels.
    pub fn value(&self) -> Value {
        match self {
            Self::Inline(bytes) => Value::inline(bytes.clone()),
            Self::Stored(object, refs) => Value {
                refs: refs.clone(),
                ..Value::stored(object.clone())
            },
        }
    }
}

impl Packed {
    /// Tells of an object that the message which follows will name. Until what this returns is dropped, which may be right
    /// after that message, this process holds it.
    pub fn pass(&self, home: &Arc<Home>) -> Option<crate::home::Held> {
        match self {
            Self::Inline(_) => None,
            Self::Stored(object, _) => Some(home.hold_put(object.clone())),
        }
    }
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
            args: Packed::Inline(Bytes::from_static(NO_ARGUMENTS)),
            inputs: Vec::new(),
        });
    }
    let kwargs = kwargs.map_or_else(|| PyDict::new(py), Clone::clone);
    let both = PyTuple::new(py, [args.as_any(), kwargs.as_any()])?;
    if kwargs.is_empty() && args.iter().all(|arg| is_plain(&arg)) {
        let inputs = Vec::new();
        let args = Packed::Inline(plain(both.as_any())?);
        return Ok(Call { args, inputs });
    }
    let packing = Packing {
        owner: owner.clone().unbind(),
        inputs: Vec::new(),
    };
    let home = home_of(owner);
    let outer = PACKING.replace(Some(packing));
    let packed = pack(both.as_any(), home.as_deref());
    let inputs = PACKING.replace(outer).map(|packing| packing.inputs).unwrap_or_default();
    Ok(Call { args: packed?, inputs })
}

/// Packs one value: into bytes if it is small, else into the store of `home`. Without a home it is bytes, however large.
///
/// # Errors
/// Something in it cannot be pickled, or there is no room for it.
pub fn pack(object: &Bound<'_, PyAny>, home: Option<&Home>) -> PyResult<Packed> {
    let py = object.py();
    if object.is_none() {
        return Ok(Packed::Inline(Bytes::from_static(b"\x01\x80\x05N.")));
    }
    if is_plain(object) {
        return plain(object).map(Packed::Inline);
    }
    if let Some(array) = PlainArray::of(object) {
        return laid(home, &Layout::array(py, &array), Vec::new());
    }
    let outer = NAMING.replace(home.map(|_| Vec::new()));
    let pickled = pickled_with_buffers(object);
    let refs = NAMING.replace(outer).unwrap_or_default();
    let (pickle, buffers) = pickled?;
    laid(home, &Layout::new(py, pickle.as_bytes(), &buffers), refs)
}

/// Bytes, or an object of the store of `home`, where there is one, that names `refs`.
fn laid(home: Option<&Home>, layout: &Layout<'_>, refs: Vec<ObjectRef>) -> PyResult<Packed> {
    match home {
        // What names others is an object itself, however small: an object can hold them.
        Some(home) if layout.len() > home.inline_limit() || !refs.is_empty() => {
            write(home, layout).map(|(object, _)| Packed::Stored(object, refs))
        }
        _ => layout.bytes().map(Packed::Inline),
    }
}

/// Packs one value as `pack` does, outside of the call that this thread may be packing.
///
/// # Errors
/// As `pack`.
pub fn pack_apart(object: &Bound<'_, PyAny>, home: &Home) -> PyResult<Packed> {
    let outer = PACKING.replace(None);
    let packed = pack(object, Some(home));
    PACKING.set(outer);
    packed
}

/// Packs one value into bytes.
///
/// # Errors
/// As `pack`.
pub fn pack_here(object: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    match pack(object, None)? {
        Packed::Inline(bytes) => Ok(bytes),
        Packed::Stored(..) => Err(damaged("it was packed into a store that was not named")),
    }
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

/// Gives `then` where the parts of a packed value go; what it names is not noted. Buffers of `least` bytes or more lie beside
/// its pickle.
///
/// # Errors
/// Something in it cannot be pickled, or what `then` says.
pub fn laid_out<T>(
    object: &Bound<'_, PyAny>,
    least: usize,
    then: impl FnOnce(&Layout<'_>) -> PyResult<T>,
) -> PyResult<T> {
    if let Some(array) = PlainArray::of(object) {
        return then(&Layout::array(object.py(), &array));
    }
    let (pickle, buffers) = pickled_apart(object, least)?;
    then(&Layout::new(object.py(), pickle.as_bytes(), &buffers))
}

/// The pickle of a value, and the buffers that it leaves out.
fn pickled_with_buffers<'py>(object: &Bound<'py, PyAny>) -> PyResult<(Bound<'py, PyBytes>, Vec<PyBuffer<u8>>)> {
    pickled_apart(object, OUT_OF_BAND)
}

/// A pickle, and buffers of `least` bytes or more beside it.
fn pickled_apart<'py>(object: &Bound<'py, PyAny>, least: usize) -> PyResult<(Bound<'py, PyBytes>, Vec<PyBuffer<u8>>)> {
    let buffers = Mutex::default();
    let collector = Bound::new(object.py(), Collector { least, buffers })?;
    let pickle = pickled(object, &collector)?;
    let buffers = std::mem::take(&mut *lock(&collector.get().buffers));
    Ok((pickle, buffers))
}

/// Takes the buffers that a pickle leaves out.
#[pyclass(frozen)]
struct Collector {
    /// Shorter ones stay in the pickle.
    least: usize,
    buffers: Mutex<Vec<PyBuffer<u8>>>,
}

#[pymethods]
impl Collector {
    /// `True` leaves the buffer in the pickle.
    fn __call__(&self, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        let Ok(raw) = buffer.call_method0(intern!(buffer.py(), "raw")) else {
            return Ok(true); // Not contiguous: only the pickle can hold it.
        };
        let raw = PyBuffer::<u8>::get(&raw)?;
        if raw.len_bytes() < self.least {
            return Ok(true);
        }
        lock(&self.buffers).push(raw);
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
    lock(&collector.get().buffers).clear(); // The first try may have left something behind.
    PACKING.with_borrow_mut(|packing| {
        if let Some(packing) = packing {
            packing.inputs.clear();
        }
    });
    NAMING.with_borrow_mut(|naming| naming.as_mut().map(Vec::clear));
    let by_value = intern!(py, "dumps_by_value");
    let bytes = api.pickling.bind(py).call_method1(by_value, (object, collector))?;
    Ok(bytes.cast_into::<PyBytes>()?)
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
        [ARRAY, ..] => array::load(py, bytes, || Ok(PyBytes::new(py, bytes).into_any())),
        [form, ..] => Err(damaged(&format!("its form {form} is unknown"))),
        [] => Err(damaged("it is empty")),
    }
}

/// Whether packed arguments are none at all.
pub fn is_empty_call(bytes: &[u8]) -> bool {
    bytes == NO_ARGUMENTS
}

/// The value in an object of the store: arrays in it are views of the store's memory.
///
/// # Errors
/// As `unpack`.
pub fn unpack_lease<'py>(py: Python<'py>, lease: Lease) -> PyResult<Bound<'py, PyAny>> {
    let buffer = Bound::new(py, StoreBuffer(lease))?;
    let view = PyMemoryView::from(buffer.as_any())?;
    let bytes = buffer.get().0.bytes();
    match bytes.first() {
        Some(&FRAMED) => unpack_framed(view.as_any(), bytes),
        Some(&PICKLE) => {
            let end = isize::try_from(bytes.len()).unwrap_or(isize::MAX);
            let pickle = view.as_any().get_item(PySlice::new(py, 1, end, 1))?;
            api(py)?.loads.bind(py).call1((pickle,))
        }
        Some(&ARRAY) => array::load(py, bytes, || Ok(buffer.clone().into_any())),
        _ => unpack(py, bytes),
    }
}

/// A value that travelled; `home` is where its object would lie.
///
/// # Errors
/// It cannot be read here.
pub fn unpack_value<'py>(py: Python<'py>, value: &Value, home: Option<&Home>) -> PyResult<Bound<'py, PyAny>> {
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
        Some(value::Kind::Stored(object)) => match home {
            Some(home) => unpack_lease(py, home.lease(py, object)?),
            None => Err(damaged("it lies in a store that this process has no connection to")),
        },
        None => Err(damaged("the message held none")),
    }
}

/// Unpacks a value whose placeholders stand for `inputs`.
///
/// # Errors
/// As `unpack_value`.
pub fn unpack_value_with<'py>(
    py: Python<'py>,
    value: &Value,
    inputs: Vec<Py<PyAny>>,
    home: Option<&Home>,
) -> PyResult<Bound<'py, PyAny>> {
    let outer = UNPACKING.replace(inputs);
    let value = unpack_value(py, value, home);
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
    let lazy = false;
    own.then(|| note(Input { kind, lazy })).flatten()
}

/// Whose task's call is being packed in this thread: a connection, a pipeline, or `None`.
#[pyfunction]
pub fn packing_owner(py: Python<'_>) -> Option<Py<PyAny>> {
    PACKING.with_borrow(|packing| packing.as_ref().map(|p| p.owner.clone_ref(py)))
}

/// Notes a kept value as an input of the call that is being packed over a connection: its placeholder's number.
#[pyfunction]
pub fn note_kept(py: Python<'_>, kept: &Kept) -> PyResult<Option<usize>> {
    let home = packing_owner(py).and_then(|owner| home_of(owner.bind(py)));
    let Some(home) = home else { return Ok(None) };
    let kind = Some(input::Kind::Value(kept.input(py, &home)?));
    Ok(note(Input { kind, lazy: false }))
}

/// How a reference to an object travels: as the placeholder of an input that arrives as a reference (its number), or named
/// in a value that holds it (the arguments of `adopt`). `None` where it cannot travel.
#[pyfunction]
pub fn note_reference<'py>(py: Python<'py>, kept: &Kept) -> PyResult<Option<Bound<'py, PyAny>>> {
    let Some((object, home)) = kept.object() else {
        return Ok(None);
    };
    if let Some(owner) = packing_owner(py) {
        let same = home_of(owner.bind(py)).is_some_and(|of| Arc::ptr_eq(&of, home));
        let kind = Some(input::Kind::Value(Value::stored(object.clone())));
        let number = same.then(|| note(Input { kind, lazy: true })).flatten();
        return number
            .map(|number| Ok(number.into_pyobject(py)?.into_any()))
            .transpose();
    }
    let named = NAMING.with_borrow_mut(|naming| naming.as_mut().map(|naming| naming.push(object.clone())));
    named
        .map(|()| Ok(numbers(object).into_pyobject(py)?.into_any()))
        .transpose()
}

/// The fields of a reference, as `adopt` takes them.
pub type Numbers = (u64, u64, u64, u32, u64, u64, (u32, u32), u64);

/// See [`Numbers`].
pub fn numbers(object: &ObjectRef) -> Numbers {
    let memory = (object.numa, object.gpu);
    let (id_hi, id_lo) = (object.id_hi, object.id_lo);
    (
        id_hi,
        id_lo,
        object.len,
        object.node,
        object.offset,
        object.slot,
        memory,
        object.sum,
    )
}

fn referenced((id_hi, id_lo, len, node, offset, slot, (numa, gpu), sum): Numbers) -> ObjectRef {
    ObjectRef {
        id_hi,
        id_lo,
        len,
        node,
        offset,
        slot,
        numa,
        gpu,
        sum,
    }
}

/// The value that this thread is packing names an object that others hold for it: whether it may.
#[pyfunction]
pub fn note_object(numbers: Numbers) -> bool {
    let object = referenced(numbers);
    NAMING.with_borrow_mut(|naming| naming.as_mut().map(|naming| naming.push(object)).is_some())
}

/// A reference to an object that a value names, while that value is held. Pickles of such values call it.
#[pyfunction]
#[pyo3(signature = (id_hi, id_lo, len, node, offset, slot, memory, sum = 0))]
#[allow(clippy::too_many_arguments)] // The fields of a reference.
pub fn adopt(
    id_hi: u64,
    id_lo: u64,
    len: u64,
    node: u32,
    offset: u64,
    slot: u64,
    memory: (u32, u32),
    sum: u64,
) -> PyResult<Kept> {
    let Some(home) = READING.with_borrow(Clone::clone) else {
        return Err(damaged("it names objects of a run, and was read outside of it"));
    };
    let object = referenced((id_hi, id_lo, len, node, offset, slot, memory, sum));
    Ok(Kept::adopted(&home, object))
}

/// Reads a value that may name objects of the run that `home` is in.
pub fn reading<T>(home: &Arc<Home>, read: impl FnOnce() -> T) -> T {
    let outer = READING.replace(Some(home.clone()));
    let value = read();
    READING.set(outer);
    value
}

/// A value that is packed already, to be kept in this process.
#[pyfunction]
pub fn keep_packed(bytes: &[u8]) -> Kept {
    Kept::here(Bytes::copy_from_slice(bytes))
}

/// Packs a value to be kept in this process.
#[pyfunction]
pub fn keep_here(object: &Bound<'_, PyAny>) -> PyResult<Kept> {
    let outer = PACKING.replace(None);
    let packed = pack_here(object);
    PACKING.set(outer);
    packed.map(Kept::here)
}

/// Packs a value to be kept: in the store of `home` if it is large.
///
/// # Errors
/// As `pack`.
pub fn keep(object: &Bound<'_, PyAny>, home: &Arc<Home>) -> PyResult<Kept> {
    let outer = PACKING.replace(None);
    let kept = laid_out(object, OUT_OF_BAND, |layout| {
        if layout.len() > home.inline_limit() {
            home.put(layout).map(Kept::stored)
        } else {
            layout.bytes().map(Kept::here)
        }
    });
    PACKING.set(outer);
    kept
}

/// Packs an array to be kept in the store of `home`, however small it is, with its bytes apart from its pickle.
///
/// # Errors
/// As `pack`.
pub fn keep_array(array: &Bound<'_, PyAny>, home: &Arc<Home>) -> PyResult<Kept> {
    let outer = PACKING.replace(None);
    let kept = laid_out(array, 0, |layout| home.put(layout).map(Kept::stored));
    PACKING.set(outer);
    kept
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
    match &call.args {
        Packed::Inline(bytes) => Ok((PyBytes::new(args.py(), bytes), tasks)),
        Packed::Stored(..) => Err(damaged("a pipeline has no store")),
    }
}

/// Packs a value into bytes.
#[pyfunction]
pub fn pack_bytes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let outer = PACKING.replace(None);
    let packed = pack_here(object);
    PACKING.set(outer);
    Ok(PyBytes::new(object.py(), &packed?))
}

/// The value in a file of packed bytes; arrays in it are views of what was read.
#[pyfunction]
pub fn unpack_file<'py>(py: Python<'py>, path: &str) -> PyResult<Bound<'py, PyAny>> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let len = usize::try_from(file.metadata()?.len()).map_err(|_| damaged("its file is beyond this machine"))?;
    let bytes = PyBytes::new_with(py, len, |into| Ok(file.read_exact(into)?))?;
    unpack_bytes(bytes.as_any())
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
        if data.first() == Some(&ARRAY) {
            return array::load(py, data, || Ok(bytes.clone().into_any()));
        }
        return unpack(py, data);
    }
    let data = PyBuffer::<u8>::get(buffer)?.to_vec(py)?;
    unpack(py, &data)
}
