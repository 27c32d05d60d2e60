//! Laws of what is answered: to whom, for what, and what a peer that is cut off leaves.

use crate::harness::{Answer, Authority, Bench, LIFE, dial, tree, wait_until};
use bridgehead_mirror::ALPN_FOLDER;
use std::io::{Read, Write};
use std::time::Duration;

fn check(answer: &Answer, status: u16, word: &str) {
    assert_eq!(answer.status, status, "{} {}", answer.head, answer.text());
    assert!(answer.text().contains(word), "{}", answer.text());
}

#[test]
fn a_stranger_and_another_protocol_get_no_answer() {
    let bench = Bench::new();
    bench.write("status.json", "{}");
    let stranger = Authority::new().issue("client");
    let forged = bridgehead_mirror::Credentials {
        authority: bench.client.authority.clone(), // It believes our head; our head does not believe it.
        ..stranger
    };
    for (who, alpn) in [
        (&forged, ALPN_FOLDER),
        (&bench.client, &b"bridgehead-client/1"[..]),
        (&bench.client, b""),
    ] {
        let mut stream = dial(who, alpn, bench.service().address());
        let asked = stream.write_all(b"GET /v1/files HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n");
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(bytes.is_empty(), "{asked:?} {}", String::from_utf8_lossy(&bytes));
    }
    check(&bench.client_asks("GET /v1/files", "", b""), 200, "status.json");
}

#[test]
fn a_certificate_is_good_for_one_role() {
    let bench = Bench::new();
    bench.ticket(1);
    for name in [
        "journal/1",
        "logs/1",
        "results/1",
        "blobs/1",
        "mailbox/1",
        "status.json",
    ] {
        bench.write(name, "text");
    }
    let before = tree(bench.dir.path());
    for line in [
        "GET /v1/files",
        "GET /v1/files/journal/1",
        "GET /v1/files/logs/1",
        "GET /v1/files/mailbox/1",
        "GET /v1/files/status.json",
        "PUT /v1/files/mailbox/2",
        "PUT /v1/files/journal/1",
        "PUT /v1/files/status.json",
        "PUT /v1/bundle",
        "POST /v1/collected",
    ] {
        check(&bench.agent_asks(line, "", b""), 403, "not for an agent");
    }
    for line in [
        "GET /v1/tickets/1",
        "GET /v1/bundle",
        "GET /v1/files/blobs/1",
        "GET /v1/files/mailbox/1",
        "PUT /v1/files/results/1",
        "PUT /v1/files/logs/1",
        "PUT /v1/files/blobs/1",
        "PUT /v1/files/journal/2",
        "POST /v1/done",
    ] {
        check(&bench.client_asks(line, "", b""), 403, "not for the client");
    }
    assert_eq!(bench.client_asks("HEAD /v1/files/logs/1", "", b"").status, 403);
    check(&bench.client_asks("DELETE /v1/files/results/1", "", b""), 405, "DELETE");
    check(&bench.client_asks("GET /v2/files", "", b""), 404, "/v1/");
    check(&bench.client_asks("GET /v1/secrets", "", b""), 404, "no such thing");
    assert_eq!(tree(bench.dir.path()), before);
}

#[test]
fn no_path_leads_out_of_the_folders_that_travel() {
    let bench = Bench::new();
    bench.write("run.json", "{}");
    bench.ticket(1);
    let before = tree(
        bench
            .dir
            .path()
            .parent()
            .unwrap()
            .join(bench.dir.path().file_name().unwrap())
            .as_path(),
    );
    for path in [
        "results/../run.json",
        "results/%2e%2e/run.json",
        "results/..",
        "results/a/b",
        "results/.hidden",
        "results/x.part",
        "tls/agent-1.json",
        "run.json",
        "/etc/passwd",
        "results//x",
        "../x",
        "bundle.tar.gz",
        "results/a%20b",
    ] {
        check(&bench.agent_asks(&format!("PUT /v1/files/{path}"), "", b"x"), 403, "");
        check(&bench.agent_asks(&format!("GET /v1/files/{path}"), "", b""), 403, "");
        check(&bench.client_asks(&format!("GET /v1/files/{path}"), "", b""), 403, "");
    }
    assert_eq!(tree(bench.dir.path()), before);
}

#[test]
fn links_in_the_folder_are_followed_nowhere() {
    let bench = Bench::new();
    let outside = tempfile::TempDir::new().unwrap();
    std::fs::write(outside.path().join("secret"), "s").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), bench.dir.path().join("results/link")).unwrap();
    std::fs::remove_dir(bench.dir.path().join("blobs")).unwrap();
    std::os::unix::fs::symlink(outside.path(), bench.dir.path().join("blobs")).unwrap();
    check(&bench.agent_asks("GET /v1/files/results/link", "", b""), 403, "");
    check(&bench.agent_asks("GET /v1/files/blobs/secret", "", b""), 403, "");
    check(&bench.agent_asks("PUT /v1/files/blobs/new", "", b"x"), 403, "");
    check(&bench.client_asks("GET /v1/files", "", b""), 200, "[]");
    assert_eq!(tree(outside.path()).len(), 1);
}

#[test]
fn agents_of_another_life_take_no_part() {
    let bench = Bench::new();
    bench.ticket(1);
    let old = "bridgehead-life: life-0\r\n";
    for line in [
        "GET /v1/tickets/1",
        "GET /v1/bundle",
        "PUT /v1/files/results/1",
        "POST /v1/done",
    ] {
        let answer = bench.client_asks_as_agent(line, old);
        check(&answer, 409, "life-0");
        check(&answer, 409, LIFE);
        check(&bench.client_asks_as_agent(line, ""), 409, LIFE);
    }
    assert_eq!(bench.service().agents_done(), 0);
}

impl Bench {
    /// An agent that says these headers and no life by itself.
    fn client_asks_as_agent(&self, line: &str, headers: &str) -> Answer {
        let mut stream = dial(&self.agent, ALPN_FOLDER, self.service().address());
        let head = format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}content-length: 1\r\n\r\n1");
        stream.write_all(head.as_bytes()).unwrap();
        crate::harness::answer(&mut stream)
    }
}

#[test]
fn a_ticket_is_of_this_head_or_there_is_none_yet() {
    let mut bench = Bench::silent();
    bench.ticket(1); // Of an earlier head.
    bench.write("tls/client.json", "{}");
    bench.start("127.0.0.1:0".parse().unwrap());
    assert!(bench.dir.path().join("tls/client.json").exists());
    let early = bench.agent_asks("GET /v1/tickets/1", "", b"");
    check(&early, 404, "yet");
    assert!(early.head.contains("retry-after"), "{}", early.head);
    let ticket = bench.ticket(1);
    let there = bench.agent_asks("GET /v1/tickets/1", "", b"");
    assert_eq!(there.body, serde_json::to_vec(&ticket).unwrap());
    for rank in ["4", "-1", "x", "", "1/2", "99999999999"] {
        check(
            &bench.agent_asks(&format!("GET /v1/tickets/{rank}"), "", b""),
            400,
            "below 4",
        );
    }
}

#[test]
fn an_append_that_comes_twice_counts_once() {
    let bench = Bench::new();
    let range = |from: u64, to: u64| format!("content-range: bytes {from}-{to}/*\r\n");
    check(&bench.agent_asks("PUT /v1/files/logs/a", &range(0, 2), b"abc"), 204, "");
    let again = bench.agent_asks("PUT /v1/files/logs/a", &range(0, 2), b"abc");
    check(&again, 409, "3 bytes");
    assert!(again.head.contains("bridgehead-length: 3"), "{}", again.head);
    check(&bench.agent_asks("PUT /v1/files/logs/a", &range(7, 9), b"abc"), 409, "");
    check(&bench.agent_asks("PUT /v1/files/logs/a", &range(3, 4), b"de"), 204, "");
    for headers in [
        "",
        "content-range: bytes 5-9/*\r\n",
        "content-range: bytes 5-5/6\r\n",
        "content-range: x\r\n",
    ] {
        check(&bench.agent_asks("PUT /v1/files/logs/a", headers, b"f"), 400, "N-M");
    }
    assert_eq!(bench.read("logs/a"), b"abcde");
    let len = bench.agent_asks("HEAD /v1/files/logs/a", "", b"");
    assert!(
        len.status == 200 && len.head.contains("content-length: 5"),
        "{}",
        len.head
    );
    assert_eq!(bench.agent_asks("HEAD /v1/files/logs/none", "", b"").status, 404);
}

#[test]
fn absurd_sizes_are_refused_before_a_byte_is_taken() {
    let bench = Bench::new();
    let huge = format!("content-length: {}\r\n", 1_u64 << 50);
    check(&bench.agent_asks("PUT /v1/files/results/1", &huge, b""), 413, "limit");
    let append = format!("{huge}content-range: bytes 0-{}/*\r\n", (1_u64 << 50) - 1);
    check(&bench.agent_asks("PUT /v1/files/logs/1", &append, b""), 413, "limit");
    check(
        &bench.client_asks("PUT /v1/files/mailbox/1.json", &huge, b""),
        413,
        "limit",
    );
    check(&bench.client_asks("PUT /v1/bundle", &huge, b""), 413, "limit");
    let unsaid = "transfer-encoding: chunked\r\nx-no-length: 1\r\n";
    check(
        &bench.agent_asks("PUT /v1/files/results/1", unsaid, b"0\r\n\r\n"),
        411,
        "before",
    );
    let long = format!("x: {}\r\n", "y".repeat(100_000));
    let refused = bench.client_asks("GET /v1/files", &long, b"");
    assert!((400..500).contains(&refused.status), "{}", refused.head);
    assert_eq!(tree(bench.dir.path()), []);
}

#[test]
fn what_is_torn_never_has_a_name() {
    let bench = Bench::new();
    for (what, name, who) in [
        ("files/results/1", "results", &bench.agent),
        ("bundle", "", &bench.client),
    ] {
        let mut stream = dial(who, ALPN_FOLDER, bench.service().address());
        let head =
            format!("PUT /v1/{what} HTTP/1.1\r\nhost: h\r\nbridgehead-life: {LIFE}\r\ncontent-length: 1000000\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[7; 300_000]).unwrap();
        stream.flush().unwrap();
        let parts = || {
            let entries = std::fs::read_dir(bench.dir.path().join(name)).unwrap();
            entries
                .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".incoming"))
                .count()
        };
        wait_until("the part is there", || parts() == 1);
        check(&bench.client_asks("GET /v1/files", "", b""), 200, "[]");
        drop(stream); // No farewell: the connection is torn.
        wait_until("the part is gone", || parts() == 0);
    }
    assert_eq!(tree(bench.dir.path()), []);
    assert!(bench.service().wait_bundle(Duration::ZERO).is_none());
}

#[test]
fn files_are_read_from_where_one_was() {
    let bench = Bench::new();
    bench.write("journal/1", "0123456789");
    let ask = |range: &str| bench.client_asks("GET /v1/files/journal/1", &format!("range: {range}\r\n"), b"");
    check(
        &bench.client_asks("GET /v1/files/journal/1", "", b""),
        200,
        "0123456789",
    );
    let rest = ask("bytes=7-");
    assert_eq!((rest.status, &*rest.text()), (206, "789"));
    assert!(rest.head.contains("content-range: bytes 7-9/10"), "{}", rest.head);
    assert_eq!(ask("bytes=2-3").text(), "23");
    assert_eq!(ask("bytes=8-99").text(), "89");
    for range in ["bytes=10-", "bytes=5-4", "bytes=-3", "lines=1-"] {
        let answer = ask(range);
        check(&answer, 416, "10 bytes");
        assert!(answer.head.contains("content-range: bytes */10"), "{}", answer.head);
    }
    check(&bench.client_asks("GET /v1/files/journal/none", "", b""), 404, "");
}

#[test]
fn the_list_says_how_files_grow_and_names_what_travels_only() {
    let bench = Bench::new();
    for name in [
        "journal/000001.bhj",
        "logs/head.log",
        "results/1.bhv",
        "results/2.bhv.part",
        "results/.3.incoming",
        "status.json",
        "head.json",
        "run.json",
        "blobs/x",
        "mailbox/1.json",
        "tls/agent-1.json",
    ] {
        bench.write(name, "12");
    }
    let list: serde_json::Value = serde_json::from_slice(&bench.client_asks("GET /v1/files", "", b"").body).unwrap();
    let mut lines: Vec<String> = list
        .as_array()
        .unwrap()
        .iter()
        .map(|file| {
            format!(
                "{} {} {}",
                file["path"].as_str().unwrap(),
                file["kind"].as_str().unwrap(),
                file["size"]
            )
        })
        .collect();
    lines.sort();
    let expected = [
        "head.json whole 2",
        "journal/000001.bhj append 2",
        "logs/head.log append 2",
        "results/1.bhv once 2",
        "status.json whole 2",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn the_head_hears_of_each_agent_once_and_of_the_client() {
    let bench = Bench::new();
    let service = bench.service();
    assert!(!service.wait_done(1, Duration::from_millis(1)) && !service.wait_collected(Duration::from_millis(1)));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| service.wait_done(2, crate::harness::LIMIT));
        for rank in ["1", "1", "2"] {
            check(&bench.agent_asks("POST /v1/done", "", rank.as_bytes()), 204, "");
        }
        assert!(waits.join().unwrap());
    });
    assert_eq!(service.agents_done(), 2);
    check(&bench.agent_asks("POST /v1/done", "", b"17"), 400, "below 4");
    check(&bench.client_asks("POST /v1/collected", "", b""), 204, "");
    assert!(service.wait_collected(Duration::ZERO));
}

#[test]
fn a_bundle_that_came_is_there_for_agents_and_for_the_next_service() {
    let mut bench = Bench::new();
    check(&bench.agent_asks("GET /v1/bundle", "", b""), 404, "yet");
    check(&bench.client_asks("PUT /v1/bundle", "", b"bytes"), 204, "");
    let path = bench.service().wait_bundle(crate::harness::LIMIT).unwrap();
    assert_eq!(std::fs::read(path).unwrap(), b"bytes");
    check(&bench.agent_asks("GET /v1/bundle", "", b""), 200, "bytes");
    check(&bench.client_asks("GET /v1/files", "", b""), 200, "[]");
    bench.service.take().unwrap().stop();
    bench.start("127.0.0.1:0".parse().unwrap());
    assert!(bench.service().wait_bundle(Duration::ZERO).is_some());
}
