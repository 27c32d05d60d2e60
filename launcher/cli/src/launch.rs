//! `launch` and `backend`: a run folder's gangs are handed to its scheduler, each with its record in the ledger; and what the
//! Python package asks of a scheduler before there is a run folder.

use crate::error::{CliError, DAMAGED, OK, SYSTEM, UNREACHABLE, USAGE};
use crate::target::{self, Scheduler};
use crate::{args, far, folder, output};
use bridgehead_backend::ledger::{self, LEDGER_VERSION, LaunchRecord, LedgerError};
use bridgehead_backend::{JobRef, LaunchRequest};
use bridgehead_head::journal;
use bridgehead_plan::{GangPlan, LaunchPlan};
use bridgehead_spec::{Digest, GroupSpec, RunConfig, RunFolder, RunId, TargetConfig};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds that a submission may take before somebody else looks for its job.
const BEING_SUBMITTED: u64 = 120;
/// A run that is handed to a scheduler: its documents, as far as launching needs them.
pub(crate) struct Launcher<'a> {
    pub folder: &'a RunFolder,
    pub config: &'a RunConfig,
    pub scheduler: &'a dyn Scheduler,
    gangs: Vec<GangPlan>,
    groups: BTreeMap<String, GroupSpec>,
}

impl<'a> Launcher<'a> {
    pub(crate) fn new(
        folder: &'a RunFolder,
        config: &'a RunConfig,
        scheduler: &'a dyn Scheduler,
    ) -> Result<Self, CliError> {
        let plan = plan(folder)?;
        let spec = folder::spec(folder)?;
        Ok(Self {
            folder,
            config,
            scheduler,
            gangs: plan.gangs,
            groups: spec.map(|spec| spec.groups).unwrap_or_default(),
        })
    }

    /// Submits all gangs from number `from` on, each to start when those that it needs are over; the new records.
    ///
    /// # Errors
    /// The scheduler refused: then none of them is left at it. Or it cannot be reached: then the records stay, and another
    /// call of [`Launcher::settle`] finds or submits their jobs.
    pub(crate) fn submit_from(&self, from: u32) -> Result<Vec<LaunchRecord>, CliError> {
        one_gang_only(self.scheduler, self.gangs.len())?;
        let mut done: Vec<LaunchRecord> = Vec::new();
        for gang in self.gangs.iter().filter(|gang| gang.id >= from) {
            let before = done.iter().filter(|record| gang.after.contains(&record.gang));
            let after = before.map(|record| record.launch).collect();
            let begun = self.begin(gang.id, after, None)?;
            match self.complete(begun) {
                Ok(record) => done.push(record),
                Err(error) => {
                    self.take_back(&done)?;
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    /// The launch that goes on with the work of `own`: made now, unless another process has made it.
    ///
    /// # Errors
    /// The scheduler refused, or cannot be reached, or another process is at it just now.
    pub(crate) fn successor_of(&self, own: &LaunchRecord) -> Result<LaunchRecord, CliError> {
        loop {
            let records = ledger::read(self.folder)?;
            if let Some(next) = records.into_iter().find(|next| next.follows == Some(own.launch)) {
                return match next.job {
                    Some(_) => Ok(next),
                    None if !is_stale(&next) => {
                        let message = "another process hands the follow-up job over at this moment";
                        Err(CliError::new(UNREACHABLE, message))
                    }
                    None => self.settle(next),
                };
            }
            match self.begin(own.gang, Vec::new(), Some(own.launch)) {
                Ok(begun) => return self.complete(begun),
                Err(error) if error.is_taken() => {} // The other one's record can be read now.
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn begin(&self, gang: u32, after: Vec<u32>, follows: Option<u32>) -> Result<LaunchRecord, LedgerError> {
        let launch = ledger::read(self.folder)?.last().map_or(0, |record| record.launch) + 1;
        // A journal that cannot be listed has not begun.
        let attempts = journal::attempts(&self.folder.journal()).unwrap_or_default();
        let record = LaunchRecord {
            version: LEDGER_VERSION,
            launch,
            gang,
            backend: self.target().backend.clone(),
            door: self.scheduler.door().0,
            key: format!("{}/{launch}", self.config.run),
            job: None,
            follows,
            after,
            attempts: attempts.last().copied().unwrap_or(0),
            submitted_s: now_s(),
        };
        ledger::begin(self.folder, &record)?;
        Ok(record)
    }

    /// Finds the job of a record whose answer was lost, or submits it.
    ///
    /// # Errors
    /// The scheduler refused, or cannot be reached.
    pub(crate) fn settle(&self, mut record: LaunchRecord) -> Result<LaunchRecord, CliError> {
        let Some(job) = self.scheduler.find(&self.request(&record)?, self.group(record.gang))? else {
            return self.complete(record);
        };
        record.job = Some(job);
        ledger::update(self.folder, &record)?;
        Ok(record)
    }

    /// Submits the job of a record.
    fn complete(&self, mut record: LaunchRecord) -> Result<LaunchRecord, CliError> {
        let request = self.request(&record)?;
        let group = self.group(record.gang);
        match self.scheduler.submit(&request, group) {
            Ok(job) => {
                record.job = Some(job);
                ledger::update(self.folder, &record)?;
                Ok(record)
            }
            Err(error) => {
                let error = CliError::from(error);
                // What cannot be reached may have the job already; everybody else has said that it has not.
                if error.code() != UNREACHABLE {
                    ledger::withdraw(self.folder, record.launch)?;
                }
                Err(error)
            }
        }
    }

    fn take_back(&self, records: &[LaunchRecord]) -> Result<(), CliError> {
        for record in records {
            if let Some(job) = &record.job {
                self.scheduler.cancel(job)?;
            }
            ledger::withdraw(self.folder, record.launch)?;
        }
        Ok(())
    }

    fn request(&self, record: &LaunchRecord) -> Result<LaunchRequest, CliError> {
        let after = ledger::read(self.folder)?
            .into_iter()
            .filter(|other| record.after.contains(&other.launch))
            .filter_map(|other| other.job);
        request_in(
            self.folder,
            self.config,
            record.launch,
            self.gang(record.gang)?,
            after.collect(),
        )
    }

    fn gang(&self, id: u32) -> Result<&GangPlan, CliError> {
        find_gang(self.folder, &self.gangs, id)
    }

    fn group(&self, gang: u32) -> Option<&GroupSpec> {
        group_of(self.gangs.iter().find(|plan| plan.id == gang)?, &self.groups)
    }

    fn target(&self) -> &TargetConfig {
        self.config
            .target
            .as_ref()
            .expect("only runs with a target are launched")
    }
}

/// Whether a launch without a job is one that nobody hands over any more.
pub(crate) fn is_stale(record: &LaunchRecord) -> bool {
    now_s().saturating_sub(record.submitted_s) >= BEING_SUBMITTED
}

/// Gangs wait for one another by the scheduler's own means; where it has none there is to be one.
fn one_gang_only(scheduler: &dyn Scheduler, gangs: usize) -> Result<(), CliError> {
    if scheduler.far().is_none() || gangs < 2 {
        return Ok(());
    }
    let message = format!(
        "the pipeline has groups that make it {gangs} gangs, and jobs on Kubernetes do not wait for one another: \
         leave the groups out and ask for nodes that fit all tasks, or submit each part as a pipeline of its own"
    );
    Err(CliError::new(USAGE, message))
}

/// The request of a launch that is in no record.
pub(crate) fn request_of(
    folder: &RunFolder,
    config: &RunConfig,
    launch: u32,
    gang: u32,
) -> Result<LaunchRequest, CliError> {
    let plan = plan(folder)?;
    request_in(
        folder,
        config,
        launch,
        find_gang(folder, &plan.gangs, gang)?,
        Vec::new(),
    )
}

fn find_gang<'a>(folder: &RunFolder, gangs: &'a [GangPlan], id: u32) -> Result<&'a GangPlan, CliError> {
    let found = gangs.iter().find(|gang| gang.id == id);
    found.ok_or_else(|| CliError::invalid(&folder.plan(), format!("it has no gang {id}")))
}

/// The request of a launch whose run folder is there.
fn request_in(
    folder: &RunFolder,
    config: &RunConfig,
    launch: u32,
    gang: &GangPlan,
    after: Vec<JobRef>,
) -> Result<LaunchRequest, CliError> {
    let path = std::fs::canonicalize(folder.path());
    let path = path.map_err(|e| CliError::system("find", folder.path(), &e))?;
    request(config.run.clone(), path, launch, gang, after)
}

/// The run's launch plan.
pub(crate) fn plan(folder: &RunFolder) -> Result<LaunchPlan, CliError> {
    let path = folder.plan();
    let bytes = std::fs::read(&path).map_err(|e| CliError::unreadable(&path, &e))?;
    LaunchPlan::parse(&bytes).map_err(|e| CliError::invalid(&path, e))
}

fn now_s() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}

fn group_of<'a>(gang: &GangPlan, groups: &'a BTreeMap<String, GroupSpec>) -> Option<&'a GroupSpec> {
    gang.groups.first().and_then(|name| groups.get(name))
}

fn request(
    run: RunId,
    run_dir: std::path::PathBuf,
    launch: u32,
    gang: &GangPlan,
    after: Vec<JobRef>,
) -> Result<LaunchRequest, CliError> {
    let program = std::env::current_exe();
    let program = program.map_err(|e| CliError::new(SYSTEM, format!("cannot find this program: {e}")))?;
    Ok(LaunchRequest {
        run,
        run_dir,
        program,
        launch,
        gang: gang.id,
        agents: u32::try_from(gang.agents.len()).unwrap_or(u32::MAX),
        after,
        env: BTreeMap::new(), // What travels of the user's own is the backend's to know.
    })
}

/// The run's target and its scheduler; `None` for a run on this machine.
pub(crate) fn scheduler_of(config: &RunConfig) -> Result<Option<Box<dyn Scheduler>>, CliError> {
    config.target.as_ref().map(target::open).transpose()
}

/// `bridgehead launch`.
pub(crate) fn launch(args: &args::Launch) -> Result<u8, CliError> {
    let folder = RunFolder::new(&args.run_dir);
    let config = folder::config(&folder)?;
    let Some(scheduler) = scheduler_of(&config)? else {
        return Err(CliError::new(DAMAGED, "the run has no target: it runs on this machine"));
    };
    let records = Launcher::new(&folder, &config, &*scheduler)?.submit_from(0)?;
    let (door, reason) = scheduler.door();
    let jobs: Vec<_> = records.iter().filter_map(|record| record.job.as_ref()).collect();
    let mut warnings: Vec<String> = Vec::new();
    if let Some(far) = scheduler.far() {
        warnings.extend(far.warnings());
        bring_bundles(&folder, &config, &records)?;
    } else {
        warnings.extend(private_place(folder.path()));
    }
    output::line(json!({ "jobs": jobs, "door": door, "reason": reason, "warnings": warnings }))?;
    Ok(OK)
}

/// What is too large to travel with a job is carried to its head as soon as that is up.
fn bring_bundles(folder: &RunFolder, config: &RunConfig, records: &[LaunchRecord]) -> Result<(), CliError> {
    for record in records {
        let bundle = far::pending_bundle(folder, record.launch);
        let Ok(facts) = std::fs::metadata(&bundle) else {
            continue;
        };
        let (run, mib) = (&config.run, facts.len() >> 20);
        output::note(format!(
            "{run} is handed over; its files have {mib} MiB, which are brought once the gang has started: \
             this command waits for that, and `bridgehead watch {run}` does it too"
        ));
        if let Some(mut far) = far::of(folder, config)? {
            far.until_carried(record.launch)?;
        }
    }
    Ok(())
}

/// A warning where the run folder lies in a place that each node mostly has for itself.
fn private_place(folder: &Path) -> Option<String> {
    let path = std::fs::canonicalize(folder).ok()?;
    let private = ["/tmp", "/var/tmp", "/dev/shm", "/run"]
        .into_iter()
        .find(|place| path.starts_with(place))?;
    Some(format!(
        "the run folder lies in {private}, which nodes mostly do not share; set BRIDGEHEAD_HOME to a folder that they do"
    ))
}

/// What is asked on standard input.
#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Question {
    /// What there is to plan on.
    Profile { target: TargetConfig },
    /// What would be handed over.
    Render {
        target: TargetConfig,
        name: String,
        plan: Box<LaunchPlan>,
        groups: BTreeMap<String, GroupSpec>,
    },
}

/// The id in what is only shown: the same for the same plan.
fn planned_run(name: &str, plan: &LaunchPlan) -> RunId {
    let drawn = bridgehead_local::new_run_id(name, 0);
    let digest = Digest::of(&serde_json::to_vec(plan).unwrap_or_default()).to_string();
    let beginning = drawn
        .as_str()
        .rsplit_once('-')
        .map_or(drawn.as_str(), |(beginning, _)| beginning);
    RunId::parse(&format!("{beginning}-{}", &digest[..8])).unwrap_or(drawn)
}

/// `bridgehead backend`.
pub(crate) fn backend() -> Result<u8, CliError> {
    let mut text = String::new();
    let read = std::io::stdin().read_to_string(&mut text);
    read.map_err(|e| CliError::new(SYSTEM, format!("cannot read standard input: {e}")))?;
    let question = serde_json::from_str(&text);
    let answer = match question.map_err(|e| CliError::new(USAGE, format!("not a question: {e}")))? {
        Question::Profile { target } => {
            let scheduler = target::open(&target)?;
            json!({ "profile": scheduler.profile()?, "door": scheduler.door() })
        }
        Question::Render {
            target,
            name,
            plan,
            groups,
        } => {
            let scheduler = target::open(&target)?;
            one_gang_only(&*scheduler, plan.gangs.len())?;
            let run = planned_run(&name, &plan);
            let home = bridgehead_local::home().join("runs").join(run.as_str());
            let render = |gang: &GangPlan| {
                let request = request(run.clone(), home.clone(), gang.id + 1, gang, Vec::new())?;
                let rendered = scheduler.render(&request, group_of(gang, &groups))?;
                Ok(json!({ "gang": gang.id, "text": rendered.text, "warnings": rendered.warnings }))
            };
            let manifests: Result<Vec<_>, CliError> = plan.gangs.iter().map(render).collect();
            json!({ "manifests": manifests?, "door": scheduler.door() })
        }
    };
    output::line(answer)?;
    Ok(OK)
}
