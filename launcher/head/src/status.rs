//! The status snapshot (`status.json`): what a client sees that cannot reach the head. Owns the document's shape.

use crate::core::Core;
use crate::state::{End, Phase};
use serde_json::{Value, json};

/// Failures that are listed; all are in the journal.
const LISTED: usize = 20;
/// Names that are listed.
const NAMED: usize = 100;

/// The snapshot as JSON, version 1.
#[must_use]
pub fn snapshot(core: &Core) -> Value {
    let state = core.state();
    let phase = match &state.ended {
        Some((phase, _)) => phase.as_str(),
        None if core.is_cancelling() => "cancelling",
        None if core.is_pausing() => "draining",
        None => "running",
    };
    let agents: Vec<_> = core
        .agents()
        .iter()
        .map(|(id, row)| {
            json!({
                "agent": id, "host": row.host, "pid": row.pid,
                "cpus": row.resources.cpu_millis / 1000, "memory": row.resources.memory, "gpus": row.resources.gpus,
                "store": { "used": row.store.store_used, "limit": row.store.store_limit, "spilled": row.store.store_spilled },
            })
        })
        .collect();
    json!({
        "version": 1,
        "run": core.config().run.as_str(),
        "name": core.config().name,
        "phase": phase,
        "message": state.ended.as_ref().map_or("", |(_, message)| message.as_str()),
        "paused": state.paused.as_ref().map(|(cause, message)| json!({ "cause": cause, "message": message })),
        "interruptions": state.interruptions,
        "attempt": state.attempt,
        "pid": std::process::id(),
        "started_ns": state.started_ns,
        "updated_ns": state.last_ns,
        "tasks": state.counts,
        "agents": agents,
        "names": names(core),
        "agents_expected": core.config().agents.len(),
        "failures": failures(core),
    })
}

/// Named values: how many versions each has, and their bytes.
fn names(core: &Core) -> Vec<Value> {
    let named = core.name_sizes().take(NAMED);
    named
        .map(|(name, versions, bytes)| json!({ "name": name, "versions": versions, "bytes": bytes }))
        .collect()
}

fn failures(core: &Core) -> Vec<Value> {
    let rows = core.state().tasks.iter().enumerate();
    rows.filter(|(_, row)| row.phase == Phase::Failed)
        .filter_map(|(id, row)| match &row.end {
            End::Failure(f) if f.root.is_none() => Some(json!({
                "task": id, "name": core.task_name(id as u64), "kind": f.kind, "message": f.message,
                "attempts": row.attempt,
            })),
            _ => None,
        })
        .take(LISTED)
        .collect()
}
