//! The trace of a run in Chrome's trace event format (open it in Perfetto). Owns the events and their JSON.

use serde_json::json;

#[derive(Debug)]
struct Span {
    task: u64,
    agent: u32,
    worker: u32,
    started_ns: u64,
    elapsed_ns: u64,
}

/// What happened when and where, kept only for runs that asked for a trace.
#[derive(Debug, Default)]
pub struct Trace {
    spans: Vec<Span>,
}

impl Trace {
    /// Adds an attempt: start in nanoseconds since the epoch, length in nanoseconds.
    pub fn task(&mut self, task: u64, agent: u32, worker: u32, started_ns: u64, elapsed_ns: u64) {
        self.spans.push(Span {
            task,
            agent,
            worker,
            started_ns,
            elapsed_ns,
        });
    }

    /// The trace as a JSON document; times are microseconds since `origin_ns`, a process is an agent, a thread a worker.
    #[must_use]
    pub fn to_json(&self, origin_ns: u64, name: impl Fn(u64) -> String) -> String {
        #[allow(clippy::cast_precision_loss)] // Microseconds with fractions are what the format wants.
        let micros = |ns: u64| ns as f64 / 1000.0;
        let events: Vec<_> = self
            .spans
            .iter()
            .map(|s| {
                json!({
                    "name": name(s.task), "cat": "task", "ph": "X", "pid": s.agent, "tid": s.worker,
                    "ts": micros(s.started_ns.saturating_sub(origin_ns)), "dur": micros(s.elapsed_ns),
                    "args": { "task": s.task },
                })
            })
            .collect();
        json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
    }
}
