//! Laws of PMI-1: what is put before a barrier is there after it, on all nodes; values are verbatim; what is not served is
//! refused by an answer that clients understand; no line does harm.

use super::*;
use crate::world::tests::world;

fn lines(outs: &[Out]) -> Vec<(u32, String)> {
    let line = |out: &Out| match out {
        Out::Line { rank, line } => Some((*rank, String::from_utf8_lossy(line).trim_end().to_owned())),
        Out::Event(_) => None,
    };
    outs.iter().filter_map(line).collect()
}

fn events(outs: Vec<Out>) -> Vec<Event> {
    let event = |out| match out {
        Out::Event(event) => Some(event),
        Out::Line { .. } => None,
    };
    outs.into_iter().filter_map(event).collect()
}

/// One line of a rank has one line as its answer.
fn check(state: &mut State, rank: u32, line: &str, answer: &str) {
    assert_eq!(
        lines(&state.line(rank, line.as_bytes())),
        [(rank, answer.to_owned())],
        "{line}"
    );
}

#[test]
fn a_rank_is_told_what_it_asks() {
    let mut state = State::new(world(&[3, 2], 1));
    let outs = state.line(3, b"cmd=init pmi_version=1 pmi_subversion=1");
    assert_eq!(
        lines(&outs),
        [(3, "cmd=response_to_init rc=0 pmi_version=1 pmi_subversion=1".to_owned())]
    );
    assert_eq!(events(outs), [Event::Joined { rank: 3 }]);
    check(
        &mut state,
        3,
        "cmd=get_maxes",
        "cmd=maxes kvsname_max=256 keylen_max=256 vallen_max=1024",
    );
    check(&mut state, 3, "cmd=get_appnum", "cmd=appnum appnum=0");
    check(&mut state, 3, "cmd=get_my_kvsname", "cmd=my_kvsname kvsname=gang-1");
    check(&mut state, 4, "cmd=get_universe_size", "cmd=universe_size size=5");
    let mapping = "cmd=get_result rc=0 msg=success value=(vector,(0,1,3),(1,1,2))";
    check(&mut state, 4, "cmd=get kvsname=gang-1 key=PMI_process_mapping", mapping);
    let outs = state.line(3, b"cmd=finalize");
    assert_eq!(
        (lines(&outs)[0].1.as_str(), events(outs)),
        ("cmd=finalize_ack rc=0", vec![Event::Left { rank: 3 }])
    );
}

#[test]
fn values_come_back_verbatim() {
    let mut state = State::new(world(&[1], 0));
    check(
        &mut state,
        0,
        "cmd=put kvsname=g key=P0 value=a  b=c #\t",
        "cmd=put_result rc=0 msg=success",
    );
    let answer = &state.line(0, b"cmd=get kvsname=g key=P0")[0];
    assert!(matches!(answer, Out::Line { line, .. } if line == b"cmd=get_result rc=0 msg=success value=a  b=c #\t\n"));
    check(
        &mut state,
        0,
        "cmd=get kvsname=g key=P1",
        "cmd=get_result rc=-1 msg=key_not_found value=unknown",
    );
}

#[test]
fn a_barrier_lets_all_go_with_what_all_have_put() {
    let (mut a, mut b) = (State::new(world(&[1, 2], 0)), State::new(world(&[1, 2], 1)));
    a.line(0, b"cmd=put kvsname=g key=P0 value=zero");
    b.line(1, b"cmd=put kvsname=g key=P1 value=one");
    assert!(b.line(1, b"cmd=barrier_in").is_empty());
    let Some(Event::Send { to: 10, bytes }) = events(b.line(2, b"cmd=barrier_in")).pop() else {
        panic!()
    };
    assert!(a.peer(11, bytes).is_empty());
    let outs = a.line(0, b"cmd=barrier_in");
    assert_eq!(lines(&outs), [(0, "cmd=barrier_out rc=0".to_owned())]);
    let Some(Event::Send { to: 11, bytes }) = events(outs).pop() else {
        panic!()
    };
    let released: Vec<_> = lines(&b.peer(10, bytes)).into_iter().map(|(rank, _)| rank).collect();
    assert_eq!(released, [1, 2]);
    check(
        &mut a,
        0,
        "cmd=get kvsname=g key=P1",
        "cmd=get_result rc=0 msg=success value=one",
    );
    check(
        &mut b,
        2,
        "cmd=get kvsname=g key=P0",
        "cmd=get_result rc=0 msg=success value=zero",
    );
}

#[test]
fn what_is_not_served_is_refused_by_an_answer() {
    let mut state = State::new(world(&[1], 0));
    assert!(state.line(0, b"mcmd=spawn").is_empty());
    assert!(state.line(0, b"execname=cmd=abort").is_empty());
    assert!(
        lines(&state.line(0, b"endcmd"))[0]
            .1
            .starts_with("cmd=spawn_result rc=-1")
    );
    assert!(
        lines(&state.line(0, b"cmd=lookup_name service=x"))[0]
            .1
            .starts_with("cmd=lookup_result rc=-1")
    );
    assert!(
        lines(&state.line(0, b"cmd=publish_name service=x port=y"))[0]
            .1
            .starts_with("cmd=publish_result rc=-1")
    );
    check(
        &mut state,
        0,
        "cmd=dance to=me",
        "cmd=dance_result rc=-1 msg=unknown_command",
    );
    check(&mut state, 0, "", "cmd=_result rc=-1 msg=unknown_command");
}

#[test]
fn an_abort_has_its_code_and_words() {
    let mut state = State::new(world(&[1], 0));
    let outs = events(state.line(0, b"cmd=abort exitcode=7 message=no more fuel"));
    assert_eq!(
        outs,
        [Event::Aborted {
            rank: 0,
            code: 7,
            message: "no more fuel".to_owned()
        }]
    );
}

#[test]
fn keys_and_values_have_bounds() {
    let mut state = State::new(world(&[1], 0));
    let long = "x".repeat(VALUE_LIMIT);
    check(
        &mut state,
        0,
        &format!("cmd=put kvsname=g key=a value={long}"),
        "cmd=put_result rc=0 msg=success",
    );
    let refused = "cmd=put_result rc=-1 msg=key_or_value_too_long";
    check(
        &mut state,
        0,
        &format!("cmd=put kvsname=g key=a value={long}x"),
        refused,
    );
    check(&mut state, 0, &format!("cmd=put kvsname=g key={long} value=x"), refused);
    check(
        &mut state,
        0,
        "cmd=put kvsname=g key=a",
        "cmd=put_result rc=-1 msg=key_or_value_missing",
    );
    state.held = KVS_LIMIT;
    assert!(
        lines(&state.line(0, b"cmd=put kvsname=g key=a value=b"))[0]
            .1
            .contains("64_MiB")
    );
}

#[test]
fn bytes_of_strangers_and_garbage_fail_the_gang_by_name() {
    let mut state = State::new(world(&[1, 1], 0));
    for (from, bytes, words) in [
        (99, &b""[..], "agent 99"),
        (11, b"garbage", "agent 11"),
        (11, b"\x08\x02", "version 2"),
    ] {
        let outs = events(state.peer(from, Bytes::from_static(bytes)));
        assert!(
            matches!(&outs[..], [Event::Failed { reason }] if reason.contains(words)),
            "{outs:?}"
        );
    }
}

#[test]
fn no_line_does_harm() {
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let words = [
        "cmd=put",
        "cmd=get",
        "key=",
        "value=",
        "cmd=barrier_in",
        "mcmd=spawn",
        "endcmd",
        "cmd=abort",
        "exitcode=",
        " ",
        "=",
        "kvsname=g",
    ];
    let mut state = State::new(world(&[2], 0));
    for _ in 0..20_000 {
        let mut line = Vec::new();
        for _ in 0..random() % 6 {
            match random() % 3 {
                0 => line.push(random() as u8),
                1 => line.extend_from_slice(words[random() as usize % words.len()].as_bytes()),
                _ => line.push(b' '),
            }
        }
        for out in state.line((random() % 2) as u32, &line) {
            let Out::Line { line, .. } = out else { continue };
            assert_eq!(
                line.iter().filter(|byte| **byte == b'\n').count(),
                usize::from(!line.is_empty())
            );
        }
    }
}
