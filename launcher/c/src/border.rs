//! What every call over the border does: pointers become references or an error, panics and errors become codes.

use crate::status::{Failure, bh_status, keep, wrong};
use bridgehead_guest::Patience;
use bridgehead_wire::{ArrayHead, MOST_AXES, Numbers};
use std::ffi::{CStr, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

/// Runs the body of a function of the library.
pub(crate) fn guarded(body: impl FnOnce() -> Result<bh_status, Failure>) -> bh_status {
    // What a panic leaves behind is this library's own: locks of plain tables, which go on.
    let done = catch_unwind(AssertUnwindSafe(body));
    let failure = match done {
        Ok(Ok(status)) => return status,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?");
            Failure {
                status: bh_status::BH_INTERNAL,
                why: format!("a mistake of the library: {text}"),
            }
        }
    };
    keep(&failure.why);
    failure.status
}

/// What a handle points to.
///
/// # Safety
/// It is null, or points to a `T` that lives as long as `'a` and that nobody writes meanwhile.
#[allow(unsafe_code)]
pub(crate) unsafe fn shared<'a, T>(pointer: *const T, what: &str) -> Result<&'a T, Failure> {
    // SAFETY: by the caller's word.
    unsafe { pointer.as_ref() }.ok_or_else(|| wrong(format!("{what} is null")))
}

/// What a pointer for an answer points to.
///
/// # Safety
/// It is null, or points to a `T` that nobody else uses as long as `'a`.
#[allow(unsafe_code)]
pub(crate) unsafe fn own<'a, T>(pointer: *mut T, what: &str) -> Result<&'a mut T, Failure> {
    // SAFETY: by the caller's word.
    unsafe { pointer.as_mut() }.ok_or_else(|| wrong(format!("{what} is null")))
}

/// A name.
///
/// # Safety
/// It is null, or a text of C that stays as it is as long as `'a`.
#[allow(unsafe_code)]
pub(crate) unsafe fn text<'a>(name: *const c_char) -> Result<&'a str, Failure> {
    if name.is_null() {
        return Err(wrong("the name is null"));
    }
    // SAFETY: by the caller's word, and it is not null.
    let name = unsafe { CStr::from_ptr(name) };
    name.to_str().map_err(|_| wrong("the name is not UTF-8"))
}

/// What was asked for as an array.
///
/// # Safety
/// `shape` is null, or points to `ndim` numbers.
#[allow(unsafe_code)]
pub(crate) unsafe fn head(dtype: i32, order: i32, ndim: i32, shape: *const i64) -> Result<ArrayHead, Failure> {
    let [0, 0, kind, size] = dtype.to_be_bytes() else {
        return Err(wrong(format!("dtype {dtype} is none of the BH_... constants")));
    };
    let numbers =
        Numbers::new(kind, size).map_err(|_| wrong(format!("dtype {dtype} is none of the BH_... constants")))?;
    if order != 0 && order != 1 {
        return Err(wrong(format!("order {order}: give BH_C_ORDER or BH_FORTRAN_ORDER")));
    }
    let axes = usize::try_from(ndim).ok().filter(|&axes| axes <= MOST_AXES);
    let axes = axes.ok_or_else(|| wrong(format!("ndim {ndim}: an array has 0 to {MOST_AXES} axes")))?;
    if axes > 0 && shape.is_null() {
        return Err(wrong("the shape is null"));
    }
    let mut lengths = Vec::with_capacity(axes);
    for axis in 0..axes {
        // SAFETY: by the caller's word there are so many, and it is not null.
        let length = unsafe { shape.add(axis).read() };
        let bad = |_| wrong(format!("axis {axis} has length {length}: give 0 or more"));
        lengths.push(usize::try_from(length).map_err(bad)?);
    }
    ArrayHead::new(numbers, order == 1, lengths).map_err(|e| wrong(format!("the array cannot be: {e}")))
}

/// Seconds to wait: none at 0, for ever below.
pub(crate) fn patience(seconds: f64) -> Result<Patience, Failure> {
    if seconds.is_nan() {
        return Err(wrong("the timeout is no number"));
    }
    Ok(match seconds {
        0.0 => Patience::None,
        _ if seconds < 0.0 => Patience::Forever,
        _ => Duration::try_from_secs_f64(seconds).map_or(Patience::Forever, Patience::For),
    })
}

/// The number of a version that was asked for; none at 0.
pub(crate) fn version(number: i64) -> Result<Option<u64>, Failure> {
    let number = u64::try_from(number).map_err(|_| wrong(format!("version {number}: versions count from 1")))?;
    Ok(Some(number).filter(|&number| number > 0))
}

/// A version's number as C gets it.
pub(crate) fn shown(version: u64) -> i64 {
    i64::try_from(version).unwrap_or(i64::MAX)
}
