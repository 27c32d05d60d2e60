//! The launch plan for people. Owns the layout; every sentence comes from the plan's reasons.

use crate::document::{AgentPlan, GangPlan, LaunchPlan, Topic};
use crate::planner::counted;
use bridgehead_spec::{Resources, format_memory};

impl LaunchPlan {
    /// The plan as text: what is launched, then why. Ends with a newline.
    #[must_use]
    pub fn to_human(&self) -> String {
        let mut lines = vec![format!(
            "{} on {}: {}",
            self.pipeline,
            self.backend,
            counted(self.gangs.len() as u64, "gang")
        )];
        for gang in &self.gangs {
            gang_lines(gang, &mut lines);
        }
        lines.push("why:".to_owned());
        lines.extend(
            self.reasons
                .iter()
                .map(|reason| format!("  {:<7} {}", topic(reason.about), reason.text)),
        );
        lines.push(String::new());
        lines.join("\n")
    }
}

fn gang_lines(gang: &GangPlan, lines: &mut Vec<String>) {
    let functions = counted(gang.tasks - gang.programs, "function");
    let programs = counted(gang.programs, "program");
    let tasks = counted(gang.tasks, "task");
    let id = gang.id;
    lines.push(format!("gang {id}: {tasks} ({functions}, {programs}){}", place(gang)));
    for run in gang
        .agents
        .chunk_by(|a, b| a.resources == b.resources && a.workers == b.workers)
    {
        lines.push(agent_line(run));
    }
}

/// Where and after whom a gang runs that is not alone.
fn place(gang: &GangPlan) -> String {
    let groups = (!gang.ranges.is_empty() && !gang.groups.is_empty()).then(|| format!(", {}", gang.groups.join(", ")));
    let partition = gang.partition.as_ref().map(|name| format!(", in partition {name}"));
    let after = gang.after.iter().map(|id| format!(", after gang {id}"));
    groups.into_iter().chain(partition).chain(after).collect()
}

/// Neighbours that are alike share a line: a gang may have a thousand.
fn agent_line(run: &[AgentPlan]) -> String {
    let (first, last) = (&run[0], &run[run.len() - 1]);
    let who = if run.len() == 1 {
        format!("agent {} on {}", first.rank, first.node)
    } else {
        format!("agents {}-{} on {} to {}", first.rank, last.rank, first.node, last.node)
    };
    let each = if run.len() == 1 { "" } else { " each" };
    format!(
        "  {who}: {}, {}{each}",
        resources(&first.resources),
        counted(first.workers.into(), "worker")
    )
}

fn resources(r: &Resources) -> String {
    let cpus = if r.cpu_millis.is_multiple_of(1000) {
        counted(r.cpu_millis / 1000, "cpu")
    } else {
        let text = format!("{}.{:03}", r.cpu_millis / 1000, r.cpu_millis % 1000);
        format!("{} cpus", text.trim_end_matches('0'))
    };
    let mut parts = vec![cpus];
    if r.memory > 0 {
        parts.push(format!("{} memory", format_memory(r.memory)));
    }
    if r.gpus > 0 {
        parts.push(counted(r.gpus.into(), "GPU"));
    }
    parts.extend(r.named.iter().map(|(name, n)| format!("{n} {name}")));
    parts.join(", ")
}

fn topic(topic: Topic) -> &'static str {
    match topic {
        Topic::Gangs => "gangs",
        Topic::Agents => "agents",
        Topic::Graph => "graph",
        Topic::Limit => "limit",
    }
}
