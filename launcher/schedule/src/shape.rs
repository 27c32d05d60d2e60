//! How the ranks of a gang lie on agents, as arithmetic: how many fit, and who takes how many. Owns the choice among agents;
//! what an agent has to offer is `gang`'s to say.

use bridgehead_spec::AgentId;

/// How the ranks of a gang lie on agents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Fewest ranks with which it starts; 0 counts as 1.
    pub least: u32,
    /// Most ranks that it takes: as many as are free when it starts. Less than `least` counts as `least`.
    pub most: u32,
    /// Exactly so many on each agent, but for the last one, which may have fewer. `None`: as they fit; 0 counts as 1.
    pub per_agent: Option<u32>,
    /// On as many agents as possible, evenly, instead of as few. `per_agent` says how many agents, if it is there.
    pub spread: bool,
}

/// Ranks on one agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub slot: u32,
    pub ranks: u32,
}

/// Ranks that one agent could take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    pub slot: u32,
    pub agent: AgentId,
    pub ranks: u32,
    /// Of agents that would do, the one with least of it is taken.
    pub cost: i128,
}

impl Shape {
    /// The same in numbers that make sense.
    pub(crate) fn checked(self) -> Self {
        let least = self.least.max(1);
        Self {
            least,
            most: self.most.max(least),
            per_agent: self.per_agent.map(|ranks| ranks.max(1)),
            ..self
        }
    }

    /// The most ranks that it gets from agents of which each could take so many; no more than `most`.
    pub(crate) fn ranks_of(&self, agents: impl Iterator<Item = u32>) -> u32 {
        let (mut whole, mut rest) = (0_u64, 0);
        for ranks in agents.map(u64::from) {
            match self.per_agent.map(u64::from) {
                None => whole += ranks,
                Some(each) if ranks >= each => whole += each,
                Some(_) => rest = rest.max(ranks),
            }
        }
        u32::try_from(whole + rest).unwrap_or(u32::MAX).min(self.most)
    }

    /// Lays as many ranks as it gets on agents of these, in the order in which ranks are numbered; `None` for fewer than it
    /// starts with. An agent with the slot `near` takes all if it can.
    pub(crate) fn lay(&self, mut offers: Vec<Offer>, near: u32) -> Option<Vec<Part>> {
        let ranks = self.ranks_of(offers.iter().map(|offer| offer.ranks));
        if ranks < self.least {
            return None;
        }
        offers.sort_unstable_by_key(|offer| offer.agent);
        let alone = self.per_agent.map_or(!self.spread, |each| ranks <= each);
        let mut chosen = match offers.iter().find(|offer| offer.slot == near && offer.ranks >= ranks) {
            Some(&offer) if alone => vec![(offer, ranks)],
            _ => match self.per_agent {
                Some(each) => exactly(&mut offers, ranks, each),
                None if self.spread => evenly(&mut offers, ranks),
                None => closely(&mut offers, ranks),
            },
        };
        // In ascending order, but an agent that has fewer than `per_agent` comes last.
        chosen.sort_unstable_by_key(|&(offer, ranks)| (self.per_agent.is_some_and(|each| ranks < each), offer.agent));
        let part = |(offer, ranks): (Offer, u32)| Part {
            slot: offer.slot,
            ranks,
        };
        Some(chosen.into_iter().map(part).collect())
    }
}

/// Takes the cheapest offer of at least `ranks`, the first of equals.
fn take_cheapest(offers: &mut Vec<Offer>, ranks: u32) -> Option<Offer> {
    let enough = (0..offers.len()).filter(|&at| offers[at].ranks >= ranks);
    let at = enough.min_by_key(|&at| (offers[at].cost, offers[at].agent))?;
    Some(offers.swap_remove(at))
}

/// On as few agents as possible: the largest, as long as no single one takes the rest.
fn closely(offers: &mut Vec<Offer>, ranks: u32) -> Vec<(Offer, u32)> {
    let mut chosen = Vec::new();
    let mut rest = ranks;
    offers.sort_unstable_by_key(|offer| (offer.ranks, std::cmp::Reverse((offer.cost, offer.agent))));
    while let Some(&largest) = offers.last().filter(|largest| largest.ranks < rest) {
        rest -= largest.ranks;
        chosen.push((largest, largest.ranks));
        offers.pop();
    }
    chosen.extend(take_cheapest(offers, rest).map(|offer| (offer, rest)));
    chosen
}

/// On as many agents as possible, with as many on each as the smallest allow; the odd ones where most room is left.
fn evenly(offers: &mut [Offer], ranks: u32) -> Vec<(Offer, u32)> {
    offers.sort_unstable_by_key(|offer| (offer.ranks, std::cmp::Reverse((offer.cost, offer.agent))));
    let mut chosen = Vec::new();
    let mut rest = ranks;
    for (at, &offer) in offers.iter().enumerate() {
        // From the smallest up: none of the others takes less than its share of what is left.
        let others = u32::try_from(offers.len() - at).unwrap_or(u32::MAX);
        let taken = offer.ranks.min(rest / others);
        rest -= taken;
        chosen.push((offer, taken));
    }
    chosen.retain(|&(_, taken)| taken > 0);
    chosen
}

/// Exactly `each` on agents of which any would do, and what is left on one more.
fn exactly(offers: &mut Vec<Offer>, ranks: u32, each: u32) -> Vec<(Offer, u32)> {
    let mut chosen = Vec::new();
    let mut rest = ranks;
    while rest > 0 {
        let taken = rest.min(each);
        let Some(offer) = take_cheapest(offers, taken) else {
            break;
        };
        chosen.push((offer, taken));
        rest -= taken;
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lay(shape: Shape, agents: &[u32]) -> Option<Vec<(u32, u32)>> {
        let offers = (0..).zip(agents).map(|(slot, &ranks)| Offer {
            slot,
            agent: AgentId(slot),
            ranks,
            cost: ranks.into(),
        });
        let parts = shape.checked().lay(offers.collect(), u32::MAX)?;
        Some(parts.into_iter().map(|part| (part.slot, part.ranks)).collect())
    }

    fn shape(ranks: u32) -> Shape {
        Shape {
            least: ranks,
            most: ranks,
            per_agent: None,
            spread: false,
        }
    }

    #[test]
    fn as_few_agents_as_possible_and_the_fullest_that_does() {
        assert_eq!(lay(shape(4), &[8, 5, 3, 6]), Some(vec![(1, 4)]));
        assert_eq!(lay(shape(12), &[8, 5, 3, 6]), Some(vec![(0, 8), (1, 4)]));
        assert_eq!(
            lay(shape(22), &[8, 5, 3, 6]),
            Some(vec![(0, 8), (1, 5), (2, 3), (3, 6)])
        );
        assert_eq!(lay(shape(23), &[8, 5, 3, 6]), None);
    }

    #[test]
    fn spread_is_even_and_no_agent_is_left_out_while_there_are_ranks() {
        let spread = |ranks| Shape {
            spread: true,
            ..shape(ranks)
        };
        assert_eq!(lay(spread(2), &[1, 4, 4]), Some(vec![(1, 1), (2, 1)]));
        assert_eq!(lay(spread(7), &[1, 4, 4]), Some(vec![(0, 1), (1, 3), (2, 3)]));
        assert_eq!(lay(spread(8), &[3, 8, 0, 8]), Some(vec![(0, 2), (1, 3), (3, 3)]));
    }

    #[test]
    fn per_agent_is_exact_but_for_the_last() {
        let three = |least, most| Shape {
            least,
            most,
            per_agent: Some(3),
            spread: false,
        };
        assert_eq!(lay(three(6, 6), &[8, 3, 2, 4]), Some(vec![(1, 3), (3, 3)]));
        assert_eq!(lay(three(8, 8), &[2, 8, 3, 2]), Some(vec![(1, 3), (2, 3), (0, 2)]));
        assert_eq!(lay(three(9, 9), &[2, 8, 3, 2]), None);
        assert_eq!(lay(three(1, 100), &[2, 8, 3, 1]), Some(vec![(1, 3), (2, 3), (0, 2)]));
        assert_eq!(three(1, 7).ranks_of([2, 8, 3, 1].into_iter()), 7);
    }

    #[test]
    fn an_elastic_gang_takes_what_is_there() {
        let elastic = Shape { most: 9, ..shape(2) };
        assert_eq!(lay(elastic, &[1]), None);
        assert_eq!(lay(elastic, &[1, 3]), Some(vec![(0, 1), (1, 3)]));
        assert_eq!(lay(elastic, &[4, 9]), Some(vec![(1, 9)]));
    }
}
