//! The folder service of a head: listens, authenticates, counts who is done. Owns its thread, since the head's must not move these
//! bytes. What it answers is in `requests.rs`.

use crate::credentials::{ALPN_FOLDER, Credentials, certificate};
use crate::paths::Top;
use crate::requests;
use crate::tree::Tree;
use bridgehead_spec::RunFolder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_rustls::TlsAcceptor;

/// A peer has this long to authenticate.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are being authenticated at a time; more are refused, so that a flood cannot fill the memory.
const PENDING: usize = 256;
/// Connections of peers that are known; an agent has a few.
const MOST: usize = 4096;
/// A connection without a request for so long is closed.
const IDLE: Duration = Duration::from_secs(300);
/// A peer's machine that acknowledges nothing for so long is gone.
const UNHEARD: Duration = Duration::from_secs(60);
/// Most bytes of a request without its body.
const HEAD_MOST: usize = 16 << 10;

/// What a service needs to begin.
#[derive(Debug, Clone)]
pub struct ServeOptions {
    /// The run folder, the truth.
    pub folder: RunFolder,
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The head's certificate and key.
    pub head: Credentials,
    /// The client's certificate (PEM): who shows it is the client, everybody else of the authority is an agent.
    pub client_certificate: String,
    /// The life of the launch; agents of another one are refused.
    pub life: String,
    /// Number of agents of the run, the head's own included: their ranks are below it.
    pub agents: u32,
}

/// What peers have said.
#[derive(Debug, Default)]
struct Marks {
    done: BTreeSet<u32>,
    collected: bool,
    bundle: bool,
}

/// What requests work with.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) folder: RunFolder,
    pub(crate) tree: Tree,
    /// The folder's name.
    pub(crate) name: String,
    pub(crate) life: String,
    pub(crate) agents: u32,
    marks: Mutex<Marks>,
    changed: Condvar,
}

impl Shared {
    fn marks(&self) -> MutexGuard<'_, Marks> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Marks)) {
        change(&mut self.marks());
        self.changed.notify_all();
    }

    /// An agent has shipped all.
    pub(crate) fn agent_done(&self, rank: u32) {
        self.change(|marks| {
            marks.done.insert(rank);
        });
    }

    /// The client has everything.
    pub(crate) fn collected(&self) {
        self.change(|marks| marks.collected = true);
    }

    /// The bundle is here.
    pub(crate) fn bundle_came(&self) {
        self.change(|marks| marks.bundle = true);
    }

    /// Waits until `met`; `false` when patience ended first.
    fn wait(&self, patience: Duration, met: impl Fn(&Marks) -> bool) -> bool {
        let end = Instant::now() + patience;
        let mut marks = self.marks();
        while !met(&marks) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            marks = match self.changed.wait_timeout(marks, left) {
                Ok((marks, _)) => marks,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        true
    }
}

/// Who a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Agent,
}

/// A service that runs until it is stopped or dropped.
#[derive(Debug)]
pub struct Service {
    shared: Arc<Shared>,
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts to listen. Tickets that an earlier head left are removed first: agents must not get them.
    ///
    /// # Errors
    /// The credentials cannot be used, the address cannot be had, the folder cannot be changed, or there is no thread to be had.
    pub fn start(options: ServeOptions) -> io::Result<Self> {
        let tls = Arc::new(options.head.server()?);
        let client = certificate(&options.client_certificate)?;
        let tree = Tree::new(options.folder.path());
        remove_tickets(&options.folder)?;
        for top in [Top::Root, Top::Results, Top::Blobs, Top::Mailbox] {
            tree.sweep(top)?;
        }
        let listener = std::net::TcpListener::bind(options.listen).map_err(|e| {
            io::Error::new(
                e.kind(),
                format!("the folder service cannot listen on {}: {e}", options.listen),
            )
        })?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let name = tree.name()?;
        let marks = Marks {
            bundle: options.folder.bundle().is_file(),
            ..Marks::default()
        };
        let shared = Arc::new(Shared {
            folder: options.folder,
            tree,
            name,
            life: options.life,
            agents: options.agents,
            marks: Mutex::new(marks),
            changed: Condvar::new(),
        });
        let (end, ended) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = shared.clone();
        let thread = std::thread::Builder::new().name("folder".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, tls, client, served) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Self {
            shared,
            address,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the bundle that the client sends; the file, or none when patience ended first. One that an earlier service of
    /// this folder was given counts.
    #[must_use]
    pub fn wait_bundle(&self, patience: Duration) -> Option<PathBuf> {
        let there = self.shared.wait(patience, |marks| marks.bundle);
        there.then(|| self.shared.folder.bundle())
    }

    /// How many agents have said that they have shipped all.
    #[must_use]
    pub fn agents_done(&self) -> u32 {
        u32::try_from(self.shared.marks().done.len()).unwrap_or(u32::MAX)
    }

    /// Waits until `n` agents have shipped all; `false` when patience ended first.
    #[must_use]
    pub fn wait_done(&self, n: u32, patience: Duration) -> bool {
        self.shared.wait(patience, |marks| marks.done.len() >= n as usize)
    }

    /// Waits until the client has everything; `false` when patience ended first.
    #[must_use]
    pub fn wait_collected(&self, patience: Duration) -> bool {
        self.shared.wait(patience, |marks| marks.collected)
    }

    /// Stops: connections are cut, files that were on their way are gone.
    pub fn stop(mut self) {
        self.halt();
    }

    fn halt(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A panic there was printed there.
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.halt();
    }
}

/// Removes tickets of agents; those of this head come after.
fn remove_tickets(folder: &RunFolder) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder.tls()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("agent-") && name.ends_with(".json") {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn accept(
    listener: std::net::TcpListener,
    tls: Arc<rustls::ServerConfig>,
    client: CertificateDer<'static>,
    shared: Arc<Shared>,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "the folder service cannot listen"),
    };
    let acceptor = TlsAcceptor::from(tls);
    let client = Arc::new(client);
    let (pending, most) = (Arc::new(Semaphore::new(PENDING)), Arc::new(Semaphore::new(MOST)));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "the folder service cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await; // Out of descriptors: others must close first.
                continue;
            }
        };
        let (Ok(greeting), Ok(place)) = (pending.clone().try_acquire_owned(), most.clone().try_acquire_owned()) else {
            tracing::warn!(%peer, "the folder service refused a connection: there are too many");
            continue;
        };
        let (acceptor, client, shared) = (acceptor.clone(), client.clone(), shared.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(reason) = serve(stream, &acceptor, &client, shared, greeting).await {
                tracing::warn!(%peer, reason, "the folder service ended a connection");
            }
        });
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: &TlsAcceptor,
    client: &CertificateDer<'static>,
    shared: Arc<Shared>,
    greeting: OwnedSemaphorePermit,
) -> Result<(), String> {
    watch_peer(&stream).map_err(|e| e.to_string())?;
    let stream = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    drop(greeting);
    let stream = stream
        .map_err(|_| "it did not authenticate in time".to_owned())?
        .map_err(|e| format!("no valid certificate of this run: {e}"))?;
    let session = stream.get_ref().1;
    if session.alpn_protocol() != Some(ALPN_FOLDER) {
        return Err("it speaks another protocol".to_owned());
    }
    let shown = session.peer_certificates().and_then(|chain| chain.first());
    let role = if shown == Some(client) {
        Role::Client
    } else {
        Role::Agent
    };
    let answer = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(requests::answer(&shared, role, request).await) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(IDLE)
        .max_headers(32)
        .max_buf_size(HEAD_MOST);
    let served = http.serve_connection(TokioIo::new(stream), answer).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the folder service broke"); // Peers come and go; what was torn is dropped.
    }
    Ok(())
}

/// A peer that went away without a word is noticed.
fn watch_peer(stream: &TcpStream) -> io::Result<()> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, UNHEARD / 2)?;
    sockopt::set_tcp_keepintvl(stream, UNHEARD / 6)?;
    sockopt::set_tcp_user_timeout(stream, u32::try_from(UNHEARD.as_millis()).unwrap_or(u32::MAX))?;
    Ok(())
}
