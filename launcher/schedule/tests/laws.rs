//! The scheduler's laws one by one, on situations small enough to read. What holds under any events is in `random.rs`.

use bridgehead_schedule::Engine;
use bridgehead_spec::{AgentId, Resources, TaskId};

fn cores(n: u64) -> Resources {
    Resources {
        cpu_millis: 1000 * n,
        ..Resources::default()
    }
}

fn engine(prefetch: usize, agents: &[u64]) -> Engine {
    let mut engine = Engine::new(prefetch);
    for (id, &n) in (0..).zip(agents) {
        engine.agent_joined(AgentId(id), &cores(n));
    }
    engine
}

/// Submits tasks `ids` of one core.
fn submit(engine: &mut Engine, ids: std::ops::Range<u64>) {
    for id in ids {
        engine.submit(TaskId(id), &cores(1), 0, &[]);
    }
}

/// What is given out now, as (task, agent).
fn given(engine: &mut Engine) -> Vec<(u64, u32)> {
    let mut out = Vec::new();
    engine.schedule(&mut out);
    engine.sanity_check();
    out.into_iter().map(|(task, agent)| (task.0, agent.0)).collect()
}

fn check(engine: &mut Engine, expected: &[(u64, u32)]) {
    assert_eq!(given(engine), expected);
}

const MS: u64 = 1_000_000;

#[test]
fn higher_priorities_go_first_and_equals_in_order_of_arrival() {
    let mut e = engine(0, &[1]);
    for (id, priority) in [(0, 0), (1, 5), (2, 0), (3, 5), (4, -1)] {
        e.submit(TaskId(id), &cores(1), priority, &[]);
    }
    let mut order = Vec::new();
    while let Some(&(task, _)) = given(&mut e).first() {
        order.push(task);
        e.finished(TaskId(task), 0, MS);
    }
    assert_eq!(order, [1, 3, 0, 2, 4]);
}

#[test]
fn priorities_hold_between_classes_too() {
    let mut e = engine(0, &[2]);
    let half = Resources {
        cpu_millis: 500,
        ..Resources::default()
    };
    e.submit(TaskId(0), &cores(1), 9, &[]);
    e.submit(TaskId(1), &cores(1), 0, &[]);
    e.submit(TaskId(2), &half, 5, &[]);
    e.submit(TaskId(3), &half, 5, &[]);
    check(&mut e, &[(0, 0), (2, 0), (3, 0)]);
}

#[test]
fn a_task_starts_as_its_own_dependencies_end_without_a_barrier() {
    let mut e = engine(0, &[2]);
    submit(&mut e, 0..2);
    e.submit(TaskId(2), &cores(1), 0, &[TaskId(0)]);
    e.submit(TaskId(3), &cores(1), 0, &[TaskId(1), TaskId(0), TaskId(1)]);
    check(&mut e, &[(0, 0), (1, 0)]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(2, 0)]);
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[(3, 0)]);
}

#[test]
fn load_is_spread_over_agents_by_what_they_have_free() {
    let mut e = engine(0, &[1, 4, 2]);
    submit(&mut e, 0..9);
    let placed = given(&mut e);
    let on = |agent| placed.iter().filter(|(_, a)| *a == agent).count();
    assert_eq!((on(0), on(1), on(2)), (1, 4, 2));
    assert_eq!(placed[0], (0, 1), "the emptiest agent first");
}

#[test]
fn what_fits_nowhere_does_not_hold_up_the_rest() {
    let mut e = engine(0, &[2]);
    e.submit(TaskId(0), &cores(3), 7, &[]);
    submit(&mut e, 1..3);
    check(&mut e, &[(1, 0), (2, 0)]);
    e.agent_joined(AgentId(7), &cores(3));
    check(&mut e, &[(0, 7)]);
}

#[test]
fn named_resources_and_gpus_are_counted() {
    let mut e = engine(0, &[8]);
    let mut total = cores(8);
    total.gpus = 2;
    total.named.insert("licence".to_owned(), 1);
    let mut asks = cores(1);
    asks.named.insert("licence".to_owned(), 1);
    e.submit(TaskId(0), &asks, 0, &[]);
    e.submit(TaskId(1), &asks, 0, &[]);
    check(&mut e, &[]);
    e.agent_joined(AgentId(1), &total);
    check(&mut e, &[(0, 1)]);
    let gpu = Resources { gpus: 2, ..cores(1) };
    e.submit(TaskId(2), &gpu, 0, &[]);
    e.submit(TaskId(3), &gpu, 0, &[]);
    check(&mut e, &[(2, 1)]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(1, 1)]);
    e.finished(TaskId(2), 0, MS);
    check(&mut e, &[(3, 1)]);
}

#[test]
fn tasks_that_ask_for_nothing_are_bounded_all_the_same() {
    let mut e = engine(0, &[1]);
    for id in 0..1000 {
        e.submit(TaskId(id), &Resources::zero(), 0, &[]);
    }
    assert_eq!(given(&mut e).len(), 80);
}

#[test]
fn a_task_goes_to_the_agent_that_holds_most_of_its_inputs() {
    let mut e = engine(0, &[2, 2]);
    submit(&mut e, 0..4);
    e.submit(TaskId(4), &cores(1), 0, &[TaskId(0), TaskId(1), TaskId(2)]);
    let at = given(&mut e);
    let agent_of = |task: u64| at.iter().find(|(t, _)| *t == task).map(|(_, a)| *a);
    e.finished(TaskId(0), 100 << 20, MS);
    e.finished(TaskId(1), 10 << 20, MS);
    e.finished(TaskId(2), 10 << 20, MS);
    e.finished(TaskId(3), 0, MS);
    let expected = agent_of(0).expect("it was given out");
    check(&mut e, &[(4, expected)]);
    e.submit(TaskId(5), &cores(1), 0, &[]);
    e.input_at(TaskId(5), AgentId(1), 1 << 20);
    e.submit(TaskId(6), &cores(1), 0, &[]);
    e.input_at(TaskId(6), AgentId(0), 1 << 20);
    check(&mut e, &[(5, 1), (6, 0)]);
}

#[test]
fn an_agent_takes_what_lies_with_it_before_what_lies_elsewhere_but_not_for_ever() {
    let mut e = engine(0, &[1, 1]);
    submit(&mut e, 0..2);
    check(&mut e, &[(0, 0), (1, 1)]);
    for id in 2..60 {
        e.submit(TaskId(id), &cores(1), 0, &[]);
        let agent = AgentId(u32::from(id > 2)); // Only the first has its inputs at the busy agent 0.
        e.input_at(TaskId(id), agent, 1 << 20);
    }
    let mut running = 1;
    let mut order = Vec::new();
    for _ in 0..20 {
        e.finished(TaskId(running), 0, MS);
        let now = given(&mut e);
        assert_eq!((now.len(), now[0].1), (1, 1));
        running = now[0].0;
        order.push(running);
    }
    assert_eq!(order[..3], [3, 4, 5]);
    assert_eq!(order[8], 2, "the head gives way a bounded number of times");
}

#[test]
fn a_wide_task_is_not_starved_by_a_stream_of_small_ones() {
    let mut e = engine(0, &[4, 4]);
    submit(&mut e, 0..8);
    let mut running: Vec<u64> = given(&mut e).iter().map(|(task, _)| *task).collect();
    e.submit(TaskId(8), &cores(4), 0, &[]);
    for next in 9..2000 {
        e.submit(TaskId(next), &cores(1), 0, &[]);
        e.finished(TaskId(running.remove(0)), 0, MS);
        let now = given(&mut e);
        if now.iter().any(|(task, _)| *task == 8) {
            assert!(next > 200, "small ones may go before for a while");
            return;
        }
        running.extend(now.iter().map(|(task, _)| *task));
    }
    panic!("the wide task never started");
}

#[test]
fn a_wide_task_of_higher_priority_is_passed_over_once_at_most() {
    let mut e = engine(0, &[2]);
    submit(&mut e, 0..10);
    check(&mut e, &[(0, 0), (1, 0)]);
    e.submit(TaskId(10), &cores(2), 1, &[]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(2, 0)]);
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[]);
    e.submit(TaskId(11), &cores(1), 2, &[]);
    check(&mut e, &[(11, 0)]); // The agent is kept free from what is less urgent, not from what is more.
    e.finished(TaskId(11), 0, MS);
    e.finished(TaskId(2), 0, MS);
    check(&mut e, &[(10, 0)]);
}

#[test]
fn a_kept_agent_is_let_go_when_nobody_wants_it_any_more() {
    let mut e = engine(0, &[2]);
    submit(&mut e, 0..4);
    check(&mut e, &[(0, 0), (1, 0)]);
    e.submit(TaskId(10), &cores(2), 1, &[]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(2, 0)]);
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[]);
    assert_eq!(e.abandon(TaskId(10)), []);
    check(&mut e, &[(3, 0)]);
}

fn gpu(n: u64) -> Resources {
    Resources { gpus: 1, ..cores(n) }
}

#[test]
fn an_agent_keeps_free_what_a_passed_over_task_asks_for_and_no_more() {
    let mut e = engine(0, &[]);
    e.agent_joined(AgentId(0), &gpu(4));
    e.submit(TaskId(100), &gpu(1), 1, &[]);
    e.submit(TaskId(101), &gpu(1), 1, &[]);
    submit(&mut e, 0..9);
    check(&mut e, &[(100, 0), (0, 0), (1, 0), (2, 0)]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[]); // One core waits with the GPU task, for its GPU.
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[(3, 0)]);
    e.finished(TaskId(100), 0, MS);
    check(&mut e, &[(101, 0), (4, 0)]);
}

#[test]
fn a_task_that_asks_for_more_than_a_core_is_not_starved_by_work_given_ahead() {
    let mut e = engine(8, &[]);
    e.agent_joined(AgentId(0), &gpu(1));
    submit(&mut e, 0..1);
    check(&mut e, &[(0, 0)]);
    e.finished(TaskId(0), 0, 1000);
    submit(&mut e, 1..20);
    let mut running: Vec<u64> = given(&mut e).iter().map(|(task, _)| *task).collect();
    e.submit(TaskId(5000), &gpu(1), 0, &[]);
    submit(&mut e, 20..2000);
    while running[0] != 5000 {
        e.finished(TaskId(running.remove(0)), 0, 1000);
        running.extend(given(&mut e).iter().map(|(task, _)| *task));
        assert!(
            running[0] < 300 || running.contains(&5000),
            "it waits for a bounded number of others"
        );
    }
}

#[test]
fn requests_that_fit_no_agent_are_in_nobodys_way_however_many_there_are() {
    let mut e = engine(0, &[2]);
    for id in 0..2000 {
        let memory = id + 1;
        e.submit(TaskId(id), &Resources { memory, ..cores(1) }, 9, &[]);
    }
    e.submit(TaskId(3000), &cores(1), 0, &[]);
    check(&mut e, &[(3000, 0)]);
    e.agent_joined(
        AgentId(1),
        &Resources {
            memory: 1 << 20,
            ..cores(2)
        },
    );
    check(&mut e, &[(0, 1), (1, 1)]);
    assert_eq!(e.agent_lost(AgentId(1)), [TaskId(0), TaskId(1)]);
    e.requeue(TaskId(0));
    e.submit(TaskId(3001), &cores(1), 0, &[]);
    check(&mut e, &[(3001, 0)]);
}

/// An engine whose tasks of one core are known to be short, and two agents of one core.
fn short_and_two_agents() -> Engine {
    let mut e = engine(8, &[1, 1]);
    submit(&mut e, 0..1);
    check(&mut e, &[(0, 0)]);
    e.finished(TaskId(0), 0, 1000);
    e
}

#[test]
fn nothing_is_given_ahead_where_long_tasks_run() {
    let mut e = short_and_two_agents();
    let long = Resources {
        cpu_millis: 1000,
        memory: 1,
        ..cores(1)
    };
    e.agent_joined(AgentId(2), &long);
    e.submit(TaskId(1), &long, 0, &[]);
    check(&mut e, &[(1, 2)]);
    submit(&mut e, 2..4);
    assert_eq!(given(&mut e).len(), 2);
    e.lingers(TaskId(3)); // It is one of a short kind, but its agent says that it has been running for long.
    submit(&mut e, 4..100);
    let ahead = given(&mut e);
    assert_eq!(ahead.len(), 8);
    let brisk = ahead[0].1;
    assert!(
        ahead.iter().all(|&(_, agent)| agent == brisk && agent != 2),
        "{ahead:?}"
    );
    e.finished(TaskId(3), 0, 1000);
    let after: Vec<u32> = given(&mut e).iter().map(|(_, agent)| *agent).collect();
    assert_eq!(after.len(), 1 + 8);
    assert!(after.iter().all(|&agent| agent != brisk && agent != 2), "{after:?}");
}

#[test]
fn a_task_waits_a_little_where_large_inputs_lie_and_moves_small_ones() {
    for (bytes, expected) in [(1 << 30, 0), (1000, 1)] {
        let mut e = short_and_two_agents();
        submit(&mut e, 1..2);
        check(&mut e, &[(1, 0)]);
        e.finished(TaskId(1), 0, 1_000_000); // So much that a wait costs more than moving a KB.
        submit(&mut e, 2..3);
        check(&mut e, &[(2, 0)]);
        e.submit(TaskId(3), &cores(1), 0, &[]);
        e.input_at(TaskId(3), AgentId(0), bytes);
        check(&mut e, &[(3, expected)]);
    }
}

#[test]
fn inputs_at_an_agent_that_is_not_there_count_for_nothing() {
    let mut e = engine(0, &[1, 1]);
    e.submit(TaskId(0), &cores(1), 0, &[]);
    e.input_at(TaskId(0), AgentId(7), 1 << 30);
    check(&mut e, &[(0, 0)]);
}

#[test]
fn short_tasks_are_given_ahead_and_long_ones_stay_for_whoever_comes_free() {
    let mut e = engine(8, &[1, 1]);
    submit(&mut e, 0..100);
    check(&mut e, &[(0, 0), (1, 1)]); // Nothing is known of them yet.
    e.finished(TaskId(0), 0, 50 * MS);
    check(&mut e, &[(2, 0)]);
    for id in 0..30 {
        // Fifty milliseconds fade as short ones end.
        e.finished(TaskId(id), 0, 10_000);
        given(&mut e);
    }
    assert_eq!(
        e.agent_lost(AgentId(0)).len() + e.agent_lost(AgentId(1)).len(),
        2 * (1 + 8)
    );
}

#[test]
fn nothing_is_given_ahead_while_an_agent_has_room() {
    let mut e = engine(8, &[1, 3]);
    submit(&mut e, 0..1);
    check(&mut e, &[(0, 1)]);
    e.finished(TaskId(0), 0, 1000);
    submit(&mut e, 1..5);
    let mut agents: Vec<u32> = given(&mut e).iter().map(|(_, agent)| *agent).collect();
    agents.sort_unstable();
    assert_eq!(agents, [0, 1, 1, 1]);
}

#[test]
fn a_lost_agents_tasks_are_handed_back_and_run_elsewhere_first() {
    let mut e = engine(0, &[2, 2]);
    submit(&mut e, 0..8);
    assert_eq!(given(&mut e).len(), 4);
    let back = e.agent_lost(AgentId(0));
    assert_eq!(back, [TaskId(0), TaskId(2)]);
    assert_eq!(e.agent_lost(AgentId(0)), []);
    back.iter().for_each(|&task| e.requeue(task));
    check(&mut e, &[]);
    e.finished(TaskId(1), 0, MS);
    e.finished(TaskId(3), 0, MS);
    check(&mut e, &[(0, 1), (2, 1)]);
    e.agent_joined(AgentId(0), &cores(1));
    check(&mut e, &[(4, 0)]);
}

#[test]
fn a_cancelled_task_is_never_given_out_and_those_that_need_it_are_told() {
    let mut e = engine(0, &[1]);
    submit(&mut e, 0..3);
    e.submit(TaskId(3), &cores(1), 0, &[TaskId(1), TaskId(2)]);
    e.submit(TaskId(4), &cores(1), 0, &[TaskId(3), TaskId(1)]);
    check(&mut e, &[(0, 0)]);
    assert_eq!(e.abandon(TaskId(1)), [TaskId(3), TaskId(4)]);
    assert_eq!(e.abandon(TaskId(1)), []);
    // An id may live again; what its former life waited for does not count any more.
    e.submit(TaskId(3), &cores(1), 0, &[TaskId(0)]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(2, 0)]);
    e.finished(TaskId(2), 0, MS);
    check(&mut e, &[(3, 0)]);
}

#[test]
fn a_lost_value_is_made_again_before_those_that_take_it() {
    let mut e = engine(0, &[1, 1]);
    submit(&mut e, 0..1);
    e.submit(TaskId(1), &cores(1), 0, &[TaskId(0)]);
    e.submit(TaskId(2), &cores(1), 0, &[TaskId(0)]);
    e.submit(TaskId(3), &cores(1), 0, &[TaskId(0)]);
    check(&mut e, &[(0, 0)]);
    e.finished(TaskId(0), 1 << 20, MS);
    check(&mut e, &[(1, 0), (2, 1)]);
    assert_eq!(e.agent_lost(AgentId(0)), [TaskId(1)]);
    e.requeue(TaskId(1));
    e.submit(TaskId(0), &cores(1), 0, &[]);
    assert!(e.wait_again(TaskId(1), TaskId(0)));
    assert!(e.wait_again(TaskId(3), TaskId(0)));
    assert!(!e.wait_again(TaskId(2), TaskId(0)), "it runs, its input is with it");
    e.finished(TaskId(2), 0, MS);
    check(&mut e, &[(0, 1)]);
    e.finished(TaskId(0), 1 << 20, MS);
    check(&mut e, &[(1, 1)]);
}

#[test]
fn what_a_waiting_parent_holds_is_used_meanwhile_and_owed_afterwards() {
    let mut e = engine(0, &[1]);
    submit(&mut e, 0..4);
    check(&mut e, &[(0, 0)]);
    e.blocked(TaskId(0), true);
    check(&mut e, &[(1, 0)]);
    e.blocked(TaskId(0), false);
    e.blocked(TaskId(0), false);
    check(&mut e, &[]);
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(2, 0)]);
}

/// Submits a task of one core that is ended after `limit_ns`.
fn submit_limited(engine: &mut Engine, id: u64, limit_ns: u64) {
    engine.submit_limited(TaskId(id), &cores(1), limit_ns, 0, &[]);
}

#[test]
fn a_task_whose_limit_is_beyond_what_remains_lets_shorter_ones_go_first_and_starts_when_there_is_time() {
    let mut e = engine(0, &[2]);
    e.set_remaining(Some(10 * MS + MS / 10)); // Limits may count a hundredth longer.
    submit_limited(&mut e, 0, 11 * MS);
    submit_limited(&mut e, 1, 10 * MS);
    submit(&mut e, 2..3);
    check(&mut e, &[(1, 0), (2, 0)]);
    assert!(e.is_late());
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[]);
    e.set_remaining(Some(12 * MS));
    assert!(!e.is_late());
    check(&mut e, &[(0, 0)]);
    assert!(!e.is_late(), "nothing is left to start");
}

#[test]
fn a_task_without_a_limit_is_judged_by_what_its_like_lately_took() {
    let mut e = engine(0, &[1]);
    e.set_remaining(Some(10 * MS));
    submit(&mut e, 0..3);
    check(&mut e, &[(0, 0)]);
    e.finished(TaskId(0), 0, 5 * MS);
    check(&mut e, &[(1, 0)]);
    e.set_remaining(Some(4 * MS));
    e.finished(TaskId(1), 0, 5 * MS);
    check(&mut e, &[]);
    assert!(e.is_late());
    e.set_remaining(None);
    check(&mut e, &[(2, 0)]);
}

#[test]
fn a_wide_task_that_cannot_end_in_time_keeps_no_agent_free() {
    let mut e = engine(0, &[2]);
    submit(&mut e, 0..1);
    check(&mut e, &[(0, 0)]);
    e.submit_limited(TaskId(1), &cores(2), 20 * MS, 1, &[]);
    submit(&mut e, 2..3);
    check(&mut e, &[(2, 0)]); // Less urgent than one that found no room, for which the agent is now kept.
    e.finished(TaskId(2), 0, MS);
    submit(&mut e, 3..4);
    check(&mut e, &[]);
    e.set_remaining(Some(10 * MS));
    check(&mut e, &[(3, 0)]);
}

#[test]
fn nothing_is_given_out_while_all_is_held_back() {
    let mut e = engine(4, &[2]);
    submit(&mut e, 0..4);
    e.hold_back(true);
    check(&mut e, &[]);
    e.hold_back(false);
    check(&mut e, &[(0, 0), (1, 0)]);
}

#[test]
fn no_more_tasks_are_with_agents_than_may_be_but_for_those_that_wait_for_their_own() {
    let mut e = engine(4, &[4]);
    submit(&mut e, 0..6);
    e.set_most(2);
    check(&mut e, &[(0, 0), (1, 0)]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(2, 0)]);
    e.blocked(TaskId(1), true);
    check(&mut e, &[(3, 0)]);
    assert!(!e.is_idle());
    e.blocked(TaskId(1), false);
    e.finished(TaskId(2), 0, MS);
    check(&mut e, &[]);
    e.finished(TaskId(3), 0, MS);
    check(&mut e, &[(4, 0)]);
    e.agent_lost(AgentId(0));
    e.agent_joined(AgentId(1), &cores(4));
    (1..5).for_each(|task| e.requeue(TaskId(task)));
    check(&mut e, &[(1, 1), (4, 1)]);
}

#[test]
fn limits_of_a_thousand_lengths_make_few_queues_and_none_is_taken_for_shorter() {
    let mut e = engine(0, &[1000]);
    let limits = |id: u64| (1 + id) * 1_000_003;
    (0..1000).for_each(|id| submit_limited(&mut e, id, limits(id)));
    let left = limits(500) + limits(500) / 100;
    e.set_remaining(Some(left));
    let given: Vec<u64> = given(&mut e).into_iter().map(|(task, _)| task).collect();
    assert!(given.iter().all(|&id| limits(id) <= left));
    assert!(
        (0..=500).all(|id| given.contains(&id)),
        "a limit counts less than a hundredth longer"
    );
}
