//! Places of the shared index: which are free, which are lent to a client for objects to come, which hold an object.

use crate::objects::ClientId;

/// A place in the shared index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    Lent(ClientId),
    Used,
}

/// All places. Freed ones are used again, the latest first, so that few pages of the index are touched.
#[derive(Debug)]
pub(crate) struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
    most: u32,
}

impl Slots {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            most,
        }
    }

    /// Lends a free place to `client`.
    pub(crate) fn lend(&mut self, client: ClientId) -> Option<SlotId> {
        let slot = self.free.pop().or_else(|| {
            let next = u32::try_from(self.slots.len()).ok().filter(|&next| next < self.most)?;
            self.slots.push(Slot::Free);
            Some(next)
        })?;
        self.slots[slot as usize] = Slot::Lent(client);
        Some(SlotId(slot))
    }

    /// Whether `slot` is lent to a client.
    pub(crate) fn is_lent(&self, slot: SlotId) -> bool {
        matches!(self.slots.get(slot.0 as usize), Some(Slot::Lent(_)))
    }

    pub(crate) fn use_lent(&mut self, slot: SlotId) {
        self.slots[slot.0 as usize] = Slot::Used;
    }

    pub(crate) fn free(&mut self, slot: SlotId) {
        self.slots[slot.0 as usize] = Slot::Free;
        self.free.push(slot.0);
    }

    /// Takes back what was lent to `client`.
    pub(crate) fn forget(&mut self, client: ClientId) {
        for slot in 0..self.slots.len() {
            if self.slots[slot] == Slot::Lent(client) {
                self.slots[slot] = Slot::Free;
                self.free
                    .push(u32::try_from(slot).expect("places are counted in 32 bits"));
            }
        }
    }

    pub(crate) fn in_use(&self) -> usize {
        self.slots.iter().filter(|slot| **slot == Slot::Used).count()
    }
}
