//! The journal: an append-only, checksummed, versioned log of everything that changes a run. Owns records and segments;
//! what the records mean for the run is `state.rs`.

mod record;
mod segment;

pub use record::{
    AgentJoined, AgentLost, Event, Record, RunEnded, RunStarted, TaskAdded, TaskAssigned, TaskCancelled, TaskFailed,
    TaskFinished, TaskPersisted, TaskReset,
};
pub use segment::{JournalError, Segment, VERSION, Writer, attempts, read_segment, segment_path};

use std::path::Path;

/// All segments of a journal folder, in order of attempts.
///
/// # Errors
/// A segment cannot be read, is foreign, or is of a newer version.
pub fn read_all(folder: &Path) -> Result<Vec<Segment>, JournalError> {
    attempts(folder)?
        .into_iter()
        .map(|attempt| read_segment(&segment_path(folder, attempt)))
        .collect()
}
