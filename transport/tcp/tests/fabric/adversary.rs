//! Garbage and strangers on the listening socket, wrong keys and numbers, and bytes that are harmed on the way.

use crate::relay::{Harm, Relay};
use crate::{add, address_through, options, socket_of, start};
use bridgehead_fabric::{Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, Reason, RemoteSlice};
use bridgehead_tcp::{Integrity, Options, TcpFabric};
use bytes::Bytes;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn next(fabric: &TcpFabric) -> Completion {
    let end = Instant::now() + PATIENCE;
    let mut news = Vec::new();
    while fabric.poll(&mut news) == 0 {
        assert!(Instant::now() < end, "nothing happens");
        fabric.wait(Duration::from_millis(100));
    }
    assert_eq!(news.len(), 1, "one thing at a time: {news:?}");
    news.remove(0)
}

/// Bytes that differ from their neighbours, so that shifted ones are not the same.
fn varied(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Reads `len` bytes from `far`; the result, and whether the bytes are right.
fn read(near: &TcpFabric, far: &TcpFabric, peer: u32, len: usize) -> (Vec<Completion>, bool) {
    let from = far
        .register(Arc::new(Buffer::from_bytes(varied(len))), Access::REMOTE_READ)
        .expect("memory");
    let copy = Arc::new(Buffer::zeroed(len));
    let into = near.register(copy.clone(), Access::LOCAL_WRITE).expect("memory");
    let from = RemoteSlice {
        region: from.remote(),
        offset: 0,
        len: len as u64,
    };
    assert_eq!(
        near.read(
            OpId(1),
            PeerId(peer),
            from,
            LocalSlice {
                region: into,
                offset: 0,
                len: len as u64
            }
        ),
        Posted::Accepted
    );
    let mut news = Vec::new();
    let end = Instant::now() + PATIENCE;
    while !news
        .iter()
        .any(|news| matches!(news, Completion::Done { .. } | Completion::Failed { .. }))
    {
        assert!(Instant::now() < end, "the read never completes");
        near.wait(Duration::from_millis(100));
        near.poll(&mut news);
    }
    (news, copy.bytes(0, len) == varied(len))
}

/// A read over a relay that harms the answer or the request.
fn harmed_read(integrity: Integrity, there: Harm, back: Harm) {
    let with = |number| Options {
        integrity,
        timeout: Duration::from_secs(5),
        ..options(number)
    };
    let (near, far) = (start(with(0)), start(with(1)));
    let relay = Relay::start(socket_of(&*far), there, back);
    add(&*near, 1, &address_through(&*far, relay.address));
    let (news, right) = read(&near, &far, 1, 1 << 20);
    // The loss of the peer may be told before the operation that was about to begin fails.
    let result = news.iter().find(|news| !matches!(news, Completion::PeerLost { .. }));
    match result.expect("the read completed") {
        Completion::Done { .. } => {
            assert!(
                right,
                "{integrity:?} {there:?} {back:?}: a read completed with wrong bytes"
            );
            assert_eq!(
                relay.harmed(),
                0,
                "{integrity:?} {there:?} {back:?}: harm was not found"
            );
        }
        Completion::Failed { reason, .. } => {
            assert_eq!(relay.harmed(), 1);
            let known = matches!(reason, Reason::PeerLost(_) | Reason::Damaged | Reason::TimedOut(_));
            assert!(known, "{integrity:?} {there:?} {back:?}: {reason}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn harmed_bytes_are_found_before_a_read_completes() {
    for integrity in [Integrity::Mac, Integrity::Encrypt] {
        for at in [3, 50, 76, 100, 148, 200_000, 262_300, 1_000_000] {
            harmed_read(integrity, Harm::None, Harm::Flip(at));
            harmed_read(integrity, Harm::None, Harm::Cut(at));
            harmed_read(integrity, Harm::None, Harm::Repeat(at));
        }
        for at in [1, 30, 70, 80, 103, 110, 150, 170] {
            harmed_read(integrity, Harm::Flip(at), Harm::None);
            harmed_read(integrity, Harm::Cut(at), Harm::None);
        }
        harmed_read(integrity, Harm::Repeat(176), Harm::None);
    }
}

/// The fabric still serves an honest peer.
fn check_alive(fabric: &TcpFabric, number: u32) {
    let honest = start(options(77));
    add(&*honest, number, &fabric.address());
    let (news, right) = read(&honest, fabric, number, 1000);
    assert!(right, "{news:?}");
}

#[test]
fn garbage_on_the_listening_socket_harms_nobody() {
    let fabric = start(Options {
        max_strangers: 16,
        ..options(1)
    });
    let mut seed = 9_u64;
    for round in 0..300_usize {
        let mut stream = TcpStream::connect(socket_of(&*fabric)).expect("it listens");
        let mut bytes: Vec<u8> = (0..round)
            .map(|_| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                seed.to_be_bytes()[0]
            })
            .collect();
        if round % 3 == 0 && bytes.len() > 10 {
            bytes[..10].copy_from_slice(b"BHDATA\r\n\x01\0");
        }
        // It may be closed while we write; that is an answer as well.
        let _ = stream.write_all(&bytes);
    }
    check_alive(&fabric, 1);
}

#[test]
fn silent_strangers_are_bounded_and_dropped_in_time() {
    let brief = Options {
        max_strangers: 8,
        handshake_timeout: Duration::from_millis(200),
        ..options(1)
    };
    let fabric = start(brief);
    let mut silent: Vec<TcpStream> = (0..50)
        .map(|_| TcpStream::connect(socket_of(&*fabric)).expect("it listens"))
        .collect();
    check_alive(&fabric, 1);
    for stream in &mut silent {
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        assert!(
            matches!(stream.read(&mut [0]), Ok(0) | Err(_)),
            "a silent stranger is told nothing"
        );
    }
}

/// `near` cannot reach `far`, for a reason that contains `text`.
fn check_refused(near: Options, far: Options, address: impl Fn(&TcpFabric) -> Vec<u8>, text: &str) {
    let (near, far) = (start(near), start(far));
    let number = bridgehead_tcp::Address::decode(&address(&far))
        .expect("an address")
        .number;
    add(&*near, number, &address(&far));
    assert_eq!(
        near.send(PeerId(number), Bytes::from_static(b"hello")),
        Posted::Accepted
    );
    let Completion::PeerLost { reason, .. } = next(&near) else {
        panic!("not refused: {text}")
    };
    assert!(
        reason.to_string().contains(text),
        "\"{reason}\" does not say \"{text}\""
    );
    let mut news = Vec::new();
    assert_eq!(far.poll(&mut news), 0, "{news:?}");
}

#[test]
fn wrong_keys_numbers_incarnations_and_integrities_are_refused_by_name() {
    let own = |far: &TcpFabric| far.address().to_vec();
    let other_key = Options::new(0, [1; 32], options(0).bind);
    check_refused(other_key, options(1), own, "does not know the run's data key");
    check_refused(
        Options {
            integrity: Integrity::Crc32c,
            ..options(0)
        },
        options(1),
        own,
        "disagree on integrity",
    );
    let changed = |change: fn(&mut bridgehead_tcp::Address)| {
        move |far: &TcpFabric| {
            let mut address = bridgehead_tcp::Address::decode(&far.address()).expect("its own address");
            change(&mut address);
            address.encode().to_vec()
        }
    };
    check_refused(
        options(0),
        options(1),
        changed(|address| address.number = 5),
        "another agent",
    );
    check_refused(
        options(0),
        options(1),
        changed(|address| address.incarnation ^= 1),
        "another process",
    );
}

#[test]
fn nobody_listens_there_is_said() {
    let near = start(options(0));
    let gone = start(options(1)).address();
    add(&*near, 1, &gone);
    assert_eq!(near.send(PeerId(1), Bytes::from_static(b"hello")), Posted::Accepted);
    let lost = next(&near);
    assert!(
        matches!(
            &lost,
            Completion::PeerLost {
                reason: Reason::PeerLost(_),
                ..
            }
        ),
        "{lost:?}"
    );
}

/// A handshake that was overheard opens nothing when it is played back.
#[test]
fn a_replayed_handshake_is_refused() {
    let (near, far) = (start(options(0)), start(options(1)));
    let listener = std::net::TcpListener::bind((options(0).bind, 0)).expect("a port");
    add(
        &*near,
        1,
        &address_through(&*far, listener.local_addr().expect("bound")),
    );
    assert_eq!(near.send(PeerId(1), Bytes::from_static(b"secret")), Posted::Accepted);
    let (mut client, _) = listener.accept().expect("it connects");
    let mut server = TcpStream::connect(socket_of(&*far)).expect("it listens");
    let (mut hello, mut answer, mut rest) = ([0; 72], [0; 76], [0; 32 + 72 + 6]);
    client.read_exact(&mut hello).expect("a hello");
    server.write_all(&hello).expect("it reads");
    server.read_exact(&mut answer).expect("an answer");
    client.write_all(&answer).expect("it reads");
    client.read_exact(&mut rest).expect("a proof and a message");
    server.write_all(&rest).expect("it reads");
    assert_eq!(
        next(&far),
        Completion::Message {
            peer: PeerId(0),
            message: Bytes::from_static(b"secret")
        }
    );
    let mut again = TcpStream::connect(socket_of(&*far)).expect("it listens");
    again.write_all(&hello).expect("it reads");
    again
        .read_exact(&mut answer)
        .expect("a hello says nothing secret, so it is answered");
    again.write_all(&rest).expect("it reads");
    again.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert!(matches!(again.read(&mut [0]), Ok(0) | Err(_)), "the replay is dropped");
    let mut news = Vec::new();
    assert_eq!(far.poll(&mut news), 0, "{news:?}");
}

/// Dropping a fabric joins its thread, which holds the sockets, so the port is closed when that returns.
#[test]
fn nothing_is_left_behind() {
    let fabric = start(options(1));
    let address = socket_of(&*fabric);
    check_alive(&fabric, 1);
    drop(fabric);
    assert!(TcpStream::connect(address).is_err(), "the port is closed");
}
