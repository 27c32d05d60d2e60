//! Suspending a job and letting it go on. Owns each flavour's way: Volcano takes commands, Kueue holds its own record of a job, all
//! others have a field. Each is read back, since a command is handed over once and may be lost.

use super::connect::Cluster;
use super::kinds::{self, job_kind};
use super::phases::{self, Standing};
use super::reference::JobName;
use super::submit::owner;
use super::trouble::refused;
use super::why::is_queued;
use crate::Flavor;
use bridgehead_backend::{BackendError, JobState};
use serde_json::{Value, json};
use std::time::Duration;

/// How often a command is given before it counts as not heard, and how long each is waited for.
const TRIES: u32 = 4;
const HEARD: Duration = Duration::from_secs(8);

/// What is asked of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Suspend,
    Resume,
}

impl Wish {
    fn doing(self) -> &'static str {
        match self {
            Self::Suspend => "suspend the job",
            Self::Resume => "let the job go on",
        }
    }

    /// Volcano's name for it.
    fn action(self) -> &'static str {
        match self {
            Self::Suspend => "AbortJob",
            Self::Resume => "ResumeJob",
        }
    }

    /// The job is as wished, or over.
    fn is_met(self, standing: &Standing) -> bool {
        standing.suspended == (self == Self::Suspend)
    }
}

impl Cluster {
    /// Has a job give back what it holds, or go on; returns once it is so.
    pub(crate) async fn pause(&self, job: &JobName, wish: Wish) -> Result<(), BackendError> {
        let doing = wish.doing();
        let place = job_kind(job.flavor).within(&job.namespace);
        let found = self.calls.find(place, &job.name).await.map_err(|t| t.error(doing))?;
        let same = found.filter(|object| object["metadata"]["uid"] == job.uid.as_str());
        let Some(object) = same else {
            return Err(refused(doing, format!("{} is not there any more", job.name)));
        };
        let standing = phases::of(job.flavor, &object);
        if standing.state == JobState::Ended || standing.word == "Deleting" {
            return Err(refused(doing, format!("it is over already ({})", standing.word)));
        }
        match job.flavor {
            Flavor::Volcano => self.command(job, wish, &standing).await,
            Flavor::CodeEngine => Err(refused(doing, "Code Engine cannot suspend a job run: cancel it")),
            _ if is_queued(&object) && self.features.kueue.is_some() => self.hold(job, wish).await,
            _ => self.set_field(job, wish).await,
        }
    }

    /// Volcano's controller deletes a command before it acts on it, and knows jobs by name: so the phase is read back, and the
    /// command is given again only to the very job.
    async fn command(&self, job: &JobName, wish: Wish, now: &Standing) -> Result<(), BackendError> {
        let doing = wish.doing();
        if wish.is_met(now) {
            return Ok(());
        }
        let target = owner(job);
        let command = json!({
            "apiVersion": kinds::COMMAND.api_version(), "kind": kinds::COMMAND.kind,
            "metadata": {"generateName": format!("{}-", job.name), "namespace": job.namespace, "ownerReferences": [target]},
            "action": wish.action(), "target": target,
        });
        for _ in 0..TRIES {
            let given = self.calls.create(kinds::COMMAND.within(&job.namespace), &command).await;
            given.map_err(|t| t.error(doing))?;
            if self
                .reached(job, doing, |object| wish.is_met(&phases::of(job.flavor, object)))
                .await?
            {
                return Ok(());
            }
        }
        Err(refused(
            doing,
            format!("Volcano did not act on {TRIES} commands: is its controller up?"),
        ))
    }

    /// What Kueue queues is Kueue's to hold: its `suspend` would be taken back.
    async fn hold(&self, job: &JobName, wish: Wish) -> Result<(), BackendError> {
        let doing = wish.doing();
        let workload = self.workload_of(job).await.map_err(|t| t.error(doing))?;
        let Some(workload) = workload else {
            return Err(refused(doing, "Kueue has not seen the job yet: ask again in a moment"));
        };
        let active = wish == Wish::Resume;
        self.set_active(job, &workload, active)
            .await
            .map_err(|t| t.error(doing))?;
        // What goes on may have to queue again; what is held is held when its pods are told to go.
        if active
            || self
                .reached(job, doing, |object| object["spec"]["suspend"] == true)
                .await?
        {
            return Ok(());
        }
        Err(refused(
            doing,
            "Kueue does not let go of the job: is its controller up?",
        ))
    }

    async fn set_field(&self, job: &JobName, wish: Wish) -> Result<(), BackendError> {
        let doing = wish.doing();
        let change = json!({"spec": {"suspend": wish == Wish::Suspend}});
        let place = job_kind(job.flavor).within(&job.namespace);
        self.calls
            .merge(place, &job.name, &change)
            .await
            .map(drop)
            .map_err(|t| t.error(doing))
    }

    /// Waits until the job's object is so. A job that goes meanwhile is an error.
    async fn reached(
        &self,
        job: &JobName,
        doing: &'static str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<bool, BackendError> {
        let mut gone = false;
        let watched = self.calls.wait_for(job, HEARD, |object| {
            gone = object.is_none();
            object.is_none_or(&is)
        });
        let reached = watched.await.map_err(|t| t.error(doing))?;
        if gone {
            return Err(refused(doing, format!("{} went meanwhile", job.name)));
        }
        Ok(reached)
    }
}
