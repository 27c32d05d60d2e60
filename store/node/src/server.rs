//! The store's socket: one thread listens, one serves each process of the node. Owns the connections; what is asked for is
//! done in `room` and `node`. A connection that ends takes its process's leases with it at once.

use crate::devices::Views;
use crate::index::{LEASE_BYTES, Leases};
use crate::map::sealed;
use crate::node::{Shared, StoreError, system};
use crate::protocol::{Kind, Message, VERSION, new_socket, receive, send};
use bridgehead_spec::ObjectId;
use bridgehead_store_core::ClientId;
use rustix::net::{Shutdown, SocketAddrUnix, SocketFlags, accept_with, bind, listen, shutdown};
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What a dead process wrote may be named by a message of its that is still on its way, by another socket: its ranges are
/// kept for it so long.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Most places of the index lent at once.
const MOST_SLOTS: u64 = 256;

/// The listening socket and the threads behind it.
#[derive(Debug)]
pub(crate) struct Server {
    socket: Arc<OwnedFd>,
    connections: Arc<Connections>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

type Connections = Mutex<HashMap<ClientId, (Arc<OwnedFd>, JoinHandle<()>)>>;

impl Server {
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let path = &shared.options.socket;
        let doing = || format!("listen on {}", path.display());
        let _ = std::fs::remove_file(path); // Left by an agent of the same socket folder; mostly there is none.
        let address = SocketAddrUnix::new(path.as_path())
            .map_err(io::Error::from)
            .map_err(system(doing()))?;
        let socket = new_socket().map_err(system(doing()))?;
        bind(&socket, &address)
            .map_err(io::Error::from)
            .map_err(system(doing()))?;
        listen(&socket, 128).map_err(io::Error::from).map_err(system(doing()))?;
        let (socket, connections) = (Arc::new(socket), Arc::new(Connections::default()));
        let thread = {
            let (shared, socket, connections) = (shared.clone(), socket.clone(), connections.clone());
            let builder = std::thread::Builder::new().name("store-accept".to_owned());
            builder
                .spawn(move || accept_all(&shared, &socket, &connections))
                .map_err(system("start a thread of the store"))?
        };
        Ok(Self {
            socket,
            connections,
            thread: Some(thread),
            shared: shared.clone(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = shutdown(&self.socket, Shutdown::Both); // Wakes the listener.
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A panic of its was printed when it happened.
        }
        let all = std::mem::take(&mut *self.connections.lock().unwrap_or_else(PoisonError::into_inner));
        for (socket, thread) in all.into_values() {
            let _ = shutdown(&socket, Shutdown::Both); // It may be closed already.
            self.shared.changed.notify_all();
            let _ = thread.join();
        }
        let _ = std::fs::remove_file(&self.shared.options.socket); // Its folder goes too, in most cases.
    }
}

fn accept_all(shared: &Arc<Shared>, socket: &OwnedFd, connections: &Arc<Connections>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    while !shared.is_stopping() {
        let Ok(peer) = accept_with(socket, SocketFlags::CLOEXEC) else {
            if shared.is_stopping() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10)); // Out of descriptors: others may close theirs.
            continue;
        };
        if !is_same_user(&peer) {
            tracing::warn!("refused a process of another user on the store's socket");
            continue;
        }
        let client = ClientId(NEXT.fetch_add(1, Ordering::Relaxed));
        let peer = Arc::new(peer);
        let work = {
            let (shared, peer, connections) = (shared.clone(), peer.clone(), connections.clone());
            move || {
                serve(&shared, &peer, client);
                // At the end `drop` has taken this thread out of the table and waits for it.
                connections
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .remove(&client);
            }
        };
        let mut table = connections.lock().unwrap_or_else(PoisonError::into_inner);
        match std::thread::Builder::new().name("store-serve".to_owned()).spawn(work) {
            Ok(thread) => drop(table.insert(client, (peer, thread))),
            Err(error) => tracing::error!(%error, "cannot serve a process that wants the store"),
        }
    }
}

fn is_same_user(socket: &OwnedFd) -> bool {
    let theirs = rustix::net::sockopt::socket_peercred(socket).map(|cred| cred.uid);
    theirs.is_ok_and(|uid| uid == rustix::process::geteuid())
}

/// Serves one process until it is gone, then frees what it held.
fn serve(shared: &Shared, socket: &OwnedFd, client: ClientId) {
    let mut pins = HashMap::new();
    let mut views = Views::default();
    // A bug that panics here must end this connection, not leave its process waiting for an answer for ever.
    let talk = std::panic::AssertUnwindSafe(|| converse(shared, socket, client, &mut pins, &mut views));
    if let Ok(Err(error)) = std::panic::catch_unwind(talk) {
        tracing::debug!(%error, "a process left the store's socket");
    }
    let _ = shutdown(socket, Shutdown::Both); // Mostly it is closed already.
    for (id, count) in pins {
        (0..count).for_each(|_| shared.unpin(id));
    }
    views.end(shared);
    let mut state = shared.lock();
    if let Some(leases) = state.leases.remove(&client) {
        state.views += u64::from(leases.taken());
    }
    drop(state);
    shared.changed.notify_all();
    let end = Instant::now() + LAST_WORDS;
    let mut state = shared.lock();
    while !shared.is_stopping() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        state = shared
            .changed
            .wait_timeout(state, left)
            .unwrap_or_else(PoisonError::into_inner)
            .0;
    }
    state.core.client_gone(client);
    drop(state);
    shared.changed.notify_all();
}

fn converse(
    shared: &Shared,
    socket: &OwnedFd,
    client: ClientId,
    pins: &mut HashMap<ObjectId, u32>,
    views: &mut Views,
) -> Result<(), StoreError> {
    let lost = || system("speak to a process");
    while let Some((message, _)) = receive(socket).map_err(lost())? {
        let answer = match message.kind {
            Kind::Hello => {
                hello(shared, socket, client, &message)?;
                continue;
            }
            Kind::Grant => grant(shared, client, &message),
            Kind::Open => open(shared, &message, pins),
            Kind::GiveBack => {
                shared.lock().core.give_back(client, message.extent());
                shared.changed.notify_all();
                continue;
            }
            Kind::Close => {
                close(shared, message.id(), pins);
                continue;
            }
            Kind::View => match views.take(shared, &message) {
                Ok((answer, beside)) => {
                    let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
                    send(socket, &answer, &beside).map_err(lost())?;
                    continue;
                }
                Err(error) => Err(error),
            },
            Kind::Unview => {
                views.give_back(shared, message.id());
                continue;
            }
            Kind::Refused => continue, // Only an agent refuses.
        };
        let answer = answer.unwrap_or_else(|error| {
            let never = matches!(
                error,
                StoreError::TooLarge(_) | StoreError::Gone(_) | StoreError::Damaged(_)
            );
            Message::refused(never, &error.to_string())
        });
        send(socket, &answer, &[]).map_err(lost())?;
    }
    Ok(())
}

fn hello(shared: &Shared, socket: &OwnedFd, client: ClientId, message: &Message) -> Result<(), StoreError> {
    if message.words[0] != VERSION {
        let text = format!(
            "this store speaks version {VERSION} of its protocol, the process {}",
            message.words[0]
        );
        send(socket, &Message::refused(true, &text), &[]).map_err(system("refuse a process"))?;
        return Err(StoreError::Gone(text));
    }
    let table = sealed("bridgehead-leases", LEASE_BYTES).map_err(system("make a lease table"))?;
    let leases = Leases::map(&table).map_err(system("map a lease table"))?;
    shared.lock().leases.insert(client, leases);
    let verify = u64::from(shared.options.verify);
    let words = [VERSION, shared.options.agent.into(), shared.arena.len() as u64, verify];
    let fds = [shared.index_fd.as_fd(), table.as_fd(), shared.arena_fd.as_fd()];
    let mut answer = Message::new(Kind::Hello, &words);
    for arena in &shared.options.arenas {
        let numa = arena.numa.map_or(0, |numa| numa + 1);
        answer.text.extend_from_slice(&numa.to_le_bytes());
    }
    send(socket, &answer, &fds).map_err(system("greet a process"))
}

fn grant(shared: &Shared, client: ClientId, message: &Message) -> Result<Message, StoreError> {
    let [len, places, near, ..] = message.words;
    let near = near.checked_sub(1).and_then(|near| usize::try_from(near).ok());
    let mut answer = Message::new(Kind::Grant, &[0, 0]);
    if len > 0 {
        let extent = shared.make_room(client, len, near, Instant::now() + shared.options.patience)?;
        answer.words[..2].copy_from_slice(&[extent.offset, extent.len]);
    }
    let places = usize::try_from(places.min(MOST_SLOTS)).unwrap_or(0);
    for slot in shared.lock().core.lend_slots(client, places) {
        answer.text.extend_from_slice(&slot.0.to_le_bytes());
    }
    Ok(answer)
}

fn open(shared: &Shared, message: &Message, pins: &mut HashMap<ObjectId, u32>) -> Result<Message, StoreError> {
    let id = message.id();
    let object = shared.bring(id, Instant::now() + shared.options.patience)?;
    *pins.entry(id).or_insert(0) += 1;
    Ok(Message::new(Kind::Open, &[object.slot, object.offset, object.len]))
}

fn close(shared: &Shared, id: ObjectId, pins: &mut HashMap<ObjectId, u32>) {
    if let Some(count) = pins.get_mut(&id) {
        *count -= 1;
        if *count == 0 {
            pins.remove(&id);
        }
        shared.unpin(id);
    }
}
