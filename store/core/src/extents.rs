//! Free space of a store's arenas: best fit, coalescing, sizes in multiples of a cache line. Owns offsets only, no bytes.

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

/// The free space of a store: of arenas that lie one behind the other, so that what is longer than one may run on into the next.
#[derive(Debug, Clone)]
pub struct Extents {
    /// Where each arena ends.
    ends: Vec<u64>,
    /// Free bytes of each arena, in whatever pieces.
    free: Vec<u64>,
    /// Free pieces; none lies in two arenas, so neighbours may touch at an arena's end.
    by_offset: BTreeMap<u64, u64>,
    /// The pieces of each arena, the shortest first.
    by_len: Vec<BTreeSet<(u64, u64)>>,
}

impl Extents {
    /// Arenas of these lengths in bytes (rounded down), all free.
    #[must_use]
    pub fn new(arenas: &[u64]) -> Self {
        let mut extents = Self {
            ends: Vec::new(),
            free: vec![0; arenas.len()],
            by_offset: BTreeMap::new(),
            by_len: vec![BTreeSet::new(); arenas.len()],
        };
        let mut at = 0;
        for len in arenas {
            let len = len - len % ALIGN;
            extents.ends.push(at + len);
            if len > 0 {
                extents.insert(Extent::new(at, len));
            }
            at += len;
        }
        extents
    }

    /// Bytes of all arenas.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// The arena that a byte lies in.
    #[must_use]
    pub fn arena_of(&self, offset: u64) -> usize {
        self.ends.partition_point(|&end| end <= offset)
    }

    /// The ranges of the arenas.
    pub fn arenas(&self) -> impl Iterator<Item = Extent> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, &end)| Extent::new(start, end - start))
    }

    /// Bytes that are free, in whatever pieces.
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free.iter().sum()
    }

    /// As [`Extents::free`], of each arena.
    #[must_use]
    pub fn free_by_arena(&self) -> &[u64] {
        &self.free
    }

    /// The longest free range.
    #[must_use]
    pub fn longest(&self) -> u64 {
        let within = self.by_len.iter().filter_map(|pieces| pieces.last());
        let within = within.map(|&(len, _)| len).max().unwrap_or(0);
        self.runs().map(|run| run.len).max().unwrap_or(0).max(within)
    }

    /// Takes `len` bytes (rounded up): from the first of `arenas` that has them in one piece, there from the shortest such
    /// piece, the earliest of equals; else from a free range that runs over several arenas.
    pub fn take(&mut self, len: u64, arenas: &[usize]) -> Option<Extent> {
        let len = rounded(len)?;
        let fits = |&arena: &usize| self.by_len.get(arena)?.range((len, 0)..).next().copied();
        if let Some((found, offset)) = arenas.iter().find_map(fits) {
            self.remove(offset, found);
            if found > len {
                self.insert(Extent::new(offset + len, found - len));
            }
            return Some(Extent::new(offset, len));
        }
        let run = self.runs().find(|run| run.len >= len)?;
        let whole = Extent::new(run.offset, len);
        while let Some((&offset, &found)) = self.by_offset.range(whole.offset..whole.end()).next() {
            self.remove(offset, found);
            if offset + found > whole.end() {
                self.insert(Extent::new(whole.end(), offset + found - whole.end()));
            }
        }
        Some(whole)
    }

    /// Free ranges that lie in more than one arena, by offset.
    fn runs(&self) -> impl Iterator<Item = Extent> {
        let crossing = |end: &&u64| self.by_offset.contains_key(*end) && self.piece_to(**end).is_some();
        let mut after = 0;
        self.ends.iter().filter(crossing).filter_map(move |&end| {
            if end < after {
                return None; // The range before this one has it.
            }
            let mut run = self.piece_to(end)?;
            while let Some(&len) = self.by_offset.get(&run.end()) {
                run.len += len;
            }
            after = run.end();
            Some(run)
        })
    }

    /// The free piece that ends at `end`.
    fn piece_to(&self, end: u64) -> Option<Extent> {
        let (&offset, &len) = self.by_offset.range(..end).next_back()?;
        (offset + len == end).then(|| Extent::new(offset, len))
    }

    /// Gives a range back that `take` gave out, whole or in parts; it joins its free neighbours of the same arena.
    pub fn give(&mut self, extent: Extent) {
        debug_assert!(extent.end() <= self.total(), "{extent:?} lies beyond the arenas");
        let mut at = extent.offset;
        while at < extent.end() {
            let end = self.ends[self.arena_of(at)].min(extent.end());
            self.give_within(Extent::new(at, end - at));
            at = end;
        }
    }

    /// As `give`, of a range inside one arena.
    fn give_within(&mut self, extent: Extent) {
        let arena = self.arena_of(extent.offset);
        let mut joined = extent;
        if let Some((&offset, &len)) = self.by_offset.range(..=extent.offset).next_back() {
            debug_assert!(offset + len <= extent.offset, "{extent:?} is free already");
            if offset + len == extent.offset && self.arena_of(offset) == arena {
                self.remove(offset, len);
                joined = Extent::new(offset, len + joined.len);
            }
        }
        if let Some(&len) = self
            .by_offset
            .get(&extent.end())
            .filter(|_| extent.end() < self.ends[arena])
        {
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
        let arena = self.arena_of(extent.offset);
        self.by_offset.insert(extent.offset, extent.len);
        self.by_len[arena].insert((extent.len, extent.offset));
        self.free[arena] += extent.len;
    }

    fn remove(&mut self, offset: u64, len: u64) {
        let arena = self.arena_of(offset);
        self.by_offset.remove(&offset);
        self.by_len[arena].remove(&(len, offset));
        self.free[arena] -= len;
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
        let same_arena = |a: &Extent, b: &Extent| extents.arena_of(a.offset) == extents.arena_of(b.offset);
        assert!(
            free.windows(2)
                .all(|w| w[0].end() < w[1].offset || !same_arena(&w[0], &w[1])),
            "free neighbours of an arena are joined"
        );
        assert!(
            free.iter()
                .all(|e| extents.arena_of(e.offset) == extents.arena_of(e.end() - 1)),
            "a piece lies in one arena"
        );
        assert_eq!(free.iter().map(|e| e.len).sum::<u64>(), extents.free());
        assert_eq!(extents.free_by_arena().iter().sum::<u64>(), extents.free());
        let mut longest: u64 = 0;
        let mut run = Extent::new(0, 0);
        for piece in &free {
            run = match run.end() == piece.offset {
                true => Extent::new(run.offset, run.len + piece.len),
                false => *piece,
            };
            longest = longest.max(run.len);
        }
        assert_eq!(longest, extents.longest());
    }

    #[test]
    fn taken_and_free_ranges_always_tile_the_arena() {
        for seed in 0..20 {
            let mut state = seed;
            let mut extents = Extents::new([&[1 << 16][..], &[20_000, 64, 30_016]][seed as usize % 2]);
            let arenas = extents.arenas().count();
            let mut taken = Vec::new();
            for _ in 0..400 {
                if !random(&mut state).is_multiple_of(3) {
                    let (longest, first) = (extents.longest(), random(&mut state) as usize % arenas);
                    let order: Vec<usize> = (0..arenas).map(|more| (first + more) % arenas).collect();
                    let len = random(&mut state) % 5000 * (1 + random(&mut state) % 40 / 39 * 6);
                    let got = extents.take(len, &order);
                    assert_eq!(got.is_some(), rounded(len) <= Some(longest), "what fits is given");
                    taken.extend(got);
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
        let mut extents = Extents::new(&[1024]);
        let a = extents.take(256, &[0]).expect("room");
        let b = extents.take(128, &[0]).expect("room");
        extents.give(a);
        assert_eq!(extents.take(200, &[0]), Some(Extent::new(0, 256)));
        assert_eq!(extents.take(4096, &[0]), None);
        assert_eq!(extents.take(u64::MAX, &[0]), None);
        assert_eq!(b, Extent::new(256, 128));
    }

    #[test]
    fn the_wanted_arena_comes_first_then_the_others_in_their_order_then_several_at_once() {
        let mut extents = Extents::new(&[1024, 1024, 1024]);
        let mut take = |len, order: &[usize]| extents.take(len, order).map(|extent| extent.offset);
        assert_eq!(take(512, &[1, 2, 0]), Some(1024));
        assert_eq!(take(1024, &[1, 2, 0]), Some(2048), "the next one in its order");
        assert_eq!(take(1025, &[1, 2, 0]), None, "no free range is so long");
        assert_eq!(take(1024, &[1, 2, 0]), Some(0));
        for extent in [Extent::new(0, 1024), Extent::new(1024, 512)] {
            extents.give(extent);
        }
        assert_eq!(
            extents.take(1536, &[2, 1, 0]),
            Some(Extent::new(0, 1536)),
            "one range in two arenas"
        );
        extents.give(Extent::new(0, 1536));
        assert_eq!(extents.free_by_arena(), [1024, 1024, 0]);
    }
}
