//! What the user may do, asked before anything is made. Owns the list of rights that each flavour needs, and the reading of the
//! server's rules; a right that only makes answers better is told, and nothing fails for it.

use super::connect::Cluster;
use super::kinds::{self, Kind, job_kind};
use super::trouble::Trouble;
use crate::{Flavor, NAME};
use bridgehead_backend::BackendError;
use serde_json::{Value, json};

/// A verb on a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Right {
    kind: Kind,
    /// The part of the object, `log` for instance; empty for the object.
    part: &'static str,
    verb: &'static str,
    /// Without it a gang cannot be run; else what is lost.
    lost: Option<&'static str>,
}

const POD_LOG: &str = "log";
const FORWARD: &str = "portforward";

/// The rights for a flavour, those that are needed first.
fn of(flavor: Flavor, kueue: bool) -> Vec<Right> {
    let right = |kind, part, lost, verbs: &[&'static str]| {
        let one = |verb: &&'static str| Right { kind, part, verb, lost };
        verbs.iter().map(one).collect::<Vec<_>>()
    };
    let mut all = right(
        job_kind(flavor),
        "",
        None,
        &["create", "get", "list", "watch", "delete"],
    );
    for kind in [kinds::SECRET, kinds::SERVICE] {
        all.extend(right(kind, "", None, &["create", "get", "patch", "delete"]));
    }
    all.extend(right(kinds::POD, "", None, &["get", "list", "watch"]));
    all.extend(right(
        kinds::POD,
        FORWARD,
        Some("results and files of a run without a volume cannot be fetched"),
        &["create"],
    ));
    all.extend(right(
        kinds::POD,
        POD_LOG,
        Some("logs of pods cannot be read"),
        &["get"],
    ));
    all.extend(right(
        kinds::EVENT,
        "",
        Some("it cannot be told why a job waits"),
        &["list"],
    ));
    match flavor {
        Flavor::Volcano => {
            all.extend(right(kinds::COMMAND, "", Some("jobs cannot be suspended"), &["create"]));
            all.extend(right(
                kinds::POD_GROUP,
                "",
                Some("it cannot be told why a job waits"),
                &["get"],
            ));
            all.extend(right(kinds::QUEUE, "", Some("the queue cannot be seen"), &["get"]));
        }
        _ if kueue => {
            let lost = Some("it cannot be told why a job waits, and it cannot be suspended");
            all.extend(right(kinds::WORKLOAD, "", lost, &["list", "patch"]));
        }
        _ => all.extend(right(
            job_kind(flavor),
            "",
            Some("jobs cannot be suspended"),
            &["patch"],
        )),
    }
    all
}

impl Right {
    /// As kubectl's `auth can-i` takes it.
    fn resource(&self) -> String {
        if self.part.is_empty() {
            self.kind.words()
        } else {
            format!("{}/{}", self.kind.words(), self.part)
        }
    }

    /// Whether a rule of the server gives it. A rule for some names only gives nothing: our names are new.
    fn is_in(&self, rule: &Value) -> bool {
        let has = |list: &Value, fits: &dyn Fn(&str) -> bool| {
            list.as_array().is_some_and(|all| {
                all.iter()
                    .filter_map(Value::as_str)
                    .any(|word| word == "*" || fits(word))
            })
        };
        let name = if self.part.is_empty() {
            self.kind.plural.to_owned()
        } else {
            format!("{}/{}", self.kind.plural, self.part)
        };
        let any_kind = format!("*/{}", self.part);
        let resource = |word: &str| word == name || (!self.part.is_empty() && word == any_kind);
        has(&rule["verbs"], &|verb| verb == self.verb)
            && has(&rule["apiGroups"], &|group| group == self.kind.group)
            && has(&rule["resources"], &resource)
            && rule["resourceNames"].as_array().is_none_or(Vec::is_empty)
    }
}

/// Rights by resource, in one line: `create, delete secrets; get pods/log`.
fn in_words(rights: &[Right]) -> String {
    let mut lines: Vec<(String, Vec<&str>)> = Vec::new();
    for right in rights {
        let resource = right.resource();
        match lines.iter_mut().find(|(known, _)| *known == resource) {
            Some((_, verbs)) => verbs.push(right.verb),
            None => lines.push((resource, vec![right.verb])),
        }
    }
    let lines: Vec<String> = lines
        .iter()
        .map(|(what, verbs)| format!("{} {what}", verbs.join(", ")))
        .collect();
    lines.join("; ")
}

/// What an answer to a review of rules lacks, and whether it is the whole truth.
fn lacking(wanted: &[Right], review: &Value) -> (Vec<Right>, bool) {
    let rules = review["status"]["resourceRules"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let lacks = |right: &&Right| !rules.iter().any(|rule| right.is_in(rule));
    let whole = review["status"]["incomplete"] != true && review["status"].is_object();
    (wanted.iter().filter(lacks).copied().collect(), whole)
}

impl Cluster {
    /// Those of `wanted` that the user lacks: one call, and where the server does not know all its rules one more for each
    /// right that they do not give.
    async fn lacks(&self, namespace: &str, wanted: &[Right]) -> Result<Vec<Right>, Trouble> {
        let ask = json!({
            "apiVersion": kinds::RULES_REVIEW.api_version(), "kind": kinds::RULES_REVIEW.kind, "spec": {"namespace": namespace},
        });
        let review = self.calls.create(kinds::RULES_REVIEW.everywhere(), &ask).await?;
        let (unsure, whole) = lacking(wanted, &review);
        if whole {
            return Ok(unsure);
        }
        let mut missing = Vec::new();
        for right in unsure {
            let mut attributes = json!({
                "namespace": namespace, "verb": right.verb, "group": right.kind.group, "resource": right.kind.plural,
            });
            if !right.part.is_empty() {
                attributes["subresource"] = right.part.into();
            }
            let ask = json!({
                "apiVersion": kinds::ACCESS_REVIEW.api_version(), "kind": kinds::ACCESS_REVIEW.kind,
                "spec": {"resourceAttributes": attributes},
            });
            let answer = self.calls.create(kinds::ACCESS_REVIEW.everywhere(), &ask).await?;
            if answer["status"]["allowed"] != true {
                missing.push(right);
            }
        }
        Ok(missing)
    }

    /// Refuses where a right is missing that a gang needs; gives what is lost for want of the others, as sentences.
    pub(crate) async fn check_rights(&self, flavor: Flavor, namespace: &str) -> Result<Vec<String>, BackendError> {
        let wanted = of(flavor, self.features.kueue.is_some());
        let missing = self.lacks(namespace, &wanted).await;
        let missing = missing.map_err(|trouble| trouble.error("tell what you may do"))?;
        let (less, needed): (Vec<Right>, Vec<Right>) = missing.into_iter().partition(|right| right.lost.is_some());
        if !needed.is_empty() {
            return Err(BackendError::Denied {
                backend: NAME,
                doing: "submit",
                reason: format!(
                    "in namespace {namespace} (context {}) these rights are missing: {}; see deploy/kubernetes/role.yaml",
                    self.context,
                    in_words(&needed)
                ),
            });
        }
        let sentence = |right: &Right| {
            let lost = right.lost.unwrap_or_default();
            format!("no right to {} {}: {lost}", right.verb, right.resource())
        };
        Ok(less.iter().map(sentence).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn review(rules: Value) -> Value {
        json!({"status": {"resourceRules": rules, "incomplete": false}})
    }

    #[test]
    fn an_administrator_lacks_nothing_and_a_stranger_all() {
        let wanted = of(Flavor::Volcano, false);
        let all = review(json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]));
        assert_eq!(lacking(&wanted, &all), (vec![], true));
        assert_eq!(lacking(&wanted, &review(json!([]))), (wanted.clone(), true));
        assert!(!lacking(&wanted, &json!({"status": {"incomplete": true}})).1);
    }

    #[test]
    fn what_is_missing_is_said_as_kubectl_would() {
        let wanted = of(Flavor::Volcano, false);
        let rules = review(json!([
            {"verbs": ["*"], "apiGroups": ["batch.volcano.sh"], "resources": ["jobs"]},
            {"verbs": ["get", "list", "watch"], "apiGroups": [""], "resources": ["pods", "*/log"]},
            {"verbs": ["create", "patch"], "apiGroups": [""], "resources": ["secrets"]},
            {"verbs": ["get", "delete"], "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["one"]},
            {"verbs": ["create", "get", "patch", "delete"], "apiGroups": [""], "resources": ["services"]},
        ]));
        let words = in_words(&lacking(&wanted, &rules).0);
        assert_eq!(
            words,
            "get, delete secrets; create pods/portforward; list events; create commands.bus.volcano.sh; \
             get podgroups.scheduling.volcano.sh; get queues.scheduling.volcano.sh"
        );
    }
}
