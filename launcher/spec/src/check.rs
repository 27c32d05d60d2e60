//! From text to a checked pipeline: after this nothing is validated again. Owns every rule that a document must keep.
//! Hot path: one pass over the tasks; equal resource requests are checked once.

use crate::error::SpecError;
use crate::graph::Graph;
use crate::pipeline::{CallSpec, FunctionSpec, GroupSpec, PIPELINE_VERSION, PipelineSpec, ProgramSpec, TaskSpec};
use crate::{Digest, Resources, TaskId};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::{BTreeMap, HashSet};

/// Longest name of a pipeline, task, function, group or named resource, in bytes.
pub(crate) const MAX_NAME: usize = 256;
/// Most different resource requests: the scheduler numbers them with 16 bits, and tasks added later need room too.
const MAX_REQUESTS: usize = 32_768;
/// More than any machine has; what lies above is a mistake in the unit.
const MAX_CPU_MILLIS: u64 = 1_000_000_000;
const MAX_MEMORY: u64 = 1 << 60;
const MAX_GPUS: u32 = 65_536;
const MAX_NAMED: u64 = 1 << 53;
/// Ten years, which fits into 64 bits as nanoseconds too.
const MAX_TIMEOUT_MS: u64 = 315_360_000_000;

/// A pipeline that keeps all rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckedPipeline {
    spec: PipelineSpec,
    graph: Graph,
}

impl PipelineSpec {
    /// Reads and checks `spec.json`.
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn parse(bytes: &[u8]) -> Result<CheckedPipeline, SpecError> {
        CheckedPipeline::parse(bytes)
    }
}

impl CheckedPipeline {
    /// Reads and checks `spec.json`; the same as [`PipelineSpec::parse`].
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn parse(bytes: &[u8]) -> Result<Self, SpecError> {
        match serde_json::from_slice(bytes) {
            Ok(spec) => Self::check(spec),
            Err(error) => Err(diagnose(bytes, &error)),
        }
    }

    /// Checks a document.
    ///
    /// # Errors
    /// What is wrong, by name.
    pub fn check(mut spec: PipelineSpec) -> Result<Self, SpecError> {
        check_version(spec.version.into())?;
        check_head(&spec)?;
        let mut requests = HashSet::new();
        for (position, task) in (0..).zip(&spec.tasks) {
            if task.id.0 != position {
                let (found, name) = (task.id, task.name.clone());
                return Err(SpecError::Id { position, found, name });
            }
            check_task(&spec, task, &mut requests)?;
        }
        let tasks = spec.tasks.len();
        if let Some(&missing) = spec.keep.iter().find(|id| id.0 >= tasks as u64) {
            return Err(SpecError::UnknownKept { missing, tasks });
        }
        let graph = Graph::build(&spec)?;
        spec.tasks.shrink_to_fit();
        Ok(Self { spec, graph })
    }

    /// The canonical text: one line, keys in a fixed order, maps sorted, defaults left out. Reading it gives an equal pipeline.
    #[must_use]
    pub fn to_canonical_json(&self) -> String {
        serde_json::to_string(&self.spec).expect("plain data can be written")
    }

    /// The document.
    #[must_use]
    pub fn spec(&self) -> &PipelineSpec {
        &self.spec
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Its tasks; a task's id is its position.
    #[must_use]
    pub fn tasks(&self) -> &[TaskSpec] {
        &self.spec.tasks
    }

    /// The task with this id, if there is one.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&TaskSpec> {
        self.spec.tasks.get(usize::try_from(id.0).ok()?)
    }

    /// Its functions.
    #[must_use]
    pub fn functions(&self) -> &BTreeMap<Digest, FunctionSpec> {
        &self.spec.functions
    }

    /// Its groups.
    #[must_use]
    pub fn groups(&self) -> &BTreeMap<String, GroupSpec> {
        &self.spec.groups
    }

    /// The tasks whose results the user holds.
    #[must_use]
    pub fn keep(&self) -> &[TaskId] {
        &self.spec.keep
    }

    /// All tasks, each after those that it needs.
    #[must_use]
    pub fn topological_order(&self) -> &[TaskId] {
        &self.graph.order
    }

    /// The tasks that need `task`'s result or end, each once, by id. None for an id that is not in the pipeline.
    pub fn consumers(&self, task: TaskId) -> impl ExactSizeIterator<Item = TaskId> + '_ {
        let known = usize::try_from(task.0).ok().filter(|&at| at < self.spec.tasks.len());
        let consumers = known.map_or(&[][..], |at| self.graph.consumers(at));
        consumers.iter().map(|&id| TaskId(id.into()))
    }
}

/// Says why `bytes` could not be read: a newer version before all else, then the first task that is wrong by itself.
fn diagnose(bytes: &[u8], error: &serde_json::Error) -> SpecError {
    #[derive(Deserialize)]
    struct Version {
        version: u64,
    }
    #[derive(Deserialize)]
    struct Tasks<'a> {
        #[serde(borrow)]
        tasks: Vec<&'a RawValue>,
    }
    #[derive(Deserialize)]
    struct Name {
        name: String,
    }
    if let Ok(Version { version }) = serde_json::from_slice(bytes)
        && let Err(version) = check_version(version)
    {
        return version;
    }
    let tasks = serde_json::from_slice(bytes).map_or(Vec::new(), |t: Tasks<'_>| t.tasks);
    let wrong = tasks.iter().enumerate().find_map(|(position, raw)| {
        let reason = serde_json::from_str::<TaskSpec>(raw.get()).err()?.to_string();
        let name = serde_json::from_str(raw.get()).map_or(String::new(), |n: Name| format!(" ({})", n.name));
        // The position within the task's own text would only mislead.
        let reason = reason.split(" at line ").next().unwrap_or_default().to_owned();
        Some((format!("task at position {position}{name}: "), reason))
    });
    let (place, reason) = wrong.unwrap_or_else(|| (String::new(), error.to_string()));
    SpecError::Json { place, reason }
}

fn check_version(found: u64) -> Result<(), SpecError> {
    if found > u64::from(PIPELINE_VERSION) {
        return Err(SpecError::Newer { found });
    }
    if found == 0 {
        return Err(SpecError::NoVersion { found });
    }
    Ok(())
}

fn check_name(what: impl Fn() -> String, name: &str) -> Result<(), SpecError> {
    if !name.is_empty() && name.len() <= MAX_NAME && !name.contains(char::is_control) {
        return Ok(());
    }
    Err(SpecError::Name {
        what: what(),
        len: name.len(),
        start: name.chars().take(32).collect(),
    })
}

/// Everything but the tasks.
fn check_head(spec: &PipelineSpec) -> Result<(), SpecError> {
    check_name(|| "the pipeline".to_owned(), &spec.name)?;
    for (digest, function) in &spec.functions {
        check_name(|| format!("function {digest}"), &function.name)?;
    }
    for (name, group) in &spec.groups {
        check_name(|| "a group".to_owned(), name)?;
        if group.nodes == Some(0) {
            return Err(SpecError::Pipeline {
                name: spec.name.clone(),
                reason: format!("group {name:?} asks for 0 nodes; give it at least 1, or leave nodes out"),
            });
        }
    }
    Ok(())
}

fn check_task<'a>(
    spec: &PipelineSpec,
    task: &'a TaskSpec,
    requests: &mut HashSet<&'a Resources>,
) -> Result<(), SpecError> {
    let id = task.id;
    check_name(|| format!("task {id}"), &task.name)?;
    for missing in task.needs() {
        let (name, tasks) = (|| task.name.clone(), spec.tasks.len());
        if missing == id {
            return Err(SpecError::SelfDependency { task: id, name: name() });
        }
        if missing.0 >= tasks as u64 {
            return Err(SpecError::UnknownTask {
                task: id,
                name: name(),
                missing,
                tasks,
            });
        }
    }
    if let CallSpec::Function { digest, .. } = &task.call
        && !spec.functions.contains_key(digest)
    {
        let name = task.name.clone();
        return Err(SpecError::UnknownFunction {
            task: id,
            name,
            digest: *digest,
        });
    }
    let is_function = matches!(task.call, CallSpec::Function { .. });
    let ranks = || task.ranks.and_then(|ranks| ranks.fault(&task.resources, is_function));
    let fault = call_fault(task)
        .or_else(|| limit_fault(spec, task))
        .or_else(ranks)
        .or_else(|| {
            requests
                .insert(&task.resources)
                .then(|| resource_fault(&task.resources))
                .flatten()
        });
    if let Some(reason) = fault {
        return Err(SpecError::Task {
            task: id,
            name: task.name.clone(),
            reason,
        });
    }
    if requests.len() > MAX_REQUESTS {
        return Err(SpecError::Pipeline {
            name: spec.name.clone(),
            reason: format!("its tasks ask for more than {MAX_REQUESTS} different resources; round the amounts"),
        });
    }
    Ok(())
}

fn call_fault(task: &TaskSpec) -> Option<String> {
    let fault = match &task.call {
        CallSpec::Function { args, args_blob, .. } if args.is_empty() == args_blob.is_none() => {
            "give its arguments either as args or as args_blob"
        }
        CallSpec::Program(_) if !task.inputs.is_empty() => {
            "a program cannot take results of tasks; format them in a function, or let it run `after` them"
        }
        CallSpec::Function { .. } => return None,
        CallSpec::Program(program) => return program_fault(program),
    };
    Some(fault.to_owned())
}

fn program_fault(program: &ProgramSpec) -> Option<String> {
    if program.argv.first().is_none_or(String::is_empty) {
        return Some("a program needs an argv whose first word is the executable".to_owned());
    }
    if program.cwd.as_deref() == Some("") {
        return Some("its cwd is empty; leave it out for the run's working folder".to_owned());
    }
    if let Some((name, _)) = program
        .outputs
        .iter()
        .find(|(name, path)| name.is_empty() || path.is_empty())
    {
        return Some(format!("output {name:?} needs a name and a path"));
    }
    if let Some(name) = program.env.keys().find(|name| name.is_empty() || name.contains('=')) {
        return Some(format!(
            "{name:?} is no name of a variable; it must not be empty or hold a `=`"
        ));
    }
    let texts = program.argv.iter().chain(program.env.iter().flat_map(|(k, v)| [k, v]));
    let mut texts = texts.chain(program.outputs.values()).chain(&program.cwd);
    let bad = texts.find(|text| text.contains('\0'))?;
    Some(format!(
        "{bad:?} holds a zero byte, which no program can be given; remove it"
    ))
}

fn limit_fault(spec: &PipelineSpec, task: &TaskSpec) -> Option<String> {
    if task.timeout_ms == Some(0) {
        return Some("a time limit of 0 would never let it run; leave timeout_ms out for none".to_owned());
    }
    if task.timeout_ms.is_some_and(|ms| ms > MAX_TIMEOUT_MS) {
        return Some("its time limit is over ten years; leave timeout_ms out for none".to_owned());
    }
    let group = task.group.as_ref()?;
    (!spec.groups.contains_key(group)).then(|| {
        let valid: Vec<&str> = spec.groups.keys().map(String::as_str).collect();
        let valid = if valid.is_empty() {
            "it has none".to_owned()
        } else {
            format!("it has {}", valid.join(", "))
        };
        format!("group {group:?} is not among the pipeline's groups ({valid}); add it there")
    })
}

fn resource_fault(r: &Resources) -> Option<String> {
    if *r == Resources::zero() {
        return Some("it asks for nothing at all; give a task that mostly waits a cpu_millis of 1".to_owned());
    }
    let amounts = [
        ("cpu_millis", r.cpu_millis, MAX_CPU_MILLIS),
        ("memory", r.memory, MAX_MEMORY),
        ("gpus", r.gpus.into(), MAX_GPUS.into()),
    ];
    let named = r.named.iter().map(|(name, &amount)| (name.as_str(), amount, MAX_NAMED));
    if let Some((name, asked, most)) = amounts.into_iter().chain(named).find(|&(_, asked, most)| asked > most) {
        return Some(format!(
            "it asks for {asked} of {name}, more than any machine has ({most}); check the unit"
        ));
    }
    for (name, &amount) in &r.named {
        if name.is_empty() || name.len() > MAX_NAME || name.contains(char::is_control) {
            return Some(format!(
                "{name:?} is no name of a resource; names have 1 to {MAX_NAME} printable bytes"
            ));
        }
        if amounts.iter().any(|(known, ..)| known == name) {
            return Some(format!(
                "named resource {name:?} is a resource of its own; write it outside of named"
            ));
        }
        if amount == 0 {
            return Some(format!("it asks for 0 of {name}; leave it out"));
        }
    }
    None
}
