//! A run begins: the pipeline becomes jobs, what earlier attempts finished stays finished.

use super::job::Persist;
use super::{Core, Job, Submitter};
use crate::journal::{Event, TaskReset};
use crate::state::{AddedTask, End, Phase};
use bridgehead_spec::{CallSpec, CheckedPipeline, Digest, PersistSpec, RunFolder, TaskSpec};
use bridgehead_wire::{
    Amounts, Failure, FailureCause, FileRef, Input, Pair, ProgramCall, Ranks, Retry, TaskSubmit, Value, input,
};
use bytes::Bytes;
use std::path::PathBuf;
use thiserror::Error;

/// Why a pipeline could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// `spec.json` is not a pipeline.
    #[error("the run's pipeline {path} is refused: {source}")]
    Spec {
        /// The file.
        path: PathBuf,
        /// Why.
        source: bridgehead_spec::SpecError,
    },
    /// A file of the run folder was changed.
    #[error("{path} of the run folder is damaged: its bytes do not match its name; run the pipeline again")]
    Damaged {
        /// The file.
        path: PathBuf,
    },
    /// A file of the run folder cannot be read.
    #[error("cannot read {path} of the run folder: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
}

fn read(path: PathBuf) -> Result<Vec<u8>, LoadError> {
    std::fs::read(&path).map_err(|source| LoadError::Io { path, source })
}

impl Core {
    /// Reads the pipeline (if the run has one), writes the first record of `attempt` and lets everything wait that has no
    /// usable value.
    ///
    /// # Errors
    /// The pipeline or one of its blobs cannot be read.
    pub fn load(&mut self, folder: &RunFolder, attempt: u32) -> Result<(), LoadError> {
        let mut tasks = 0;
        if self.config.has_pipeline {
            let path = folder.spec();
            let bytes = read(path.clone())?;
            let pipeline = CheckedPipeline::parse(&bytes).map_err(|source| LoadError::Spec { path, source })?;
            tasks = pipeline.tasks().len() as u64;
            self.learn_pipeline(&pipeline, folder, attempt > 1)?; // What the client wrote just now is right.
            self.pipeline = Some(pipeline);
        }
        self.pipeline_tasks = tasks;
        let replayed = self.state.records;
        self.record(crate::run::run_started(&self.config, attempt, tasks, replayed));
        self.added = std::mem::take(&mut self.state_mut().added)
            .into_iter()
            .map(|a| (a.task, a))
            .collect();
        let digests: Vec<_> = self
            .added
            .values()
            .map(|a| (a.function.clone(), a.name.clone()))
            .collect();
        for (digest, name) in digests {
            if let Ok(digest) = digest.as_slice().try_into() {
                self.functions.add(Digest(digest), &name, Bytes::new());
            }
        }
        self.restore();
        Ok(())
    }

    fn learn_pipeline(
        &mut self,
        pipeline: &CheckedPipeline,
        folder: &RunFolder,
        verify: bool,
    ) -> Result<(), LoadError> {
        for (digest, function) in pipeline.functions() {
            self.functions.add(*digest, &function.name, Bytes::new());
        }
        for task in pipeline.tasks() {
            if let CallSpec::Function {
                args_blob: Some(digest),
                ..
            } = &task.call
            {
                let path = folder.blob(digest);
                if verify && Digest::of(&read(path.clone())?) != *digest {
                    return Err(LoadError::Damaged { path });
                }
                let found = std::fs::metadata(&path).map_err(|source| LoadError::Io { path, source })?;
                self.blobs.insert(*digest, found.len());
            }
        }
        self.kept = pipeline.keep().iter().map(|id| id.0).collect();
        Ok(())
    }

    /// Decides for each task of earlier attempts whether its value can be used; the others wait again.
    fn restore(&mut self) {
        let all = self.state.tasks.len() as u64;
        // A scheduler that starts the next attempt by itself goes on with this one; a user who resumes asks for another try.
        let keeps = self.state.continues && self.allocation.is_some();
        let mut waiting = Vec::new();
        for task in 0..all {
            let Some(row) = self.state.row(task) else { continue };
            let usable = match (&row.phase, &row.end) {
                (Phase::Finished, End::Value(value)) => value.object().is_none() || row.persisted.is_some(),
                _ => false,
            };
            if usable {
                continue;
            }
            if row.phase == Phase::Finished {
                // Brought back only when someone takes it: `need` looks here.
                self.lost_values.insert(task);
                if !self.kept.contains(&task) {
                    continue;
                }
                self.lost_values.remove(&task);
            }
            if keeps && row_is_final(&self.state, task) && row.phase != Phase::Finished {
                continue;
            }
            if row_is_final(&self.state, task) {
                let reason = "it has no usable value from earlier attempts".to_owned();
                self.record(Event::TaskReset(TaskReset { task, reason }));
            }
            waiting.push(task);
        }
        self.own_failures = self.count_own_failures();
        for &task in &waiting {
            if let Some(job) = self.rebuild(task) {
                self.put_job(task, job);
            }
        }
        for task in self.in_order(waiting) {
            let guarded = self.allocation.is_some(); // A user who resumes has looked, and wants another try.
            if guarded && self.state.row(task).is_some_and(|row| row.losses >= MOST_LOSSES) {
                self.finish_failed(task, poison());
            } else {
                self.enter(task);
            }
        }
    }

    /// Those that stay failed from earlier attempts.
    fn count_own_failures(&self) -> u32 {
        let own = self.state.tasks.iter().filter(|row| match &row.end {
            End::Failure(failure) => row.phase == Phase::Failed && failure.root.is_none(),
            _ => false,
        });
        u32::try_from(own.count()).unwrap_or(u32::MAX)
    }

    /// `tasks` with every dependency before its dependents.
    pub(super) fn in_order(&self, mut tasks: Vec<u64>) -> Vec<u64> {
        let Some(pipeline) = &self.pipeline else { return tasks };
        let mut rank = vec![u64::MAX; tasks.iter().max().map_or(0, |&t| t as usize + 1)];
        for (position, id) in pipeline.topological_order().iter().enumerate() {
            if let Some(slot) = rank.get_mut(id.0 as usize) {
                *slot = position as u64;
            }
        }
        // Added tasks only depend on what was there before them, so their own ids order them behind the pipeline.
        tasks.sort_by_key(|&task| (rank.get(task as usize).copied().unwrap_or(u64::MAX), task));
        tasks
    }

    /// The job of a task that must run (again).
    pub(super) fn rebuild(&self, task: u64) -> Option<Job> {
        if task < self.pipeline_tasks {
            let spec = self.pipeline.as_ref()?.tasks().get(usize::try_from(task).ok()?)?;
            return Some(self.pipeline_job(spec));
        }
        let added: &AddedTask = self.added.get(&task)?;
        let submit = added.submit.clone()?;
        let digest = Digest(added.function.as_slice().try_into().unwrap_or([0; 32]));
        let function = self.functions.index(&digest).unwrap_or(u32::MAX);
        Some(Job::new(
            TaskSubmit {
                name: added.name.clone(),
                ..submit
            },
            function,
            Submitter::Pipeline,
        ))
    }

    fn pipeline_job(&self, spec: &TaskSpec) -> Job {
        let (function, args, program) = match &spec.call {
            CallSpec::Function {
                digest,
                args,
                args_blob,
            } => {
                let function = self.functions.index(digest).unwrap_or(u32::MAX);
                let args = match args_blob {
                    // Workers read it from the run folder: the head need not carry it.
                    Some(digest) => Value::file(FileRef {
                        path: format!("blobs/{digest}"),
                        len: self.blobs.get(digest).copied().unwrap_or(0),
                    }),
                    None => Value::inline(Bytes::copy_from_slice(args)),
                };
                (function, Some(args), None)
            }
            CallSpec::Program(program) => (u32::MAX, None, Some(program_call(program))),
        };
        let r = spec.retries;
        Job {
            function,
            priority: spec.priority,
            args,
            inputs: spec
                .inputs
                .iter()
                .map(|id| Input {
                    kind: Some(input::Kind::Task(id.0)),
                    lazy: false,
                })
                .collect(),
            after: spec.after.iter().map(|id| id.0).collect(),
            program,
            resources: Some(Amounts::from(&spec.resources)),
            timeout_ms: spec.timeout_ms.unwrap_or(0),
            name: spec.name.clone(),
            retry: Retry {
                lost_node: r.lost_node,
                preempted: r.preempted,
                walltime: r.walltime,
                oom: r.oom,
                user: r.user,
            },
            submitter: Submitter::Pipeline,
            consumers: 0,
            keep: self.kept.contains(&spec.id.0),
            persist: match spec.persist {
                PersistSpec::Auto => Persist::Auto,
                PersistSpec::Always => Persist::Always,
                PersistSpec::Never => Persist::Never,
            },
            cancelling: None,
            holds_inputs: false,
            ranks: spec.ranks.as_ref().map(Ranks::from),
        }
    }

    /// The value of a finished task as it can be had now: its object's present place, or its file of the run folder.
    pub(super) fn present(&self, task: u64, value: &Value) -> Value {
        let Some(object) = value.object() else {
            return value.clone();
        };
        if let Some(place) = self.objects.locate(object.id()) {
            return Value::stored(place.clone());
        }
        match self.state.row(task).and_then(|row| row.persisted.as_deref()) {
            Some(path) => Value::file(FileRef {
                path: path.to_owned(),
                len: object.len,
            }),
            None => value.clone(),
        }
    }
}

/// Attempts at the run in a row that may be lost while a task runs in them, before it is taken for the reason.
const MOST_LOSSES: u8 = 5;

fn poison() -> Failure {
    let message = format!(
        "it was running in {MOST_LOSSES} attempts in a row whose head or node went down, and may be why: look at the nodes' logs, or ask for more memory, and resume the run"
    );
    Failure::new(FailureCause::LostNode, "poison", message)
}

fn row_is_final(state: &crate::state::RunState, task: u64) -> bool {
    state.row(task).is_some_and(|row| row.phase.is_final())
}

fn program_call(spec: &bridgehead_spec::ProgramSpec) -> ProgramCall {
    let pairs = |map: &std::collections::BTreeMap<String, String>| {
        map.iter()
            .map(|(k, v)| Pair {
                key: k.clone(),
                value: v.clone(),
            })
            .collect()
    };
    ProgramCall {
        argv: spec.argv.clone(),
        env: pairs(&spec.env),
        cwd: spec.cwd.clone().unwrap_or_default(),
        outputs: pairs(&spec.outputs),
    }
}
