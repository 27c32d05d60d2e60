//! The body of a REST submission, for each family of API versions. Owns which key means what at which version; a key that a
//! server would drop without a word is an error here, before anything is sent. `docs/formats/slurm.md` has the table.

use crate::job::SlurmJob;
use crate::native;
use crate::options::GpuForm;
use crate::script;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// Where tools are if the caller does not say: a job that got no PATH could not find srun.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables whose values are shown where a body is shown to people; those of others may be secrets.
const PLAIN: &[&str] = &[
    "BASH_ENV",
    "HOME",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "MODULEPATH",
    "MODULESHOME",
    "PATH",
    "SHELL",
    "USER",
];

/// Versions that this client speaks, the newest first. v0.0.39 is left out: at 23.11 it answers every question with an error
/// on a cluster without accounting, even when the job was made.
pub(crate) const VERSIONS: &[Version] = &[
    Version(44),
    Version(43),
    Version(42),
    Version(41),
    Version(40),
    Version(38),
];

/// The last number of a version of the API, `v0.0.N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(u32);

impl Version {
    /// The version, if this client speaks it.
    #[must_use]
    pub fn new(last: u32) -> Option<Self> {
        VERSIONS.iter().copied().find(|version| version.0 == last)
    }

    /// Whether it is of the first family: plain values, strict about keys.
    fn is_first(self) -> bool {
        self.0 == 38
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v0.0.{}", self.0)
    }
}

/// Keys of a job that servers of the first family take (22.05, 23.02, 23.11), of those that this client may write.
const FIRST: &[&str] = &[
    "account",
    "array",
    "comment",
    "constraints",
    "cpus_per_task",
    "current_working_directory",
    "dependency",
    "environment",
    "exclude_nodes",
    "exclusive",
    "gpus_per_node",
    "gres",
    "hold",
    "licenses",
    "mail_type",
    "mail_user",
    "memory_per_cpu",
    "memory_per_node",
    "name",
    "nice",
    "no_kill",
    "no_requeue",
    "nodelist",
    "nodes",
    "open_mode",
    "partition",
    "qos",
    "requeue",
    "reservation",
    "signal",
    "standard_output",
    "tasks",
    "tasks_per_node",
    "time_limit",
    "wckey",
];

/// The same of v0.0.40 and later, which drop any other key with a warning.
const LATER: &[&str] = &[
    "account",
    "array",
    "comment",
    "constraints",
    "cpus_per_task",
    "current_working_directory",
    "dependency",
    "environment",
    "excluded_nodes",
    "hold",
    "kill_on_node_fail",
    "kill_warning_delay",
    "kill_warning_signal",
    "licenses",
    "mail_type",
    "mail_user",
    "memory_per_cpu",
    "memory_per_node",
    "name",
    "nice",
    "nodes",
    "open_mode",
    "partition",
    "qos",
    "requeue",
    "required_nodes",
    "reservation",
    "shared",
    "standard_output",
    "tasks",
    "tasks_per_node",
    "time_limit",
    "tres_per_node",
    "wckey",
];

/// The body of `job/submit` at `version`, for a caller with these variables.
///
/// # Errors
/// What the API cannot carry, with the way out.
pub fn submission(job: &SlurmJob, version: Version, caller: &BTreeMap<String, String>) -> Result<Value, String> {
    let mut keys = Keys {
        version,
        map: Map::new(),
    };
    common(&mut keys, job)?;
    if version.is_first() {
        first(&mut keys, job)?;
    } else {
        later(&mut keys, job)?;
    }
    handed_through(&mut keys, job)?;
    let environment = environment(job, caller);
    if version.is_first() {
        keys.set("environment", json!(environment))?;
    } else {
        let pairs: Vec<String> = environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
        keys.set("environment", json!(pairs))?;
    }
    Ok(json!({"script": script::for_rest(job), "job": keys.map}))
}

/// The keys of a job, which lets none through that the server would not take.
struct Keys {
    version: Version,
    map: Map<String, Value>,
}

impl Keys {
    fn set(&mut self, key: &str, value: Value) -> Result<(), String> {
        let known = if self.version.is_first() { FIRST } else { LATER };
        if !known.contains(&key) {
            return Err(format!(
                "slurmrestd {} does not take the key {key}: use door=\"cli\"",
                self.version
            ));
        }
        self.map.insert(key.to_owned(), value);
        Ok(())
    }

    fn text(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        value.map_or(Ok(()), |value| self.set(key, json!(value)))
    }
}

fn common(keys: &mut Keys, job: &SlurmJob) -> Result<(), String> {
    keys.set("name", json!(job.name))?;
    keys.set("comment", json!(job.comment))?;
    keys.set("tasks", json!(job.nodes))?;
    keys.set("tasks_per_node", json!(1))?;
    if let Some(cpus) = job.cpus {
        keys.set("cpus_per_task", json!(cpus))?;
    }
    keys.set("current_working_directory", json!(job.run_dir))?;
    keys.set("standard_output", json!(job.output()))?;
    keys.text("partition", job.partition.as_deref())?;
    keys.text("account", job.account.as_deref())?;
    keys.text("qos", job.qos.as_deref())?;
    keys.text("constraints", job.constraint.as_deref())?;
    keys.text("reservation", job.reservation.as_deref())?;
    keys.text("licenses", job.licenses.as_deref())?;
    keys.text("dependency", job.dependency().as_deref())?;
    keys.text("array", job.array_range().as_deref())
}

fn first(keys: &mut Keys, job: &SlurmJob) -> Result<(), String> {
    keys.set("nodes", json!(job.nodes))?;
    if job.cpus.is_none() {
        keys.set("exclusive", json!("exclusive"))?;
    }
    if let Some(mib) = job.memory_mib {
        keys.set("memory_per_node", json!(mib))?;
    }
    if let Some(mib) = job.memory_per_cpu_mib {
        keys.set("memory_per_cpu", json!(mib))?;
    }
    match &job.gpus {
        Some(gpus) if gpus.form == GpuForm::Gres => keys.set("gres", json!(format!("gpu:{}", gpus.amount())))?,
        Some(gpus) => keys.set("gpus_per_node", json!(gpus.amount()))?,
        None => {}
    }
    if let Some(minutes) = job.time_minutes {
        keys.set("time_limit", json!(minutes))?;
    }
    if let Some(before) = job.signal_before {
        keys.set("signal", json!(format!("USR1@{before}")))?;
    }
    // At this version any value of `requeue` means yes.
    keys.set(if job.requeue { "requeue" } else { "no_requeue" }, json!(true))?;
    keys.set("no_kill", json!("set"))?;
    keys.set("open_mode", json!("append"))?;
    keys.text("nodelist", job.nodelist.as_deref())?;
    keys.text("exclude_nodes", job.exclude.as_deref())
}

fn later(keys: &mut Keys, job: &SlurmJob) -> Result<(), String> {
    let number = |n: u64| json!({"set": true, "infinite": false, "number": n});
    keys.set("nodes", json!(job.nodes.to_string()))?;
    if job.cpus.is_none() {
        keys.set("shared", json!(["none"]))?;
    }
    if let Some(mib) = job.memory_mib {
        keys.set("memory_per_node", number(mib))?;
    }
    if let Some(mib) = job.memory_per_cpu_mib {
        keys.set("memory_per_cpu", number(mib))?;
    }
    if let Some(gpus) = &job.gpus {
        // Both forms of asking are this one key.
        keys.set("tres_per_node", json!(format!("gres/gpu:{}", gpus.amount())))?;
    }
    if let Some(minutes) = job.time_minutes {
        keys.set("time_limit", number(u64::from(minutes)))?;
    }
    if let Some(before) = job.signal_before {
        keys.set("kill_warning_signal", json!("USR1"))?;
        keys.set("kill_warning_delay", number(u64::from(before)))?;
    }
    keys.set("requeue", json!(job.requeue))?;
    keys.set("kill_on_node_fail", json!(false))?;
    keys.set("open_mode", json!(["APPEND"]))?;
    if let Some(nodes) = &job.nodelist {
        keys.set("required_nodes", json!(node_list(nodes)))?;
    }
    if let Some(nodes) = &job.exclude {
        keys.set("excluded_nodes", json!(node_list(nodes)))?;
    }
    Ok(())
}

fn handed_through(keys: &mut Keys, job: &SlurmJob) -> Result<(), String> {
    for option in &job.native {
        let (key, value) = native::in_rest(option, !keys.version.is_first()).ok_or_else(|| {
            format!("option native: {option} has no place in Slurm's REST API: use door=\"cli\" for it")
        })?;
        keys.set(key, value)?;
    }
    Ok(())
}

/// What sbatch would have handed over and set; a job by REST gets no other variable.
fn environment(job: &SlurmJob, caller: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    // Some shells keep functions in variables whose names no other shell can set.
    let plain = |name: &str| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    let carried = caller.iter().filter(|(name, _)| !name.is_empty() && plain(name));
    let mut all: BTreeMap<String, String> = carried.map(|(name, value)| (name.clone(), value.clone())).collect();
    all.entry("PATH".to_owned()).or_insert_with(|| PATH.to_owned());
    all.insert("SLURM_NTASKS_PER_NODE".to_owned(), "1".to_owned());
    all.insert("SLURM_SUBMIT_DIR".to_owned(), job.run_dir.clone());
    if let Some(cpus) = job.cpus {
        all.insert("SLURM_CPUS_PER_TASK".to_owned(), cpus.to_string());
    }
    if let Some(gpus) = job.gpus.as_ref().filter(|gpus| gpus.form == GpuForm::GpusPerNode) {
        all.insert("SLURM_GPUS_PER_NODE".to_owned(), gpus.amount());
    }
    all
}

/// A body as people may see it: the values of variables that may be secrets are left out. What is no body stays as it is.
#[must_use]
pub fn shown(text: &str) -> String {
    let Ok(mut body) = serde_json::from_str::<Value>(text) else {
        return text.to_owned();
    };
    let hidden = |name: &str| !PLAIN.contains(&name) && !name.starts_with("SLURM_");
    match body.pointer_mut("/job/environment") {
        Some(Value::Object(all)) => {
            let hide = all.iter_mut().filter(|(name, _)| hidden(name));
            hide.for_each(|(_, value)| *value = json!("..."));
        }
        Some(Value::Array(all)) => {
            for pair in all {
                let name = pair
                    .as_str()
                    .and_then(|pair| pair.split('=').next())
                    .unwrap_or_default()
                    .to_owned();
                if hidden(&name) {
                    *pair = json!(format!("{name}=..."));
                }
            }
        }
        _ => return text.to_owned(),
    }
    serde_json::to_string_pretty(&body).unwrap_or_default()
}

/// `n[1-2,5],n7` as its parts: a comma between brackets belongs to the part.
fn node_list(text: &str) -> Vec<&str> {
    let mut depth = 0_i32;
    let parts = text.split(move |c| {
        depth += i32::from(c == '[') - i32::from(c == ']');
        c == ',' && depth <= 0
    });
    parts.map(str::trim).filter(|part| !part.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_see_of_a_body_has_no_values_that_may_be_secrets() {
        let check = |environment: Value, expected: Value| {
            let body = json!({ "job": { "environment": environment } }).to_string();
            let found: Value = serde_json::from_str(&shown(&body)).expect("a body is shown as one");
            assert_eq!(found["job"]["environment"], expected);
        };
        check(
            json!({ "HOME": "/h", "KEY": "s" }),
            json!({ "HOME": "/h", "KEY": "..." }),
        );
        check(json!(["HOME=/h", "KEY=s=t"]), json!(["HOME=/h", "KEY=..."]));
        assert_eq!(shown("#!/bin/sh\n"), "#!/bin/sh\n");
    }

    #[test]
    fn a_node_list_is_cut_outside_of_brackets_only() {
        assert_eq!(node_list("n[1-2,5],n7, m1"), ["n[1-2,5]", "n7", "m1"]);
    }

    #[test]
    fn a_key_that_the_server_would_drop_is_an_error() {
        let mut keys = Keys {
            version: Version(41),
            map: Map::new(),
        };
        let error = keys
            .set("gres", json!("gpu:2"))
            .expect_err("it is dropped from v0.0.40 on");
        assert!(error.contains("gres") && error.contains("v0.0.41"), "{error}");
    }

    #[test]
    fn versions_are_those_that_work() {
        assert_eq!(Version::new(38).map(|v| v.to_string()).as_deref(), Some("v0.0.38"));
        assert_eq!(Version::new(39), None);
        assert!(VERSIONS.is_sorted_by(|a, b| a > b), "the newest is tried first");
    }
}
