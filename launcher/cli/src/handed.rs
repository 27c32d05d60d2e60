//! `cancel`, `resume` and `watch` for runs that were handed to a scheduler: through the run folder and the scheduler, since
//! their head may be out of reach, or not begun.

use crate::args::{Cancel, OneRun, Resume, Target};
use crate::error::{CliError, HEAD, OK, RUN_FAILED};
use crate::far::{self, Far};
use crate::launch::{self, Launcher};
use crate::looks::Looks;
use crate::standing::{self, Job, Standing};
use crate::target::{self, Scheduler};
use crate::{folder, output, runs};
use bridgehead_backend::JobState;
use bridgehead_backend::ledger::{self, LaunchRecord};
use bridgehead_head::journal::{self, RunEnded};
use bridgehead_head::mailbox;
use bridgehead_head::state::Phase;
use bridgehead_local::Client;
use bridgehead_spec::{RunConfig, RunFolder, TaskId};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long a head has to wind its run up once it is told to, before its jobs are ended from outside.
const PATIENCE: Duration = Duration::from_secs(20);
/// And how long a scheduler may take to end a job.
const KILL_PATIENCE: Duration = Duration::from_secs(90);
/// Between looks at the run folder.
const LOOK: Duration = Duration::from_millis(200);

/// `bridgehead cancel`. Comes back when no job of the run is left, or says what is.
pub(crate) fn cancel(args: &Cancel, folder: &RunFolder, config: &RunConfig) -> Result<u8, CliError> {
    let run = folder::run_id(folder);
    let standing = standing::of(folder)?;
    if standing.is_over() {
        let phase = standing.phase();
        return Err(CliError::new(
            HEAD,
            format!("there is nothing to cancel: the run is {phase}"),
        ));
    }
    let Some((scheduler, jobs)) = standing::open_jobs(folder, config)? else {
        unreachable!("a run that was handed over has a scheduler");
    };
    let told = if jobs.iter().any(is_running) {
        tell_head(folder, &args.reason)?
    } else {
        "ended at its scheduler"
    };
    if let Some(far) = far::of(folder, config)? {
        return cancel_far(args, far, folder, config, &jobs);
    }
    // What only waits has no head that could end it.
    for job in jobs.iter().filter(|job| !is_running(job)) {
        if let Some(job) = &job.record.job {
            scheduler.cancel(job)?;
        }
    }
    if jobs.iter().any(is_running)
        && ended_within(folder, PATIENCE)?
        && gone_within(folder, config, PATIENCE)?.is_empty()
    {
        return said(args, &run, told);
    }
    for job in jobs.iter().filter_map(|job| job.record.job.as_ref()) {
        scheduler.cancel(job)?;
    }
    let left = gone_within(folder, config, KILL_PATIENCE)?;
    if !left.is_empty() {
        let message = format!(
            "job {} was told to end and is still there: ask your site's administrators",
            left.join(", ")
        );
        return Err(CliError::new(HEAD, message));
    }
    write_end(folder, config, &args.reason)?;
    said(args, &run, "ended at its scheduler")
}

/// Has a head whose folder is elsewhere wind its run up, brings what it left, and removes its jobs.
fn cancel_far(
    args: &Cancel,
    mut far: Far,
    folder: &RunFolder,
    config: &RunConfig,
    jobs: &[Job],
) -> Result<u8, CliError> {
    let ended = jobs.iter().any(is_running) && far.until_over(PATIENCE)?;
    let how = if ended { "delivered" } else { "ended at its scheduler" };
    let scheduler = launch::scheduler_of(config)?.expect("a far run has a scheduler");
    // Those too that have ended: their objects would stay for a while.
    for record in ledger::read(folder)? {
        match &record.job {
            Some(job) => scheduler.cancel(job)?,
            None => sweep(&*scheduler, folder, config, &record)?,
        }
    }
    write_end(folder, config, &args.reason)?;
    said(args, &folder::run_id(folder), how)
}

/// What a submission left whose answer was lost.
fn sweep(
    scheduler: &dyn Scheduler,
    folder: &RunFolder,
    config: &RunConfig,
    record: &LaunchRecord,
) -> Result<(), CliError> {
    let request = launch::request_of(folder, config, record.launch, record.gang)?;
    if let Some(found) = scheduler.find(&request, None)? {
        scheduler.cancel(&found)?;
    }
    scheduler.far().map(|far| far.sweep(&request)).transpose()?;
    Ok(())
}

/// `bridgehead suspend`.
pub(crate) fn suspend(args: &OneRun, folder: &RunFolder, config: &RunConfig) -> Result<u8, CliError> {
    let run = folder::run_id(folder);
    let Some(mut far) = far::of(folder, config)? else {
        let message =
            "only runs on Kubernetes can be suspended: `bridgehead cancel` ends one, and `resume` goes on with it";
        return Err(CliError::new(HEAD, message));
    };
    let standing = standing::of(folder)?;
    if let Some(reason) = standing.silent {
        return Err(CliError::new(crate::error::UNREACHABLE, reason));
    }
    let open = standing.jobs.iter().filter(|job| job.is_open());
    let jobs: Vec<_> = open.filter_map(|job| job.record.job.clone()).collect();
    if standing::has_ended(folder)? || jobs.is_empty() {
        let message = format!("there is nothing to suspend: the run is {}", standing.phase());
        return Err(CliError::new(HEAD, message));
    }
    let scheduler = launch::scheduler_of(config)?.expect("a far run has a scheduler");
    let far_scheduler = scheduler.far().expect("a far run's scheduler is one");
    let kept = far_scheduler.keeps_folder();
    if !kept {
        // The pods take the folder with them: what is here is what `resume` goes on from.
        far.sync(true)?;
    }
    for job in &jobs {
        if kept {
            far_scheduler.suspend(job)?;
        } else {
            scheduler.cancel(job)?;
        }
    }
    if !kept {
        write_pause(folder, config)?;
    }
    output::line(if args.json {
        json!({ "run": run, "request": "suspended" }).to_string()
    } else {
        format!("suspended {run}: `bridgehead resume {run}` goes on")
    })?;
    Ok(OK)
}

/// What the folder tells of a run that was suspended without its head's word.
fn write_pause(folder: &RunFolder, config: &RunConfig) -> Result<(), CliError> {
    let attempts = journal::attempts(&folder.journal())?;
    let counts = folder::state(folder)?.counts;
    let status = json!({ "run": config.run, "name": config.name, "phase": "paused", "message": "suspended by the user",
        "attempt": attempts.last().copied().unwrap_or(0).max(1), "tasks": counts, "agents": [], "failures": [] });
    write_status(folder, &status)
}

fn is_running(job: &Job) -> bool {
    job.report
        .as_ref()
        .is_some_and(|report| report.state == JobState::Running)
}

fn said(args: &Cancel, run: &str, how: &str) -> Result<u8, CliError> {
    if args.json {
        output::line(json!({ "run": run, "request": how }))?;
    } else {
        output::line(format!("cancelled {run}"))?;
    }
    Ok(OK)
}

/// Over the network if its head can be reached, else through the mailbox, which it looks into soon after it has begun.
fn tell_head(folder: &RunFolder, reason: &str) -> Result<&'static str, CliError> {
    let delivered = Client::reach(folder).map_err(CliError::from);
    if let Ok(how) = delivered.and_then(|client| runs::ask_to_cancel(client, reason)) {
        return Ok(how);
    }
    let request = mailbox::CancelRequest {
        kind: "cancel".to_owned(),
        reason: reason.to_owned(),
    };
    mailbox::leave(folder, &request).map_err(|e| CliError::system("write into", &folder.mailbox(), &e))?;
    Ok("left in its mailbox")
}

fn ended_within(folder: &RunFolder, limit: Duration) -> Result<bool, CliError> {
    let end = Instant::now() + limit;
    loop {
        if standing::has_ended(folder)? {
            return Ok(true);
        }
        if Instant::now() > end {
            return Ok(false);
        }
        std::thread::sleep(LOOK); // Files on shared file systems tell nobody that they changed.
    }
}

/// The jobs that are left after so long; comes back as soon as there are none.
fn gone_within(folder: &RunFolder, config: &RunConfig, limit: Duration) -> Result<Vec<String>, CliError> {
    let end = Instant::now() + limit;
    let mut pause = LOOK;
    loop {
        let open = standing::open_jobs(folder, config)?.map_or_else(Vec::new, |(_, jobs)| jobs);
        let open = open.into_iter().filter(Job::is_open);
        let open: Vec<String> = open.filter_map(|job| Some(job.record.job?.0)).collect();
        if open.is_empty() || Instant::now() > end {
            return Ok(open);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_secs(3));
    }
}

/// Writes the end that no head could write, as an attempt of its own: a head that comes to life again finds it has been
/// superseded. A run that ended by itself meanwhile keeps its own end.
fn write_end(folder: &RunFolder, config: &RunConfig, reason: &str) -> Result<(), CliError> {
    mailbox::clear(folder);
    if standing::has_ended(folder)? {
        return Ok(());
    }
    let tasks = folder::spec(folder)?.map_or(0, |spec| spec.tasks.len() as u64);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
    let end = RunEnded {
        phase: "cancelled".to_owned(),
        message: reason.to_owned(),
    };
    let attempt = journal::write_end(&folder.journal(), &config.run, tasks, end, now_ns)?;
    let counts = folder::state(folder)?.counts;
    let status = json!({ "run": config.run, "name": config.name, "phase": "cancelled", "message": reason,
        "attempt": attempt, "tasks": counts, "agents": [], "failures": [] });
    write_status(folder, &status)
}

fn write_status(folder: &RunFolder, status: &Value) -> Result<(), CliError> {
    let path = folder.status();
    let part = path.with_extension(format!("{}.part", std::process::id()));
    let written = std::fs::write(&part, status.to_string()).and_then(|()| std::fs::rename(&part, &path));
    written.map_err(|e| CliError::system("write", &path, &e))
}

/// `bridgehead resume`.
pub(crate) fn resume(args: &Resume, folder: &RunFolder, mut config: RunConfig) -> Result<u8, CliError> {
    let run = folder::run_id(folder);
    let standing = standing::of(folder)?;
    if let Some(reason) = standing.silent {
        return Err(CliError::new(crate::error::UNREACHABLE, reason));
    }
    if let Some(mut far) = far::of(folder, &config)? {
        far.sync(true)?; // What finished is not run again, and a head that waits for its results to be fetched is let go.
        if let Some(jobs) = resume_suspended(&config, &standing)? {
            return resumed(args, folder, &run, &jobs);
        }
    }
    if standing.phase() == "finished" {
        return runs::nothing_left(&run, args.json);
    }
    if let Some(job) = standing.jobs.iter().find(|job| job.is_open()) {
        let job = job.record.job.as_ref().map_or("", |job| &job.0);
        let message = format!(
            "{run} is {} as job {job}: `bridgehead watch {run}` follows it",
            standing.phase()
        );
        return Err(CliError::new(HEAD, message));
    }
    change_target(folder, &mut config, &args.target)?;
    let jobs = launch_again(folder, &config, &standing)?;
    resumed(args, folder, &run, &jobs)
}

/// Lets jobs go on that were suspended where they are; `None` if there are none.
fn resume_suspended(config: &RunConfig, standing: &Standing) -> Result<Option<Vec<String>>, CliError> {
    let suspended = standing.jobs.iter().filter(|job| job.is_open() && job.is_suspended());
    let jobs: Vec<_> = suspended.filter_map(|job| job.record.job.clone()).collect();
    if jobs.is_empty() {
        return Ok(None);
    }
    let scheduler = launch::scheduler_of(config)?.expect("a far run has a scheduler");
    let far = scheduler.far().expect("a far run's scheduler is one");
    jobs.iter().try_for_each(|job| far.resume(job))?;
    Ok(Some(jobs.into_iter().map(|job| job.0).collect()))
}

fn resumed(args: &Resume, folder: &RunFolder, run: &str, jobs: &[String]) -> Result<u8, CliError> {
    let jobs = jobs.join(", ");
    let text = format!("resumed {run} as job {jobs}; it goes on if you stop following it");
    output::line(if args.json {
        json!({ "run": run, "jobs": jobs }).to_string()
    } else {
        text
    })?;
    if args.detach { Ok(OK) } else { watch(folder, args.json) }
}

/// What is asked of the scheduler from now on: more time, for instance.
fn change_target(folder: &RunFolder, config: &mut RunConfig, changes: &Target) -> Result<(), CliError> {
    let changes = changes.options(None)?;
    let Some(target) = config.target.as_mut().filter(|_| !changes.is_empty()) else {
        return Ok(());
    };
    target::merge(target, changes);
    target::open(target)?; // What makes no sense is refused before it is written down.
    runs::write_config(folder, config)
}

fn launch_again(folder: &RunFolder, config: &RunConfig, standing: &Standing) -> Result<Vec<String>, CliError> {
    let Some(scheduler) = launch::scheduler_of(config)? else {
        unreachable!("a run that was handed over has a scheduler");
    };
    let launcher = Launcher::new(folder, config, &*scheduler)?;
    mailbox::clear(folder); // A cancel that nobody took was meant for a life that is over.
    let mut records = Vec::new();
    // A submission whose answer was lost may have made its job: it is found by its key, or submitted now.
    let unsure = standing.jobs.iter().filter(|job| job.record.job.is_none());
    for job in unsure {
        records.push(launcher.settle(job.record.clone())?);
    }
    if records.is_empty() {
        records = launcher.submit_from(first_open_gang(folder)?)?;
    }
    Ok(records.into_iter().filter_map(|record| Some(record.job?.0)).collect())
}

/// The first gang that has tasks without a value.
fn first_open_gang(folder: &RunFolder) -> Result<u32, CliError> {
    let plan = launch::plan(folder)?;
    let state = folder::state(folder)?;
    let open = (0u64..)
        .zip(&state.tasks)
        .filter(|(_, row)| row.phase != Phase::Finished);
    Ok(open
        .filter_map(|(task, _)| plan.gang_of(TaskId(task)))
        .min()
        .unwrap_or(0))
}

/// `bridgehead watch`: shows how it stands until it has ended; the exit code says how.
pub(crate) fn watch(folder: &RunFolder, as_json: bool) -> Result<u8, CliError> {
    let bar = ProgressBar::new(0); // Draws on standard error, and only where that is a terminal.
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg} {elapsed}") {
        bar.set_style(style);
    }
    let mut looks = Looks::of(folder)?;
    let mut shown = Value::Null;
    loop {
        let status = looks.look(folder)?;
        let now = json!({ "phase": status["phase"], "tasks": status["tasks"] });
        if as_json && now != shown {
            output::line(&now)?;
        }
        show(&bar, &status);
        shown = now;
        let phase = status["phase"].as_str().unwrap_or("");
        let message = status["message"].as_str().unwrap_or("");
        if standing::is_final(&status) {
            bar.finish_and_clear();
            let colon = if message.is_empty() { "" } else { ": " };
            output::line(if as_json {
                json!({ "phase": phase, "message": message }).to_string()
            } else {
                format!("{phase}{colon}{message}")
            })?;
            return Ok(if phase == "finished" { OK } else { RUN_FAILED });
        }
        if matches!(phase, "lost" | "paused") {
            bar.finish_and_clear();
            let run = folder::run_id(folder);
            return Err(CliError::new(
                HEAD,
                format!("{run} is {phase}: {message}; `bridgehead resume {run}` goes on"),
            ));
        }
        std::thread::sleep(LOOK); // Files on shared file systems tell nobody that they changed.
    }
}

fn show(bar: &ProgressBar, status: &Value) {
    let tasks = &status["tasks"];
    let count = |phase: &str| tasks[phase].as_u64().unwrap_or(0);
    let done = count("finished") + count("failed") + count("cancelled");
    bar.set_length(done + count("waiting") + count("running"));
    bar.set_position(done);
    let phase = status["phase"].as_str().unwrap_or("");
    let message = status["message"].as_str().unwrap_or("");
    bar.set_message(match (phase, count("failed")) {
        ("running", 0) => format!("{} running", count("running")),
        ("draining", _) => format!("{} running, no more are started", count("running")),
        ("running", n) => format!("{} running, {n} failed", count("running")),
        _ if message.is_empty() => phase.to_owned(),
        _ => format!("{phase}: {message}"),
    });
}
