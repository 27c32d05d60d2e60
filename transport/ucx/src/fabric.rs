//! `UcxFabric`: the port's face of the state. Owns the fabric's one thread, and the waiting of `remove_peer` and `deregister`.

use crate::codec::{Address, Who, pack_key};
use crate::context::{Context, Device, closes_unsafely};
use crate::core::{Core, MAX_MESSAGE};
use crate::drive::Shared;
use crate::options::{Moving, Options};
use crate::peer::Standing;
use crate::regions::Region;
use crate::worker::Worker;
use bridgehead_fabric::{
    Access, Capabilities, Completion, Fabric, FabricError, LocalSlice, Memory, OpId, PeerId, Posted, Reason, RegionKey,
    RemoteKey, RemoteSlice,
};
use bytes::Bytes;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thiserror::Error;

/// Longest read or write. UCX says nothing of a transfer until it is over, so that shorter ones show sooner that a peer lives.
pub(crate) const MAX_OPERATION: u64 = 64 << 20;
/// From here on a split costs next to nothing.
const CHUNK: usize = 8 << 20;
/// How long UCX may take to let go of what it was told to give up.
const LET_GO: Duration = Duration::from_secs(10);
/// How long the end waits for last words to leave.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// Answers that did not move for so long do not move at all.
const QUIET: Duration = Duration::from_millis(250);
/// How long they may take in all.
const SETTLE: Duration = Duration::from_secs(5);

/// UCX is not there, or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct CannotStart(String);

/// The fabric over UCX. Dropping it tells the peers, ends its thread and closes all that is UCX's.
pub struct UcxFabric {
    shared: Arc<Shared>,
    context: Arc<Context>,
    me: Who,
    address: Bytes,
    max_in_flight: usize,
    timeout: Duration,
    moving: Moving,
    /// Bytes are moved by devices.
    rdma: bool,
    helper: Option<JoinHandle<()>>,
    /// `remove_peer` and `add_peer` of the same peer do not overlap.
    peering: Mutex<()>,
}

impl UcxFabric {
    /// Opens libucp, and starts the thread.
    ///
    /// # Errors
    /// libucp is not there, or it cannot be set up here.
    pub fn start(mut options: Options) -> Result<Self, CannotStart> {
        options.max_in_flight = options.max_in_flight.max(1);
        let (max_in_flight, timeout, moving) = (options.max_in_flight, options.timeout, options.moving);
        let context = Context::new(
            &options.libraries,
            options.transports.as_deref(),
            options.devices.as_deref(),
            moving,
        )
        .map_err(CannotStart)?;
        let rdma = moving == Moving::OneSided && context.devices().iter().any(Device::is_rdma);
        let me = Who {
            number: options.number,
            incarnation: getrandom::u64().map_err(|e| CannotStart(format!("drawing a random number: {e}")))?,
        };
        let worker = Worker::new(context.clone(), MAX_MESSAGE).map_err(CannotStart)?;
        let core = Core::new(options, me, worker).map_err(CannotStart)?;
        let address = core.address.clone();
        let shared = Arc::new(Shared::new(core).map_err(|e| CannotStart(format!("an event descriptor: {e}")))?);
        let helping = shared.clone();
        let helper = std::thread::Builder::new()
            .name("fabric-ucx".to_owned())
            .spawn(move || helping.help())
            .map_err(|e| CannotStart(format!("starting the fabric's thread: {e}")))?;
        Ok(Self {
            shared,
            context,
            me,
            address,
            max_in_flight,
            timeout,
            moving,
            rdma,
            helper: Some(helper),
            peering: Mutex::new(()),
        })
    }

    /// Release of UCX: major, minor, patch.
    #[must_use]
    pub fn version(&self) -> (u32, u32, u32) {
        self.context.ucp.version()
    }

    /// What UCX could use here.
    #[must_use]
    pub fn devices(&self) -> Vec<Device> {
        self.context.devices()
    }

    /// The lanes that UCX has chosen for a peer, in its own words; nothing before anything was asked of the peer.
    #[must_use]
    pub fn lanes(&self, peer: PeerId) -> Option<String> {
        self.shared.with(|core| core.lanes(peer))
    }

    /// Stops all progress of this fabric as if its process were stopped, or lets it go on; for tests of what its peers do then.
    #[doc(hidden)]
    pub fn hold(&self, held: bool) {
        self.shared.hold(held);
    }

    /// Says anything to a peer, as one might that knows the run's key and lies: a kind of message by its number, and what it carries. For tests of
    /// what its receiver does then. False where there is no such kind.
    #[doc(hidden)]
    pub fn say(&self, peer: PeerId, kind: u8, a: u64, payload: Bytes) -> bool {
        self.shared.with(|core| core.say(peer.0, kind, a, payload))
    }

    /// Gives answers that UCX itself makes to peers the time to leave, where it cannot close an endpoint that has some.
    fn settle(&self) {
        let answers = self.moving == Moving::OneSided && closes_unsafely(self.version());
        if !answers || self.shared.is_held() {
            return;
        }
        let mut moved = Instant::now();
        self.shared.until(SETTLE, |core| {
            if core.turn() {
                moved = Instant::now();
            }
            moved.elapsed() >= QUIET
        });
    }

    /// Gives a peer up, and waits until nothing of it is pending.
    fn end_peer(&self, peer: PeerId, reason: &Reason, after: &Standing, tell: bool) {
        self.settle();
        let gone = self.shared.until(LET_GO, |core| {
            core.lose(peer.0, reason, after.clone(), true, tell);
            core.turn();
            !core.is_dying(peer.0) && core.peers.get(&peer.0).is_none_or(|peer| peer.standing == *after)
        });
        if !gone {
            tracing::error!(%peer, "UCX does not let go of operations with a peer that was removed");
        }
    }
}

impl Drop for UcxFabric {
    fn drop(&mut self) {
        self.shared.stop();
        if let Some(helper) = self.helper.take()
            && helper.join().is_err()
        {
            tracing::error!("the fabric's thread panicked");
        }
        self.settle();
        self.shared.with(Core::leave);
        self.shared.until(LAST_WORDS, |core| !core.is_leaving());
        self.shared.with(Core::shut);
        if !self.shared.until(LET_GO, |core| !core.is_busy()) {
            tracing::error!("UCX still works on memory that it has to give back");
        }
    }
}

impl Fabric for UcxFabric {
    fn name(&self) -> &'static str {
        "ucx"
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            one_sided: self.rdma,
            needs_remote_progress: !self.rdma,
            zero_copy: self.rdma,
            detects_peer_death: true,
            integrity: self.moving == Moving::Messages,
            encrypted: false,
            max_message: MAX_MESSAGE,
            max_operation: MAX_OPERATION,
            max_in_flight: self.max_in_flight,
            preferred_chunk: CHUNK,
        }
    }

    fn address(&self) -> Bytes {
        self.address.clone()
    }

    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError> {
        let wrong = |reason: String| FabricError::Address { peer, reason };
        let address = Address::decode(address).map_err(|error| wrong(error.to_string()))?;
        if address.who.number != peer.0 {
            return Err(wrong(format!("it is the address of peer {}", address.who.number)));
        }
        if peer.0 == self.me.number {
            return Err(wrong("that is this side's own number".to_owned()));
        }
        let _one = crate::drive::lock(&self.peering);
        // What is pending with a peer that is being given up ends first.
        self.shared.until(LET_GO, |core| !core.is_dying(peer.0));
        let moved = self
            .shared
            .with(|core| core.peers.get(&peer.0).is_some_and(|known| known.who != address.who));
        if moved {
            let reason = Reason::PeerLost("another process has its number now".into());
            self.end_peer(peer, &reason, &Standing::Lost(reason.clone()), true);
        }
        self.shared.with(|core| core.know(address, Standing::Known));
        Ok(())
    }

    fn remove_peer(&self, peer: PeerId) {
        let _one = crate::drive::lock(&self.peering);
        if self.shared.with(|core| core.peers.contains_key(&peer.0)) {
            self.end_peer(peer, &Reason::PeerRemoved, &Standing::Removed, false);
        }
    }

    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError> {
        let region = match self.moving {
            Moving::OneSided => Region::new(&self.context, memory, access),
            Moving::Messages => Ok(Region::unmapped(memory, access)),
        };
        let region = region.map_err(|reason| FabricError::System {
            what: "registering memory".to_owned(),
            reason,
        })?;
        let number = self.shared.with(|core| core.add_region(region));
        Ok(RegionKey::new(number, RemoteKey(pack_key(number, self.me.incarnation))))
    }

    fn deregister(&self, key: &RegionKey) {
        let number = key.local();
        let Some(region) = self.shared.with(|core| core.retire(number)) else {
            return;
        };
        if !self.shared.until(self.timeout, |core| !core.is_held(number, &region)) {
            self.shared
                .with(|core| core.lose_holders(number, &region, self.timeout));
            self.shared.until(LET_GO, |core| !core.is_held(number, &region));
        }
        self.shared.with(|core| core.release(number, region));
    }

    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted {
        self.shared.with(|core| core.post(op, peer, true, &into, &from))
    }

    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted {
        self.shared.with(|core| core.post(op, peer, false, &from, &into))
    }

    fn send(&self, peer: PeerId, message: Bytes) -> Posted {
        if message.len() > MAX_MESSAGE {
            return Posted::Refused(Reason::TooLong {
                len: message.len() as u64,
                limit: MAX_MESSAGE as u64,
            });
        }
        self.shared.with(|core| core.send(peer.0, message))
    }

    fn poll(&self, out: &mut Vec<Completion>) -> usize {
        self.shared.take_news(out)
    }

    fn wait(&self, limit: Duration) -> bool {
        self.shared.wait(limit)
    }

    fn wake(&self) {
        self.shared.wake();
    }
}
