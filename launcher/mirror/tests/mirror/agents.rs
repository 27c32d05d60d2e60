//! Laws of an agent's side: files whole or not at all, logs once, a head that is away.

use crate::harness::{Bench, LIFE, LIMIT, Numbers, wait_until};
use bridgehead_mirror::Remote;
use bridgehead_spec::RunFolder;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

fn local() -> (TempDir, RunFolder) {
    let dir = TempDir::new().unwrap();
    std::fs::create_dir(dir.path().join("logs")).unwrap();
    std::fs::create_dir(dir.path().join("results")).unwrap();
    let folder = RunFolder::new(dir.path());
    (dir, folder)
}

fn append(path: &Path, text: &[u8]) {
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(text).unwrap();
}

#[test]
fn results_and_blobs_go_both_ways() {
    let bench = Bench::new();
    let (dir, folder) = local();
    let remote = bench.remote();
    let large: Vec<u8> = (0..=255).cycle().take(3 << 20).collect();
    bench.write("blobs/code", &large);
    remote.bring(&folder, Path::new("blobs/code")).unwrap();
    assert!(std::fs::read(dir.path().join("blobs/code")).unwrap() == large);
    bench.write("blobs/code", "other");
    remote.bring(&folder, Path::new("blobs/code")).unwrap(); // It is there.
    assert!(std::fs::read(dir.path().join("blobs/code")).unwrap() == large);
    std::fs::write(dir.path().join("results/7.bhv"), &large).unwrap();
    for _ in 0..2 {
        remote.send(&folder, Path::new("results/7.bhv")).unwrap();
        assert!(bench.read("results/7.bhv") == large);
    }
    std::fs::write(dir.path().join("results/empty"), "").unwrap();
    remote.send(&folder, Path::new("results/empty")).unwrap();
    assert_eq!(bench.read("results/empty"), b"");
}

#[test]
fn what_cannot_be_is_said_at_once() {
    let bench = Bench::new();
    let (_dir, folder) = local();
    let remote = bench.remote();
    let absent = remote.bring(&folder, Path::new("results/none")).unwrap_err();
    assert_eq!(absent.kind(), ErrorKind::NotFound);
    assert!(absent.to_string().contains("results/none"), "{absent}");
    assert_eq!(
        remote.send(&folder, Path::new("results/none")).unwrap_err().kind(),
        ErrorKind::NotFound
    );
    for path in ["results/../run.json", "/etc/passwd", "journal/1", "logs/a", "results"] {
        assert_eq!(
            remote.bring(&folder, Path::new(path)).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{path}"
        );
        assert_eq!(
            remote.send(&folder, Path::new(path)).unwrap_err().kind(),
            ErrorKind::InvalidInput,
            "{path}"
        );
    }
    let old = Remote::new(vec![bench.service().address().to_string()], &bench.agent, "life-0").unwrap();
    let error = old.ticket(1, LIMIT).unwrap_err().to_string();
    assert!(error.contains("life-0") && error.contains(LIFE), "{error}");
}

#[test]
fn a_refusal_is_heard_also_while_much_is_being_sent() {
    let bench = Bench::new();
    let (dir, folder) = local();
    std::fs::write(dir.path().join("results/1"), vec![7; 8 << 20]).unwrap();
    let old = Remote::new(vec![bench.service().address().to_string()], &bench.agent, "life-0").unwrap();
    for _ in 0..20 {
        let error = old.send(&folder, Path::new("results/1")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}

#[test]
fn tickets_and_bundles_are_waited_for() {
    let bench = Bench::new();
    let remote = bench.remote();
    let early = remote.ticket(1, Duration::from_millis(1)).unwrap_err();
    assert_eq!(early.kind(), ErrorKind::TimedOut);
    assert!(early.to_string().contains("ticket of agent 1"), "{early}");
    std::thread::scope(|scope| {
        let ticket = scope.spawn(|| remote.ticket(1, LIMIT));
        let bundle = scope.spawn(|| remote.bundle(LIMIT));
        let written = bench.ticket(1);
        let path = bench.dir.path().join("made.tar.gz");
        std::fs::write(&path, "bundle").unwrap();
        bench.mirror().upload_bundle(&path).unwrap();
        assert_eq!(ticket.join().unwrap().unwrap(), written);
        assert_eq!(bundle.join().unwrap().unwrap(), b"bundle");
    });
}

#[test]
fn a_head_that_is_away_for_a_while_costs_time_only() {
    let mut bench = Bench::silent();
    bench.write("results/1", "value");
    let (dir, folder) = local();
    let away = TcpListener::bind("127.0.0.2:0").unwrap(); // Where no other case gets the port meanwhile.
    let address = away.local_addr().unwrap();
    let remote = bench.remote_at(address);
    let brings = std::thread::spawn(move || remote.bring(&folder, Path::new("results/1")).map(|()| remote));
    drop(away.accept().unwrap()); // The first try has come to nothing.
    drop(away);
    bench.start(address);
    let remote = brings.join().unwrap().unwrap();
    assert_eq!(std::fs::read(dir.path().join("results/1")).unwrap(), b"value");
    // A connection that was kept is stale once the head was started again.
    bench.service.take().unwrap().stop();
    bench.start(address);
    bench.write("results/2", "other");
    remote
        .bring(&RunFolder::new(dir.path()), Path::new("results/2"))
        .unwrap();
    assert_eq!(std::fs::read(dir.path().join("results/2")).unwrap(), b"other");
}

#[test]
fn a_head_that_stays_away_is_given_up_with_the_reason() {
    let bench = Bench::silent();
    let (_dir, folder) = local();
    let unused = TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let remote = bench.remote_at(unused).with_patience(Duration::from_secs(1));
    let error = remote.bring(&folder, Path::new("results/1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    let text = error.to_string();
    assert!(
        text.contains("attempts in 1s")
            && !text.contains("after 1 attempts")
            && text.contains(&unused.to_string())
            && text.contains("results/1"),
        "{text}"
    );
}

#[test]
fn logs_grow_at_the_head_as_they_grow_here_and_the_end_is_told() {
    let bench = Bench::new();
    let (dir, folder) = local();
    let remote = Arc::new(bench.remote());
    let log = dir.path().join("logs/tasks-1.jsonl");
    append(&log, b"one\n");
    let shipping = remote.ship_logs(&folder, 1).unwrap();
    wait_until("the first line comes", || {
        bench.dir.path().join("logs/tasks-1.jsonl").exists()
    });
    assert_eq!(bench.service().agents_done(), 0);
    append(&log, b"two\n");
    append(&dir.path().join("logs/late.log"), &vec![b'x'; 3 << 20]);
    shipping.finish().unwrap();
    assert_eq!(bench.read("logs/tasks-1.jsonl"), b"one\ntwo\n");
    assert!(bench.read("logs/late.log") == vec![b'x'; 3 << 20]);
    assert!(bench.service().wait_done(1, Duration::ZERO));
}

#[test]
fn an_agent_that_is_started_again_doubles_no_line() {
    let bench = Bench::new();
    bench.write("logs/agent-1.log", "of an earlier node\n");
    let (dir, folder) = local();
    let remote = Arc::new(bench.remote());
    let log = dir.path().join("logs/agent-1.log");
    append(&log, b"one\n");
    remote.ship_logs(&folder, 1).unwrap().finish().unwrap();
    append(&log, b"two\n");
    remote.ship_logs(&folder, 1).unwrap().finish().unwrap();
    assert_eq!(bench.read("logs/agent-1.log"), b"of an earlier node\none\ntwo\n");
    // The head has another folder now: it gets what there is.
    std::fs::remove_file(bench.dir.path().join("logs/agent-1.log")).unwrap();
    remote.ship_logs(&folder, 1).unwrap().finish().unwrap();
    assert_eq!(bench.read("logs/agent-1.log"), b"one\ntwo\n");
}

#[test]
fn a_shipper_that_is_dropped_ends_without_a_word() {
    let bench = Bench::new();
    let (_dir, folder) = local();
    let remote = Arc::new(bench.remote());
    drop(remote.ship_logs(&folder, 1).unwrap());
    assert_eq!(bench.service().agents_done(), 0);
}

/// A way to `to` on which each connection is cut after some bytes, in whichever direction; gives its address and counts cuts.
fn cutting_way(to: SocketAddr) -> (SocketAddr, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let cuts = Arc::new(AtomicU64::new(0));
    let counted = cuts.clone();
    std::thread::spawn(move || {
        let mut numbers = Numbers(0x5eed);
        for stream in listener.incoming() {
            let (Ok(near), Ok(far)) = (stream, TcpStream::connect(to)) else {
                return;
            };
            let budget = 4_000 + numbers.below(200_000);
            for (mut from, mut into) in [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)] {
                let counted = counted.clone();
                std::thread::spawn(move || {
                    let (mut left, mut bytes) = (budget, [0; 4096]);
                    while let Ok(n @ 1..) = from.read(&mut bytes) {
                        if left < n as u64 {
                            counted.fetch_add(1, Ordering::Relaxed);
                            break;
                        }
                        left -= n as u64;
                        if into.write_all(&bytes[..n]).is_err() {
                            break;
                        }
                    }
                    let _ = (from.shutdown(Shutdown::Both), into.shutdown(Shutdown::Both));
                });
            }
        }
    });
    (address, cuts)
}

#[test]
fn whenever_the_connection_is_cut_logs_arrive_once_and_results_whole() {
    let bench = Bench::new();
    let (address, cuts) = cutting_way(bench.service().address());
    let remote = Arc::new(bench.remote_at(address));
    let (dir, folder) = local();
    let shipping = remote.ship_logs(&folder, 2).unwrap();
    let mut numbers = Numbers(11);
    for round in 0..20 {
        for log in ["a.log", "b.log"] {
            let text: String = (0..numbers.below(400)).map(|n| format!("{round} {n}\n")).collect();
            append(&dir.path().join("logs").join(log), text.as_bytes());
        }
        let name = format!("results/{round}");
        let value: Vec<u8> = (0..numbers.below(60_000)).map(|n| n as u8).collect();
        std::fs::write(dir.path().join(&name), &value).unwrap();
        remote.send(&folder, Path::new(&name)).unwrap();
        assert!(bench.read(&name) == value, "{name}");
    }
    shipping.finish().unwrap();
    for log in ["logs/a.log", "logs/b.log"] {
        assert!(bench.read(log) == std::fs::read(dir.path().join(log)).unwrap(), "{log}");
    }
    assert!(cuts.load(Ordering::Relaxed) > 0, "no connection was cut");
    assert!(bench.service().wait_done(1, Duration::ZERO));
}
