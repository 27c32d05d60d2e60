//! `after`: what a batch job does when its gang is over. A run that was wound up before its time limit, or whose head died, goes
//! on in a follow-up job; the job's exit code is the run's.

use crate::error::{CliError, OK, RUN_FAILED, UNREACHABLE};
use crate::launch::{self, Launcher};
use crate::place::{Place, variables};
use crate::{args, folder, output, target};
use bridgehead_backend::ledger;
use bridgehead_head::journal;
use bridgehead_spec::{RunConfig, RunFolder};
use std::time::Duration;

/// Heads of a run that may be lost before somebody has to look.
const DEATHS: u32 = 10;
/// Jobs in a row that may end before their head has begun: a node that is down is soon known to be so, a wrong set-up is not.
const IN_VAIN: usize = 5;
/// How often a controller that does not answer is tried, and the pause between.
const TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_secs(5);

/// `bridgehead after`.
pub(crate) fn after(args: &args::Node) -> Result<u8, CliError> {
    let place = Place::read(&variables());
    // Of an array the job of the head sees to it; the others have come only to help.
    if place.is_ok_and(|place| !place.is_head()) {
        return Ok(OK);
    }
    let folder = RunFolder::new(&args.run_dir);
    let config = folder::config(&folder)?;
    let state = folder::state(&folder)?;
    let go_on = || patiently(|| follow_up(&folder, &config, args.launch));
    match (&state.paused, &state.ended) {
        (Some((cause, _)), _) if cause == "walltime" => go_on(),
        (Some(_), _) => Ok(OK), // Another gang goes on, or Slurm starts this job again.
        (None, Some((phase, _))) if phase == "finished" => Ok(OK),
        (None, Some(_)) => Ok(RUN_FAILED),
        (None, None) => go_on(), // The head died.
    }
}

/// A controller may be away for a while; a run does not end for that.
fn patiently(mut act: impl FnMut() -> Result<u8, CliError>) -> Result<u8, CliError> {
    for _ in 0..TRIES {
        match act() {
            Err(error) if error.code() == UNREACHABLE => output::note(&error),
            done => return done,
        }
        std::thread::sleep(PAUSE);
    }
    act()
}

/// Hands over the follow-up job of launch number `launch`, once, whoever asks for it; what waited for that one waits for its
/// successor. The exit code of the job that asks.
///
/// # Errors
/// The scheduler refused, or cannot be reached.
pub(crate) fn follow_up(folder: &RunFolder, config: &RunConfig, launch: u32) -> Result<u8, CliError> {
    let Some(scheduler) = launch::scheduler_of(config)? else {
        return Ok(OK);
    };
    let records = ledger::read(folder)?;
    let Some(own) = records.iter().find(|record| record.launch == launch) else {
        return Ok(RUN_FAILED); // The folder was changed by hand: nobody knows what this job is.
    };
    if let Some(reason) = enough(folder, config, &records, own.gang)? {
        output::note(format!("{reason}: `bridgehead resume {}` goes on", config.run));
        return Ok(RUN_FAILED);
    }
    let launcher = Launcher::new(folder, config, &*scheduler)?;
    let next = launcher.successor_of(own)?;
    let Some(job) = &next.job else { return Ok(OK) };
    for mut later in records.iter().filter(|later| later.after.contains(&launch)).cloned() {
        if let Some(waiting) = later.job.clone() {
            later.after.retain(|&before| before != launch);
            later.after.push(next.launch);
            let mut jobs: Vec<_> = records
                .iter()
                .filter(|record| later.after.contains(&record.launch))
                .filter_map(|record| record.job.clone())
                .collect();
            jobs.push(job.clone());
            scheduler.rechain(&waiting, &jobs)?;
            ledger::update(folder, &later)?;
        }
    }
    Ok(OK)
}

/// Why there are to be no more follow-up jobs, if so.
fn enough(
    folder: &RunFolder,
    config: &RunConfig,
    records: &[ledger::LaunchRecord],
    gang: u32,
) -> Result<Option<String>, CliError> {
    let most = config.target.as_ref().map(target::end_rules).transpose()?;
    let so_far = records.iter().filter(|record| record.gang == gang).count() as u64 - 1;
    if most.is_none_or(|rules| so_far >= u64::from(rules.continuations)) {
        return Ok(Some(format!("{so_far} follow-up jobs were enough")));
    }
    let begun = journal::attempts(&folder.journal())?.last().copied().unwrap_or(0);
    if let Some(reason) = in_vain(records, gang, begun) {
        return Ok(Some(reason));
    }
    let deaths = folder::state(folder)?.interruptions.lost;
    Ok((deaths >= DEATHS).then(|| format!("the head was lost {deaths} times (logs/head.log in the run folder)")))
}

/// Whether the last jobs of a gang ended before their head had begun an attempt, the newest of which is `begun`.
fn in_vain(records: &[ledger::LaunchRecord], gang: u32, begun: u32) -> Option<String> {
    let of_gang = records.iter().filter(|record| record.gang == gang);
    let jobs = of_gang.filter(|record| record.attempts == begun).count();
    (jobs >= IN_VAIN)
        .then(|| format!("{jobs} jobs in a row ended before their head had begun (logs/slurm-*.out in the run folder)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_whose_heads_never_begin_are_not_followed_for_ever() {
        let record = |launch: usize, attempts| ledger::LaunchRecord {
            version: ledger::LEDGER_VERSION,
            launch: u32::try_from(launch).expect("few"),
            gang: 0,
            backend: "slurm".to_owned(),
            door: "cli".to_owned(),
            key: String::new(),
            job: None,
            follows: None,
            after: Vec::new(),
            attempts,
            submitted_s: 0,
        };
        let mut records: Vec<_> = (1..IN_VAIN).map(|launch| record(launch, 3)).collect();
        assert_eq!(in_vain(&records, 0, 3), None);
        records.push(record(IN_VAIN, 3));
        assert!(in_vain(&records, 0, 3).is_some_and(|reason| reason.starts_with("5 jobs")));
        assert_eq!(in_vain(&records, 0, 4), None, "the last one's head began");
        assert_eq!(in_vain(&records, 1, 3), None, "they are another gang's");
    }
}
