//! Run folders, launching, and reading what a run left.

use bridgehead_backend::{Backend, LaunchRequest};
use bridgehead_head::journal;
use bridgehead_local::{Local, create_run, home, new_run_id, resolve_run};
use bridgehead_plan::{ClusterProfile, NodeProfile};
use bridgehead_spec::{AgentConfig, CheckedPipeline, RunFolder};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Makes the folder of a new run of `name`: (id, folder).
#[pyfunction]
pub(crate) fn new_run(name: &str) -> PyResult<(String, PathBuf)> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    for _ in 0..16 {
        let run = new_run_id(name, now);
        match create_run(&home(), &run) {
            Ok(folder) => return Ok((run.to_string(), folder.path().to_owned())),
            Err(e) if e.to_string().contains("exists") => {} // Another run of this second drew the same number.
            Err(e) => return Err(PyOSError::new_err(e.to_string())),
        }
    }
    Err(PyOSError::new_err(
        "cannot find a free name for the run: its folder is full of runs of this second",
    ))
}

/// Starts head and agents of the run in `run_dir` with the program `binary`; the head's process id.
#[pyfunction]
pub(crate) fn start(py: Python<'_>, run_dir: PathBuf, binary: PathBuf, agents: u32) -> PyResult<u32> {
    let job = py.detach(|| {
        let manifest = Local.render(&LaunchRequest {
            run_dir,
            program: binary,
            agents,
        })?;
        Local.submit(&manifest)
    });
    let job = job.map_err(|e| PyOSError::new_err(e.to_string()))?;
    let pid = job.0.split(['@', ',']).next().and_then(|pid| pid.parse().ok());
    pid.ok_or_else(|| PyOSError::new_err("the head was not started"))
}

/// The folder of the run that `asked` (an id, a unique prefix, or a path) means.
#[pyfunction]
pub(crate) fn find_run(asked: &str) -> PyResult<PathBuf> {
    resolve_run(&home(), asked)
        .map(|f| f.path().to_owned())
        .map_err(|e| PyOSError::new_err(e.to_string()))
}

/// Checks a pipeline's document and gives its canonical text.
#[pyfunction]
pub(crate) fn check_pipeline(py: Python<'_>, text: &str) -> PyResult<String> {
    let checked = py.detach(|| CheckedPipeline::parse(text.as_bytes()));
    checked
        .map(|p| p.to_canonical_json())
        .map_err(|e| PyValueError::new_err(e.to_string()))
}

/// Plans a pipeline on local agents (JSON list of what each has): the plan as JSON or as text for people.
#[pyfunction]
pub(crate) fn plan_pipeline(text: &str, agents: &str, as_json: bool) -> PyResult<String> {
    let wrong = |e: String| PyValueError::new_err(e);
    let pipeline = CheckedPipeline::parse(text.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    let agents: Vec<AgentConfig> = serde_json::from_str(agents).map_err(|e| wrong(e.to_string()))?;
    let nodes = (0..).zip(agents).map(|(rank, agent): (u32, AgentConfig)| NodeProfile {
        name: format!("local-{rank}"),
        workers: u32::try_from(agent.resources.cpu_millis.div_ceil(1000)).unwrap_or(u32::MAX),
        resources: agent.resources,
    });
    let cluster = ClusterProfile {
        backend: "local".to_owned(),
        nodes: nodes.collect(),
    };
    let plan = bridgehead_plan::plan(&pipeline, &cluster).map_err(|e| wrong(e.to_string()))?;
    if as_json {
        return Ok(plan.to_canonical_json());
    }
    Ok(plan.to_human())
}

/// The attempt that the next head of a run will be.
#[pyfunction]
pub(crate) fn next_attempt(run_dir: PathBuf) -> PyResult<u32> {
    let attempts = journal::attempts(&RunFolder::new(run_dir).journal());
    let attempts = attempts.map_err(|e| PyOSError::new_err(e.to_string()))?;
    Ok(attempts.last().copied().unwrap_or(0) + 1)
}

/// What the journal says of a run: (phase or "", message, attempt, tasks), a task being
/// (id, phase, attempts, nanoseconds, kind of outcome or None, payload).
#[pyfunction]
pub(crate) fn read_state(py: Python<'_>, run_dir: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    use bridgehead_head::state::{End, RunState};
    use bridgehead_wire::{FileRef, Outcome, Value};
    let segments = py.detach(|| journal::read_all(&RunFolder::new(run_dir).journal()));
    let mut state = RunState::new(false);
    for record in segments
        .map_err(|e| PyOSError::new_err(e.to_string()))?
        .iter()
        .flat_map(|s| &s.records)
    {
        state.apply(record);
    }
    let tasks = PyList::empty(py);
    for (id, row) in state.tasks.iter().enumerate() {
        let outcome = match (&row.end, &row.persisted) {
            (End::Open, _) => None,
            (End::Value(value), Some(path)) => {
                let len = value.object().map_or(0, |o| o.len);
                Some(Outcome::value(Value::file(FileRef {
                    path: path.to_string(),
                    len,
                })))
            }
            (End::Value(value), None) if value.object().is_some() => None, // It went down with its agent.
            (End::Value(value), None) => Some(Outcome::value(value.clone())),
            (End::Failure(failure), _) => Some(Outcome::failure((**failure).clone())),
            (End::Cancelled(reason), _) => Some(Outcome::cancelled(reason.as_ref())),
        };
        let phase = format!("{:?}", row.phase).to_lowercase();
        let (kind, payload) = match &outcome {
            Some(outcome) => crate::convert::outcome(py, Some(outcome)).map(|(k, p)| (Some(k), Some(p)))?,
            None => (None, None),
        };
        tasks.append((id, phase, row.attempt, row.elapsed_ns, kind, payload).into_bound_py_any(py)?)?;
    }
    let (phase, message) = state.ended.unwrap_or_default();
    (phase, message, state.attempt, tasks).into_bound_py_any(py)
}

/// The journal's records as tuples `(time_ns, event, task or None, attempt or agent, text)`.
#[pyfunction]
pub(crate) fn read_journal(py: Python<'_>, run_dir: PathBuf) -> PyResult<Bound<'_, PyList>> {
    use journal::Event;
    let segments = py.detach(|| journal::read_all(&RunFolder::new(run_dir).journal()));
    let list = PyList::empty(py);
    for record in segments
        .map_err(|e| PyOSError::new_err(e.to_string()))?
        .iter()
        .flat_map(|s| &s.records)
    {
        let Some(event) = &record.event else { continue };
        let (name, task, number, text): (&str, Option<u64>, u32, &str) = match event {
            Event::RunStarted(e) => ("run-started", None, e.attempt, &e.run),
            Event::AgentJoined(e) => ("agent-joined", None, e.agent, &e.host),
            Event::AgentLost(e) => ("agent-lost", None, e.agent, &e.reason),
            Event::TaskAdded(e) => ("task-added", Some(e.task), 0, &e.name),
            Event::TaskAssigned(e) => ("task-assigned", Some(e.task), e.attempt, ""),
            Event::TaskFinished(e) => ("task-finished", Some(e.task), e.attempt, ""),
            Event::TaskFailed(e) => {
                let text = e.failure.as_ref().map_or("", |f| f.message.as_str());
                (
                    if e.retried { "task-retried" } else { "task-failed" },
                    Some(e.task),
                    e.attempt,
                    text,
                )
            }
            Event::TaskCancelled(e) => ("task-cancelled", Some(e.task), 0, &e.reason),
            Event::TaskPersisted(e) => ("task-persisted", Some(e.task), 0, &e.path),
            Event::TaskReset(e) => ("task-reset", Some(e.task), 0, &e.reason),
            Event::RunEnded(e) => ("run-ended", None, 0, &e.phase),
        };
        list.append((record.time_ns, name, task, number, text).into_bound_py_any(py)?)?;
    }
    Ok(list)
}
