//! The in-allocation scheduler, purely: events in, assignments out. Owns who may run where and when; knows no clock, no
//! journal and no value. Hot path: `submit`, `schedule`, `finished`, once a task each.
//!
//! ```
//! use bridgehead_schedule::Engine;
//! use bridgehead_spec::{AgentId, Resources, TaskId};
//! let mut engine = Engine::new(0);
//! engine.agent_joined(AgentId(0), Resources::default());
//! engine.submit(TaskId(0), &Resources::default(), 0, &[]);
//! engine.submit(TaskId(1), &Resources::default(), 0, &[TaskId(0)]);
//! let mut out = Vec::new();
//! engine.schedule(&mut out);
//! assert_eq!(out, [(TaskId(0), AgentId(0))]);
//! out.clear();
//! engine.finished(TaskId(0), 0);
//! engine.schedule(&mut out);
//! assert_eq!(out, [(TaskId(1), AgentId(0))]);
//! ```

mod agents;
mod check;
mod class;
mod engine;
mod tasks;

pub use engine::Engine;
