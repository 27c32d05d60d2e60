//! What an agent asks of its head's folder service: ticket, bundle, files, and to take its own. Blocking calls over a thread of its
//! own; owns trying again, so that a head that is away for a while costs time and nothing else.

use crate::body::{self, Sent};
use crate::credentials::Credentials;
use crate::link::{self, Link, Trouble};
use crate::paths::{FilePath, Top};
use crate::tree::Tree;
use crate::{DOCUMENT_MOST, LIFE_HEADER, VERSION};
use bridgehead_spec::RunFolder;
use bridgehead_wire::Ticket;
use hyper::body::Incoming;
use hyper::header::{CONTENT_RANGE, HeaderValue};
use hyper::{HeaderMap, Method, Response};
use rustls::ClientConfig;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// How long a head may be away before a file is given up.
const PATIENCE: Duration = Duration::from_secs(300);
/// Between the first two tries; twice as long after each, up to [`LONGEST_PAUSE`].
pub(crate) const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Most time between two tries.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// An address that does not answer for so long is passed by.
const DIAL: Duration = Duration::from_secs(10);
/// Between two tries to connect, while the earlier ones still wait. What was sent to a Service's address before the node had heard
/// of it is lost, and the kernel says it again after a whole second only, then after two and four.
const BESIDE: Duration = Duration::from_millis(200);
/// Most bytes of a bundle.
const BUNDLE_MOST: u64 = 1 << 30;
/// Connections that are kept for later requests.
const KEPT: usize = 4;

/// The way to the folder service of a run's head. Calls block; several may be made at once.
#[derive(Debug)]
pub struct Remote {
    ways: Arc<Ways>,
    patience: Duration,
    runtime: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What all requests share.
pub(crate) struct Ways {
    addresses: Vec<String>,
    tls: Arc<ClientConfig>,
    life: HeaderValue,
    idle: Mutex<Vec<Link>>,
}

impl std::fmt::Debug for Ways {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ways({:?})", self.addresses) // The configuration holds a key.
    }
}

impl Ways {
    async fn dial(&self) -> Result<Link, Trouble> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(link) = kept {
            return Ok(link); // If it is stale, the next try has a new one.
        }
        let mut last = "no address of the head is known".to_owned();
        for address in &self.addresses {
            match connect(address).await {
                Ok(stream) => {
                    let _ = stream.set_nodelay(true); // It works without.
                    match Link::open(stream, self.tls.clone()).await {
                        Ok(link) => return Ok(link),
                        Err(trouble) => last = format!("{address}: {trouble}"),
                    }
                }
                Err(error) => last = format!("{address}: {error}"),
            }
        }
        Err(Trouble::Broken(io::Error::other(last)))
    }

    /// One request; `read` takes what is answered.
    pub(crate) async fn ask<T, F>(
        &self,
        (method, path): (Method, &str),
        range: Option<String>,
        body: Sent,
        read: impl FnOnce(Response<Incoming>) -> F,
    ) -> Result<T, Trouble>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let mut headers = HeaderMap::new();
        headers.insert(LIFE_HEADER, self.life.clone());
        if let Some(range) = range.and_then(|range| range.parse().ok()) {
            headers.insert(CONTENT_RANGE, range);
        }
        let large = link::is_large(&body);
        let mut link = self.dial().await?;
        let response = link.ask(method, &format!("{VERSION}{path}"), headers, body).await;
        let read = match response {
            Ok(response) => read(response).await,
            Err(trouble) => Err(trouble),
        };
        // A refusal was read to its end: the connection is as good as before, unless a body was still to be sent.
        if read.is_ok() || (!large && matches!(read, Err(Trouble::Refused { .. }))) {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < KEPT {
                idle.push(link);
            }
        }
        read
    }
}

/// The first connection that comes to be within [`DIAL`], or the first refusal.
async fn connect(address: &str) -> io::Result<TcpStream> {
    let mut tries = JoinSet::new(); // Those that are left end with it.
    let mut beside = tokio::time::interval(BESIDE);
    let late = tokio::time::sleep(DIAL);
    tokio::pin!(late);
    loop {
        tokio::select! {
            Some(done) = tries.join_next() => return done.map_err(io::Error::other)?,
            _ = beside.tick() => {
                tries.spawn(TcpStream::connect(address.to_owned()));
            }
            () = &mut late => {
                let text = format!("no answer in {DIAL:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }
}

/// Nothing of an answer is wanted.
pub(crate) async fn nothing(response: Response<Incoming>) -> Result<(), Trouble> {
    link::read(response, 4 << 10).await.map(drop)
}

/// Tries until it works, cannot work, or patience ends.
async fn persist<T, F>(what: &str, patience: Duration, mut one: impl FnMut() -> F) -> io::Result<T>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let (end, mut pause, mut attempt) = (Instant::now() + patience, FIRST_PAUSE, 1_u32);
    loop {
        let trouble = match one().await {
            Ok(found) => return Ok(found),
            Err(trouble) if !trouble.passes() => return Err(trouble.of(what)),
            Err(trouble) => trouble,
        };
        if Instant::now() + pause > end {
            let text = format!("cannot {what}: {trouble}; given up after {attempt} attempts in {patience:?}");
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        if trouble.is_later() {
            tracing::debug!(what, attempt, "not there yet");
        } else {
            tracing::warn!(what, attempt, %trouble, "trying again");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        attempt += 1;
    }
}

impl Remote {
    /// The folder service at one of `addresses` (`host:port`, tried in order), for an agent of this life of a launch. Connects to
    /// nothing yet.
    ///
    /// # Errors
    /// The credentials cannot be used, or there is no thread to be had.
    pub fn new(addresses: Vec<String>, agent: &Credentials, life: &str) -> io::Result<Self> {
        let life = HeaderValue::from_str(life).map_err(|_| {
            let text = format!("the life {life:?} of the launch cannot be sent");
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let ways = Arc::new(Ways {
            addresses,
            tls: Arc::new(agent.client()?),
            life,
            idle: Mutex::new(Vec::new()),
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("far-folder".to_owned())
            .spawn(move || {
                let _ = runtime.block_on(ended); // Dropping the other end ends it too.
            })?;
        Ok(Self {
            ways,
            patience: PATIENCE,
            runtime: handle,
            end: Some(end),
            thread: Some(thread),
        })
    }

    /// The same, with another patience for a head that is away; five minutes otherwise.
    #[must_use]
    pub fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// How long a head may be away.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    pub(crate) fn ways(&self) -> Arc<Ways> {
        self.ways.clone()
    }

    /// Runs a future on the thread of this one and waits for it.
    pub(crate) fn wait<T: Send + 'static>(&self, future: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        self.runtime.spawn(async move {
            let _ = tell.send(future.await); // The one that waits is there as long as this thread is.
        });
        let gone = |_| io::Error::other("the thread that speaks to the head's folder service is gone");
        told.recv().map_err(gone)
    }

    /// One request, tried until it works.
    fn ask<T, F>(
        &self,
        what: String,
        patience: Duration,
        request: (Method, String),
        body: impl Fn() -> Result<Sent, Trouble> + Send + Sync + 'static,
        read: impl Fn(Response<Incoming>) -> F + Clone + Send + Sync + 'static,
    ) -> io::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Trouble>> + Send,
    {
        let ways = self.ways.clone();
        self.wait(async move {
            let one = || {
                let (ways, read, body) = (ways.clone(), read.clone(), body());
                let (method, path) = request.clone();
                async move { ways.ask((method, &path), None, body?, read).await }
            };
            persist(&what, patience, one).await
        })?
    }

    /// The ticket of an agent, once the head has written it.
    ///
    /// # Errors
    /// There was none in time, or the agent is of another life of the launch than the head.
    pub fn ticket(&self, rank: u32, patience: Duration) -> io::Result<Ticket> {
        let request = (Method::GET, format!("tickets/{rank}"));
        let read = |response| link::read(response, DOCUMENT_MOST);
        let what = format!("get the ticket of agent {rank}");
        let bytes = self.ask(what, patience, request, || Ok(body::empty()), read)?;
        let ticket: Ticket = serde_json::from_slice(&bytes)
            .map_err(|e| io::Error::other(format!("the ticket of agent {rank} is not valid: {e}")))?;
        if ticket.version != Ticket::VERSION {
            let text = format!("the ticket of agent {rank} has version {}", ticket.version);
            return Err(io::Error::other(text));
        }
        Ok(ticket)
    }

    /// The bundle, once the client has sent it.
    ///
    /// # Errors
    /// There was none in time, or the agent is of another life of the launch than the head.
    pub fn bundle(&self, patience: Duration) -> io::Result<Vec<u8>> {
        let request = (Method::GET, "bundle".to_owned());
        let read = |response| link::read(response, BUNDLE_MOST);
        self.ask(
            "get the bundle".to_owned(),
            patience,
            request,
            || Ok(body::empty()),
            read,
        )
    }

    /// Brings a result or a blob into the local folder, whole or not at all; nothing if it is there.
    ///
    /// # Errors
    /// The head has none, was away for too long, or the file cannot be written.
    pub fn bring(&self, folder: &RunFolder, relative: &Path) -> io::Result<()> {
        let path = travels(relative)?;
        let tree = Tree::new(folder.path());
        if tree.len(&path)?.is_some() {
            return Ok(());
        }
        let request = (Method::GET, format!("files/{path}"));
        let what = format!("bring {path}");
        let read = move |response| take(response, tree.clone(), path.clone());
        self.ask(what, self.patience, request, || Ok(body::empty()), read)
    }

    /// Sends a result or a blob of the local folder to the head's, where it is whole or not at all.
    ///
    /// # Errors
    /// There is none, the head was away for too long, or it has no room.
    pub fn send(&self, folder: &RunFolder, relative: &Path) -> io::Result<()> {
        let path = travels(relative)?;
        let tree = Tree::new(folder.path());
        let request = (Method::PUT, format!("files/{path}"));
        let what = format!("send {path}");
        let body = move || {
            let (file, len) = tree.read(&path).map_err(Trouble::Here)?;
            Ok(body::file(file, 0, len))
        };
        self.ask(what, self.patience, request, body, nothing)
    }

    /// Tells the head that this agent has shipped all.
    ///
    /// # Errors
    /// The head was away for too long.
    pub fn done(&self, rank: u32) -> io::Result<()> {
        let request = (Method::POST, "done".to_owned());
        let body = move || Ok(body::bytes(rank.to_string()));
        self.ask("report the end".to_owned(), self.patience, request, body, nothing)
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // A panic there was printed there.
        }
    }
}

/// What agents bring and send as whole files.
fn travels(relative: &Path) -> io::Result<FilePath> {
    let path = relative.to_str().and_then(FilePath::parse);
    path.filter(|path| matches!(path.top, Top::Results | Top::Blobs))
        .ok_or_else(|| {
            let text = format!("{} is no result and no blob of a run folder", relative.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })
}

/// Writes what is answered to a file.
async fn take(response: Response<Incoming>, tree: Tree, path: FilePath) -> Result<(), Trouble> {
    let mut part = tree.part(&path).map_err(Trouble::Here)?;
    let mut body = response.into_body();
    while let Some(bytes) = body::next(&mut body).await.map_err(Trouble::Broken)? {
        part.write(&bytes).map_err(Trouble::Here)?;
    }
    let finished = tokio::task::spawn_blocking(move || part.finish()).await;
    finished
        .map_err(|e| Trouble::Here(io::Error::other(e)))?
        .map_err(Trouble::Here)
}
