//! Laws of pauses: what ran waits again and burns no retry, what is needed later lies in the run folder first, the next attempt
//! goes on where this one stopped, and no end of an allocation is taken for a task's own.

mod gangs;

use gangs::add_task;

use super::*;
use crate::state::{End, Interruptions, Phase};
use bridgehead_spec::RunFolder;
use bridgehead_wire::{Failure, FailureCause, Persisted};
use std::fmt::Write;
use std::time::Duration;

const SECOND: u64 = 1_000_000_000;
/// The allocation's end; its margin is two seconds, its notice twenty.
const END: u64 = 1000 * SECOND;

/// A run of a pipeline through its attempts.
struct Attempts {
    folder: tempfile::TempDir,
    core: Core,
    records: Vec<Record>,
    allocation: Option<Allocation>,
    /// Tasks of each gang, and the gang whose turn it is.
    gangs: Option<(Vec<Vec<[u64; 2]>>, u32)>,
}

impl Attempts {
    /// Tasks by what they take.
    fn begin(tasks: &[&[u64]], allocation: Option<Allocation>) -> Self {
        Self::begin_limited(tasks, "", allocation)
    }

    /// With more fields for each task, as JSON.
    fn begin_limited(tasks: &[&[u64]], more: &str, allocation: Option<Allocation>) -> Self {
        let folder = tempfile::tempdir().expect("there is room for a folder");
        let function = Digest::of(b"code");
        let mut list = String::new();
        for (id, inputs) in tasks.iter().enumerate() {
            let comma = if id == 0 { "" } else { "," };
            let call = format!(r#"{{"function":{{"digest":"{function}","args":"QQ=="}}}}"#);
            let task = format!(
                r#"{{"id":{id},"name":"task-{id}","call":{call},"inputs":{inputs:?},"retries":{{"user":1}}{more}}}"#
            );
            write!(list, "{comma}{task}").expect("a string takes all");
        }
        let text = format!(
            r#"{{"version":1,"name":"p","environment":{{"python":"3.11"}},"functions":{{"{function}":{{"name":"m.f","size":4}}}},"tasks":[{list}]}}"#
        );
        std::fs::write(folder.path().join("spec.json"), text).expect("the folder is ours");
        let mut attempts = Self {
            folder,
            core: core(0),
            records: Vec::new(),
            allocation,
            gangs: None,
        };
        attempts.next(2);
        attempts
    }

    /// The attempt is over, however it ended; the next one begins, with `agents`.
    fn next(&mut self, agents: u32) {
        self.records.extend(self.core.take_effects().records);
        let mut state = RunState::new(true);
        self.records.iter().for_each(|record| state.apply(record));
        let attempt = state.attempt + 1;
        let config = RunConfig {
            has_pipeline: true,
            ..config(agents)
        };
        let mut core = Core::new(config, state, [0; 32], self.core.now_ns);
        core.set_allocation(self.allocation);
        if let Some((gangs, gang)) = &self.gangs {
            core.set_gang(launch_plan(gangs), *gang);
        }
        let folder = RunFolder::new(self.folder.path());
        core.load(&folder, attempt).expect("the pipeline is good");
        join(&mut core, agents);
        self.core = core;
    }

    /// One turn: the calls that agents get, and the results that they are to write.
    fn turn(&mut self) -> (Vec<u64>, Vec<u64>) {
        self.core.sweep_failed();
        self.core.assign();
        self.core.sweep_failed();
        self.core.end_if_done();
        let effects = self.core.take_effects();
        self.records.extend(effects.records);
        let (mut calls, mut files) = (Vec::new(), Vec::new());
        for (_, message) in effects.agents {
            match message {
                HeadToAgent::Call(call) => calls.push(call.task),
                HeadToAgent::Persist(persist) => files.push(persist.task),
                _ => {}
            }
        }
        (calls, files)
    }

    fn check(&mut self, calls: &[u64], files: &[u64]) {
        assert_eq!(self.turn(), (calls.to_vec(), files.to_vec()));
        self.core.engine.sanity_check();
    }

    fn ended(&self) -> Option<(String, String)> {
        let paused = self.core.state().paused.clone()?;
        Some((self.core.state().ended.clone()?.0, paused.0))
    }

    fn check_paused(&self, cause: &str) {
        assert_eq!(self.ended(), Some(("paused".to_owned(), cause.to_owned())));
        assert!(self.core.is_over());
        let mut replayed = RunState::new(true);
        self.records.iter().for_each(|record| replayed.apply(record));
        assert_eq!(replayed.counts, self.core.state().counts, "the journal tells the same");
    }

    fn persisted(&mut self, task: u64) {
        self.core.on_persisted(&Persisted {
            task,
            path: format!("results/{task}.bhv"),
            len: MIB,
            ..Persisted::default()
        });
    }

    fn fail(&mut self, task: u64, failure: Failure) {
        let row = self.core.state().row(task).expect("it is there");
        let (attempt, agent) = (row.attempt, row.agent);
        let done = TaskDone {
            task,
            attempt,
            outcome: Some(Outcome::failure(failure)),
            ..TaskDone::default()
        };
        self.core.on_agent(agent, AgentToHead::Done(done));
    }

    fn interruptions(&self) -> Interruptions {
        self.core.state().interruptions
    }
}

fn launch_plan(gangs: &[Vec<[u64; 2]>]) -> bridgehead_plan::LaunchPlan {
    let gang = |(id, ranges): (usize, &Vec<[u64; 2]>)| bridgehead_plan::GangPlan {
        id: id as u32,
        agents: Vec::new(),
        groups: Vec::new(),
        partition: None,
        after: Vec::new(),
        tasks: 0,
        ranges: ranges.iter().map(|ends| ends.map(TaskId)).collect(),
        programs: 0,
        critical_path: 0,
        critical_end: None,
        width: 0,
    };
    bridgehead_plan::LaunchPlan {
        version: 1,
        pipeline: "p".to_owned(),
        backend: "slurm".to_owned(),
        gangs: gangs.iter().enumerate().map(gang).collect(),
        reasons: Vec::new(),
    }
}

fn allocation() -> Option<Allocation> {
    Some(Allocation {
        end_ns: Some(END),
        notice: Duration::from_secs(20),
    })
}

fn own_error() -> Failure {
    Failure::new(FailureCause::User, "ValueError", "the test says so")
}

fn ended_by_term() -> Failure {
    Failure {
        signal: Some(15),
        ..own_error()
    }
}

/// A result of a size that is not written to the run folder without being asked.
fn finish_large(attempts: &mut Attempts, task: u64, agent: u32) {
    let attempt = attempts.core.state().row(task).map_or(0, |row| row.attempt);
    let value = Value::stored(ObjectRef::new(ObjectId(task.into()), 2 * MIB, agent, 0, 0));
    let done = TaskDone {
        task,
        attempt,
        outcome: Some(Outcome::value(value)),
        ..TaskDone::default()
    };
    attempts.core.on_agent(agent, AgentToHead::Done(done));
}

#[test]
fn a_run_that_drains_starts_nothing_and_pauses_once_what_later_tasks_take_is_in_its_folder() {
    let mut run = Attempts::begin(&[&[], &[], &[0, 1]], allocation());
    run.check(&[0, 1], &[]);
    finish_large(&mut run, 0, 0);
    run.check(&[], &[]);
    run.core.on_notice();
    run.check(&[], &[0]);
    finish_large(&mut run, 1, 1);
    run.check(&[], &[1]);
    run.persisted(0);
    run.check(&[], &[]);
    assert_eq!(run.ended(), None, "a result is on its way");
    run.persisted(1);
    run.check(&[], &[]);
    run.check_paused("walltime");
    run.next(1);
    run.check(&[2], &[]);
    assert_eq!(run.interruptions().walltime, 1);
}

#[test]
fn results_of_an_earlier_drain_are_let_go_of_with_their_last_reader() {
    let mut run = Attempts::begin(&[&[], &[0], &[0]], allocation());
    run.check(&[0], &[]);
    finish_large(&mut run, 0, 0);
    run.core.on_notice();
    run.check(&[], &[0]);
    run.persisted(0);
    assert!(run.core.objects.locate(ObjectId(0)).is_some(), "two tasks wait for it");
    run.check(&[], &[]);
    run.check_paused("walltime");
}

#[test]
fn a_value_of_an_earlier_attempt_comes_from_its_file_and_not_from_a_store_that_is_gone() {
    let mut run = Attempts::begin(&[&[], &[0], &[0]], allocation());
    run.check(&[0], &[]);
    finish_large(&mut run, 0, 0);
    run.core.on_notice();
    run.check(&[], &[0]);
    run.persisted(0);
    run.check(&[], &[]);
    run.next(2);
    run.core.assign();
    let effects = run.core.take_effects();
    let calls = effects.agents.into_iter().filter_map(|(_, message)| match message {
        HeadToAgent::Call(call) => Some(call),
        _ => None,
    });
    let inputs: Vec<Value> = calls.flat_map(|call| call.inputs).collect();
    assert_eq!(inputs.len(), 2);
    assert!(inputs.iter().all(|value| value.object().is_none()), "{inputs:?}");
}

#[test]
fn a_task_that_does_not_end_in_time_waits_again_and_burns_no_retry() {
    let mut run = Attempts::begin(&[&[]], allocation());
    run.check(&[0], &[]);
    run.core.set_now(END - 20 * SECOND);
    run.core.look_at_time(); // By the clock: no scheduler has to say so.
    run.check(&[], &[]);
    assert!(run.core.is_pausing() && !run.core.is_over());
    run.core.set_now(END - 2 * SECOND);
    run.check(&[], &[]);
    run.check_paused("walltime");
    let row = run.core.state().row(0).expect("it is there");
    assert_eq!((row.phase, row.attempt, row.tries), (Phase::Waiting, 1, [0; 5]));
    run.next(1);
    run.check(&[0], &[]);
    assert_eq!(run.core.state().row(0).map(|row| row.attempt), Some(2));
}

#[test]
fn an_allocation_that_is_taken_pauses_the_run_at_once_whatever_its_tasks_die_of() {
    let mut run = Attempts::begin(&[&[], &[]], allocation());
    run.check(&[0, 1], &[]);
    run.fail(0, ended_by_term()); // The scheduler ended the task before the head heard of it.
    run.core.on_taken(2 * SECOND);
    run.fail(1, ended_by_term());
    run.check(&[], &[]);
    run.check_paused("preempted");
    run.next(2);
    let expected = Interruptions {
        preempted: 1,
        ..Interruptions::default()
    };
    assert_eq!(run.interruptions(), expected);
    run.check(&[0, 1], &[]);
    assert!(run.core.state().tasks.iter().all(|row| row.tries == [0; 5]));
}

#[test]
fn a_pause_at_once_waits_for_files_within_its_grace_only() {
    let mut run = Attempts::begin(&[&[], &[0]], allocation());
    run.check(&[0], &[]);
    finish_large(&mut run, 0, 0);
    run.check(&[1], &[]);
    run.core.on_taken(2 * SECOND);
    run.check(&[], &[0]);
    assert_eq!(run.ended(), None);
    run.core.set_now(1 + 2 * SECOND);
    run.check(&[], &[]);
    run.check_paused("preempted");
}

#[test]
fn a_signal_near_the_allocations_end_is_its_end() {
    let mut run = Attempts::begin(&[&[]], allocation());
    run.check(&[0], &[]);
    run.core.set_now(END - 30 * SECOND);
    run.core.on_taken(2 * SECOND);
    run.check(&[], &[]);
    run.check_paused("walltime");
}

#[test]
fn a_task_ended_by_sigterm_failed_by_itself_if_nobody_takes_the_allocation() {
    let mut run = Attempts::begin(&[&[]], allocation());
    run.check(&[0], &[]);
    run.fail(0, ended_by_term());
    run.check(&[], &[]);
    run.core.set_now(1 + 2 * SECOND);
    run.core.look_at_time();
    run.check(&[0], &[]);
    assert_eq!(
        run.core.state().row(0).map(|row| row.tries[0]),
        Some(1),
        "its own retry"
    );
}

#[test]
fn what_failed_stays_failed_in_the_next_attempt_and_is_tried_again_where_a_user_resumes() {
    let mut run = Attempts::begin(&[&[], &[]], allocation());
    run.check(&[0, 1], &[]);
    run.fail(0, own_error());
    run.check(&[0], &[]);
    run.fail(0, own_error());
    run.core.on_taken(2 * SECOND);
    run.check(&[], &[]);
    run.check_paused("preempted");
    run.next(1);
    run.check(&[1], &[]);
    finish_large(&mut run, 1, 0);
    run.check(&[], &[]);
    assert_eq!(
        run.core.state().ended.as_ref().map(|end| end.0.as_str()),
        Some("failed")
    );
    run.next(1);
    run.check(&[0], &[]);
}

#[test]
fn a_task_that_runs_in_five_lost_attempts_in_a_row_is_taken_for_the_reason() {
    let mut run = Attempts::begin(&[&[], &[0]], allocation());
    for lost in 0..5 {
        assert_eq!(run.interruptions().lost, lost);
        run.check(&[0], &[]);
        run.next(1); // Its segment tells of no end.
    }
    run.check(&[], &[]);
    let failure = run.core.state().tasks.iter().map(|row| match &row.end {
        End::Failure(failure) => failure.kind.clone(),
        _ => String::new(),
    });
    assert_eq!(failure.collect::<Vec<_>>(), ["poison", "upstream"]);
    run.next(1);
    run.check(&[0], &[]); // Another try for a user who asks for it.
}

#[test]
fn losses_count_only_in_a_row() {
    let mut run = Attempts::begin(&[&[]], allocation());
    for round in 0..9 {
        run.check(&[0], &[]);
        if round % 4 == 3 {
            run.core.on_taken(0);
            run.check(&[], &[]);
        }
        run.next(1);
    }
    run.check(&[0], &[]);
}

#[test]
fn a_cancel_outdoes_a_pause() {
    let mut run = Attempts::begin(&[&[], &[0]], allocation());
    run.check(&[0], &[]);
    run.core.on_notice();
    run.core.cancel_all("the test says so");
    run.core.on_taken(0);
    run.check(&[], &[]);
    assert!(!run.core.is_over(), "the running task is being cancelled");
    run.fail(0, own_error());
    run.check(&[], &[]);
    assert_eq!(
        run.core.state().ended.as_ref().map(|end| end.0.as_str()),
        Some("cancelled")
    );
}

#[test]
fn what_cannot_end_in_time_is_not_started_and_a_run_that_only_waits_for_time_pauses() {
    let mut run = Attempts::begin_limited(&[&[], &[], &[]], r#","timeout_ms":600000"#, allocation());
    run.core.look_at_time();
    run.check(&[0, 1], &[]);
    run.core.set_now(500 * SECOND);
    run.core.look_at_time();
    finish_large(&mut run, 0, 0);
    run.check(&[], &[]);
    run.core.look_at_time();
    assert!(!run.core.is_pausing(), "a task runs");
    finish_large(&mut run, 1, 1);
    run.check(&[], &[]);
    run.core.look_at_time();
    run.check(&[], &[]);
    run.check_paused("walltime");
}

#[test]
fn a_task_that_no_allocation_is_long_enough_for_fails_when_nothing_else_is_left() {
    let mut run = Attempts::begin_limited(&[&[], &[0]], r#","timeout_ms":999000"#, allocation());
    run.core.look_at_time();
    run.check(&[], &[]);
    let row = run.core.state().row(0).expect("it is there");
    let End::Failure(failure) = &row.end else {
        panic!("it waits for ever: {row:?}")
    };
    assert!(failure.message.contains("may take 999 s"), "{}", failure.message);
    assert!(failure.message.contains("has 997 s"), "{}", failure.message);
    assert_eq!(
        run.core.state().ended.as_ref().map(|end| end.0.as_str()),
        Some("failed")
    );
}

#[test]
fn agents_hear_when_their_tasks_are_cut_off() {
    let mut core = core(0);
    core.set_allocation(allocation());
    join(&mut core, 1);
    let welcome = core
        .take_effects()
        .agents
        .into_iter()
        .find_map(|(_, message)| match message {
            HeadToAgent::Welcome(welcome) => Some(welcome.allocation_end_ns),
            _ => None,
        });
    assert_eq!(welcome, Some(END - 2 * SECOND));
}

#[test]
fn an_agent_that_goes_while_the_run_comes_to_rest_costs_its_tasks_no_retry() {
    let mut run = Attempts::begin(&[&[], &[]], allocation());
    run.check(&[0, 1], &[]);
    run.core.on_notice();
    run.core.on_agent_lost(1, "the test says so");
    run.check(&[], &[]);
    assert!(!run.core.is_over(), "a task runs at the other agent");
    finish_large(&mut run, 0, 0);
    run.check(&[], &[]);
    run.check_paused("walltime");
    let row = run.core.state().row(1).expect("it is there");
    assert_eq!((row.phase, row.tries), (Phase::Waiting, [0; 5]));
}

#[test]
fn a_task_that_waits_for_its_own_tasks_is_not_waited_for() {
    let mut run = Attempts::begin(&[&[]], allocation());
    run.check(&[0], &[]);
    let blocked = bridgehead_wire::Blocked { task: 0, blocked: true };
    run.core.on_agent(0, AgentToHead::Blocked(blocked));
    run.core.on_notice();
    add_task(&mut run, None);
    run.check(&[], &[]);
    run.check_paused("walltime");
}
