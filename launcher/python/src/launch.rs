//! Run folders and the start of a run's processes, through the local backend. Called a few times a run.

use crate::futures::Raw;
use bridgehead_backend::{Backend, LaunchRequest};
use bridgehead_head::journal::{self, Event};
use bridgehead_head::state::{End, RunState};
use bridgehead_local::Local;
use bridgehead_plan::{ClusterProfile, LaunchPlan};
use bridgehead_spec::{CheckedPipeline, RunConfig, RunFolder, RunId};
use bridgehead_wire::{FileRef, Outcome, Value};
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

fn os_error(e: impl std::fmt::Display) -> PyErr {
    PyOSError::new_err(e.to_string())
}

fn value_error(e: impl std::fmt::Display) -> PyErr {
    PyValueError::new_err(e.to_string())
}

/// What this process may use of this machine: cores in thousandths, bytes of memory. The affinity mask and the limits of
/// control groups count.
#[pyfunction]
pub fn machine() -> (u64, u64) {
    let topology = bridgehead_topology::Topology::here();
    (topology.usable_cpu_millis(), topology.usable_memory())
}

/// Makes the folder of a new run: (run id, path).
#[pyfunction]
pub fn create_run(name: &str) -> PyResult<(String, PathBuf)> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let run = bridgehead_local::new_run_id(name, now.as_secs());
    let folder = bridgehead_local::create_run(&bridgehead_local::home(), &run).map_err(os_error)?;
    Ok((run.to_string(), folder.path().to_owned()))
}

/// The folder of the run that `asked` means: an id, a prefix that only one run has, or a path.
#[pyfunction]
pub fn resolve_run(asked: &str) -> PyResult<PathBuf> {
    let folder = bridgehead_local::resolve_run(&bridgehead_local::home(), asked).map_err(value_error)?;
    Ok(folder.path().to_owned())
}

/// Checks `run.json` and writes it.
#[pyfunction]
pub fn write_config(run_dir: PathBuf, json: &str) -> PyResult<()> {
    let config: RunConfig = serde_json::from_str(json).map_err(value_error)?;
    let text = serde_json::to_vec_pretty(&config).map_err(value_error)?;
    std::fs::write(RunFolder::new(run_dir).config(), text).map_err(os_error)
}

/// Checks a pipeline; its canonical text.
#[pyfunction]
pub fn canonical_spec<'py>(py: Python<'py>, json: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    let text = py.detach(|| CheckedPipeline::parse(json).map(|checked| checked.to_canonical_json()));
    Ok(PyBytes::new(py, text.map_err(value_error)?.as_bytes()))
}

/// Starts head and agents of the run in `run_dir` on this machine; the head's process id.
#[pyfunction]
pub fn start(py: Python<'_>, run_dir: PathBuf, program: PathBuf, agents: u32) -> PyResult<u32> {
    let name = run_dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let run = RunId::parse(&name).ok_or_else(|| value_error(format!("{name} is no run folder")))?;
    let request = LaunchRequest::first(run, run_dir, program, agents);
    py.detach(|| {
        let manifest = Local.render(&request).map_err(value_error)?;
        let job = Local.submit(&manifest).map_err(os_error)?;
        let pid = job.0.split(['@', ',']).next().and_then(|pid| pid.parse().ok());
        pid.ok_or_else(|| os_error(format!("the local backend gave no process id: {}", job.0)))
    })
}

/// Checks and plans a pipeline for a cluster profile: its canonical text, the plan as canonical JSON and in its form for
/// people.
#[pyfunction]
pub fn plan<'py>(py: Python<'py>, spec: &[u8], profile: &str) -> PyResult<(Bound<'py, PyBytes>, String, String)> {
    let profile: ClusterProfile = serde_json::from_str(profile).map_err(value_error)?;
    let planned = py.detach(|| {
        let pipeline = CheckedPipeline::parse(spec).map_err(|e| e.to_string())?;
        let plan: LaunchPlan = bridgehead_plan::plan(&pipeline, &profile).map_err(|e| e.to_string())?;
        Ok((pipeline.to_canonical_json(), plan.to_canonical_json(), plan.to_human()))
    });
    let (text, plan, human) = planned.map_err(PyValueError::new_err::<String>)?;
    Ok((PyBytes::new(py, text.as_bytes()), plan, human))
}

fn replay(py: Python<'_>, run_dir: PathBuf) -> PyResult<Vec<journal::Record>> {
    let segments = py.detach(|| journal::read_all(&RunFolder::new(run_dir).journal()));
    Ok(segments
        .map_err(os_error)?
        .into_iter()
        .flat_map(|s| s.records)
        .collect())
}

type Row = (u64, String, Option<Raw>);

/// What the journal says of a run: (phase or "", message, tasks), a task being (id, phase, answer if it was kept).
#[pyfunction]
pub fn read_state(py: Python<'_>, run_dir: PathBuf) -> PyResult<(String, String, Vec<Row>)> {
    let mut state = RunState::new(false);
    for record in &replay(py, run_dir)? {
        state.apply(record);
    }
    let tasks = state.tasks.iter().enumerate().map(|(id, row)| {
        let outcome = match (&row.end, &row.persisted) {
            (End::Value(value), Some(path)) => {
                let len = value.object().map_or(0, |o| o.len);
                let path = path.to_string();
                Some(Outcome::value(Value::file(FileRef { path, len })))
            }
            (End::Value(value), None) if value.object().is_none() => Some(Outcome::value(value.clone())),
            (End::Open | End::Value(_), _) => None, // Never there, or gone with its agent.
            (End::Failure(failure), _) => Some(Outcome::failure((**failure).clone())),
            (End::Cancelled(reason), _) => Some(Outcome::cancelled(reason.as_ref())),
        };
        let raw = outcome.map(|outcome| Raw::new(Some(outcome), row.attempt, row.elapsed_ns));
        (id as u64, format!("{:?}", row.phase).to_lowercase(), raw)
    });
    let tasks = tasks.collect();
    let (phase, message) = state.ended.unwrap_or_default();
    Ok((phase, message, tasks))
}

type Line = (u64, &'static str, Option<u64>, u32, String);

/// The journal's records: (nanoseconds since the epoch, event, task, attempt or agent, text).
#[pyfunction]
pub fn read_journal(py: Python<'_>, run_dir: PathBuf) -> PyResult<Vec<Line>> {
    let records = replay(py, run_dir)?;
    Ok(records
        .into_iter()
        .filter_map(|r| Some(line(r.time_ns, r.event?)))
        .collect())
}

fn line(time_ns: u64, event: Event) -> Line {
    let (name, task, number, text) = match event {
        Event::RunStarted(e) => ("run-started", None, e.attempt, e.run),
        Event::AgentJoined(e) => ("agent-joined", None, e.agent, e.host),
        Event::AgentLost(e) => ("agent-lost", None, e.agent, e.reason),
        Event::TaskAdded(e) => ("task-added", Some(e.task), 0, e.name),
        Event::TaskAssigned(e) => ("task-assigned", Some(e.task), e.attempt, String::new()),
        Event::GangStarted(e) => ("gang-started", Some(e.bound.task), e.bound.attempt, e.bound.mpi.clone()),
        Event::TaskFinished(e) => ("task-finished", Some(e.task), e.attempt, String::new()),
        Event::TaskFailed(e) => {
            let name = if e.retried { "task-retried" } else { "task-failed" };
            (
                name,
                Some(e.task),
                e.attempt,
                e.failure.map(|f| f.message).unwrap_or_default(),
            )
        }
        Event::TaskCancelled(e) => ("task-cancelled", Some(e.task), 0, e.reason),
        Event::TaskPersisted(e) => ("task-persisted", Some(e.task), 0, e.path),
        Event::TaskReset(e) => ("task-reset", Some(e.task), 0, e.reason),
        Event::RunEnded(e) => ("run-ended", None, 0, e.phase),
        Event::RunPaused(e) => ("run-paused", None, 0, e.cause),
        Event::ObjectPersisted(e) => ("object-persisted", None, 0, e.path),
    };
    (time_ns, name, task, number, text)
}
