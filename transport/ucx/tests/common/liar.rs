//! What a peer can do that knows the run's key and lies: it ends its session, and reaches no byte that it may not reach.

use super::outside::until;
use super::{Lane, options, ready, start};
use bridgehead_fabric::{
    Access, Buffer, Completion, Fabric, LocalSlice, OpId, PeerId, Posted, Reason, RegionKey, RemoteSlice,
};
use bridgehead_ucx::UcxFabric;
use bytes::Bytes;
use std::sync::Arc;

const LEN: usize = 300_000;
const PART: u64 = 128 << 10;
const READ: u8 = 13;
const DATA: u8 = 14;
const WRITE: u8 = 15;
const WRITTEN: u8 = 16;
const REFUSED: u8 = 17;
const OPEN: u8 = 5;

/// An honest fabric with a region between two others, and the liar.
struct Scene {
    honest: Arc<UcxFabric>,
    liar: Arc<UcxFabric>,
    memory: Arc<Buffer>,
    region: RegionKey,
    closed: RegionKey,
}

impl Scene {
    fn new() -> Self {
        let [honest, liar] = [0, 1].map(|number| start(options(number, Lane::Tcp)));
        honest.add_peer(PeerId(1), &liar.address()).expect("an address");
        liar.add_peer(PeerId(0), &honest.address()).expect("an address");
        let memory = Arc::new(Buffer::from_bytes(vec![7; LEN]));
        let region = honest.register(memory.clone(), Access::ALL).expect("registered");
        let closed = honest.register(memory.clone(), Access::LOCAL_READ).expect("registered");
        let scene = Self {
            honest,
            liar,
            memory,
            region,
            closed,
        };
        // Each has a session, so that answers count.
        scene.round_trip();
        scene
    }

    fn round_trip(&self) {
        for (from, to, number) in [(&self.honest, &self.liar, 1), (&self.liar, &self.honest, 0)] {
            assert_eq!(from.send(PeerId(number), Bytes::from_static(b"x")), Posted::Accepted);
            until(&**to, "message", |news| {
                news.iter().any(|news| matches!(news, Completion::Message { .. }))
            });
        }
    }

    /// Head of a part of the region, and as many bytes.
    fn part(region: &RegionKey, [offset, len, at, size]: [u64; 4], bytes: usize) -> Bytes {
        let mut out = Vec::new();
        for number in [region.local(), offset, len, at, size] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(40 + bytes, 0xee);
        out.into()
    }
}

/// Of such a message the honest side says so much, and no byte of its memory has changed.
fn check(kind: u8, a: u64, payload: Bytes, words: &str) {
    let scene = Scene::new();
    assert!(scene.liar.say(PeerId(0), kind, a, payload), "kind {kind} is one");
    let news = until(&*scene.honest, "loss", |news| !news.is_empty());
    let said = match &news[..] {
        [
            Completion::PeerLost {
                reason: Reason::PeerLost(text),
                ..
            },
        ] => text,
        other => panic!("{other:?}"),
    };
    assert!(said.contains(words), "{said}");
    assert_eq!(scene.memory.bytes(0, LEN), vec![7; LEN]);
}

#[test]
fn who_lies_about_lengths_and_places_is_lost() {
    if let Err(reason) = ready() {
        return println!("skipped 1: a liar: {reason}");
    }
    let region = Scene::new().region;
    let part = |range, bytes| Scene::part(&region, range, bytes);
    check(READ, 1, part([0, 10, 5, 6], 0), "asks for bytes");
    check(READ, 1, part([0, 10, u64::MAX, 2], 0), "asks for bytes");
    check(READ, 1, part([0, 2 * PART, 0, PART + 1], 0), "asks for bytes");
    check(READ, 1, part([0, 10, 0, 10], 1), "asks for bytes");
    check(READ, 1, Bytes::from_static(b"short"), "asks for bytes");
    check(WRITE, 1, part([0, 10, 0, 10], 9), "writes bytes");
    check(WRITE, 1, part([0, 10, 0, 10], 11), "writes bytes");
    check(WRITE, 1, part([0, 10, 5, 10], 10), "writes bytes");
    check(DATA, 2, Bytes::from_static(b"unasked"), "answers what");
    check(WRITTEN, 2, Bytes::new(), "answers what");
    check(REFUSED, 2, Bytes::from_static(&[1]), "refuses what");
    check(OPEN, region.local(), Bytes::new(), "memory key");
}

#[test]
fn who_asks_for_what_it_may_not_have_gets_nothing() {
    if let Err(reason) = ready() {
        return println!("skipped 1: a liar: {reason}");
    }
    let scene = Scene::new();
    let len = LEN as u64;
    let ranges = [
        (&scene.closed, [0, 10, 0, 10]),
        (&scene.region, [len - 9, 10, 0, 10]),
        (&scene.region, [u64::MAX, 10, 0, 10]),
        (&scene.region, [0, len + 1, 0, 10]),
        (&scene.region, [0, u64::MAX, u64::MAX - 10, 10]),
    ];
    for (region, range) in ranges {
        for (kind, bytes) in [(WRITE, 10), (READ, 0)] {
            // Its own side did not ask, and gives the honest one up for the answer: that is the liar's trouble, and it begins anew.
            assert!(scene.liar.say(PeerId(0), kind, 1, Scene::part(region, range, bytes)));
            let news = until(&*scene.liar, "refusal", |news| !news.is_empty());
            assert!(matches!(&news[..], [Completion::PeerLost { .. }]), "{news:?}");
            until(&*scene.honest, "end of the session", |news| !news.is_empty());
            let addresses = [scene.honest.address(), scene.liar.address()];
            scene.honest.add_peer(PeerId(1), &addresses[1]).expect("an address");
            scene.liar.add_peer(PeerId(0), &addresses[0]).expect("an address");
            scene.round_trip();
        }
    }
    assert_eq!(scene.memory.bytes(0, LEN), vec![7; LEN]);
    let own = scene
        .liar
        .register(Arc::new(Buffer::zeroed(LEN)), Access::ALL)
        .expect("registered");
    let (from, into) = (
        RemoteSlice {
            region: scene.region.remote(),
            offset: 0,
            len,
        },
        LocalSlice {
            region: own,
            offset: 0,
            len,
        },
    );
    assert_eq!(scene.liar.read(OpId(1), PeerId(0), from, into), Posted::Accepted);
    let news = until(&*scene.liar, "read", |news| !news.is_empty());
    assert_eq!(
        news,
        [Completion::Done { op: OpId(1) }],
        "an honest question is answered"
    );
}
