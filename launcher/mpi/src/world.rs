//! Where the ranks of a gang are. Owns the checks of what it is told, and the map in the words of PMI; it knows no process.

use crate::bootstrap::BootError;

/// The longest value that a client of PMI-1 reads whole: its line buffer is 1024 bytes in MPICH before 4.1.
const LONGEST_MAPPING: usize = 900;

/// Where the ranks of a gang are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Unique on this machine among gangs that run; `[a-z0-9-]`, 1 to 63 bytes.
    pub name: String,
    /// The nodes in the order of their ranks.
    pub nodes: Vec<NodePart>,
    /// Which of the nodes this agent is.
    pub here: usize,
}

/// The ranks `first .. first + count`, which are on one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePart {
    /// The agent that has the node.
    pub agent: u32,
    /// Its host's name, as MPI is told it.
    pub host: String,
    /// The first rank that is there.
    pub first: u32,
    /// How many are there; at least one.
    pub count: u32,
}

impl World {
    /// Number of all ranks.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.nodes.last().map_or(0, |node| node.first + node.count)
    }

    /// The ranks that are here.
    #[must_use]
    pub fn part(&self) -> &NodePart {
        &self.nodes[self.here]
    }

    /// Position of the node that has this rank.
    #[must_use]
    pub fn node_of(&self, rank: u32) -> Option<usize> {
        let after = self.nodes.partition_point(|node| node.first <= rank);
        let at = after.checked_sub(1)?;
        (rank - self.nodes[at].first < self.nodes[at].count).then_some(at)
    }

    /// Position of this agent's node.
    pub(crate) fn node_of_agent(&self, agent: u32) -> Option<usize> {
        self.nodes.iter().position(|node| node.agent == agent)
    }

    /// Holds everything that the rest of the crate relies on.
    pub(crate) fn check(&self) -> Result<(), BootError> {
        let wrong = |reason: String| Err(BootError::World { reason });
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if self.name.is_empty() || self.name.len() > 63 || !self.name.bytes().all(plain) {
            return wrong(format!("its name {:?} is not 1 to 63 of a-z, 0-9 and -", self.name));
        }
        if self.here >= self.nodes.len() {
            return wrong(format!(
                "node {} is not among its {} nodes",
                self.here,
                self.nodes.len()
            ));
        }
        let (mut next, mut agents) = (0_u32, std::collections::HashSet::new());
        for node in &self.nodes {
            if node.first != next || node.count == 0 {
                return wrong(format!(
                    "{} begins with rank {}, not with {next}",
                    node.host, node.first
                ));
            }
            let Some(sum) = next.checked_add(node.count).filter(|sum| i32::try_from(*sum).is_ok()) else {
                return wrong("it has more ranks than MPI can count".to_owned());
            };
            next = sum;
            let printable = |c: u8| c.is_ascii_graphic() && c != b',' && c != b';';
            if node.host.is_empty() || node.host.len() > 255 || !node.host.bytes().all(printable) {
                return wrong(format!("{:?} is no name of a host", node.host));
            }
            if !agents.insert(node.agent) {
                return wrong(format!("agent {} has two parts of it", node.agent));
            }
        }
        Ok(())
    }

    /// `PMI_process_mapping`: blocks of (first node, number of nodes, ranks on each). None where it would be longer than clients
    /// read; they then compare host names instead.
    pub(crate) fn mapping(&self) -> Option<String> {
        let mut blocks: Vec<(usize, u32, u32)> = Vec::new();
        for (at, node) in self.nodes.iter().enumerate() {
            match blocks.last_mut() {
                Some((_, nodes, count)) if *count == node.count => *nodes += 1,
                _ => blocks.push((at, 1, node.count)),
            }
        }
        let blocks: Vec<_> = blocks
            .iter()
            .map(|(at, nodes, count)| format!("({at},{nodes},{count})"))
            .collect();
        let text = format!("(vector,{})", blocks.join(","));
        (text.len() <= LONGEST_MAPPING).then_some(text)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A world of nodes with so many ranks each, seen from node `here`.
    pub(crate) fn world(counts: &[u32], here: usize) -> World {
        let mut first = 0;
        let node = |(at, count): (usize, &u32)| {
            let node = NodePart {
                agent: 10 + at as u32,
                host: format!("node{at}"),
                first,
                count: *count,
            };
            first += count;
            node
        };
        World {
            name: "gang-1".to_owned(),
            nodes: counts.iter().enumerate().map(node).collect(),
            here,
        }
    }

    #[test]
    fn ranks_are_found_on_their_nodes() {
        let world = world(&[3, 2, 1], 0);
        let found: Vec<_> = (0..7).map(|rank| world.node_of(rank)).collect();
        assert_eq!(found, [Some(0), Some(0), Some(0), Some(1), Some(1), Some(2), None]);
        assert_eq!(
            (world.size(), world.node_of_agent(12), world.node_of_agent(9)),
            (6, Some(2), None)
        );
    }

    #[test]
    fn the_mapping_joins_equal_blocks_and_keeps_unequal_ones() {
        assert_eq!(world(&[3, 2], 0).mapping().unwrap(), "(vector,(0,1,3),(1,1,2))");
        assert_eq!(world(&[4, 4, 1], 0).mapping().unwrap(), "(vector,(0,2,4),(2,1,1))");
        let alternating: Vec<u32> = (0..400).map(|at| 1 + at % 2).collect();
        assert_eq!(world(&alternating, 0).mapping(), None, "longer than a client's line");
    }

    #[test]
    fn what_cannot_be_a_world_is_refused_by_name() {
        type Break = fn(&mut World);
        let cases: [(Break, &str); 7] = [
            (|w| w.name = "Gang".to_owned(), "its name"),
            (|w| w.name.clear(), "its name"),
            (|w| w.here = 2, "node 2 is not among"),
            (|w| w.nodes[1].first = 4, "not with 3"),
            (|w| w.nodes[1].count = 0, "begins with rank"),
            (|w| w.nodes[1].agent = w.nodes[0].agent, "two parts"),
            (|w| w.nodes[1].host = "a,b".to_owned(), "no name of a host"),
        ];
        assert!(world(&[3, 2], 1).check().is_ok());
        for (spoil, words) in cases {
            let mut world = world(&[3, 2], 0);
            spoil(&mut world);
            let error = world.check().unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
