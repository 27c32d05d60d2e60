//! What a user may ask of Slurm, and its check. Owns the names of the options, their grammar and their errors; renders nothing.

use crate::native;
use bridgehead_spec::{parse_duration, parse_memory};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use thiserror::Error;

/// Seconds before the limit at which a job is told, where nothing is asked.
const SIGNAL_BEFORE: u32 = 120;
/// Follow-up jobs of a run at most, where nothing is asked.
const CONTINUATIONS: u32 = 100;

/// What a user may ask of Slurm. Every part is optional; the keys are the names in Python, and on the command line with dashes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SlurmOptions {
    /// Nodes of a job, one agent each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<u32>,
    /// Cores on each node; without it the nodes are taken whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<u32>,
    /// Memory on each node, as `8GiB`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// Memory for each core, as `2GiB`; in place of `memory`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_per_cpu: Option<String>,
    /// GPUs on each node.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpus: Option<u32>,
    /// Their type, as the site names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<String>,
    /// How they are asked for: some sites refuse one of the forms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_form: Option<GpuForm>,
    /// The time limit, as `30m`, `2h`, `HH:MM:SS`, `D-HH:MM:SS` or minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<String>,
    /// The partition (queue).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// The account that is charged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// The quality of service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<String>,
    /// Features that the nodes must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraint: Option<String>,
    /// The reservation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// Nodes not to be used, as `n[3-4]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exclude: Option<String>,
    /// Nodes that must be among those given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodelist: Option<String>,
    /// Licences, as `matlab:1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub licenses: Option<String>,
    /// Whether Slurm may queue the job again after a lost node or a preemption; yes where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeue: Option<bool>,
    /// `N` or `N%M`: N elements of `nodes` nodes each, at most M at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array: Option<String>,
    /// Seconds before the time limit at which the run begins to drain; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal_before: Option<u32>,
    /// The image that the agents run in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What runs the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_tool: Option<ContainerTool>,
    /// Options of sbatch as they are, as `--mail-type=END`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub native: Vec<String>,
    /// Follow-up jobs at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continuations: Option<u32>,
    /// The way to Slurm; chosen by what is there where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub door: Option<DoorKind>,
    /// Where slurmrestd answers: `http://host:6820`, `https://...` or `unix:/path`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rest_url: Option<String>,
    /// A file of mode 0600 with the token for slurmrestd.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The user whose token it is; the login name where nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Shell lines that run before the agents are started, as `module load cuda`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub setup: Vec<String>,
}

/// How GPUs are asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GpuForm {
    /// `--gres=gpu:N`.
    #[default]
    Gres,
    /// `--gpus-per-node=N`.
    GpusPerNode,
}

/// What runs an image on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerTool {
    /// `apptainer exec`.
    Apptainer,
    /// `srun --container-image`, a plugin of the site.
    Pyxis,
}

/// A way to Slurm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DoorKind {
    /// slurmrestd.
    Rest,
    /// sbatch, squeue, scancel, scontrol, sacct.
    Cli,
}

/// An option that cannot be used: its name, the reason, the way out.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("option {name}: {reason}")]
pub struct OptionError {
    /// The option's name.
    pub name: String,
    /// The reason and the way out.
    pub reason: String,
}

impl OptionError {
    pub(crate) fn new(name: &str, reason: impl Into<String>) -> Self {
        Self {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}

/// Elements of a job array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Array {
    /// How many.
    pub count: u32,
    /// At most so many at a time.
    pub at_once: Option<u32>,
}

/// What the texts among the options mean; the rest is as in [`SlurmOptions`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checked {
    pub(crate) memory_mib: Option<u64>,
    pub(crate) memory_per_cpu_mib: Option<u64>,
    pub(crate) time_minutes: Option<u32>,
    pub(crate) signal_before: Option<u32>,
    pub(crate) array: Option<Array>,
}

impl SlurmOptions {
    /// Reads the document that [`bridgehead_spec::TargetConfig`] carries, and checks it.
    ///
    /// # Errors
    /// A key that is none, a value of the wrong kind or out of its grammar.
    pub fn read(document: &serde_json::Value) -> Result<Self, OptionError> {
        let options: Self =
            serde_json::from_value(document.clone()).map_err(|e| OptionError::new("of Slurm", e.to_string()))?;
        options.check()?;
        Ok(options)
    }

    /// The options as a document; what [`SlurmOptions::read`] takes.
    ///
    /// # Panics
    /// Never: texts and numbers always have a JSON form.
    #[must_use]
    pub fn document(&self) -> serde_json::Value {
        serde_json::to_value(self).expect("texts and numbers have a JSON form")
    }

    /// The same options for one gang, with what its group asks for in place of what the run asks for.
    #[must_use]
    pub fn for_group(&self, nodes: Option<u32>, gpus: Option<u32>, partition: Option<&str>) -> Self {
        Self {
            nodes: nodes.or(self.nodes),
            gpus: gpus.or(self.gpus),
            partition: partition.map(str::to_owned).or_else(|| self.partition.clone()),
            ..self.clone()
        }
    }

    /// Follow-up jobs of a run at most.
    #[must_use]
    pub fn most_continuations(&self) -> u32 {
        self.continuations.unwrap_or(CONTINUATIONS)
    }

    /// Seconds before its end at which a job is told; `None` where neither that nor a time limit was given.
    ///
    /// # Errors
    /// An option cannot be used.
    pub fn told_before(&self) -> Result<Option<u32>, OptionError> {
        Ok(self.check()?.signal_before)
    }

    /// The time limit in minutes, rounded up as Slurm does; `None` leaves it to the partition.
    ///
    /// # Errors
    /// The text is no duration.
    pub fn time_minutes(&self) -> Result<Option<u32>, OptionError> {
        self.time.as_deref().map(minutes).transpose()
    }

    /// Checks what the types leave open.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub(crate) fn check(&self) -> Result<Checked, OptionError> {
        self.check_counts()?;
        self.check_texts()?;
        if self.memory.is_some() && self.memory_per_cpu.is_some() {
            return Err(OptionError::new(
                "memory",
                "is a node's and memory_per_cpu is a core's: leave one out",
            ));
        }
        if self.gpu_type.is_some() && self.gpus.is_none() {
            return Err(OptionError::new(
                "gpu_type",
                "says which, but not how many: give gpus too",
            ));
        }
        if self.container.is_some() != self.container_tool.is_some() {
            return Err(OptionError::new(
                "container",
                "needs container_tool (apptainer or pyxis), and the tool an image: give both or none",
            ));
        }
        let time_minutes = self.time_minutes()?;
        Ok(Checked {
            memory_mib: self.memory.as_deref().map(|text| mib("memory", text)).transpose()?,
            memory_per_cpu_mib: self
                .memory_per_cpu
                .as_deref()
                .map(|text| mib("memory_per_cpu", text))
                .transpose()?,
            time_minutes,
            signal_before: self.signal(time_minutes)?,
            array: self.array.as_deref().map(array).transpose()?,
        })
    }

    fn check_counts(&self) -> Result<(), OptionError> {
        for (name, count) in [("nodes", self.nodes), ("cpus", self.cpus), ("gpus", self.gpus)] {
            if count == Some(0) {
                return Err(OptionError::new(name, "is at least 1; leave it out to ask for none"));
            }
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), OptionError> {
        for (name, text) in self.texts() {
            if text.is_empty() {
                return Err(OptionError::new(name, "is empty: leave it out"));
            }
            if text.chars().any(char::is_control) {
                return Err(OptionError::new(name, format!("{text:?} holds a control character")));
            }
        }
        for line in &self.setup {
            if line.contains('\0') {
                return Err(OptionError::new("setup", "a line holds a zero byte"));
            }
        }
        self.native.iter().try_for_each(|option| native::check(option))
    }

    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [
            ("gpu_type", &self.gpu_type),
            ("partition", &self.partition),
            ("account", &self.account),
            ("qos", &self.qos),
            ("constraint", &self.constraint),
            ("reservation", &self.reservation),
            ("exclude", &self.exclude),
            ("nodelist", &self.nodelist),
            ("licenses", &self.licenses),
            ("container", &self.container),
            ("rest_url", &self.rest_url),
            ("user", &self.user),
        ];
        all.into_iter()
            .filter_map(|(name, text)| Some((name, text.as_deref()?)))
    }

    /// Seconds before the limit at which the steps are told.
    fn signal(&self, minutes: Option<u32>) -> Result<Option<u32>, OptionError> {
        let default = minutes.map_or(SIGNAL_BEFORE, |minutes| SIGNAL_BEFORE.min(minutes.saturating_mul(15)));
        match self.signal_before.unwrap_or(default) {
            0 => Ok(None),
            before if before > u32::from(u16::MAX) => Err(OptionError::new(
                "signal_before",
                format!("{before} s is more than Slurm takes (65535 s)"),
            )),
            before if minutes.is_some_and(|m| u64::from(before) >= u64::from(m) * 60) => Err(OptionError::new(
                "signal_before",
                format!("{before} s is not less than the time limit: ask for more time or a later signal"),
            )),
            before => Ok(Some(before)),
        }
    }
}

/// Whole MiB, rounded up: less than was asked for would be too little.
fn mib(name: &str, text: &str) -> Result<u64, OptionError> {
    let bytes = parse_memory(text).map_err(|e| OptionError::new(name, e.to_string()))?;
    match bytes.div_ceil(1 << 20) {
        0 => Err(OptionError::new(
            name,
            "is more than nothing; leave it out to take the site's default",
        )),
        mib => Ok(mib),
    }
}

fn array(text: &str) -> Result<Array, OptionError> {
    let refuse = || OptionError::new("array", format!("{text:?} is neither N nor N%M, both at least 1"));
    let number = |part: &str| part.parse::<u32>().ok().filter(|&n| n > 0).ok_or_else(refuse);
    let (count, at_once) = text.split_once('%').map_or((text, None), |(n, m)| (n, Some(m)));
    Ok(Array {
        count: number(count)?,
        at_once: at_once.map(number).transpose()?,
    })
}

/// Minutes, rounded up.
fn minutes(text: &str) -> Result<u32, OptionError> {
    let seconds = if text.contains([':', '-']) || text.bytes().all(|b| b.is_ascii_digit()) {
        clock(text).ok_or_else(|| {
            OptionError::new(
                "time",
                format!("{text:?} is no time: write 30m, 2h, minutes, MM:SS, HH:MM:SS or D-HH:MM:SS"),
            )
        })?
    } else {
        let duration = parse_duration(text).map_err(|e| OptionError::new("time", e.to_string()))?;
        duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
    };
    match u32::try_from(seconds.div_ceil(60)) {
        Ok(0) => Err(OptionError::new(
            "time",
            "is at least a minute; leave it out to take the partition's",
        )),
        Ok(minutes) if minutes < u32::MAX - 1 => Ok(minutes),
        _ => Err(OptionError::new(
            "time",
            format!("{text:?} is longer than Slurm can count"),
        )),
    }
}

/// Slurm's own forms, in seconds: minutes, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS.
fn clock(text: &str) -> Option<u64> {
    let number = |part: &str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| part.parse::<u64>().ok()).flatten()
    };
    let (days, rest) = text
        .split_once('-')
        .map_or((None, text), |(days, rest)| (Some(days), rest));
    let parts: Vec<u64> = rest.split(':').map(number).collect::<Option<_>>()?;
    let units: &[u64] = match (days, parts.len()) {
        (None, 1) => &[60],
        (None, 2) => &[60, 1],
        (Some(_), 1 | 2) | (_, 3) => &[3600, 60, 1],
        _ => return None,
    };
    let days = days.map_or(Some(0), number)?.checked_mul(86_400)?;
    let mut terms = parts.iter().zip(units);
    terms.try_fold(days, |sum, (part, unit)| sum.checked_add(part.checked_mul(*unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// A document is read, or refused with all of these words.
    fn check(document: &serde_json::Value, refusal: &[&str]) {
        match SlurmOptions::read(document) {
            Ok(options) => {
                assert_eq!(refusal, [""; 0], "{document} was taken");
                assert_eq!(
                    SlurmOptions::read(&options.document()),
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
        check(
            &json!({"nods": 3}),
            &["nods", "`nodes`", "`partition`", "`signal_before`"],
        );
        check(&json!({"door": "ssh"}), &["ssh", "rest", "cli"]);
        check(&json!({}), &[]);
    }

    #[test]
    fn values_out_of_their_grammar_name_the_way_out() {
        check(&json!({"nodes": 0}), &["nodes", "at least 1"]);
        check(&json!({"memory": "8G"}), &["memory", "8GiB"]);
        check(&json!({"memory": "1GiB", "memory_per_cpu": "1GiB"}), &["leave one out"]);
        check(&json!({"gpu_type": "a100"}), &["gpus"]);
        check(&json!({"time": "soon"}), &["time", "soon"]);
        check(&json!({"time": "1:2:3:4"}), &["HH:MM:SS"]);
        check(&json!({"time": "0"}), &["at least a minute"]);
        check(&json!({"array": "0-7"}), &["array", "N%M"]);
        check(&json!({"array": "0"}), &["array"]);
        check(
            &json!({"signal_before": 600, "time": "10m"}),
            &["signal_before", "less than the time limit"],
        );
        check(&json!({"signal_before": 70000}), &["65535"]);
        check(&json!({"partition": ""}), &["partition", "empty"]);
        check(&json!({"partition": "a\nb"}), &["control character"]);
        check(&json!({"container": "x.sif"}), &["container_tool"]);
    }

    #[test]
    fn times_are_read_in_slurms_forms_and_ours() {
        let forms = [
            ("30m", 30),
            ("2h", 120),
            ("90s", 2),
            ("45", 45),
            ("10:30", 11),
            ("01:30:00", 90),
            ("1-2", 1560),
            ("1-02:30", 1590),
            ("2-00:00:01", 2881),
        ];
        for (text, expected) in forms {
            assert_eq!(minutes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn the_signal_comes_two_minutes_or_a_quarter_before_the_limit() {
        let signal = |options: SlurmOptions| options.check().map(|checked| checked.signal_before);
        let with = |time: &str, signal_before| SlurmOptions {
            time: Some(time.to_owned()),
            signal_before,
            ..SlurmOptions::default()
        };
        assert_eq!(signal(SlurmOptions::default()), Ok(Some(120)));
        assert_eq!(signal(with("1h", None)), Ok(Some(120)));
        assert_eq!(signal(with("4m", None)), Ok(Some(60)));
        assert_eq!(signal(with("1h", Some(300))), Ok(Some(300)));
        assert_eq!(signal(with("1h", Some(0))), Ok(None));
    }

    #[test]
    fn a_group_asks_in_place_of_the_run() {
        let run = SlurmOptions {
            nodes: Some(4),
            partition: Some("main".to_owned()),
            qos: Some("high".to_owned()),
            ..SlurmOptions::default()
        };
        let group = run.for_group(Some(1), Some(8), Some("gpu"));
        assert_eq!(
            (group.nodes, group.gpus, group.partition.as_deref()),
            (Some(1), Some(8), Some("gpu"))
        );
        assert_eq!(group.qos, run.qos);
        assert_eq!(run.for_group(None, None, None), run);
    }
}
