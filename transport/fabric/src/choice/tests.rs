//! The choice among fabrics keeps the laws of the port, and is the same on both sides.

use super::Choice;
use crate::conformance::{Group, Settings};
use crate::sim::{Network, Options};
use crate::{
    Access, Buffer, Capabilities, Completion, Fabric, FabricError, LocalSlice, Memory, OpId, PeerId, Posted, Reason,
    RegionKey, RemoteSlice,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// A fabric under another name.
struct Named(&'static str, Arc<dyn Fabric>);

impl Fabric for Named {
    fn name(&self) -> &'static str {
        self.0
    }
    fn capabilities(&self) -> Capabilities {
        self.1.capabilities()
    }
    fn address(&self) -> Bytes {
        self.1.address()
    }
    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError> {
        self.1.add_peer(peer, address)
    }
    fn remove_peer(&self, peer: PeerId) {
        self.1.remove_peer(peer);
    }
    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError> {
        self.1.register(memory, access)
    }
    fn deregister(&self, key: &RegionKey) {
        self.1.deregister(key);
    }
    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted {
        self.1.read(op, peer, from, into)
    }
    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted {
        self.1.write(op, peer, from, into)
    }
    fn send(&self, peer: PeerId, message: Bytes) -> Posted {
        self.1.send(peer, message)
    }
    fn poll(&self, out: &mut Vec<Completion>) -> usize {
        self.1.poll(out)
    }
    fn wait(&self, limit: Duration) -> bool {
        self.1.wait(limit)
    }
    fn wake(&self) {
        self.1.wake();
    }
}

/// Two networks; each side chooses between them.
struct Both {
    networks: [Network; 2],
    sides: Vec<Option<Arc<dyn Fabric>>>,
}

/// Which of the networks "fast" and "slow" each side has.
fn group(settings: &Settings, has: &[&[usize]], required: bool) -> Both {
    let options = Options {
        timeout: settings.timeout,
        max_in_flight: settings.max_in_flight,
        max_queued: settings.max_queued,
        ..Options::default()
    };
    let networks = [1, 2].map(|seed| Network::new(seed, has.len(), options.clone()));
    let sides = has.iter().enumerate().map(|(at, has)| {
        let at = u32::try_from(at).expect("few");
        let fabrics = has.iter().map(|&which| {
            let fabric: Arc<dyn Fabric> = Arc::new(Named(["fast", "slow"][which], networks[which].fabric(at)));
            fabric
        });
        let choice: Arc<dyn Fabric> = Arc::new(Choice::new(fabrics.collect(), required).expect("threads"));
        Some(choice)
    });
    let sides = sides.collect();
    Both { networks, sides }
}

impl Group for Both {
    fn fabric(&self, at: usize) -> Arc<dyn Fabric> {
        self.sides[at].clone().expect("it lives")
    }
    fn kill(&mut self, at: usize) {
        drop(self.sides[at].take().expect("it lives"));
        self.networks
            .iter()
            .for_each(|network| network.kill(u32::try_from(at).expect("few")));
    }
    fn freeze(&mut self, at: usize) {
        self.networks
            .iter()
            .for_each(|network| network.freeze(u32::try_from(at).expect("few")));
    }
    fn thaw(&mut self, at: usize) {
        self.networks
            .iter()
            .for_each(|network| network.thaw(u32::try_from(at).expect("few")));
    }
}

mod two {
    crate::laws!(|count, settings| Box::new(super::group(settings, &vec![&[0, 1][..]; count], false)));
}

mod one {
    crate::laws!(|count, settings| Box::new(super::group(settings, &vec![&[1][..]; count], true)));
}

/// Side 0 of sides that have those networks reads from side 1, over that one.
fn check(has: [&[usize]; 2], expected: &'static str) {
    let both = group(&Settings::default(), &has, false);
    let [a, b] = [0, 1].map(|at| both.fabric(at));
    a.add_peer(PeerId(1), &b.address()).expect("they have one in common");
    b.add_peer(PeerId(0), &a.address()).expect("they have one in common");
    let chosen = |networks: &[Network; 2], freeze: usize| networks[freeze].freeze(1);
    let unused = usize::from(expected == "fast");
    chosen(&both.networks, unused); // What was not chosen may as well be broken.
    let source = b
        .register(Arc::new(Buffer::from_bytes(vec![7; 100])), Access::REMOTE_READ)
        .expect("registered");
    let buffer = Arc::new(Buffer::zeroed(100));
    let copy = a.register(buffer.clone(), Access::LOCAL_WRITE).expect("registered");
    let from = RemoteSlice {
        region: source.remote(),
        offset: 0,
        len: 100,
    };
    let into = LocalSlice {
        region: copy,
        offset: 0,
        len: 100,
    };
    assert_eq!(a.read(OpId(1), PeerId(1), from, into), Posted::Accepted);
    let mut news = Vec::new();
    while a.poll(&mut news) == 0 {
        assert!(a.wait(Duration::from_secs(60)), "the read ends");
    }
    assert_eq!(news, [Completion::Done { op: OpId(1) }]);
    assert_eq!(buffer.bytes(0, 100), [7; 100]);
}

#[test]
fn the_first_that_both_have_is_chosen() {
    check([&[0, 1], &[0, 1]], "fast");
    check([&[0, 1], &[1]], "slow");
    check([&[1], &[0, 1]], "slow");
}

#[test]
fn a_fall_back_from_what_is_required_is_an_error_that_names_it() {
    let both = group(&Settings::default(), &[&[0, 1], &[1]], true);
    let error = both
        .fabric(0)
        .add_peer(PeerId(1), &both.fabric(1).address())
        .expect_err("it has no fast one");
    let text = error.to_string();
    assert!(text.contains("fast is required, and the peer only has slow"), "{text}");
    let both = group(&Settings::default(), &[&[0], &[1]], false);
    let error = both
        .fabric(0)
        .add_peer(PeerId(1), &both.fabric(1).address())
        .expect_err("nothing in common");
    assert!(error.to_string().contains("the peer only has slow"), "{error}");
}

#[test]
fn a_peer_that_was_never_added_is_unknown() {
    let both = group(&Settings::default(), &[&[0, 1], &[1]], false);
    assert_eq!(
        both.fabric(0).send(PeerId(1), Bytes::new()),
        Posted::Refused(Reason::UnknownPeer)
    );
}
