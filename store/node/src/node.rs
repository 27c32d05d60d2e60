//! The agent's side of its node's store: publishes what producers wrote, pins what calls take, frees what is released.

use crate::devices::Devices;
use crate::files::{SpillFolder, write_whole};
use crate::index::{INDEX_BYTES, Index, Leases, SLOTS, State as Mark};
use crate::map::{Access, Mapping, sealed};
use crate::numa::{Binding, bind_all};
use crate::remote::Remote;
use crate::server::Server;
use crate::traffic::{Lanes, Traffic};
use crate::verify::{Others, Sums};
use bridgehead_fabric::Fabric;
use bridgehead_spec::ObjectId;
use bridgehead_store_core::{Arena, ClientId, Core, Place, PublishError, SlotId, Usage};
use bridgehead_wire::ObjectRef;
use bytes::Bytes;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;

/// The agent itself as a writer of its arena.
pub(crate) const SELF: ClientId = ClientId(0);
/// Smallest arena.
const LEAST: u64 = 1 << 20;
/// Who waits for another thread's move looks again after so long at the latest.
pub(crate) const TURN: Duration = Duration::from_millis(20);
/// Threads that move bytes for the agent: restores, writes to the run folder.
const MOVERS: usize = 2;

/// What became of an object that was wanted here: where it lies now, with one pin, or why it cannot be had.
pub type Arrival = Result<ObjectRef, String>;

/// What a node's store needs.
#[derive(Debug, Clone)]
pub struct NodeOptions {
    /// The agent whose node this is.
    pub agent: u32,
    /// Where processes of this node connect; in a folder of mode 0700.
    pub socket: PathBuf,
    /// The memory that objects may take, by NUMA node: see [`bridgehead_store_core::divide`].
    pub arenas: Vec<Arena>,
    /// Where objects go that memory has no room for; made when needed, removed at the end.
    pub spill_dir: PathBuf,
    /// How long a put waits for room before it fails.
    pub patience: Duration,
    /// Writers take sums of their objects, which are checked wherever bytes are moved.
    pub verify: bool,
    /// The memory of the node's GPUs, by number.
    pub devices: Vec<bridgehead_store_gpu::Device>,
}

impl NodeOptions {
    /// A store of `limit` bytes in one arena, whose socket (`store.sock`) and disk (`spill/AGENT/life`) lie in `folder`. It has no
    /// GPU, takes no sums, and a put waits 10 seconds for room.
    #[must_use]
    pub fn new(agent: u32, folder: &Path, limit: u64) -> Self {
        Self {
            agent,
            socket: folder.join("store.sock"),
            arenas: vec![Arena::only(limit)],
            spill_dir: folder.join(format!("spill/{agent}/life")),
            patience: Duration::from_secs(10),
            verify: false,
            devices: Vec::new(),
        }
    }
}

/// Why a store cannot begin or go on.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The system.
    #[error("cannot {doing}: {source}")]
    Io {
        /// The verb.
        doing: String,
        /// The system's word.
        source: io::Error,
    },
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// It can never fit.
    #[error("{0}")]
    TooLarge(String),
    /// It is not here.
    #[error("{0}")]
    Gone(String),
    /// Its bytes are not those that were written.
    #[error("{0}")]
    Damaged(String),
}

pub(crate) fn system(doing: impl Into<String>) -> impl FnOnce(io::Error) -> StoreError {
    let doing = doing.into();
    move |source| StoreError::Io { doing, source }
}

/// What the mutex guards: the core, and who is connected.
#[derive(Debug)]
pub(crate) struct State {
    pub core: Core,
    pub leases: HashMap<ClientId, Leases>,
    /// Sums of objects that have one.
    pub sums: Sums,
    /// Views that processes took which are gone.
    pub views: u64,
    /// Released objects that readers still have leases on.
    pub lingering: Vec<ObjectId>,
    /// Why objects cannot be moved to disk, since it last failed.
    pub trouble: Option<String>,
}

impl State {
    pub(crate) fn is_leased(&self, slot: SlotId) -> bool {
        any_holds(&self.leases, slot)
    }
}

/// Whether any process has a lease on the object at `slot`.
pub(crate) fn any_holds(leases: &HashMap<ClientId, Leases>, slot: SlotId) -> bool {
    leases.values().any(|leases| leases.holds(slot))
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub options: NodeOptions,
    pub arena: Mapping,
    pub arena_fd: OwnedFd,
    pub bindings: Vec<Binding>,
    pub index: Index,
    pub index_fd: OwnedFd,
    pub state: Mutex<State>,
    /// Room came free, an object finished moving, or the store ends.
    pub changed: Condvar,
    pub stop: AtomicBool,
    pub files: SpillFolder,
    pub devices: Devices,
    pub lanes: Lanes,
    /// How other nodes are asked for what is damaged here.
    pub elsewhere: Others,
}

pub(crate) type Job = Box<dyn FnOnce(&Shared) + Send>;

/// The store of one node. Ends its threads and removes its files when dropped.
#[derive(Debug)]
pub struct Node {
    shared: Arc<Shared>,
    remote: Option<Remote>,
    server: Option<Server>,
    jobs: Option<Sender<Job>>,
    movers: Vec<std::thread::JoinHandle<()>>,
}

impl Node {
    /// Makes the arena and listens for the node's processes.
    ///
    /// # Errors
    /// The system gives no memory file, no thread or no socket.
    pub fn start(mut options: NodeOptions) -> Result<Self, StoreError> {
        let len = round(&mut options.arenas);
        let arena_fd = sealed("bridgehead-arena", len).map_err(system("make the store's arena"))?;
        let mut core = Core::new(&options.arenas, SLOTS - 1);
        core.set_devices(options.devices.iter().map(crate::devices::limit));
        let index_fd = sealed("bridgehead-index", INDEX_BYTES).map_err(system("make the store's index"))?;
        let arena = Mapping::new(&arena_fd, len, Access::Write).map_err(system("map the store's arena"))?;
        let shared = Arc::new(Shared {
            bindings: bind_all(&arena, &options.arenas),
            arena,
            index: Index::map(&index_fd, Access::Write).map_err(system("map the store's index"))?,
            files: SpillFolder::new(options.spill_dir.clone()),
            devices: Devices::new(&options.devices),
            lanes: Lanes::default(),
            elsewhere: Others::default(),
            state: Mutex::new(State {
                core,
                leases: HashMap::new(),
                sums: Sums::default(),
                views: 0,
                lingering: Vec::new(),
                trouble: None,
            }),
            arena_fd,
            index_fd,
            changed: Condvar::new(),
            stop: AtomicBool::new(false),
            options,
        });
        let server = Server::start(&shared)?;
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let movers = (0..MOVERS).map(|_| mover(&shared, &queue)).collect::<Result<_, _>>()?;
        Ok(Self {
            shared,
            remote: None,
            server: Some(server),
            jobs: Some(jobs),
            movers,
        })
    }

    /// Enters an object that a producer wrote. It is the run's from then on, until `release`.
    ///
    /// # Errors
    /// The range was not granted, or was taken back because its writer died too long ago.
    pub fn publish(&self, object: &ObjectRef) -> Result<(), PublishError> {
        let slot = SlotId(u32::try_from(object.slot).map_err(|_| PublishError::NoSlot)?);
        let mut state = self.shared.lock();
        state.core.publish(object.id(), object.offset, object.len, slot)?;
        state.sums.note(object.id(), object.sum);
        self.shared.index.enter(slot, object.id(), object.offset, object.len);
        Ok(())
    }

    /// Holds an object's bytes in memory until `unpin`: where it lies. `None` where it is not in this node's memory.
    #[must_use]
    pub fn pin(&self, id: ObjectId) -> Option<ObjectRef> {
        let object = self.shared.pin(id)?;
        self.shared.lanes.local.add(object.len);
        Some(object)
    }

    /// What it has moved.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let state = self.shared.lock();
        let now: u64 = state.leases.values().map(|leases| u64::from(leases.taken())).sum();
        self.shared.lanes.traffic(state.views + now)
    }

    /// Gives a pin back.
    pub fn unpin(&self, id: ObjectId) {
        self.shared.unpin(id);
    }

    /// The run needs the object no more.
    pub fn release(&self, id: ObjectId) {
        let mut state = self.shared.lock();
        if state.core.release(id) {
            self.shared.free(&mut state, id);
        }
        drop(state);
        self.shared.devices.bury();
    }

    /// Whether the object is here, in memory or on disk.
    #[must_use]
    pub fn has(&self, id: ObjectId) -> bool {
        self.shared.lock().core.find(id).is_some()
    }

    /// Lets this node read objects of others over `fabric`, and others those of this node.
    ///
    /// # Errors
    /// The arena cannot be registered, or there is no thread.
    pub fn connect(&mut self, fabric: Arc<dyn Fabric>) -> Result<(), StoreError> {
        let Some(jobs) = self.jobs.clone() else { return Ok(()) };
        let remote = Remote::start(&self.shared, fabric, jobs)?;
        *lock(&self.shared.elsewhere) = Some(remote.elsewhere());
        self.remote = Some(remote);
        Ok(())
    }

    /// All nodes of the run, by agent, with the addresses of their fabrics.
    pub fn set_peers(&self, peers: Vec<(u32, Bytes)>) {
        if let Some(remote) = &self.remote {
            remote.set_peers(peers);
        }
    }

    /// Brings an object to this node's memory, from its disk or from the node that the reference names, and pins it.
    /// `done` may be called from any thread.
    pub fn bring(&self, object: &ObjectRef, done: Box<dyn FnOnce(Arrival) + Send>) {
        let id = object.id();
        self.shared.revive(id);
        if let Some(place) = self.pin(id) {
            return done(Ok(place));
        }
        if self.has(id) || object.node == self.shared.options.agent {
            return self.later(Box::new(move |shared| {
                let deadline = Instant::now() + shared.options.patience;
                done(shared.bring(id, deadline).map_err(|e| e.to_string()));
            }));
        }
        match &self.remote {
            Some(remote) => remote.fetch(object.clone(), done),
            None => done(Err(format!(
                "node {} is not connected to node {}",
                self.shared.options.agent, object.node
            ))),
        }
    }

    /// Brings `len` bytes of an object from `offset` on to this node's memory, as an object of its own, and pins that; where
    /// the whole object is here, that is pinned instead (and named with its own id). An object that has a sum comes whole, since
    /// only the whole can be checked. `done` may be called from any thread.
    pub fn bring_range(&self, object: &ObjectRef, offset: u64, len: u64, done: Box<dyn FnOnce(Arrival) + Send>) {
        let inside = offset.checked_add(len).is_some_and(|end| end <= object.len);
        let id = object.id();
        if !inside {
            let end = offset.saturating_add(len);
            return done(Err(format!(
                "bytes {offset} to {end} are not all in object {id}, which has {}",
                object.len
            )));
        }
        self.shared.revive(id);
        if self.has(id) || object.node == self.shared.options.agent || object.sum != 0 {
            return self.bring(object, done);
        }
        match &self.remote {
            Some(remote) => remote.fetch_range(object.clone(), offset, len, done),
            None => done(Err(format!(
                "node {} is not connected to node {}",
                self.shared.options.agent, object.node
            ))),
        }
    }

    /// As [`Node::bring`], into the memory of one of the machine's NUMA nodes: the one with this number modulo how many the store
    /// has memory of. The reference says which that is; where it has no room, the nearest one that has.
    pub fn bring_near(&self, object: &ObjectRef, turn: u32, done: Box<dyn FnOnce(Arrival) + Send>) {
        let Some(jobs) = self.jobs.clone() else { return };
        let (id, shared) = (object.id(), self.shared.clone());
        let arena = turn as usize % self.shared.options.arenas.len();
        let settle = move |arrival: Arrival| match arrival {
            Err(reason) => done(Err(reason)),
            Ok(_) => {
                shared.unpin(id); // What is pinned does not move.
                let job: Job = Box::new(move |shared| {
                    let deadline = Instant::now() + shared.options.patience;
                    done(shared.settle_in(id, arena, deadline).map_err(|e| e.to_string()));
                });
                let _ = jobs.send(job); // The movers are gone only at the end.
            }
        };
        self.bring(object, Box::new(settle));
    }

    /// What was asked of the kernel for the store's arenas, and what it answered; none where there is one arena.
    #[must_use]
    pub fn bindings(&self) -> &[Binding] {
        &self.shared.bindings
    }

    /// The NUMA node of each arena, its used bytes and all its bytes.
    #[must_use]
    pub fn usage_by_arena(&self) -> Vec<(Option<u32>, u64, u64)> {
        let usage = self.shared.lock().core.usage_by_arena();
        let arenas = self.shared.options.arenas.iter();
        arenas
            .zip(usage)
            .map(|(arena, (used, all))| (arena.numa, used, all))
            .collect()
    }

    /// Writes an object to a file: to a temporary name, synced, then renamed. Gives the bytes written. Bytes that are not the
    /// object's are not written: another node's are, where one has it.
    pub fn persist(&self, id: ObjectId, path: &Path, done: Box<dyn FnOnce(Result<u64, String>) + Send>) {
        let path = path.to_owned();
        self.later(Box::new(move |shared| {
            let deadline = Instant::now() + shared.options.patience;
            let result = shared.bring(id, deadline).and_then(|object| {
                let bytes = shared.bytes(&object);
                let intact = shared.verify(id, bytes, "in the memory of this node");
                let written = intact.map(|()| write_whole(&path, bytes));
                shared.unpin(id);
                let written = match written {
                    Err(damaged) => shared.write_copy(&object, &path, damaged, deadline)?,
                    Ok(written) => written,
                };
                written.map_err(system(format!("write {}", path.display())))
            });
            done(result.map_err(|e| e.to_string()));
        }));
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Where work for the movers goes.
    pub(crate) fn movers(&self) -> Option<Sender<Job>> {
        self.jobs.clone()
    }

    fn later(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job); // The movers are gone only at the end.
        }
    }

    /// How full it is.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut state = self.shared.lock();
        self.shared.sweep(&mut state);
        let usage = state.core.usage();
        drop(state);
        self.shared.devices.bury(); // What readers have let go of since.
        usage
    }

    /// Gives memory back to the system that has been free for a while: what is beyond a share kept warm for puts to come.
    pub fn trim(&self) {
        self.shared.trim();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.changed.notify_all();
        drop(lock(&self.shared.elsewhere).take());
        drop(self.remote.take());
        drop(self.server.take());
        drop(self.jobs.take());
        for thread in self.movers.drain(..) {
            let _ = thread.join(); // A panic of theirs was printed when it happened.
        }
    }
}

fn mover(shared: &Arc<Shared>, queue: &Arc<Mutex<Receiver<Job>>>) -> Result<std::thread::JoinHandle<()>, StoreError> {
    let (shared, queue) = (shared.clone(), queue.clone());
    let work = move || {
        loop {
            let job = lock(&queue).recv();
            let Ok(job) = job else { return };
            job(&shared);
        }
    };
    let builder = std::thread::Builder::new().name("store-mover".to_owned());
    builder.spawn(work).map_err(system("start a thread of the store"))
}

/// Makes the arenas at least as large as a store has to be, and whole pages; all their bytes.
fn round(arenas: &mut Vec<Arena>) -> u64 {
    if arenas.is_empty() {
        arenas.push(Arena::only(0));
    }
    let len: u64 = arenas.iter().map(|arena| arena.len).sum();
    let rounded = len.max(LEAST).next_multiple_of(LEAST);
    if let Some(last) = arenas.last_mut() {
        last.len += rounded - len;
    }
    rounded
}

/// A panic elsewhere must not take the store down with it: what the mutex guards is whole between calls.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn reference(&self, id: ObjectId, len: u64, slot: SlotId, offset: u64) -> ObjectRef {
        ObjectRef::new(id, len, self.options.agent, offset, slot.0.into())
    }

    pub(crate) fn pin(&self, id: ObjectId) -> Option<ObjectRef> {
        self.pin_in(&mut self.lock(), id)
    }

    pub(crate) fn pin_in(&self, state: &mut State, id: ObjectId) -> Option<ObjectRef> {
        let (len, slot, extent) = state.core.pin(id)?;
        // It may be on its way to disk; pinned, it stays, so readers may find it again.
        self.index.mark(slot, Mark::Memory);
        let object = self.reference(id, len, slot, extent.offset);
        let sum = state.sums.of(id);
        Some(ObjectRef { sum, ..object })
    }

    /// What the run wants again, and a reader has kept here since it was released, is the run's once more.
    fn revive(&self, id: ObjectId) {
        let mut state = self.lock();
        if let Some(slot) = state.core.revive(id) {
            state.lingering.retain(|other| *other != id);
            if state.core.is_in_memory(id) {
                self.index.mark(slot, Mark::Memory);
            }
        }
    }

    pub(crate) fn unpin(&self, id: ObjectId) {
        let mut state = self.lock();
        if state.core.unpin(id) {
            self.free(&mut state, id);
        }
        drop(state);
        self.devices.bury();
        self.changed.notify_all();
    }

    /// The bytes of a pinned object.
    #[allow(unsafe_code)]
    pub(crate) fn bytes(&self, object: &ObjectRef) -> &[u8] {
        // SAFETY: the caller has pinned the object, so its bytes neither move nor change until it unpins.
        unsafe { self.arena.slice(object.offset, object.len) }
    }

    /// Frees a released object, now or once its last reader has let go.
    pub(crate) fn free(&self, state: &mut State, id: ObjectId) {
        let Some((slot, _)) = state.core.slot(id) else { return };
        self.index.mark(slot, Mark::Closing);
        if state.is_leased(slot) {
            state.lingering.push(id);
            return;
        }
        if let Some(freed) = state.core.free(id) {
            self.index.mark(freed.slot, Mark::Empty);
            if freed.device.is_some() {
                self.devices.remove(id);
            }
            if freed.on_disk {
                self.files.remove(id);
            }
            state.sums.forget(id);
            self.changed.notify_all();
        }
    }

    /// Frees what lingers and has lost its last reader. Says whether anything came free.
    pub(crate) fn sweep(&self, state: &mut State) -> bool {
        let before = state.lingering.len();
        for id in std::mem::take(&mut state.lingering) {
            self.free(state, id);
        }
        let State { core, leases, .. } = state;
        let left = core.forget_left(|slot| any_holds(leases, slot));
        for slot in &left {
            self.index.mark(*slot, Mark::Empty);
        }
        state.lingering.len() < before || !left.is_empty()
    }

    /// Pins an object, read back into the arena first if it is away. For those who were asked by another node: they ask nobody, so
    /// that two nodes with damaged files do not ask each other for ever.
    pub(crate) fn bring_own(&self, id: ObjectId, deadline: Instant) -> Result<ObjectRef, StoreError> {
        loop {
            if let Some(object) = self.pin(id) {
                return Ok(object);
            }
            let mut state = self.lock();
            match state.core.find(id) {
                None => {
                    return Err(StoreError::Gone(format!(
                        "object {id} is not in the store of this node"
                    )));
                }
                Some((len, _, Place::Away(_))) => {
                    drop(state);
                    self.read_back(id, len, deadline)?;
                }
                Some(_) => {
                    let wait = deadline.saturating_duration_since(Instant::now());
                    if wait.is_zero() || self.is_stopping() {
                        return Err(StoreError::Full(format!(
                            "object {id} did not come back from disk in time"
                        )));
                    }
                    state = self
                        .changed
                        .wait_timeout(state, wait)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0;
                    drop(state);
                }
            }
        }
    }
}
