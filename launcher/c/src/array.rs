//! Arrays under names: put by one copy or filled in place, taken without a copy.

use crate::border::{guarded, head, own, patience, shared, shown, text, version};
use crate::status::{Failure, bh_status, wrong};
use crate::types::{bh_draft, bh_store, bh_view};
use std::ffi::{c_char, c_void};

/// The version that a put is to have; none where nobody says.
///
/// # Safety
/// As for `as_ref`.
#[allow(unsafe_code)]
unsafe fn asked(place: *const i64) -> Result<Option<u64>, Failure> {
    // SAFETY: by the caller's word.
    unsafe { place.as_ref() }.map_or(Ok(None), |&number| version(number))
}

/// Adds a version of a name: an array of `ndim` axes with `shape` lengths, whose numbers of type `dtype` lie at `data` without
/// gaps, the last axis varying fastest (BH_C_ORDER) or the first one (BH_FORTRAN_ORDER). They are copied, and may be changed
/// afterwards. In a stream that blocks, it waits for room up to `timeout` seconds (below 0: as long as it takes).
///
/// *number, which may be null, is the version's on return. 0 before, the next one is given. Another number, beyond the newest
/// one, is kept; one that was put before changes nothing, so that a program that runs again may put again what it has put.
#[unsafe(no_mangle)]
#[allow(unsafe_code, clippy::too_many_arguments)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, a text, `ndim` lengths, as many
// numbers as they say, and a place or null.
pub unsafe extern "C" fn bh_put(
    store: *const bh_store,
    name: *const c_char,
    dtype: i32,
    order: i32,
    ndim: i32,
    shape: *const i64,
    data: *const c_void,
    timeout: f64,
    number: *mut i64,
) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (store, name) = unsafe { (shared(store, "the store")?, text(name)?) };
        // SAFETY: as above.
        let (head, version) = unsafe { (head(dtype, order, ndim, shape)?, asked(number)?) };
        let numbers = match head.bytes() {
            0 => &[],
            _ if data.is_null() => return Err(wrong("the data is null")),
            // SAFETY: as above, and it is not null. Who writes the numbers meanwhile gets a mixture, as with every copy.
            bytes => unsafe { std::slice::from_raw_parts(data.cast::<u8>(), bytes) },
        };
        let put = store.0.put(name, &head, numbers, version, patience(timeout)?)?;
        // SAFETY: as above.
        if let Some(number) = unsafe { number.as_mut() } {
            *number = shown(put);
        }
        Ok(bh_status::BH_OK)
    })
}

/// An array in the store of this node, to be filled at *data and then published without a copy by bh_publish, or given up by
/// bh_discard. What is in it at first is undefined.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, `ndim` lengths and two places.
pub unsafe extern "C" fn bh_create(
    store: *const bh_store,
    dtype: i32,
    order: i32,
    ndim: i32,
    shape: *const i64,
    draft: *mut *mut bh_draft,
    data: *mut *mut c_void,
) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (out, place) = unsafe {
            (
                own(draft, "the place for the draft")?,
                own(data, "the place for the data")?,
            )
        };
        (*out, *place) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: as above.
        let (store, head) = unsafe { (shared(store, "the store")?, head(dtype, order, ndim, shape)?) };
        let mut draft = store.0.create(&head)?;
        *place = draft.numbers().as_mut_ptr().cast();
        *out = Box::into_raw(Box::new(bh_draft(draft)));
        Ok(bh_status::BH_OK)
    })
}

/// Makes a draft a version of a name, without a copy; timeout and number are those of bh_put. The draft is gone on return, also
/// where that is not BH_OK, and its numbers must not be written any more.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_create` gave, once, a text and a place or
// null.
pub unsafe extern "C" fn bh_publish(
    draft: *mut bh_draft,
    name: *const c_char,
    timeout: f64,
    number: *mut i64,
) -> bh_status {
    guarded(|| {
        if draft.is_null() {
            return Err(wrong("the draft is null"));
        }
        // SAFETY: as above: it came from a box of this type.
        let draft = unsafe { Box::from_raw(draft) };
        // SAFETY: as above.
        let (name, version) = unsafe { (text(name)?, asked(number)?) };
        let put = draft.0.publish(name, version, patience(timeout)?)?;
        // SAFETY: as above.
        if let Some(number) = unsafe { number.as_mut() } {
            *number = shown(put);
        }
        Ok(bh_status::BH_OK)
    })
}

/// Gives up a draft; null does nothing.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_create` gave, once, or null.
pub unsafe extern "C" fn bh_discard(draft: *mut bh_draft) {
    guarded(|| {
        if !draft.is_null() {
            // SAFETY: as above: it came from a box of this type.
            drop(unsafe { Box::from_raw(draft) });
        }
        Ok(bh_status::BH_OK)
    });
}

/// Takes a version of a name (0: the newest), without a copy where it lies on this node. Where it is not there yet it is waited
/// for, up to `timeout` seconds (0: not at all; below: as long as it takes). The view is to be given back with bh_release;
/// where BH_OK does not come, it holds none.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, a text and a place.
pub unsafe extern "C" fn bh_get(
    store: *const bh_store,
    name: *const c_char,
    wanted: i64,
    timeout: f64,
    view: *mut bh_view,
) -> bh_status {
    guarded(|| {
        // SAFETY: as above. What was in the place is not looked at, only written over.
        let out = unsafe { own(view, "the place for the view") }?;
        *out = bh_view::empty();
        // SAFETY: as above.
        let (store, name) = unsafe { (shared(store, "the store")?, text(name)?) };
        *out = store.0.get(name, version(wanted)?, patience(timeout)?)?.into();
        Ok(bh_status::BH_OK)
    })
}

/// Gives a view back: its numbers may go. A view that holds none, and null, do nothing.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives a view that this library has filled, or null.
pub unsafe extern "C" fn bh_release(view: *mut bh_view) {
    guarded(|| {
        // SAFETY: as above.
        if let Some(view) = unsafe { view.as_mut() } {
            let hold = std::mem::replace(view, bh_view::empty()).hold;
            if !hold.is_null() {
                // SAFETY: as above: it came from a box of this type, and no view has it any more.
                drop(unsafe { Box::from_raw(hold) });
            }
        }
        Ok(bh_status::BH_OK)
    });
}
