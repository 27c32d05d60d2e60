//! The trace of a run in Chrome's trace event format (open it in Perfetto): tasks on their workers, what each waited for on its
//! agent, objects on their way to an agent. Owns the events and their JSON.

use bridgehead_wire::Heartbeat;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// What a span shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// An attempt at a task, on a worker.
    Task { task: u64, worker: u32 },
    /// A task that was given to an agent waits there: for its inputs, for a worker, for the one before it.
    Wait { task: u64 },
    /// An object on its way into an agent's memory, from another node or from disk.
    Transfer { bytes: u64 },
}

/// Something that took time at an agent.
#[derive(Debug)]
struct Span {
    kind: Kind,
    agent: u32,
    started_ns: u64,
    elapsed_ns: u64,
}

/// What happened when and where, kept only for runs that asked for a trace. Times are nanoseconds since the epoch.
#[derive(Debug, Default)]
pub struct Trace {
    spans: Vec<Span>,
    /// How full stores were and what they had moved, at their agents' beats.
    stores: Vec<(u32, u64, Heartbeat)>,
    /// When tasks that have not ended were given to their agents.
    given: HashMap<u64, u64>,
}

impl Trace {
    /// A task was given to an agent.
    pub fn given(&mut self, task: u64, now_ns: u64) {
        self.given.insert(task, now_ns);
    }

    /// Adds an attempt at a task, and before it its wait at the agent.
    pub fn task(&mut self, task: u64, agent: u32, worker: u32, started_ns: u64, elapsed_ns: u64) {
        if let Some(given_ns) = self.given.remove(&task).filter(|given_ns| *given_ns < started_ns) {
            self.spans.push(Span {
                kind: Kind::Wait { task },
                agent,
                started_ns: given_ns,
                elapsed_ns: started_ns - given_ns,
            });
        }
        self.spans.push(Span {
            kind: Kind::Task { task, worker },
            agent,
            started_ns,
            elapsed_ns,
        });
    }

    /// Adds an object of `bytes` that came into an agent's memory.
    pub fn transfer(&mut self, agent: u32, bytes: u64, started_ns: u64, elapsed_ns: u64) {
        self.spans.push(Span {
            kind: Kind::Transfer { bytes },
            agent,
            started_ns,
            elapsed_ns,
        });
    }

    /// How full an agent's store is, and what it has moved since it began.
    pub fn store(&mut self, agent: u32, now_ns: u64, beat: Heartbeat) {
        self.stores.push((agent, now_ns, beat));
    }

    /// The trace as a JSON document; times are microseconds since `origin_ns`, a process is an agent, a thread a worker.
    /// Waits and transfers overlap one another, so they are asynchronous events, each with a number of its own.
    #[must_use]
    pub fn to_json(&self, origin_ns: u64, name: impl Fn(u64) -> String) -> String {
        let agents: BTreeSet<u32> = self.spans.iter().map(|span| span.agent).collect();
        let workers: BTreeSet<(u32, u32)> = self.spans.iter().filter_map(Span::worker).collect();
        let mut events: Vec<Value> = agents
            .into_iter()
            .map(|agent| label("process_name", agent, 0, "agent"))
            .collect();
        events.extend(
            workers
                .into_iter()
                .map(|(agent, worker)| label("thread_name", agent, worker, "worker")),
        );
        for (number, span) in self.spans.iter().enumerate() {
            events.extend(span.events(number, origin_ns, &name));
        }
        for (agent, at, beat) in &self.stores {
            events.extend(counters(*agent, at.saturating_sub(origin_ns), beat));
        }
        json!({ "traceEvents": events, "displayTimeUnit": "ms" }).to_string()
    }
}

#[allow(clippy::cast_precision_loss)] // Microseconds with fractions are what the format wants.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}

impl Span {
    fn worker(&self) -> Option<(u32, u32)> {
        match self.kind {
            Kind::Task { worker, .. } => Some((self.agent, worker)),
            Kind::Wait { .. } | Kind::Transfer { .. } => None,
        }
    }

    fn events(&self, number: usize, origin_ns: u64, name: impl Fn(u64) -> String) -> Vec<Value> {
        let begin = self.started_ns.saturating_sub(origin_ns);
        match self.kind {
            Kind::Task { task, worker } => vec![json!({
                "name": name(task), "cat": "task", "ph": "X", "pid": self.agent, "tid": worker,
                "ts": micros(begin), "dur": micros(self.elapsed_ns), "args": { "task": task },
            })],
            Kind::Wait { task } => self.pair(
                "wait",
                &format!("{} waits", name(task)),
                number,
                begin,
                &json!({ "task": task }),
            ),
            Kind::Transfer { bytes } => self.pair(
                "transfer",
                &format!("{bytes} bytes"),
                number,
                begin,
                &json!({ "bytes": bytes }),
            ),
        }
    }

    fn pair(&self, category: &str, name: &str, number: usize, begin: u64, args: &Value) -> Vec<Value> {
        let event = |phase: &str, ns: u64| {
            json!({
                "name": name, "cat": category, "ph": phase, "id": number, "pid": self.agent, "tid": 0,
                "ts": micros(ns), "args": args,
            })
        };
        vec![event("b", begin), event("e", begin + self.elapsed_ns)]
    }
}

/// A store's figures as counters, which a viewer draws as curves.
fn counters(agent: u32, ns: u64, beat: &Heartbeat) -> [Value; 2] {
    let counter = |name: &str, args: Value| json!({ "name": name, "ph": "C", "pid": agent, "tid": 0, "ts": micros(ns), "args": args });
    [
        counter(
            "store bytes",
            json!({ "used": beat.store_used, "on disk": beat.store_spilled, "on GPUs": beat.gpu_used }),
        ),
        counter(
            "moved bytes",
            json!({
                "local": beat.local_bytes, "remote": beat.remote_bytes, "lent": beat.lent_bytes, "spill": beat.spill_bytes,
                "to GPUs": beat.to_gpu_bytes, "from GPUs": beat.from_gpu_bytes,
            }),
        ),
    ]
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
    fn waits_and_transfers_begin_and_end_once_each() {
        let mut trace = Trace::default();
        trace.given(7, 2_000);
        trace.task(7, 0, 1, 5_000, 1_000);
        trace.given(8, 9_000);
        trace.task(8, 0, 1, 8_000, 1_000);
        trace.transfer(1, 4096, 3_000, 2_000);
        let document: Value = serde_json::from_str(&trace.to_json(0, |task| format!("t{task}"))).unwrap();
        let events = document["traceEvents"].as_array().unwrap();
        let of = |category: &str, phase: &str| -> Vec<f64> {
            let found = events.iter().filter(|e| e["cat"] == category && e["ph"] == phase);
            found.map(|e| e["ts"].as_f64().unwrap()).collect()
        };
        assert_eq!(
            (of("wait", "b"), of("wait", "e")),
            (vec![2.0], vec![5.0]),
            "a clock that went back gives no wait"
        );
        assert_eq!((of("transfer", "b"), of("transfer", "e")), (vec![3.0], vec![5.0]));
        assert_eq!(of("task", "X"), [5.0, 8.0]);
    }

    #[test]
    fn a_store_is_a_pair_of_curves_at_the_times_of_its_beats() {
        let mut trace = Trace::default();
        let beat = Heartbeat {
            store_used: 7,
            remote_bytes: 9,
            ..Heartbeat::default()
        };
        trace.store(1, 5_000, beat);
        let document: Value = serde_json::from_str(&trace.to_json(2_000, |task| format!("t{task}"))).unwrap();
        let curves: Vec<_> = document["traceEvents"].as_array().unwrap().iter().collect();
        assert_eq!(curves.len(), 2);
        assert_eq!(
            (&curves[0]["args"]["used"], &curves[1]["args"]["remote"]),
            (&json!(7), &json!(9))
        );
        assert!(
            curves
                .iter()
                .all(|e| e["ph"] == "C" && e["ts"] == json!(3.0) && e["pid"] == json!(1))
        );
    }

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
