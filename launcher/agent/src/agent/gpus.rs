//! Objects in the memory of this node's GPUs: what the head asks to lie there, and which GPUs a call is best given. The store
//! moves the bytes.

use super::Agent;
use crate::data::Asker;
use bridgehead_wire::{Failure, FailureCause, Fetch, GpuMemory, ObjectRef, Outcome, TaskCall, Value};

/// The outcome for who asked that an object lie on a GPU where it cannot.
pub(super) fn refused(reason: impl Into<String>) -> Outcome {
    Outcome::failure(Failure::new(FailureCause::System, "gpu-memory", reason.into()))
}

impl Agent {
    /// What the memory of this node's GPUs is to its store; said in the log once.
    pub(super) fn gpu_memory(&self) -> Vec<GpuMemory> {
        let both = self.options.gpu_memory.iter().zip(self.store.devices());
        let told = both.map(|(device, now)| {
            let why = device.why.clone().unwrap_or_default();
            if now.stand_in {
                tracing::warn!(memory = now.name, why, "objects for a GPU lie in host memory");
            } else {
                tracing::info!(
                    memory = now.name,
                    limit = now.limit,
                    "objects may lie in a GPU's memory"
                );
            }
            GpuMemory {
                name: now.name,
                stand_in: now.stand_in,
                why,
                limit: now.limit,
            }
        });
        told.collect()
    }

    /// An object is to lie in the memory of a GPU of this node.
    pub(super) fn move_to_gpu(&mut self, object: &ObjectRef, fetch: &Fetch, asker: Asker) {
        let count = u32::try_from(self.options.gpu_memory.len()).unwrap_or(u32::MAX);
        let Some(gpu) = fetch.turn.checked_rem(count) else {
            let node = self.options.agent.0;
            return self.answer(
                &asker,
                refused(format!("node {node} has no GPU for object {}", object.id())),
            );
        };
        let done = self.settled(asker, fetch);
        self.store.move_to_device(object, gpu, done);
    }

    /// The GPUs in whose memory objects lie that a call takes, whole or as references.
    pub(super) fn gpus_of(&self, call: &TaskCall) -> Vec<u32> {
        let mut gpus = Vec::new();
        for object in call.args.iter().chain(&call.inputs).filter_map(Value::object) {
            if let Some(gpu) = self.store.device_of(object.id()).filter(|gpu| !gpus.contains(gpu)) {
                gpus.push(gpu);
            }
        }
        gpus
    }
}
