//! The laws of gangs one by one, on situations small enough to read. What holds under any events is in `random.rs`.

use bridgehead_schedule::{Engine, Shape};
use bridgehead_spec::{AgentId, Resources, TaskId};

const MS: u64 = 1_000_000;

fn cores(n: u64) -> Resources {
    Resources {
        cpu_millis: 1000 * n,
        ..Resources::default()
    }
}

fn engine(agents: &[u64]) -> Engine {
    let mut engine = Engine::new(0);
    for (id, &n) in (0..).zip(agents) {
        engine.agent_joined(AgentId(id), &cores(n));
    }
    engine
}

fn ranks(n: u32) -> Shape {
    Shape {
        least: n,
        most: n,
        per_agent: None,
        spread: false,
    }
}

/// Submits a gang with a core a rank.
fn gang(engine: &mut Engine, id: u64, shape: Shape, priority: i32) {
    engine.submit_gang(TaskId(id), &cores(1), shape, 0, priority, &[]);
}

/// Submits tasks `ids` of one core.
fn submit(engine: &mut Engine, ids: std::ops::Range<u64>) {
    for id in ids {
        engine.submit(TaskId(id), &cores(1), 0, &[]);
    }
}

fn given(engine: &mut Engine) -> Vec<(u64, u32)> {
    let mut out = Vec::new();
    engine.schedule(&mut out);
    engine.sanity_check();
    out.into_iter().map(|(task, agent)| (task.0, agent.0)).collect()
}

fn parts(engine: &Engine, task: u64) -> Vec<(u32, u32)> {
    let parts = engine.parts(TaskId(task)).into_iter();
    parts.map(|(agent, ranks)| (agent.0, ranks)).collect()
}

/// What is given out now, and of gangs where all ranks are.
#[track_caller]
fn check(engine: &mut Engine, expected: &[(u64, &[(u32, u32)])]) {
    let given = given(engine);
    let with_parts: Vec<_> = given.iter().map(|&(task, _)| (task, parts(engine, task))).collect();
    let expected: Vec<_> = expected.iter().map(|&(task, parts)| (task, parts.to_vec())).collect();
    assert_eq!(with_parts, expected);
    for (task, agent) in given {
        let first = parts(engine, task).first().map(|part| part.0);
        assert!(
            first.is_none_or(|first| first == agent),
            "t{task} is named by its first part"
        );
    }
}

#[test]
fn all_ranks_start_together_or_none() {
    let mut e = engine(&[2, 2]);
    submit(&mut e, 0..1);
    check(&mut e, &[(0, &[])]);
    gang(&mut e, 1, ranks(4), 0);
    check(&mut e, &[]);
    assert_eq!(parts(&e, 1), []);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[(1, &[(0, 2), (1, 2)])]);
    submit(&mut e, 2..3);
    check(&mut e, &[]); // Every rank holds its core.
    e.finished(TaskId(1), 0, MS);
    assert_eq!(parts(&e, 1), []);
    check(&mut e, &[(2, &[])]);
}

#[test]
fn every_rank_holds_all_that_it_asks_for_and_a_slot() {
    let mut e = engine(&[]);
    let mut total = cores(8);
    (total.memory, total.gpus) = (10, 4);
    total.named.insert("licence".to_owned(), 5);
    e.agent_joined(AgentId(0), &total);
    e.agent_joined(AgentId(1), &total);
    let mut each = Resources {
        memory: 3,
        gpus: 1,
        ..cores(1)
    };
    each.named.insert("licence".to_owned(), 2);
    e.submit_gang(TaskId(0), &each, ranks(4), 0, 0, &[]);
    check(&mut e, &[(0, &[(0, 2), (1, 2)])]); // Licences for two.
    each.named.clear();
    e.submit_gang(TaskId(1), &each, ranks(3), 0, 0, &[]);
    check(&mut e, &[]); // Memory for one on each.
    e.submit_gang(TaskId(2), &each, ranks(2), 0, 0, &[]);
    check(&mut e, &[(2, &[(0, 1), (1, 1)])]);

    // Ranks that ask for nothing are bounded all the same: 16 for a core, and 64.
    let mut e = engine(&[1]);
    e.submit_gang(TaskId(0), &Resources::zero(), ranks(80), 0, 0, &[]);
    e.submit_gang(TaskId(1), &Resources::zero(), ranks(1), 0, 0, &[]);
    check(&mut e, &[(0, &[(0, 80)])]);
}

#[test]
fn as_few_agents_as_possible_take_it_and_the_fullest_one_that_holds_all() {
    let mut e = engine(&[8, 4, 6, 2]);
    gang(&mut e, 0, ranks(4), 0);
    check(&mut e, &[(0, &[(1, 4)])]);
    gang(&mut e, 1, ranks(10), 0);
    check(&mut e, &[(1, &[(0, 8), (3, 2)])]);
    gang(&mut e, 2, ranks(6), 0);
    check(&mut e, &[(2, &[(2, 6)])]);
}

#[test]
fn a_gang_that_is_spread_lies_evenly_on_as_many_agents_as_possible() {
    let mut e = engine(&[4, 4, 4, 1]);
    gang(
        &mut e,
        0,
        Shape {
            spread: true,
            ..ranks(9)
        },
        0,
    );
    check(&mut e, &[(0, &[(0, 3), (1, 3), (2, 2), (3, 1)])]);
    gang(
        &mut e,
        1,
        Shape {
            spread: true,
            ..ranks(2)
        },
        0,
    );
    check(&mut e, &[(1, &[(0, 1), (2, 1)])]); // Where most room is left first.
}

#[test]
fn ranks_per_agent_are_exact_but_for_the_last() {
    let two = |n| Shape {
        per_agent: Some(2),
        ..ranks(n)
    };
    let mut e = engine(&[1, 8, 3, 2]);
    gang(&mut e, 0, two(5), 0);
    check(&mut e, &[(0, &[(2, 2), (3, 2), (0, 1)])]);
    gang(&mut e, 1, two(3), 0);
    check(&mut e, &[(1, &[(1, 2), (2, 1)])]);
    gang(&mut e, 2, two(3), 0);
    check(&mut e, &[]); // Six cores are free on one agent, two of which it may use.
}

#[test]
fn an_elastic_gang_takes_what_is_free_when_it_starts_and_does_not_wait_for_more() {
    let elastic = Shape {
        least: 2,
        most: 6,
        ..ranks(0)
    };
    let mut e = engine(&[4, 4]);
    submit(&mut e, 0..7);
    assert_eq!(given(&mut e).len(), 7);
    gang(&mut e, 7, elastic, 0);
    check(&mut e, &[]);
    (0..4).for_each(|id| e.finished(TaskId(id), 0, MS));
    check(&mut e, &[(7, &[(0, 2), (1, 3)])]);
    (4..7).for_each(|id| e.finished(TaskId(id), 0, MS));
    assert_eq!(parts(&e, 7), [(0, 2), (1, 3)], "it stays as it started");
    e.finished(TaskId(7), 0, MS);
    gang(&mut e, 8, elastic, 0);
    check(&mut e, &[(8, &[(0, 4), (1, 2)])]);
}

#[test]
fn gangs_that_want_the_same_agents_run_one_after_another() {
    let mut e = engine(&[2, 2, 2]);
    for id in 0..10 {
        gang(&mut e, id, ranks(4 + 2 * (id as u32 % 2)), 0);
    }
    let mut order = Vec::new();
    while let Some(&(task, _)) = given(&mut e).first() {
        order.push(task);
        assert!(given(&mut e).is_empty(), "no two of them fit at a time");
        e.finished(TaskId(task), 0, MS);
    }
    assert_eq!(order, (0..10).collect::<Vec<_>>());
}

/// Keeps all cores busy with small tasks, one of which ends at a time, until a gang starts; how many went before it.
fn stream_until(e: &mut Engine, wanted: u64) -> u64 {
    let mut running: Vec<u64> = given(e).iter().map(|(task, _)| *task).collect();
    for next in 10_000..15_000 {
        submit(e, next..next + 1);
        if !running.is_empty() {
            e.finished(TaskId(running.remove(0)), 0, MS);
        }
        let now = given(e);
        if now.iter().any(|(task, _)| *task == wanted) {
            return next - 10_000;
        }
        running.extend(now.iter().map(|(task, _)| *task));
    }
    panic!("the gang never started");
}

#[test]
fn a_gang_is_not_starved_by_a_stream_of_small_tasks_which_go_before_it_for_a_while() {
    for shape in [
        ranks(8),
        Shape {
            spread: true,
            ..ranks(4)
        },
        Shape {
            per_agent: Some(3),
            ..ranks(7)
        },
        Shape { most: 100, ..ranks(7) },
    ] {
        let mut e = engine(&[4, 4, 4]);
        submit(&mut e, 0..12);
        let mut out = Vec::new();
        e.schedule(&mut out);
        gang(&mut e, 5000, shape, 0);
        for (task, _) in out {
            e.requeue(task);
        }
        let before = stream_until(&mut e, 5000);
        assert!((200..400).contains(&before), "{before} went before {shape:?}");
    }
}

#[test]
fn a_waiting_gang_keeps_as_many_agents_free_as_it_needs_and_leaves_the_others_alone() {
    let mut e = engine(&[2, 2, 2, 2]);
    submit(&mut e, 0..8);
    assert_eq!(given(&mut e).len(), 8);
    gang(&mut e, 100, ranks(4), 1);
    submit(&mut e, 8..40);
    e.finished(TaskId(0), 0, MS);
    assert_eq!(given(&mut e), [(8, 0)]); // Less urgent than the gang, which from now on keeps two agents free.
    for id in 1..8 {
        e.finished(TaskId(id), 0, MS);
    }
    let now = given(&mut e);
    assert_eq!(now.iter().filter(|(task, _)| *task == 100).count(), 1, "{now:?}");
    let gang_on: Vec<u32> = parts(&e, 100).iter().map(|part| part.0).collect();
    assert_eq!(gang_on.len(), 2);

    let mut e = engine(&[2, 2, 2]);
    submit(&mut e, 0..6);
    assert_eq!(given(&mut e).len(), 6);
    gang(&mut e, 100, ranks(4), 1);
    submit(&mut e, 6..40);
    e.finished(TaskId(0), 0, MS);
    assert_eq!(given(&mut e).len(), 1);
    // Of three agents two are kept: whatever ends on the third is followed by another.
    let mut went_on = 0;
    for id in 1..6 {
        e.finished(TaskId(id), 0, MS);
        let now = given(&mut e);
        went_on += now.iter().filter(|(task, _)| *task != 100).count();
        if now.iter().any(|(task, _)| *task == 100) {
            break;
        }
    }
    assert!((1..=2).contains(&went_on), "{went_on} small tasks went on");
}

#[test]
fn a_gang_that_waits_for_agents_kept_for_others_is_the_next_to_have_them() {
    let mut e = engine(&[2, 2]);
    submit(&mut e, 0..4);
    assert_eq!(given(&mut e), [(0, 0), (1, 1), (2, 0), (3, 1)]);
    submit(&mut e, 4..9);
    e.submit(TaskId(100), &cores(2), 2, &[]);
    e.finished(TaskId(0), 0, MS);
    assert_eq!(given(&mut e), [(4, 0)]); // One that is less urgent went before: an agent is kept for the wide task.
    gang(&mut e, 101, ranks(4), 1);
    e.finished(TaskId(1), 0, MS);
    let now = given(&mut e);
    let other = now.first().map_or(0, |now| now.1); // The agent that is not kept; the gang would need both.
    let on = |agent: u32| if agent == 0 { [2, 4] } else { [3, 1] };
    assert_eq!(now.len(), 1);
    let tall = Resources {
        cpu_millis: 1999,
        ..cores(2)
    };
    e.submit(TaskId(102), &tall, 1, &[]);
    e.finished(TaskId(now[0].0), 0, MS);
    let now = given(&mut e);
    assert_eq!(now.len(), 1); // Again a less urgent one, before a task as wide as an agent that came after the gang.
    on(1 - other)
        .into_iter()
        .for_each(|task| e.finished(TaskId(task), 0, MS));
    assert_eq!(given(&mut e), [(100, 1 - other)]);
    // Both agents are kept for the gang now: nothing else starts as they come free.
    e.finished(TaskId(now[0].0), 0, MS);
    e.finished(TaskId(on(other)[0]), 0, MS);
    check(&mut e, &[]);
    e.finished(TaskId(100), 0, MS);
    check(&mut e, &[(101, &[(0, 2), (1, 2)])]);
}

#[test]
fn what_is_kept_for_a_gang_is_kept_from_less_urgent_tasks_only() {
    let mut e = engine(&[2, 2]);
    submit(&mut e, 0..4);
    assert_eq!(given(&mut e).len(), 4);
    gang(&mut e, 10, ranks(4), 1);
    submit(&mut e, 4..9);
    e.finished(TaskId(0), 0, MS);
    assert_eq!(given(&mut e).len(), 1);
    e.finished(TaskId(1), 0, MS);
    check(&mut e, &[]);
    gang(&mut e, 11, ranks(1), 2);
    check(&mut e, &[(11, &[(1, 1)])]);
    e.finished(TaskId(2), 0, MS);
    e.finished(TaskId(3), 0, MS);
    e.finished(TaskId(4), 0, MS);
    check(&mut e, &[]);
    e.finished(TaskId(11), 0, MS);
    check(&mut e, &[(10, &[(0, 2), (1, 2)])]);
}

#[test]
fn agents_are_let_go_when_the_gang_is_cancelled_or_one_of_them_is_lost() {
    for lost in [false, true] {
        let mut e = engine(&[2, 2, 2]);
        submit(&mut e, 0..6);
        assert_eq!(given(&mut e).len(), 6);
        gang(&mut e, 10, ranks(6), 1);
        submit(&mut e, 6..20);
        e.finished(TaskId(0), 0, MS);
        assert_eq!(given(&mut e).len(), 1);
        e.finished(TaskId(1), 0, MS);
        check(&mut e, &[]);
        if lost {
            assert_eq!(e.agent_lost(AgentId(2)).len(), 2);
        } else {
            assert_eq!(e.abandon(TaskId(10)), []);
        }
        assert_eq!(given(&mut e).len(), 1, "lost: {lost}");
    }
}

#[test]
fn a_gang_too_wide_for_the_agents_is_in_nobodys_way_until_more_join() {
    let mut e = engine(&[2, 2]);
    gang(&mut e, 0, ranks(6), 9);
    gang(
        &mut e,
        1,
        Shape {
            per_agent: Some(3),
            ..ranks(4)
        },
        9,
    );
    submit(&mut e, 2..6);
    assert_eq!(given(&mut e).len(), 4);
    (2..6).for_each(|id| e.finished(TaskId(id), 0, MS));
    check(&mut e, &[]);
    e.agent_joined(AgentId(7), &cores(2));
    check(&mut e, &[(0, &[(0, 2), (1, 2), (7, 2)])]);
    e.finished(TaskId(0), 0, MS);
    check(&mut e, &[]);
    e.agent_joined(AgentId(8), &cores(3));
    check(&mut e, &[(1, &[(8, 3), (0, 1)])]);
}

#[test]
fn the_most_ranks_that_agents_could_give_are_told() {
    let mut e = engine(&[2, 5, 1]);
    submit(&mut e, 0..8);
    assert_eq!(given(&mut e).len(), 8);
    assert_eq!(e.most_ranks(&cores(1), ranks(100)), 8);
    assert_eq!(e.most_ranks(&cores(1), ranks(3)), 3, "no more than it wants");
    assert_eq!(e.most_ranks(&cores(2), ranks(100)), 3);
    let two = Shape {
        per_agent: Some(2),
        ..ranks(100)
    };
    assert_eq!(e.most_ranks(&cores(1), two), 5);
    let mut licensed = cores(1);
    licensed.named.insert("licence".to_owned(), 1);
    assert_eq!(e.most_ranks(&licensed, ranks(100)), 0);
    e.sanity_check();
}

#[test]
fn no_rank_goes_where_tasks_wait_that_were_given_ahead() {
    let mut e = Engine::new(4);
    e.agent_joined(AgentId(0), &cores(2));
    submit(&mut e, 0..2);
    assert_eq!(given(&mut e).len(), 2);
    e.finished(TaskId(0), 0, 1000);
    e.finished(TaskId(1), 0, 1000);
    let half = Resources {
        cpu_millis: 600,
        ..cores(1)
    };
    (2..4).for_each(|id| e.submit(TaskId(id), &half, 0, &[]));
    assert_eq!(given(&mut e).len(), 2);
    submit(&mut e, 4..5);
    assert_eq!(given(&mut e), [(4, 0)], "it waits there for a core");
    let tiny = Resources {
        cpu_millis: 100,
        ..cores(1)
    };
    e.submit_gang(TaskId(5), &tiny, ranks(2), 0, 1, &[]);
    check(&mut e, &[]);
    submit(&mut e, 6..7);
    assert_eq!(
        given(&mut e),
        [(6, 0)],
        "it is less urgent, so the agent is kept for the gang from now on"
    );
    submit(&mut e, 7..8);
    check(&mut e, &[]);
    e.finished(TaskId(2), 0, 1000);
    check(&mut e, &[]); // One that was there before still waits.
    e.finished(TaskId(3), 0, 1000);
    check(&mut e, &[]);
    e.finished(TaskId(4), 0, 1000);
    check(&mut e, &[(5, &[(0, 2)]), (7, &[])]);
}

#[test]
fn a_gang_goes_where_most_of_its_inputs_lie_if_it_fits_there_whole() {
    let mut e = engine(&[4, 8, 6]);
    gang(&mut e, 0, ranks(4), 0);
    e.input_at(TaskId(0), AgentId(1), 1 << 30);
    check(&mut e, &[(0, &[(1, 4)])]);
    gang(&mut e, 1, ranks(5), 0);
    e.input_at(TaskId(1), AgentId(1), 1 << 30);
    check(&mut e, &[(1, &[(2, 5)])]);
    // Its own value lies where its first rank was.
    e.submit(TaskId(2), &cores(1), 0, &[TaskId(1)]);
    e.finished(TaskId(1), 1 << 30, MS);
    assert_eq!(given(&mut e), [(2, 2)]);
}

#[test]
fn a_gang_with_a_rank_on_a_lost_agent_comes_back_once_and_holds_nothing_elsewhere() {
    let mut e = engine(&[2, 2, 2]);
    gang(&mut e, 0, ranks(4), 0);
    gang(&mut e, 1, ranks(2), 0);
    check(&mut e, &[(0, &[(0, 2), (1, 2)]), (1, &[(2, 2)])]);
    submit(&mut e, 2..4);
    check(&mut e, &[]);
    assert_eq!(e.agent_lost(AgentId(1)), [TaskId(0)]);
    assert_eq!(parts(&e, 0), []);
    check(&mut e, &[(2, &[]), (3, &[])]);
    e.requeue(TaskId(0));
    check(&mut e, &[]);
    assert_eq!(e.agent_lost(AgentId(2)), [TaskId(1)]);
    assert_eq!(e.abandon(TaskId(1)), []);
    e.agent_joined(AgentId(5), &cores(4));
    check(&mut e, &[(0, &[(5, 4)])]);
    e.requeue(TaskId(0));
    check(&mut e, &[(0, &[(5, 4)])]);
    assert_eq!(e.abandon(TaskId(0)), []);
    submit(&mut e, 10..14);
    assert_eq!(given(&mut e).len(), 4, "what it held is free");
}

#[test]
fn a_gang_counts_as_one_task_and_its_ranks_go_on_while_one_waits() {
    let mut e = engine(&[4]);
    e.set_most(2);
    gang(&mut e, 0, ranks(2), 0);
    submit(&mut e, 1..3);
    check(&mut e, &[(0, &[(0, 2)]), (1, &[])]);
    e.finished(TaskId(1), 0, MS);
    e.blocked(TaskId(0), true);
    e.lingers(TaskId(0));
    submit(&mut e, 3..6);
    e.set_most(100);
    check(&mut e, &[(2, &[]), (3, &[])]); // Two cores are free, no more.
    e.blocked(TaskId(0), false);
    assert!(!e.is_idle());
    assert!(!e.wait_again(TaskId(0), TaskId(2)), "it is with its agents");
    e.finished(TaskId(0), 0, MS);
    assert_eq!(given(&mut e).len(), 2);
}

#[test]
fn a_gang_that_cannot_end_in_time_or_is_held_back_does_not_start() {
    let mut e = engine(&[4]);
    e.hold_back(true);
    e.submit_gang(TaskId(0), &cores(1), ranks(2), 10 * MS, 0, &[]);
    check(&mut e, &[]);
    e.hold_back(false);
    e.set_remaining(Some(5 * MS));
    check(&mut e, &[]);
    assert!(e.is_late());
    e.set_remaining(None);
    check(&mut e, &[(0, &[(0, 2)])]);
}

#[test]
fn gangs_of_other_shapes_wait_in_queues_of_their_own() {
    let mut e = engine(&[4]);
    submit(&mut e, 0..1);
    assert_eq!(given(&mut e).len(), 1);
    gang(&mut e, 1, ranks(4), 0);
    gang(&mut e, 2, ranks(3), 0);
    check(&mut e, &[(2, &[(0, 3)])]);
    e.finished(TaskId(0), 0, MS);
    e.finished(TaskId(2), 0, MS);
    check(&mut e, &[(1, &[(0, 4)])]);
}

#[test]
fn what_waits_behind_a_gang_takes_its_place_when_it_ends() {
    let mut e = Engine::new(4);
    e.agent_joined(AgentId(0), &cores(2));
    submit(&mut e, 0..1);
    assert_eq!(given(&mut e).len(), 1);
    e.finished(TaskId(0), 0, 1000);
    gang(&mut e, 1, ranks(1), 1);
    submit(&mut e, 2..4);
    check(&mut e, &[(1, &[(0, 1)]), (2, &[]), (3, &[])]); // The last one ahead: short ones run there.
    e.finished(TaskId(1), 0, MS);
    e.lingers(TaskId(2));
    e.sanity_check();
    // It holds the core now, so a gang finds none until it ends.
    gang(&mut e, 4, ranks(1), 0);
    check(&mut e, &[]);
    e.finished(TaskId(3), 0, 1000);
    check(&mut e, &[(4, &[(0, 1)])]);
}
