//! `after`: what a batch job does when its gang is over. A run that was wound up before its time limit goes on in a follow-up
//! job; the job's exit code is the run's.

use crate::error::{CliError, OK, RUN_FAILED};
use crate::launch::{self, Launcher};
use crate::place::{Place, variables};
use crate::{args, folder, target};
use bridgehead_backend::ledger;
use bridgehead_spec::RunFolder;

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
    match (&state.ended, state.paused.as_ref().map(|(cause, _)| cause.as_str())) {
        (Some((phase, _)), _) if phase == "finished" => Ok(OK),
        (Some(_), _) => Ok(RUN_FAILED),
        (None, Some("walltime")) => go_on(&folder, &config, args.launch),
        (None, Some(_)) => Ok(OK),
        (None, None) => Ok(RUN_FAILED), // The head died; Slurm starts the job again, or a user resumes the run.
    }
}

/// Submits the follow-up job of launch number `launch`. What waited for that one waits for its successor.
fn go_on(folder: &RunFolder, config: &bridgehead_spec::RunConfig, launch: u32) -> Result<u8, CliError> {
    let Some(scheduler) = launch::scheduler_of(config)? else {
        return Ok(OK);
    };
    let launcher = Launcher::new(folder, config, &*scheduler)?;
    let records = ledger::read(folder)?;
    let Some(gang) = records
        .iter()
        .find(|record| record.launch == launch)
        .map(|own| own.gang)
    else {
        return Ok(RUN_FAILED); // The folder was changed by hand: nobody knows what this job is.
    };
    let rules = config.target.as_ref().map(target::end_rules).transpose()?;
    let so_far = records.iter().filter(|record| record.gang == gang).count() as u64 - 1;
    if rules.is_none_or(|rules| so_far >= u64::from(rules.continuations)) {
        crate::output::note(format!(
            "{so_far} follow-up jobs were enough: `bridgehead resume {}` goes on",
            config.run
        ));
        return Ok(RUN_FAILED);
    }
    let next = launcher.submit_one(gang)?;
    let Some(job) = &next.job else { return Ok(OK) };
    for mut later in records.into_iter().filter(|record| record.gang > gang) {
        if let Some(waiting) = later.job.clone() {
            scheduler.rechain(&waiting, std::slice::from_ref(job))?;
            later.after = vec![next.launch];
            ledger::update(folder, &later)?;
        }
    }
    Ok(OK)
}
