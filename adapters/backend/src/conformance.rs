//! The laws that every backend keeps, as functions that its tests call. They panic where a law is broken.

use crate::{Backend, JobRef, JobState, LaunchRequest};
use std::time::{Duration, Instant};

/// How long a job may take to be seen in a state.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `job` is in `state`.
///
/// # Panics
/// It is not within a bounded time.
pub fn until(backend: &dyn Backend, job: &JobRef, state: JobState) {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = backend.observe(std::slice::from_ref(job)).expect("observing works");
        if seen == [state] {
            return;
        }
        assert!(Instant::now() < end, "{job:?} is {seen:?}, not {state:?}");
        std::thread::yield_now();
    }
}

/// All laws. `request` must be one that keeps running until it is cancelled.
///
/// # Panics
/// A law is broken.
pub fn check(backend: &dyn Backend, request: &LaunchRequest) {
    rendering_is_pure(backend, request);
    a_gang_of_none_is_refused(backend, request);
    unknown_jobs_are_unknown(backend);
    a_job_runs_until_it_is_cancelled(backend, request);
}

fn rendering_is_pure(backend: &dyn Backend, request: &LaunchRequest) {
    let first = backend.render(request).expect("the request is sound");
    let second = backend.render(request).expect("the request is sound");
    assert_eq!(first, second, "rendering must not depend on anything but the request");
    assert_eq!(first.ranks.len(), request.agents as usize, "one command line a rank");
}

fn a_gang_of_none_is_refused(backend: &dyn Backend, request: &LaunchRequest) {
    let none = LaunchRequest {
        agents: 0,
        ..request.clone()
    };
    let error = backend.render(&none).expect_err("nothing to launch");
    assert!(
        error.to_string().contains(backend.name()),
        "an error names its backend: {error}"
    );
}

fn unknown_jobs_are_unknown(backend: &dyn Backend) {
    let jobs = [JobRef("no such job".to_owned()), JobRef(String::new())];
    assert_eq!(
        backend.observe(&jobs).expect("observing works"),
        [JobState::Unknown, JobState::Unknown]
    );
    assert_eq!(backend.observe(&[]).expect("observing none works"), []);
}

fn a_job_runs_until_it_is_cancelled(backend: &dyn Backend, request: &LaunchRequest) {
    let manifest = backend.render(request).expect("the request is sound");
    let job = backend.submit(&manifest).expect("submitting works");
    until(backend, &job, JobState::Running);
    backend.cancel(&job).expect("cancelling works");
    until(backend, &job, JobState::Ended);
    backend.cancel(&job).expect("cancelling what has ended is no error");
}
