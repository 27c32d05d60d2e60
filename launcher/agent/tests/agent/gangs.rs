//! Gangs: a part of the ranks of a task, of programs that need no MPI. Gangs of real MPIs are tests/mpi's.

use crate::harness::{Head, Wish, check, program, shell};
use bridgehead_wire::{AgentToHead, CancelTasks, EndGang, FailureCause, GangCall, Mpi, Pair, Ranks, RanksAt, TaskCall};

fn run(case: impl AsyncFnOnce(&mut Head)) {
    check(Wish::default(), case);
}

/// The call, run by `here` ranks on this agent of `all`, beginning with rank `first`.
fn gang(mut call: TaskCall, mpi: Mpi, (first, here, all): (u32, u32, u32)) -> TaskCall {
    let at = |agent, first, count| RanksAt {
        agent,
        first,
        count,
        host: format!("n{agent}"),
    };
    let mut nodes = vec![
        at(9, 0, first),
        at(0, first, here),
        at(8, first + here, all - first - here),
    ];
    nodes.retain(|at| at.count > 0);
    call.gang = Some(GangCall {
        ranks: Ranks {
            least: all,
            most: all,
            mpi: mpi.into(),
            ..Ranks::default()
        },
        nodes,
        rank: 0,
    });
    call
}

fn alone(call: TaskCall, ranks: u32) -> TaskCall {
    gang(call, Mpi::None, (0, ranks, ranks))
}

/// The failure that is told before the end.
async fn rank_failed(head: &mut Head) -> String {
    let failed = |message: &AgentToHead| match message {
        AgentToHead::RankFailed(failed) => failed.failure.clone(),
        _ => None,
    };
    head.wait(failed).await.message
}

#[test]
fn every_rank_runs_with_its_variables_and_the_first_ones_output_is_the_value() {
    run(async |head| {
        let line = "echo $RANK $WORLD_SIZE $LOCAL_RANK $OF_THE_RUN > rank.$RANK; echo I am $RANK";
        let mut call = shell(1, line);
        let outputs = &mut call.program.as_mut().expect("a program").outputs;
        outputs.extend([0, 1].map(|rank| Pair {
            key: format!("of {rank}"),
            value: format!("rank.{rank}"),
        }));
        head.send(alone(call, 2));
        let result = head.program(1).await;
        assert_eq!(&result.stdout[..], b"I am 0\n");
        let made = result.outputs.iter().map(|pair| std::fs::read_to_string(&pair.value));
        let made: Vec<String> = made.map(|text| text.expect("a file of a rank")).collect();
        assert_eq!(made, ["0 2 0 yes\n", "1 2 1 yes\n"]);
    });
}

#[test]
fn ranks_of_a_part_are_numbered_from_its_first_one() {
    run(async |head| {
        let line = "echo $RANK $LOCAL_RANK $NODE_RANK $MASTER_ADDR >> ranks";
        head.send(gang(shell(1, line), Mpi::None, (3, 2, 6)));
        assert_eq!(
            head.text(1).await,
            "",
            "the first rank, whose value counts, is elsewhere"
        );
        let text = std::fs::read_to_string(head.work().join("ranks")).expect("the file");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        assert_eq!(lines, ["3 0 1 n9", "4 1 1 n9"]);
    });
}

#[test]
fn one_rank_that_fails_ends_the_others_and_is_told_before_they_have_ended() {
    run(async |head| {
        let line = "if [ $RANK = 1 ]; then echo because >&2; exit 3; fi; sleep 1000";
        head.send(alone(shell(1, line), 2));
        let told = rank_failed(head).await;
        assert!(told.starts_with("rank 1 of 2 on here: "), "{told}");
        let failure = head.failure(1).await;
        assert_eq!(failure.message, told);
        assert_eq!((failure.exit_code, failure.cause()), (Some(3), FailureCause::User));
        assert!(failure.message.contains("because"), "{}", failure.message);
    });
}

#[test]
fn a_gang_waits_for_room_for_all_of_its_ranks_and_gives_it_back() {
    run(async |head| {
        let waits = "while [ ! -e go ]; do sleep 0.01; done; echo first";
        head.send(shell(1, waits));
        head.started(1).await;
        head.send(alone(shell(2, "[ -e go ] && echo second"), 2));
        std::fs::write(head.work().join("go"), "").expect("a file");
        assert_eq!(
            &head.program(2).await.stdout[..],
            b"second\n",
            "it began when the first had ended"
        );
        head.send(alone(shell(3, "echo third"), 2));
        assert_eq!(&head.program(3).await.stdout[..], b"third\n");
    });
}

#[test]
fn ranks_are_ended_by_a_cancel_by_the_head_and_by_their_limit() {
    run(async |head| {
        head.send(alone(shell(1, "sleep 1000"), 2));
        head.started(1).await;
        head.send(CancelTasks {
            tasks: vec![1],
            reason: "enough".to_owned(),
            ..CancelTasks::default()
        });
        assert_eq!(head.cancelled(1).await, "enough");
        head.send(gang(shell(2, "sleep 1000"), Mpi::None, (0, 1, 2)));
        head.started(2).await;
        head.send(EndGang {
            task: 2,
            attempt: 1,
            reason: "rank 1 died".to_owned(),
        });
        assert_eq!(head.cancelled(2).await, "rank 1 died");
        let limited = TaskCall {
            timeout_ms: 100,
            ..shell(3, "sleep 1000")
        };
        head.send(alone(limited, 2));
        let failure = head.failure(3).await;
        assert_eq!(
            (failure.kind.as_str(), failure.cause()),
            ("timeout", FailureCause::Walltime)
        );
    });
}

#[test]
fn a_program_that_asks_for_no_mpi_start_up_is_told_from_an_mpi_program() {
    run(async |head| {
        head.send(gang(program(1, &["true"]), Mpi::Auto, (0, 2, 2)));
        let failure = head.failure(1).await;
        assert_eq!(failure.kind, "not-mpi");
        assert!(failure.message.contains("mpi=\"none\""), "{}", failure.message);
        head.send(gang(program(2, &["no-such-program"]), Mpi::Auto, (0, 2, 2)));
        assert_eq!(head.failure(2).await.kind, "not-found");
    });
}

#[test]
fn what_each_rank_is_bound_to_is_told_when_they_start() {
    run(async |head| {
        head.send(gang(shell(1, "true"), Mpi::None, (1, 2, 3)));
        let ranks = |message: &AgentToHead| match message {
            AgentToHead::Bound(bound) => Some(bound.ranks.iter().map(|rank| rank.rank).collect::<Vec<_>>()),
            _ => None,
        };
        assert_eq!(head.wait(ranks).await, [1, 2]);
        head.done(1).await;
    });
}

#[test]
fn lines_in_the_log_bear_the_rank_that_printed_them() {
    run(async |head| {
        head.send(alone(shell(1, "echo one; echo two"), 2));
        head.done(1).await;
        let log = std::fs::read_to_string(head.dir.path().join("run/logs/tasks-0.jsonl")).expect("the log");
        for line in ["[0] one", "[0] two", "[1] one", "[1] two"] {
            assert!(log.contains(line), "{line} in {log}");
        }
    });
}
