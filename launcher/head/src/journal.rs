//! The journal: an append-only, checksummed, versioned log of everything that changes a run. Owns records and segments;
//! what the records mean for the run is `state.rs`.

mod record;
mod segment;

pub use record::{
    AgentJoined, AgentLost, Event, ObjectPersisted, Record, RunEnded, RunPaused, RunStarted, TaskAdded, TaskAssigned,
    TaskCancelled, TaskFailed, TaskFinished, TaskPersisted, TaskReset,
};
pub use segment::{JournalError, Segment, VERSION, Writer, attempts, read_segment, segment_path};

use std::path::Path;

/// All segments of a journal folder, in order of attempts, each without what its head appended after the next had begun.
///
/// # Errors
/// A segment cannot be read, is foreign, or is of a newer version.
pub fn read_all(folder: &Path) -> Result<Vec<Segment>, JournalError> {
    let read = |attempt| read_segment(&segment_path(folder, attempt));
    let mut segments = attempts(folder)?.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    cut_superseded(&mut segments);
    Ok(segments)
}

/// A head whose node was cut off goes on until it notices that another one took over. What it appended meanwhile is not what
/// the other began from, and would give its numbers to other tasks.
fn cut_superseded(segments: &mut [Segment]) {
    let mut before = 0; // Records of the segments before `last`.
    for at in 1..segments.len() {
        let (earlier, later) = segments.split_at_mut(at);
        let Some(last) = earlier.last_mut() else { continue };
        if let Some(replayed) = later.first().and_then(Segment::replayed) {
            last.records
                .truncate(usize::try_from(replayed.saturating_sub(before)).unwrap_or(usize::MAX));
        }
        before += last.records.len() as u64;
    }
}
