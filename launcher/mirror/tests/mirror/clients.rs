//! Laws of a mirror: what is in it after a pull, in which order it comes, and a head that lies.

use crate::harness::{Bench, LIMIT, Numbers, mirror, tree};
use bridgehead_mirror::{ALPN_FOLDER, Mirror, Pulled, Wanted};
use bridgehead_spec::RunFolder;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

const ALL: Wanted = Wanted { results: true };

fn local() -> (TempDir, RunFolder) {
    let dir = TempDir::new().unwrap();
    let folder = RunFolder::new(dir.path());
    (dir, folder)
}

#[test]
fn a_second_pull_changes_nothing() {
    let bench = Bench::new();
    for (name, text) in [
        ("journal/000001.bhj", "records"),
        ("logs/head.log", "lines"),
        ("logs/empty.log", ""),
        ("results/1.bhv", "value"),
        ("status.json", "{}"),
        ("head.json", "{\"pid\":1}"),
    ] {
        bench.write(name, text);
    }
    let (dir, folder) = local();
    let mirror = bench.mirror();
    let first = mirror.pull(&folder, ALL).unwrap();
    assert_eq!((first.files, first.bytes, first.complete), (6, 7 + 5 + 5 + 2 + 9, true));
    let before = tree(dir.path());
    assert_eq!(before, tree(bench.dir.path()));
    let nothing = Pulled {
        complete: true,
        ..Pulled::default()
    };
    assert_eq!(mirror.pull(&folder, ALL).unwrap(), nothing);
    assert_eq!(tree(dir.path()), before);
}

#[test]
fn results_come_when_they_are_wanted_and_their_lack_is_told() {
    let bench = Bench::new();
    bench.write("results/1.bhv", "value");
    bench.write("journal/000001.bhj", "records");
    let (dir, folder) = local();
    let mirror = bench.mirror();
    assert!(!mirror.pull(&folder, Wanted::default()).unwrap().complete);
    assert!(!dir.path().join("results/1.bhv").exists());
    assert!(mirror.pull(&folder, ALL).unwrap().complete);
    assert!(mirror.pull(&folder, Wanted::default()).unwrap().complete);
}

#[test]
fn whatever_grows_shrinks_or_is_replaced_the_mirror_follows() {
    for seed in 1..=8 {
        let bench = Bench::new();
        let (dir, folder) = local();
        let (one, other) = (bench.mirror(), bench.mirror());
        let mut numbers = Numbers(seed * 7919);
        for step in 0..60 {
            let name = format!(
                "{}/{}",
                ["journal", "logs"][numbers.below(2) as usize],
                numbers.below(3)
            );
            let path = bench.dir.path().join(name);
            match numbers.below(8) {
                0..3 => {
                    let text = format!("{step} ").repeat(1 + numbers.below(9000) as usize);
                    let mut file = std::fs::OpenOptions::new()
                        .append(true)
                        .create(true)
                        .open(path)
                        .unwrap();
                    file.write_all(text.as_bytes()).unwrap();
                }
                3 if path.exists() => {
                    let len = std::fs::metadata(&path).unwrap().len();
                    let shorter = format!("{step}").into_bytes();
                    std::fs::write(&path, &shorter[..shorter.len().min(len as usize / 2)]).unwrap();
                }
                4 => bench.write(
                    &format!("results/{step}"),
                    vec![step as u8; numbers.below(100_000) as usize],
                ),
                5 => bench.write("status.json", format!("{{\"step\":{step}}}")),
                _ => drop([&one, &other][numbers.below(2) as usize].pull(&folder, ALL).unwrap()),
            }
            // A file that shrank and grew beyond its old length between two pulls cannot be told from one that grew.
            one.pull(&folder, ALL).unwrap();
        }
        assert!(other.pull(&folder, ALL).unwrap().complete);
        assert!(tree(dir.path()) == tree(bench.dir.path()), "seed {seed}");
    }
}

#[test]
fn two_pulls_at_once_into_one_mirror_do_no_harm() {
    let bench = Bench::new();
    let (dir, folder) = local();
    let stop = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let _end = Raise(&stop, 1);
        for _ in 0..2 {
            scope.spawn(|| {
                let mirror = bench.mirror();
                while stop.load(Ordering::Relaxed) == 0 {
                    mirror.pull(&folder, ALL).unwrap();
                }
            });
        }
        let path = bench.dir.path().join("journal/1");
        let mut journal = std::fs::File::create(path).unwrap();
        for n in 0..3000 {
            writeln!(journal, "record {n}").unwrap();
        }
    });
    bench.mirror().pull(&folder, ALL).unwrap();
    assert!(tree(dir.path()) == tree(bench.dir.path()));
}

#[test]
fn no_record_is_in_a_mirror_before_its_result_nor_a_status_before_its_record() {
    let bench = Bench::new();
    let (dir, folder) = local();
    let goal = AtomicU64::new(1); // The head goes on while a pull is under way, and no further.
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut journal = std::fs::File::create(bench.dir.path().join("journal/1")).unwrap();
            for n in 0..600 {
                while goal.load(Ordering::Relaxed) <= n {
                    std::thread::yield_now();
                }
                bench.write(&format!("results/{n}"), "value");
                writeln!(journal, "{n}").unwrap();
                let part = bench.dir.path().join("status.part");
                std::fs::write(&part, format!("{n}")).unwrap();
                std::fs::rename(part, bench.dir.path().join("status.json")).unwrap();
            }
        });
        let _end = Raise(&goal, u64::MAX);
        let mirror = bench.mirror();
        let mut seen = 0;
        for pull in 1..=60 {
            goal.store(pull * 10, Ordering::Relaxed);
            mirror.pull(&folder, ALL).unwrap();
            let journal = std::fs::read_to_string(dir.path().join("journal/1")).unwrap_or_default();
            let whole = &journal[..journal.rfind('\n').map_or(0, |at| at + 1)];
            let records: Vec<u64> = whole.lines().map(|line| line.parse().unwrap()).collect();
            for n in &records {
                assert!(dir.path().join(format!("results/{n}")).exists(), "record {n}");
            }
            if let Ok(status) = std::fs::read_to_string(dir.path().join("status.json")) {
                let status: u64 = status.parse().unwrap();
                assert!(
                    records.contains(&status),
                    "status {status} of {} records",
                    records.len()
                );
                seen = status;
            }
        }
        assert!(seen > 0, "nothing was seen");
    });
}

/// Raises a number at its end, also where a case fails, so that no thread waits for ever.
struct Raise<'a>(&'a AtomicU64, u64);

impl Drop for Raise<'_> {
    fn drop(&mut self) {
        self.0.store(self.1, Ordering::Relaxed);
    }
}

#[test]
fn requests_reach_the_mailbox_and_nothing_else_is_pushed() {
    let bench = Bench::new();
    let (dir, folder) = local();
    std::fs::create_dir(dir.path().join("mailbox")).unwrap();
    std::fs::write(dir.path().join("mailbox/1.json"), "{}").unwrap();
    let mirror = bench.mirror();
    mirror.push(&folder, Path::new("mailbox/1.json")).unwrap();
    assert_eq!(bench.read("mailbox/1.json"), b"{}");
    for path in ["results/1", "mailbox/../run.json", "mailbox/2.json"] {
        assert!(mirror.push(&folder, Path::new(path)).is_err(), "{path}");
    }
    assert!(!bench.service().wait_collected(Duration::ZERO));
    mirror.collected().unwrap();
    assert!(bench.service().wait_collected(LIMIT));
}

#[test]
fn a_mirror_works_over_a_stream_that_somebody_else_has_made() {
    let bench = Bench::new();
    bench.write("logs/head.log", vec![b'x'; 1 << 20]);
    let (ours, theirs) = UnixStream::pair().unwrap();
    let far = TcpStream::connect(bench.service().address()).unwrap();
    let (mut up, mut down) = ((theirs.try_clone().unwrap(), far.try_clone().unwrap()), (far, theirs));
    let threads = [
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut up.0, &mut up.1);
            let _ = up.1.shutdown(std::net::Shutdown::Both);
        }),
        std::thread::spawn(move || drop(std::io::copy(&mut down.0, &mut down.1))),
    ];
    let (dir, folder) = local();
    let mirror = Mirror::connect(ours, &bench.client).unwrap();
    assert!(mirror.pull(&folder, ALL).unwrap().complete);
    assert_eq!(tree(dir.path()), tree(bench.dir.path()));
    drop(mirror);
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn an_agent_s_certificate_opens_no_mirror() {
    let bench = Bench::new();
    bench.write("logs/head.log", "x");
    let (dir, folder) = local();
    let error = mirror(&bench.agent, bench.service().address())
        .unwrap()
        .pull(&folder, ALL)
        .unwrap_err()
        .to_string();
    assert!(error.contains("life"), "{error}"); // An agent says which life it is of, before anything else.
    assert_eq!(tree(dir.path()), []);
}

/// A head that answers each path with what `say` has for it: status line, headers and body.
fn lying_head(bench: &Bench, say: fn(&str) -> String) -> SocketAddr {
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(pem(&bench.head.authority)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
        .build()
        .unwrap();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![pem(&bench.head.certificate)],
            PrivateKeyDer::from_pem_slice(bench.head.key.as_bytes()).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![ALPN_FOLDER.to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        let mut stream = StreamOwned::new(ServerConnection::new(Arc::new(config)).unwrap(), socket);
        let mut head = Vec::new();
        let mut byte = [0];
        while let Ok(1) = stream.read(&mut byte) {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8(std::mem::take(&mut head)).unwrap();
                let path = text.split(' ').nth(1).unwrap();
                stream.write_all(say(path).as_bytes()).unwrap();
            }
        }
    });
    address
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nbridgehead-folder: lies\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

const NONE: &str = "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

#[test]
fn paths_that_a_head_names_lead_nowhere() {
    let bench = Bench::silent();
    let address = lying_head(&bench, |path| match path {
        "/v1/files" => {
            let names = [
                "../evil",
                "/evil",
                "results/../evil",
                "tls/evil",
                "results/.evil",
                "blobs/evil",
                "mailbox/evil",
            ];
            let line = |name: &&str| format!("{{\"path\":\"{name}\",\"size\":3,\"kind\":\"once\"}}");
            ok(&format!("[{}]", names.iter().map(line).collect::<Vec<_>>().join(",")))
        }
        "/v1/files/status.json" | "/v1/files/head.json" => NONE.to_owned(),
        _ => "HTTP/1.1 206 Partial Content\r\ncontent-length: 3\r\n\r\nbad".to_owned(),
    });
    let outer = TempDir::new().unwrap();
    let inside = outer.path().join("mirror");
    std::fs::create_dir(&inside).unwrap();
    let pulled = mirror(&bench.client, address)
        .unwrap()
        .pull(&RunFolder::new(&inside), ALL)
        .unwrap();
    assert_eq!((pulled.files, pulled.bytes), (0, 0));
    assert_eq!(tree(outer.path()), []);
}

#[test]
fn a_head_that_sends_more_or_something_else_is_refused() {
    for (say, word) in [
        ((|_| ok("no list")) as fn(&str) -> String, "not valid"),
        (
            |path| match path {
                "/v1/files" => ok("[{\"path\":\"results/1\",\"size\":1,\"kind\":\"once\"}]"),
                "/v1/files/results/1" => "HTTP/1.1 206 Partial Content\r\ncontent-length: 3\r\n\r\nbad".to_owned(),
                _ => NONE.to_owned(),
            },
            "more of results/1",
        ),
        (
            |path| match path {
                "/v1/files" => ok("[{\"path\":\"journal/1\",\"size\":9,\"kind\":\"append\"}]"),
                "/v1/files/journal/1" => ok("123456789"), // Not the range that was asked for.
                _ => NONE.to_owned(),
            },
            "200 OK",
        ),
    ] {
        let bench = Bench::silent();
        let address = lying_head(&bench, say);
        let (dir, folder) = local();
        let error = mirror(&bench.client, address)
            .unwrap()
            .pull(&folder, ALL)
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
        assert!(
            tree(dir.path())
                .iter()
                .all(|(_, text)| text.is_empty() || text == b"no list")
        );
    }
}

#[test]
fn a_folder_that_was_begun_anew_leaves_nothing_of_the_one_before() {
    let bench = Bench::new();
    bench.write("journal/000001.bhj", "old records");
    bench.write("results/1.bhv", "old value");
    let (dir, folder) = local();
    std::fs::create_dir_all(dir.path().join("launches")).unwrap();
    std::fs::write(dir.path().join("launches/1.json"), "the client's own").unwrap();
    bench.mirror().pull(&folder, ALL).unwrap();
    // Its own service is told by its certificate; what is compared is the folder behind it.
    let anew = Bench {
        head: bench.head.clone(),
        agent: bench.agent.clone(),
        client: bench.client.clone(),
        ..Bench::silent()
    };
    let mut anew = anew;
    anew.start("127.0.0.1:0".parse().unwrap());
    anew.write("journal/000001.bhj", "new records, longer than before");
    anew.mirror().pull(&folder, ALL).unwrap();
    let here = |name: &str| std::fs::read_to_string(dir.path().join(name)).ok();
    assert_eq!(
        here("journal/000001.bhj").as_deref(),
        Some("new records, longer than before")
    );
    assert_eq!(here("results/1.bhv"), None);
    assert_eq!(here("launches/1.json").as_deref(), Some("the client's own"));
}
