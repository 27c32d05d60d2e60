//! The trace of a run in Chrome's trace event format (open it in Perfetto). Owns the events and their JSON. A further kind of
//! event is a method beside [`Trace::task`] with a category of its own: what it adds is a span of an agent's lane.

use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Something that took time, on one lane (a worker) of an agent.
#[derive(Debug)]
struct Span {
    category: &'static str,
    task: u64,
    agent: u32,
    lane: u32,
    started_ns: u64,
    elapsed_ns: u64,
}

/// What happened when and where, kept only for runs that asked for a trace.
#[derive(Debug, Default)]
pub struct Trace {
    spans: Vec<Span>,
}

impl Trace {
    /// Adds an attempt at a task: start in nanoseconds since the epoch, length in nanoseconds.
    pub fn task(&mut self, task: u64, agent: u32, worker: u32, started_ns: u64, elapsed_ns: u64) {
        self.spans.push(Span {
            category: "task",
            task,
            agent,
            lane: worker,
            started_ns,
            elapsed_ns,
        });
    }

    /// The trace as a JSON document; times are microseconds since `origin_ns`, a process is an agent, a thread a worker.
    #[must_use]
    pub fn to_json(&self, origin_ns: u64, name: impl Fn(u64) -> String) -> String {
        let lanes: BTreeSet<(u32, u32)> = self.spans.iter().map(|span| (span.agent, span.lane)).collect();
        let agents: BTreeSet<u32> = lanes.iter().map(|lane| lane.0).collect();
        let mut events: Vec<Value> = agents
            .into_iter()
            .map(|agent| label("process_name", agent, 0, "agent"))
            .collect();
        events.extend(
            lanes
                .into_iter()
                .map(|(agent, lane)| label("thread_name", agent, lane, "worker")),
        );
        events.extend(self.spans.iter().map(|span| span.event(origin_ns, &name(span.task))));
        json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
    }
}

impl Span {
    fn event(&self, origin_ns: u64, name: &str) -> Value {
        #[allow(clippy::cast_precision_loss)] // Microseconds with fractions are what the format wants.
        let micros = |ns: u64| ns as f64 / 1000.0;
        json!({
            "name": name, "cat": self.category, "ph": "X", "pid": self.agent, "tid": self.lane,
            "ts": micros(self.started_ns.saturating_sub(origin_ns)), "dur": micros(self.elapsed_ns),
            "args": { "task": self.task },
        })
    }
}

/// Names an agent or a lane for the viewer.
fn label(what: &str, agent: u32, lane: u32, kind: &str) -> Value {
    let number = if what == "process_name" { agent } else { lane };
    json!({ "name": what, "ph": "M", "pid": agent, "tid": lane, "args": { "name": format!("{kind} {number}") } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_span_is_an_event_on_a_lane_that_has_a_name() {
        let mut trace = Trace::default();
        trace.task(7, 1, 2, 5_000, 1_500);
        trace.task(8, 0, 0, 2_000, 1_000);
        let document: Value = serde_json::from_str(&trace.to_json(2_000, |task| format!("t{task}"))).unwrap();
        let events = document["traceEvents"].as_array().unwrap();
        let named: Vec<_> = events
            .iter()
            .filter(|e| e["ph"] == "M")
            .map(|e| (&e["name"], &e["args"]["name"]))
            .collect();
        assert_eq!(named.len(), 4, "{named:?}");
        let spans: Vec<_> = events.iter().filter(|e| e["ph"] == "X").collect();
        assert_eq!(
            (&spans[0]["name"], &spans[0]["ts"], &spans[0]["dur"]),
            (&json!("t7"), &json!(3.0), &json!(1.5))
        );
        assert_eq!(
            (&spans[1]["pid"], &spans[1]["tid"], &spans[1]["ts"]),
            (&json!(0), &json!(0), &json!(0.0))
        );
    }
}
