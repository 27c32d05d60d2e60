//! `TcpFabric`: the port's face of the engine. Checks what the caller asks for; owns the fabric's one thread.

use crate::address::{Address, pack_key, unpack_key};
use crate::connection::{Connection, Pending, lock};
use crate::engine::{CALLER_BUDGET, Engine};
use crate::frame::{CHUNK, Header, Kind, MAX_MESSAGE, MAX_WINDOW};
use crate::options::{Integrity, Options};
use crate::peer::{Peer, SMALL, Standing};
use crate::region::Region;
use crate::send::{Item, Stream};
use crate::socket;
use bridgehead_fabric::{
    Access, Capabilities, Completion, Fabric, FabricError, LocalSlice, Memory, OpId, PeerId, Posted, Reason, RegionKey,
    RemoteKey, RemoteSlice,
};
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest read or write.
const MAX_OPERATION: u64 = 1 << 40;

/// The fabric over TCP. Dropping it ends its thread and closes all its sockets.
pub struct TcpFabric {
    engine: Arc<Engine>,
    socket: SocketAddr,
    helper: Option<JoinHandle<()>>,
}

/// An operation whose slices were checked.
struct Checked {
    peer: Arc<Peer>,
    region: Arc<Region>,
    remote: u64,
}

impl TcpFabric {
    /// Listens and starts the thread.
    ///
    /// # Errors
    /// The address cannot be bound, or the system is out of descriptors or threads.
    pub fn start(mut options: Options) -> Result<Self, FabricError> {
        options.max_in_flight = options.max_in_flight.clamp(1, MAX_WINDOW);
        let failed = |what: String| {
            move |error: std::io::Error| FabricError::System {
                what,
                reason: error.to_string(),
            }
        };
        let bind = options.bind;
        let (listener, socket) = socket::listen(bind).map_err(failed(format!("listening on {bind}")))?;
        let engine = Engine::new(options, listener).map_err(failed("setting up the poller".to_owned()))?;
        let engine = Arc::new(engine);
        let helping = engine.clone();
        let helper = std::thread::Builder::new()
            .name("fabric-tcp".to_owned())
            .spawn(move || helping.help())
            .map_err(failed("starting the fabric's thread".to_owned()))?;
        Ok(Self {
            engine,
            socket,
            helper: Some(helper),
        })
    }

    fn check(&self, peer: PeerId, local: &LocalSlice, remote: &RemoteSlice, access: Access) -> Result<Checked, Reason> {
        let region = self
            .engine
            .regions
            .get(local.region.local())
            .ok_or(Reason::UnknownLocalRegion)?;
        if !region.access.contains(access) {
            return Err(Reason::AccessDenied { side: "local" });
        }
        if !region.contains(local.offset, local.len) {
            return Err(Reason::LocalOutOfRange);
        }
        if local.len != remote.len {
            return Err(Reason::LengthsDiffer {
                local: local.len,
                remote: remote.len,
            });
        }
        if local.len > MAX_OPERATION {
            return Err(Reason::TooLong {
                len: local.len,
                limit: MAX_OPERATION,
            });
        }
        let peer = self.engine.known_peer(peer.0).ok_or(Reason::UnknownPeer)?;
        let incarnation = peer
            .state()
            .address
            .map(|address| address.incarnation)
            .ok_or(Reason::UnknownPeer)?;
        match unpack_key(&remote.region.0) {
            Some((remote, of)) if of == incarnation => Ok(Checked { peer, region, remote }),
            _ => Err(Reason::UnknownRemoteRegion),
        }
    }

    fn fail(&self, op: OpId, reason: Reason) -> Posted {
        self.engine.push(Completion::Failed { op, reason });
        Posted::Accepted
    }

    /// Posts an operation: a place, a connection, a number, and what goes on the wire.
    fn post(
        &self,
        op: OpId,
        checked: Checked,
        local: &LocalSlice,
        wire: impl FnOnce(&Checked, u64) -> Item,
        read: bool,
    ) -> Posted {
        if !checked.peer.take_place(self.engine.options.max_in_flight) {
            return Posted::Busy;
        }
        let pending = Pending {
            op: Some(op),
            region: checked.region.clone(),
            offset: local.offset,
            len: local.len,
            received: 0,
            read,
        };
        let begun = self
            .engine
            .lane(&checked.peer, Some(local.len > SMALL))
            .and_then(|connection| {
                let number = connection.begin(pending, self.engine.now())?;
                Ok((connection, number))
            });
        match begun {
            Ok((connection, number)) => self.launch(&connection, &checked, wire(&checked, number)),
            Err(reason) => {
                checked.peer.free_place();
                self.engine.push(Completion::Failed { op, reason });
            }
        }
        Posted::Accepted
    }

    fn launch(&self, connection: &Arc<Connection>, checked: &Checked, item: Item) {
        lock(&connection.tx).push(item);
        if checked.region.is_gone() {
            // It was deregistered between the check and the number; `deregister` may have missed this operation.
            for op in connection.forget(&checked.region) {
                self.engine.push(Completion::Failed {
                    op,
                    reason: Reason::Deregistered,
                });
            }
        }
        self.engine.watch_time();
        self.engine.flush(connection, CALLER_BUDGET);
    }
}

impl Drop for TcpFabric {
    fn drop(&mut self) {
        self.engine.lead.stop();
        if let Some(helper) = self.helper.take()
            && helper.join().is_err()
        {
            tracing::error!("the fabric's thread panicked");
        }
        self.engine.close_all();
    }
}

impl Fabric for TcpFabric {
    fn name(&self) -> &'static str {
        "tcp"
    }

    fn capabilities(&self) -> Capabilities {
        let integrity = self.engine.options.integrity;
        Capabilities {
            one_sided: false,
            needs_remote_progress: true,
            zero_copy: true,
            detects_peer_death: true,
            integrity: integrity != Integrity::Crc32c,
            encrypted: integrity == Integrity::Encrypt,
            max_message: MAX_MESSAGE,
            max_operation: MAX_OPERATION,
            max_in_flight: self.engine.options.max_in_flight,
            preferred_chunk: CHUNK,
        }
    }

    fn address(&self) -> Bytes {
        let (number, incarnation) = (self.engine.options.number, self.engine.incarnation);
        Address {
            number,
            incarnation,
            socket: self.socket,
        }
        .encode()
    }

    fn add_peer(&self, peer: PeerId, address: &[u8]) -> Result<(), FabricError> {
        let wrong = |reason: String| FabricError::Address { peer, reason };
        let address = Address::decode(address).map_err(|error| wrong(error.to_string()))?;
        if address.number != peer.0 {
            return Err(wrong(format!("it is the address of peer {}", address.number)));
        }
        if peer.0 == self.engine.options.number {
            return Err(wrong("that is this side's own number".to_owned()));
        }
        let known = self.engine.peer(peer.0);
        let moved = known.state().address.is_some_and(|before| before != address);
        if moved {
            let reason = Reason::PeerLost("another process has its number now".into());
            self.engine.lose(&known, &reason, Standing::Stranger, true);
        }
        let mut state = known.state();
        state.address = Some(address);
        state.standing = Standing::Known;
        Ok(())
    }

    fn remove_peer(&self, peer: PeerId) {
        if let Some(known) = self.engine.known_peer(peer.0) {
            self.engine.lose(&known, &Reason::PeerRemoved, Standing::Removed, false);
        }
    }

    fn register(&self, memory: Arc<dyn Memory>, access: Access) -> Result<RegionKey, FabricError> {
        let number = self.engine.regions.add(memory, access);
        Ok(RegionKey::new(
            number,
            RemoteKey(pack_key(number, self.engine.incarnation)),
        ))
    }

    fn deregister(&self, key: &RegionKey) {
        if let Some(region) = self.engine.regions.remove(key.local()) {
            self.engine.forget(&region);
        }
    }

    fn read(&self, op: OpId, peer: PeerId, from: RemoteSlice, into: LocalSlice) -> Posted {
        let checked = match self.check(peer, &into, &from, Access::LOCAL_WRITE) {
            Ok(checked) => checked,
            Err(reason) => return self.fail(op, reason),
        };
        let wire = |checked: &Checked, number| {
            let base = Header::new(Kind::Read, number);
            Item::Frame(Header {
                region: checked.remote,
                offset: from.offset,
                total: from.len,
                ..base
            })
        };
        self.post(op, checked, &into, wire, true)
    }

    fn write(&self, op: OpId, peer: PeerId, from: LocalSlice, into: RemoteSlice) -> Posted {
        let checked = match self.check(peer, &from, &into, Access::LOCAL_READ) {
            Ok(checked) if into.offset.checked_add(into.len).is_some() => checked,
            Ok(_) => return self.fail(op, Reason::RemoteOutOfRange),
            Err(reason) => return self.fail(op, reason),
        };
        let wire = |checked: &Checked, number| {
            Item::Stream(Stream {
                kind: Kind::Write,
                op: number,
                region: checked.region.clone(),
                start: from.offset,
                len: from.len,
                sent: 0,
                to: (checked.remote, into.offset),
            })
        };
        self.post(op, checked, &from, wire, false)
    }

    fn send(&self, peer: PeerId, message: Bytes) -> Posted {
        if message.len() > MAX_MESSAGE {
            return Posted::Refused(Reason::TooLong {
                len: message.len() as u64,
                limit: MAX_MESSAGE as u64,
            });
        }
        let Some(known) = self.engine.known_peer(peer.0) else {
            return Posted::Refused(Reason::UnknownPeer);
        };
        let connection = match self.engine.lane(&known, None) {
            Ok(connection) => connection,
            Err(reason) => return Posted::Refused(reason),
        };
        if !self.queue_message(&known, &connection, message) {
            return Posted::Busy;
        }
        self.engine.flush(&connection, CALLER_BUDGET);
        Posted::Accepted
    }

    fn poll(&self, out: &mut Vec<Completion>) -> usize {
        if !self.engine.has_news() {
            self.engine.glance();
        }
        self.engine.take_news(out)
    }

    fn wait(&self, limit: Duration) -> bool {
        self.engine.wait(limit)
    }

    fn wake(&self) {
        self.engine.lead.wake();
    }
}

impl TcpFabric {
    fn queue_message(&self, peer: &Peer, connection: &Connection, message: Bytes) -> bool {
        let mut tx = lock(&connection.tx);
        if tx.is_empty() {
            // Silence counts from now on.
            connection
                .moved
                .store(self.engine.now(), std::sync::atomic::Ordering::Relaxed);
        }
        if !tx.is_empty() && tx.message_bytes() + message.len() > self.engine.options.max_queued {
            peer.starve();
            return false;
        }
        tx.push(Item::Message(message));
        true
    }
}
