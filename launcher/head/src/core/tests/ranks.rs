//! Laws of gangs: all parts are handed over at once, one failure ends all, the attempt ends with its last part, and what ranks returned
//! is held until the array holds it.

use super::*;
use bridgehead_wire::{EndGang, Failure, FailureCause, GangCall, Ranks, RanksAt, RanksBound, Relay, Retry, TaskCall};

/// Submits a gang of `ranks` as task `id`.
fn submit_gang(core: &mut Core, id: u64, ranks: u32, shards: bool) {
    let submit = TaskSubmit {
        token: id,
        ranks: Some(Ranks {
            least: ranks,
            most: ranks,
            shards,
            ..Ranks::default()
        }),
        retry: Some(Retry {
            lost_node: 1,
            ..Retry::default()
        }),
        ..TaskSubmit::default()
    };
    core.on_message(CLIENT, ClientToHead::Submit(submit));
}

/// One turn of the head: what it sends to agents.
fn turn(core: &mut Core) -> Vec<(u32, HeadToAgent)> {
    core.sweep_failed();
    core.assign();
    core.sweep_failed();
    core.engine.sanity_check();
    core.take_effects().agents
}

fn parts(sent: &[(u32, HeadToAgent)]) -> Vec<(u32, TaskCall)> {
    let call = |(agent, message): &(u32, HeadToAgent)| match message {
        HeadToAgent::Call(call) => Some((*agent, call.clone())),
        _ => None,
    };
    sent.iter().filter_map(call).collect()
}

/// The agents that are told to end a gang, with the reason.
fn ended(core: &mut Core) -> Vec<(u32, String)> {
    let end = |(agent, message)| match message {
        HeadToAgent::EndGang(EndGang { reason, .. }) => Some((agent, reason)),
        _ => None,
    };
    core.take_effects().agents.into_iter().filter_map(end).collect()
}

fn done(core: &mut Core, agent: u32, attempt: u32, outcome: Outcome, shards: Vec<Value>) {
    let done = TaskDone {
        attempt,
        outcome: Some(outcome),
        shards,
        ..TaskDone::default()
    };
    core.on_agent(agent, AgentToHead::Done(done));
}

fn nothing() -> Outcome {
    Outcome::value(Value::inline(bytes::Bytes::new()))
}

fn phase(core: &Core) -> crate::state::Phase {
    core.state().row(0).expect("it was submitted").phase
}

/// A gang of three ranks that runs on three agents.
fn running(shards: bool) -> Core {
    let mut core = core(3);
    submit_gang(&mut core, 0, 3, shards);
    let sent = turn(&mut core);
    let calls = parts(&sent);
    assert_eq!(calls.iter().map(|(agent, _)| *agent).collect::<Vec<_>>(), [0, 1, 2]);
    let GangCall { nodes, .. } = calls[1].1.gang.clone().expect("it is a gang's");
    let at = |agent| RanksAt {
        agent,
        first: agent,
        count: 1,
        host: String::new(),
    };
    assert_eq!(nodes, [at(0), at(1), at(2)], "each part knows where all ranks are");
    assert!(calls.windows(2).all(|two| two[0].1 == two[1].1));
    core
}

#[test]
fn a_gang_ends_with_its_last_part_and_has_the_first_ranks_value() {
    let mut core = running(false);
    done(&mut core, 0, 1, Outcome::value(object(7, 0)), Vec::new());
    done(&mut core, 2, 1, nothing(), Vec::new());
    assert_eq!(phase(&core), crate::state::Phase::Running);
    done(&mut core, 1, 1, nothing(), Vec::new());
    assert_eq!(phase(&core), crate::state::Phase::Finished);
    assert_eq!(core.state().row(0).map(|row| row.agent), Some(0));
    assert!(ended(&mut core).is_empty(), "nobody was ended");
}

#[test]
fn one_failure_ends_all_ranks_and_the_first_one_is_the_gangs() {
    let mut core = running(false);
    let failure = |text: &str| Failure::new(FailureCause::User, "exit-code", text);
    let failed = bridgehead_wire::RankFailed {
        task: 0,
        attempt: 1,
        failure: Some(failure("rank 1 exited with 3")),
    };
    core.on_agent(1, AgentToHead::RankFailed(failed));
    let reason = "rank 1 exited with 3".to_owned();
    assert_eq!(
        ended(&mut core),
        [(0, reason.clone()), (1, reason.clone()), (2, reason.clone())]
    );
    done(&mut core, 2, 1, Outcome::failure(failure("it was killed")), Vec::new());
    done(&mut core, 0, 1, Outcome::cancelled("the gang ends"), Vec::new());
    assert_eq!(phase(&core), crate::state::Phase::Running, "a part has not ended");
    done(
        &mut core,
        1,
        1,
        Outcome::failure(failure("rank 1 exited with 3")),
        Vec::new(),
    );
    assert_eq!(phase(&core), crate::state::Phase::Failed);
    let row = core.state().row(0).expect("it is known");
    let crate::state::End::Failure(failure) = &row.end else {
        panic!("{row:?}");
    };
    assert_eq!(failure.message, reason);
    assert!(ended(&mut core).is_empty(), "they are told once");
}

#[test]
fn a_lost_agent_ends_the_gang_which_starts_anew_once_its_other_ranks_have_ended() {
    let mut core = running(false);
    join_one(&mut core, 3);
    core.on_agent_lost(1, "its node went down");
    assert_eq!(
        ended(&mut core).iter().map(|(agent, _)| *agent).collect::<Vec<_>>(),
        [0, 2]
    );
    assert!(parts(&turn(&mut core)).is_empty(), "the old ranks may still run");
    done(&mut core, 0, 1, Outcome::cancelled("the gang ends"), Vec::new());
    done(&mut core, 2, 1, Outcome::cancelled("the gang ends"), Vec::new());
    let calls = parts(&turn(&mut core));
    let again: Vec<(u32, u32)> = calls.iter().map(|(agent, call)| (*agent, call.attempt)).collect();
    assert_eq!(again, [(0, 2), (2, 2), (3, 2)]);
    done(&mut core, 2, 1, nothing(), Vec::new());
    assert_eq!(core.gangs[&0].open, [0, 2, 3], "news of the old attempt mean nothing");
}

#[test]
fn shards_of_ranks_are_held_until_the_array_holds_them_and_no_longer() {
    let mut core = running(true);
    for agent in 0..3 {
        let Value { kind, .. } = object(10 + u64::from(agent), agent);
        let object = match kind {
            Some(bridgehead_wire::value::Kind::Stored(object)) => object,
            _ => panic!("it is stored"),
        };
        // The hold of the rank's process, the part's own, and the end of the process.
        core.on_agent(
            agent,
            bridgehead_wire::PutObject {
                object: Some(object.clone()),
            }
            .into(),
        );
        let objects = vec![object];
        core.on_agent(
            agent,
            bridgehead_wire::HoldObjects {
                objects: objects.clone(),
            }
            .into(),
        );
        core.on_agent(agent, bridgehead_wire::ReleaseObjects { objects }.into());
    }
    let refs: Vec<ObjectRef> = (0..3)
        .filter_map(|agent| object(10 + agent, agent as u32).object().cloned())
        .collect();
    let array = Value { refs, ..object(1, 0) };
    done(&mut core, 0, 1, Outcome::value(array), vec![object(10, 0)]);
    done(&mut core, 2, 1, nothing(), vec![object(12, 2)]);
    done(&mut core, 1, 1, nothing(), vec![object(11, 1)]);
    for id in [1, 10, 11, 12] {
        assert!(core.objects.locate(ObjectId(id)).is_some(), "object {id} is there");
    }
    // The client that has the outcome lets go of it.
    let objects = object(1, 0).object().cloned().into_iter().collect();
    core.on_message(
        CLIENT,
        ClientToHead::Release(bridgehead_wire::ReleaseObjects { objects }),
    );
    for id in [1, 10, 11, 12] {
        assert!(core.objects.locate(ObjectId(id)).is_none(), "object {id} is gone");
    }
}

#[test]
fn what_parts_say_to_one_another_is_passed_on_between_those_that_run() {
    let mut core = running(false);
    let relay = |agent| Relay {
        attempt: 1,
        agent,
        bytes: bytes::Bytes::from_static(b"put"),
        ..Relay::default()
    };
    core.on_agent(0, AgentToHead::Relay(relay(2)));
    assert_eq!(core.take_effects().agents, [(2, HeadToAgent::Relay(relay(0)))]);
    core.on_agent(0, AgentToHead::Relay(relay(9)));
    core.on_agent(0, AgentToHead::Relay(Relay { attempt: 2, ..relay(2) }));
    done(&mut core, 2, 1, nothing(), Vec::new());
    core.on_agent(0, AgentToHead::Relay(relay(2)));
    assert!(core.take_effects().agents.is_empty());
}

#[test]
fn a_cancel_reaches_every_part_and_the_gang_is_cancelled_when_all_have_ended() {
    let mut core = running(false);
    core.cancel_task(0, "enough");
    let told = core.take_effects().agents;
    let told: Vec<u32> = told
        .iter()
        .filter(|(_, message)| matches!(message, HeadToAgent::Cancel(_)))
        .map(|(agent, _)| *agent)
        .collect();
    assert_eq!(told, [0, 1, 2]);
    for agent in [2, 0, 1] {
        assert_eq!(phase(&core), crate::state::Phase::Running);
        done(&mut core, agent, 1, Outcome::cancelled("enough"), Vec::new());
    }
    assert_eq!(phase(&core), crate::state::Phase::Cancelled);
}

#[test]
fn a_gang_that_the_run_could_never_hold_fails_by_name() {
    let mut core = core(2);
    submit_gang(&mut core, 0, 3, false);
    let row = core.state().row(0).expect("it is known");
    let crate::state::End::Failure(failure) = &row.end else {
        panic!("{row:?}");
    };
    assert!(
        failure
            .message
            .contains("needs 3 ranks at once, the agents of this run hold 2"),
        "{failure:?}"
    );
}

#[test]
fn the_state_tells_where_the_ranks_are_and_what_they_are_bound_to() {
    let mut core = running(false);
    let bound = |rank| bridgehead_wire::RankBound {
        rank,
        ..Default::default()
    };
    for (agent, attempt) in [(2, 1), (0, 1), (1, 9)] {
        let ranks = vec![bound(agent)];
        let bound = RanksBound {
            attempt,
            ranks,
            mpi: "MPICH".to_owned(),
            ..RanksBound::default()
        };
        core.on_agent(agent, AgentToHead::Bound(bound));
    }
    let gang = &core.state().gangs[&0];
    assert_eq!(gang.bound, [bound(0), bound(2)], "another attempt's do not count");
    assert_eq!((gang.nodes.len(), gang.mpi.as_str()), (3, "MPICH"));
}
