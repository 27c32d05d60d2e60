//! What crosses the border as data: types of numbers, orders, views. Owns their layout, which is never changed.

use bridgehead_guest::{Draft, Guest, View, Watch};
use std::ffi::c_void;

/// Axes that an array may have.
pub const BH_MAX_NDIM: i32 = 32;
/// A timeout: as long as it takes.
pub const BH_FOREVER: f64 = -1.0;
/// The last axis varies fastest, as in C.
pub const BH_C_ORDER: i32 = 0;
/// The first axis varies fastest, as in Fortran.
pub const BH_FORTRAN_ORDER: i32 = 1;

/// Truth values of one byte.
pub const BH_BOOL: i32 = 0x6201;
/// int8_t
pub const BH_INT8: i32 = 0x6901;
/// int16_t
pub const BH_INT16: i32 = 0x6902;
/// int32_t
pub const BH_INT32: i32 = 0x6904;
/// int64_t
pub const BH_INT64: i32 = 0x6908;
/// uint8_t
pub const BH_UINT8: i32 = 0x7501;
/// uint16_t
pub const BH_UINT16: i32 = 0x7502;
/// uint32_t
pub const BH_UINT32: i32 = 0x7504;
/// uint64_t
pub const BH_UINT64: i32 = 0x7508;
/// Floating numbers of two bytes.
pub const BH_FLOAT16: i32 = 0x6602;
/// float
pub const BH_FLOAT32: i32 = 0x6604;
/// double
pub const BH_FLOAT64: i32 = 0x6608;
/// long double, where it has 16 bytes.
pub const BH_LONG_DOUBLE: i32 = 0x6610;
/// float complex
pub const BH_COMPLEX64: i32 = 0x6308;
/// double complex
pub const BH_COMPLEX128: i32 = 0x6310;
/// long double complex, where it has 32 bytes.
pub const BH_LONG_COMPLEX: i32 = 0x6320;

/// A process's part in its run.
pub struct bh_store(pub(crate) Guest);

/// An array that is being filled.
pub struct bh_draft(pub(crate) Draft);

/// A name that is followed.
pub struct bh_watch(pub(crate) Watch);

/// What keeps the numbers of a view where they are.
pub struct bh_hold(#[allow(dead_code, reason = "kept, not read")] pub(crate) View);

/// An array that was taken. Its numbers are for reading, and stay where they are until bh_release; they are aligned to 64 bytes.
#[repr(C)]
#[derive(Debug)]
pub struct bh_view {
    /// The numbers.
    pub data: *const c_void,
    /// Bytes of all of them.
    pub bytes: u64,
    /// The version.
    pub version: i64,
    /// One of BH_INT32, BH_FLOAT64 and so on.
    pub dtype: i32,
    /// BH_C_ORDER or BH_FORTRAN_ORDER.
    pub order: i32,
    /// Axes.
    pub ndim: i32,
    /// 0.
    pub reserved: i32,
    /// Length along each axis; 0 beyond the last.
    pub shape: [i64; 32],
    /// Bytes from one number to the next along each axis; 0 beyond the last.
    pub strides: [i64; 32],
    /// The library's own; null where nothing was taken.
    pub hold: *mut bh_hold,
}

impl bh_view {
    /// No array.
    pub(crate) fn empty() -> Self {
        Self {
            data: std::ptr::null(),
            bytes: 0,
            version: 0,
            dtype: 0,
            order: 0,
            ndim: 0,
            reserved: 0,
            shape: [0; 32],
            strides: [0; 32],
            hold: std::ptr::null_mut(),
        }
    }
}

impl From<View> for bh_view {
    fn from(view: View) -> Self {
        let head = view.head.clone();
        let wide = |number: isize| i64::try_from(number).unwrap_or(i64::MAX);
        let mut out = Self::empty();
        for (axis, (&length, stride)) in head.shape.iter().zip(head.strides()).enumerate() {
            out.shape[axis] = i64::try_from(length).unwrap_or(i64::MAX);
            out.strides[axis] = wide(stride);
        }
        out.data = view.numbers().as_ptr().cast();
        out.bytes = head.bytes() as u64;
        out.version = crate::border::shown(view.version);
        out.dtype = i32::from_be_bytes([0, 0, head.numbers.kind, head.numbers.size]);
        out.order = i32::from(head.fortran);
        out.ndim = i32::try_from(head.shape.len()).unwrap_or(i32::MAX);
        out.hold = Box::into_raw(Box::new(bh_hold(view)));
        out
    }
}
