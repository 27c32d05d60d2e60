//! Laws of gangs: one after another, each does what earlier ones left open, what crosses is kept, and a task belongs to the gang
//! of the one that added it.

use super::*;

/// Tasks 0 and 1 are the first gang's, 2 and 3 the second's, 4 the third's.
fn begin_gangs(tasks: &[&[u64]]) -> Attempts {
    let mut run = Attempts::begin(tasks, allocation());
    run.gangs = Some((vec![vec![[0, 1]], vec![[2, 3]], vec![[4, 4]]], 0));
    run.core = core(0);
    run.records.clear();
    run.next(2);
    run
}

fn next_gang(run: &mut Attempts) {
    if let Some((_, gang)) = &mut run.gangs {
        *gang += 1;
    }
    run.next(1);
}

#[test]
fn gangs_run_one_after_another_and_what_crosses_is_kept() {
    let mut run = begin_gangs(&[&[], &[], &[0], &[2], &[1, 3]]);
    run.check(&[0, 1], &[]);
    finish_large(&mut run, 0, 0);
    run.check(&[], &[]);
    finish_large(&mut run, 1, 1);
    run.check(&[], &[0, 1]);
    run.persisted(0);
    run.persisted(1);
    run.check(&[], &[]);
    run.check_paused("gang");
    next_gang(&mut run);
    assert_eq!(run.interruptions(), Interruptions::default(), "nobody was interrupted");
    run.check(&[2], &[]);
    finish_large(&mut run, 2, 0);
    run.check(&[3], &[]);
    finish_large(&mut run, 3, 0);
    run.check(&[], &[3]);
    run.persisted(3);
    run.check(&[], &[]);
    run.check_paused("gang");
    next_gang(&mut run);
    run.check(&[4], &[]);
    finish_large(&mut run, 4, 0);
    run.check(&[], &[]);
    assert_eq!(
        run.core.state().ended.as_ref().map(|end| end.0.as_str()),
        Some("finished")
    );
}

#[test]
fn a_later_gang_does_what_an_earlier_one_left_open_first() {
    let mut run = begin_gangs(&[&[], &[], &[0], &[0], &[]]);
    run.check(&[0, 1], &[]);
    finish_large(&mut run, 1, 1);
    run.check(&[], &[]);
    run.core.on_taken(0);
    run.check(&[], &[]);
    run.check_paused("preempted");
    next_gang(&mut run);
    run.check(&[0], &[]);
    finish_large(&mut run, 0, 0);
    run.check(&[2, 3], &[]);
}

#[test]
fn no_later_gang_is_asked_for_whose_tasks_have_become_impossible() {
    let mut run = begin_gangs(&[&[], &[], &[0], &[2], &[1, 3]]);
    run.check(&[0, 1], &[]);
    finish_large(&mut run, 1, 1);
    run.fail(0, own_error());
    run.check(&[0], &[]);
    run.fail(0, own_error());
    run.check(&[], &[]);
    assert_eq!(
        run.core.state().ended.as_ref().map(|end| end.0.as_str()),
        Some("failed")
    );
    assert_eq!(run.core.state().counts.failed, 4);
}

#[test]
fn a_task_belongs_to_the_gang_of_the_one_that_added_it() {
    let mut run = begin_gangs(&[&[], &[], &[], &[], &[]]);
    run.check(&[0, 1], &[]);
    add_task(&mut run, None);
    run.core.on_taken(0);
    run.check(&[], &[]);
    run.check_paused("preempted");
    run.next(3);
    run.check(&[0, 1, 5], &[]);
}

/// The task that runs at agent 0 adds one.
pub(super) fn add_task(run: &mut Attempts, args: Option<Value>) {
    let function = run.core.functions.digest(0).expect("the pipeline has one");
    let put = PutFunction {
        digest: bytes::Bytes::copy_from_slice(&function.0),
        ..PutFunction::default()
    };
    let functions = bridgehead_wire::Functions { functions: vec![put] };
    run.core.on_agent(0, AgentToHead::Functions(functions));
    let added = TaskSubmit {
        from_worker: Some(1),
        parent: Some(0),
        args,
        ..TaskSubmit::default()
    };
    run.core.on_agent(0, AgentToHead::Submit(added));
}

#[test]
fn stored_arguments_of_added_tasks_outlive_the_attempt() {
    let mut run = Attempts::begin(&[&[]], allocation());
    run.check(&[0], &[]);
    run.core.on_notice();
    add_task(&mut run, Some(object(77, 0))); // While the run comes to rest.
    finish_large(&mut run, 0, 0);
    let (calls, files) = run.turn();
    assert_eq!((calls.len(), files.len()), (0, 1));
    run.core.on_persisted(&Persisted {
        task: files[0],
        path: "results/argument.bhv".to_owned(),
        len: MIB,
        ..Persisted::default()
    });
    run.check(&[], &[]);
    run.check_paused("walltime");
    run.next(1);
    run.core.assign();
    let effects = run.core.take_effects();
    let args = effects.agents.into_iter().find_map(|(_, message)| match message {
        HeadToAgent::Call(call) if call.task == 1 => call.args,
        _ => None,
    });
    let file = bridgehead_wire::FileRef {
        path: "results/argument.bhv".to_owned(),
        len: MIB,
    };
    assert_eq!(args, Some(Value::file(file)));
}
