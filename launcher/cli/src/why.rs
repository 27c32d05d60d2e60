//! `why`: in sentences, what a run or a task waits for or failed of, and the way out.

use crate::args::Why;
use crate::error::{CliError, OK};
use crate::folder::{self, Names};
use crate::inspect::kept;
use crate::output;
use crate::standing::{self, Standing};
use bridgehead_head::state::{End, Phase, RunState, TaskRow};
use bridgehead_spec::{PipelineSpec, RunFolder};
use bridgehead_wire::Failure;
use serde_json::json;
use std::time::Duration;

/// Sentences of one kind that are printed; the rest is counted.
const LISTED: usize = 10;
/// Causes by their place in [`TaskRow::tries`].
const CAUSES: [&str; 5] = [
    "its own error",
    "a lost node",
    "preemption",
    "its time limit",
    "lack of memory",
];

/// `bridgehead why`.
pub(crate) fn why(args: &Why) -> Result<u8, CliError> {
    let folder = folder::find(&args.run)?;
    folder::config(&folder)?; // Without it the folder is no run's.
    let story = Story::read(&folder)?;
    let sentences = match &args.task {
        Some(task) => {
            let tasks = story.names.find(task)?;
            tasks.into_iter().flat_map(|task| story.of_task(task)).collect()
        }
        None => story.of_run(),
    };
    if args.json {
        output::line(json!({ "run": story.run, "because": sentences }))?;
    } else {
        sentences.iter().try_for_each(output::line)?;
    }
    Ok(OK)
}

/// What is known of a run.
struct Story {
    run: String,
    state: RunState,
    spec: Option<PipelineSpec>,
    names: Names,
    lives: bool,
    /// Of a run that was handed to a scheduler.
    standing: Option<Standing>,
}

impl Story {
    fn read(folder: &RunFolder) -> Result<Self, CliError> {
        let standing = if folder::config(folder)?.target.is_some() {
            Some(standing::of(folder)?)
        } else {
            None
        };
        let lives = match &standing {
            Some(standing) => matches!(standing.phase(), "running" | "cancelling" | "draining"),
            None => folder::head_lives(folder),
        };
        let (state, spec) = (folder::state(folder)?, folder::spec(folder)?);
        Ok(Self {
            run: folder::run_id(folder),
            names: Names::new(spec.as_ref(), &state),
            state,
            spec,
            lives,
            standing,
        })
    }

    fn of_run(&self) -> Vec<String> {
        let mut out = match &self.standing {
            Some(standing) if !standing.is_over() => self.at_scheduler(standing),
            _ => vec![self.standing()],
        };
        let tasks = || (0u64..).zip(&self.state.tasks);
        let failures = tasks().filter_map(|(id, row)| Some((id, own_failure(row)?)));
        listed(&mut out, failures.map(|(id, failure)| self.failed(id, failure)));
        let held_up = tasks()
            .filter(|(_, row)| matches!(&row.end, End::Failure(f) if f.root.is_some()))
            .count();
        if held_up > 0 {
            let text = "could not start because a task that they need has no value";
            out.push(format!(
                "{held_up} task(s) {text}; `bridgehead why {} TASK` says which.",
                self.run
            ));
        }
        listed(&mut out, tasks().filter_map(|(id, row)| self.tried(id, row)));
        out
    }

    fn standing(&self) -> String {
        let c = self.state.counts;
        let run = &self.run;
        match &self.state.ended {
            Some((phase, _)) if phase == "finished" => format!("The run has finished: {} task(s).", c.finished),
            Some((phase, message)) => {
                format!("The run is {phase}: {message}. `bridgehead resume {run}` goes on; what finished is not run again.")
            }
            None if !self.lives => format!(
                "The head is gone without having ended the run: it was killed or its machine went down. \
                 `bridgehead resume {run}` goes on; what finished is not run again."
            ),
            None if c.running == 0 && c.waiting > 0 && c.finished == 0 => {
                "Nothing runs yet: the head waits for all agents of the gang to join (logs/agent-*.log in the run folder)."
                    .to_owned()
            }
            None => format!("{} task(s) run and {} wait for them or for room.", c.running, c.waiting),
        }
    }

    /// Sentences on a run that was handed over and has not ended.
    fn at_scheduler(&self, standing: &Standing) -> Vec<String> {
        let run = &self.run;
        let message = standing.status.as_ref().and_then(|status| status["message"].as_str());
        let message = message.unwrap_or("").trim_end_matches('.');
        let mut out = vec![match standing.phase() {
            "running" | "cancelling" | "draining" => self.standing(),
            "queued" => format!("The run waits in its scheduler's queue: {message}."),
            "starting" => format!("The run is starting: {message}."),
            phase => format!(
                "The run is {phase}: {message}. `bridgehead resume {run}` goes on; what finished is not run again."
            ),
        }];
        out.extend(
            standing
                .silent
                .iter()
                .map(|reason| format!("Its scheduler could not be asked: {reason}.")),
        );
        let waiting = standing.jobs.iter().filter(|job| job.is_open());
        out.extend(waiting.filter_map(|job| {
            let report = job.report.as_ref().filter(|report| !report.reason.is_empty())?;
            let id = &job.record.job.as_ref()?.0;
            let reason = report.reason.trim_end_matches('.');
            let reason = reason.strip_prefix("waits: ").unwrap_or(reason);
            (reason != message).then(|| format!("Job {id} (gang {}) waits: {reason}.", job.record.gang))
        }));
        out
    }

    fn of_task(&self, task: u64) -> Vec<String> {
        let name = self.names.full(task);
        let Some(row) = self.state.row(task) else {
            return vec![format!("{name} waits: the run has not begun.")];
        };
        let mut out = vec![match (&row.end, row.phase) {
            (End::Failure(f), _) if f.root.is_some() => {
                let root = f.root.map_or_else(String::new, |root| self.names.full(root));
                format!("{name} could not start: {root}, which it needs, has no value.")
            }
            (End::Failure(failure), _) => self.failed(task, failure),
            (End::Cancelled(reason), _) => format!("{name} was cancelled: {reason}."),
            (_, Phase::Finished) => finished(&name, row),
            (_, Phase::Running) if self.lives => {
                let gang = self.state.gangs.get(&task);
                let place = gang.map_or_else(|| format!("agent {}", row.agent), crate::ranks::place);
                format!("{name} runs on {place}, attempt {}.", row.attempt)
            }
            (_, Phase::Running) => format!("{name} ran on agent {} when the head died.", row.agent),
            _ => self.waits(task, &name),
        }];
        out.extend(self.tried(task, row));
        if let Some(gang) = self.state.gangs.get(&task) {
            out.extend(crate::ranks::map(&name, gang));
        }
        if row.attempt > 0 {
            out.push(format!("`bridgehead logs {} t{task}` shows what it printed.", self.run));
        }
        out
    }

    fn waits(&self, task: u64, name: &str) -> String {
        let spec = self
            .spec
            .as_ref()
            .and_then(|spec| spec.tasks.get(usize::try_from(task).ok()?));
        let mut needs: Vec<u64> = spec
            .into_iter()
            .flat_map(bridgehead_spec::TaskSpec::needs)
            .map(|id| id.0)
            .collect();
        needs.sort_unstable();
        needs.dedup();
        let open = needs.into_iter().filter_map(|need| {
            let phase = self.state.row(need)?.phase;
            (phase != Phase::Finished).then(|| format!("{} ({phase:?})", self.names.full(need)).to_lowercase())
        });
        let open: Vec<String> = open.collect();
        match open.len() {
            0 => format!("{name} waits for room: {} task(s) run.", self.state.counts.running),
            n if n > LISTED => format!("{name} waits for {n} tasks, {} among them.", open[..LISTED].join(", ")),
            _ => format!("{name} waits for {}.", open.join(", ")),
        }
    }

    fn failed(&self, task: u64, failure: &Failure) -> String {
        let at = failure.traceback.lines().rev().find(|line| line.starts_with("  File "));
        let at = at.map_or_else(String::new, |line| format!(" ({})", line.trim()));
        format!(
            "{} failed: {}{at}.",
            self.names.full(task),
            failure.message.trim_end_matches('.')
        )
    }

    fn tried(&self, task: u64, row: &TaskRow) -> Option<String> {
        let tries = row.tries.iter().zip(CAUSES).filter(|(n, _)| **n > 0);
        let causes: Vec<String> = tries.map(|(n, cause)| format!("{n} for {cause}")).collect();
        let name = self.names.full(task);
        (!causes.is_empty()).then(|| format!("{name} was tried again: {}.", causes.join(", ")))
    }
}

fn own_failure(row: &TaskRow) -> Option<&Failure> {
    match &row.end {
        End::Failure(failure) if failure.root.is_none() => Some(failure),
        _ => None,
    }
}

fn finished(name: &str, row: &TaskRow) -> String {
    let seconds = Duration::from_nanos(row.elapsed_ns).as_secs_f64();
    let (place, bytes) = kept(row);
    let value = match place {
        "journal" | "file" => format!("its value ({bytes} bytes) is kept"),
        _ => "its value was not kept beyond the run".to_owned(),
    };
    format!("{name} finished in {seconds:.3} s; {value}.")
}

/// Adds the first sentences, and how many there are besides.
fn listed(out: &mut Vec<String>, mut sentences: impl Iterator<Item = String>) {
    out.extend(sentences.by_ref().take(LISTED));
    let more = sentences.count();
    if more > 0 {
        out.push(format!("... and {more} more of the kind."));
    }
}
