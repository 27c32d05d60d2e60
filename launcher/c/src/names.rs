//! Names without their values: streams, ends, waiting, watching.

use crate::border::{guarded, own, patience, shared, shown, text, version};
use crate::status::{bh_status, wrong};
use crate::types::{bh_store, bh_view, bh_watch};
use std::ffi::c_char;

/// Makes a name a stream, which ends with this process's task and keeps its newest `keep` versions (0: all). With `block` not 0 a
/// put into a full stream waits until its oldest version was taken; else that one is dropped.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, and a text.
pub unsafe extern "C" fn bh_stream(store: *const bh_store, name: *const c_char, keep: i32, block: i32) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (store, name) = unsafe { (shared(store, "the store")?, text(name)?) };
        let keep = u32::try_from(keep).map_err(|_| wrong(format!("keep {keep}: give 0 or more")))?;
        store.0.stream(name, keep, block != 0)?;
        Ok(bh_status::BH_OK)
    })
}

/// Says that no version of a name follows.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, and a text.
pub unsafe extern "C" fn bh_close_name(store: *const bh_store, name: *const c_char) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (store, name) = unsafe { (shared(store, "the store")?, text(name)?) };
        store.0.close_name(name)?;
        Ok(bh_status::BH_OK)
    })
}

/// Forgets a name with all its versions. Views of them stay.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, and a text.
pub unsafe extern "C" fn bh_delete(store: *const bh_store, name: *const c_char) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (store, name) = unsafe { (shared(store, "the store")?, text(name)?) };
        store.0.delete(name)?;
        Ok(bh_status::BH_OK)
    })
}

/// Waits until a version is there (0: any), up to `timeout` seconds (below 0: as long as it takes). Its number goes to *found,
/// which may be null.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, a text and a place or null.
pub unsafe extern "C" fn bh_wait(
    store: *const bh_store,
    name: *const c_char,
    wanted: i64,
    timeout: f64,
    found: *mut i64,
) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (store, name) = unsafe { (shared(store, "the store")?, text(name)?) };
        let number = store.0.wait(name, version(wanted)?, patience(timeout)?)?;
        // SAFETY: as above.
        if let Some(found) = unsafe { found.as_mut() } {
            *found = shown(number);
        }
        Ok(bh_status::BH_OK)
    })
}

/// Follows a name, which need not be there yet, from version `start` on (0: from the oldest that is there). *watch is to be given
/// back with bh_unwatch: a stream whose puts wait for room waits for all who follow it.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, a text and a place.
pub unsafe extern "C" fn bh_follow(
    store: *const bh_store,
    name: *const c_char,
    start: i64,
    watch: *mut *mut bh_watch,
) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let (store, name, out) = unsafe {
            (
                shared(store, "the store")?,
                text(name)?,
                own(watch, "the place for the watch")?,
            )
        };
        *out = std::ptr::null_mut();
        if name.is_empty() {
            return Err(wrong("a name has 1 to 256 bytes, this one is empty"));
        }
        let watch = store.0.watch(name, version(start)?.unwrap_or(0));
        *out = Box::into_raw(Box::new(bh_watch(watch)));
        Ok(bh_status::BH_OK)
    })
}

/// The next version of a name that is followed, once it is there: up to `timeout` seconds (below 0: as long as it takes). BH_END
/// says that none will come. The view is to be given back with bh_release; where BH_OK does not come, it holds none. After
/// BH_LOST and BH_NOT_AN_ARRAY the next call goes on with the version behind.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_follow` gave, to one thread at a time, and a
// place for a view.
pub unsafe extern "C" fn bh_next(watch: *mut bh_watch, timeout: f64, view: *mut bh_view) -> bh_status {
    guarded(|| {
        // SAFETY: as above. What was in the place is not looked at, only written over.
        let (watch, out) = unsafe { (own(watch, "the watch")?, own(view, "the place for the view")?) };
        *out = bh_view::empty();
        match watch.0.next(patience(timeout)?)? {
            Some(view) => *out = view.into(),
            None => return Ok(bh_status::BH_END),
        }
        Ok(bh_status::BH_OK)
    })
}

/// Follows a name no longer; null does nothing.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_follow` gave, once, or null.
pub unsafe extern "C" fn bh_unwatch(watch: *mut bh_watch) {
    guarded(|| {
        if !watch.is_null() {
            // SAFETY: as above: it came from a box of this type.
            drop(unsafe { Box::from_raw(watch) });
        }
        Ok(bh_status::BH_OK)
    });
}
