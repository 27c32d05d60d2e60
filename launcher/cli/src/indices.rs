//! A list of indices as arrays of jobs have it, `0-2,5`. Owns its grammar and the rank that an index has: its place in the sorted list,
//! since indices may have gaps and ranks may not. Pure.

/// Indices in ranges that neither meet nor overlap, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Indices(Vec<(u32, u32)>);

impl Indices {
    /// Reads `0-2,5`: numbers and ranges in any order.
    ///
    /// # Errors
    /// It is no such list, or has an index twice.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut ranges = text.split(',').map(range).collect::<Result<Vec<_>, _>>()?;
        ranges.sort_unstable();
        if let Some(twice) = ranges.windows(2).find(|pair| pair[1].0 <= pair[0].1) {
            return Err(format!("index {} is in the list {text:?} twice", twice[1].0));
        }
        Ok(Self(ranges))
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(size).sum()
    }

    /// The place of an index in the sorted list; `None` if it is not in it.
    pub(crate) fn rank(&self, index: u32) -> Option<u32> {
        let at = self
            .0
            .iter()
            .position(|&(first, last)| (first..=last).contains(&index))?;
        let before: u64 = self.0[..at].iter().map(size).sum();
        u32::try_from(before + u64::from(index - self.0[at].0)).ok()
    }
}

fn size(&(first, last): &(u32, u32)) -> u64 {
    u64::from(last - first) + 1
}

fn range(part: &str) -> Result<(u32, u32), String> {
    let wrong = || format!("{part:?} is no index and no range of indices: 5 or 0-2");
    let (first, last) = part.split_once('-').unwrap_or((part, part));
    let number = |text: &str| text.trim().parse::<u32>().map_err(|_| wrong());
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err(wrong()) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_is_the_place_in_the_sorted_list() {
        for (text, ranks) in [
            ("0", vec![0]),
            ("0-2,5", vec![0, 1, 2, 5]),
            ("7,0", vec![0, 7]),
            ("4294967295,3-4", vec![3, 4, u32::MAX]),
        ] {
            let indices = Indices::parse(text).expect(text);
            assert_eq!(indices.count(), ranks.len() as u64);
            for (rank, index) in (0..).zip(ranks) {
                assert_eq!(indices.rank(index), Some(rank), "{index} of {text}");
            }
            assert_eq!(indices.rank(6), None, "6 is not in {text}");
        }
        let all = Indices::parse("0-4294967295").expect("all that there can be");
        assert_eq!((all.count(), all.rank(u32::MAX)), (1 << 32, Some(u32::MAX)));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", "a", "1,", "-1", "3-1", "1-2-3", "4294967296", "0-3,2", "5,5"] {
            assert!(Indices::parse(text).is_err(), "{text:?} was taken");
        }
    }
}
