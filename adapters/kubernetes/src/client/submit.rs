//! Handing a gang over: once and only once. Owns the order (what belongs to the job, the job, then who owns what), the rule for a
//! name that is taken, and the removal of what a refused job would leave.

use super::connect::Cluster;
use super::kinds::{self, HASH, Kind, job_kind};
use super::reference::JobName;
use super::trouble::{Trouble, refused};
use crate::{Manifest, SecretData};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bridgehead_backend::{BackendError, JobRef};
use serde_json::{Value, json};

const SUBMIT: &str = "submit";

/// A job that has the manifest's name.
enum Holder {
    Nobody,
    Ours(JobName),
    Another(String),
}

impl Cluster {
    /// Makes the job of a manifest, or finds the one that an earlier try made.
    pub(crate) async fn submit(&self, manifest: &Manifest, data: &SecretData) -> Result<JobRef, BackendError> {
        // Looked for first: what belongs to another job of that name must not be touched, nor the secrets of our own that runs.
        let job = match self.holder(manifest).await.map_err(|t| t.error(SUBMIT))? {
            Holder::Another(words) => return Err(refused(SUBMIT, words)),
            Holder::Ours(job) => job,
            Holder::Nobody => {
                self.check_rights(manifest.flavor, &manifest.namespace).await?;
                self.make(manifest, data).await?
            }
        };
        let owned = self.own(manifest, &job).await;
        owned.map_err(|t| t.error("give the job its secrets and its service"))?;
        Ok(job.reference())
    }

    /// The job of a manifest, where it is at the cluster, in whatever state.
    pub(crate) async fn find_job(&self, manifest: &Manifest) -> Result<Option<JobRef>, BackendError> {
        match self.holder(manifest).await.map_err(|t| t.error("look for a job"))? {
            Holder::Ours(job) => Ok(Some(job.reference())),
            Holder::Nobody | Holder::Another(_) => Ok(None),
        }
    }

    async fn holder(&self, manifest: &Manifest) -> Result<Holder, Trouble> {
        let kind = job_kind(manifest.flavor);
        let found = self
            .calls
            .find(kind.within(&manifest.namespace), &manifest.name)
            .await?;
        Ok(found.map_or(Holder::Nobody, |object| holder(manifest, &object)))
    }

    /// What belongs to the job, then the job. A refusal leaves nothing behind; a lost answer leaves all of it for the next try.
    async fn make(&self, manifest: &Manifest, data: &SecretData) -> Result<JobName, BackendError> {
        let mut side = Vec::new();
        for object in &manifest.side {
            side.push(side_object(manifest, object, data).map_err(|words| refused(SUBMIT, words))?);
        }
        for (kind, name, object) in &side {
            let place = kind.within(&manifest.namespace);
            if let Err(trouble) = self.calls.apply(place, name, object).await {
                return Err(self.give_up(manifest, &side, trouble).await);
            }
        }
        let place = job_kind(manifest.flavor).within(&manifest.namespace);
        let trouble = match self.calls.create(place, &manifest.job).await {
            Ok(object) => {
                return job_name(manifest, &object).ok_or_else(|| refused(SUBMIT, "the job was made without a uid"));
            }
            Err(trouble) => trouble,
        };
        // Somebody has the name: ourselves, where an answer was lost or kube asked again; or another client this very moment.
        if !trouble.is_final() || trouble.code() == Some(409) {
            match self.holder(manifest).await {
                Ok(Holder::Ours(job)) => return Ok(job),
                Ok(Holder::Another(words)) => return Err(refused(SUBMIT, words)),
                Ok(Holder::Nobody) | Err(_) => {}
            }
        }
        Err(self.give_up(manifest, &side, trouble).await)
    }

    /// The error for what went wrong, after the removal of what was made where that is for good.
    async fn give_up(&self, manifest: &Manifest, side: &[(Kind, String, Value)], trouble: Trouble) -> BackendError {
        if !trouble.is_final() {
            return trouble.error(SUBMIT);
        }
        let mut left = Vec::new();
        for (kind, name, _) in side.iter().rev() {
            let place = kind.within(&manifest.namespace);
            if self.calls.remove(place, name).await.is_err() {
                left.push(format!("{}/{name}", kind.plural));
            }
        }
        let mut words = refusal(manifest, &trouble);
        if !left.is_empty() {
            words = format!(
                "{words}; left behind in namespace {}: {}",
                manifest.namespace,
                left.join(", ")
            );
        }
        match trouble.error(SUBMIT) {
            BackendError::Denied { backend, doing, .. } => BackendError::Denied {
                backend,
                doing,
                reason: words,
            },
            _ => refused(SUBMIT, words),
        }
    }

    /// Makes the job the owner of what belongs to it, so that it goes with the job. What is gone already needs no owner.
    async fn own(&self, manifest: &Manifest, job: &JobName) -> Result<(), Trouble> {
        let change = json!({"metadata": {"ownerReferences": [owner(job)]}});
        for object in &manifest.side {
            let Some((kind, name)) = side_name(object) else {
                continue;
            };
            match self.calls.merge(kind.within(&job.namespace), &name, &change).await {
                Err(trouble) if !trouble.is_absent() => return Err(trouble),
                _ => {}
            }
        }
        Ok(())
    }
}

/// The reference to a job as an owner. It never blocks the owner's deletion: that would take rights on the job's finalizers.
pub(crate) fn owner(job: &JobName) -> Value {
    let kind = job_kind(job.flavor);
    json!({"apiVersion": kind.api_version(), "kind": kind.kind, "name": job.name, "uid": job.uid, "controller": false})
}

fn job_name(manifest: &Manifest, object: &Value) -> Option<JobName> {
    Some(JobName {
        flavor: manifest.flavor,
        namespace: manifest.namespace.clone(),
        name: manifest.name.clone(),
        uid: object["metadata"]["uid"].as_str()?.to_owned(),
    })
}

/// Whose the job is that has the name.
fn holder(manifest: &Manifest, object: &Value) -> Holder {
    let ours = object["metadata"]["annotations"][HASH] == manifest.hash.as_str();
    match job_name(manifest, object) {
        Some(job) if ours => Holder::Ours(job),
        _ => {
            let kind = job_kind(manifest.flavor);
            Holder::Another(format!(
                "{} {} in namespace {} is another job, or this run with other options: cancel that one first",
                kind.kind, manifest.name, manifest.namespace
            ))
        }
    }
}

/// The kind and the name of an object that belongs to a job.
fn side_name(object: &Value) -> Option<(Kind, String)> {
    let kind = [kinds::SECRET, kinds::SERVICE]
        .into_iter()
        .find(|kind| object["kind"] == kind.kind)?;
    Some((kind, object["metadata"]["name"].as_str()?.to_owned()))
}

/// The same with the data that a Secret gets.
fn side_object(manifest: &Manifest, object: &Value, data: &SecretData) -> Result<(Kind, String, Value), String> {
    let (kind, name) =
        side_name(object).ok_or_else(|| format!("the manifest of {} has a strange object", manifest.name))?;
    let mut object = object.clone();
    if let Some(values) = data.0.get(&name).filter(|_| kind == kinds::SECRET) {
        let coded = values
            .iter()
            .map(|(key, bytes)| (key.clone(), STANDARD.encode(bytes).into()));
        object["data"] = Value::Object(coded.collect());
    }
    Ok((kind, name, object))
}

/// Why a job was not taken, with the way out.
fn refusal(manifest: &Manifest, trouble: &Trouble) -> String {
    let Trouble::Api { code, message, .. } = trouble else {
        return match trouble.clone().error(SUBMIT) {
            BackendError::Unfit { reason, .. }
            | BackendError::Refused { reason, .. }
            | BackendError::Denied { reason, .. }
            | BackendError::Unreachable { reason, .. } => reason,
        };
    };
    let out = match code {
        404 if message.contains("namespaces") => {
            return format!(
                "there is no namespace {}: choose one with --namespace",
                manifest.namespace
            );
        }
        404 => "; the cluster may have lost the scheduler of this --flavor",
        403 if message.contains("exceeded quota") => "; ask for less, or wait until the namespace's quota has room",
        403 if message.contains("PodSecurity") => "; the namespace does not allow such pods",
        _ if message.contains("queue") => "; choose another --queue, or have that one opened",
        _ if message.contains("failed calling webhook") => "; a webhook of the cluster is down: tell its administrator",
        _ => "",
    };
    let message: String = message.chars().take(1000).collect();
    format!("{message}{out}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flavor;

    fn manifest() -> Manifest {
        Manifest {
            flavor: Flavor::Volcano,
            namespace: "hpc".to_owned(),
            name: "bh-a".to_owned(),
            hash: "abc".to_owned(),
            job: json!({}),
            side: vec![],
            text: String::new(),
        }
    }

    #[test]
    fn a_secret_gets_its_data_coded_and_a_service_none() {
        let mut data = SecretData::default();
        data.0
            .entry("bh-a-run".to_owned())
            .or_default()
            .insert("ticket".to_owned(), b"hello".to_vec());
        let secret = json!({"kind": "Secret", "metadata": {"name": "bh-a-run"}});
        let (_, name, object) = side_object(&manifest(), &secret, &data).unwrap();
        assert_eq!(
            (name.as_str(), &object["data"]["ticket"]),
            ("bh-a-run", &json!("aGVsbG8="))
        );
        let service = json!({"kind": "Service", "metadata": {"name": "bh-a-run"}});
        assert_eq!(side_object(&manifest(), &service, &data).unwrap().2, service);
        assert!(side_object(&manifest(), &json!({"kind": "Pod", "metadata": {"name": "x"}}), &data).is_err());
    }

    #[test]
    fn a_job_is_ours_by_its_hash() {
        let object = |hash: &str| json!({"metadata": {"uid": "u", "annotations": {HASH: hash}}});
        assert!(matches!(holder(&manifest(), &object("abc")), Holder::Ours(job) if job.uid == "u"));
        assert!(matches!(holder(&manifest(), &object("abd")), Holder::Another(words) if words.contains("bh-a")));
    }

    #[test]
    fn refusals_say_the_way_out() {
        let api = |code, message: &str| Trouble::Api {
            code,
            message: message.to_owned(),
        };
        for (trouble, words) in [
            (api(403, "forbidden: exceeded quota: q"), "quota has room"),
            (api(404, "namespaces \"x\" not found"), "no namespace hpc"),
            (
                api(
                    400,
                    "denied the request: can only submit job to queue with state `Open`",
                ),
                "another --queue",
            ),
            (api(500, "failed calling webhook \"v\""), "administrator"),
        ] {
            let said = refusal(&manifest(), &trouble);
            assert!(said.contains(words), "{said}");
        }
    }
}
