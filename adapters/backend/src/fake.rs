//! A scheduler in memory, for tests of what drives a backend. It runs nothing: jobs go on when the test says so.

use crate::{Backend, BackendError, JobRef, JobReport, JobState, LaunchRequest};
use std::sync::{Mutex, PoisonError};

/// A fake scheduler. Not a real one: no process is started.
#[derive(Debug, Default)]
pub struct Fake {
    jobs: Mutex<Vec<JobState>>,
}

impl Fake {
    /// Sets the state of a job.
    pub fn set(&self, job: &JobRef, state: JobState) {
        let mut jobs = self.lock();
        if let Some(slot) = index(job).and_then(|i| jobs.get_mut(i)) {
            *slot = state;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<JobState>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn index(job: &JobRef) -> Option<usize> {
    job.0.strip_prefix("fake-")?.parse().ok()
}

impl Backend for Fake {
    type Manifest = String;

    fn name(&self) -> &'static str {
        "fake"
    }

    fn render(&self, request: &LaunchRequest) -> Result<String, BackendError> {
        if request.agents == 0 {
            return Err(BackendError::Unfit {
                backend: "fake",
                reason: "a gang has at least one agent".to_owned(),
            });
        }
        Ok(format!("{} with {} agents", request.key(), request.agents))
    }

    fn submit(&self, _: &String) -> Result<JobRef, BackendError> {
        let mut jobs = self.lock();
        jobs.push(JobState::Running);
        Ok(JobRef(format!("fake-{}", jobs.len() - 1)))
    }

    fn observe(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        let known = self.lock();
        Ok(jobs
            .iter()
            .map(|job| {
                let state = index(job).and_then(|i| known.get(i).copied());
                JobReport::of(state.unwrap_or(JobState::Unknown))
            })
            .collect())
    }

    fn cancel(&self, job: &JobRef) -> Result<(), BackendError> {
        self.set(job, JobState::Ended);
        Ok(())
    }
}
