//! One gang as a Slurm job, in words of no door. Owns what a launch request and the options come to; writes no text for Slurm.

use crate::options::{Array, ContainerTool, GpuForm, OptionError, SlurmOptions};
use bridgehead_backend::{JobRef, LaunchRequest};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;

/// What a job's comment begins with; the key of its launch follows.
const MARK: &str = "bridgehead:";

/// One batch job. It is always one homogeneous job: one task a node, all nodes alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlurmJob {
    /// The run's id.
    pub name: String,
    /// `bridgehead:` and the key of the launch: what the job is found again by.
    pub comment: String,
    /// Nodes; of each element where there is an array.
    pub nodes: u32,
    /// Cores on each node; `None` takes the nodes whole.
    pub cpus: Option<u32>,
    /// Memory of a node in MiB.
    pub memory_mib: Option<u64>,
    /// Memory of a core in MiB.
    pub memory_per_cpu_mib: Option<u64>,
    /// GPUs on each node.
    pub gpus: Option<Gpus>,
    /// The time limit in minutes; `None` leaves it to the partition.
    pub time_minutes: Option<u32>,
    /// The partition.
    pub partition: Option<String>,
    /// The account.
    pub account: Option<String>,
    /// The quality of service.
    pub qos: Option<String>,
    /// Features that the nodes must have.
    pub constraint: Option<String>,
    /// The reservation.
    pub reservation: Option<String>,
    /// Nodes not to be used.
    pub exclude: Option<String>,
    /// Nodes that must be among those given.
    pub nodelist: Option<String>,
    /// Licences.
    pub licenses: Option<String>,
    /// Whether Slurm may queue it again.
    pub requeue: bool,
    /// Seconds before the limit at which the steps get SIGUSR1.
    pub signal_before: Option<u32>,
    /// Elements.
    pub array: Option<Array>,
    /// Jobs that have to be over first.
    pub after: Vec<u64>,
    /// Working folder and home of the logs: the run folder.
    pub run_dir: String,
    /// The program that is head and agent.
    pub program: String,
    /// Which launch of the run it is.
    pub launch: u32,
    /// Variables of the processes.
    pub env: BTreeMap<String, String>,
    /// The image that agents run in.
    pub container: Option<Container>,
    /// Shell lines before the agents.
    pub setup: Vec<String>,
    /// Options of sbatch as they are.
    pub native: Vec<String>,
}

/// GPUs of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Gpus {
    /// How many.
    pub count: u32,
    /// Of which type.
    pub kind: Option<String>,
    /// How they are asked for.
    pub form: GpuForm,
}

impl Gpus {
    /// `2` or `a100:2`.
    #[must_use]
    pub fn amount(&self) -> String {
        match &self.kind {
            Some(kind) => format!("{kind}:{}", self.count),
            None => self.count.to_string(),
        }
    }
}

/// An image and what runs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The image.
    pub image: String,
    /// What runs it.
    pub tool: ContainerTool,
}

impl SlurmJob {
    /// The job of a request.
    ///
    /// # Errors
    /// What cannot be met, with the way out.
    pub fn new(request: &LaunchRequest, options: &SlurmOptions) -> Result<Self, OptionError> {
        let checked = options.check()?;
        let gpus = options.gpus.map(|count| Gpus {
            count,
            kind: options.gpu_type.clone(),
            form: options.gpu_form.unwrap_or_default(),
        });
        let tool = options.container_tool;
        let container = options
            .container
            .clone()
            .zip(tool)
            .map(|(image, tool)| Container { image, tool });
        let job = Self {
            name: request.run.to_string(),
            comment: comment(&request.key()),
            nodes: nodes(request.agents, options.nodes, checked.array)?,
            cpus: options.cpus,
            memory_mib: checked.memory_mib,
            memory_per_cpu_mib: checked.memory_per_cpu_mib,
            gpus,
            time_minutes: checked.time_minutes,
            partition: options.partition.clone(),
            account: options.account.clone(),
            qos: options.qos.clone(),
            constraint: options.constraint.clone(),
            reservation: options.reservation.clone(),
            exclude: options.exclude.clone(),
            nodelist: options.nodelist.clone(),
            licenses: options.licenses.clone(),
            requeue: options.requeue.unwrap_or(true),
            signal_before: checked.signal_before,
            array: checked.array,
            after: request.after.iter().map(id_of).collect::<Result<_, _>>()?,
            run_dir: path("the run folder", &request.run_dir)?,
            program: path("the program", &request.program)?,
            launch: request.launch,
            env: request.env.clone(),
            container,
            setup: options.setup.clone(),
            native: options.native.clone(),
        };
        job.check()?;
        Ok(job)
    }

    /// Where the batch script's words go; Slurm fills the ids in.
    #[must_use]
    pub fn output(&self) -> String {
        format!("{}/logs/slurm-{}.out", self.run_dir, self.id_pattern())
    }

    /// Where the words of each node's process go.
    #[must_use]
    pub fn step_output(&self) -> String {
        format!("{}/logs/slurm-{}.node%t.out", self.run_dir, self.id_pattern())
    }

    fn id_pattern(&self) -> &'static str {
        if self.array.is_some() { "%A_%a" } else { "%j" }
    }

    /// `afterany:1:2`, or `None` where it waits for nobody.
    #[must_use]
    pub fn dependency(&self) -> Option<String> {
        dependency(&self.after)
    }

    /// `0-7%2`.
    #[must_use]
    pub fn array_range(&self) -> Option<String> {
        let array = self.array?;
        let at_once = array.at_once.map_or(String::new(), |most| format!("%{most}"));
        Some(format!("0-{}{at_once}", array.count - 1))
    }

    fn check(&self) -> Result<(), OptionError> {
        for (name, value) in &self.env {
            let head = |c: char| c.is_ascii_alphabetic() || c == '_';
            let sound = name.starts_with(head) && name.chars().all(|c| head(c) || c.is_ascii_digit());
            if !sound || value.contains('\0') {
                return Err(OptionError::new(
                    "env",
                    format!("{name:?} is no variable that a shell can set"),
                ));
            }
        }
        let bound = [&self.run_dir, &self.program];
        if self.container.is_some() && bound.iter().any(|path| path.contains([':', ','])) {
            return Err(OptionError::new(
                "container",
                "a path with a colon or a comma cannot be bound into one: use another run folder or program",
            ));
        }
        Ok(())
    }
}

/// The comment of the job with this key.
#[must_use]
pub fn comment(key: &str) -> String {
    format!("{MARK}{key}")
}

/// `afterany:1:2`, or `None` where there is nobody to wait for.
pub(crate) fn dependency(after: &[u64]) -> Option<String> {
    let ids: Vec<String> = after.iter().map(u64::to_string).collect();
    (!ids.is_empty()).then(|| format!("afterany:{}", ids.join(":")))
}

/// The number that a job has at Slurm.
pub(crate) fn number(job: &JobRef) -> Option<u64> {
    let digits = job.0.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| job.0.parse().ok()).flatten().filter(|&id| id > 0)
}

fn id_of(job: &JobRef) -> Result<u64, OptionError> {
    number(job).ok_or_else(|| OptionError::new("after", format!("{:?} is no job of Slurm", job.0)))
}

/// Nodes of one job: agents, shared out over the elements of an array.
fn nodes(agents: u32, asked: Option<u32>, array: Option<Array>) -> Result<u32, OptionError> {
    let elements = array.map_or(1, |array| array.count);
    if agents == 0 {
        return Err(OptionError::new("nodes", "a gang has at least one agent"));
    }
    if !agents.is_multiple_of(elements) {
        let reason = format!("{agents} agents cannot be shared out over {elements} equal elements of an array");
        return Err(OptionError::new("array", reason));
    }
    let nodes = agents / elements;
    match asked {
        Some(asked) if asked != nodes => Err(OptionError::new(
            "nodes",
            format!("{asked} nodes in each of {elements} jobs are not the {agents} agents of the plan"),
        )),
        _ => Ok(nodes),
    }
}

/// A path that Slurm passes on as it is: it would fill in `%` and take a backslash away.
fn path(what: &str, path: &Path) -> Result<String, OptionError> {
    let refuse = |why: &str| Err(OptionError::new(what, format!("{} {why}", path.display())));
    match path.to_str() {
        None => refuse("is no UTF-8 text: use another path"),
        Some(text) if text.contains(['%', '\\']) || text.chars().any(char::is_control) => refuse(
            "holds a percent sign, a backslash or a control character, which Slurm would change: use another path",
        ),
        Some(_) if !path.is_absolute() => refuse("is no absolute path, and a node starts elsewhere"),
        Some(text) => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridgehead_spec::RunId;

    fn request(agents: u32) -> LaunchRequest {
        let run = RunId::parse("sweep-1").expect("a sound id");
        LaunchRequest::first(run, "/shared/sweep-1".into(), "/opt/bridgehead".into(), agents)
    }

    /// A request cannot be met, for a reason with this word.
    fn refused(request: &LaunchRequest, options: &SlurmOptions, word: &str) {
        let error = SlurmJob::new(request, options)
            .expect_err("it cannot be met")
            .to_string();
        assert!(error.contains(word), "{error}");
    }

    #[test]
    fn agents_are_the_nodes_of_all_elements() {
        let array = SlurmOptions {
            array: Some("4%2".to_owned()),
            ..SlurmOptions::default()
        };
        let job = SlurmJob::new(&request(8), &array).expect("it can be met");
        assert_eq!((job.nodes, job.array_range().as_deref()), (2, Some("0-3%2")));
        refused(&request(7), &array, "equal elements");
        refused(&request(0), &SlurmOptions::default(), "at least one");
        let three = SlurmOptions {
            nodes: Some(3),
            ..SlurmOptions::default()
        };
        refused(&request(2), &three, "3 nodes");
    }

    #[test]
    fn what_slurm_or_the_shell_would_change_is_refused() {
        let options = SlurmOptions::default();
        for folder in ["/shared/100%", "/a\\b", "/a\nb", "relative"] {
            let request = LaunchRequest {
                run_dir: folder.into(),
                ..request(1)
            };
            refused(&request, &options, "run folder");
        }
        let mut odd = request(1);
        odd.env.insert("A-B".to_owned(), "1".to_owned());
        refused(&odd, &options, "A-B");
        let mut after = request(1);
        after.after = vec![JobRef("12;other".to_owned())];
        refused(&after, &options, "12;other");
    }
}
