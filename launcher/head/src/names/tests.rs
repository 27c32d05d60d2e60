//! Laws of the table of names: who waits is woken once, what is dropped is told, back-pressure holds no one up for ever.

use super::*;

const WRITER: Party = Party::Worker(0, 1);
const READER: Party = Party::Worker(1, 1);

fn value(id: u128) -> Value {
    Value::stored(ObjectRef::new(ObjectId(id), 8, 0, 0, 0))
}

fn put(id: u128) -> Want {
    Want::Put(None, value(id))
}

fn get(version: Option<u64>, wait: bool) -> Want {
    let bare = false;
    Want::Get { version, bare, wait }
}

fn next(after: u64) -> Want {
    Want::Next { watch: 9, after }
}

fn stream(keep: u32, block: bool) -> Want {
    Want::Stream { keep, block }
}

/// Asks about "x"; the answers as (token, answer).
fn ask(names: &mut Names, to: Party, token: u64, want: Want) -> Vec<(u64, Answer)> {
    answers(names.ask((to, token), Some(3), "x", want))
}

fn answers(out: Effects) -> Vec<(u64, Answer)> {
    out.replies
        .into_iter()
        .map(|reply| (reply.token, reply.answer))
        .collect()
}

fn check(got: &[(u64, Answer)], expected: &[(u64, Answer)]) {
    assert_eq!(got, expected);
}

fn check_failed(got: &[(u64, Answer)], kind: &str, words: &str) {
    let [(_, Answer::Failed(found, why))] = got else {
        panic!("it did not fail: {got:?}")
    };
    assert!(*found == kind && why.contains(words), "{found}: {why}");
}

#[test]
fn a_reader_that_waits_is_answered_by_the_put_and_only_once() {
    let mut names = Names::default();
    check(&ask(&mut names, READER, 1, get(None, true)), &[]);
    check(&ask(&mut names, READER, 2, get(Some(2), true)), &[]);
    let first = [(3, Answer::Done(1)), (1, Answer::Value(1, value(1)))];
    check(&ask(&mut names, WRITER, 3, put(1)), &first);
    let second = [(4, Answer::Done(2)), (2, Answer::Value(2, value(2)))];
    check(&ask(&mut names, WRITER, 4, put(2)), &second);
}

#[test]
fn an_unknown_name_a_version_to_come_and_one_that_is_gone_are_told_apart() {
    let mut names = Names::default();
    check_failed(
        &ask(&mut names, READER, 1, get(None, false)),
        "name-unknown",
        "it has: none",
    );
    ask(&mut names, WRITER, 2, stream(2, false));
    for id in 1..=4 {
        ask(&mut names, WRITER, 2, put(id));
    }
    check_failed(
        &ask(&mut names, READER, 1, get(Some(9), false)),
        "name-unknown",
        "newest one is 4",
    );
    check_failed(&ask(&mut names, READER, 1, get(Some(1), true)), "version-gone", "3, 4");
    let other = answers(names.ask((READER, 1), None, "y", get(None, false)));
    check_failed(&other, "name-unknown", "it has: x");
    assert_eq!(names.known().count(), 1, "asking makes no name");
}

#[test]
fn a_bounded_stream_drops_its_oldest_version_and_says_which_value() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, stream(1, false));
    ask(&mut names, WRITER, 2, put(1));
    let out = names.ask((WRITER, 3), None, "x", put(2));
    assert_eq!(out.dropped, [value(1)]);
}

#[test]
fn a_put_into_a_full_blocking_stream_waits_until_every_watch_has_done_with_the_oldest() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, stream(1, true));
    check(&ask(&mut names, WRITER, 2, put(1)), &[(2, Answer::Done(1))]);
    check(&ask(&mut names, WRITER, 3, put(2)), &[]);
    let taken = ask(&mut names, READER, 4, next(0));
    check(&taken, &[(4, Answer::Value(1, value(1)))]);
    let on = ask(&mut names, READER, 5, next(1));
    check(&on, &[(3, Answer::Done(2)), (5, Answer::Value(2, value(2)))]);
}

#[test]
fn a_watch_whose_reader_is_gone_holds_no_put_up() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, stream(1, true));
    ask(&mut names, WRITER, 2, put(1));
    ask(&mut names, READER, 4, next(0));
    check(&ask(&mut names, WRITER, 3, put(2)), &[]);
    check(&answers(names.gone(|party| party == READER)), &[(3, Answer::Done(2))]);
}

#[test]
fn a_writer_that_is_gone_leaves_its_versions_and_drops_what_waits() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, stream(1, true));
    ask(&mut names, WRITER, 2, put(1));
    ask(&mut names, WRITER, 3, put(2));
    let out = names.gone(|party| party == WRITER);
    assert_eq!((out.replies.len(), out.dropped), (0, vec![value(2)]));
    check(
        &ask(&mut names, READER, 4, get(None, false)),
        &[(4, Answer::Value(1, value(1)))],
    );
}

#[test]
fn a_watch_sees_all_versions_and_then_the_end() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, put(1));
    ask(&mut names, WRITER, 1, put(2));
    check(&ask(&mut names, READER, 2, next(0)), &[(2, Answer::Value(1, value(1)))]);
    ask(&mut names, WRITER, 1, Want::Close);
    check(&ask(&mut names, READER, 3, next(1)), &[(3, Answer::Value(2, value(2)))]);
    check(&ask(&mut names, READER, 4, next(2)), &[(4, Answer::Ended)]);
    check_failed(&ask(&mut names, WRITER, 5, put(3)), "stream-closed", "delete it first");
}

#[test]
fn a_stream_ends_with_the_task_that_made_it_and_breaks_where_that_failed() {
    for (reason, words) in [(None, ""), (Some("it was killed"), "it was killed")] {
        let mut names = Names::default();
        ask(&mut names, WRITER, 1, stream(0, false));
        check(&ask(&mut names, READER, 2, next(0)), &[]);
        let got = answers(names.task_ended(3, reason));
        match reason {
            None => check(&got, &[(2, Answer::Ended)]),
            Some(_) => check_failed(&got, "stream-broken", words),
        }
    }
}

#[test]
fn a_put_of_a_number_that_was_put_before_changes_nothing() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, Want::Put(Some(5), value(1)));
    let out = names.ask((WRITER, 2), None, "x", Want::Put(Some(5), value(2)));
    assert_eq!(out.dropped, [value(2)]);
    check(
        &ask(&mut names, READER, 3, get(Some(5), false)),
        &[(3, Answer::Value(5, value(1)))],
    );
}

#[test]
fn a_request_that_is_waited_for_no_longer_is_answered_with_what_it_waited_for() {
    let mut names = Names::default();
    ask(&mut names, READER, 1, get(None, true));
    check_failed(&answers(names.forget(READER, 1)), "name-timeout", "\"x\"");
    check(&answers(names.forget(READER, 1)), &[]);
    check(&ask(&mut names, WRITER, 2, put(1)), &[(2, Answer::Done(1))]);
}

#[test]
fn versions_that_went_down_with_an_agent_are_lost_by_name() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, put(1));
    ask(&mut names, WRITER, 1, put(2));
    names.lost(&[ObjectId(1)]);
    check_failed(
        &ask(&mut names, READER, 2, get(Some(1), true)),
        "object-lost",
        "version 1 of \"x\"",
    );
    check_failed(&ask(&mut names, READER, 2, next(0)), "object-lost", "version 1");
    check(&ask(&mut names, READER, 3, next(1)), &[(3, Answer::Value(2, value(2)))]);
}

#[test]
fn a_name_that_is_deleted_ends_for_those_who_follow_it_and_gives_all_its_values_back() {
    let mut names = Names::default();
    ask(&mut names, WRITER, 1, put(1));
    ask(&mut names, READER, 2, next(1));
    let out = names.ask((WRITER, 3), None, "x", Want::Delete);
    assert_eq!(out.dropped, [value(1)]);
    check(&answers(out), &[(2, Answer::Ended), (3, Answer::Done(1))]);
    check_failed(
        &ask(&mut names, READER, 4, Want::Versions),
        "name-unknown",
        "it has: none",
    );
}

#[test]
fn nobody_waits_beyond_the_end_of_the_run() {
    let mut names = Names::default();
    ask(&mut names, READER, 1, next(0));
    check(&answers(names.end()), &[(1, Answer::Ended)]);
    check(&ask(&mut names, READER, 2, next(0)), &[(2, Answer::Ended)]);
    check_failed(
        &ask(&mut names, READER, 3, get(None, true)),
        "name-unknown",
        "run ended",
    );
}
