//! The run folder where another machine has it. Owns the port to it and the threads that wait for it, so that the agent's own never
//! does.

use std::io;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// The head's run folder, for an agent that does not see it and has a folder of its own. Paths are relative to both. Calls block,
/// and several may be made at once.
pub trait FarFolder: Send + Sync {
    /// Brings a file here, whole or not at all; nothing if it is here.
    ///
    /// # Errors
    /// It cannot be had, or not be written.
    fn bring(&self, relative: &Path) -> io::Result<()>;

    /// Sends a file of the agent's folder there, whole or not at all.
    ///
    /// # Errors
    /// It cannot be read, or the other folder does not take it.
    fn send(&self, relative: &Path) -> io::Result<()>;
}

impl std::fmt::Debug for dyn FarFolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FarFolder")
    }
}

/// Files that are brought and sent at a time.
const MOVERS: usize = 4;

type Job = Box<dyn FnOnce(&dyn FarFolder) + Send>;

/// The far folder with the threads that wait for it. They end when this is gone and nothing is left to do.
#[derive(Clone)]
pub(crate) struct Far {
    folder: Arc<dyn FarFolder>,
    jobs: Sender<Job>,
}

impl Far {
    /// Starts the threads.
    ///
    /// # Errors
    /// There are none to be had.
    pub(crate) fn start(folder: Arc<dyn FarFolder>) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..MOVERS {
            let (queue, folder) = (queue.clone(), folder.clone());
            std::thread::Builder::new()
                .name("far-files".to_owned())
                .spawn(move || work(&queue, &*folder))?;
        }
        Ok(Self { folder, jobs })
    }

    /// The folder itself, for what is worth waiting for.
    pub(crate) fn folder(&self) -> &dyn FarFolder {
        &*self.folder
    }

    /// Does something with the folder on a thread that may wait.
    pub(crate) fn later(&self, job: impl FnOnce(&dyn FarFolder) + Send + 'static) {
        let _ = self.jobs.send(Box::new(job)); // The threads are there as long as this is.
    }
}

fn work(queue: &Mutex<Receiver<Job>>, folder: &dyn FarFolder) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match job {
            Ok(job) => job(folder),
            Err(_) => return,
        }
    }
}
