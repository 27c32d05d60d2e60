//! A simulated network of fabrics in one process, driven by a seed: delays, reordering, loss, killed and frozen peers.
//!
//! Time is virtual: it moves to the next event whenever somebody waits or polls, so nothing takes real time, and one thread that
//! drives a network sees the same run for the same seed. Owns no thread. Bytes move in parts, so that things happen in between.

use crate::{
    Access, Capabilities, Completion, Fabric, FabricError, LocalSlice, Memory, OpId, PeerId, Posted, RegionKey,
    RemoteKey, RemoteSlice,
};
use bytes::Bytes;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

mod world;

use world::{Region, World};

/// Longest message, as over TCP.
const MAX_MESSAGE: usize = 256 << 10;
/// Longest read or write.
const MAX_OPERATION: u64 = 1 << 40;
/// Bytes that move in one event.
const PART: u64 = 256 << 10;

/// How the network behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Shortest and longest time of a packet on its way; packets of different operations overtake each other within it.
    pub delay: (Duration, Duration),
    /// Packets lost in a thousand; each is sent again after `timeout / 8`.
    pub loss: u32,
    /// After so many losses of one packet in a row its peer is lost.
    pub retries: u32,
    /// After how long an unanswered peer is lost.
    pub timeout: Duration,
    /// Operations in flight with one peer before `Busy`.
    pub max_in_flight: usize,
    /// Bytes of messages that one peer may have waiting, on the way or not yet polled, before `Busy`.
    pub max_queued: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            delay: (Duration::from_micros(5), Duration::from_micros(500)),
            loss: 10,
            retries: 5,
            timeout: Duration::from_secs(30),
            max_in_flight: 64,
            max_queued: 1 << 20,
        }
    }
}

struct Shared {
    world: Mutex<World>,
    changed: Condvar,
}

impl Shared {
    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A network of fabrics 0, 1, 2, ...
pub struct Network {
    shared: Arc<Shared>,
}

impl Network {
    /// `count` fabrics that do not know each other yet.
    #[must_use]
    pub fn new(seed: u64, count: usize, options: Options) -> Self {
        let world = Mutex::new(World::new(seed, count, options));
        Self {
            shared: Arc::new(Shared {
                world,
                changed: Condvar::new(),
            }),
        }
    }

    /// The fabric of peer `at`.
    #[must_use]
    pub fn fabric(&self, at: u32) -> Arc<dyn Fabric> {
        Arc::new(SimFabric {
            shared: self.shared.clone(),
            at: PeerId(at),
        })
    }

    /// Ends a peer, as if its process were killed: the others notice as soon as the news reaches them.
    pub fn kill(&self, at: u32) {
        self.shared.world().kill(PeerId(at));
        self.shared.changed.notify_all();
    }

    /// Stops a peer: what is sent to it or by it stays on the way.
    pub fn freeze(&self, at: u32) {
        self.shared.world().freeze(PeerId(at), true);
    }

    /// Lets it go on.
    pub fn thaw(&self, at: u32) {
        self.shared.world().freeze(PeerId(at), false);
        self.shared.changed.notify_all();
    }

    /// The virtual time.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.shared.world().now()
    }
}

struct SimFabric {
    shared: Arc<Shared>,
    at: PeerId,
}

impl SimFabric {
    /// Does something to the world that others may wait for.
    fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let result = change(&mut self.shared.world());
        self.shared.changed.notify_all();
        result
    }
}

impl Fabric for SimFabric {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            one_sided: true,
            needs_remote_progress: false,
            zero_copy: true,
            detects_peer_death: true,
            integrity: true,
            encrypted: false,
            max_message: MAX_MESSAGE,
            max_operation: MAX_OPERATION,
            max_in_flight: self.shared.world().options.max_in_flight,
            preferred_chunk: usize::try_from(PART).unwrap_or(usize::MAX),
        }
    }

    fn address(&self) -> Bytes {
        Bytes::copy_from_slice(&self.at.0.to_le_bytes())
    }

    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError> {
        if address != peer.0.to_le_bytes() || peer == self.at {
            let reason = "a simulated address is the peer's number in four bytes, and not one's own".to_owned();
            return Err(FabricError::Address { peer, reason });
        }
        self.change(|world| world.add_peer(self.at, peer));
        Ok(())
    }

    fn remove_peer(&self, peer: PeerId) {
        self.change(|world| world.remove_peer(self.at, peer));
    }

    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError> {
        let number = self.change(|world| world.register(self.at, Region { memory, access }));
        Ok(RegionKey::new(
            number,
            RemoteKey(Bytes::copy_from_slice(&number.to_le_bytes())),
        ))
    }

    fn deregister(&self, key: &RegionKey) {
        self.change(|world| world.deregister(self.at, key.local()));
    }

    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted {
        self.change(|world| world.post(self.at, op, peer, &into, &from, true))
    }

    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted {
        self.change(|world| world.post(self.at, op, peer, &from, &into, false))
    }

    fn send(&self, peer: PeerId, message: Bytes) -> Posted {
        self.change(|world| world.send(self.at, peer, message))
    }

    fn poll(&self, out: &mut Vec<Completion>) -> usize {
        self.change(|world| {
            // Whoever only polls moves time as well.
            if !world.has_news(self.at) {
                world.step();
            }
            world.take_news(self.at, out)
        })
    }

    fn wait(&self, limit: Duration) -> bool {
        let end = Instant::now().checked_add(limit);
        let mut world = self.shared.world();
        loop {
            if world.take_wake(self.at) || world.has_news(self.at) {
                return true;
            }
            let rest = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()));
            if rest.is_zero() {
                return false;
            }
            if world.step() {
                self.shared.changed.notify_all();
            } else {
                world = self
                    .shared
                    .changed
                    .wait_timeout(world, rest)
                    .unwrap_or_else(PoisonError::into_inner)
                    .0;
            }
        }
    }

    fn wake(&self) {
        self.change(|world| world.wake(self.at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::{Group, Settings};
    use crate::{Buffer, Reason};

    struct Simulated {
        network: Network,
    }

    impl Group for Simulated {
        fn fabric(&self, at: usize) -> Arc<dyn Fabric> {
            self.network.fabric(u32::try_from(at).expect("few"))
        }
        fn kill(&mut self, at: usize) {
            self.network.kill(u32::try_from(at).expect("few"));
        }
        fn freeze(&mut self, at: usize) {
            self.network.freeze(u32::try_from(at).expect("few"));
        }
        fn thaw(&mut self, at: usize) {
            self.network.thaw(u32::try_from(at).expect("few"));
        }
    }

    fn group(count: usize, settings: &Settings, loss: u32) -> Box<dyn Group> {
        let options = Options {
            loss,
            timeout: settings.timeout,
            max_in_flight: settings.max_in_flight,
            max_queued: settings.max_queued,
            ..Options::default()
        };
        Box::new(Simulated {
            network: Network::new(11, count, options),
        })
    }

    mod calm {
        crate::laws!(|count, settings| super::group(count, settings, 0));
    }

    mod lossy {
        crate::laws!(|count, settings| super::group(count, settings, 20));
    }

    /// What one thread sees of a run, with its times.
    fn trace(seed: u64, loss: u32) -> Vec<(Duration, Completion)> {
        let network = Network::new(
            seed,
            2,
            Options {
                loss,
                ..Options::default()
            },
        );
        let (a, b) = (network.fabric(0), network.fabric(1));
        a.add_peer(PeerId(1), &b.address()).expect("an address");
        let from = b
            .register(Arc::new(Buffer::zeroed(1 << 20)), Access::REMOTE_READ)
            .expect("memory");
        let into = a
            .register(Arc::new(Buffer::zeroed(1 << 20)), Access::LOCAL_WRITE)
            .expect("memory");
        for at in 0..20 {
            let len = at * 50_000;
            let from = RemoteSlice {
                region: from.remote(),
                offset: 0,
                len,
            };
            let into = LocalSlice {
                region: into.clone(),
                offset: 0,
                len,
            };
            assert_eq!(a.read(OpId(at), PeerId(1), from, into), Posted::Accepted);
        }
        let mut seen = Vec::new();
        let mut news = Vec::new();
        while seen.len() < 20 && a.wait(Duration::from_secs(10)) {
            a.poll(&mut news);
            seen.extend(news.drain(..).map(|completion| (network.now(), completion)));
        }
        seen
    }

    #[test]
    fn the_same_seed_gives_the_same_run_and_operations_overtake_each_other() {
        let first = trace(1, 10);
        assert_eq!(first, trace(1, 10));
        assert_ne!(first, trace(2, 10));
        let order: Vec<&Completion> = first.iter().map(|(_, completion)| completion).collect();
        assert!(
            order
                .windows(2)
                .any(|two| format!("{:?}", two[0]) > format!("{:?}", two[1])),
            "{order:?}"
        );
    }

    #[test]
    fn loss_that_goes_on_becomes_the_loss_of_the_peer() {
        let seen = trace(1, 1000);
        let failed = |completion: &Completion| {
            matches!(
                completion,
                Completion::Failed {
                    reason: Reason::PeerLost(_),
                    ..
                }
            )
        };
        assert!(seen.iter().any(|(_, completion)| failed(completion)), "{seen:?}");
        let lost = |completion: &Completion| matches!(completion, Completion::PeerLost { .. });
        assert!(
            seen.iter().any(|(_, completion)| lost(completion)) || seen.len() == 20,
            "{seen:?}"
        );
    }
}
