//! The wait for the agents of a run: it starts when enough are there, or fails with the names of those that are not.

use bridgehead_spec::RunConfig;
use std::time::Duration;

/// Waits, bounded, for the gang to be whole.
pub(crate) struct JoinWait {
    expected: u32,
    /// So many are enough to start.
    enough: usize,
    hosts: Vec<String>,
    limit: Duration,
    since: std::time::Instant,
    told: bool,
}

impl JoinWait {
    /// The wait begins. The agents of `config` are expected on `hosts`, by rank, as far as they are known.
    pub(crate) fn new(config: &RunConfig, hosts: &[String]) -> Self {
        Self {
            expected: u32::try_from(config.agents.len()).unwrap_or(u32::MAX),
            enough: enough(config),
            hosts: hosts.to_vec(),
            limit: Duration::from_millis(config.join_timeout_ms),
            since: std::time::Instant::now(),
            told: false,
        }
    }

    /// Who did not come, as a sentence, once the wait is over in vain.
    pub(crate) fn overdue(&mut self, here: impl Iterator<Item = u32>) -> Option<String> {
        if self.told {
            return None;
        }
        let here: std::collections::BTreeSet<u32> = here.collect();
        if here.len() >= self.enough {
            self.told = true; // Later losses are losses, not no-shows.
            return None;
        }
        if self.since.elapsed() < self.limit {
            return None;
        }
        self.told = true;
        let missing = (0..self.expected).filter(|rank| !here.contains(rank));
        let missing: Vec<String> = missing.map(|rank| self.name(rank)).collect();
        let (what, names) = (if missing.len() == 1 { "agent" } else { "agents" }, missing.join(", "));
        let seconds = self.limit.as_secs();
        Some(format!(
            "{what} {names} did not join within {seconds} s: look at logs/agent-*.log in the run folder"
        ))
    }

    fn name(&self, rank: u32) -> String {
        match self.hosts.get(rank as usize) {
            Some(host) => format!("{rank} ({host})"),
            None => rank.to_string(),
        }
    }
}

/// How many agents a run starts with.
pub(crate) fn enough(config: &RunConfig) -> usize {
    let all = config.agents.len();
    config
        .min_agents
        .map_or(all, |least| (least as usize).clamp(1, all.max(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(enough: usize) -> JoinWait {
        JoinWait {
            expected: 4,
            enough,
            hosts: ["n1", "n2", "n3"].map(str::to_owned).to_vec(),
            limit: Duration::ZERO,
            since: std::time::Instant::now(),
            told: false,
        }
    }

    #[test]
    fn those_who_do_not_come_are_named_once_with_their_hosts_where_known() {
        let mut wait = wait(4);
        let told = wait.overdue([0, 1].into_iter());
        let told = told.expect("the time is over");
        assert!(told.starts_with("agents 2 (n3), 3 did not join within 0 s"), "{told}");
        assert_eq!(wait.overdue([0, 1].into_iter()), None);
    }

    #[test]
    fn no_one_is_missed_once_enough_were_there() {
        let mut wait = wait(2);
        assert_eq!(wait.overdue([0, 3].into_iter()), None);
        assert_eq!(wait.overdue([0].into_iter()), None, "a later loss is no no-show");
    }
}
