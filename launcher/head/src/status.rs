//! The status snapshot (`status.json`): what a client sees that cannot reach the head. Owns the document's shape.

use crate::core::Core;
use crate::state::{End, Phase};
use bridgehead_wire::{ArenaUse, GpuMemory, Heartbeat};
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
                "store": store(&row.store),
                "gpu_memory": row.gpu_memory.iter().map(gpu_memory).collect::<Vec<_>>(),
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
        "results": owners(core),
        "objects": { "count": core.object_sizes().0, "bytes": core.object_sizes().1 },
        "agents_expected": core.config().agents.len(),
        "failures": failures(core),
    })
}

/// A store as its agent's last beat told of it: how full it is, and what it has moved by lane since it began.
fn store(beat: &Heartbeat) -> Value {
    let lane = |operations: u64, bytes: u64| json!({ "operations": operations, "bytes": bytes });
    let arena = |arena: &ArenaUse| {
        let refused = (!arena.refused.is_empty()).then_some(&arena.refused);
        json!({ "numa": arena.numa, "used": arena.used, "limit": arena.limit, "unbound": refused })
    };
    let arenas: Vec<Value> = beat.arenas.iter().map(arena).collect();
    json!({
        "arenas": arenas,
        "used": beat.store_used, "limit": beat.store_limit, "spilled": beat.store_spilled, "objects": beat.objects,
        "views": beat.views, "hit_rate": hit_rate(beat),
        "local": lane(beat.local_operations, beat.local_bytes),
        "remote": lane(beat.remote_operations, beat.remote_bytes),
        "lent": lane(beat.lent_operations, beat.lent_bytes),
        "spill": lane(beat.spill_operations, beat.spill_bytes),
        "restore": lane(beat.restore_operations, beat.restore_bytes),
        "on_gpus": beat.gpu_used,
        "to_gpu": lane(beat.to_gpu_operations, beat.to_gpu_bytes),
        "from_gpu": lane(beat.from_gpu_operations, beat.from_gpu_bytes),
    })
}

/// What the memory of a GPU is to the store of its node: CUDA's, or host memory that stands in for it, and why.
fn gpu_memory(gpu: &GpuMemory) -> Value {
    let why = gpu.stand_in.then_some(gpu.why.as_str());
    json!({ "name": gpu.name, "stand_in": gpu.stand_in, "why": why, "limit": gpu.limit })
}

/// The share of what was wanted of a store that lay in its memory; nothing where nothing was wanted.
#[allow(clippy::cast_precision_loss)] // A share needs no more digits than a float has.
fn hit_rate(beat: &Heartbeat) -> Option<f64> {
    let hits = beat.local_operations;
    let all = hits + beat.remote_operations + beat.restore_operations;
    (all > 0).then(|| hits as f64 / all as f64)
}

/// Bytes of results in the stores, by the name of their tasks, the largest first.
fn owners(core: &Core) -> Vec<Value> {
    let mut found: Vec<(String, (u64, u64))> = core.result_sizes().into_iter().collect();
    found.sort_by(|(one, (_, a)), (other, (_, b))| b.cmp(a).then_with(|| one.cmp(other)));
    let listed = found.into_iter().take(LISTED);
    listed
        .map(|(name, (objects, bytes))| json!({ "task": name, "objects": objects, "bytes": bytes }))
        .collect()
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
