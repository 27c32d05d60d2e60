//! A word that outlives this process: the task that it runs. The agent reads it after a death, see `running_note`.
//! Hot path: `Note::set`, once a task: a store to shared memory, no system call.

use bridgehead_wire::WorkerConfig;
use rustix::mm::{MapFlags, ProtFlags, mmap};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

/// The word, mapped for as long as this process lives.
#[derive(Debug)]
pub struct Note(&'static AtomicU64);

impl Note {
    /// Makes the note of the worker that `config` is for.
    ///
    /// # Errors
    /// The system's word.
    #[allow(unsafe_code)]
    pub fn open(config: &WorkerConfig) -> io::Result<Self> {
        let folder = Path::new(&config.store_socket).parent().unwrap_or(Path::new("."));
        let path = bridgehead_spec::running_note(folder, config.worker);
        let mut options = OpenOptions::new();
        let mut file = options.read(true).write(true).create(true).truncate(true).open(path)?;
        file.write_all(&u64::MAX.to_le_bytes())?; // So that a full disk is noticed here and not at the first store.
        let (read_write, shared) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice, page-aligned, never unmapped. Only this process and its
        // agent can open the file (its folder has mode 0700), and the agent only reads and removes it.
        let word = unsafe {
            let page = mmap(
                std::ptr::null_mut(),
                size_of::<AtomicU64>(),
                read_write,
                shared,
                &file,
                0,
            )?;
            &*page.cast::<AtomicU64>()
        };
        Ok(Self(word))
    }

    /// This task runs now; those before it have ended.
    pub fn set(&self, task: u64) {
        self.0.store(task.to_le(), Ordering::Relaxed);
    }
}
