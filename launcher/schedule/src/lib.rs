//! The in-allocation scheduler, purely: events in, assignments out. Owns who may run where and when; knows no clock, no
//! journal and no value. The same events give the same assignments. Hot path: `submit`, `schedule`, `finished`, once a task
//! each.
//!
//! | event | call | afterwards |
//! |---|---|---|
//! | an agent came, went | [`Engine::agent_joined`], [`Engine::agent_lost`] | the caller decides on each task returned |
//! | a task came | [`Engine::submit`], [`Engine::input_at`] | it waits, or is ready |
//! | a gang came | [`Engine::submit_gang`], [`Engine::input_at`] | the same; all its ranks start, or none |
//! | it has a value | [`Engine::finished`] | those that waited only for it are ready |
//! | it failed for good, was cancelled | [`Engine::abandon`] | those that wait for it are returned, and forgotten |
//! | it failed and may try again | [`Engine::requeue`] | it is ready, ahead of its equals |
//! | its value was lost | [`Engine::submit`] once more, [`Engine::wait_again`] for each that takes it | |
//! | it waits for tasks of its own | [`Engine::blocked`] | others use what it holds |
//! | it runs for long | [`Engine::lingers`] | less is given ahead where it runs |
//! | time runs out | [`Engine::set_remaining`] | what could not end in it is not given out |
//! | nothing more is to start | [`Engine::hold_back`] | nothing is given out |
//! | a batch of these is over | [`Engine::schedule`] | what can run is given out; of gangs [`Engine::parts`] tells more |
//!
//! What it promises, each with a test in `tests/laws.rs` or `tests/gangs.rs`: no agent holds more than it has, except while tasks that had waited
//! go on; a dependency ends before its dependents start, and there is no barrier besides; higher priorities go first, equal
//! ones in order of arrival, but for tasks that go to their inputs (a bounded number); a request that fits some agent gets
//! there in the end, however many smaller ones come; what fits no agent is in nobody's way; work is given ahead only where
//! short tasks run, and only once nothing has room (or where inputs lie that would take longer to move); no more tasks are with
//! agents than [`Engine::set_most`] allows.
//!
//! Of gangs: all ranks start together, each holds what it asks for, on as few agents as possible unless its [`Shape`] says
//! otherwise. Two gangs never wait for each other, since none holds a part. Others go before a gang that finds no room, for a
//! while; then as many agents as it needs keep free what it asks for, and the others are left alone.
//!
//! ```
//! use bridgehead_schedule::Engine;
//! use bridgehead_spec::{AgentId, Resources, TaskId};
//! let mut engine = Engine::new(0);
//! engine.agent_joined(AgentId(0), &Resources::default());
//! engine.submit(TaskId(0), &Resources::default(), 0, &[]);
//! engine.submit(TaskId(1), &Resources::default(), 0, &[TaskId(0)]);
//! let mut out = Vec::new();
//! engine.schedule(&mut out);
//! assert_eq!(out, [(TaskId(0), AgentId(0))]);
//! out.clear();
//! engine.finished(TaskId(0), 0, 1_000_000);
//! engine.schedule(&mut out);
//! assert_eq!(out, [(TaskId(1), AgentId(0))]);
//! ```

mod agents;
mod allocation;
mod check;
mod class;
mod engine;
mod gang;
mod place;
mod queue;
mod reserve;
mod room;
mod shape;
mod tasks;

pub use engine::Engine;
pub use shape::Shape;
