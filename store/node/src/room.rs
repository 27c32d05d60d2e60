//! Making room: granting ranges, moving objects to disk and back, giving memory back to the system.

use crate::index::State as Mark;
use crate::map::{punch, resident};
use crate::node::{SELF, Shared, State, StoreError, any_holds, system};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::{ClientId, Denied, Extent, Medium, Spill};
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// Free memory up to this is kept, so that the puts to come find their pages there.
const WARM: u64 = 1 << 30;
/// After objects could not be moved to disk it is tried again only after so long.
const SPILL_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Free pieces below this are not worth giving back.
const WORTH: u64 = 2 << 20;

impl Shared {
    /// Grants `client` a range, in the arena `near` if that has room; moves objects to disk, or waits for others to let go, until
    /// `deadline`.
    pub(crate) fn make_room(
        &self,
        client: ClientId,
        len: u64,
        near: Option<usize>,
        deadline: Instant,
    ) -> Result<Extent, StoreError> {
        let mut state = self.lock();
        let mut next_spill = Instant::now();
        self.sweep(&mut state); // What readers have let go is warm; other free pages may never have been touched.
        loop {
            let denied = match state.core.grant(client, len, near) {
                Ok(extent) => return Ok(extent),
                Err(denied) => denied,
            };
            if let Denied::Never { .. } = denied {
                let way = "give the run a larger store, or split the value";
                return Err(StoreError::TooLarge(format!("{denied}: {way}")));
            }
            if self.sweep(&mut state) {
                continue;
            }
            let spills = if Instant::now() < next_spill {
                Vec::new()
            } else {
                self.choose(&mut state, len)
            };
            if !spills.is_empty() {
                drop(state);
                let moved = self.spill_all(&spills);
                state = self.lock();
                if moved {
                    continue;
                }
                // The disk will not be better in a moment.
                next_spill = Instant::now() + SPILL_AGAIN;
            }
            state = self.wait(state, len, deadline)?;
        }
    }

    /// Waits for a change, or words why there is no room.
    fn wait<'a>(
        &self,
        state: MutexGuard<'a, State>,
        len: u64,
        deadline: Instant,
    ) -> Result<MutexGuard<'a, State>, StoreError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || self.is_stopping() {
            return Err(StoreError::Full(self.describe(&state, len)));
        }
        // Readers let go without telling, so what they held is looked at again from time to time.
        let left = left.min(std::time::Duration::from_millis(20));
        let (state, _) = self
            .changed
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner);
        Ok(state)
    }

    fn describe(&self, state: &State, len: u64) -> String {
        let usage = state.core.usage();
        let held = usage.used.saturating_sub(usage.pinned).saturating_sub(usage.granted);
        let trouble = state
            .trouble
            .as_ref()
            .map_or_else(String::new, |t| format!("; moving objects to disk failed: {t}"));
        format!(
            "the store of node {} is full: no room for {len} bytes within {:?} (of {} bytes, running tasks hold {}, \
             arrays that processes still look at {held}){trouble}: drop references, run fewer tasks at once, or give the run a larger store",
            self.options.agent, self.options.patience, usage.total, usage.pinned
        )
    }

    /// The objects to move, each marked so that no new reader finds it in memory.
    fn choose(&self, state: &mut State, len: u64) -> Vec<Spill> {
        let State { core, leases, .. } = state;
        let chosen = core.choose_spills(len, |slot| any_holds(leases, slot));
        for spill in &chosen {
            self.index.mark(spill.slot, Mark::Away);
        }
        // A reader may have come between the look and the mark.
        let (late, kept): (Vec<_>, Vec<_>) = chosen.into_iter().partition(|spill| state.is_leased(spill.slot));
        for spill in late {
            self.stay(state, spill);
        }
        kept
    }

    pub(crate) fn stay(&self, state: &mut State, spill: Spill) {
        self.index.mark(spill.slot, Mark::Memory);
        if state.core.keep(spill.id) {
            self.free(state, spill.id);
        }
    }

    /// Writes objects to disk; whether any of them made room.
    fn spill_all(&self, spills: &[Spill]) -> bool {
        let mut moved = false;
        for spill in spills {
            moved |= self.spill(*spill);
        }
        self.changed.notify_all();
        moved
    }

    #[allow(unsafe_code)]
    fn spill(&self, spill: Spill) -> bool {
        // SAFETY: an object that is being moved keeps its bytes until `spilled` or `keep`, which come below.
        let bytes = unsafe { self.arena.slice(spill.extent.offset, spill.len) };
        let written = match spill.to {
            Medium::Disk => self.files.write(spill.id, bytes),
            Medium::Device(_) => return self.leave(spill), // Its copy there is complete.
        };
        let mut state = self.lock();
        let trouble = written.as_ref().err().map(ToString::to_string);
        let before = std::mem::replace(&mut state.trouble, trouble);
        // Somebody may have pinned it meanwhile, and readers with a lease may be left from that.
        self.index.mark(spill.slot, Mark::Away);
        if written.is_ok() && !state.is_leased(spill.slot) && state.core.spilled(spill.id, spill.to) {
            self.lanes.spilled.add(spill.len);
            if state.core.slot(spill.id).is_some_and(|(_, released)| released) {
                self.free(&mut state, spill.id);
            }
            return true;
        }
        if written.is_ok() {
            self.files.remove(spill.id); // It is wanted in memory.
        } else if before != state.trouble {
            tracing::warn!(object = %spill.id, error = state.trouble, "cannot move an object to disk");
        }
        self.stay(&mut state, spill);
        false
    }

    /// Brings the bytes of an object that is away back to the arena. That somebody else did so meanwhile is no error.
    #[allow(unsafe_code)]
    pub(crate) fn read_back(&self, id: ObjectId, len: u64, deadline: Instant) -> Result<(), StoreError> {
        let extent = self.make_room(SELF, len, None, deadline)?;
        let begun = self.lock().core.restore(id, SELF, extent);
        let Ok(from) = begun else {
            self.lock().core.give_back(SELF, extent);
            return Ok(());
        };
        // SAFETY: the range was granted to this thread just now, and the object's readers wait for `restored`.
        let bytes = unsafe { self.arena.slice_mut(extent.offset, len) };
        let path = self.files.path(id);
        let (read, place) = match from {
            Medium::Disk => {
                let doing = format!("read object {id} back from {}", path.display());
                let read = self.files.read(id, bytes).map_err(system(doing));
                (read, format!("in {}", path.display()))
            }
            Medium::Device(_) => (self.devices.read(id, bytes), "in the memory of a GPU".to_owned()),
        };
        let read = read.and_then(|()| self.verify(id, bytes, &place));
        let mut state = self.lock();
        if read.is_ok() {
            match from {
                Medium::Disk => self.lanes.restored.add(len),
                Medium::Device(_) => self.lanes.from_device.add(len),
            }
            self.restored(&mut state, id, extent, len, from);
        } else if state.core.restored(id, false) {
            self.free(&mut state, id);
        }
        drop(state);
        self.changed.notify_all();
        read
    }

    /// The bytes of an object that was away are complete in `extent`, for which `Core::restore` was asked.
    pub(crate) fn restored(&self, state: &mut State, id: ObjectId, extent: Extent, len: u64, from: Medium) {
        let released = state.core.restored(id, true);
        if let Some((slot, _)) = state.core.slot(id) {
            self.index.enter(slot, id, extent.offset, len);
            if from == Medium::Disk {
                self.files.remove(id);
            }
        }
        if released {
            self.free(state, id);
        }
    }

    /// Gives pages back that nobody uses, beyond what is kept warm.
    pub(crate) fn trim(&self) {
        let state = self.lock();
        let used = state.core.usage().used;
        let taken = resident(&self.arena_fd).unwrap_or(0);
        if taken <= used + WARM {
            return;
        }
        // Clients remember which pages they have taken; a new count makes them take them anew before they write.
        self.index.trims().fetch_add(1, Ordering::SeqCst);
        let mut surplus = taken - used - WARM;
        for piece in state.core.free_pieces().into_iter().rev() {
            let from = piece.offset.next_multiple_of(WORTH);
            let len = piece.end().saturating_sub(from) / WORTH * WORTH;
            if len > 0 && surplus > 0 && punch(&self.arena_fd, from, len).is_ok() {
                surplus = surplus.saturating_sub(len);
            }
        }
    }
}
