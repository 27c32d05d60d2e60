//! Asks what the reasons of a job are read from: its pods, its group, its queue, the warnings. Owns the calls and their order; a right
//! that is missing makes the answer poorer and is no error.

use super::connect::Cluster;
use super::kinds::{self, KUEUE_QUEUE, Kind, job_kind, job_label};
use super::phases;
use super::reasons::{self, Look, Seen};
use super::reference::JobName;
use super::trouble::Trouble;
use crate::Flavor;
use bridgehead_backend::BackendError;
use serde_json::Value;

fn look(found: Result<Option<Value>, Trouble>) -> Look {
    match found {
        Ok(Some(object)) => Look::Is(object),
        Ok(None) => Look::Absent,
        Err(trouble) if trouble.code() == Some(403) => Look::NoRight,
        Err(_) => Look::Unasked,
    }
}

impl Cluster {
    /// Why the job waits or how it ended, the most telling sentence first.
    pub(crate) async fn why(&self, job: &JobName) -> Result<Vec<String>, BackendError> {
        let place = job_kind(job.flavor).within(&job.namespace);
        let found = self
            .calls
            .find(place, &job.name)
            .await
            .map_err(|t| t.error("look at the job"))?;
        match found.filter(|object| object["metadata"]["uid"] == job.uid.as_str()) {
            Some(object) => Ok(self.explain(job, object).await),
            None => Ok(vec![format!(
                "the cluster does not know {} {} any more",
                place.kind.kind, job.name
            )]),
        }
    }

    /// The same as one text, for the object that a list has shown.
    pub(crate) async fn reason(&self, job: &JobName, object: &Value) -> String {
        self.explain(job, object.clone())
            .await
            .into_iter()
            .next()
            .unwrap_or_default()
    }

    async fn explain(&self, job: &JobName, object: Value) -> Vec<String> {
        let standing = phases::of(job.flavor, &object);
        let seen = self.see(job, object).await;
        reasons::sentences(&seen, &standing)
    }

    async fn see(&self, job: &JobName, object: Value) -> Seen {
        let pods = self.pods(job).await;
        let warnings = self
            .calls
            .list(kinds::EVENT.within(&job.namespace), "", "type=Warning")
            .await;
        let blind = pods.is_err() || warnings.is_err();
        let pods = pods.unwrap_or_default();
        let group = self.group(job, &object).await;
        let queue = self.queue(job, &object).await;
        let mut uids: Vec<String> = pods.iter().map(uid).collect();
        uids.push(job.uid.clone());
        if let Look::Is(group) = &group {
            uids.push(uid(group));
        }
        let mut events = warnings.unwrap_or_default();
        events.retain(|event| {
            event["involvedObject"]["uid"]
                .as_str()
                .is_some_and(|uid| uids.iter().any(|one| one == uid))
        });
        // Stamps of one server in one zone: their order is that of the texts.
        events.sort_by_key(|event| event["lastTimestamp"].as_str().unwrap_or_default().to_owned());
        Seen {
            flavor: job.flavor,
            job: object,
            group,
            queue,
            pods,
            events,
            blind,
        }
    }

    /// The pods of a job, of this start of the gang and of none before it, in the order of their names.
    pub(crate) async fn pods(&self, job: &JobName) -> Result<Vec<Value>, Trouble> {
        let label = format!("{}={}", job_label(job.flavor), job.name);
        self.calls.list(kinds::POD.within(&job.namespace), &label, "").await
    }

    fn workload(&self) -> Option<Kind> {
        let version = self.features.kueue?;
        Some(Kind {
            version,
            ..kinds::WORKLOAD
        })
    }

    /// The Workload that Kueue made for a job.
    pub(crate) async fn workload_of(&self, job: &JobName) -> Result<Option<Value>, Trouble> {
        let Some(kind) = self.workload() else { return Ok(None) };
        let label = format!("kueue.x-k8s.io/job-uid={}", job.uid);
        Ok(self
            .calls
            .list(kind.within(&job.namespace), &label, "")
            .await?
            .into_iter()
            .next())
    }

    /// Has Kueue hold a job, or lets it go on.
    pub(crate) async fn set_active(&self, job: &JobName, workload: &Value, active: bool) -> Result<(), Trouble> {
        let kind = self
            .workload()
            .ok_or_else(|| Trouble::Broken("the cluster has no Kueue".to_owned()))?;
        let name = workload["metadata"]["name"].as_str().unwrap_or_default();
        let change = serde_json::json!({"spec": {"active": active}});
        self.calls
            .merge(kind.within(&job.namespace), name, &change)
            .await
            .map(drop)
    }

    async fn group(&self, job: &JobName, object: &Value) -> Look {
        match job.flavor {
            Flavor::Volcano => {
                let name = format!("{}-{}", job.name, job.uid);
                look(self.calls.find(kinds::POD_GROUP.within(&job.namespace), &name).await)
            }
            _ if is_queued(object) => look(self.workload_of(job).await),
            _ => Look::Unasked,
        }
    }

    async fn queue(&self, job: &JobName, object: &Value) -> Look {
        match job.flavor {
            Flavor::Volcano => {
                let name = object["spec"]["queue"]
                    .as_str()
                    .filter(|name| !name.is_empty())
                    .unwrap_or("default");
                look(self.calls.find(kinds::QUEUE.everywhere(), name).await)
            }
            _ => match (object["metadata"]["labels"][KUEUE_QUEUE].as_str(), self.features.kueue) {
                (Some(name), Some(version)) => {
                    let kind = Kind {
                        version,
                        ..kinds::LOCAL_QUEUE
                    };
                    look(self.calls.find(kind.within(&job.namespace), name).await)
                }
                _ => Look::Unasked,
            },
        }
    }
}

/// Whether Kueue holds the object's strings.
pub(crate) fn is_queued(object: &Value) -> bool {
    object["metadata"]["labels"][KUEUE_QUEUE].is_string()
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].as_str().unwrap_or_default().to_owned()
}
