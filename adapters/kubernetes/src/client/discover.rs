//! What a cluster serves, and the flavour that follows. Owns the choice; it is made by what discovery tells, never by versions.

use super::calls::Calls;
use super::kinds::{FLAVORS, Kind, job_kind, word};
use super::trouble::Trouble;
use crate::{Flavor, NAME};
use bridgehead_backend::BackendError;
use serde_json::Value;

/// One document for all groups, and for servers before 1.27 the list of groups alone.
const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
                      application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";

/// What a cluster serves that matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Features {
    /// The flavours whose kind it has.
    pub flavors: Vec<Flavor>,
    /// It is OpenShift, which gives user ids itself.
    pub openshift: bool,
    /// The version of Kueue's API, where Kueue is there.
    pub kueue: Option<&'static str>,
}

/// Asks for it, with one call.
pub(crate) async fn ask(calls: &Calls) -> Result<Features, Trouble> {
    let document = calls.document("/apis", ACCEPT).await?;
    Ok(read(&document))
}

/// Whether a document of discovery, of either form, has a kind.
fn has(document: &Value, kind: &Kind) -> bool {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let aggregated = list(&document["items"]).iter().any(|group| {
        group["metadata"]["name"] == kind.group
            && list(&group["versions"]).iter().any(|version| {
                version["version"] == kind.version
                    && list(&version["resources"]).iter().any(|r| r["resource"] == kind.plural)
            })
    });
    let plain = list(&document["groups"]).iter().any(|group| {
        group["name"] == kind.group && list(&group["versions"]).iter().any(|v| v["version"] == kind.version)
    });
    aggregated || plain
}

/// A group in any version.
fn has_group(document: &Value, name: &str) -> bool {
    let named =
        |list: &Value, at: fn(&Value) -> &Value| list.as_array().is_some_and(|all| all.iter().any(|g| at(g) == name));
    named(&document["items"], |group| &group["metadata"]["name"]) || named(&document["groups"], |group| &group["name"])
}

fn read(document: &Value) -> Features {
    let workload = |version| Kind {
        version,
        ..super::kinds::WORKLOAD
    };
    Features {
        flavors: FLAVORS
            .into_iter()
            .filter(|flavor| has(document, &job_kind(*flavor)))
            .collect(),
        openshift: has_group(document, "security.openshift.io"),
        kueue: ["v1beta2", "v1beta1"]
            .into_iter()
            .find(|version| has(document, &workload(version))),
    }
}

impl Features {
    /// The flavour to use, and why: the one asked for, else the first that the cluster has.
    ///
    /// # Errors
    /// The cluster lacks it; the words name those that it has.
    pub(crate) fn choose(&self, asked: Option<Flavor>) -> Result<(Flavor, String), BackendError> {
        let has: Vec<&str> = self.flavors.iter().copied().map(word).collect();
        let has = if has.is_empty() {
            "none of ours".to_owned()
        } else {
            has.join(", ")
        };
        if let Some(flavor) = asked {
            if self.flavors.contains(&flavor) {
                return Ok((flavor, "asked for".to_owned()));
            }
            let reason = format!(
                "the cluster has no {} ({}): it can do {has}; choose with --flavor, or have it installed",
                job_kind(flavor).words(),
                word(flavor)
            );
            return Err(BackendError::Unfit { backend: NAME, reason });
        }
        let flavor = self
            .flavors
            .iter()
            .copied()
            .find(|flavor| *flavor != Flavor::CodeEngine);
        let Some(flavor) = flavor else {
            let reason = format!("the cluster lets nobody make gangs here: it can do {has}; choose with --flavor");
            return Err(BackendError::Unfit { backend: NAME, reason });
        };
        Ok((flavor, self.because(flavor)))
    }

    fn because(&self, flavor: Flavor) -> String {
        let kueue = if self.kueue.is_some() {
            "Kueue is there"
        } else {
            "there is no Kueue"
        };
        match flavor {
            Flavor::Volcano => "the cluster has Volcano".to_owned(),
            Flavor::Kueue => format!("the cluster has JobSet and no Volcano; {kueue}"),
            Flavor::AppWrapper => format!("the cluster has AppWrapper and neither Volcano nor JobSet; {kueue}"),
            Flavor::IndexedJob => {
                format!("the cluster has plain Jobs only, which do not wait for the whole gang; {kueue}")
            }
            Flavor::CodeEngine => "the cluster is Code Engine".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn group(name: &str, version: &str, resource: &str) -> Value {
        json!({"metadata": {"name": name}, "versions": [{"version": version, "resources": [{"resource": resource}]}]})
    }

    #[test]
    fn both_forms_of_discovery_say_the_same() {
        let aggregated = json!({"items": [
            group("batch", "v1", "jobs"),
            group("batch.volcano.sh", "v1alpha1", "jobs"),
            group("kueue.x-k8s.io", "v1beta1", "workloads"),
            group("security.openshift.io", "v1", "securitycontextconstraints"),
        ]});
        let plain = |name: &str, version: &str| json!({"name": name, "versions": [{"version": version}]});
        let old = json!({"groups": [
            plain("batch", "v1"),
            plain("batch.volcano.sh", "v1alpha1"),
            plain("kueue.x-k8s.io", "v1beta1"),
            plain("security.openshift.io", "v1"),
        ]});
        let features = read(&aggregated);
        assert_eq!(features.flavors, [Flavor::Volcano, Flavor::IndexedJob]);
        assert_eq!(features.kueue, Some("v1beta1"));
        assert!(features.openshift);
        assert_eq!(read(&old), features);
        assert_eq!(read(&json!("nonsense")), Features::default());
    }

    #[test]
    fn a_flavour_that_the_cluster_lacks_is_refused_with_those_it_has() {
        let features =
            read(&json!({"items": [group("batch", "v1", "jobs"), group("jobset.x-k8s.io", "v1alpha2", "jobsets")]}));
        assert_eq!(features.choose(None).unwrap().0, Flavor::Kueue);
        assert_eq!(features.choose(Some(Flavor::IndexedJob)).unwrap().0, Flavor::IndexedJob);
        let error = features.choose(Some(Flavor::Volcano)).unwrap_err().to_string();
        assert!(
            error.contains("jobs.batch.volcano.sh") && error.contains("kueue, indexed-job"),
            "{error}"
        );
        let error = Features::default().choose(None).unwrap_err().to_string();
        assert!(error.contains("none of ours"), "{error}");
    }
}
