//! Objects that are to lie in the memory of a NUMA node: brought into this node's memory, then copied to the arena of it.

use crate::index::State as Mark;
use crate::node::{SELF, Shared, StoreError};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::{Extent, SlotId, Spill};
use bridgehead_wire::ObjectRef;
use std::sync::PoisonError;
use std::time::Instant;

impl Shared {
    /// Pins an object and says where it lies, in `arena` if there is room in it, else in the nearest one that has. Readers who
    /// look at it where it lay keep that until they let go.
    pub(crate) fn settle_in(&self, id: ObjectId, arena: usize, deadline: Instant) -> Result<ObjectRef, StoreError> {
        loop {
            let object = self.bring(id, deadline)?;
            if self.arena_of(object.offset) == arena {
                return Ok(self.told(object));
            }
            self.unpin(id);
            let extent = self.make_room(SELF, object.len, Some(arena), deadline)?;
            if self.arena_of(extent.offset) != arena {
                self.lock().core.give_back(SELF, extent);
                return self.bring(id, deadline).map(|object| self.told(object));
            }
            let slot = self.lock().core.lend_slots(SELF, 1).pop();
            let moved = slot.is_some_and(|slot| self.move_to(id, extent, slot));
            if !moved {
                let mut state = self.lock();
                state.core.give_back(SELF, extent);
                slot.into_iter().for_each(|slot| state.core.return_slot(slot));
                drop(state);
                self.wait_for_change(id, deadline)?;
            }
        }
    }

    fn arena_of(&self, offset: u64) -> usize {
        self.lock().core.arena_of(offset)
    }

    /// As a reference that says which NUMA node's memory it is in.
    fn told(&self, object: ObjectRef) -> ObjectRef {
        let numa = self.options.arenas[self.arena_of(object.offset)].numa;
        ObjectRef {
            numa: numa.map_or(0, |numa| numa + 1),
            ..object
        }
    }

    /// Copies an object that nobody has pinned to a granted range, which is its place from then on. `false` where it has not
    /// moved.
    #[allow(unsafe_code)]
    fn move_to(&self, id: ObjectId, to: Extent, slot: SlotId) -> bool {
        let Some(from) = self.lock().core.begin_move(id) else {
            return false;
        };
        // SAFETY: an object that is being moved keeps its bytes until `moved` or `keep`, which come below.
        let bytes = unsafe { self.arena.slice(from.extent.offset, from.len) };
        self.fill(to, bytes);
        self.end_move(from, to, slot)
    }

    fn end_move(&self, from: Spill, to: Extent, slot: SlotId) -> bool {
        let mut state = self.lock();
        self.index.mark(from.slot, Mark::Closing);
        let moved = state.core.moved(from.id, SELF, to, slot);
        if moved {
            self.index.enter(slot, from.id, to.offset, from.len);
        } else {
            self.index.mark(from.slot, Mark::Memory);
        }
        let released = state.core.slot(from.id).is_some_and(|(_, released)| released);
        if (!moved && state.core.keep(from.id)) || (moved && released) {
            self.free(&mut state, from.id);
        }
        self.sweep(&mut state);
        drop(state);
        self.changed.notify_all();
        moved
    }

    fn wait_for_change(&self, id: ObjectId, deadline: Instant) -> Result<(), StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.is_stopping() {
            return Err(StoreError::Full(format!(
                "object {id} could not be moved to other memory in time: tasks use it all the while"
            )));
        }
        // A worker's pin is given back with a notice; the short limit is for what comes without one.
        let left = left.min(std::time::Duration::from_millis(20));
        let waited = self.changed.wait_timeout(self.lock(), left);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        Ok(())
    }
}
