//! The objects of a node and the rules of their lives: granted, published, pinned, spilled, restored, released, freed.

mod moves;

use crate::arenas::Arena;
use crate::extents::{Extent, Extents, rounded};
use crate::media::{Copy, Device, Medium};
use crate::slots::{SlotId, Slots};
use bridgehead_spec::ObjectId;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use thiserror::Error;

/// A process that may write into the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub u64);

/// Where an object's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the arena.
    Memory(Extent),
    /// In the arena, and about to leave it.
    Spilling(Extent),
    /// Not in the arena.
    Away(Medium),
    /// Not in the arena, and being read into it.
    Restoring(Extent, Medium),
}

/// Why a grant was denied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Denied {
    /// It can never fit.
    #[error("{len} bytes are more than the whole store of this node has ({total} bytes)")]
    Never {
        /// What was asked for.
        len: u64,
        /// What there is.
        total: u64,
    },
    /// There is no room now; moving objects to disk or waiting may make some.
    #[error("no room for {len} bytes: {free} of {total} are free, the longest piece is {longest}")]
    Full {
        /// What was asked for.
        len: u64,
        /// Free bytes in all.
        free: u64,
        /// The longest free piece.
        longest: u64,
        /// Bytes of the arena.
        total: u64,
    },
}

/// Why an object was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PublishError {
    /// Its range was not granted to anybody, or is in use.
    #[error("its range of the arena was not granted, or was taken back when its writer died")]
    NotGranted,
    /// Its place in the index was not lent.
    #[error("its place in the index was not lent to its writer")]
    NoSlot,
    /// There is such an object already.
    #[error("an object of that name is here already")]
    Exists,
}

/// An object to be written to disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spill {
    /// The object.
    pub id: ObjectId,
    /// Its place in the index.
    pub slot: SlotId,
    /// Its bytes.
    pub extent: Extent,
    /// Its length; the extent is rounded up.
    pub len: u64,
    /// Where it lies once it has left: it is written to disk, or has a copy on a device already, which stays.
    pub to: Medium,
}

/// What is left to do once an object is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freed {
    /// The object.
    pub id: ObjectId,
    /// Its place in the index, free again.
    pub slot: SlotId,
    /// Whether a file of it has to be removed.
    pub on_disk: bool,
    /// The device whose memory it took.
    pub device: Option<u32>,
}

/// How full the store is, in bytes where nothing else is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Objects that are here.
    pub objects: usize,
    /// In the arena, granted ranges included.
    pub used: u64,
    /// The arena.
    pub total: u64,
    /// Moved to disk and still there.
    pub spilled: u64,
    /// Objects that pins hold in memory.
    pub pinned: u64,
    /// Granted to clients and not published.
    pub granted: u64,
    /// In the memory of devices: of each, see `Core::devices`.
    pub on_devices: u64,
    /// Left by objects that were moved to other memory, for readers who still look at it.
    pub left: u64,
}

/// The table of objects is not made smaller than for so many.
const FEW: usize = 1024;

#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) len: u64,
    pub(crate) slot: SlotId,
    pub(crate) place: Place,
    pub(crate) pins: u32,
    pub(crate) released: bool,
    /// Position in the order of use.
    used: u64,
    /// Its copy in the memory of a device.
    pub(crate) copy: Copy,
    /// Readers of that copy.
    pub(crate) viewers: u32,
}

#[derive(Debug, Clone, Copy)]
struct Grant {
    len: u64,
    client: ClientId,
}

/// All decisions of one node's store.
#[derive(Debug)]
pub struct Core {
    extents: Extents,
    /// For each arena all of them, the nearest first.
    nearest: Vec<Vec<usize>>,
    /// Ranges that objects have left and readers still look at, with the places that their leases name.
    left: Vec<(SlotId, Extent)>,
    slots: Slots,
    /// Granted ranges that hold no object, by offset.
    grants: BTreeMap<u64, Grant>,
    pub(crate) objects: HashMap<ObjectId, Object>,
    /// Objects in memory without a pin, the longest unused first.
    pub(crate) idle: BTreeSet<(u64, ObjectId)>,
    clock: u64,
    spilled: u64,
    pub(crate) devices: Vec<Device>,
}

impl Core {
    /// A store with these arenas and an index of `slots` places.
    #[must_use]
    pub fn new(arenas: &[Arena], slots: u32) -> Self {
        let lengths: Vec<u64> = arenas.iter().map(|arena| arena.len).collect();
        Self {
            extents: Extents::new(&lengths),
            nearest: arenas.iter().map(|arena| arena.nearest.clone()).collect(),
            left: Vec::new(),
            slots: Slots::new(slots),
            grants: BTreeMap::new(),
            objects: HashMap::new(),
            idle: BTreeSet::new(),
            clock: 0,
            spilled: 0,
            devices: Vec::new(),
        }
    }

    /// Lets `client` write into a range of `len` bytes (rounded up): in the arena `near` or the next one that has room, without
    /// one where the most bytes are free.
    ///
    /// # Errors
    /// It does not fit now, or never will.
    pub fn grant(&mut self, client: ClientId, len: u64, near: Option<usize>) -> Result<Extent, Denied> {
        let total = self.extents.total();
        if rounded(len).is_none_or(|len| len > total) {
            return Err(Denied::Never { len, total });
        }
        let near = near.filter(|&near| near < self.nearest.len());
        let near = near.unwrap_or_else(|| self.emptiest());
        let order = self.nearest.get(near).map_or(&[][..], Vec::as_slice);
        let Some(extent) = self.extents.take(len, order) else {
            return Err(Denied::Full {
                len,
                free: self.extents.free(),
                longest: self.extents.longest(),
                total,
            });
        };
        self.grants.insert(
            extent.offset,
            Grant {
                len: extent.len,
                client,
            },
        );
        Ok(extent)
    }

    fn emptiest(&self) -> usize {
        let free = self.extents.free_by_arena().iter().enumerate();
        free.rev().max_by_key(|(_, free)| **free).map_or(0, |(arena, _)| arena)
    }

    /// The arena that a byte lies in.
    #[must_use]
    pub fn arena_of(&self, offset: u64) -> usize {
        self.extents.arena_of(offset)
    }

    /// Lends `client` up to `count` places in the index.
    pub fn lend_slots(&mut self, client: ClientId, count: usize) -> Vec<SlotId> {
        (0..count).map_while(|_| self.slots.lend(client)).collect()
    }

    /// A lent place comes back without an object.
    pub fn return_slot(&mut self, slot: SlotId) {
        if self.slots.is_lent(slot) {
            self.slots.free(slot);
        }
    }

    /// A client gives back a granted range in which it wrote no object. What was not granted to it stays as it is.
    pub fn give_back(&mut self, client: ClientId, extent: Extent) {
        if self.carve(extent, Some(client)).is_some() {
            self.extents.give(extent);
        }
    }

    /// A client is gone: what it was granted and did not publish is free again.
    pub fn client_gone(&mut self, client: ClientId) {
        let theirs = self.grants.extract_if(.., |_, grant| grant.client == client);
        for (offset, grant) in theirs {
            self.extents.give(Extent::new(offset, grant.len));
        }
        self.slots.forget(client);
    }

    /// Takes `extent` out of the grant that it lies in, if there is one (of `client`, where that is said).
    fn carve(&mut self, extent: Extent, client: Option<ClientId>) -> Option<()> {
        let (&offset, &grant) = self.grants.range(..=extent.offset).next_back()?;
        let whole = Extent::new(offset, grant.len);
        if !whole.contains(&extent) || client.is_some_and(|client| client != grant.client) {
            return None;
        }
        self.grants.remove(&offset);
        let mut rest = |from: u64, to: u64| {
            if to > from {
                self.grants.insert(
                    from,
                    Grant {
                        len: to - from,
                        ..grant
                    },
                );
            }
        };
        rest(offset, extent.offset);
        rest(extent.end(), whole.end());
        Some(())
    }

    /// An object of `len` bytes lies complete at `offset`, in a granted range, and takes the lent place `slot`.
    ///
    /// # Errors
    /// The range or the place was not given out, or the name is in use; nothing changes then.
    pub fn publish(&mut self, id: ObjectId, offset: u64, len: u64, slot: SlotId) -> Result<Extent, PublishError> {
        if self.objects.contains_key(&id) {
            return Err(PublishError::Exists);
        }
        if !self.slots.is_lent(slot) {
            return Err(PublishError::NoSlot);
        }
        let size = rounded(len).ok_or(PublishError::NotGranted)?;
        let extent = Extent::new(offset, size);
        if offset.checked_add(size).is_none() || !offset.is_multiple_of(crate::ALIGN) {
            return Err(PublishError::NotGranted);
        }
        self.carve(extent, None).ok_or(PublishError::NotGranted)?;
        self.slots.use_lent(slot);
        let used = self.tick();
        self.idle.insert((used, id));
        let object = Object {
            len,
            slot,
            place: Place::Memory(extent),
            pins: 0,
            released: false,
            used,
            copy: Copy::None,
            viewers: 0,
        };
        self.objects.insert(id, object);
        Ok(extent)
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Where an object is: its length, its place in the index, its bytes. `None` where it is not here, or is released.
    #[must_use]
    pub fn find(&self, id: ObjectId) -> Option<(u64, SlotId, Place)> {
        let object = self.objects.get(&id).filter(|object| !object.released)?;
        Some((object.len, object.slot, object.place))
    }

    /// The place in the index of an object that is here, released or not, and whether it is released.
    #[must_use]
    pub fn slot(&self, id: ObjectId) -> Option<(SlotId, bool)> {
        self.objects.get(&id).map(|object| (object.slot, object.released))
    }

    /// Whether the object's bytes are in memory and stay there for now.
    #[must_use]
    pub fn is_in_memory(&self, id: ObjectId) -> bool {
        self.objects
            .get(&id)
            .is_some_and(|object| matches!(object.place, Place::Memory(_)))
    }

    /// Holds the object's bytes in memory until `unpin`. `None` where they are not in memory, or it is released.
    pub fn pin(&mut self, id: ObjectId) -> Option<(u64, SlotId, Extent)> {
        let used = self.tick();
        let object = self.objects.get_mut(&id).filter(|object| !object.released)?;
        let (Place::Memory(extent) | Place::Spilling(extent)) = object.place else {
            return None;
        };
        self.idle.remove(&(object.used, id));
        object.used = used;
        object.pins += 1;
        Some((object.len, object.slot, extent))
    }

    /// Gives a pin back. `true` when the object is released and nothing but leases may hold it: see `free`.
    pub fn unpin(&mut self, id: ObjectId) -> bool {
        let Some(object) = self.objects.get_mut(&id) else {
            return false;
        };
        object.pins = object.pins.saturating_sub(1);
        self.settle(id)
    }

    /// The run needs the object no more. `true` when nothing but leases may hold it: see `free`.
    pub fn release(&mut self, id: ObjectId) -> bool {
        let Some(object) = self.objects.get_mut(&id) else {
            return false;
        };
        object.released = true;
        self.settle(id)
    }

    /// A released object that is still here, because something held it, is the run's again: its place in
    /// the index. `None` where it is not here or was not released.
    pub fn revive(&mut self, id: ObjectId) -> Option<SlotId> {
        let object = self.objects.get_mut(&id).filter(|object| object.released)?;
        object.released = false;
        let slot = object.slot;
        self.settle(id);
        Some(slot)
    }

    /// Files an object anew after a change; whether it can be freed.
    pub(crate) fn settle(&mut self, id: ObjectId) -> bool {
        let Some(object) = self.objects.get(&id) else {
            return false;
        };
        if object.pins == 0 && !object.released && matches!(object.place, Place::Memory(_)) {
            self.idle.insert((object.used, id));
        } else {
            self.idle.remove(&(object.used, id));
        }
        object.is_still() && object.released
    }

    /// Frees a released object that nobody holds; the caller has seen that no lease is left.
    pub fn free(&mut self, id: ObjectId) -> Option<Freed> {
        let object = self.objects.get(&id)?;
        if !object.released || !object.is_still() {
            return None;
        }
        let object = self.objects.remove(&id)?;
        // A store that once held very many gives their memory back: a step of an eighth, so each removal pays little for it.
        if self.objects.capacity() / 8 > self.objects.len().max(FEW) {
            self.objects.shrink_to(self.objects.len() * 2);
        }
        self.idle.remove(&(object.used, id));
        self.slots.free(object.slot);
        let on_disk = object.place == Place::Away(Medium::Disk);
        if let Place::Memory(extent) = object.place {
            self.extents.give(extent);
        }
        if on_disk {
            self.spilled -= object.len;
        }
        let device = self.give_device(object.copy, object.len);
        Some(Freed {
            id,
            slot: object.slot,
            on_disk,
            device,
        })
    }

    /// The objects that are to leave the arena so that about `len` bytes come free: the longest unused first, none that `held`
    /// names (a reader has a lease). They count as being moved until `spilled` or `keep`.
    pub fn choose_spills(&mut self, len: u64, held: impl Fn(SlotId) -> bool) -> Vec<Spill> {
        let mut chosen = Vec::new();
        let mut bytes = 0;
        for &(_, id) in &self.idle {
            if bytes >= len {
                break;
            }
            let Some(object) = self.objects.get(&id) else { continue };
            let Place::Memory(extent) = object.place else { continue };
            if held(object.slot) {
                continue;
            }
            bytes += extent.len;
            chosen.push(Spill {
                id,
                slot: object.slot,
                extent,
                len: object.len,
                to: object.away(),
            });
        }
        for spill in &chosen {
            if let Some(object) = self.objects.get_mut(&spill.id) {
                object.place = Place::Spilling(spill.extent);
                self.idle.remove(&(object.used, spill.id));
            }
        }
        chosen
    }

    /// An object's bytes are complete at `to` (see [`Spill`]). `false` when they must stay in the arena after all, because
    /// somebody has pinned it meanwhile, or its copy on the device has gone: a file is then of no use.
    pub fn spilled(&mut self, id: ObjectId, to: Medium) -> bool {
        let Some(object) = self.objects.get_mut(&id) else {
            return false;
        };
        let Place::Spilling(extent) = object.place else {
            return false;
        };
        let there = to == Medium::Disk || to == object.away();
        if object.pins > 0 || !there {
            object.place = Place::Memory(extent);
            return false;
        }
        object.place = Place::Away(to);
        if to == Medium::Disk {
            self.spilled += object.len;
        }
        self.extents.give(extent);
        true
    }

    /// An object stays in memory: it could not be moved. `true` when it was released meanwhile: see `free`.
    pub fn keep(&mut self, id: ObjectId) -> bool {
        if let Some(object) = self.objects.get_mut(&id) {
            if let Place::Spilling(extent) = object.place {
                object.place = Place::Memory(extent);
            }
        }
        self.settle(id)
    }

    /// Begins to read an object that is away into `extent`, which was granted to `client`; from where.
    ///
    /// # Errors
    /// It is not away, or the range was not granted.
    pub fn restore(&mut self, id: ObjectId, client: ClientId, extent: Extent) -> Result<Medium, PublishError> {
        let place = self.objects.get(&id).map(|object| object.place);
        let Some(Place::Away(from)) = place else {
            return Err(PublishError::Exists);
        };
        self.carve(extent, Some(client)).ok_or(PublishError::NotGranted)?;
        if let Some(object) = self.objects.get_mut(&id) {
            object.place = Place::Restoring(extent, from);
        }
        Ok(from)
    }

    /// The object's bytes are in memory again (`true`), or could not be read. The answer says whether it was released
    /// meanwhile: see `free`.
    pub fn restored(&mut self, id: ObjectId, complete: bool) -> bool {
        let used = self.tick();
        let Some(object) = self.objects.get_mut(&id) else {
            return false;
        };
        let Place::Restoring(extent, from) = object.place else {
            return false;
        };
        if complete {
            object.place = Place::Memory(extent);
            object.used = used;
            if from == Medium::Disk {
                self.spilled -= object.len;
            }
        } else {
            object.place = Place::Away(from);
            self.extents.give(extent);
        }
        self.settle(id)
    }

    /// The free pieces of the arena, by offset.
    #[must_use]
    pub fn free_pieces(&self) -> Vec<Extent> {
        self.extents.pieces().collect()
    }

    /// Used and all bytes of each arena.
    #[must_use]
    pub fn usage_by_arena(&self) -> Vec<(u64, u64)> {
        let all = self.extents.arenas().map(|arena| arena.len);
        let free = self.extents.free_by_arena();
        all.zip(free).map(|(all, free)| (all - free, all)).collect()
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let pinned = self.objects.values().filter(|o| o.pins > 0).map(|o| o.len).sum();
        Usage {
            objects: self.objects.len(),
            used: self.extents.total() - self.extents.free(),
            total: self.extents.total(),
            spilled: self.spilled,
            pinned,
            granted: self.grants.values().map(|grant| grant.len).sum(),
            on_devices: self.devices.iter().map(|device| device.used).sum(),
            left: self.left.iter().map(|(_, extent)| extent.len).sum(),
        }
    }

    /// Walks all invariants. Costs as much as there are objects; meant for tests.
    ///
    /// # Panics
    /// An invariant does not hold.
    pub fn sanity_check(&self) {
        let resident = self.objects.values().filter_map(|object| match object.place {
            Place::Memory(e) | Place::Spilling(e) | Place::Restoring(e, _) => Some(e),
            Place::Away(_) => None,
        });
        let granted = self
            .grants
            .iter()
            .map(|(&offset, grant)| Extent::new(offset, grant.len));
        let left = self.left.iter().map(|(_, extent)| *extent);
        let mut all: Vec<Extent> = self
            .extents
            .pieces()
            .chain(resident)
            .chain(granted)
            .chain(left)
            .collect();
        all.sort();
        let mut at = 0;
        for extent in all {
            assert_eq!(
                extent.offset, at,
                "each byte is free, granted or an object's, and only one of them"
            );
            at = extent.end();
        }
        assert_eq!(at, self.extents.total());
        for (&id, object) in &self.objects {
            let idle = matches!(object.place, Place::Memory(_)) && object.pins == 0 && !object.released;
            assert_eq!(self.idle.contains(&(object.used, id)), idle, "{id} in the order of use");
        }
        let places = self.objects.len() + self.left.len();
        assert_eq!(
            self.slots.in_use(),
            places,
            "one place an object, and one for each range that it has left"
        );
        let on_disk = |o: &&Object| matches!(o.place, Place::Away(Medium::Disk) | Place::Restoring(_, Medium::Disk));
        let spilled: u64 = self.objects.values().filter(on_disk).map(|o| o.len).sum();
        assert_eq!(spilled, self.spilled, "bytes on disk");
        self.check_devices();
    }
}

#[cfg(test)]
mod tests;
