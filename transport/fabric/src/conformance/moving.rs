//! Laws of reads and writes: exactly the bytes that were asked for, once, and none after the end.

use super::*;

/// Reads and writes of any size move the bytes.
pub fn reads_and_writes_of_all_sizes(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    for len in [0, 1, 4096, 65_535, 65_536, 65_537, MIB, 32 * MIB] {
        let (source, from) = b.register(pattern(len as u64, len), Access::ALL);
        let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
        let op = a.read(1, &from, &into, 0, len);
        assert_eq!(a.result(op), Ok(()), "read of {len}");
        assert!(
            copy.bytes(0, len) == source.bytes(0, len),
            "read of {len} gives other bytes"
        );
        copy.fill(0, &pattern(7, len));
        let op = a.write(1, &into, &from, 0, len);
        assert_eq!(a.result(op), Ok(()), "write of {len}");
        assert!(
            copy.bytes(0, len) == source.bytes(0, len),
            "write of {len} gives other bytes"
        );
        a.fabric.deregister(&into);
        b.fabric.deregister(&from);
    }
}

/// Nothing outside of a slice changes.
pub fn slices_move_exactly_their_bytes(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    let len = 700_000;
    let (source, from) = b.register(pattern(1, len), Access::ALL);
    let (copy, into) = a.register(vec![9; len], Access::LOCAL_WRITE);
    for (offset, part) in [(0, 1), (1, 4095), (4096, 262_145), (600_000, 100_000)] {
        let op = a.read(1, &from, &into, offset, part);
        assert_eq!(a.result(op), Ok(()));
    }
    let mut expected = source.bytes(0, len);
    expected[266_241..600_000].fill(9);
    assert!(copy.bytes(0, len) == expected, "bytes outside of the slices changed");
    let op = a.write(1, &into, &from, 266_241, 300_000);
    assert_eq!(a.result(op), Ok(()));
    let mut expected = pattern(1, len);
    expected[266_241..566_241].fill(9);
    assert!(source.bytes(0, len) == expected, "a write changed other bytes");
}

/// As many operations as the limit allows, of mixed sizes, all complete with the right bytes.
pub fn many_operations_in_flight(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    let len = 64 * 100_000;
    let (source, from) = b.register(pattern(3, len), Access::REMOTE_READ);
    let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    for _ in 0..3 {
        copy.fill(0, &vec![0; len]);
        let ops: Vec<OpId> = (0..64)
            .map(|at| a.read(1, &from, &into, at * 100_000, 100_000))
            .collect();
        assert!(ops.into_iter().all(|op| a.result(op) == Ok(())));
        assert!(copy.bytes(0, len) == source.bytes(0, len), "bytes went astray");
    }
}

/// Bytes that come after an operation has failed are not stored.
pub fn late_data_touches_nothing(factory: Factory) {
    let group = &mut *factory(3, &brief());
    let (mut a, b, c) = (Side::new(group, 0), Side::new(group, 1), Side::new(group, 2));
    meet(&[&a, &b, &c]);
    let len = 4 * MIB;
    let (_source, from) = b.register(pattern(5, len), Access::REMOTE_READ);
    let (_other, also) = c.register(pattern(6, len), Access::REMOTE_READ);
    let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let (_beside, aside) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, len);
    group.freeze(1);
    let first = a.result(op);
    let op = a.read(1, &from, &into, 0, len);
    assert!(
        a.result(op).is_err(),
        "an operation with a frozen peer succeeded after {first:?}"
    );
    copy.fill(0, &vec![0xaa; len]);
    group.thaw(1);
    for _ in 0..20 {
        let op = a.read(2, &also, &aside, 0, len);
        assert_eq!(a.result(op), Ok(()), "another peer is not concerned");
    }
    assert!(copy.bytes(0, len) == vec![0xaa; len], "late data was stored");
}

/// What is asked wrongly fails with its reason at the one who asks; the target goes on.
pub fn wrong_requests_fail_where_they_are_made(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let (_source, from) = b.register(pattern(5, 1000), Access::ALL);
    let (_secret, closed) = b.register(pattern(5, 1000), Access::LOCAL_READ);
    let (_copy, into) = a.register(vec![0; 1000], Access::LOCAL_WRITE);
    let (_fixed, sealed) = a.register(vec![0; 1000], Access::REMOTE_READ);
    let (_, gone) = b.register(vec![0; 1000], Access::ALL);
    b.fabric.deregister(&gone);
    let odd = |bytes: &'static [u8]| RemoteSlice {
        region: RemoteKey(Bytes::from_static(bytes)),
        offset: 0,
        len: 10,
    };
    let (all, ten) = (remote(&from, 0, 1000), local(&into, 0, 10));
    let cases = [
        (remote(&from, 991, 10), ten.clone(), Reason::RemoteOutOfRange),
        (remote(&from, u64::MAX, 10), ten.clone(), Reason::RemoteOutOfRange),
        (remote(&from, 0, 10), local(&into, 991, 10), Reason::LocalOutOfRange),
        (
            remote(&from, 0, 10),
            local(&into, u64::MAX, 10),
            Reason::LocalOutOfRange,
        ),
        (
            all,
            ten.clone(),
            Reason::LengthsDiffer {
                local: 10,
                remote: 1000,
            },
        ),
        (remote(&gone, 0, 10), ten.clone(), Reason::UnknownRemoteRegion),
        (
            remote(&closed, 0, 10),
            ten.clone(),
            Reason::AccessDenied { side: "remote" },
        ),
        (odd(b""), ten.clone(), Reason::UnknownRemoteRegion),
        (odd(&[0xff; 17]), ten.clone(), Reason::UnknownRemoteRegion),
        (odd(&[7; 300]), ten, Reason::UnknownRemoteRegion),
    ];
    for (far, near, expected) in cases {
        let (read, write) = (a.op(), a.op());
        assert_eq!(
            a.fabric.read(read, PeerId(1), far.clone(), near.clone()),
            Posted::Accepted
        );
        assert_eq!(a.fabric.write(write, PeerId(1), near, far), Posted::Accepted);
        assert_eq!(a.result(read), Err(expected.clone()));
        assert_eq!(a.result(write), Err(expected));
    }
    let op = a.read(1, &from, &sealed, 0, 10);
    assert_eq!(a.result(op), Err(Reason::AccessDenied { side: "local" }));
    let op = a.read(7, &from, &into, 0, 10);
    assert_eq!(a.result(op), Err(Reason::UnknownPeer));
    a.fabric.deregister(&into);
    let op = a.read(1, &from, &into, 0, 10);
    assert_eq!(a.result(op), Err(Reason::UnknownLocalRegion));
    a.fabric.deregister(&into);
    let (_, again) = b.register(vec![0; 1000], Access::ALL);
    let op = b.read(0, &sealed, &again, 0, 1000);
    assert_eq!(b.result(op), Ok(()), "the target goes on");
    for address in [&b""[..], &[0; 5], &[0xff; 400]] {
        assert!(
            a.fabric.add_peer(PeerId(5), address).is_err(),
            "{address:?} is no address"
        );
    }
}

/// Memory that was taken back is not touched, at either end, and operations on it complete once.
pub fn deregistered_while_in_flight(factory: Factory) {
    let (_group, mut a, b) = pair(factory, &Settings::default());
    let len = 4 * MIB;
    for round in 0..20 {
        let (source, from) = b.register(pattern(round, len), Access::ALL);
        let (copy, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
        let (_, out) = a.register(pattern(round, len), Access::LOCAL_READ);
        let reads = [a.read(1, &from, &into, 0, len), a.read(1, &from, &into, 0, len)];
        let write = a.write(1, &out, &from, 0, len);
        if round % 4 > 1 {
            a.take();
        }
        if round % 2 == 0 {
            a.fabric.deregister(&into);
            copy.fill(0, &vec![0xaa; len]);
            a.fabric.deregister(&out);
        } else {
            b.fabric.deregister(&from);
            source.fill(0, &vec![0xbb; len]);
        }
        for op in reads {
            let result = a.result(op);
            assert!(
                matches!(result, Ok(()) | Err(Reason::Deregistered | Reason::UnknownRemoteRegion)),
                "{result:?}"
            );
        }
        let wrote = a.result(write);
        assert!(
            matches!(wrote, Ok(()) | Err(Reason::Deregistered | Reason::UnknownRemoteRegion)),
            "{wrote:?}"
        );
        if round % 2 == 0 {
            assert!(
                copy.bytes(0, len) == vec![0xaa; len],
                "memory was written after it was taken back"
            );
        } else {
            assert!(
                source.bytes(0, len) == vec![0xbb; len],
                "the peer's memory was written after it was taken back"
            );
            let whole = a.done[&reads[1]].is_err() || copy.bytes(0, len) == pattern(round, len);
            assert!(whole, "a read of memory that was taken back succeeded with other bytes");
        }
        b.fabric.deregister(&from);
    }
    let (_, from) = b.register(pattern(1, len), Access::ALL);
    let (_, into) = a.register(vec![0; len], Access::LOCAL_WRITE);
    let op = a.read(1, &from, &into, 0, len);
    assert_eq!(a.result(op), Ok(()), "the peers go on");
}

/// Both sides read and write a lot at once, and neither waits for the other for ever.
pub fn both_directions_at_once(factory: Factory) {
    let (_group, mut a, mut b) = pair(factory, &Settings::default());
    let len = 8 * MIB;
    let (of_a, at_a) = a.register(pattern(1, 2 * len), Access::ALL);
    let (of_b, at_b) = b.register(pattern(2, 2 * len), Access::ALL);
    let mut ops: [Vec<OpId>; 2] = [Vec::new(), Vec::new()];
    for _ in 0..4 {
        // First halves are read by the other side, second halves are written by their own.
        ops[0].push(a.op());
        let posted = a.fabric.read(
            ops[0][ops[0].len() - 1],
            PeerId(1),
            remote(&at_b, 0, len),
            local(&at_a, len as u64, len),
        );
        assert_eq!(posted, Posted::Accepted);
        ops[1].push(b.op());
        let posted = b.fabric.read(
            ops[1][ops[1].len() - 1],
            PeerId(0),
            remote(&at_a, 0, len),
            local(&at_b, len as u64, len),
        );
        assert_eq!(posted, Posted::Accepted);
    }
    ops[0].iter().for_each(|op| assert_eq!(a.result(*op), Ok(())));
    ops[1].iter().for_each(|op| assert_eq!(b.result(*op), Ok(())));
    assert!(of_a.bytes(len, len) == of_b.bytes(0, len) && of_b.bytes(len, len) == of_a.bytes(0, len));
    let (write, back) = (
        a.write(1, &at_a, &at_b, 0, len),
        b.write(0, &at_b, &at_a, len as u64, len),
    );
    assert_eq!((a.result(write), b.result(back)), (Ok(()), Ok(())));
    assert!(of_b.bytes(0, len) == of_a.bytes(0, len));
}
