//! Free space of an arena: best fit, coalescing, sizes in multiples of a cache line. Owns offsets only, no bytes.

use std::collections::{BTreeMap, BTreeSet};

/// What offsets and lengths are multiples of: a cache line, enough for every vector unit.
pub const ALIGN: u64 = 64;

/// A range of an arena, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// Where it begins.
    pub offset: u64,
    /// How long it is.
    pub len: u64,
}

impl Extent {
    /// The range `[offset, offset + len)`.
    #[must_use]
    pub fn new(offset: u64, len: u64) -> Self {
        Self { offset, len }
    }

    /// Where it ends.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    /// Whether `other` lies inside.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.offset >= self.offset && other.len <= self.len && other.offset - self.offset <= self.len - other.len
    }
}

/// `len` rounded up to what is given out; `None` where that is beyond 64 bits.
#[must_use]
pub fn rounded(len: u64) -> Option<u64> {
    len.max(1).checked_next_multiple_of(ALIGN)
}

/// The free space of an arena.
#[derive(Debug, Clone)]
pub struct Extents {
    total: u64,
    free: u64,
    by_offset: BTreeMap<u64, u64>,
    by_len: BTreeSet<(u64, u64)>,
}

impl Extents {
    /// An arena of `total` bytes, all free.
    #[must_use]
    pub fn new(total: u64) -> Self {
        let total = total - total % ALIGN;
        let mut extents = Self {
            total,
            free: 0,
            by_offset: BTreeMap::new(),
            by_len: BTreeSet::new(),
        };
        if total > 0 {
            extents.insert(Extent::new(0, total));
        }
        extents
    }

    /// Bytes of the arena.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes that are free, in whatever pieces.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// The longest free piece.
    #[must_use]
    pub fn longest(&self) -> u64 {
        self.by_len.last().map_or(0, |&(len, _)| len)
    }

    /// Takes `len` bytes (rounded up) from the shortest piece that has them, the earliest of equals.
    pub fn take(&mut self, len: u64) -> Option<Extent> {
        let len = rounded(len)?;
        let &(found, offset) = self.by_len.range((len, 0)..).next()?;
        self.remove(offset, found);
        if found > len {
            self.insert(Extent::new(offset + len, found - len));
        }
        Some(Extent::new(offset, len))
    }

    /// Gives a range back that `take` gave out, whole or in parts; it joins its free neighbours.
    pub fn give(&mut self, extent: Extent) {
        if extent.len == 0 {
            return;
        }
        debug_assert!(extent.end() <= self.total, "{extent:?} lies beyond the arena");
        let mut joined = extent;
        if let Some((&offset, &len)) = self.by_offset.range(..=extent.offset).next_back() {
            debug_assert!(offset + len <= extent.offset, "{extent:?} is free already");
            if offset + len == extent.offset {
                self.remove(offset, len);
                joined = Extent::new(offset, len + joined.len);
            }
        }
        if let Some(&len) = self.by_offset.get(&extent.end()) {
            self.remove(extent.end(), len);
            joined.len += len;
        }
        self.insert(joined);
    }

    /// The free pieces, by offset.
    pub fn pieces(&self) -> impl Iterator<Item = Extent> {
        self.by_offset.iter().map(|(&offset, &len)| Extent::new(offset, len))
    }

    fn insert(&mut self, extent: Extent) {
        self.by_offset.insert(extent.offset, extent.len);
        self.by_len.insert((extent.len, extent.offset));
        self.free += extent.len;
    }

    fn remove(&mut self, offset: u64, len: u64) {
        self.by_offset.remove(&offset);
        self.by_len.remove(&(len, offset));
        self.free -= len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small generator of our own, so that a failure names its seed and nothing else.
    fn random(state: &mut u64) -> u64 {
        *state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        *state >> 33
    }

    fn check(extents: &Extents, taken: &[Extent]) {
        let mut all: Vec<Extent> = extents.pieces().chain(taken.iter().copied()).collect();
        all.sort();
        let mut at = 0;
        for extent in &all {
            assert_eq!(
                extent.offset, at,
                "pieces and taken ranges cover the arena without gap or overlap"
            );
            at = extent.end();
        }
        assert_eq!(at, extents.total());
        let mut free: Vec<Extent> = extents.pieces().collect();
        free.sort();
        assert!(
            free.windows(2).all(|w| w[0].end() < w[1].offset),
            "free neighbours are joined"
        );
        assert_eq!(free.iter().map(|e| e.len).sum::<u64>(), extents.free());
        assert_eq!(free.iter().map(|e| e.len).max().unwrap_or(0), extents.longest());
    }

    #[test]
    fn taken_and_free_ranges_always_tile_the_arena() {
        for seed in 0..20 {
            let mut state = seed;
            let mut extents = Extents::new(1 << 16);
            let mut taken = Vec::new();
            for _ in 0..400 {
                if !random(&mut state).is_multiple_of(3) {
                    taken.extend(extents.take(random(&mut state) % 5000));
                } else if !taken.is_empty() {
                    let at = random(&mut state) as usize % taken.len();
                    extents.give(taken.swap_remove(at));
                }
                check(&extents, &taken);
            }
        }
    }

    #[test]
    fn the_shortest_piece_that_fits_is_taken_and_what_is_too_long_is_not() {
        let mut extents = Extents::new(1024);
        let a = extents.take(256).expect("room");
        let b = extents.take(128).expect("room");
        extents.give(a);
        assert_eq!(extents.take(200), Some(Extent::new(0, 256)));
        assert_eq!(extents.take(4096), None);
        assert_eq!(extents.take(u64::MAX), None);
        assert_eq!(b, Extent::new(256, 128));
    }
}
