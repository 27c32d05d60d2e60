//! What processes of a pod write into the run folder's logs is said on its standard output as well, so that `kubectl logs` and
//! whatever collects the logs of pods see it. Owns which files, and how lines of tasks look there.

use crate::logs;
use serde_json::Value;
use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between looks.
const LOOK: Duration = Duration::from_millis(500);
/// Bytes of a file that are said at one look.
const MOST: u64 = 1 << 20;

/// A thread that repeats what is logged.
pub(crate) struct Echo {
    stop: Sender<()>,
    thread: JoinHandle<()>,
}

impl Echo {
    /// Repeats what the files of `logs` get from now on, as far as `mine` says, on `out`.
    pub(crate) fn start(logs: PathBuf, mine: fn(&str) -> bool, out: File) -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut echoes = Echoes {
                logs,
                mine,
                out,
                seen: HashMap::new(),
            };
            while stopped.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
                echoes.look();
            }
            echoes.look(); // Last words.
        });
        Self { stop, thread }
    }

    /// Repeats the last words and stops.
    pub(crate) fn stop(self) {
        drop(self.stop);
        let _ = self.thread.join();
    }
}

struct Echoes {
    logs: PathBuf,
    mine: fn(&str) -> bool,
    out: File,
    seen: HashMap<PathBuf, u64>,
}

impl Echoes {
    fn look(&mut self) {
        let Ok(entries) = std::fs::read_dir(&self.logs) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if (self.mine)(&name) {
                let path = entry.path();
                let bytes = logs::grown(&path, self.seen.entry(path.clone()).or_default(), MOST).unwrap_or_default();
                let text = if name.starts_with("tasks-") {
                    said(&bytes)
                } else {
                    bytes
                };
                let _ = self.out.write_all(&text); // Whoever does not read the pod's output does not stop its work.
            }
        }
    }
}

/// Lines of a task log as a person reads them: the task, and what it printed.
fn said(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for line in bytes.split(|&b| b == b'\n') {
        let Ok(entry) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        for text in entry["text"].as_str().unwrap_or("").lines() {
            out.extend_from_slice(format!("t{}: {text}\n", entry["task"]).as_bytes());
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn what_is_logged_is_said_once_and_what_tasks_print_with_its_task() {
        let dir = tempfile::tempdir().expect("a folder");
        let (read, write) = rustix::pipe::pipe().expect("a pipe");
        let echo = Echo::start(dir.path().to_owned(), |name| name != "other.log", File::from(write));
        let write = |name: &str, text: &str| {
            let mut file = File::options()
                .append(true)
                .create(true)
                .open(dir.path().join(name))
                .expect("a file");
            file.write_all(text.as_bytes()).expect("room");
        };
        write("other.log", "of another\n");
        write("head.log", "up\nnot yet who");
        write("tasks-0.jsonl", "{\"task\":3,\"text\":\"a\\nb\\n\"}\n");
        let mut lines = BufReader::new(File::from(read)).lines();
        let mut next = || lines.next().map(|line| line.expect("text"));
        let mut heard: Vec<_> = (0..3).filter_map(|_| next()).collect();
        heard.sort();
        assert_eq!(heard, ["t3: a", "t3: b", "up"]);
        write("head.log", "le\n");
        assert_eq!(next().as_deref(), Some("not yet whole"));
        echo.stop();
        assert_eq!(next(), None, "nothing is said twice");
    }
}
