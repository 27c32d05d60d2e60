//! Files of the run folder that calls, workers and the head want here or there, where another machine has the folder: brought
//! before whoever needs them hears of them, sent before the head hears of them.

use super::{Agent, Event};
use crate::calls::Waiting;
use bridgehead_wire::{
    Failure, FailureCause, HeadToAgent, Outcome, Persist, Persisted, TaskCall, Value, outcome, value,
};
use std::path::{Component, Path, PathBuf};

/// What waits for files.
pub(super) enum Wanting {
    /// A call that is held back: task and attempt.
    Call(u64, u32),
    /// Word of the head for a worker.
    Word(HeadToAgent),
}

/// Whether a path leads to a file inside the run folder.
fn is_inside(path: &str) -> bool {
    let mut parts = Path::new(path).components();
    !path.is_empty() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// The file that a value lies in.
fn file_of(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(value::Kind::File(file)) => Some(&file.path),
        _ => None,
    }
}

/// What a worker gets to know by a word of the head.
fn outcome_of(word: &mut HeadToAgent) -> Option<&mut Outcome> {
    match word {
        HeadToAgent::Outcome(message) => message.outcome.as_mut(),
        HeadToAgent::Name(message) => message.outcome.as_mut(),
        HeadToAgent::Located(message) => message.outcome.as_mut(),
        _ => None,
    }
}

fn lost(reason: &str) -> Outcome {
    let message = format!("a value in a file of the run folder cannot be had on this node: {reason}");
    Outcome::failure(Failure::new(FailureCause::LostNode, "object-lost", message))
}

impl Agent {
    /// Those of a call's files that are not here.
    pub(super) fn missing_files(&self, call: &TaskCall) -> Vec<PathBuf> {
        if self.far.is_none() {
            return Vec::new();
        }
        let values = call.args.iter().chain(&call.inputs);
        let mut missing: Vec<PathBuf> = values.filter_map(|value| self.missing_file(value)).collect();
        missing.sort_unstable();
        missing.dedup();
        missing
    }

    /// The file that a value lies in, if it is not here. Who reads one outside the folder sees to it, and is refused.
    fn missing_file(&self, value: &Value) -> Option<PathBuf> {
        let path = file_of(value).filter(|path| is_inside(path))?;
        let there = self.options.folder.path().join(path).exists();
        (!there).then(|| PathBuf::from(path))
    }

    /// Brings files for whoever waits for them.
    pub(super) fn bring_files(&self, files: Vec<PathBuf>, wanting: Wanting) {
        let Some(far) = &self.far else { return };
        let events = self.events.clone();
        far.later(move |folder| {
            let bring = |file: &PathBuf| folder.bring(file).map_err(|e| format!("{}: {e}", file.display()));
            let brought = files.iter().try_for_each(bring);
            let _ = events.send(Event::Brought(wanting, brought)); // The loop is gone only at the end.
        });
    }

    /// A word of the head that names no file that is still elsewhere; it is kept until then.
    pub(super) fn with_files(&self, mut word: HeadToAgent) -> Option<HeadToAgent> {
        if self.far.is_none() {
            return Some(word);
        }
        let missing = outcome_of(&mut word).and_then(|outcome| match &outcome.kind {
            Some(outcome::Kind::Value(value)) => self.missing_file(value),
            _ => None,
        });
        match missing {
            None => Some(word),
            Some(file) => {
                self.bring_files(vec![file], Wanting::Word(word));
                None
            }
        }
    }

    /// Files are here, or cannot be had.
    pub(super) fn on_brought(&mut self, wanting: Wanting, brought: Result<(), String>) {
        match (wanting, brought) {
            (Wanting::Call(task, attempt), Ok(())) => {
                if let Some(call) = self.transfers.one_less(task, attempt) {
                    self.queue.push_back(Waiting::new(call, self.options.agent.0));
                }
            }
            (Wanting::Call(task, attempt), Err(reason)) => {
                if self.transfers.held_attempt(task) == Some(attempt) {
                    if let Some(call) = self.transfers.release(task) {
                        self.report(&call, lost(&reason));
                    }
                }
            }
            (Wanting::Word(word), Ok(())) => self.on_word(word),
            (Wanting::Word(mut word), Err(reason)) => {
                if let Some(outcome) = outcome_of(&mut word) {
                    *outcome = lost(&reason);
                }
                self.on_word(word);
            }
        }
    }

    /// Writes an object into the run folder, never outside it; where another machine has that folder, into both.
    pub(super) fn on_persist(&self, persist: Persist) {
        let Persist { task, object, path } = persist;
        let events = self.events.clone();
        let answer = {
            let path = path.clone();
            move |written: Result<u64, String>| {
                let (error, len) = written.map_or_else(|error| (error, 0), |len| (String::new(), len));
                let _ = events.send(Event::Persisted(Persisted { task, error, path, len }));
            }
        };
        match object {
            Some(object) if is_inside(&path) => {
                let local = self.options.folder.path().join(&path);
                let far = self.far.clone();
                let written = move |written: Result<u64, String>| match (written, far) {
                    (Ok(len), Some(far)) => far.later(move |folder| answer(sent(folder, &path, len))),
                    (written, _) => answer(written),
                };
                self.store.persist(object.id(), &local, Box::new(written));
            }
            Some(_) => answer(Err(format!("{path:?} is no path inside the run folder"))),
            None => answer(Err("the request names no object".to_owned())),
        }
    }
}

/// Sends a file of `len` bytes, which is what was written.
fn sent(folder: &dyn crate::FarFolder, path: &str, len: u64) -> Result<u64, String> {
    let sent = folder.send(Path::new(path));
    sent.map(|()| len)
        .map_err(|e| format!("{path} was written on its node and could not be sent to the run folder: {e}"))
}

#[cfg(test)]
mod tests {
    use super::is_inside;

    #[test]
    fn a_file_is_inside_the_folder_or_nothing() {
        assert!(is_inside("results/1.bhv") && is_inside("blobs/a"));
        for path in ["", "/etc/passwd", "../x", "results/../../x", "./x"] {
            assert!(!is_inside(path), "{path}");
        }
    }
}
