//! What tasks print, on its way to the agent: text that went past Python to the process's own descriptors is fetched from the
//! worker's log file, and all text is cut into messages of a bounded size, up to a limit for each task.
//! Hot path: `Printed::add`, once a task: no system call for a short task, unless such text was seen of late.

use bridgehead_wire::LogText;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// Longest text of one message.
const PIECE: usize = 1 << 20;
/// Most text that is kept of one task; a program's is bounded likewise.
const MOST: usize = 8 << 20;
/// After a call that took longer the file is looked at at once. What shorter ones write is found with the next look, and then
/// for some time after each call.
const WORTH_A_LOOK: Duration = Duration::from_micros(100);
/// Calls after which the file is looked at, once one has written there.
const CAREFUL: u32 = 1000;

/// Task and attempt.
type Call = (u64, u32);

/// What the present task and those before it printed.
#[derive(Debug, Default)]
pub struct Printed {
    below: Option<Below>,
    measure: Measure,
    /// The call that ended last, or runs.
    last: Option<Call>,
    careful: u32,
}

impl Printed {
    /// Follows the log file at `path` from its present end.
    pub fn follow(&mut self, path: &Path) {
        self.below = Below::open(path);
    }

    /// Hands on what `call`, which has run for `elapsed`, printed: `texts` through Python, the rest past it.
    pub fn add(&mut self, texts: Vec<LogText>, call: Call, elapsed: Duration, mut hand_on: impl FnMut(LogText)) {
        for text in texts {
            self.measure.cut(text, &mut hand_on);
        }
        self.last = Some(call);
        self.careful = self.careful.saturating_sub(1);
        if elapsed >= WORTH_A_LOOK || self.careful > 0 {
            self.look(&mut hand_on);
        }
    }

    /// Hands on what calls that have ended wrote past Python and was not looked for then.
    pub fn add_late(&mut self, mut hand_on: impl FnMut(LogText)) {
        self.look(&mut hand_on);
    }

    fn look(&mut self, hand_on: &mut impl FnMut(LogText)) {
        let Some((task, attempt)) = self.last else { return };
        if let Some(text) = self.below.as_mut().and_then(Below::take) {
            self.careful = CAREFUL;
            let stream = "output".to_owned();
            self.measure.cut(
                LogText {
                    task,
                    attempt,
                    stream,
                    text,
                },
                hand_on,
            );
        }
    }
}

/// Text that was written to descriptor 1 or 2 without Python's knowledge: both lead to the worker's log file.
#[derive(Debug)]
struct Below {
    file: File,
    seen: u64,
}

impl Below {
    fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let seen = file.metadata().ok()?.len();
        Some(Self { file, seen })
    }

    /// What was written since the last call, at most `MOST` bytes of it; the file keeps all.
    fn take(&mut self) -> Option<String> {
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
struct Measure {
    task: (u64, u32),
    bytes: usize,
}

impl Measure {
    /// Hands on `text` in pieces, as far as the limit allows, and says once that it was reached.
    fn cut(&mut self, text: LogText, hand_on: &mut impl FnMut(LogText)) {
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
