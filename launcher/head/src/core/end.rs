//! Cancelling, and the end of the run.

use super::{Core, Ending};
use crate::journal::{Event, RunEnded};
use crate::state::Phase;
use bridgehead_spec::TaskId;
use bridgehead_wire::{CancelTasks, Failure, FailureCause};

impl Core {
    /// Tasks that have no outcome yet.
    #[must_use]
    pub fn open_tasks(&self) -> u64 {
        self.state.counts.waiting + self.state.counts.running
    }

    /// Cancels one task: a waiting one at once, a running one through its agent.
    pub fn cancel_task(&mut self, task: u64, reason: &str) {
        let Some(row) = self.state.row(task) else { return };
        match row.phase {
            Phase::Waiting => {
                self.give_up(TaskId(task));
                self.finish_cancelled(task, reason);
            }
            Phase::Running => {
                let agents = self.agents_of(task, row.agent);
                if let Some(job) = self.job_mut(task) {
                    job.cancelling = Some(reason.into());
                }
                let message = CancelTasks {
                    tasks: vec![task],
                    all: false,
                    reason: reason.to_owned(),
                    from_worker: None,
                };
                for agent in agents {
                    self.tell_agent(agent, message.clone());
                }
            }
            _ => {}
        }
    }

    /// Cancels everything; the run ends when what runs has stopped.
    pub fn cancel_all(&mut self, reason: &str) {
        self.end_as("cancelled", reason);
    }

    /// The run cannot go on: everything is cancelled, and it ends as failed.
    pub fn fail_all(&mut self, reason: &str) {
        self.end_as("failed", reason);
    }

    fn end_as(&mut self, phase: &'static str, reason: &str) {
        if matches!(self.ending, Ending::Cancel { .. } | Ending::Over) {
            return;
        }
        tracing::info!(reason, phase, "cancelling the run");
        let cause = reason.to_owned();
        self.ending = Ending::Cancel { reason: cause, phase };
        self.pausing = None;
        for task in 0..self.state.tasks.len() as u64 {
            self.cancel_task(task, reason);
        }
    }

    /// Fails tasks that wait for one that failed or was cancelled. Called once a batch, after all events.
    pub fn sweep_failed(&mut self) {
        self.fail_doomed();
        if let Some(most) = self.too_many.take() {
            let failed = self.own_failures;
            self.fail_all(&format!(
                "{failed} tasks failed, more than the {most} that max_fails allows: the rest was cancelled; `bridgehead resume` tries what failed again"
            ));
            self.fail_doomed();
        }
    }

    fn fail_doomed(&mut self) {
        while let Some(task) = self.doomed.pop_front() {
            if let Some(failure) = self.first_upstream(task) {
                self.finish_failed(task, failure);
            } else {
                let failure = Failure::new(FailureCause::Upstream, "upstream", "a task that it needs has no value");
                self.finish_failed(task, failure);
            }
        }
    }

    pub(super) fn first_upstream(&self, task: u64) -> Option<Failure> {
        self.job(task)?
            .dependencies()
            .find_map(|dependency| self.upstream_failure(dependency))
    }

    /// Ends the run if nothing is left to do. `true` once, when it does.
    pub fn end_if_done(&mut self) -> bool {
        let no_more = self.config.has_pipeline || self.ending != Ending::No;
        if self.is_over() {
            return false;
        }
        self.end_gang_if_done();
        if !no_more || self.open_tasks() > 0 || !self.persisting.is_empty() {
            return self.pause_if_due();
        }
        let (phase, message) = self.verdict();
        self.record(Event::RunEnded(RunEnded { phase, message }));
        self.ending = Ending::Over;
        self.tell_end();
        true
    }

    fn verdict(&self) -> (String, String) {
        if let Ending::Cancel { reason, phase } = &self.ending {
            return ((*phase).to_owned(), reason.clone());
        }
        let c = self.state.counts;
        if c.failed == 0 && c.cancelled == 0 {
            return ("finished".to_owned(), String::new());
        }
        let message = format!("{} of {} tasks failed, {} cancelled", c.failed, c.total(), c.cancelled);
        ("failed".to_owned(), message)
    }
}
