//! Objects that move from one range of memory to another, so that they lie in the memory that was asked for. Readers who have
//! a lease keep what they look at; others find the new range.

use super::{ClientId, Core, Place, Spill};
use crate::extents::Extent;
use crate::slots::SlotId;
use bridgehead_spec::ObjectId;

impl Core {
    /// Begins to move an object to another range of memory. It counts as being moved until `moved` or `keep`. `None` where it is
    /// not in memory, is pinned, or is on its way already.
    pub fn begin_move(&mut self, id: ObjectId) -> Option<Spill> {
        let object = self.objects.get_mut(&id).filter(|o| o.pins == 0 && !o.released)?;
        let Place::Memory(extent) = object.place else {
            return None;
        };
        object.place = Place::Spilling(extent);
        let (slot, len, used, to) = (object.slot, object.len, object.used, object.away());
        self.idle.remove(&(used, id));
        Some(Spill {
            id,
            slot,
            extent,
            len,
            to,
        })
    }

    /// An object lies complete in `extent` too, which was granted to `client`, and takes the lent place `slot`. What it leaves
    /// stays for those who have a lease until `forget_left`. `false` when somebody has pinned it meanwhile, so that it stays where
    /// it was, or the range or the place was not given out: nothing has changed then.
    pub fn moved(&mut self, id: ObjectId, client: ClientId, extent: Extent, slot: SlotId) -> bool {
        let Some(object) = self.objects.get(&id).filter(|object| object.pins == 0) else {
            return false;
        };
        let Place::Spilling(before) = object.place else {
            return false;
        };
        if !self.slots.is_lent(slot) || self.carve(extent, Some(client)).is_none() {
            return false;
        }
        self.slots.use_lent(slot);
        if let Some(object) = self.objects.get_mut(&id) {
            self.left.push((object.slot, before));
            object.place = Place::Memory(extent);
            object.slot = slot;
        }
        self.settle(id);
        true
    }

    /// Frees what objects have left and no reader looks at any more; the places that come free.
    pub fn forget_left(&mut self, held: impl Fn(SlotId) -> bool) -> Vec<SlotId> {
        let (kept, gone): (Vec<_>, Vec<_>) = std::mem::take(&mut self.left)
            .into_iter()
            .partition(|(slot, _)| held(*slot));
        self.left = kept;
        for (slot, extent) in &gone {
            self.extents.give(*extent);
            self.slots.free(*slot);
        }
        gone.into_iter().map(|(slot, _)| slot).collect()
    }
}
