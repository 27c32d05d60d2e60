//! The journal on its way to the disk, beside the head's loop. Owns when it is synced; what is written is the journal's.

use crate::journal::Writer;
use std::time::Duration;

/// Syncs the journal to disk from a thread of its own, a few milliseconds apart: the loop never waits for the disk.
pub(crate) struct Syncer {
    sender: std::sync::mpsc::SyncSender<std::fs::File>,
    last: std::time::Instant,
}

impl Syncer {
    const EVERY: Duration = Duration::from_millis(5);

    pub(crate) fn start() -> Self {
        let (sender, receiver) = std::sync::mpsc::sync_channel::<std::fs::File>(1);
        std::thread::spawn(move || {
            while let Ok(file) = receiver.recv() {
                if let Err(error) = file.sync_data() {
                    tracing::error!(%error, "the journal cannot be synced to disk");
                }
            }
        });
        Self {
            sender,
            last: std::time::Instant::now(),
        }
    }

    pub(crate) fn offer(&mut self, journal: &mut Writer) {
        if self.last.elapsed() < Self::EVERY {
            return; // A later turn, or the end of the run, syncs it.
        }
        self.last = std::time::Instant::now();
        if let Some(file) = journal.take_dirty() {
            let _ = self.sender.try_send(file); // A full queue means that a sync is coming anyway.
        }
    }
}
