//! The wait for the agents of a run: it starts when all are there, or is cancelled with the names of those that are not.

use bridgehead_spec::RunConfig;
use std::time::Duration;

/// Waits, bounded, for the gang to be whole.
pub(crate) struct JoinWait {
    expected: u32,
    pub(crate) limit: Duration,
    since: std::time::Instant,
    told: bool,
}

impl JoinWait {
    pub(crate) fn new(config: &RunConfig) -> Self {
        Self {
            expected: u32::try_from(config.agents.len()).unwrap_or(u32::MAX),
            limit: Duration::from_millis(config.join_timeout_ms),
            since: std::time::Instant::now(),
            told: false,
        }
    }

    /// The ranks that are missing when the wait is over, once.
    pub(crate) fn overdue(&mut self, here: impl Iterator<Item = u32>) -> Option<Vec<u32>> {
        if self.told {
            return None;
        }
        let here: std::collections::BTreeSet<u32> = here.collect();
        let missing: Vec<u32> = (0..self.expected).filter(|rank| !here.contains(rank)).collect();
        if missing.is_empty() {
            self.told = true; // Later losses are losses, not no-shows.
            return None;
        }
        if self.since.elapsed() < self.limit {
            return None;
        }
        self.told = true;
        Some(missing)
    }
}
