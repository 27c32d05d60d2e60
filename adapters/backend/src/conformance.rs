//! The laws that every backend keeps, as functions that its tests call. They panic where a law is broken.

use crate::{Backend, JobRef, JobState, LaunchRequest};
use bridgehead_spec::RunId;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a job may take to be seen in a state.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request for two agents of `program`, for tests.
///
/// # Panics
/// Never.
#[must_use]
pub fn request(run_dir: &Path, program: &Path) -> LaunchRequest {
    let run = RunId::parse("conformance-1").expect("a sound id");
    LaunchRequest::first(run, run_dir.to_owned(), program.to_owned(), 2)
}

/// Waits until `job` is in `state`.
///
/// # Panics
/// It is not within a bounded time.
pub fn until(backend: &impl Backend, job: &JobRef, state: JobState) {
    let end = Instant::now() + PATIENCE;
    loop {
        let seen = backend.observe(std::slice::from_ref(job)).expect("observing works");
        if seen[0].state == state {
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
pub fn check(backend: &impl Backend, request: &LaunchRequest) {
    rendering_is_pure(backend, request);
    a_gang_of_none_is_refused(backend, request);
    unknown_jobs_are_unknown(backend);
    a_job_runs_until_it_is_cancelled(backend, request);
}

fn rendering_is_pure(backend: &impl Backend, request: &LaunchRequest) {
    let first = backend.render(request).expect("the request is sound");
    let second = backend.render(request).expect("the request is sound");
    assert_eq!(first, second, "rendering must not depend on anything but the request");
}

fn a_gang_of_none_is_refused(backend: &impl Backend, request: &LaunchRequest) {
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

fn unknown_jobs_are_unknown(backend: &impl Backend) {
    let jobs = [JobRef("no such job".to_owned()), JobRef(String::new())];
    let seen = backend.observe(&jobs).expect("observing works");
    let states: Vec<JobState> = seen.into_iter().map(|report| report.state).collect();
    assert_eq!(states, [JobState::Unknown, JobState::Unknown]);
    assert_eq!(backend.observe(&[]).expect("observing none works"), []);
}

fn a_job_runs_until_it_is_cancelled(backend: &impl Backend, request: &LaunchRequest) {
    let manifest = backend.render(request).expect("the request is sound");
    let job = backend.submit(&manifest).expect("submitting works");
    until(backend, &job, JobState::Running);
    backend.cancel(&job).expect("cancelling works");
    until(backend, &job, JobState::Ended);
    backend.cancel(&job).expect("cancelling what has ended is no error");
}
