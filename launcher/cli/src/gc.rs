//! `gc`: removes run folders that nobody needs any more, and the sockets of dead processes. Never a run at work.

use crate::args::Gc;
use crate::error::{CliError, OK};
use crate::{far, folder, output, standing};
use bridgehead_local::{home, list_runs, stale_socket_dirs};
use bridgehead_spec::RunFolder;
use serde_json::json;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// A folder without a status may belong to a run that is being started; after this long it does not.
const STARTING: Duration = Duration::from_secs(600);

/// `bridgehead gc`.
pub(crate) fn gc(args: &Gc) -> Result<u8, CliError> {
    let home = home();
    let limit = Duration::from_secs(args.older_than.saturating_mul(24 * 3600));
    let mut removed = Vec::new();
    let mut swept = Vec::new();
    for run in list_runs(&home)? {
        let folder = RunFolder::new(home.join("runs").join(run.as_str()));
        if !args.dry_run {
            swept.extend(far::sweep(&folder));
        }
        if age(&folder).is_some_and(|age| age >= limit) && may_go(&folder, args.lost) {
            remove(folder.path(), args.dry_run)?;
            removed.push(run.to_string());
        }
    }
    let mut sockets = Vec::new();
    for path in stale_socket_dirs()? {
        remove(&path, args.dry_run)?;
        sockets.push(path.display().to_string());
    }
    if args.json {
        output::line(json!({ "runs": removed, "sockets": sockets, "objects": swept, "removed": !args.dry_run }))?;
        return Ok(OK);
    }
    let verb = if args.dry_run { "would remove" } else { "removed" };
    removed
        .iter()
        .chain(&sockets)
        .chain(&swept)
        .try_for_each(|what| output::line(format!("{verb} {what}")))?;
    let (runs, sockets) = (removed.len(), sockets.len());
    output::line(format!("{verb} {runs} run(s) and {sockets} folder(s) of sockets"))?;
    Ok(OK)
}

/// Time since the run's last word; `None` if that cannot be told.
fn age(folder: &RunFolder) -> Option<Duration> {
    let facts = std::fs::metadata(folder.status()).or_else(|_| std::fs::metadata(folder.path()));
    SystemTime::now().duration_since(facts.ok()?.modified().ok()?).ok()
}

fn may_go(folder: &RunFolder, lost_too: bool) -> bool {
    if folder::is_handed_over(folder) {
        return handed_over_may_go(folder, lost_too);
    }
    let elsewhere = || folder::head_info(folder).is_some_and(|info| info.host != this_host());
    if folder::head_lives(folder) {
        return false;
    }
    match folder::snapshot(folder) {
        // Of a head on another machine nothing can be told from here but what it wrote.
        Ok(Some(status)) if status["phase"] == "lost" => lost_too && !elsewhere(),
        Ok(Some(_)) => true,
        Ok(None) => lost_too && age(folder).is_some_and(|age| age >= STARTING),
        Err(_) => false, // What cannot be read is for people to judge.
    }
}

/// Of a run that was handed over its scheduler has the last word; where it cannot be asked, the folder stays.
fn handed_over_may_go(folder: &RunFolder, lost_too: bool) -> bool {
    standing::of(folder).is_ok_and(|standing| {
        standing.silent.is_none()
            && match standing.phase() {
                "finished" | "failed" | "cancelled" => true,
                "lost" | "paused" => lost_too,
                _ => false,
            }
    })
}

fn this_host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn remove(path: &Path, dry_run: bool) -> Result<(), CliError> {
    if dry_run {
        return Ok(());
    }
    std::fs::remove_dir_all(path).map_err(|e| CliError::system("remove", path, &e))
}
