//! Values that are written in place: a range of the store with everything of a packed array around its bytes, which Python
//! fills, and which is sealed without a copy. Owns the range until then. Hot path: none; reserving is `home.rs`'s.
//!
//! Whatever looks at the bytes keeps this object, and so the range or the lease on what was sealed: memory that an array of
//! Python's still shows is never given to another value.

use crate::home::{Home, Kept, fill_view, reserve};
use crate::pack::{OUT_OF_BAND, laid_out};
use bridgehead_guest::link::lock;
use bridgehead_store_node::{Lease, Reservation, new_id};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex};

/// Room for an array in the store.
#[pyclass(frozen, module = "bridgehead._bridgehead")]
#[derive(Debug)]
pub struct Draft {
    home: Arc<Home>,
    /// Where the array's bytes are in the packed value.
    data: (usize, usize),
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Reservation),
    Sealed(Lease),
    /// Between the two.
    Closed,
}

impl Draft {
    /// Room for an array like `like`, whose values are not looked at; `None` for one so small that it travels in messages.
    ///
    /// # Errors
    /// `StoreFull`: there is no room.
    pub fn new(like: &Bound<'_, PyAny>, home: &Arc<Home>) -> PyResult<Option<Self>> {
        laid_out(like, OUT_OF_BAND, |layout| {
            if layout.len() <= home.inline_limit() {
                return Ok(None);
            }
            home.make_room(like.py());
            let mut reservation = reserve(home, layout)?;
            let Some(at) = layout.write_around(reservation.bytes()) else {
                return Ok(None);
            };
            Ok(Some(Self {
                home: home.clone(),
                data: (at, layout.len() - at),
                state: Mutex::new(State::Open(reservation)),
            }))
        })
    }

    /// Seals the value and makes it the run's, with a hold for this process.
    ///
    /// # Errors
    /// It was sealed before.
    pub fn seal(&self, py: Python<'_>) -> PyResult<Kept> {
        let id = new_id().map_err(PyErr::from)?;
        let open = std::mem::replace(&mut *lock(&self.state), State::Closed);
        let State::Open(reservation) = open else {
            *lock(&self.state) = open;
            return Err(PyValueError::new_err("it is sealed already"));
        };
        let (object, lease) = py.detach(|| reservation.seal(id)); // Where objects have sums it takes a while.
        *lock(&self.state) = State::Sealed(lease.clone());
        Ok(Kept::stored(self.home.keep(object, lease)))
    }
}

#[pymethods]
impl Draft {
    #[allow(unsafe_code)]
    // SAFETY of both: Python calls them with a valid view. The bytes do not move and belong to nobody else while this object
    // lives, which the view keeps alive: it owns the range, or a lease on it once it is sealed.
    unsafe fn __getbuffer__(
        slf: Bound<'_, Self>,
        view: *mut pyo3::ffi::Py_buffer,
        flags: std::ffi::c_int,
    ) -> PyResult<()> {
        let (at, len) = slf.get().data;
        let (start, read_only) = match &mut *lock(&slf.get().state) {
            State::Open(reservation) => (reservation.bytes()[at..at + len].as_mut_ptr(), false),
            State::Sealed(lease) => (lease.bytes()[at..at + len].as_ptr().cast_mut(), true),
            State::Closed => return Err(PyOSError::new_err("it is being sealed")),
        };
        // SAFETY: as above.
        unsafe { fill_view(slf.as_any(), view, (start, len), read_only, flags) }
    }

    #[allow(unsafe_code)]
    unsafe fn __releasebuffer__(&self, _view: *mut pyo3::ffi::Py_buffer) {}
}
