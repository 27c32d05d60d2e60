//! What has come from another node: written into a range that the store granted itself, then an object of this node.

use crate::node::{Arrival, SELF, Shared};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::Extent;

impl Shared {
    /// Copies `bytes` into a range that was granted to this thread.
    #[allow(unsafe_code)]
    pub(crate) fn fill(&self, extent: Extent, bytes: &[u8]) {
        // SAFETY: the range was granted to the caller alone, and nobody reads it before it is published.
        unsafe { self.arena.slice_mut(extent.offset, bytes.len() as u64) }.copy_from_slice(bytes);
    }

    /// Publishes an object that this process wrote into a range of its own, and pins it. Where it is in memory already, the
    /// range is given back; where it is on disk, these bytes take the place of its file.
    pub(crate) fn adopt(&self, id: ObjectId, extent: Extent, len: u64, sum: u64) -> Arrival {
        let mut state = self.lock();
        let Some(slot) = state.core.lend_slots(SELF, 1).pop() else {
            state.core.give_back(SELF, extent);
            return Err("the store's index is full".to_owned());
        };
        match state.core.publish(id, extent.offset, len, slot) {
            Ok(_) => {
                state.sums.note(id, sum);
                self.index.enter(slot, id, extent.offset, len);
            }
            Err(_) => {
                if let Ok(from) = state.core.restore(id, SELF, extent) {
                    self.restored(&mut state, id, extent, len, from);
                } else {
                    state.core.give_back(SELF, extent);
                }
                state.core.return_slot(slot);
            }
        }
        // Before anybody else may move it to disk again.
        let pinned = self.pin_in(&mut state, id);
        drop(state);
        self.changed.notify_all();
        pinned.ok_or_else(|| format!("object {id} was released while it came"))
    }

    /// The bytes of a range that was granted to this store itself, and is complete.
    #[allow(unsafe_code)]
    pub(crate) fn granted(&self, extent: Extent, len: u64) -> &[u8] {
        // SAFETY: nobody writes a range that is complete, and whoever has it gives it to nobody while this is looked at.
        unsafe { self.arena.slice(extent.offset, len) }
    }
}
