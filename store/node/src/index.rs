//! The shared index and the lease tables (`docs/formats/store-memory.md`): how a process finds an object's bytes and keeps
//! them where they are, without a system call and without asking the agent. Hot path: `Index::lease`, once a read.
//!
//! Only the agent writes the index. A reader raises its own count for the object's place, then looks whether the place
//! still holds the object in memory. The agent marks the place first and looks at all counts then. One of the two sees the
//! other, so bytes are never moved or freed under a reader (the scheme of hazard pointers). A reader that dies takes its
//! table, and so all its leases, with it.

use crate::map::{Access, Mapping};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::SlotId;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

/// Places of the index and of a lease table. The first one is the head of the index, so objects have one fewer.
pub(crate) const SLOTS: u32 = 1 << 20;
/// Words of 64 bits in a place.
const WORDS: usize = 8;
/// Bytes of the index.
pub(crate) const INDEX_BYTES: u64 = SLOTS as u64 * WORDS as u64 * 8;
/// Bytes of a lease table: a count of 32 bits for each place.
pub(crate) const LEASE_BYTES: u64 = SLOTS as u64 * 4;

const STATE: usize = 0;
const ID_HIGH: usize = 1;
const ID_LOW: usize = 2;
const OFFSET: usize = 3;
const LEN: usize = 4;

/// What a place says about its object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum State {
    /// There is none.
    Empty = 0,
    /// Its bytes are in the arena.
    Memory = 1,
    /// They are not, or are about to move.
    Away = 2,
    /// It is released; its bytes stay for those who have a lease.
    Closing = 3,
}

/// The index, as its writer or as a reader.
#[derive(Debug)]
pub(crate) struct Index(Mapping);

impl Index {
    pub(crate) fn map(fd: impl AsFd, access: Access) -> io::Result<Self> {
        Mapping::new(fd, INDEX_BYTES, access).map(Self)
    }

    fn slot(&self, slot: SlotId) -> Option<&[AtomicU64]> {
        let at = (slot.0 as usize + 1) * WORDS;
        self.0.words64().get(at..at + WORDS)
    }

    /// How often pages of the arena were given back to the system.
    pub(crate) fn trims(&self) -> &AtomicU64 {
        &self.0.words64()[0]
    }

    /// The agent enters an object whose bytes are in the arena.
    pub(crate) fn enter(&self, slot: SlotId, id: ObjectId, offset: u64, len: u64) {
        let Some(words) = self.slot(slot) else { return };
        words[ID_HIGH].store((id.0 >> 64) as u64, Ordering::Relaxed);
        words[ID_LOW].store(id.0 as u64, Ordering::Relaxed);
        words[OFFSET].store(offset, Ordering::Relaxed);
        words[LEN].store(len, Ordering::Relaxed);
        words[STATE].store(State::Memory as u64, Ordering::SeqCst);
    }

    /// The agent marks a place; lease tables that are read after this hold every lease that was taken before.
    pub(crate) fn mark(&self, slot: SlotId, state: State) {
        let Some(words) = self.slot(slot) else { return };
        words[STATE].store(state as u64, Ordering::SeqCst);
        fence(Ordering::SeqCst);
    }

    /// Where the bytes of `id` are, if `slot` is its place and they are in the arena: (offset, length).
    fn read(&self, slot: SlotId, id: ObjectId) -> Option<(u64, u64)> {
        let words = self.slot(slot)?;
        let found = |word: usize| words[word].load(Ordering::Relaxed);
        let in_memory = || words[STATE].load(Ordering::SeqCst) == State::Memory as u64;
        if !in_memory() {
            return None;
        }
        let same = found(ID_HIGH) == (id.0 >> 64) as u64 && found(ID_LOW) == id.0 as u64;
        let place = (found(OFFSET), found(LEN));
        (same && in_memory()).then_some(place)
    }

    /// Takes a lease on `id` in a process's own table: (offset, length). `None` where `slot` is not its place, or its bytes
    /// are not in the arena.
    pub(crate) fn lease(&self, leases: &Leases, slot: SlotId, id: ObjectId) -> Option<(u64, u64)> {
        let count = leases.count(slot)?;
        count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let place = self.read(slot, id);
        if place.is_none() {
            count.fetch_sub(1, Ordering::SeqCst);
        }
        place
    }
}

/// The leases of one process, counted by place.
#[derive(Debug)]
pub(crate) struct Leases(Mapping);

impl Leases {
    pub(crate) fn map(fd: impl AsFd) -> io::Result<Self> {
        Mapping::new(fd, LEASE_BYTES, Access::Write).map(Self)
    }

    pub(crate) fn count(&self, slot: SlotId) -> Option<&AtomicU32> {
        self.0.words32().get(slot.0 as usize)
    }

    /// How many views this process has taken, modulo 2^32: in the last count, which no place of the index has.
    pub(crate) fn views(&self) -> Option<&AtomicU32> {
        self.0.words32().get(SLOTS as usize - 1)
    }

    /// As [`Leases::views`], its number.
    pub(crate) fn taken(&self) -> u32 {
        self.views().map_or(0, |views| views.load(Ordering::Relaxed))
    }

    /// Whether this process has a lease on the object at `slot`.
    pub(crate) fn holds(&self, slot: SlotId) -> bool {
        self.count(slot).is_some_and(|count| count.load(Ordering::SeqCst) > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::sealed;

    fn pair() -> (Index, Leases) {
        let index = sealed("test-index", INDEX_BYTES).expect("memory");
        let leases = sealed("test-leases", LEASE_BYTES).expect("memory");
        let index = Index::map(&index, Access::Write).expect("a mapping");
        (index, Leases::map(&leases).expect("a mapping"))
    }

    #[test]
    fn a_lease_is_had_only_on_the_object_that_lies_there_in_memory() {
        let (index, leases) = pair();
        let (slot, id) = (SlotId(5), ObjectId(7 << 64 | 9));
        let check = |id, expected| {
            let held = leases.holds(slot);
            assert_eq!(index.lease(&leases, slot, id), expected);
            assert_eq!(
                leases.holds(slot),
                held || expected.is_some(),
                "a lease that was not had leaves no trace"
            );
        };
        check(id, None);
        index.enter(slot, id, 64, 10);
        check(ObjectId(9), None);
        index.mark(slot, State::Away);
        check(id, None);
        index.mark(slot, State::Closing);
        check(id, None);
        index.mark(slot, State::Memory);
        check(id, Some((64, 10)));
        assert_eq!(
            index.lease(&leases, SlotId(SLOTS), id),
            None,
            "a place beyond the index"
        );
    }

    #[test]
    fn of_a_reader_and_the_agent_at_once_one_sees_the_other() {
        let (index, leases) = pair();
        let (slot, id) = (SlotId(1), ObjectId(3));
        for _ in 0..2_000 {
            index.enter(slot, id, 0, 1);
            std::thread::scope(|scope| {
                let reader = scope.spawn(|| index.lease(&leases, slot, id).is_some());
                index.mark(slot, State::Away);
                let seen = leases.holds(slot);
                let leased = reader.join().expect("the reader ends");
                assert!(!leased || seen || leases.holds(slot), "a lease stays visible");
                if leased {
                    // The agent may look before the reader gives up a vain try, so only this direction is certain.
                    assert!(seen, "the agent moved bytes that a reader had a lease on");
                    leases.count(slot).expect("inside").fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    }
}
