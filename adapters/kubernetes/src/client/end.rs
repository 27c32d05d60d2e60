//! The end of a job, and what a job leaves. Owns the order (the job, then what belongs to it), the deadline, and the rule for what
//! may be removed: it carries our label and belongs to this job or to none.

use super::connect::Cluster;
use super::kinds::{self, FLAVORS, Kind, MANAGED_BY, job_kind, ours};
use super::reference::JobName;
use super::trouble::{Trouble, refused};
use bridgehead_backend::BackendError;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const CANCEL: &str = "cancel";
/// How long a job may take to go: pods have 30 s from their first signal to the last.
const GONE: Duration = Duration::from_secs(60);
/// Waits between two looks at what is left.
const LOOKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// Most pieces of a bundle that are looked for: as many as a gang may have.
const PIECES: usize = 1000;
/// What a client made within this time may still get its job.
const FRESH: SignedDuration = SignedDuration::from_mins(10);

impl Cluster {
    /// Deletes a job and waits until it, its pods and what belongs to it are gone.
    pub(crate) async fn cancel_job(&self, job: &JobName) -> Result<(), BackendError> {
        let deadline = Instant::now() + GONE;
        let side = self
            .side_of(&job.namespace, &job.name, Some(&job.uid))
            .await
            .map_err(|t| t.error(CANCEL))?;
        let place = job_kind(job.flavor).within(&job.namespace);
        // Another job may have the name by now: then this one is gone, and the pods of that name are not its own.
        let another = match self.calls.remove_whole(place, &job.name, &job.uid).await {
            Err(trouble) if trouble.code() == Some(409) => true,
            other => other.map(|()| false).map_err(|t| t.error(CANCEL))?,
        };
        let gone = self.calls.wait_for(job, GONE, |object| object.is_none()).await;
        let gone = gone.map_err(|t| t.error(CANCEL))?;
        for (kind, name) in side {
            self.calls
                .remove(kind.within(&job.namespace), &name)
                .await
                .map_err(|t| t.error(CANCEL))?;
        }
        if gone && (another || self.pods_gone(job, deadline).await.map_err(|t| t.error(CANCEL))?) {
            return Ok(());
        }
        let words = format!(
            "{} is being deleted, and {} s were not enough: a node that does not answer holds its pods; ask again later, or tell the \
             cluster's administrator",
            job.name,
            GONE.as_secs()
        );
        Err(refused(CANCEL, words))
    }

    async fn pods_gone(&self, job: &JobName, deadline: Instant) -> Result<bool, Trouble> {
        let mut wait = LOOKS.0;
        loop {
            if self.pods(job).await?.is_empty() {
                return Ok(true);
            }
            if Instant::now() + wait > deadline {
                return Ok(false);
            }
            tokio::time::sleep(wait).await; // Between two questions; the condition is looked at after it.
            wait = (wait * 2).min(LOOKS.1);
        }
    }

    /// What belongs to the job of this name: by name, since few users may list secrets. The last piece of a bundle is first, so that
    /// a removal that is cut off leaves pieces without a gap, which are found again.
    async fn side_of(&self, namespace: &str, name: &str, owner: Option<&str>) -> Result<Vec<(Kind, String)>, Trouble> {
        let mut found = Vec::new();
        let fixed = [
            (kinds::SERVICE, name.to_owned()),
            (kinds::SECRET, format!("{name}-run")),
        ];
        for (kind, name) in fixed {
            if self.belongs(kind, namespace, &name, owner).await? == Some(true) {
                found.push((kind, name));
            }
        }
        for piece in 0..PIECES {
            let name = format!("{name}-code-{piece}");
            match self.belongs(kinds::SECRET, namespace, &name, owner).await? {
                Some(true) => found.push((kinds::SECRET, name)),
                Some(false) => {}
                None => break,
            }
        }
        found.reverse();
        Ok(found)
    }

    /// Whether an object is ours and of no other job; `None` where there is no such object.
    async fn belongs(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
        owner: Option<&str>,
    ) -> Result<Option<bool>, Trouble> {
        let object = self.calls.find_meta(kind.within(namespace), name).await?;
        Ok(object.map(|object| is_left(&object, owner)))
    }

    /// Removes what jobs that are not there have left: of these names, and where the user may list services, of all that are
    /// older than some minutes. Gives what was removed.
    pub(crate) async fn sweep_names(&self, names: &[String]) -> Result<Vec<String>, BackendError> {
        const SWEEP: &str = "remove what jobs have left";
        let mut names = names.to_vec();
        let listed = self
            .calls
            .list(kinds::SERVICE.within(&self.namespace), &ours(), "")
            .await;
        for service in listed.unwrap_or_default() {
            let name = service["metadata"]["name"].as_str().unwrap_or_default();
            if is_left(&service, None) && is_old(&service, Timestamp::now()) && !names.iter().any(|known| known == name)
            {
                names.push(name.to_owned());
            }
        }
        let mut removed = Vec::new();
        for name in &names {
            if self.has_job(name).await.map_err(|t| t.error(SWEEP))? {
                continue;
            }
            let side = self
                .side_of(&self.namespace, name, None)
                .await
                .map_err(|t| t.error(SWEEP))?;
            for (kind, name) in side {
                self.calls
                    .remove(kind.within(&self.namespace), &name)
                    .await
                    .map_err(|t| t.error(SWEEP))?;
                removed.push(format!("{}/{name}", kind.plural));
            }
        }
        Ok(removed)
    }

    /// Whether a job of this name is there, of whatever flavour. One that the user may not see counts as there.
    async fn has_job(&self, name: &str) -> Result<bool, Trouble> {
        for flavor in FLAVORS
            .into_iter()
            .filter(|flavor| self.features.flavors.contains(flavor))
        {
            match self.calls.find(job_kind(flavor).within(&self.namespace), name).await {
                Ok(None) => {}
                Ok(Some(_)) => return Ok(true),
                Err(trouble) if trouble.code() == Some(403) => return Ok(true),
                Err(trouble) => return Err(trouble),
            }
        }
        Ok(false)
    }
}

/// Whether an object is ours and belongs to nobody, or to the job of this uid.
fn is_left(object: &Value, owner: Option<&str>) -> bool {
    let metadata = &object["metadata"];
    let owners = metadata["ownerReferences"].as_array().map_or(&[][..], Vec::as_slice);
    let free = owners.iter().all(|one| owner.is_some_and(|uid| one["uid"] == uid));
    metadata["labels"][MANAGED_BY.0] == MANAGED_BY.1 && free
}

fn is_old(object: &Value, now: Timestamp) -> bool {
    let made = object["metadata"]["creationTimestamp"]
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok());
    made.is_some_and(|made| now.duration_since(made) > FRESH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_is_ours_and_of_no_other_job_is_removed() {
        let object = |label: &str, owners: Value| json!({"metadata": {"labels": {MANAGED_BY.0: label}, "ownerReferences": owners}});
        assert!(is_left(&object("bridgehead", json!([])), None));
        assert!(is_left(&object("bridgehead", json!([{"uid": "u"}])), Some("u")));
        assert!(!is_left(&object("bridgehead", json!([{"uid": "u"}])), Some("v")));
        assert!(!is_left(&object("bridgehead", json!([{"uid": "u"}])), None));
        assert!(!is_left(&object("helm", json!([])), None));
        assert!(!is_left(&json!({}), None));
    }

    #[test]
    fn what_was_made_just_now_may_still_get_its_job() {
        let now: Timestamp = "2026-11-30T08:00:00Z".parse().unwrap();
        let made = |at: &str| json!({"metadata": {"creationTimestamp": at}});
        assert!(is_old(&made("2026-11-30T07:49:00Z"), now));
        assert!(!is_old(&made("2026-11-30T07:51:00Z"), now));
        assert!(!is_old(&made("yesterday"), now));
    }
}
