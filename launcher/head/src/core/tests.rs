//! The core's laws that need the scheduler: where tasks go, and that what was lost is made again. Agents and clients are
//! played by the test, message by message.

mod pauses;
mod ranks;

use super::*;
use bridgehead_spec::{AgentConfig, ObjectId, Resources, RunId};
use bridgehead_wire::{AgentJoin, AgentToHead, Amounts, ClientHello, ClientToHead, Input, Outcome, PutFunction};
use bridgehead_wire::{ObjectRef, TaskDone, TaskSubmit, Value, input};
use std::collections::BTreeMap;

const CLIENT: ConnId = ConnId(1);
const MIB: u64 = 1 << 20;

/// A run without a pipeline, of agents with one core each.
fn config(agents: u32) -> RunConfig {
    let agent = AgentConfig {
        resources: Resources::default(),
        store_limit: 1 << 30,
    };
    RunConfig {
        version: 1,
        run: RunId::parse("run-1").expect("it is a run's name"),
        name: String::new(),
        has_pipeline: false,
        attached: true,
        agents: vec![agent; agents as usize],
        min_agents: None,
        python: "python3".into(),
        sys_path: Vec::new(),
        cwd: "/".into(),
        project: None,
        python_version: None,
        env: BTreeMap::new(),
        inline_limit: 0,
        join_timeout_ms: 1000,
        trace: None,
        target: None,
        store_limit: None,
        max_running: None,
        max_fails: None,
        transport: Default::default(),
        verify_objects: false,
    }
}

/// Such a run with a client and all its agents.
fn core(agents: u32) -> Core {
    let mut core = core_of(config(agents));
    join(&mut core, agents);
    core
}

/// A run with a client.
fn core_of(config: RunConfig) -> Core {
    let mut core = Core::new(config, RunState::new(false), [0; 32], 1);
    let hello = ClientHello {
        owner: true,
        ..ClientHello::default()
    };
    core.on_client(CLIENT, &hello, "");
    let code = bytes::Bytes::from_static(b"code");
    let function = PutFunction {
        digest: bytes::Bytes::copy_from_slice(&Digest::of(&code).0),
        code,
        ..PutFunction::default()
    };
    core.on_message(CLIENT, ClientToHead::PutFunction(function));
    core
}

fn join(core: &mut Core, agents: u32) {
    (0..agents).for_each(|agent| join_one(core, agent));
}

fn join_one(core: &mut Core, agent: u32) {
    let join = AgentJoin {
        agent,
        resources: Some(Amounts::from(&Resources::default())),
        ..AgentJoin::default()
    };
    core.on_join(join, "");
}

fn object(id: u64, node: u32) -> Value {
    Value::stored(ObjectRef::new(ObjectId(id.into()), MIB, node, 0, 0))
}

/// Submits task `id`, which takes the results of `needs` and, it may be, stored arguments.
fn submit(core: &mut Core, id: u64, needs: &[u64], args: Option<Value>) {
    let input = |&task: &u64| Input {
        kind: Some(input::Kind::Task(task)),
        lazy: false,
    };
    let submit = TaskSubmit {
        token: id,
        inputs: needs.iter().map(input).collect(),
        args,
        ..TaskSubmit::default()
    };
    core.on_message(CLIENT, ClientToHead::Submit(submit));
}

/// One turn of the head: the calls that agents get, as (task, agent).
fn calls(core: &mut Core) -> Vec<(u64, u32)> {
    core.sweep_failed();
    core.assign();
    core.sweep_failed();
    let sent = core.take_effects().agents.into_iter();
    let call = |(agent, message)| match message {
        HeadToAgent::Call(call) => Some((call.task, agent)),
        _ => None,
    };
    sent.filter_map(call).collect()
}

fn check(core: &mut Core, expected: &[(u64, u32)]) {
    assert_eq!(calls(core), expected);
    core.engine.sanity_check();
}

/// A task ends at its agent with a stored result of one MiB.
fn finish(core: &mut Core, task: u64, agent: u32) {
    let attempt = core.state().row(task).map_or(0, |row| row.attempt);
    let done = TaskDone {
        task,
        attempt,
        outcome: Some(Outcome::value(object(100 * u64::from(attempt) + task, agent))),
        elapsed_ns: 1_000_000_000,
        ..TaskDone::default()
    };
    core.on_agent(agent, AgentToHead::Done(done));
}

#[test]
fn a_task_goes_where_values_lie_that_were_there_before_it_came() {
    let mut core = core(3);
    submit(&mut core, 0, &[], None);
    submit(&mut core, 1, &[], None);
    check(&mut core, &[(0, 0), (1, 1)]);
    finish(&mut core, 0, 0);
    finish(&mut core, 1, 1);
    submit(&mut core, 2, &[1], None);
    check(&mut core, &[(2, 1)]);
    finish(&mut core, 2, 1);
    // The stored arguments of one task make their place known to the next that names them.
    core.objects.hold(&ObjectRef::new(ObjectId(7), MIB, 2, 0, 0));
    submit(&mut core, 3, &[], Some(object(7, 2)));
    check(&mut core, &[(3, 2)]);
}

/// The core could make any of its tasks again, as in a run with a journal.
fn let_rebuild(core: &mut Core, tasks: &[u64]) {
    for &task in tasks {
        let digest = core.functions.digest(0).expect("the client sent one function");
        let added = AddedTask {
            task,
            name: String::new(),
            submit: Some(TaskSubmit::default()),
            function: digest.0.to_vec(),
        };
        core.added.insert(task, added);
    }
}

#[test]
fn a_lost_value_is_made_again_once_before_all_that_wait_for_it() {
    let mut core = core(2);
    submit(&mut core, 0, &[], None);
    submit(&mut core, 1, &[], None);
    for consumer in 2..5 {
        submit(&mut core, consumer, &[0, 1], None);
    }
    let_rebuild(&mut core, &[0, 1]);
    check(&mut core, &[(0, 0), (1, 1)]);
    finish(&mut core, 0, 0);
    check(&mut core, &[]);
    core.on_agent_lost(0, "the test says so");
    check(&mut core, &[]);
    finish(&mut core, 1, 1);
    check(&mut core, &[(0, 1)]);
    finish(&mut core, 0, 1);
    for consumer in 2..5 {
        assert!(core.objects.locate(ObjectId(200)).is_some(), "its consumers hold it");
        check(&mut core, &[(consumer, 1)]);
        finish(&mut core, consumer, 1);
    }
    assert_eq!(core.open_tasks(), 0);
}

#[test]
fn a_consumer_that_failed_with_its_agent_waits_for_the_value_that_is_made_again() {
    let mut core = core(3);
    submit(&mut core, 0, &[], None);
    let_rebuild(&mut core, &[0]);
    check(&mut core, &[(0, 0)]);
    finish(&mut core, 0, 0);
    submit(&mut core, 1, &[0], None);
    check(&mut core, &[(1, 0)]);
    core.on_agent_lost(0, "the test says so");
    check(&mut core, &[(0, 1)]);
    finish(&mut core, 0, 1);
    check(&mut core, &[(1, 1)]);
    finish(&mut core, 1, 1);
    assert_eq!(core.open_tasks(), 0);
}

#[test]
fn a_task_that_fails_as_it_comes_lets_go_of_nothing_that_others_hold() {
    let mut core = core(1);
    submit(&mut core, 0, &[], None);
    submit(&mut core, 1, &[0], None);
    core.cancel_task(1, "the test says so");
    check(&mut core, &[(0, 0)]);
    submit(&mut core, 2, &[0], None);
    submit(&mut core, 3, &[0, 1], None); // Fails at once, because it takes what was cancelled.
    assert_eq!(core.job(0).map(|job| job.consumers), Some(1));
    finish(&mut core, 0, 0);
    check(&mut core, &[(2, 0)]);
}

#[test]
fn no_more_tasks_run_than_max_running_allows() {
    let mut core = core_of(RunConfig {
        max_running: Some(2),
        ..config(3)
    });
    join(&mut core, 3);
    (0..4).for_each(|task| submit(&mut core, task, &[], None));
    check(&mut core, &[(0, 0), (1, 1)]);
    finish(&mut core, 0, 0);
    check(&mut core, &[(2, 0)]);
}

/// A task ends at agent 0 with an error of its own.
fn fail(core: &mut Core, task: u64) {
    let failure = bridgehead_wire::Failure::new(bridgehead_wire::FailureCause::User, "ValueError", "the test says so");
    let done = TaskDone {
        task,
        attempt: 1,
        outcome: Some(Outcome::failure(failure)),
        ..TaskDone::default()
    };
    core.on_agent(0, AgentToHead::Done(done));
}

#[test]
fn one_failure_more_than_max_fails_cancels_the_rest_and_the_run_failed() {
    let mut core = core_of(RunConfig {
        max_fails: Some(1),
        ..config(1)
    });
    join(&mut core, 1);
    for task in 0..3 {
        submit(&mut core, task, &[], None);
    }
    submit(&mut core, 3, &[0], None); // Its failure is not its own.
    submit(&mut core, 4, &[2], None);
    check(&mut core, &[(0, 0)]);
    fail(&mut core, 0);
    check(&mut core, &[(1, 0)]);
    assert_eq!(core.state().counts.failed, 2);
    fail(&mut core, 1);
    check(&mut core, &[]);
    assert!(core.end_if_done());
    let (phase, message) = core.state().ended.clone().expect("it has ended");
    assert_eq!(phase, "failed");
    assert!(
        message.contains("2 tasks failed, more than the 1 that max_fails allows"),
        "{message}"
    );
    assert_eq!((core.state().counts.failed, core.state().counts.cancelled), (3, 2));
}

#[test]
fn a_run_starts_with_as_many_agents_as_are_enough_and_others_join_later() {
    let mut core = core_of(RunConfig {
        min_agents: Some(2),
        ..config(3)
    });
    (0..3).for_each(|task| submit(&mut core, task, &[], None));
    join_one(&mut core, 2);
    check(&mut core, &[]);
    join_one(&mut core, 0);
    check(&mut core, &[(0, 2), (1, 0)]);
    join_one(&mut core, 1);
    check(&mut core, &[(2, 1)]);
}
