//! Opening and closing the store.

use crate::border::{guarded, own, shared};
use crate::status::bh_status;
use crate::types::bh_store;
use bridgehead_guest::{Guest, Surroundings};

/// Comes into the run that started this process's program, as its variables (BRIDGEHEAD_SOCKET and others) say. *store is to
/// be closed with bh_close.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives a pointer to a pointer.
pub unsafe extern "C" fn bh_open(store: *mut *mut bh_store) -> bh_status {
    guarded(|| {
        // SAFETY: as above.
        let out = unsafe { own(store, "the place for the store") }?;
        *out = std::ptr::null_mut();
        let guest = Guest::enter(&Surroundings::of_this_process()?)?;
        *out = Box::into_raw(Box::new(bh_store(guest)));
        Ok(bh_status::BH_OK)
    })
}

/// Leaves the run. Views, drafts and watches that are still there stay good until they are released; null does nothing.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, once, or null.
pub unsafe extern "C" fn bh_close(store: *mut bh_store) {
    guarded(|| {
        if !store.is_null() {
            // SAFETY: as above: it came from a box of this type.
            drop(unsafe { Box::from_raw(store) });
        }
        Ok(bh_status::BH_OK)
    });
}

/// The number of the node, from 0, that this process runs on; -1 for null.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
// SAFETY: no other function of the program has this name. Its caller gives what `bh_open` gave, or null.
pub unsafe extern "C" fn bh_node(store: *const bh_store) -> i32 {
    let mut node = -1;
    guarded(|| {
        // SAFETY: as above.
        let store = unsafe { shared(store, "the store") }?;
        node = i32::try_from(store.0.node()).unwrap_or(i32::MAX);
        Ok(bh_status::BH_OK)
    });
    node
}
