//! Runs whose nodes do not share this machine's file system: their folder here is a mirror of the one that the head has. Owns when
//! the mirror is brought up to date, and what is carried over to the head. How bytes go is `bridgehead-mirror`'s.

use crate::error::{CliError, UNREACHABLE};
use crate::target::{FarScheduler, Scheduler};
use crate::{launch, secrets, standing};
use bridgehead_backend::ledger::{self, LaunchRecord};
use bridgehead_backend::{JobRef, JobReport, JobState};
use bridgehead_mirror::{Credentials, Mirror, Wanted};
use bridgehead_spec::{RunConfig, RunFolder};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a pod that lends a kept folder may take to come up.
const READER_PATIENCE: Duration = Duration::from_secs(180);
/// Between looks for it.
const LOOK: Duration = Duration::from_millis(500);

/// What a look at the head brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Synced {
    /// All that was wanted is here.
    Here,
    /// The head cannot be reached, for this reason; what is here is as old as it is.
    NotUp(String),
}

/// The way to the head of a run, and the mirror of its folder.
pub(crate) struct Far {
    folder: RunFolder,
    config: RunConfig,
    scheduler: Box<dyn Scheduler>,
    link: Option<(u32, Mirror)>,
}

/// The way to a run's head; `None` where its nodes share this machine's file system.
///
/// # Errors
/// The scheduler cannot be spoken to.
pub(crate) fn of(folder: &RunFolder, config: &RunConfig) -> Result<Option<Far>, CliError> {
    if !is_far(config) {
        return Ok(None);
    }
    let Some(scheduler) = launch::scheduler_of(config)? else {
        return Ok(None);
    };
    Ok(Some(Far {
        folder: folder.clone(),
        config: config.clone(),
        scheduler,
        link: None,
    }))
}

/// Whether the nodes of a run do not share this machine's file system.
pub(crate) fn is_far(config: &RunConfig) -> bool {
    let backend = config.target.as_ref().map(|target| target.backend.as_str());
    backend == Some(bridgehead_kubernetes::NAME)
}

/// Brings the mirror of a run up to date as far as its head can be reached; nothing where there is no mirror, or all is here. Why a
/// folder that is kept could not be read just now: then what is here may not be the run's last word.
///
/// # Errors
/// What is here cannot be read or written.
pub(crate) fn refresh(folder: &RunFolder, config: &RunConfig, results: bool) -> Result<Option<String>, CliError> {
    if !is_far(config) || is_fetched(folder) || (!results && is_final_here(folder)) {
        return Ok(None);
    }
    // Whoever cannot reach the cluster still has what is here; how the run stands then says so.
    let Ok(Some(mut far)) = of(folder, config) else {
        return Ok(None);
    };
    match far.sync(results)? {
        Synced::NotUp(reason) if far.scheduler().keeps_folder() => Ok(Some(reason)),
        _ => Ok(None),
    }
}

/// The note that everything that the newest launch has left is here.
fn fetched_note(folder: &RunFolder, launch: u32) -> PathBuf {
    notes(folder).join(format!("{launch}.fetched"))
}

/// Whether everything that the newest launch has left is here.
pub(crate) fn is_fetched(folder: &RunFolder) -> bool {
    newest(folder).is_ok_and(|record| record.is_some_and(|record| fetched_note(folder, record.launch).exists()))
}

fn is_final_here(folder: &RunFolder) -> bool {
    standing::has_ended(folder).unwrap_or(false)
}

fn newest(folder: &RunFolder) -> Result<Option<LaunchRecord>, CliError> {
    Ok(ledger::read(folder)?.into_iter().next_back())
}

/// The bundle of a launch that has to be carried to its head because it is too large to travel otherwise.
pub(crate) fn pending_bundle(folder: &RunFolder, launch: u32) -> PathBuf {
    notes(folder).join(format!("{launch}.bundle"))
}

/// What this machine notes of the mirror; it never travels.
fn notes(folder: &RunFolder) -> PathBuf {
    folder.path().join("mirror")
}

/// Writes a note, and the folder that it is in.
fn note(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
    std::fs::write(path, bytes)
}

/// Keeps the bundle of a launch until it can be carried to its head.
pub(crate) fn keep_bundle(folder: &RunFolder, launch: u32, bundle: &[u8]) -> Result<(), CliError> {
    let path = pending_bundle(folder, launch);
    note(&path, bundle).map_err(|e| CliError::system("write", &path, &e))
}

impl Far {
    /// What the scheduler can do for such runs.
    fn scheduler(&self) -> &dyn FarScheduler {
        self.scheduler.far().expect("only such schedulers are opened here")
    }

    /// Brings what is new at the head, and carries over what lies here for it. With `results` their values come too, and a head
    /// whose run has ended is let go.
    ///
    /// # Errors
    /// What is here cannot be read or written.
    pub(crate) fn sync(&mut self, results: bool) -> Result<Synced, CliError> {
        let Some(record) = newest(&self.folder)? else {
            return Ok(Synced::NotUp("the run was never handed over".to_owned()));
        };
        if fetched_note(&self.folder, record.launch).exists() {
            return Ok(Synced::Here);
        }
        let Some(job) = record.job.clone() else {
            return Ok(Synced::NotUp("whether its job is there is not known".to_owned()));
        };
        match self.exchange(&record, &job, results) {
            Ok(()) => Ok(Synced::Here),
            Err(reason) => {
                self.link = None; // A link that broke is made anew the next time.
                self.through_reader(&record, &job, results, reason)
            }
        }
    }

    fn exchange(&mut self, record: &LaunchRecord, job: &JobRef, results: bool) -> Result<(), String> {
        let said = |e: std::io::Error| e.to_string();
        if self.link.as_ref().is_none_or(|(launch, _)| *launch != record.launch) {
            let stream = self.scheduler().dial(job).map_err(|e| e.to_string())?;
            let client = Credentials::read(&secrets::folder_of(&self.folder, record.launch), "client").map_err(said)?;
            self.link = Some((record.launch, Mirror::connect(stream, &client).map_err(said)?));
        }
        let (_, mirror) = self.link.as_ref().expect("it was made just now");
        carry_over(&self.folder, record.launch, mirror).map_err(said)?;
        mirror.pull(&self.folder, Wanted { results: false }).map_err(said)?;
        if results {
            // Twice, because a run may end between the two: then its last results are there as well.
            let over = is_final_here(&self.folder);
            mirror.pull(&self.folder, Wanted { results: true }).map_err(said)?;
            if over {
                note(&fetched_note(&self.folder, record.launch), b"").map_err(said)?;
                mirror.collected().map_err(said)?;
            }
        }
        Ok(())
    }

    /// A run folder that was kept is lent by a pod of its own, once the job that wrote it is over.
    fn through_reader(
        &mut self,
        record: &LaunchRecord,
        job: &JobRef,
        results: bool,
        reason: String,
    ) -> Result<Synced, CliError> {
        if !self.scheduler().keeps_folder() || is_final_here(&self.folder) && !results {
            return Ok(Synced::NotUp(reason));
        }
        let over = |report: &JobReport| matches!(report.state, JobState::Ended | JobState::Unknown);
        let seen = self.scheduler.observe(std::slice::from_ref(job));
        if !seen.is_ok_and(|reports| reports.iter().all(over)) {
            return Ok(Synced::NotUp(reason));
        }
        let launch = reader_launch(record.launch);
        let request = launch::request_of(&self.folder, &self.config, launch, record.gang)?;
        let reader = self.scheduler().submit_reader(&request)?;
        let read = self.read_through(record, launch, &reader, results);
        self.scheduler.cancel(&reader)?;
        read
    }

    fn read_through(
        &mut self,
        record: &LaunchRecord,
        launch: u32,
        reader: &JobRef,
        results: bool,
    ) -> Result<Synced, CliError> {
        let end = Instant::now() + READER_PATIENCE;
        loop {
            let as_reader = LaunchRecord {
                launch,
                ..record.clone()
            };
            match self.exchange(&as_reader, reader, results) {
                Ok(()) => {
                    self.link = None;
                    let note = fetched_note(&self.folder, launch);
                    if note.exists() {
                        let here = fetched_note(&self.folder, record.launch);
                        std::fs::rename(&note, &here).map_err(|e| CliError::system("write", &here, &e))?;
                    }
                    return Ok(Synced::Here);
                }
                Err(reason) if Instant::now() > end => {
                    self.link = None;
                    let message = format!("the pod that is to lend the run's volume does not come up: {reason}");
                    return Err(CliError::new(UNREACHABLE, message));
                }
                Err(_) => self.link = None,
            }
            std::thread::sleep(LOOK); // Kubernetes tells when a pod runs, and not when a process in it listens.
        }
    }

    /// Syncs until the run has its end here, at most for `limit`; whether it has.
    ///
    /// # Errors
    /// What is here cannot be read or written.
    pub(crate) fn until_over(&mut self, limit: Duration) -> Result<bool, CliError> {
        let end = Instant::now() + limit;
        loop {
            self.sync(false)?;
            if is_final_here(&self.folder) {
                self.sync(true)?;
                return Ok(true);
            }
            if Instant::now() > end {
                return Ok(false);
            }
            std::thread::sleep(LOOK); // The head is asked; it tells nobody by itself.
        }
    }

    /// Carries a bundle over that could not travel with the job: waits until its gang has started.
    ///
    /// # Errors
    /// What is here cannot be read or written.
    pub(crate) fn until_carried(&mut self, launch: u32) -> Result<(), CliError> {
        while pending_bundle(&self.folder, launch).exists() {
            if let Synced::NotUp(reason) = self.sync(false)? {
                tracing::debug!(reason, "the bundle waits");
            }
            std::thread::sleep(LOOK); // Until the gang has its nodes.
        }
        Ok(())
    }
}

/// Removes what submissions of this run have left in its cluster that never came to be: their client was killed in the middle. What
/// was removed; nothing where the cluster cannot be asked, for it may be asked another time.
pub(crate) fn sweep(folder: &RunFolder) -> Vec<String> {
    let config = crate::folder::config(folder).ok().filter(is_far);
    let records = ledger::read(folder).unwrap_or_default();
    let open = |record: &&LaunchRecord| record.job.is_none() && launch::is_stale(record);
    let Some(config) = config.filter(|_| records.iter().any(|record| open(&record))) else {
        return Vec::new();
    };
    let Ok(Some(far)) = of(folder, &config) else {
        return Vec::new();
    };
    let requests = records.iter().filter(open).filter_map(|record| {
        let request = launch::request_of(folder, &config, record.launch, record.gang).ok()?;
        let there = far.scheduler.find(&request, None).ok()?;
        there.is_none().then_some(request) // A job that came to be is what `resume` finds.
    });
    let swept = requests.filter_map(|request| far.scheduler().sweep(&request).ok());
    swept.flatten().collect()
}

/// What the scheduler itself kept of what a run's newest job printed.
///
/// # Errors
/// The scheduler cannot be spoken to, or keeps nothing.
pub(crate) fn kept_logs(folder: &RunFolder, config: &RunConfig) -> Result<String, CliError> {
    let far = of(folder, config)?;
    let job = newest(folder)?.and_then(|record| record.job);
    match (far, job) {
        (Some(far), Some(job)) => Ok(far.scheduler().logs(&job)?),
        _ => Ok(String::new()),
    }
}

/// The number under which a reader's secrets lie: no launch has it.
fn reader_launch(launch: u32) -> u32 {
    1_000_000 + launch
}

/// A bundle and requests of clients that lie here for the head.
fn carry_over(folder: &RunFolder, launch: u32, mirror: &Mirror) -> std::io::Result<()> {
    let bundle = pending_bundle(folder, launch);
    if bundle.exists() {
        mirror.upload_bundle(&bundle)?;
        std::fs::remove_file(&bundle)?;
    }
    let Ok(entries) = std::fs::read_dir(folder.mailbox()) else {
        return Ok(());
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if let Ok(relative) = path.strip_prefix(folder.path()) {
            mirror.push(folder, relative)?;
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// `bridgehead mirror`.
pub(crate) fn mirror(args: &crate::args::Mirror) -> Result<u8, CliError> {
    let folder = RunFolder::new(&args.run_dir);
    let config = crate::folder::config(&folder)?;
    let Some(mut far) = of(&folder, &config)? else {
        return Ok(crate::error::OK);
    };
    if args.once {
        return match far.sync(true)? {
            Synced::Here => Ok(crate::error::OK),
            Synced::NotUp(reason) => Err(CliError::new(
                UNREACHABLE,
                format!("what the run left cannot be had: {reason}"),
            )),
        };
    }
    let (ended, end) = std::sync::mpsc::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        drop(ended); // Whoever started this is gone.
    });
    let mut pause = Duration::from_secs(1);
    loop {
        let here = far.sync(true)?;
        if is_fetched(&folder) {
            return Ok(crate::error::OK);
        }
        // A gang that waits in a queue is asked for ever more rarely.
        pause = match here {
            Synced::Here => Duration::from_secs(1),
            Synced::NotUp(_) => (pause * 3 / 2).min(Duration::from_secs(10)),
        };
        if end.recv_timeout(pause) != Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            return Ok(crate::error::OK);
        }
    }
}
