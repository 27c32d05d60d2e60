//! The bytes of a packed value (`docs/formats/value.md`): where its pickle and its buffers go, and how they are found again.
//! Owns the layout; what is pickled, and how, is `pack.rs`'s. Hot path: `Layout::write`, once a large value.

use crate::array::PlainArray;
use crate::python::api;
use bytes::Bytes;
use pyo3::buffer::{PyBuffer, PyUntypedBuffer};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice};
use std::ops::Range;

/// First byte of a value that is one pickle.
pub const PICKLE: u8 = 1;
/// First byte of a value with buffers behind its pickle.
pub const FRAMED: u8 = 2;
/// Bytes of a framed value before its table of buffers.
const HEAD: usize = 16;
/// Bytes of an entry of that table: offset and length.
const ENTRY: usize = 16;
/// What buffers are aligned to: a cache line, enough for every vector unit.
const ALIGN: usize = 64;

/// Where the parts of a packed value go.
pub struct Layout<'a> {
    py: Python<'a>,
    content: Content<'a>,
    len: usize,
}

enum Content<'a> {
    Parts(&'a [u8], &'a [PyBuffer<u8>]),
    Raw(&'a [u8]),
    Array(&'a PlainArray),
}

impl<'a> Layout<'a> {
    /// A pickle and its buffers.
    pub fn new(py: Python<'a>, pickle: &'a [u8], buffers: &'a [PyBuffer<u8>]) -> Self {
        let mut len = 1 + pickle.len();
        if !buffers.is_empty() {
            len = HEAD + ENTRY * buffers.len() + pickle.len();
            for buffer in buffers {
                len = len.next_multiple_of(ALIGN) + buffer.len_bytes();
            }
        }
        let content = Content::Parts(pickle, buffers);
        Self { py, content, len }
    }

    /// A value that is packed already.
    pub fn raw(py: Python<'a>, bytes: &'a [u8]) -> Self {
        let (content, len) = (Content::Raw(bytes), bytes.len());
        Self { py, content, len }
    }

    /// An array that needs no pickle.
    pub fn array(py: Python<'a>, array: &'a PlainArray) -> Self {
        let (content, len) = (Content::Array(array), array.head.len());
        Self { py, content, len }
    }

    pub fn py(&self) -> Python<'a> {
        self.py
    }

    /// Bytes of the packed value.
    pub fn len(&self) -> usize {
        self.len
    }

    /// The packed value in memory of this process.
    ///
    /// # Errors
    /// As `write`.
    pub fn bytes(&self) -> PyResult<Bytes> {
        let mut out = vec![0; self.len];
        self.write(&mut out)?;
        Ok(Bytes::from(out))
    }

    /// Writes the packed value; `out` is exactly as long as it.
    ///
    /// # Errors
    /// A buffer went away, which its exporter forbids.
    pub fn write(&self, out: &mut [u8]) -> PyResult<()> {
        match self.content {
            Content::Raw(bytes) => copy_all(self.py, out, &[(0, bytes)]),
            Content::Parts(pickle, []) => {
                out[0] = PICKLE;
                out[1..].copy_from_slice(pickle);
            }
            Content::Parts(pickle, buffers) => self.write_framed(pickle, buffers, out),
            Content::Array(array) => {
                array.head.write(out);
                copy_all(self.py, out, &[(array.head.offset(), bytes_of(&array.buffer))]);
            }
        }
        Ok(())
    }

    fn write_framed(&self, pickle: &[u8], buffers: &[PyBuffer<u8>], out: &mut [u8]) {
        let places = frame(pickle, buffers, out);
        let parts: Vec<_> = places
            .into_iter()
            .zip(buffers.iter().map(|buffer| bytes_of(buffer)))
            .collect();
        copy_all(self.py, out, &parts);
    }

    /// Writes all of the packed value but the bytes of its only buffer, which are to be filled in place: where they go.
    /// `None`, and nothing is written, if it has not exactly one.
    pub fn write_around(&self, out: &mut [u8]) -> Option<usize> {
        match self.content {
            Content::Parts(pickle, buffers @ [_]) => frame(pickle, buffers, out).first().copied(),
            Content::Array(array) => {
                array.head.write(out);
                Some(array.head.offset())
            }
            Content::Parts(..) | Content::Raw(_) => None,
        }
    }
}

/// Writes a framed value but for its buffers: where each of them goes.
fn frame(pickle: &[u8], buffers: &[PyBuffer<u8>], out: &mut [u8]) -> Vec<usize> {
    out[..4].copy_from_slice(&[FRAMED, 0, 0, 0]);
    out[4..8].copy_from_slice(&u32::try_from(buffers.len()).unwrap_or(u32::MAX).to_le_bytes());
    out[8..16].copy_from_slice(&(pickle.len() as u64).to_le_bytes());
    let mut end = HEAD + ENTRY * buffers.len() + pickle.len();
    out[end - pickle.len()..end].copy_from_slice(pickle);
    let mut places = Vec::with_capacity(buffers.len());
    for (i, buffer) in buffers.iter().enumerate() {
        let at = end.next_multiple_of(ALIGN);
        out[end..at].fill(0);
        let entry = HEAD + ENTRY * i;
        out[entry..entry + 8].copy_from_slice(&(at as u64).to_le_bytes());
        out[entry + 8..entry + 16].copy_from_slice(&(buffer.len_bytes() as u64).to_le_bytes());
        places.push(at);
        end = at + buffer.len_bytes();
    }
    places
}

/// The bytes of a contiguous buffer.
#[allow(unsafe_code)]
fn bytes_of(buffer: &PyUntypedBuffer) -> &[u8] {
    if buffer.len_bytes() == 0 {
        return &[];
    }
    // SAFETY: `PickleBuffer.raw` gave a contiguous buffer, or `PlainArray` looked whether it is one; its exporter keeps it in place while it is borrowed. Python
    // code that writes it meanwhile makes the copy a mixture, as with every copy of a buffer without the lock.
    unsafe { std::slice::from_raw_parts(buffer.buf_ptr().cast(), buffer.len_bytes()) }
}

/// Copies this many bytes or more without the interpreter's lock.
const LONG: usize = 256 << 10;

/// Copies parts to their places.
fn copy_all(py: Python<'_>, out: &mut [u8], parts: &[(usize, &[u8])]) {
    let mut copy = || {
        for (at, bytes) in parts {
            out[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    };
    if parts.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() >= LONG {
        py.detach(copy);
    } else {
        copy();
    }
}

/// What to raise for bytes that are no packed value.
pub fn damaged(what: &str) -> PyErr {
    PyRuntimeError::new_err(format!(
        "a value cannot be read: {what}; it is damaged, or was packed by a newer bridgehead"
    ))
}

/// Where the pickle and the buffers of a framed value lie in its bytes.
///
/// # Errors
/// It is damaged.
pub fn parts(bytes: &[u8]) -> PyResult<(Range<usize>, Vec<Range<usize>>)> {
    let number = |at: usize| -> PyResult<usize> {
        let raw = bytes.get(at..at + 8).ok_or_else(|| damaged("its table is cut off"))?;
        let raw = u64::from_le_bytes(raw.try_into().expect("eight bytes were taken"));
        usize::try_from(raw).map_err(|_| damaged("a length is beyond this machine"))
    };
    let range = |from: usize, len: usize| -> PyResult<Range<usize>> {
        let to = from.checked_add(len).filter(|&to| to <= bytes.len());
        Ok(from..to.ok_or_else(|| damaged("a buffer is cut off"))?)
    };
    let count = number(0)? >> 32;
    let entry = |i: usize| range(number(HEAD + ENTRY * i)?, number(HEAD + ENTRY * i + 8)?);
    let buffers = (0..count).map(entry).collect::<PyResult<Vec<_>>>()?;
    let pickle = range(HEAD + ENTRY * count, number(8)?)?;
    Ok((pickle, buffers))
}

/// The value in a framed `view`, whose bytes are `bytes`: its buffers are slices of the view and keep it alive.
pub fn unpack_framed<'py>(view: &Bound<'py, PyAny>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let py = view.py();
    let (pickle, ranges) = parts(bytes)?;
    let slice = |range: Range<usize>| -> PyResult<Bound<'py, PyAny>> {
        let index = |n: usize| isize::try_from(n).map_err(|_| damaged("a length is beyond this machine"));
        view.get_item(PySlice::new(py, index(range.start)?, index(range.end)?, 1))
    };
    let buffers = PyList::empty(py);
    for range in ranges {
        buffers.append(slice(range)?)?;
    }
    let named = PyDict::new(py);
    named.set_item(intern!(py, "buffers"), buffers)?;
    api(py)?.loads.bind(py).call((slice(pickle)?,), Some(&named))
}
