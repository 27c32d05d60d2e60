//! What a run folder says, with or without a living head: its documents, its journal, and names for its tasks.

use crate::error::CliError;
use crate::{far, output};
use bridgehead_head::journal;
use bridgehead_head::state::RunState;
use bridgehead_local::{home, is_alive, resolve_run};
use bridgehead_spec::{HeadInfo, PipelineSpec, RunConfig, RunFolder};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The folder of the run that was asked for.
pub(crate) fn find(asked: &str) -> Result<RunFolder, CliError> {
    Ok(resolve_run(&home(), asked)?)
}

/// The run's id.
pub(crate) fn run_id(folder: &RunFolder) -> String {
    let name = std::fs::canonicalize(folder.path()).unwrap_or_else(|_| folder.path().to_owned());
    name.file_name()
        .map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// A JSON document of the folder; `None` if it is not there.
fn document<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, CliError> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|e| CliError::invalid(path, e)),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CliError::unreadable(path, &e)),
    }
}

/// `run.json`.
pub(crate) fn config(folder: &RunFolder) -> Result<RunConfig, CliError> {
    let path = folder.config();
    document(&path)?.ok_or_else(|| CliError::unreadable(&path, &ErrorKind::NotFound.into()))
}

/// Whether the run was handed to a scheduler; not as far as is known where `run.json` cannot be read.
pub(crate) fn is_handed_over(folder: &RunFolder) -> bool {
    config(folder).is_ok_and(|config| config.target.is_some())
}

/// Brings a mirrored folder up to date, as far as its head can be reached.
pub(crate) fn refresh(folder: &RunFolder, results: bool) -> Result<(), CliError> {
    // What of a damaged folder can be read is read as it is.
    config(folder).map_or(Ok(()), |config| far::refresh(folder, &config, results).map(drop))
}

/// `spec.json`; `None` for an Executor's run.
pub(crate) fn spec(folder: &RunFolder) -> Result<Option<PipelineSpec>, CliError> {
    document(&folder.spec())
}

/// What `status.json` says.
pub(crate) fn written(folder: &RunFolder) -> Result<Option<Value>, CliError> {
    document(&folder.status())
}

/// What `status.json` says, with `lost` for the phase of a run whose head is gone without having ended it; `None` as long as
/// no head has written one.
pub(crate) fn snapshot(folder: &RunFolder) -> Result<Option<Value>, CliError> {
    let read = || document::<Value>(&folder.status());
    let Some(status) = read()? else { return Ok(None) };
    if !is_open(&status) || head_lives(folder) {
        return Ok(Some(status));
    }
    // It may have ended since it was read: a head writes its last word before it goes.
    let mut status = read()?.unwrap_or(status);
    if is_open(&status) {
        status["phase"] = json!("lost");
    }
    Ok(Some(status))
}

/// Whether a status is that of a run at work.
pub(crate) fn is_open(status: &Value) -> bool {
    matches!(status["phase"].as_str(), Some("running" | "cancelling" | "draining"))
}

/// `head.json`, if there is a valid one.
pub(crate) fn head_info(folder: &RunFolder) -> Option<HeadInfo> {
    document(&folder.head()).ok().flatten()
}

/// Whether the run's head is at work on this machine.
pub(crate) fn head_lives(folder: &RunFolder) -> bool {
    // A number may be another process's by now; the socket answers only where a head listens.
    head_info(folder).is_some_and(|info| is_alive(info.pid) && UnixStream::connect(&info.socket).is_ok())
}

/// The state that the journal tells. What was dropped of damaged ends is said on standard error.
pub(crate) fn state(folder: &RunFolder) -> Result<RunState, CliError> {
    let segments = journal::read_all(&folder.journal())?;
    for segment in &segments {
        if let Some((bytes, reason)) = &segment.dropped {
            let attempt = segment.attempt;
            output::note(format!(
                "the journal of attempt {attempt} is damaged: its last {bytes} bytes are dropped ({reason})"
            ));
        }
    }
    Ok(replay(&segments))
}

fn replay(segments: &[journal::Segment]) -> RunState {
    let mut state = RunState::new(true);
    let records = segments.iter().flat_map(|segment| &segment.records);
    records.for_each(|record| state.apply(record));
    state
}

/// Phase and message with which `attempt` or a later one ended, if it did.
pub(crate) fn end_of(folder: &RunFolder, attempt: u32) -> Result<Option<(String, String)>, CliError> {
    let state = replay(&journal::read_all(&folder.journal())?);
    Ok(state.ended.filter(|_| state.attempt >= attempt))
}

/// Names of a run's tasks by number.
pub(crate) struct Names {
    names: Vec<String>,
    /// Tasks that there are; those at the end may have no name.
    count: u64,
}

impl Names {
    pub(crate) fn read(folder: &RunFolder, state: &RunState) -> Result<Self, CliError> {
        Ok(Self::new(spec(folder)?.as_ref(), state))
    }

    pub(crate) fn new(spec: Option<&PipelineSpec>, state: &RunState) -> Self {
        let tasks = spec.into_iter().flat_map(|spec| &spec.tasks);
        let mut names: Vec<String> = tasks.map(|task| task.name.clone()).collect();
        for added in &state.added {
            let at = usize::try_from(added.task).unwrap_or(usize::MAX);
            if at == names.len() {
                names.push(added.name.clone());
            }
        }
        let count = names.len().max(state.tasks.len()) as u64;
        Self { names, count }
    }

    /// The name alone; `t<number>` where there is none.
    pub(crate) fn short(&self, task: u64) -> String {
        let name = usize::try_from(task).ok().and_then(|i| self.names.get(i));
        name.filter(|name| !name.is_empty())
            .map_or_else(|| format!("t{task}"), Clone::clone)
    }

    /// The name with the number.
    pub(crate) fn full(&self, task: u64) -> String {
        match self.short(task) {
            name if name == format!("t{task}") => name,
            name => format!("{name} (t{task})"),
        }
    }

    /// The tasks that `asked` means: a number (`3` or `t3`), a name, or the last part of a dotted one.
    pub(crate) fn find(&self, asked: &str) -> Result<BTreeSet<u64>, CliError> {
        if let Ok(task) = asked.strip_prefix('t').unwrap_or(asked).parse::<u64>() {
            let refused = || {
                CliError::new(
                    crate::error::NOT_FOUND,
                    format!("there is no task t{task}: {}", self.range()),
                )
            };
            return (task < self.count).then(|| BTreeSet::from([task])).ok_or_else(refused);
        }
        let by = |fits: &dyn Fn(&str) -> bool| -> BTreeSet<u64> {
            let named = self.names.iter().enumerate();
            named.filter(|(_, name)| fits(name)).map(|(i, _)| i as u64).collect()
        };
        let mut found = by(&|name| name == asked);
        if found.is_empty() {
            found = by(&|name| name.rsplit('.').next() == Some(asked));
        }
        if found.is_empty() {
            let message = format!("no task is named {asked:?}: {}", self.range());
            return Err(CliError::new(crate::error::NOT_FOUND, message));
        }
        Ok(found)
    }

    fn range(&self) -> String {
        match self.count {
            0 => "the run has no tasks".to_owned(),
            1 => format!("the run's only task is {}", self.full(0)),
            n => format!("the run's tasks are {} to {}", self.full(0), self.full(n - 1)),
        }
    }
}
