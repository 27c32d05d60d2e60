//! What tasks print: one JSON object a line in `logs/tasks-<agent>.jsonl`. Owns the file and its form.

use bridgehead_spec::RunFolder;
use bridgehead_wire::LogText;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The log of one agent's tasks.
#[derive(Debug)]
pub(crate) struct TaskLog {
    file: Option<BufWriter<File>>,
}

impl TaskLog {
    /// Opens the log; where that fails, tasks run without one and the reason is in the agent's log.
    pub(crate) fn open(folder: &RunFolder, agent: u32) -> Self {
        let path = folder.logs().join(format!("tasks-{agent}.jsonl"));
        let file = OpenOptions::new().append(true).create(true).open(&path);
        if let Err(error) = &file {
            tracing::warn!(path = %path.display(), %error, "cannot keep what tasks print");
        }
        Self {
            file: file.ok().map(BufWriter::new),
        }
    }

    /// Adds a text.
    pub(crate) fn add(&mut self, text: &LogText) {
        let Some(file) = &mut self.file else { return };
        let t = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
        let line = json!({
            "t": u64::try_from(t).unwrap_or(0), "task": text.task, "attempt": text.attempt,
            "stream": text.stream, "text": text.text,
        });
        let _ = writeln!(file, "{line}"); // A full disk must not end the task; the flush reports it.
    }

    /// Hands what was added to the kernel.
    pub(crate) fn flush(&mut self) {
        if let Some(Err(error)) = self.file.as_mut().map(Write::flush) {
            tracing::warn!(%error, "cannot write what tasks print");
            self.file = None;
        }
    }
}

/// The last lines of a file, for error messages.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let bytes = last_bytes(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

fn last_bytes(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(8 << 10)))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
