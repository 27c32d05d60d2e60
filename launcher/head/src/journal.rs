//! The journal: an append-only, checksummed, versioned log of everything that changes a run. Owns records and segments;
//! what the records mean for the run is `state.rs`.

mod record;
mod segment;

pub use record::{
    AgentJoined, AgentLost, Event, GangStarted, ObjectPersisted, Record, RunEnded, RunPaused, RunStarted, TaskAdded,
    TaskAssigned, TaskCancelled, TaskFailed, TaskFinished, TaskPersisted, TaskReset,
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

/// Writes the end of a run that no head can write any more, as an attempt of its own; its number. A head that comes to life
/// again finds that it has been superseded.
///
/// # Errors
/// The journal cannot be read or written, or a head has begun at this moment.
pub fn write_end(
    folder: &Path,
    run: &bridgehead_spec::RunId,
    tasks: u64,
    end: RunEnded,
    now_ns: u64,
) -> Result<u32, JournalError> {
    let replayed = read_all(folder)?
        .iter()
        .map(|segment| segment.records.len() as u64)
        .sum();
    let attempt = attempts(folder)?.last().copied().unwrap_or(0) + 1;
    let mut writer = Writer::create(folder, attempt)?;
    let started = RunStarted {
        run: run.to_string(),
        attempt,
        tasks,
        writer: env!("CARGO_PKG_VERSION").to_owned(),
        replayed: Some(replayed),
    };
    for event in [Event::RunStarted(started), Event::RunEnded(end)] {
        writer.push(&Record {
            time_ns: now_ns,
            event: Some(event),
        });
    }
    writer.commit()?;
    writer.sync()?;
    Ok(attempt)
}
