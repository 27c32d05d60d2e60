//! What only another process, or one without the run's key, can do to a fabric.

use super::{Lane, options, ready, start};
use bridgehead_fabric::{
    Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, Reason, RemoteKey, RemoteSlice,
};
use bridgehead_ucx::UcxFabric;
use bytes::Bytes;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LEN: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(60);
/// Tells the process that it is the peer, and over which lane.
const ROLE: &str = "BRIDGEHEAD_UCX_TEST_PEER";

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits = text.trim().as_bytes().chunks_exact(2);
    let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hexadecimal");
    digits.map(byte).collect()
}

/// What happened until `found` is content with it.
pub fn until(fabric: &dyn Fabric, what: &str, mut found: impl FnMut(&[Completion]) -> bool) -> Vec<Completion> {
    let (end, mut news) = (Instant::now() + PATIENCE, Vec::new());
    while !found(&news) {
        assert!(Instant::now() < end, "no {what}; there is {news:?}");
        fabric.wait(Duration::from_millis(100));
        fabric.poll(&mut news);
    }
    news
}

fn is_lost(news: &[Completion]) -> bool {
    news.iter()
        .any(|news| matches!(news, Completion::PeerLost { peer: PeerId(1), .. }))
}

/// The other process: prints its address and a region's key, and serves until it is killed.
#[test]
#[ignore = "the tests of killed processes start it in a process of its own"]
fn peer() {
    let lane = match std::env::var(ROLE).as_deref() {
        Ok("tcp") => Lane::Tcp,
        _ => Lane::SharedMemory,
    };
    let fabric = start(options(1, lane));
    let region = fabric
        .register(Arc::new(Buffer::from_bytes(vec![7; LEN])), Access::ALL)
        .expect("registered");
    println!("\npeer {} {}", hex(&fabric.address()), hex(&region.remote().0));
    std::io::stdout().flush().expect("a pipe");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("a pipe");
    fabric.add_peer(PeerId(0), &unhex(&line)).expect("an address");
    let _ = std::io::stdin().read_line(&mut line); // Until the pipe closes, at the latest.
}

fn check(lane: Lane, role: &str) {
    if let Err(reason) = ready() {
        return println!("skipped 1: a killed process: {reason}");
    }
    let own = std::env::current_exe().expect("this program");
    let mut child = Command::new(own)
        .args(["common::outside::peer", "--exact", "--ignored", "--nocapture"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program starts");
    let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = lines
        .map_while(Result::ok)
        .find(|line| line.starts_with("peer "))
        .expect("the peer says where it is");
    let words: Vec<&str> = line.split(' ').collect();
    let fabric = start(options(0, lane));
    fabric.add_peer(PeerId(1), &unhex(words[1])).expect("an address");
    let stdin = child.stdin.as_mut().expect("a pipe");
    writeln!(stdin, "{}", hex(&fabric.address())).expect("the peer lives");
    let buffer = Arc::new(Buffer::zeroed(LEN));
    let own = fabric.register(buffer.clone(), Access::ALL).expect("registered");
    let theirs = RemoteKey(unhex(words[2]).into());
    let post = |op: u64| {
        let far = RemoteSlice {
            region: theirs.clone(),
            offset: 0,
            len: LEN as u64,
        };
        let near = LocalSlice {
            region: own.clone(),
            offset: 0,
            len: LEN as u64,
        };
        if op.is_multiple_of(2) {
            fabric.write(OpId(op), PeerId(1), near, far)
        } else {
            fabric.read(OpId(op), PeerId(1), far, near)
        }
    };
    assert_eq!(post(1), Posted::Accepted);
    assert_eq!(
        until(&*fabric, "read", |news| !news.is_empty()),
        [Completion::Done { op: OpId(1) }]
    );
    assert!(buffer.bytes(0, LEN) == vec![7; LEN], "the read gave other bytes");
    for op in 2..12 {
        assert_eq!(post(op), Posted::Accepted);
    }
    child.kill().expect("it lives");
    child.wait().expect("it is gone");
    let ended = |news: &[Completion]| {
        news.iter()
            .filter(|n| matches!(n, Completion::Done { .. } | Completion::Failed { .. }))
            .count()
    };
    let news = until(&*fabric, "loss", |news| is_lost(news) && ended(news) == 10);
    for news in &news {
        let fine = matches!(
            news,
            Completion::Done { .. }
                | Completion::Failed {
                    reason: Reason::PeerLost(_),
                    ..
                }
                | Completion::PeerLost { .. }
        );
        assert!(fine, "{news:?}");
    }
    assert_eq!(post(12), Posted::Accepted);
    let news = until(&*fabric, "refusal", |news| !news.is_empty());
    assert!(
        matches!(
            news[..],
            [Completion::Failed {
                reason: Reason::PeerLost(_),
                ..
            }]
        ),
        "{news:?}"
    );
    fabric.deregister(&own);
}

#[test]
fn a_process_killed_over_tcp_is_lost_and_fails_what_is_pending() {
    check(Lane::Tcp, "tcp");
}

#[test]
fn a_process_killed_over_shared_memory_is_lost_and_fails_what_is_pending() {
    check(Lane::SharedMemory, "shared memory");
}

/// A fabric of another run, as far as keys go.
fn stranger(lane: Lane) -> Arc<UcxFabric> {
    let library = super::library().expect("asked only where it is there");
    let mut strange = bridgehead_ucx::Options::new(1, [43; 32], vec![library]);
    strange.timeout = Duration::from_millis(500);
    let ours = options(1, lane);
    (strange.transports, strange.devices) = (ours.transports, ours.devices);
    start(strange)
}

#[test]
fn who_does_not_know_the_key_gets_no_answer_and_no_memory_key() {
    if let Err(reason) = ready() {
        return println!("skipped 1: a stranger: {reason}");
    }
    let (honest, strange) = (start(options(0, Lane::Tcp)), stranger(Lane::Tcp));
    let region = honest
        .register(Arc::new(Buffer::from_bytes(vec![7; 100])), Access::ALL)
        .expect("registered");
    strange.add_peer(PeerId(0), &honest.address()).expect("an address");
    let buffer = Arc::new(Buffer::zeroed(100));
    let own = strange.register(buffer.clone(), Access::ALL).expect("registered");
    assert_eq!(
        strange.send(PeerId(0), Bytes::from_static(b"let me in")),
        Posted::Accepted
    );
    let (far, near) = (
        RemoteSlice {
            region: region.remote(),
            offset: 0,
            len: 100,
        },
        LocalSlice {
            region: own,
            offset: 0,
            len: 100,
        },
    );
    assert_eq!(strange.read(OpId(1), PeerId(0), far, near), Posted::Accepted);
    let news = until(&*strange, "end of the read", |news| news.len() >= 2);
    assert!(
        matches!(
            news[0],
            Completion::Failed {
                op: OpId(1),
                reason: Reason::TimedOut(_)
            }
        ),
        "{news:?}"
    );
    assert_eq!(buffer.bytes(0, 100), [0; 100]);
    let mut heard = Vec::new();
    honest.poll(&mut heard);
    assert_eq!(heard, [], "the stranger's message was not given to anybody");
}
