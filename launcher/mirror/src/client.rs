//! The client's side of a folder service, over a stream that somebody else has made (a port-forward). Blocking calls, one at a
//! time. What a pull does is in `pull.rs`.

use crate::body::{self, Sent};
use crate::credentials::Credentials;
use crate::link::{self, Link};
use crate::paths::{FilePath, Top};
use crate::tree::Tree;
use crate::{VERSION, pull};
use bridgehead_spec::RunFolder;
use hyper::{HeaderMap, Method};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Runtime;

/// What a pull is to bring besides status, journal and logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The values that were written to files.
    pub results: bool,
}

/// What a pull has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pulled {
    /// Files that are new or have changed.
    pub files: u64,
    /// Bytes that came.
    pub bytes: u64,
    /// All that the head listed is here, results among it.
    pub complete: bool,
}

/// A client's connection to a folder service. Its calls block, and must not be made inside a runtime of tokio. After an error of
/// the connection a new one is needed.
pub struct Mirror(Mutex<Open>);

struct Open {
    runtime: Runtime,
    link: Link,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mirror(..)")
    }
}

impl Mirror {
    /// Greets the service at the other end of a stream.
    ///
    /// # Errors
    /// There is no service of this run, or it does not know this client.
    pub fn connect(stream: UnixStream, client: &Credentials) -> io::Result<Self> {
        Self::over(client, || {
            stream.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(stream)
        })
    }

    /// As [`Mirror::connect`], over any stream, which is made inside the runtime of the connection.
    ///
    /// # Errors
    /// As there, or the stream cannot be made.
    pub fn over<S>(client: &Credentials, stream: impl FnOnce() -> io::Result<S>) -> io::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let tls = std::sync::Arc::new(client.client()?);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let link = runtime.block_on(async { Ok::<_, io::Error>(Link::open(stream()?, tls).await) })?;
        let link = link.map_err(|trouble| trouble.of("greet the head's folder service"))?;
        Ok(Self(Mutex::new(Open { runtime, link })))
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings the mirror up to date. A final status never stands in it before the journal that led to it, nor a record before the
    /// result that it names, where results are wanted. Two pulls at once into one folder do no harm.
    ///
    /// # Errors
    /// The connection broke, or the mirror cannot be written; what came until then stays and is gone on from.
    pub fn pull(&self, folder: &RunFolder, wanted: Wanted) -> io::Result<Pulled> {
        let mut open = self.open();
        let Open { runtime, link } = &mut *open;
        let tree = Tree::new(folder.path());
        let pulled = runtime.block_on(pull::pull(link, &tree, wanted));
        pulled.map_err(|trouble| trouble.of("bring the mirror of the run folder up to date"))
    }

    /// Sends a request of the mirror's mailbox to the head's. The file stays where it is.
    ///
    /// # Errors
    /// It is none, or the head does not take it.
    pub fn push(&self, folder: &RunFolder, relative: &Path) -> io::Result<()> {
        let path = relative.to_str().and_then(FilePath::parse);
        let path = path.filter(|path| path.top == Top::Mailbox).ok_or_else(|| {
            let text = format!("{} is no request in a mailbox", relative.display());
            io::Error::new(io::ErrorKind::InvalidInput, text)
        })?;
        let (file, len) = Tree::new(folder.path()).read(&path)?;
        self.ask(Method::PUT, &format!("files/{path}"), body::file(file, 0, len))
    }

    /// Sends the bundle, a file that [`crate::pack`] made.
    ///
    /// # Errors
    /// It cannot be read, or the head does not take it.
    pub fn upload_bundle(&self, path: &Path) -> io::Result<()> {
        let file = std::fs::File::open(path)
            .map_err(|e| io::Error::new(e.kind(), format!("cannot read the bundle {}: {e}", path.display())))?;
        let len = file.metadata()?.len();
        self.ask(Method::PUT, "bundle", body::file(file, 0, len))
    }

    /// Tells the head that this client has everything, so that it may go.
    ///
    /// # Errors
    /// The connection broke.
    pub fn collected(&self) -> io::Result<()> {
        self.ask(Method::POST, "collected", body::empty())
    }

    fn ask(&self, method: Method, path: &str, body: Sent) -> io::Result<()> {
        let mut open = self.open();
        let Open { runtime, link } = &mut *open;
        let what = format!("{} {path}", if method == Method::PUT { "send" } else { "report" });
        let asked = async {
            let response = link
                .ask(method, &format!("{VERSION}{path}"), HeaderMap::new(), body)
                .await?;
            link::read(response, 4 << 10).await
        };
        runtime.block_on(asked).map(drop).map_err(|trouble| trouble.of(&what))
    }
}
