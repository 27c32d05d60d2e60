//! The grammar of the options: what the types leave open. Owns the defaults, the limits and the words of their errors.

use crate::options::{KubernetesOptions, OptionError};
use crate::words::{is_key, is_label, is_label_value, is_subdomain, is_variable};
use bridgehead_spec::{parse_duration, parse_memory};
use serde_json::Value;

/// Memory for each core where nothing is said.
const MEMORY_PER_CPU: u64 = 2 << 30;
/// Restarts of a gang where nothing is said.
const RESTARTS: u32 = 3;
/// Restarts at most: with any number of pods the counts of every flavour stay in their range.
const MOST_RESTARTS: u32 = 1000;
/// Pods at most; their index in a pod's name has five digits.
const MOST_NODES: u32 = 100_000;
/// Bytes of one variable at most. The kernel refuses to start a program with one of 128 KiB.
const MOST_VARIABLE: usize = 32 << 10;
/// What we say in labels and annotations, and others must not.
const OWN_PREFIX: &str = "bridgehead.dev/";
/// Labels that we set besides.
const OWN_LABELS: [&str; 2] = ["app.kubernetes.io/managed-by", "sidecar.istio.io/inject"];

/// What the texts among the options mean; the rest is as in [`KubernetesOptions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) cpus: u32,
    pub(crate) memory: u64,
    pub(crate) shm: u64,
    pub(crate) time_s: Option<u64>,
    pub(crate) keep_s: u64,
    pub(crate) ttl_s: u64,
    pub(crate) restarts: u32,
}

impl KubernetesOptions {
    /// Checks what the types leave open. That an image is named is a gang's concern: options without one can be planned with.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub(crate) fn check(&self) -> Result<Checked, OptionError> {
        self.check_counts()?;
        self.check_names()?;
        self.check_maps()?;
        self.check_env()?;
        self.check_json()?;
        let cpus = self.cpus.unwrap_or(1);
        let memory = match &self.memory {
            Some(text) => bytes("memory", text)?,
            None => u64::from(cpus) * MEMORY_PER_CPU,
        };
        let shm = self.shm.as_deref().map_or(Ok(memory / 4), |text| bytes("shm", text))?;
        if shm > memory {
            return refuse(
                "shm",
                "is part of the pod's memory and more than it: ask for more memory or less shm",
            );
        }
        let keep_s = self.keep.as_deref().map_or(Ok(3600), |text| seconds("keep", text))?;
        Ok(Checked {
            cpus,
            memory,
            shm,
            time_s: self.time.as_deref().map(time).transpose()?,
            keep_s,
            ttl_s: self.ttl.as_deref().map_or(Ok(86_400), |text| seconds("ttl", text))?,
            restarts: self.restarts.unwrap_or(RESTARTS),
        })
    }

    fn check_counts(&self) -> Result<(), OptionError> {
        for (name, count) in [("nodes", self.nodes), ("cpus", self.cpus), ("gpus", self.gpus)] {
            if count == Some(0) {
                return refuse(name, "is at least 1; leave it out to ask for none");
            }
        }
        if self.nodes.is_some_and(|nodes| nodes > MOST_NODES) {
            return refuse("nodes", format!("is at most {MOST_NODES}: ask for several gangs"));
        }
        if self.cpus.is_some_and(|cpus| cpus > 1 << 20) {
            return refuse("cpus", "is more than any node has");
        }
        if self.restarts.is_some_and(|restarts| restarts > MOST_RESTARTS) {
            return refuse("restarts", format!("is at most {MOST_RESTARTS}"));
        }
        if self.run_as_user.is_some_and(|user| user < 1) {
            return refuse("run_as_user", "is at least 1: pods never run as root");
        }
        if self.fs_group.is_some_and(|group| group < 0) {
            return refuse("fs_group", "is a group id, 0 or more");
        }
        if self.keep.is_some() && self.volume.is_some() {
            return refuse(
                "keep",
                "is for runs without a volume; with one the results stay there: leave one out",
            );
        }
        if self.topology_required.is_some() && self.topology.is_none() {
            return refuse("topology_required", "says how, but not within what: give topology too");
        }
        Ok(())
    }

    fn check_names(&self) -> Result<(), OptionError> {
        let subdomains = [
            ("volume", &self.volume),
            ("priority", &self.priority),
            ("queue", &self.queue),
        ];
        for (name, text) in subdomains {
            if let Some(text) = text.as_deref().filter(|text| !is_subdomain(text) || text.len() > 63) {
                return refuse(
                    name,
                    format!("{text:?} is no name of an object: letters a-z, digits, dashes and dots, at most 63"),
                );
            }
        }
        if let Some(secret) = self.pull_secrets.iter().find(|secret| !is_subdomain(secret)) {
            return refuse("pull_secrets", format!("{secret:?} is no name of a Secret"));
        }
        if let Some(text) = self.namespace.as_deref().filter(|text| !is_label(text)) {
            return refuse("namespace", format!("{text:?} is no name of a namespace"));
        }
        for (name, text) in [
            ("image", &self.image),
            ("python", &self.python),
            ("context", &self.context),
        ] {
            if let Some(text) = text.as_deref().filter(|text| !is_plain(text)) {
                return refuse(
                    name,
                    format!("{text:?} is empty, or holds white space or a control character"),
                );
            }
        }
        match self.pull_policy.as_deref() {
            None | Some("Always" | "IfNotPresent" | "Never") => Ok(()),
            Some(other) => refuse(
                "pull_policy",
                format!("{other:?} is none of Always, IfNotPresent and Never"),
            ),
        }
    }

    fn check_maps(&self) -> Result<(), OptionError> {
        for (name, key) in [("gpu_resource", &self.gpu_resource), ("topology", &self.topology)] {
            if let Some(key) = key.as_deref().filter(|key| !is_key(key)) {
                return refuse(name, format!("{key:?} is neither name nor prefix/name"));
            }
        }
        for (key, count) in &self.resources {
            if !is_key(key) || *count == 0 {
                return refuse(
                    "resources",
                    format!("{key}={count} is no name of a resource with a number of at least 1"),
                );
            }
            if ["cpu", "memory", self.gpu_resource()].contains(&key.as_str()) {
                return refuse(
                    "resources",
                    format!("{key} has an option of its own: cpus, memory or gpus"),
                );
            }
        }
        for (name, labels) in [("labels", &self.labels), ("node_selector", &self.node_selector)] {
            let wrong = labels
                .iter()
                .find(|(key, value)| !is_key(key) || !is_label_value(value));
            if let Some((key, value)) = wrong {
                return refuse(
                    name,
                    format!("{key}={value} is no label: at most 63 letters, digits, dashes, dots and _"),
                );
            }
        }
        if let Some(key) = self.annotations.keys().find(|key| !is_key(key)) {
            return refuse("annotations", format!("{key:?} is neither name nor prefix/name"));
        }
        let mut keys = self.labels.keys().chain(self.annotations.keys());
        match keys.find(|key| key.starts_with(OWN_PREFIX) || OWN_LABELS.contains(&key.as_str())) {
            Some(key) => refuse("labels", format!("{key} is set by the launcher: use another name")),
            None => Ok(()),
        }
    }

    fn check_env(&self) -> Result<(), OptionError> {
        for (name, value) in &self.env {
            if !is_variable(name) {
                return refuse("env", format!("{name:?} is no name of a variable"));
            }
            if value.len() > MOST_VARIABLE || value.contains('\0') {
                return refuse(
                    "env",
                    format!("the value of {name} is over 32 KiB or holds a zero byte: put it in a file"),
                );
            }
        }
        Ok(())
    }

    fn check_json(&self) -> Result<(), OptionError> {
        if !self.pod.is_null() && !self.pod.is_object() {
            return refuse("pod", "is an object, parts of a pod's spec");
        }
        if !self.tolerations.iter().all(Value::is_object) {
            return refuse("tolerations", "is a list of objects, as in a pod's spec.tolerations");
        }
        Ok(())
    }

    /// The resource that GPUs are.
    pub(crate) fn gpu_resource(&self) -> &str {
        self.gpu_resource.as_deref().unwrap_or("nvidia.com/gpu")
    }
}

fn refuse<T>(name: &str, reason: impl AsRef<str>) -> Result<T, OptionError> {
    Err(OptionError(format!("option {name}: {}", reason.as_ref())))
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

fn bytes(name: &str, text: &str) -> Result<u64, OptionError> {
    match parse_memory(text) {
        Ok(0) => refuse(name, "is more than nothing; leave it out to take what is usual"),
        Ok(bytes) if i64::try_from(bytes).is_ok() => Ok(bytes),
        Ok(_) => refuse(name, format!("{text} is more than Kubernetes can count")),
        Err(error) => refuse(name, error.to_string()),
    }
}

/// Whole seconds, rounded up, as far as Kubernetes counts them.
fn seconds(name: &str, text: &str) -> Result<u64, OptionError> {
    let duration = parse_duration(text).or_else(|error| refuse(name, error.to_string()))?;
    in_range(name, text, duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

fn in_range(name: &str, text: &str, seconds: u64) -> Result<u64, OptionError> {
    match i32::try_from(seconds) {
        Ok(_) => Ok(seconds),
        Err(_) => refuse(name, format!("{text} is longer than Kubernetes can count (68 years)")),
    }
}

/// A time limit: a duration, or `HH:MM:SS` with days and a dash before it where there are some.
fn time(text: &str) -> Result<u64, OptionError> {
    let seconds = if text.contains(':') {
        match clock(text) {
            Some(seconds) => in_range("time", text, seconds)?,
            None => {
                return refuse(
                    "time",
                    format!("{text:?} is no time: write 30m, 2h, HH:MM:SS or D-HH:MM:SS"),
                );
            }
        }
    } else {
        seconds("time", text)?
    };
    // The grace of two minutes that pods get beyond it must fit as well.
    match seconds {
        0 => refuse("time", "is more than nothing; leave it out for no limit"),
        _ => in_range("time", text, seconds + 120).map(|_| seconds),
    }
}

fn clock(text: &str) -> Option<u64> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u64>().ok()).flatten()
    };
    let (days, rest) = text.split_once('-').map_or(("0", text), |(days, rest)| (days, rest));
    let parts: Vec<u64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let [hours, minutes, seconds] = parts[..] else {
        return None;
    };
    let add = |sum: u64, part: u64, unit: u64| sum.checked_add(part.checked_mul(unit)?);
    let sum = add(0, number(days)?, 86_400)?;
    add(add(add(sum, hours, 3600)?, minutes, 60)?, seconds, 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A document is read, or refused with all of these words.
    fn check(document: &Value, refusal: &[&str]) {
        match KubernetesOptions::read(document) {
            Ok(options) => {
                assert_eq!(refusal, [""; 0], "{document} was taken");
                assert_eq!(
                    KubernetesOptions::read(&options.document()),
                    Ok(options),
                    "its own document is read back"
                );
            }
            Err(error) => {
                let text = error.to_string();
                assert_ne!(refusal, [""; 0], "{text}");
                assert!(
                    refusal.iter().all(|word| text.contains(word)),
                    "{text} lacks {refusal:?}"
                );
            }
        }
    }

    #[test]
    fn an_unknown_key_names_itself_and_the_valid_ones() {
        check(&json!({"nods": 3}), &["nods", "`nodes`", "`queue`", "`pod`"]);
        check(
            &json!({"flavor": "mcad"}),
            &["mcad", "volcano", "appwrapper", "indexed-job", "code-engine"],
        );
        check(&json!({}), &[]);
        check(&Value::Null, &[]);
    }

    #[test]
    fn counts_out_of_range_name_the_way_out() {
        check(&json!({"nodes": 0}), &["nodes", "at least 1"]);
        check(&json!({"nodes": 100_001}), &["nodes", "100000"]);
        check(&json!({"gpus": 0}), &["gpus"]);
        check(&json!({"restarts": 1001}), &["restarts", "1000"]);
        check(&json!({"restarts": 0}), &[]);
        check(&json!({"run_as_user": 0}), &["run_as_user", "root"]);
        check(&json!({"topology_required": true}), &["topology"]);
        check(&json!({"keep": "1h", "volume": "results"}), &["keep", "volume"]);
    }

    #[test]
    fn sizes_and_durations_have_their_units() {
        check(&json!({"memory": "8G"}), &["memory", "8GiB"]);
        check(&json!({"memory": "1GiB", "shm": "2GiB"}), &["shm", "memory"]);
        check(&json!({"memory": "0B"}), &["memory", "more than nothing"]);
        check(&json!({"time": "soon"}), &["time", "soon"]);
        check(&json!({"time": "1:2"}), &["time", "HH:MM:SS"]);
        check(&json!({"ttl": "100000d"}), &["ttl", "68 years"]);
        let seconds = |text: &str| time(text).expect("it is a time");
        assert_eq!(seconds("90m"), 5400);
        assert_eq!(seconds("1-12:00:00"), 129_600);
        assert_eq!(seconds("00:01:30"), 90);
    }

    #[test]
    fn names_are_sane() {
        check(&json!({"volume": "Results"}), &["volume", "Results"]);
        check(&json!({"queue": "team/a"}), &["queue"]);
        check(&json!({"queue": "team-a"}), &[]);
        check(&json!({"image": "a b"}), &["image"]);
        check(&json!({"image": ""}), &["image"]);
        check(&json!({"namespace": "a.b"}), &["namespace"]);
        check(&json!({"pull_policy": "always"}), &["pull_policy", "IfNotPresent"]);
        check(&json!({"pull_secrets": ["/"]}), &["pull_secrets"]);
        check(
            &json!({"labels": {"bridgehead.dev/run": "x"}}),
            &["bridgehead.dev/run", "another name"],
        );
        check(&json!({"labels": {"a": "b c"}}), &["labels", "a=b c"]);
        check(&json!({"annotations": {"a b": "c"}}), &["annotations"]);
        check(&json!({"resources": {"cpu": 1}}), &["resources", "cpus"]);
        check(&json!({"resources": {"rdma/hca": 1}}), &[]);
        check(&json!({"env": {"A-B": ""}}), &["env", "A-B"]);
        check(&json!({"env": {"A": "x".repeat((32 << 10) + 1)}}), &["env", "32 KiB"]);
        check(&json!({"pod": []}), &["pod", "object"]);
        check(&json!({"tolerations": ["a"]}), &["tolerations"]);
        check(&json!({"topology": "a/b/c"}), &["topology"]);
    }

    #[test]
    fn what_is_left_out_has_a_default() {
        let checked = KubernetesOptions::default().check().expect("nothing asked is fine");
        assert_eq!((checked.cpus, checked.memory, checked.shm), (1, 2 << 30, 512 << 20));
        assert_eq!((checked.keep_s, checked.ttl_s, checked.restarts), (3600, 86_400, 3));
        assert_eq!(checked.time_s, None);
    }

    #[test]
    fn a_group_asks_in_place_of_the_run() {
        let run = KubernetesOptions {
            nodes: Some(4),
            queue: Some("main".to_owned()),
            image: Some("app:1".to_owned()),
            ..KubernetesOptions::default()
        };
        let group = run.for_group(Some(1), Some(8), Some("gpu"));
        assert_eq!(
            (group.nodes, group.gpus, group.queue.as_deref()),
            (Some(1), Some(8), Some("gpu"))
        );
        assert_eq!(group.image, run.image);
        assert_eq!(run.for_group(None, None, None), run);
    }
}
