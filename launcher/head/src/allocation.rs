//! The allocation that a scheduler lent to this attempt, as far as the head needs to know it: when it ends.

use std::time::Duration;

/// What is known of the allocation. Times are nanoseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocation {
    /// When the scheduler takes it back; `None` where it may stay as long as it likes.
    pub end_ns: Option<u64>,
    /// How long before that the run begins to come to rest.
    pub notice: Duration,
}

impl Allocation {
    /// What is kept for the head's own last words: a tenth of the notice, between one second and eight.
    #[must_use]
    pub fn margin(&self) -> Duration {
        (self.notice / 10).clamp(Duration::from_secs(1), Duration::from_secs(8))
    }

    /// When tasks that still run are cut off; they see it as their deadline.
    #[must_use]
    pub fn tasks_end_ns(&self) -> Option<u64> {
        self.before_end(self.margin())
    }

    /// When no more task is started, whether or not the scheduler gave its signal.
    #[must_use]
    pub fn drain_ns(&self) -> Option<u64> {
        self.before_end(self.notice.max(self.margin()))
    }

    fn before_end(&self, time: Duration) -> Option<u64> {
        let time = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.end_ns.map(|end| end.saturating_sub(time))
    }
}
