//! Several fabrics as one, chosen for each pair of peers: the first in order that both have. Owns the choice, and the bytes of addresses and
//! region keys of several fabrics together (`docs/formats/data-frames.md`). Which fabrics there are is the composition root's to say.

mod relay;
mod tagged;

use crate::{
    Access, Capabilities, Completion, Fabric, FabricError, LocalSlice, Memory, OpId, PeerId, Posted, RegionKey,
    RemoteKey, RemoteSlice,
};
use bytes::Bytes;
use relay::Relay;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

/// Several fabrics as one. All sides must have them in the same order.
pub struct Choice {
    fabrics: Vec<Arc<dyn Fabric>>,
    required: bool,
    /// Which fabric a peer is reached by.
    peers: RwLock<HashMap<PeerId, usize>>,
    /// A region's key in each fabric, by its number here.
    regions: RwLock<HashMap<u64, Vec<RegionKey>>>,
    next: AtomicU64,
    /// They wake whoever waits for the first fabric when another has news.
    relays: Vec<Relay>,
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

impl Choice {
    /// Chooses among `fabrics`, the best first. If `required`, a peer that cannot be reached by the first is an error.
    ///
    /// # Errors
    /// A thread cannot be started.
    ///
    /// # Panics
    /// There is no fabric.
    pub fn new(fabrics: Vec<Arc<dyn Fabric>>, required: bool) -> std::io::Result<Self> {
        assert!(!fabrics.is_empty(), "there is something to choose among");
        let others = fabrics.iter().skip(1);
        let relays = others.map(|other| Relay::start(other.clone(), fabrics[0].clone()));
        let relays = relays.collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self {
            fabrics,
            required,
            peers: RwLock::default(),
            regions: RwLock::default(),
            next: AtomicU64::new(0),
            relays,
        })
    }

    /// The name of the fabric that a peer is reached by, if it was added.
    #[must_use]
    pub fn chosen(&self, peer: PeerId) -> Option<&'static str> {
        read(&self.peers).get(&peer).map(|at| self.fabrics[*at].name())
    }

    /// The fabric for a peer; for one that is not known the last, which says so itself.
    fn of(&self, peer: PeerId) -> &Arc<dyn Fabric> {
        let at = read(&self.peers).get(&peer).copied();
        &self.fabrics[at.unwrap_or(self.fabrics.len() - 1)]
    }

    /// The first fabric that the peer has too, and the peer's address there.
    fn choose(&self, peer: PeerId, address: &[u8]) -> Result<(usize, Bytes), FabricError> {
        let wrong = |reason: String| FabricError::Address { peer, reason };
        let theirs =
            tagged::decode(address).ok_or_else(|| wrong("it is no list of addresses of this version".into()))?;
        let common = self.fabrics.iter().enumerate().find_map(|(at, fabric)| {
            let address = tagged::find(&theirs, fabric.name())?;
            Some((at, address))
        });
        let names = || {
            theirs
                .iter()
                .map(|(name, _)| name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };
        let first = self.fabrics[0].name();
        match common {
            Some((0, address)) => Ok((0, address)),
            Some(_) if self.required => Err(wrong(format!("{first} is required, and the peer only has {}", names()))),
            Some((at, address)) => {
                tracing::info!(%peer, transport = self.fabrics[at].name(), "chosen: the peer has no {first}");
                Ok((at, address))
            }
            None => Err(wrong(format!("the peer only has {}", names()))),
        }
    }

    /// A slice of a region here as a slice of the same region in a fabric; of a region that is not there as one that nobody knows.
    fn local(&self, fabric: &dyn Fabric, slice: LocalSlice) -> LocalSlice {
        let at = self.fabrics.iter().position(|known| known.name() == fabric.name());
        let key = at.and_then(|at| read(&self.regions).get(&slice.region.local())?.get(at).cloned());
        let nobody = || RegionKey::new(u64::MAX, RemoteKey(Bytes::new()));
        LocalSlice {
            region: key.unwrap_or_else(nobody),
            ..slice
        }
    }
}

/// A slice of a peer's region as the fabric knows it.
fn remote(fabric: &dyn Fabric, slice: RemoteSlice) -> RemoteSlice {
    let key = tagged::decode(&slice.region.0).and_then(|keys| tagged::find(&keys, fabric.name()));
    RemoteSlice {
        region: RemoteKey(key.unwrap_or_default()),
        ..slice
    }
}

impl Fabric for Choice {
    fn name(&self) -> &'static str {
        self.fabrics[0].name()
    }

    /// What all of them can do.
    fn capabilities(&self) -> Capabilities {
        let all = self.fabrics.iter().map(|fabric| fabric.capabilities());
        let both = |a: Capabilities, b: Capabilities| Capabilities {
            one_sided: a.one_sided && b.one_sided,
            needs_remote_progress: a.needs_remote_progress || b.needs_remote_progress,
            zero_copy: a.zero_copy && b.zero_copy,
            detects_peer_death: a.detects_peer_death && b.detects_peer_death,
            integrity: a.integrity && b.integrity,
            encrypted: a.encrypted && b.encrypted,
            max_message: a.max_message.min(b.max_message),
            max_operation: a.max_operation.min(b.max_operation),
            max_in_flight: a.max_in_flight.min(b.max_in_flight),
            preferred_chunk: a.preferred_chunk.max(b.preferred_chunk),
        };
        all.reduce(both).expect("there is a fabric")
    }

    fn address(&self) -> Bytes {
        tagged::encode(self.fabrics.iter().map(|fabric| (fabric.name(), fabric.address())))
    }

    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError> {
        let (at, address) = self.choose(peer, address)?;
        self.fabrics[at].add_peer(peer, &address)?;
        let before = write(&self.peers).insert(peer, at);
        if let Some(before) = before.filter(|before| *before != at) {
            self.fabrics[before].remove_peer(peer);
        }
        Ok(())
    }

    fn remove_peer(&self, peer: PeerId) {
        // It may have come by itself over any of them.
        self.fabrics.iter().for_each(|fabric| fabric.remove_peer(peer));
    }

    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError> {
        let mut keys = Vec::new();
        for fabric in &self.fabrics {
            match fabric.register(memory.clone(), access) {
                Ok(key) => keys.push(key),
                Err(error) => {
                    self.fabrics
                        .iter()
                        .zip(&keys)
                        .for_each(|(fabric, key)| fabric.deregister(key));
                    return Err(error);
                }
            }
        }
        let named = self
            .fabrics
            .iter()
            .zip(&keys)
            .map(|(fabric, key)| (fabric.name(), key.remote().0));
        let (number, remote) = (
            self.next.fetch_add(1, Ordering::Relaxed),
            RemoteKey(tagged::encode(named)),
        );
        write(&self.regions).insert(number, keys);
        Ok(RegionKey::new(number, remote))
    }

    fn deregister(&self, key: &RegionKey) {
        let keys = write(&self.regions).remove(&key.local());
        for (fabric, key) in self.fabrics.iter().zip(keys.into_iter().flatten()) {
            fabric.deregister(&key);
        }
    }

    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted {
        let fabric = self.of(peer);
        fabric.read(op, peer, remote(&**fabric, from), self.local(&**fabric, into))
    }

    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted {
        let fabric = self.of(peer);
        fabric.write(op, peer, self.local(&**fabric, from), remote(&**fabric, into))
    }

    fn send(&self, peer: PeerId, message: Bytes) -> Posted {
        self.of(peer).send(peer, message)
    }

    fn poll(&self, out: &mut Vec<Completion>) -> usize {
        let count = self.fabrics.iter().map(|fabric| fabric.poll(out)).sum();
        self.relays.iter().for_each(Relay::polled);
        count
    }

    fn wait(&self, limit: Duration) -> bool {
        self.fabrics[0].wait(limit)
    }

    fn wake(&self) {
        self.fabrics[0].wake();
    }
}

#[cfg(test)]
mod tests;
