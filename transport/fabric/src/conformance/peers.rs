//! Laws of messages and peers: order, back-pressure, loss, and threads.

use super::*;

/// Messages of one sender arrive in order, each once, whatever their sizes.
pub fn messages_arrive_in_order(factory: Factory) {
    let (_group, a, mut b) = pair(
        factory,
        &Settings {
            max_queued: 64 * MIB,
            ..Settings::default()
        },
    );
    let limit = a.fabric.capabilities().max_message;
    let text = |at: u64| {
        Bytes::from(pattern(
            at,
            [0, 1, 100, 5000, limit][usize::try_from(at % 5).expect("below 5")],
        ))
    };
    for at in 0..200 {
        assert_eq!(a.fabric.send(PeerId(1), text(at)), Posted::Accepted);
    }
    for at in 0..200 {
        assert!(b.message() == (PeerId(0), text(at)), "message {at}");
    }
    let refused = a.fabric.send(PeerId(1), Bytes::from(vec![0; limit + 1]));
    assert_eq!(
        refused,
        Posted::Refused(Reason::TooLong {
            len: limit as u64 + 1,
            limit: limit as u64
        })
    );
    assert_eq!(
        a.fabric.send(PeerId(9), Bytes::new()),
        Posted::Refused(Reason::UnknownPeer)
    );
}

/// The limit of operations is kept, is a value, and room is told of.
pub fn a_full_queue_is_busy_and_recovers(factory: Factory) {
    let (_group, mut a, b) = pair(
        factory,
        &Settings {
            max_in_flight: 4,
            ..Settings::default()
        },
    );
    let (_source, from) = b.register(pattern(3, MIB), Access::REMOTE_READ);
    let (_copy, into) = a.register(vec![0; MIB], Access::LOCAL_WRITE);
    let mut busy = 0;
    let mut ops = Vec::new();
    while busy < 20 {
        let op = a.op();
        match a
            .fabric
            .read(op, PeerId(1), remote(&from, 0, MIB), local(&into, 0, MIB))
        {
            Posted::Accepted => ops.push(op),
            Posted::Busy => {
                busy += 1;
                a.ready(PeerId(1));
            }
            Posted::Refused(reason) => panic!("refused: {reason}"),
        }
        assert!(ops.len() < 10_000, "the limit of 4 is never reached");
    }
    assert!(ops.into_iter().all(|op| a.result(op) == Ok(())));
}

/// Who sends more than is taken hears `Busy` before memory fills; nothing is lost.
pub fn messages_wait_for_a_slow_receiver(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let text = |at: u64| Bytes::from(pattern(at, 65_536));
    let (mut taken, mut busy) = (0, 0);
    let mut sent = 0;
    while sent < 1_500 {
        match a.fabric.send(PeerId(1), text(sent)) {
            Posted::Accepted => sent += 1,
            Posted::Busy => {
                busy += 1;
                while taken < sent {
                    assert!(b.message().1 == text(taken), "message {taken}");
                    taken += 1;
                }
                a.ready(PeerId(1));
            }
            Posted::Refused(reason) => panic!("refused: {reason}"),
        }
    }
    assert!(busy > 0, "94 MiB were accepted while nobody took them");
}

/// A killed peer fails what is pending, each operation once, is reported, and fails what comes after.
pub fn a_killed_peer_fails_what_is_pending(factory: Factory) {
    let (mut group, mut a, b) = pair(factory, &Settings::default());
    let len = 8 * MIB;
    let (source, from) = b.register(pattern(5, len), Access::ALL);
    let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let (_, out) = a.register(vec![1; len], Access::LOCAL_READ);
    // Bytes of a read that is under way are unspecified (ciphertext, for instance), so the others go elsewhere.
    let (_, elsewhere) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let first = a.read(1, &from, &into, 0, len);
    let others: Vec<OpId> = (0..10).map(|_| a.read(1, &from, &elsewhere, 0, len)).collect();
    let writes: Vec<OpId> = (0..10).map(|_| a.write(1, &out, &from, 0, 1)).collect();
    assert_eq!(a.result(first), Ok(()));
    assert!(
        copy.bytes(1, len - 1) == source.bytes(1, len - 1),
        "a completed read has its bytes"
    );
    drop(b);
    group.kill(1);
    for op in others.into_iter().chain(writes) {
        assert!(
            matches!(a.result(op), Ok(()) | Err(Reason::PeerLost(_))),
            "{:?}",
            a.done[&op]
        );
    }
    a.lost(PeerId(1));
    let op = a.read(1, &from, &into, 0, 1);
    assert!(matches!(a.result(op), Err(Reason::PeerLost(_))));
    assert!(matches!(
        a.fabric.send(PeerId(1), Bytes::new()),
        Posted::Refused(Reason::PeerLost(_))
    ));
}

/// A peer that stops in the middle is given up after the time limit.
pub fn a_frozen_peer_is_given_up(factory: Factory) {
    let (mut group, mut a, b) = pair(factory, &brief());
    let (_source, from) = b.register(pattern(5, MIB), Access::ALL);
    let (_copy, into) = a.register(vec![0; MIB], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, MIB);
    assert_eq!(a.result(op), Ok(()));
    group.freeze(1);
    let ops = [
        a.read(1, &from, &into, 0, MIB),
        a.read(1, &from, &into, 0, 1),
        a.write(1, &into, &from, 0, MIB),
    ];
    for op in ops {
        assert!(a.result(op).is_err(), "an operation with a frozen peer succeeded");
    }
    a.lost(PeerId(1));
}

/// Removing a peer fails all that is pending before it returns; the peer is refused until it is added again.
pub fn a_removed_peer_is_refused(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let len = 8 * MIB;
    let (_source, from) = b.register(pattern(5, len), Access::REMOTE_READ);
    let (copy, into) = a.register(vec![0; len], Access::ALL);
    let ops: Vec<OpId> = (0..8).map(|_| a.read(1, &from, &into, 0, len)).collect();
    a.fabric.remove_peer(PeerId(1));
    copy.fill(0, &vec![0xaa; len]);
    while a.take() {}
    for op in ops {
        let result = a.done.get(&op).cloned();
        assert!(
            matches!(result, Some(Ok(()) | Err(Reason::PeerRemoved))),
            "{op:?} is {result:?} after the removal"
        );
    }
    let op = a.read(1, &from, &into, 0, 1);
    assert_eq!(a.result(op), Err(Reason::UnknownPeer));
    assert!(copy.bytes(0, len) == vec![0xaa; len], "data came after the removal");
    let (_, aside) = b.register(vec![0; 1], Access::ALL);
    b.fabric.add_peer(PeerId(0), &a.fabric.address()).expect("an address");
    let op = b.read(0, &into, &aside, 0, 1);
    assert!(b.result(op).is_err(), "a peer that was removed can still read");
    a.fabric.add_peer(PeerId(1), &b.fabric.address()).expect("an address");
    b.fabric.add_peer(PeerId(0), &a.fabric.address()).expect("an address");
    let op = b.read(0, &into, &aside, 0, 1);
    assert_eq!(b.result(op), Ok(()), "a peer that was added again can read");
}

/// Two fabrics serve sixteen threads; whoever polls gets everybody's completions.
pub fn sixteen_threads(factory: Factory) {
    type Shared = Mutex<HashMap<OpId, Completion>>;
    let (_group, a, b) = pair(factory, &Settings::default());
    let len = 200_000;
    let (source_a, at_a) = a.register(pattern(1, len), Access::REMOTE_READ);
    let (source_b, at_b) = b.register(pattern(2, len), Access::REMOTE_READ);
    let inboxes = [Shared::default(), Shared::default()];
    let worker = |thread: u64| {
        let (side, peer, from, source, inbox) = if thread.is_multiple_of(2) {
            (&a, 1, &at_b, &source_b, &inboxes[0])
        } else {
            (&b, 0, &at_a, &source_a, &inboxes[1])
        };
        let (copy, into) = side.register(vec![0; len], Access::LOCAL_WRITE);
        for round in 0..30 {
            let op = OpId(thread << 32 | round);
            let size = usize::try_from(1 + round * 6_000).expect("small");
            while side
                .fabric
                .read(op, PeerId(peer), remote(from, round, size), local(&into, round, size))
                != Posted::Accepted
            {
                collect(side, inbox);
            }
            let end = Instant::now() + PATIENCE;
            while inbox
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&op)
                .is_none()
            {
                assert!(Instant::now() < end, "no completion of {op:?}");
                collect(side, inbox);
            }
            let at = usize::try_from(round).expect("small");
            assert!(copy.bytes(at, size) == source.bytes(at, size));
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let worker = &worker;
            scope.spawn(move || worker(thread));
        }
    });

    fn collect(side: &Side, inbox: &Shared) {
        side.fabric.wait(Duration::from_millis(1));
        let mut out = Vec::new();
        side.fabric.poll(&mut out);
        for completion in out {
            match completion {
                Completion::Done { op } => drop(
                    inbox
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(op, completion),
                ),
                Completion::Ready { .. } => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }
}

/// `wake` ends a present or the next wait, once.
pub fn waking_ends_a_wait(factory: Factory) {
    let (_group, a, _b) = pair(factory, &Settings::default());
    a.fabric.wake();
    assert!(a.fabric.wait(PATIENCE), "a wake before the wait counts");
    assert!(!a.fabric.wait(Duration::ZERO), "it counts once");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| a.fabric.wait(PATIENCE));
        a.fabric.wake();
        assert!(
            waiting.join().expect("waiting does not panic"),
            "a wake during the wait counts"
        );
    });
}

/// A peer that was lost works again after both sides added it.
pub fn a_lost_peer_can_be_added_again(factory: Factory) {
    let (mut group, mut a, mut b) = pair(factory, &brief());
    let (_source, from) = b.register(pattern(5, 1000), Access::REMOTE_READ);
    let (_copy, into) = a.register(vec![0; 1000], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, 1000);
    assert_eq!(a.result(op), Ok(()));
    assert_eq!(
        b.fabric.send(PeerId(0), Bytes::from_static(b"before")),
        Posted::Accepted
    );
    assert!(a.message().1 == "before");
    group.freeze(1);
    let op = a.read(1, &from, &into, 0, 1000);
    assert!(a.result(op).is_err());
    a.lost(PeerId(1));
    group.thaw(1);
    b.lost(PeerId(0));
    meet(&[&a, &b]);
    let op = a.read(1, &from, &into, 0, 1000);
    assert_eq!(a.result(op), Ok(()));
    assert_eq!(b.fabric.send(PeerId(0), Bytes::from_static(b"again")), Posted::Accepted);
    assert!(a.message().1 == "again");
}
