//! Bytes: what a journal record and a frame cost. Owns typical messages of a no-op task; the formats are head's and wire's.

use crate::meter::cpu_ns;
use crate::report::Report;
use bridgehead_head::journal::{self, Event, Record, TaskAssigned, TaskFinished};
use bridgehead_wire::{AgentToHead, Frames, HeadToAgent, Outcome, TaskCall, TaskDone, Value};
use bytes::Bytes;
use std::hint::black_box;
use std::path::Path;

/// Records of one commit, messages of one read: what a busy head sees.
const BATCH: usize = 64;
/// Bytes of packed arguments and of a small result.
const PAYLOAD: usize = 64;

fn payload() -> Value {
    Value::inline(Bytes::from(vec![7; PAYLOAD]))
}

fn call(task: u64) -> HeadToAgent {
    HeadToAgent::Call(TaskCall {
        task,
        attempt: 1,
        function: 3,
        args: Some(payload()),
        ..TaskCall::default()
    })
}

fn done(task: u64) -> AgentToHead {
    AgentToHead::Done(TaskDone {
        task,
        attempt: 1,
        outcome: Some(Outcome::value(payload())),
        started_ns: 1 << 60,
        elapsed_ns: 12_345,
        worker: 5,
        shards: Vec::new(),
    })
}

fn assigned(task: u64) -> Record {
    Record {
        time_ns: 1 << 60,
        event: Some(Event::TaskAssigned(TaskAssigned {
            ranks: Vec::new(),
            task,
            attempt: 1,
            agent: 2,
        })),
    }
}

fn finished(task: u64) -> Record {
    Record {
        time_ns: 1 << 60,
        event: Some(Event::TaskFinished(TaskFinished {
            task,
            attempt: 1,
            value: Some(payload()),
            started_ns: 1 << 60,
            elapsed_ns: 12_345,
            worker: 5,
        })),
    }
}

/// All rows of formats.
///
/// # Errors
/// The temporary folder takes no journal.
pub(crate) fn measure(report: &mut Report) -> Result<(), Box<dyn std::error::Error>> {
    let n = report.size(200_000);
    let name = "journal: append of a record, commits of 64, no sync";
    if report.wants(name) {
        let ns = best(report, || append(n))?;
        report.add(name, ns, "ns", None);
    }
    let name = "journal: read of a record";
    if report.wants(name) {
        let ns = best(report, || replay(n))?;
        report.add(name, ns, "ns", None);
    }
    let frames: [(&str, Run); 4] = [
        ("frame: encode of a call", |n| encode(n, call, HeadToAgent::encode)),
        ("frame: decode of a call", |n| {
            decode(n, call, HeadToAgent::encode, HeadToAgent::decode)
        }),
        ("frame: encode of an outcome", |n| encode(n, done, AgentToHead::encode)),
        ("frame: decode of an outcome", |n| {
            decode(n, done, AgentToHead::encode, AgentToHead::decode)
        }),
    ];
    for (name, run) in frames {
        let name = format!("{name}, {PAYLOAD} B of payload");
        if report.wants(&name) {
            let ns = best(report, || run(n))?;
            report.add(name, ns, "ns", None);
        }
    }
    Ok(())
}

type Figure = Result<f64, Box<dyn std::error::Error>>;
type Run = fn(usize) -> Figure;

/// The best of some runs.
fn best(report: &Report, run: impl Fn() -> Figure) -> Figure {
    let mut best = f64::INFINITY;
    for _ in 0..report.repeats() {
        best = best.min(run()?);
    }
    Ok(best)
}

fn write_journal(folder: &Path, n: usize) -> Result<u64, journal::JournalError> {
    let records: Vec<Record> = (0..BATCH as u64 / 2)
        .flat_map(|task| [assigned(task), finished(task)])
        .collect();
    let mut writer = journal::Writer::create(folder, 1)?;
    let start = cpu_ns();
    for _ in 0..n.div_ceil(BATCH) {
        for record in &records {
            writer.push(record);
        }
        writer.commit()?;
    }
    Ok(cpu_ns() - start)
}

/// Nanoseconds a record; half of them are assignments, half are finishes with a small value.
fn append(n: usize) -> Figure {
    let folder = tempfile::tempdir()?;
    let ns = write_journal(folder.path(), n)?;
    Ok(ns as f64 / (n.div_ceil(BATCH) * BATCH) as f64)
}

fn replay(n: usize) -> Figure {
    let folder = tempfile::tempdir()?;
    write_journal(folder.path(), n)?;
    let start = cpu_ns();
    let segments = journal::read_all(folder.path())?;
    let ns = cpu_ns() - start;
    let records: usize = segments.iter().map(|segment| segment.records.len()).sum();
    assert_eq!(records, n.div_ceil(BATCH) * BATCH, "what was written is read");
    Ok(ns as f64 / records as f64)
}

fn encode<M>(n: usize, message: impl Fn(u64) -> M, encode: impl Fn(&M, &mut Vec<u8>)) -> Figure {
    let messages: Vec<M> = (0..BATCH as u64).map(message).collect();
    let mut out = Vec::new();
    let start = cpu_ns();
    for _ in 0..n.div_ceil(BATCH) {
        out.clear();
        messages.iter().for_each(|message| encode(message, &mut out));
        black_box(&out);
    }
    Ok((cpu_ns() - start) as f64 / (n.div_ceil(BATCH) * BATCH) as f64)
}

fn decode<M>(
    n: usize,
    message: impl Fn(u64) -> M,
    encode: impl Fn(&M, &mut Vec<u8>),
    decode: impl Fn(u16, &[u8]) -> Result<M, bridgehead_wire::FrameError>,
) -> Figure {
    let mut bytes = Vec::new();
    (0..BATCH as u64).for_each(|task| encode(&message(task), &mut bytes));
    let mut frames = Frames::new();
    let mut seen = 0;
    let start = cpu_ns();
    for _ in 0..n.div_ceil(BATCH) {
        frames.feed(&bytes);
        while let Some((kind, body)) = frames.next_frame()? {
            black_box(decode(kind, body)?);
            seen += 1;
        }
    }
    let ns = cpu_ns() - start;
    assert_eq!(seen, n.div_ceil(BATCH) * BATCH, "every frame is found");
    Ok(ns as f64 / seen as f64)
}
