//! Laws of the journal: what was committed is read back; a damaged tail is cut and nothing before it; foreign and newer
//! files are refused untouched; a segment has one writer.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use bridgehead_head::journal::{
    Event, JournalError, Record, RunPaused, RunStarted, TaskCancelled, Writer, read_all, read_segment, segment_path,
};
use std::path::Path;

fn record(task: u64) -> Record {
    let event = Event::TaskCancelled(TaskCancelled {
        task,
        reason: "test".to_owned(),
    });
    Record {
        time_ns: task,
        event: Some(event),
    }
}

fn write(folder: &Path, attempt: u32, records: u64) {
    let mut writer = Writer::create(folder, attempt).unwrap();
    (0..records).for_each(|task| writer.push(&record(task)));
    writer.sync().unwrap();
}

/// Writes ten records, lets `damage` change the bytes, and expects the first `kept` records back and a report if fewer.
fn check(damage: impl FnOnce(&mut Vec<u8>), kept: usize) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1, 10);
    let path = segment_path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    damage(&mut bytes);
    std::fs::write(&path, &bytes).unwrap();
    let segment = read_segment(&path).unwrap();
    assert_eq!(segment.records, (0..kept as u64).map(record).collect::<Vec<_>>());
    assert_eq!(segment.dropped.is_some(), kept < 10, "{:?}", segment.dropped);
    assert_eq!(std::fs::read(&path).unwrap(), bytes, "reading must not change the file");
}

#[test]
fn what_was_committed_is_read_back() {
    check(|_| {}, 10);
}

#[test]
fn a_torn_record_is_dropped_and_the_rest_kept() {
    check(|bytes| bytes.truncate(bytes.len() - 3), 9);
}

#[test]
fn a_torn_record_header_is_dropped_and_the_rest_kept() {
    let one = {
        use prost::Message;
        8 + record(9).encoded_len()
    };
    check(|bytes| bytes.truncate(bytes.len() - one + 5), 9);
}

#[test]
fn a_wrong_checksum_ends_the_segment_there() {
    check(|bytes| *bytes.last_mut().unwrap() ^= 1, 9);
}

#[test]
fn an_absurd_length_ends_the_segment_there() {
    check(|bytes| bytes[16..20].copy_from_slice(&u32::MAX.to_le_bytes()), 0);
}

#[test]
fn every_cut_keeps_a_prefix() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1, 10);
    let path = segment_path(folder.path(), 1);
    let whole = std::fs::read(&path).unwrap();
    let mut last = 0;
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let records = read_segment(&path).unwrap().records;
        assert!(records.len() >= last && records.len() <= 10);
        assert!(records.iter().enumerate().all(|(i, r)| *r == record(i as u64)));
        last = records.len();
    }
    assert_eq!(last, 10);
}

#[test]
fn a_newer_version_is_refused_untouched() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 1, 1);
    let path = segment_path(folder.path(), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 99;
    std::fs::write(&path, &bytes).unwrap();
    let error = read_segment(&path).unwrap_err();
    assert!(matches!(error, JournalError::Newer { found: 99, .. }), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}

#[test]
fn a_foreign_file_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = segment_path(folder.path(), 1);
    std::fs::write(&path, b"something else entirely").unwrap();
    let error = read_segment(&path).unwrap_err();
    assert!(error.to_string().contains("000001.bhj"), "{error}");
}

#[test]
fn a_segment_has_one_writer() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), 3, 1);
    assert!(matches!(
        Writer::create(folder.path(), 3),
        Err(JournalError::Taken { attempt: 3, .. })
    ));
}

#[test]
fn segments_are_replayed_in_order_of_attempts() {
    let folder = tempfile::tempdir().unwrap();
    for attempt in [2, 10, 1] {
        write(folder.path(), attempt, 1);
    }
    let attempts: Vec<u32> = read_all(folder.path()).unwrap().iter().map(|s| s.attempt).collect();
    assert_eq!(attempts, [1, 2, 10]);
}

#[test]
fn what_a_head_appends_after_another_took_over_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let started = |attempt, replayed| Record {
        time_ns: 0,
        event: Some(Event::RunStarted(RunStarted {
            attempt,
            replayed,
            ..RunStarted::default()
        })),
    };
    for (attempt, replayed) in [(1, Some(0)), (2, Some(3)), (3, Some(5)), (4, None)] {
        let mut writer = Writer::create(folder.path(), attempt).unwrap();
        writer.push(&started(attempt, replayed));
        (0..4).for_each(|task| writer.push(&record(task)));
        writer.sync().unwrap();
    }
    let kept: Vec<usize> = read_all(folder.path())
        .unwrap()
        .iter()
        .map(|s| s.records.len())
        .collect();
    assert_eq!(kept, [3, 2, 5, 5], "an older program does not say where it began");
}

#[test]
fn a_pause_is_written_as_it_was_frozen() {
    let paused = Record {
        time_ns: 1,
        event: Some(Event::RunPaused(RunPaused {
            cause: "walltime".to_owned(),
            message: "m".to_owned(),
        })),
    };
    let frozen = b"\x09\x01\0\0\0\0\0\0\0\x6a\x0d\x0a\x08walltime\x12\x01m";
    assert_eq!(prost::Message::encode_to_vec(&paused), frozen);
}
