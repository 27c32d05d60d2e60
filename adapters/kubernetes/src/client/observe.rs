//! Where many jobs stand, with one list for each flavour and namespace. Owns the rule that a job is known by its uid: another of the
//! same name is another job. Only jobs that wait or failed are asked about further (`why`), and of those the first few.

use super::connect::Cluster;
use super::kinds::{job_kind, ours};
use super::phases;
use super::reference::JobName;
use crate::{Flavor, SUSPENDED};
use bridgehead_backend::{BackendError, JobRef, JobReport, JobState};
use serde_json::Value;
use std::collections::BTreeMap;

/// Jobs whose reasons are looked for in one call; each costs some calls of its own.
const REASONS: usize = 8;

impl Cluster {
    /// Reports in the order of `jobs`. What is no reference of ours, or is not there, is unknown.
    pub(crate) async fn reports(&self, jobs: &[JobRef]) -> Result<Vec<JobReport>, BackendError> {
        let names: Vec<Option<JobName>> = jobs.iter().map(JobName::read).collect();
        let objects = self.objects(&names).await?;
        let mut reports = Vec::with_capacity(jobs.len());
        let mut explained = 0;
        for name in &names {
            let found = name.as_ref().and_then(|name| Some((name, objects.get(&name.uid)?)));
            let Some((name, object)) = found else {
                reports.push(JobReport::of(JobState::Unknown));
                continue;
            };
            let standing = phases::of(name.flavor, object);
            let worth =
                standing.state == JobState::Pending || standing.word == "Failed" || standing.word == "Terminated";
            let mut reason = String::new();
            if worth && explained < REASONS {
                explained += 1;
                reason = self.reason(name, object).await;
            }
            // What Kueue holds for the user only its Workload tells, which the reason was read from.
            let suspended = standing.suspended || reason.starts_with("suspended");
            reports.push(JobReport {
                state: standing.state,
                word: if suspended { SUSPENDED.to_owned() } else { standing.word },
                reason,
                nodes: String::new(),
            });
        }
        Ok(reports)
    }

    /// The objects of all those jobs, by uid.
    async fn objects(&self, names: &[Option<JobName>]) -> Result<BTreeMap<String, Value>, BackendError> {
        let mut places: Vec<(Flavor, &str)> = Vec::new();
        for name in names.iter().flatten() {
            let place = (name.flavor, name.namespace.as_str());
            if !places.contains(&place) {
                places.push(place);
            }
        }
        let mut objects = BTreeMap::new();
        for (flavor, namespace) in places {
            let listed = self.calls.list(job_kind(flavor).within(namespace), &ours(), "").await;
            let listed = match listed {
                Err(trouble) if trouble.is_absent() => Vec::new(), // The flavour's kind is gone, and its jobs with it.
                other => other.map_err(|trouble| trouble.error("observe jobs"))?,
            };
            for object in listed {
                if let Some(uid) = object["metadata"]["uid"].as_str().map(str::to_owned) {
                    objects.insert(uid, object);
                }
            }
        }
        Ok(objects)
    }
}
