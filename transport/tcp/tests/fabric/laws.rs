//! The conformance suite over TCP: each integrity, IPv6, and several bulk lanes.

use crate::relay::{Harm, Relay};
use crate::{address_through, options, socket_of, start};
use bridgehead_fabric::conformance::{Group, Settings};
use bridgehead_fabric::{
    Access, Capabilities, Completion, Fabric, FabricError, LocalSlice, Memory, OpId, PeerId, Posted, RegionKey,
    RemoteSlice,
};
use bridgehead_tcp::{Integrity, Options};
use bytes::Bytes;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// A fabric that gives the address of a relay for its own.
struct Relayed {
    fabric: Arc<dyn Fabric>,
    address: Bytes,
}

struct Tcp {
    fabrics: Vec<Option<Arc<dyn Fabric>>>,
    relays: Vec<Relay>,
}

fn group(count: usize, settings: &Settings, change: fn(&mut Options)) -> Box<dyn Group> {
    let mut group = Tcp {
        fabrics: Vec::new(),
        relays: Vec::new(),
    };
    for number in 0..count {
        let mut options = options(u32::try_from(number).expect("few"));
        options.max_in_flight = settings.max_in_flight;
        options.max_queued = settings.max_queued;
        options.timeout = settings.timeout;
        change(&mut options);
        let fabric: Arc<dyn Fabric> = start(options);
        let fabric = if settings.freezes {
            group.relayed(fabric)
        } else {
            fabric
        };
        group.fabrics.push(Some(fabric));
    }
    Box::new(group)
}

impl Tcp {
    fn relayed(&mut self, fabric: Arc<dyn Fabric>) -> Arc<dyn Fabric> {
        let relay = Relay::start(socket_of(&*fabric), Harm::None, Harm::None);
        let address = address_through(&*fabric, relay.address).into();
        self.relays.push(relay);
        Arc::new(Relayed { fabric, address })
    }
}

impl Group for Tcp {
    fn fabric(&self, at: usize) -> Arc<dyn Fabric> {
        self.fabrics[at].clone().expect("it lives")
    }

    fn kill(&mut self, at: usize) {
        let fabric = self.fabrics[at].take().expect("it lives");
        assert_eq!(Arc::strong_count(&fabric), 1, "the last owner ends it");
    }

    fn freeze(&mut self, at: usize) {
        self.relays[at].freeze(true);
    }

    fn thaw(&mut self, at: usize) {
        self.relays[at].freeze(false);
    }
}

impl Fabric for Relayed {
    fn name(&self) -> &'static str {
        self.fabric.name()
    }
    fn capabilities(&self) -> Capabilities {
        self.fabric.capabilities()
    }
    fn address(&self) -> Bytes {
        self.address.clone()
    }
    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError> {
        self.fabric.add_peer(peer, address)
    }
    fn remove_peer(&self, peer: PeerId) {
        self.fabric.remove_peer(peer);
    }
    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError> {
        self.fabric.register(memory, access)
    }
    fn deregister(&self, key: &RegionKey) {
        self.fabric.deregister(key);
    }
    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted {
        self.fabric.read(op, peer, from, into)
    }
    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted {
        self.fabric.write(op, peer, from, into)
    }
    fn send(&self, peer: PeerId, message: Bytes) -> Posted {
        self.fabric.send(peer, message)
    }
    fn poll(&self, out: &mut Vec<Completion>) -> usize {
        self.fabric.poll(out)
    }
    fn wait(&self, limit: Duration) -> bool {
        self.fabric.wait(limit)
    }
    fn wake(&self) {
        self.fabric.wake();
    }
}

mod mac {
    bridgehead_fabric::laws!(|count, settings| super::group(count, settings, |_| ()));
}

mod crc32c {
    use super::*;
    bridgehead_fabric::laws!(|count, settings| group(count, settings, |options| {
        options.integrity = Integrity::Crc32c;
        options.bulk_lanes = 3;
    }));
}

mod encrypt_over_ipv6 {
    use super::*;
    bridgehead_fabric::laws!(|count, settings| group(count, settings, |options| {
        options.integrity = Integrity::Encrypt;
        options.bind = IpAddr::V6(Ipv6Addr::LOCALHOST);
        options.spin = Duration::ZERO;
    }));
}
