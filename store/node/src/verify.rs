//! Sums of objects, where the run asks for them (`docs/decisions/0016-checksums-on-demand.md`): taken by the writer when an object
//! is complete, named in its reference, checked wherever its bytes have been moved. Owns the sum, the words of a mismatch, and
//! how a node that has only damaged bytes asks others. Hot path: `sum_of`, once a put and once a move.

use crate::files::write_whole;
use crate::node::{Shared, StoreError, lock, system};
use crate::remote::Elsewhere;
use bridgehead_spec::ObjectId;
use bridgehead_wire::ObjectRef;
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::mpsc::channel;
use std::time::Instant;
use twox_hash::XxHash3_64;

/// The sum of an object's bytes; never 0, which stands for none.
#[must_use]
pub fn sum_of(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes).max(1)
}

/// Says that bytes are not those of the object; `place` is where they came from.
pub(crate) fn damage(id: ObjectId, wanted: u64, found: u64, place: &str) -> String {
    format!("object {id} is damaged: its bytes {place} have the sum {found:016x}, its writer's is {wanted:016x}")
}

/// Sums of the objects of a node that have one.
#[derive(Debug, Default)]
pub(crate) struct Sums(HashMap<ObjectId, u64>);

impl Sums {
    pub(crate) fn note(&mut self, id: ObjectId, sum: u64) {
        if sum != 0 {
            self.0.insert(id, sum);
        }
    }

    /// The sum, or 0.
    pub(crate) fn of(&self, id: ObjectId) -> u64 {
        self.0.get(&id).copied().unwrap_or(0)
    }

    pub(crate) fn forget(&mut self, id: ObjectId) {
        self.0.remove(&id);
    }
}

impl Shared {
    /// Checks bytes that were moved against the sum of their object, if it has one.
    pub(crate) fn verify(&self, id: ObjectId, bytes: &[u8], place: &str) -> Result<(), StoreError> {
        let wanted = self.lock().sums.of(id);
        if wanted == 0 {
            return Ok(());
        }
        let found = sum_of(bytes);
        if found == wanted {
            return Ok(());
        }
        let damage = damage(id, wanted, found, place);
        tracing::error!("{damage}");
        Err(StoreError::Damaged(damage))
    }

    /// Pins an object, read back from disk first if it is there; from another node where its file is no good.
    pub(crate) fn bring(&self, id: ObjectId, deadline: Instant) -> Result<ObjectRef, StoreError> {
        match self.bring_own(id, deadline) {
            Err(why @ (StoreError::Damaged(_) | StoreError::Io { .. })) => {
                let Some((len, sum)) = self.length_and_sum(id).filter(|(_, sum)| *sum != 0) else {
                    return Err(why);
                };
                let object = ObjectRef::new(id, len, self.options.agent, u64::MAX, 0);
                self.fetch_elsewhere(&ObjectRef { sum, ..object }, id, why, deadline)
            }
            other => other,
        }
    }

    fn length_and_sum(&self, id: ObjectId) -> Option<(u64, u64)> {
        let state = self.lock();
        let (len, ..) = state.core.find(id)?;
        Some((len, state.sums.of(id)))
    }

    /// Writes an object, whose bytes here are damaged, from those of another node, brought under another name.
    pub(crate) fn write_copy(
        &self,
        object: &ObjectRef,
        path: &Path,
        damaged: StoreError,
        deadline: Instant,
    ) -> Result<io::Result<u64>, StoreError> {
        let name = crate::client::new_id().map_err(system("name a copy"))?;
        let copy = self.fetch_elsewhere(object, name, damaged, deadline)?;
        let written = write_whole(path, self.bytes(&copy));
        let mut state = self.lock();
        state.core.release(name);
        drop(state);
        self.unpin(name);
        Ok(written)
    }

    /// Fetches an object of which this node has no good bytes from another node, as `id`, and pins it. `why` is what is wrong
    /// here. While it waits a mover is taken; a fetch that needs another one to make room waits for `deadline` at most.
    pub(crate) fn fetch_elsewhere(
        &self,
        object: &ObjectRef,
        id: ObjectId,
        why: StoreError,
        deadline: Instant,
    ) -> Result<ObjectRef, StoreError> {
        let Some(elsewhere) = lock(&self.elsewhere).clone() else {
            return Err(why);
        };
        let (sender, arrival) = channel();
        let done = move |arrived| drop(sender.send(arrived)); // Who waited may have given up.
        elsewhere.fetch(object.clone(), id, Box::new(done));
        let left = deadline.saturating_duration_since(Instant::now());
        match arrival.recv_timeout(left) {
            Ok(Ok(object)) => {
                tracing::warn!(object = %object.id(), reason = %why, "bytes of another node take the place of damaged ones");
                Ok(object)
            }
            Ok(Err(reason)) => Err(StoreError::Damaged(format!("{why}; and elsewhere: {reason}"))),
            Err(_) => Err(StoreError::Damaged(format!("{why}; and no other node gave it in time"))),
        }
    }
}

/// How a node asks others; there from the moment that it joins the network until the store ends.
pub(crate) type Others = std::sync::Mutex<Option<Elsewhere>>;
