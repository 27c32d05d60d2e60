//! How many ranks each cell gets. Owns the arithmetic; what a cell holds is `cells`'s to say.

/// Deals `ranks` to the cells of `domains`: evenly over domains, and within each to one cell that holds all, the smallest by `sizes`,
/// or to as many as it takes, in order. `caps(n)` is how many ranks each cell holds if a core may be shared by `n`; fewer is better,
/// up to `densest`. The ranks of each cell; fewer than `ranks` in all where no cell has enough for a whole one any more.
pub(super) fn choose(
    domains: &[Vec<usize>],
    sizes: &[usize],
    ranks: u32,
    even: bool,
    densest: usize,
    caps: impl Fn(usize) -> Vec<u32>,
) -> Vec<u32> {
    let mut complete = None;
    let mut last = Vec::new();
    let mut before: Option<Vec<u32>> = None;
    for most in 1..=densest {
        let caps = caps(most);
        let by_domain = over_domains(domains, &caps, ranks);
        let counts = within_domains(domains, sizes, before.as_ref().unwrap_or(&caps), &caps, &by_domain);
        if counts.iter().sum::<u32>() < ranks {
            last = counts;
        } else if !even || is_even(&by_domain) {
            return counts;
        } else {
            complete = complete.or(Some(counts));
        }
        before = Some(caps);
    }
    complete.unwrap_or(last)
}

fn is_even(counts: &[u32]) -> bool {
    let (least, most) = (counts.iter().min(), counts.iter().max());
    most.zip(least).is_none_or(|(most, least)| most - least <= 1)
}

/// One after another to the domain that has fewest so far, the first of equals.
fn over_domains(domains: &[Vec<usize>], caps: &[u32], ranks: u32) -> Vec<u32> {
    let caps: Vec<u64> = (domains.iter())
        .map(|cells| cells.iter().map(|&at| u64::from(caps[at])).sum())
        .collect();
    let mut counts = vec![0_u32; domains.len()];
    for _ in 0..ranks {
        let with_room = (0..counts.len()).filter(|&at| u64::from(counts[at]) < caps[at]);
        let Some(at) = with_room.min_by_key(|&at| counts[at]) else {
            break;
        };
        counts[at] += 1;
    }
    counts
}

/// In each domain one cell that holds all, the smallest, or the first ones. Up to `before` all are as good, and a core is shared by
/// one more only beyond that.
fn within_domains(
    domains: &[Vec<usize>],
    sizes: &[usize],
    before: &[u32],
    caps: &[u32],
    by_domain: &[u32],
) -> Vec<u32> {
    let mut counts = vec![0; caps.len()];
    for (cells, &ranks) in domains.iter().zip(by_domain) {
        let holds_all = cells.iter().filter(|&&at| before[at] >= ranks);
        if let Some(&one) = holds_all.min_by_key(|&&at| sizes[at]) {
            counts[one] = ranks;
            continue;
        }
        let mut rest = ranks;
        for caps in [before, caps] {
            for &at in cells {
                let more = rest.min(caps[at].saturating_sub(counts[at]));
                counts[at] += more;
                rest -= more;
            }
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(domains: &[&[usize]], ranks: u32, even: bool, caps: [[u32; 2]; 2], expected: [u32; 2]) {
        let domains: Vec<Vec<usize>> = domains.iter().map(|domain| domain.to_vec()).collect();
        let counts = choose(&domains, &[9, 8], ranks, even, 2, |most| caps[most - 1].to_vec());
        assert_eq!(counts, expected, "{ranks} on {domains:?} with {caps:?}");
    }

    const APART: &[&[usize]] = &[&[0], &[1]];
    const TOGETHER: &[&[usize]] = &[&[0, 1]];

    #[test]
    fn ranks_are_dealt_evenly_over_domains_and_closely_within() {
        check(APART, 7, true, [[8, 8]; 2], [4, 3]);
        check(APART, 7, true, [[2, 8]; 2], [2, 5]);
        check(TOGETHER, 7, false, [[9, 8]; 2], [0, 7]);
        check(TOGETHER, 10, false, [[9, 8]; 2], [9, 1]);
        check(TOGETHER, 20, false, [[9, 8]; 2], [9, 8]);
    }

    #[test]
    fn cores_are_shared_by_no_more_than_it_takes_but_even_blocks_come_first() {
        let caps = [[2, 8], [4, 16]];
        check(TOGETHER, 10, false, caps, [2, 8]);
        check(TOGETHER, 11, false, caps, [3, 8]);
        check(APART, 8, true, caps, [4, 4]);
        check(APART, 10, true, caps, [2, 8]);
    }
}
