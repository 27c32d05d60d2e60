//! What an agent does when the head is gone without a word. A job whose first node is lost goes on without anybody who could end it,
//! because a lost node was to cost its tasks only: so one of those that are left hands over the follow-up job and ends this
//! one. A head that can be seen to live is left alone; it goes on without this node.

use crate::error::{BROKEN, CliError, OK};
use crate::{after, launch, node};
use bridgehead_backend::JobRef;
use bridgehead_spec::{RunConfig, RunFolder};
use std::time::{Duration, Instant};

/// A head that lives writes its snapshot more often than this, and all nodes see it.
const WRITES: Duration = Duration::from_secs(25);
/// Between looks.
const LOOK: Duration = Duration::from_secs(2);
/// A job whose run has ended is given so long to end by itself.
const GRACE: Duration = Duration::from_secs(30);
/// How often the scheduler is tried, which may be unreachable from here for the same reason as the head.
const TRIES: u32 = 30;

/// Waits until the run has ended or its head is seen to be dead, and does what is left to do; the process's exit code.
pub(crate) fn see_to_it(
    folder: &RunFolder,
    config: &RunConfig,
    launch: u32,
    job: &str,
) -> Result<u8, Box<dyn std::error::Error>> {
    loop {
        if node::is_over(folder) {
            let end = Instant::now() + GRACE;
            while Instant::now() < end {
                std::thread::sleep(LOOK); // The step ends this process as soon as the job is over.
            }
            tracing::info!("the run is over and its job is not: ending it");
            end_job(config, job)?;
            return Ok(OK);
        }
        if node::is_paused(folder) {
            return Ok(OK);
        }
        if !head_writes(folder) {
            break;
        }
        std::thread::sleep(LOOK); // There is no event to wait for: the head lives on another node.
    }
    tracing::error!("the head is dead: handing over what is left of the run");
    for _ in 0..TRIES {
        match after::follow_up(folder, config, launch) {
            Ok(_) => {
                end_job(config, job)?;
                return Ok(OK);
            }
            Err(error) => tracing::warn!(%error, "the follow-up job cannot be handed over yet"),
        }
        std::thread::sleep(LOOK);
    }
    Ok(BROKEN)
}

fn head_writes(folder: &RunFolder) -> bool {
    let written = std::fs::metadata(folder.status()).and_then(|facts| facts.modified());
    written.is_ok_and(|at| at.elapsed().map_or(true, |age| age < WRITES))
}

fn end_job(config: &RunConfig, job: &str) -> Result<(), CliError> {
    if let Some(scheduler) = launch::scheduler_of(config)? {
        scheduler.cancel(&JobRef(job.to_owned()))?;
    }
    Ok(())
}
