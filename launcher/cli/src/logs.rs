//! `logs`: what tasks printed, in order of time, and on request what they print from now on.

use crate::args::Logs;
use crate::error::{CliError, OK};
use crate::folder::{self, Names};
use crate::looks::Looks;
use crate::{far, output, standing};
use bridgehead_spec::RunFolder;
use serde_json::Value;
use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `bridgehead logs`.
pub(crate) fn logs(args: &Logs) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    folder::refresh(&folder, false)?;
    let mut reader = Reader {
        wanted: wanted(&folder, args.task.as_deref())?,
        as_json: args.json,
        seen: HashMap::new(),
    };
    let handed_over = folder::is_handed_over(&folder);
    let mut looks = Looks::of(&folder)?;
    loop {
        // Asked first: a dying head's last lines are still read.
        let lives = match (args.follow, handed_over) {
            (false, _) => false,
            (true, false) => folder::head_lives(&folder),
            (true, true) => !is_over(&looks.look(&folder)?),
        };
        reader.print_new(&folder)?;
        if !lives {
            if reader.seen.is_empty() && reader.wanted.is_none() && !args.json {
                print_kept(&folder)?;
            }
            return Ok(OK);
        }
        std::thread::sleep(Duration::from_millis(200)); // Files on shared file systems tell nobody that they grew.
    }
}

/// Where nothing of a mirrored run has come, the scheduler may have kept what its processes printed.
fn print_kept(folder: &RunFolder) -> Result<(), CliError> {
    let Ok(config) = folder::config(folder) else {
        return Ok(());
    };
    if far::is_far(&config) {
        // Where the cluster cannot be asked there is nothing to add to what is here.
        let text = far::kept_logs(folder, &config).unwrap_or_default();
        if !text.is_empty() {
            output::note("the head cannot be reached: this is what Kubernetes kept of its pods' output");
            output::raw(text.as_bytes())?;
        }
    }
    Ok(())
}

/// Whether a run that was handed over will print nothing more by itself.
fn is_over(status: &Value) -> bool {
    standing::is_final(status) || matches!(status["phase"].as_str(), Some("lost" | "paused"))
}

fn wanted(folder: &RunFolder, task: Option<&str>) -> Result<Option<BTreeSet<u64>>, CliError> {
    let Some(asked) = task else { return Ok(None) };
    let state = folder::state(folder)?;
    Names::read(folder, &state)?.find(asked).map(Some)
}

struct Reader {
    /// Only these tasks; all if `None`.
    wanted: Option<BTreeSet<u64>>,
    as_json: bool,
    /// Bytes of each file that have been printed.
    seen: HashMap<PathBuf, u64>,
}

impl Reader {
    fn print_new(&mut self, folder: &RunFolder) -> Result<(), CliError> {
        let logs = folder.logs();
        let entries = std::fs::read_dir(&logs).map_err(|e| CliError::unreadable(&logs, &e))?;
        let mut entries_of_log = Vec::new();
        for path in entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| is_task_log(path))
        {
            let from = self.seen.entry(path.clone()).or_default();
            let text = grown(&path, from, u64::MAX).map_err(|e| CliError::unreadable(&path, &e))?;
            let text = String::from_utf8_lossy(&text);
            // A line that is no entry was torn by a crash; there is nothing to show of it.
            entries_of_log.extend(text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()));
        }
        entries_of_log.sort_by_key(|entry| entry["t"].as_u64());
        let mut out = Vec::new();
        for entry in entries_of_log.iter().filter(|entry| self.wants(entry)) {
            let text = entry["text"].as_str().unwrap_or("");
            let written = if self.as_json {
                writeln!(out, "{entry}")
            } else {
                write!(out, "{text}")
            };
            written.expect("memory takes all bytes");
        }
        output::raw(&out)
    }

    fn wants(&self, entry: &Value) -> bool {
        let task = entry["task"].as_u64();
        self.wanted
            .as_ref()
            .is_none_or(|wanted| task.is_some_and(|task| wanted.contains(&task)))
    }
}

/// The whole lines that a file has got since `from`, which moves on by them; of more than `most` bytes the first.
pub(crate) fn grown(path: &Path, from: &mut u64, most: u64) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(*from))?;
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1);
    bytes.truncate(whole);
    *from += whole as u64;
    Ok(bytes)
}

fn is_task_log(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    name.is_some_and(|name| name.starts_with("tasks-") && name.ends_with(".jsonl"))
}
