//! An object in a GPU's memory as Python sees it: where it is, and as DLPack. Owns the hold on it, which views made of it share.
//! The layout of DLPack's structures is that of its version 1.0 (`dlpack.h`).

#![allow(unsafe_code)] // Structures of a C interface; each site says why it is sound.

use bridgehead_store_gpu::Opened;
use bridgehead_store_node::DeviceView;
use pyo3::exceptions::{PyBufferError, PyRuntimeError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::ffi::{CStr, c_void};
use std::sync::Arc;

/// An object's bytes in the memory of a GPU, or in host memory that stands in for it.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
#[derive(Debug)]
pub struct DeviceBuffer(Arc<DeviceView>);

impl DeviceBuffer {
    pub fn new(view: DeviceView) -> Self {
        Self(Arc::new(view))
    }

    fn opened(&self) -> PyResult<&Opened> {
        let opened = self.0.opened();
        opened.ok_or_else(|| PyRuntimeError::new_err("the memory of the GPU is closed"))
    }

    /// Where a range of it begins.
    fn at(&self, offset: u64, len: u64) -> PyResult<u64> {
        let opened = self.opened()?;
        if offset.checked_add(len).is_none_or(|end| end > opened.len()) {
            return Err(PyValueError::new_err("the array is cut off"));
        }
        Ok(opened.address() + offset)
    }
}

#[pymethods]
impl DeviceBuffer {
    /// The number of the GPU on its node.
    #[getter]
    fn gpu(&self) -> PyResult<u32> {
        Ok(self.opened()?.gpu())
    }

    /// Whether it is host memory.
    #[getter]
    fn stand_in(&self) -> PyResult<bool> {
        Ok(self.opened()?.is_stand_in())
    }

    /// Kind and number of the device, as DLPack has them.
    #[getter]
    fn device(&self) -> PyResult<(i32, i32)> {
        let opened = self.opened()?;
        let kind = if opened.is_stand_in() { CPU } else { CUDA };
        Ok((kind, opened.ordinal()))
    }

    /// The object's first bytes.
    fn head<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, self.0.head())
    }

    /// The address of a range.
    fn address(&self, offset: u64, len: u64) -> PyResult<u64> {
        self.at(offset, len)
    }

    /// A copy of a range in host memory.
    fn read<'py>(&self, py: Python<'py>, offset: u64, len: usize) -> PyResult<Bound<'py, PyByteArray>> {
        let opened = self.opened()?;
        self.at(offset, len as u64)?;
        PyByteArray::new_with(py, len, |bytes| {
            py.detach(|| opened.read(offset, bytes))
                .map_err(|error| PyRuntimeError::new_err(error.to_string()))
        })
    }

    /// A capsule of an array that begins at `offset`, in C order; `versioned` is DLPack 1.0, which can say that it is only for
    /// reading.
    fn dlpack<'py>(
        &self,
        py: Python<'py>,
        offset: u64,
        shape: Vec<i64>,
        kind: (u8, u8),
        versioned: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (code, bits) = kind;
        let count = shape
            .iter()
            .try_fold(1_u64, |all, &len| all.checked_mul(u64::try_from(len).ok()?));
        let bytes = count.and_then(|count| count.checked_mul(u64::from(bits).div_ceil(8)));
        let bytes = bytes.ok_or_else(|| PyValueError::new_err("the array is beyond this machine"))?;
        let address = self.at(offset, bytes)?;
        let (device_type, device_id) = self.device()?;
        let tensor = Tensor {
            data: address as *mut c_void,
            device_type,
            device_id,
            ndim: i32::try_from(shape.len()).map_err(|_| PyBufferError::new_err("too many axes"))?,
            code,
            bits,
            lanes: 1,
            shape: std::ptr::null_mut(),
            strides: std::ptr::null_mut(), // C order.
            byte_offset: 0,
        };
        let held = Held {
            _view: self.0.clone(),
            strides: c_order(&shape),
            shape,
        };
        if versioned {
            let managed = Versioned {
                major: 1,
                minor: 0,
                context: std::ptr::null_mut(),
                deleter: Some(delete_versioned),
                flags: READ_ONLY,
                tensor,
            };
            capsule(py, VERSIONED, managed, held)
        } else {
            let managed = Managed {
                tensor,
                context: std::ptr::null_mut(),
                deleter: Some(delete_managed),
            };
            capsule(py, PLAIN, managed, held)
        }
    }
}

const CPU: i32 = 1;
const CUDA: i32 = 2;
const READ_ONLY: u64 = 1;
const PLAIN: &CStr = c"dltensor";
const VERSIONED: &CStr = c"dltensor_versioned";

/// Steps of each axis, in elements.
fn c_order(shape: &[i64]) -> Vec<i64> {
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }
    strides
}

/// `DLTensor`.
#[repr(C)]
struct Tensor {
    data: *mut c_void,
    device_type: i32,
    device_id: i32,
    ndim: i32,
    code: u8,
    bits: u8,
    lanes: u16,
    shape: *mut i64,
    strides: *mut i64,
    byte_offset: u64,
}

/// `DLManagedTensor`.
#[repr(C)]
struct Managed {
    tensor: Tensor,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Managed)>,
}

/// `DLManagedTensorVersioned`.
#[repr(C)]
struct Versioned {
    major: u32,
    minor: u32,
    context: *mut c_void,
    deleter: Option<unsafe extern "C" fn(*mut Versioned)>,
    flags: u64,
    tensor: Tensor,
}

/// What lives for as long as the consumer's array.
struct Held {
    _view: Arc<DeviceView>,
    shape: Vec<i64>,
    strides: Vec<i64>,
}

/// Both forms of a managed tensor.
trait Manages {
    fn tensor(&mut self) -> &mut Tensor;
    fn context(&mut self) -> &mut *mut c_void;
}

impl Manages for Managed {
    fn tensor(&mut self) -> &mut Tensor {
        &mut self.tensor
    }

    fn context(&mut self) -> &mut *mut c_void {
        &mut self.context
    }
}

impl Manages for Versioned {
    fn tensor(&mut self) -> &mut Tensor {
        &mut self.tensor
    }

    fn context(&mut self) -> &mut *mut c_void {
        &mut self.context
    }
}

fn capsule<'py, T: Manages>(
    py: Python<'py>,
    name: &'static CStr,
    mut managed: T,
    held: Held,
) -> PyResult<Bound<'py, PyAny>> {
    let mut held = Box::new(held);
    managed.tensor().shape = held.shape.as_mut_ptr();
    managed.tensor().strides = held.strides.as_mut_ptr();
    *managed.context() = Box::into_raw(held).cast();
    let managed = Box::into_raw(Box::new(managed));
    // SAFETY: the pointer is not null, the name lives for ever, and the destructor knows both.
    let made = unsafe { ffi::PyCapsule_New(managed.cast(), name.as_ptr(), Some(drop_capsule)) };
    if made.is_null() {
        // SAFETY: made above, and nobody else has it.
        unsafe { delete(managed) };
        return Err(PyErr::fetch(py));
    }
    // SAFETY: a new reference of the interpreter's.
    Ok(unsafe { Bound::from_owned_ptr(py, made) })
}

/// Frees a managed tensor and lets go of its memory.
///
/// # Safety
/// `capsule` made it, and nobody uses it any more.
unsafe fn delete<T: Manages>(managed: *mut T) {
    // SAFETY: made by `Box::into_raw`, and given up by the caller.
    let mut managed = unsafe { Box::from_raw(managed) };
    // SAFETY: as above.
    drop(unsafe { Box::from_raw(managed.context().cast::<Held>()) });
}

unsafe extern "C" fn delete_managed(managed: *mut Managed) {
    // SAFETY: the consumer calls it once, when it is done.
    unsafe { delete(managed) };
}

unsafe extern "C" fn delete_versioned(managed: *mut Versioned) {
    // SAFETY: as above.
    unsafe { delete(managed) };
}

/// A capsule goes: what no consumer has taken over (it renames the capsule then) is freed here.
unsafe extern "C" fn drop_capsule(capsule: *mut ffi::PyObject) {
    // SAFETY: the interpreter calls it with the capsule that is going; a pointer is asked for under the name that it has.
    unsafe {
        if ffi::PyCapsule_IsValid(capsule, PLAIN.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, PLAIN.as_ptr()).cast::<Managed>());
        } else if ffi::PyCapsule_IsValid(capsule, VERSIONED.as_ptr()) == 1 {
            delete(ffi::PyCapsule_GetPointer(capsule, VERSIONED.as_ptr()).cast::<Versioned>());
        }
    }
}
