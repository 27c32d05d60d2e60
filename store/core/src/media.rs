//! Where the bytes of objects lie that are not in the arena: on disk, or in the memory of a device. Owns what devices hold, and
//! the rules of a copy there.
//!
//! An object is moved to a device on purpose, never to make room. Its copy there stays until the object is freed or is moved to
//! another device: bytes that come back to the arena for a reader on the host are a copy, which leaves without being written.

use crate::objects::{Core, Object, Place, Spill};
use bridgehead_spec::ObjectId;
use thiserror::Error;

/// What holds bytes that are not in the arena.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// A file.
    Disk,
    /// The memory of the device of that number.
    Device(u32),
}

/// An object's copy in the memory of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copy {
    /// There is none.
    None,
    /// It is being made.
    Coming(u32),
    /// It is complete.
    There(u32),
}

/// A device: how much of its memory objects may take, and take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Most bytes.
    pub limit: u64,
    /// Bytes of objects that are there or on their way.
    pub used: u64,
}

/// Why an object does not go to a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum NotThere {
    /// The node has no device of that number.
    #[error("there is no GPU {device}: this node has {have}")]
    NoDevice {
        /// What was asked for.
        device: u32,
        /// How many there are.
        have: usize,
    },
    /// Objects take all that they may.
    #[error(
        "GPU {device} is full: no room for {len} bytes, {used} of the {limit} bytes that the store may take there are used"
    )]
    Full {
        /// What was asked for.
        device: u32,
        /// Its length.
        len: u64,
        /// Bytes of objects there.
        used: u64,
        /// Most bytes.
        limit: u64,
    },
    /// Its bytes are not held in the arena.
    #[error("its bytes are not in host memory")]
    NotHeld,
    /// It is on its way to a device.
    #[error("it is on its way to a GPU already")]
    Busy,
    /// Somebody reads it in the memory of another device.
    #[error("it is being read in the memory of GPU {device}")]
    Viewed {
        /// That one.
        device: u32,
    },
}

impl Object {
    /// Nothing is moving it, and neither pins nor readers of a device's memory hold it.
    pub(crate) fn is_still(&self) -> bool {
        let moving = matches!(self.place, Place::Spilling(_) | Place::Restoring(..));
        !moving && self.pins == 0 && self.viewers == 0 && !matches!(self.copy, Copy::Coming(_))
    }

    /// Where it lies once it has left the arena.
    pub(crate) fn away(&self) -> Medium {
        match self.copy {
            Copy::There(device) => Medium::Device(device),
            _ => Medium::Disk,
        }
    }
}

impl Core {
    /// Gives the node devices, each with the most bytes that objects may take there. Once, before anything is moved.
    pub fn set_devices(&mut self, limits: impl IntoIterator<Item = u64>) {
        self.devices = limits.into_iter().map(|limit| Device { limit, used: 0 }).collect();
    }

    /// The devices, by number.
    #[must_use]
    pub fn devices(&self) -> &[Device] {
        &self.devices
    }

    /// The device that an object has a complete copy on.
    #[must_use]
    pub fn device(&self, id: ObjectId) -> Option<u32> {
        match self.objects.get(&id)?.copy {
            Copy::There(device) => Some(device),
            _ => None,
        }
    }

    /// Begins to copy an object to a device; the caller holds a pin, and ends it by `copied`. `Ok(false)` where its copy is there
    /// already. A copy on another device is given up: the shell frees that first.
    ///
    /// # Errors
    /// It cannot go there, with the reason; nothing changes then.
    pub fn copy_to(&mut self, id: ObjectId, device: u32) -> Result<bool, NotThere> {
        let have = self.devices.len();
        let to = self.devices.get(device as usize).copied();
        let to = to.ok_or(NotThere::NoDevice { device, have })?;
        let object = self.objects.get_mut(&id).filter(|object| object.pins > 0);
        let object = object.ok_or(NotThere::NotHeld)?;
        match object.copy {
            Copy::There(at) if at == device => return Ok(false),
            Copy::Coming(_) => return Err(NotThere::Busy),
            Copy::There(at) if object.viewers > 0 => return Err(NotThere::Viewed { device: at }),
            _ => {}
        }
        let len = object.len;
        if to.used.checked_add(len).is_none_or(|sum| sum > to.limit) {
            let Device { used, limit } = to;
            return Err(NotThere::Full {
                device,
                len,
                used,
                limit,
            });
        }
        let before = std::mem::replace(&mut object.copy, Copy::Coming(device));
        self.give_device(before, len);
        self.devices[device as usize].used += len;
        Ok(true)
    }

    /// The copy that `copy_to` began is complete, or could not be made.
    pub fn copied(&mut self, id: ObjectId, complete: bool) {
        let Some(object) = self.objects.get_mut(&id) else {
            return;
        };
        let Copy::Coming(device) = object.copy else { return };
        object.copy = if complete { Copy::There(device) } else { Copy::None };
        if !complete {
            let len = object.len;
            self.give_device(Copy::Coming(device), len);
        }
    }

    /// An object whose copy is on a device leaves the arena, if nothing holds it there: as one of `choose_spills`.
    pub fn leave(&mut self, id: ObjectId) -> Option<Spill> {
        let object = self.objects.get_mut(&id)?;
        let (Place::Memory(extent), to @ Medium::Device(_)) = (object.place, object.away()) else {
            return None;
        };
        if object.pins > 0 || object.released {
            return None;
        }
        object.place = Place::Spilling(extent);
        let spill = Spill {
            id,
            slot: object.slot,
            extent,
            len: object.len,
            to,
        };
        self.settle(id);
        Some(spill)
    }

    /// Holds an object's copy on its device until `unview`: its length and the device. `None` where it has none, or is released.
    pub fn view(&mut self, id: ObjectId) -> Option<(u64, u32)> {
        let object = self.objects.get_mut(&id).filter(|object| !object.released)?;
        let Copy::There(device) = object.copy else { return None };
        object.viewers += 1;
        Some((object.len, device))
    }

    /// Gives a view back. `true` when the object is released and nothing but leases may hold it: see `free`.
    pub fn unview(&mut self, id: ObjectId) -> bool {
        let Some(object) = self.objects.get_mut(&id) else {
            return false;
        };
        object.viewers = object.viewers.saturating_sub(1);
        self.settle(id)
    }

    /// A copy takes no memory of its device any more; which device that was.
    pub(crate) fn give_device(&mut self, copy: Copy, len: u64) -> Option<u32> {
        let (Copy::Coming(device) | Copy::There(device)) = copy else {
            return None;
        };
        self.devices[device as usize].used -= len;
        Some(device)
    }

    /// See `sanity_check`.
    pub(crate) fn check_devices(&self) {
        for (number, device) in (0..).zip(&self.devices) {
            let here = |copy: Copy| copy == Copy::Coming(number) || copy == Copy::There(number);
            let theirs = self.objects.values().filter(|object| here(object.copy));
            assert_eq!(
                theirs.map(|object| object.len).sum::<u64>(),
                device.used,
                "bytes on GPU {number}"
            );
            assert!(device.used <= device.limit, "GPU {number} holds no more than it may");
        }
        for (id, object) in &self.objects {
            let away = match object.place {
                Place::Away(medium) | Place::Restoring(_, medium) => medium,
                _ => Medium::Disk,
            };
            let there = matches!(object.copy, Copy::There(_));
            assert!(
                away == Medium::Disk || away == object.away(),
                "{id} lies where its copy is"
            );
            assert!(object.viewers == 0 || there, "{id} is looked at where it lies");
            assert!(
                object.pins > 0 || !matches!(object.copy, Copy::Coming(_)),
                "{id} is held while it is copied"
            );
        }
    }
}
