//! Objects in the memory of the node's GPUs: moved there, read back, looked at where they are. Owns the blocks; which object may
//! go where, and what holds it there, is `store/core`'s. Hot path: `Views::take`, once an object that a process looks at.

use crate::index::State as Mark;
use crate::node::{Job, Node, Shared, StoreError, lock};
use crate::protocol::{Kind, Message};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::{NotThere, Spill};
use bridgehead_store_gpu::{Block, Device, DeviceError};
use bridgehead_wire::ObjectRef;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Of a GPU's memory objects may take one in so many parts: the rest is the tasks'.
const SHARE: u64 = 2;
/// First bytes of an object that go with a view: in these lies what kind of array it is.
const HEAD: u64 = 2048;

/// Most bytes that objects may take of a device.
pub(crate) fn limit(device: &Device) -> u64 {
    device.memory.capacity() / SHARE
}

fn gone(error: impl std::fmt::Display) -> StoreError {
    StoreError::Gone(error.to_string())
}

/// How much of a GPU's memory objects take, and what that memory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceUse {
    /// What it is, for people.
    pub name: String,
    /// Whether it is host memory that stands in for the GPU's.
    pub stand_in: bool,
    /// Bytes of objects there.
    pub used: u64,
    /// Most bytes that they may take.
    pub limit: u64,
}

/// The devices, and the blocks of the objects that have a copy there.
#[derive(Debug)]
pub(crate) struct Devices {
    devices: Vec<Device>,
    blocks: Mutex<HashMap<ObjectId, Arc<dyn Block>>>,
    /// Blocks of objects that are gone. The driver may take its time to free them, so that is not done under the store's lock.
    gone: Mutex<Vec<Arc<dyn Block>>>,
}

impl Devices {
    pub(crate) fn new(devices: &[Device]) -> Self {
        Self {
            devices: devices.to_vec(),
            blocks: Mutex::default(),
            gone: Mutex::default(),
        }
    }

    /// The block of an object whose copy the core keeps on a device: it is there.
    fn block(&self, id: ObjectId) -> Result<Arc<dyn Block>, StoreError> {
        let block = lock(&self.blocks).get(&id).cloned();
        block.ok_or_else(|| gone(format!("object {id} is in no GPU's memory of this node any more")))
    }

    /// An object has no copy on a device any more; its memory is free after `bury`.
    pub(crate) fn remove(&self, id: ObjectId) {
        let block = lock(&self.blocks).remove(&id);
        lock(&self.gone).extend(block);
    }

    /// Frees the memory of objects that are gone; the caller holds no lock of the store.
    pub(crate) fn bury(&self) {
        let gone = std::mem::take(&mut *lock(&self.gone));
        drop(gone);
    }

    /// Reads an object back from its device.
    pub(crate) fn read(&self, id: ObjectId, into: &mut [u8]) -> Result<(), StoreError> {
        self.block(id)?.read(0, into).map_err(gone)
    }

    fn copy(&self, id: ObjectId, device: u32, bytes: &[u8]) -> Result<(), DeviceError> {
        let memory = self.devices.get(device as usize).map(|device| &device.memory);
        let memory = memory.ok_or_else(|| DeviceError::Absent(format!("there is no GPU {device}")))?;
        self.bury();
        let block = memory.allocate(bytes.len() as u64)?;
        block.write(0, bytes)?;
        lock(&self.blocks).insert(id, Arc::from(block));
        Ok(())
    }
}

impl Node {
    /// Moves an object to the memory of a GPU of this node: where it lies then. It may be on this node's disk or on another node
    /// before. An object that has no room there stays in host memory. `done` may be called from any thread.
    pub fn move_to_device(&self, object: &ObjectRef, gpu: u32, done: Box<dyn FnOnce(crate::Arrival) + Send>) {
        let (shared, jobs) = (self.shared(), self.movers());
        let and_on = move |arrival: crate::Arrival| match arrival {
            Err(error) => done(Err(error)),
            Ok(object) => {
                let job: Job = Box::new(move |shared: &Shared| {
                    let moved = shared.copy_to_device(&object, gpu);
                    shared.unpin(object.id());
                    shared.leave_arena(object.id());
                    done(
                        moved
                            .map(|()| shared.on_device(&object, gpu))
                            .map_err(|e| e.to_string()),
                    );
                });
                match &jobs {
                    Some(jobs) => drop(jobs.send(job)), // The movers are gone only at the end.
                    None => job(&shared),
                }
            }
        };
        self.bring(object, Box::new(and_on));
    }

    /// The GPU in whose memory an object of this node has a copy.
    #[must_use]
    pub fn device_of(&self, id: ObjectId) -> Option<u32> {
        self.shared().lock().core.device(id)
    }

    /// What objects take of the GPUs' memory, by number.
    #[must_use]
    pub fn devices(&self) -> Vec<DeviceUse> {
        let shared = self.shared();
        let used = shared.lock().core.devices().to_vec();
        let both = shared.devices.devices.iter().zip(used);
        both.map(|(device, used)| DeviceUse {
            name: device.memory.name(),
            stand_in: device.memory.is_stand_in(),
            used: used.used,
            limit: used.limit,
        })
        .collect()
    }
}

impl Shared {
    /// The reference to an object that has a copy on a GPU.
    fn on_device(&self, object: &ObjectRef, gpu: u32) -> ObjectRef {
        ObjectRef {
            gpu: gpu + 1,
            ..object.clone()
        }
    }

    /// Copies a pinned object to a device, if it is not there already.
    fn copy_to_device(&self, object: &ObjectRef, device: u32) -> Result<(), StoreError> {
        let id = object.id();
        let begun = loop {
            let mut state = self.lock();
            match state.core.copy_to(id, device) {
                Err(NotThere::Busy) if !self.is_stopping() => {
                    // Another mover, which holds no lock that this one has, and ends.
                    let waited = self.changed.wait_timeout(state, crate::node::TURN);
                    drop(waited.unwrap_or_else(PoisonError::into_inner));
                }
                begun => break begun,
            }
        };
        let there = || format!("object {id} cannot lie in the memory of GPU {device}");
        if !begun.map_err(|error| StoreError::Full(format!("{}: {error}", there())))? {
            return Ok(());
        }
        self.devices.remove(id); // On another device, nobody looks at it.
        let copied = self.devices.copy(id, device, self.bytes(object));
        self.lock().core.copied(id, copied.is_ok());
        self.changed.notify_all();
        match copied {
            Ok(()) => {
                self.lanes.to_device.add(object.len);
                Ok(())
            }
            Err(error) => Err(StoreError::Full(format!("{}: {error}", there()))),
        }
    }

    /// An object that has a copy on a device leaves the arena, unless somebody holds it there.
    fn leave_arena(&self, id: ObjectId) {
        let left = {
            let mut state = self.lock();
            let spill = state.core.leave(id);
            spill.inspect(|spill| self.index.mark(spill.slot, Mark::Away))
        };
        if left.is_some_and(|spill| self.leave(spill)) {
            self.changed.notify_all();
        }
    }

    /// Ends the way of an object out of the arena whose copy on a device is complete; whether it has left.
    pub(crate) fn leave(&self, spill: Spill) -> bool {
        let mut state = self.lock();
        self.index.mark(spill.slot, Mark::Away);
        if state.is_leased(spill.slot) || !state.core.spilled(spill.id, spill.to) {
            self.stay(&mut state, spill);
            return false;
        }
        if state.core.slot(spill.id).is_some_and(|(_, released)| released) {
            self.free(&mut state, spill.id);
        }
        true
    }

    /// One view less of an object on its device.
    fn unview(&self, id: ObjectId) {
        let mut state = self.lock();
        if state.core.unview(id) {
            self.free(&mut state, id);
        }
        drop(state);
        self.devices.bury();
        self.changed.notify_all();
    }

    /// Holds an object on its device; where it has none, it is copied to `gpu` first, if that is said.
    fn view(&self, id: ObjectId, gpu: Option<u32>) -> Result<u32, StoreError> {
        if let Some((_, device)) = self.lock().core.view(id) {
            return Ok(device);
        }
        let Some(gpu) = gpu else {
            return Err(gone(format!("object {id} is in no GPU's memory of this node")));
        };
        let object = self.bring(id, Instant::now() + self.options.patience)?;
        let copied = self.copy_to_device(&object, gpu);
        let view = self.lock().core.view(id);
        self.unpin(id);
        copied?;
        view.map(|(_, device)| device)
            .ok_or_else(|| gone(format!("object {id} was released while it was copied to GPU {gpu}")))
    }
}

/// Views that one process has of objects on devices. Given back at its end.
#[derive(Debug, Default)]
pub(crate) struct Views(HashMap<ObjectId, u32>);

impl Views {
    /// The answer to `Kind::View`, with what goes beside it.
    pub(crate) fn take(
        &mut self,
        shared: &Shared,
        message: &Message,
    ) -> Result<(Message, Option<OwnedFd>), StoreError> {
        let id = message.id();
        let wanted = message.words[2]
            .checked_sub(1)
            .map(|gpu| u32::try_from(gpu).unwrap_or(u32::MAX));
        let device = shared.view(id, wanted)?;
        *self.0.entry(id).or_insert(0) += 1;
        let exported = shared.devices.block(id).and_then(|block| {
            let mut head = vec![0; usize::try_from(block.len().min(HEAD)).unwrap_or(0)];
            block.read(0, &mut head).map_err(gone)?;
            Ok((block.export().map_err(gone)?, head))
        });
        let (export, head) = exported.inspect_err(|_| self.give_back(shared, id))?;
        let mut answer = Message::new(Kind::View, &[device.into(), export.bytes.len() as u64]);
        answer.text = [export.bytes, head].concat();
        Ok((answer, export.descriptor))
    }

    /// One view less.
    pub(crate) fn give_back(&mut self, shared: &Shared, id: ObjectId) {
        let Some(count) = self.0.get_mut(&id) else { return };
        *count -= 1;
        if *count == 0 {
            self.0.remove(&id);
        }
        shared.unview(id);
    }

    /// The process is gone.
    pub(crate) fn end(self, shared: &Shared) {
        for (id, count) in self.0 {
            (0..count).for_each(|_| shared.unview(id));
        }
    }
}
