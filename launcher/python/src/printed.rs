//! What tasks print, on its way to the agent: text that went past Python to the process's own descriptors is fetched from the
//! worker's log file, and all text is cut into messages of a bounded size, up to a limit for each task.
//! Hot path: `Below::take`, once a task (one system call).

use bridgehead_wire::LogText;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Longest text of one message.
const PIECE: usize = 1 << 20;
/// Most text that is kept of one task; a program's is bounded likewise.
const MOST: usize = 8 << 20;

/// Text that was written to descriptor 1 or 2 without Python's knowledge: both lead to the worker's log file.
#[derive(Debug)]
pub struct Below {
    file: File,
    seen: u64,
}

impl Below {
    /// Follows the log file at `path` from its present end.
    pub fn open(path: &std::path::Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let seen = file.metadata().ok()?.len();
        Some(Self { file, seen })
    }

    /// What was written since the last call, at most `MOST` bytes of it; the file keeps all.
    pub fn take(&mut self) -> Option<String> {
        let len = self.file.metadata().ok()?.len();
        let new = len.saturating_sub(std::mem::replace(&mut self.seen, len));
        if new == 0 {
            return None;
        }
        let mut bytes = vec![0; usize::try_from(new).unwrap_or(MOST).min(MOST)];
        self.file.read_exact_at(&mut bytes, len - new).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// How much the present task has printed.
#[derive(Debug, Default)]
pub struct Measure {
    task: (u64, u32),
    bytes: usize,
}

impl Measure {
    /// Hands on `text` in pieces, as far as the limit allows, and says once that it was reached.
    pub fn cut(&mut self, text: LogText, mut hand_on: impl FnMut(LogText)) {
        if self.task != (text.task, text.attempt) {
            *self = Self {
                task: (text.task, text.attempt),
                bytes: 0,
            };
        }
        let LogText {
            task,
            attempt,
            stream,
            text,
        } = text;
        let mut piece = |text: &str| {
            hand_on(LogText {
                task,
                attempt,
                stream: stream.clone(),
                text: text.to_owned(),
            });
        };
        let mut rest = text.as_str();
        while !rest.is_empty() && self.bytes < MOST {
            let (now, later) = rest.split_at(rest.floor_char_boundary(PIECE.min(MOST - self.bytes).max(4)));
            piece(now);
            self.bytes += now.len();
            rest = later;
            if self.bytes >= MOST {
                piece(&format!(
                    "\n[bridgehead: more than {MOST} bytes printed; the rest is not logged]\n"
                ));
            }
        }
    }
}
