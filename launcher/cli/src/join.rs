//! An agent joins a run: ticket, TLS, frames to and from the channels that the agent works with.

use bridgehead_agent::Link;
use bridgehead_wire::{ALPN_AGENT, AgentToHead, Frames, HEAD_NAME, HeadToAgent, Ticket};
use rustls::pki_types::ServerName;
use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// After so long without a word the head is lost; it gives a sign of life every five seconds.
const SILENCE: Duration = Duration::from_secs(30);
/// Between two tries to join.
const AGAIN: Duration = Duration::from_millis(500);

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long an agent of this machine waits for its ticket, and every agent for the head to answer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Which ticket an agent waits for: tickets of other lives may lie there still.
pub(crate) enum Awaited<'a> {
    /// One that was written since then, by a head on this machine.
    Since(std::time::SystemTime),
    /// One of this life of a launch, by an attempt after this one.
    Life { life: &'a str, after: u32 },
}

impl Awaited<'_> {
    fn is_met(&self, ticket: &Ticket, path: &Path) -> bool {
        match self {
            Self::Since(then) => std::fs::metadata(path)
                .and_then(|m| m.modified())
                .is_ok_and(|made| made >= *then),
            Self::Life { life, after } => ticket.life == *life && ticket.attempt > *after,
        }
    }
}

/// Waits for the ticket file, which the head writes once it listens. `over` tells that none will come any more.
pub(crate) async fn wait_ticket(
    path: &Path,
    awaited: &Awaited<'_>,
    patience: Duration,
    over: &dyn Fn() -> bool,
) -> Result<Ticket> {
    let end = tokio::time::Instant::now() + patience;
    let mut pause = Duration::from_millis(1);
    let most = match awaited {
        Awaited::Since(_) => Duration::from_millis(50),
        Awaited::Life { .. } => Duration::from_millis(500), // The file lies on a shared file system.
    };
    loop {
        if let Some(ticket) = read_ticket(path)?.filter(|ticket| awaited.is_met(ticket, path)) {
            return Ok(ticket);
        }
        if over() {
            return Err("the run is over".into());
        }
        if tokio::time::Instant::now() > end {
            return Err(format!(
                "no ticket at {} after {patience:?}: did the head start?",
                path.display()
            )
            .into());
        }
        if bridgehead_local::head_is_gone() {
            return Err(format!("the head is gone and left no ticket at {}", path.display()).into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(most);
    }
}

/// The ticket that lies there; tickets are written whole, so what is none is damage.
fn read_ticket(path: &Path) -> Result<Option<Ticket>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("cannot read the ticket {}: {e}", path.display()).into()),
    };
    let ticket: Ticket =
        serde_json::from_slice(&bytes).map_err(|e| format!("the ticket {} is not valid: {e}", path.display()))?;
    if ticket.version != Ticket::VERSION {
        return Err(format!("the ticket {} has version {}", path.display(), ticket.version).into());
    }
    Ok(Some(ticket))
}

/// Waits for a ticket and joins its head. A head that does not answer yet, or whose ticket was the last thing it wrote, is tried
/// again as long as there is patience.
pub(crate) async fn join_in_time(
    path: &Path,
    awaited: &Awaited<'_>,
    patience: Duration,
    over: &dyn Fn() -> bool,
) -> Result<(Ticket, Joined)> {
    let end = tokio::time::Instant::now() + patience;
    loop {
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let ticket = wait_ticket(path, awaited, left, over).await?;
        match join(&ticket).await {
            Ok(joined) => return Ok((ticket, joined)),
            Err(error) if tokio::time::Instant::now() > end || over() || bridgehead_local::head_is_gone() => {
                return Err(error);
            }
            Err(error) => tracing::warn!(%error, "trying again"),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// What a head says of the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dismissed {
    /// Nothing yet.
    No,
    /// This is the end.
    Ended,
    /// Another head goes on.
    GoesOn,
}

/// A connection to a head.
pub(crate) struct Joined {
    /// What the agent works with.
    pub link: Link,
    /// What the head has said of the end. A connection that ends without it leaves the run to its agents.
    pub dismissed: Rc<Cell<Dismissed>>,
}

/// Connects to the head at one of the ticket's addresses. Must be called inside a `LocalSet`.
///
/// # Errors
/// No address answers with a certificate of the run.
async fn join(ticket: &Ticket) -> Result<Joined> {
    let connector = TlsConnector::from(Arc::new(bridgehead_local::tls_config(ticket, ALPN_AGENT)?));
    let mut last = "the ticket names no address".to_owned();
    for address in &ticket.addresses {
        match tokio::time::timeout(PATIENCE, connect(&connector, address)).await {
            Ok(Ok(stream)) => return Ok(bridge(stream)),
            Ok(Err(e)) => last = format!("{address}: {e}"),
            Err(_) => last = format!("{address}: no answer in {PATIENCE:?}"),
        }
    }
    Err(format!("cannot join the head of run {}: {last}", ticket.run).into())
}

async fn connect(connector: &TlsConnector, address: &str) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(connector.connect(ServerName::try_from(HEAD_NAME)?, stream).await?)
}

fn bridge(stream: TlsStream<TcpStream>) -> Joined {
    let (read, write) = tokio::io::split(stream);
    let (to_head, outgoing) = unbounded_channel();
    let (incoming, from_head) = unbounded_channel();
    tokio::task::spawn_local(write_all(write, outgoing));
    let dismissed = Rc::new(Cell::new(Dismissed::No));
    tokio::task::spawn_local(read_all(read, incoming, dismissed.clone()));
    let link = Link { to_head, from_head };
    Joined { link, dismissed }
}

async fn write_all(mut half: tokio::io::WriteHalf<TlsStream<TcpStream>>, mut queue: UnboundedReceiver<AgentToHead>) {
    let (mut batch, mut bytes) = (Vec::new(), Vec::new());
    while queue.recv_many(&mut batch, 1024).await > 0 {
        batch
            .drain(..)
            .for_each(|message: AgentToHead| message.encode(&mut bytes));
        if half.write_all(&bytes).await.is_err() || half.flush().await.is_err() {
            return; // The reader sees the same end, which ends the agent.
        }
        bytes.clear();
    }
    let _ = half.shutdown().await;
}

async fn read_all(
    mut half: tokio::io::ReadHalf<TlsStream<TcpStream>>,
    out: UnboundedSender<HeadToAgent>,
    dismissed: Rc<Cell<Dismissed>>,
) {
    let mut frames = Frames::new();
    loop {
        match tokio::time::timeout(SILENCE, half.read(frames.space(64 << 10))).await {
            Ok(Ok(n)) if n > 0 => frames.filled(n),
            Ok(_) => return,
            Err(_) => return tracing::error!("the head has said nothing for {SILENCE:?}: it is taken for lost"),
        }
        loop {
            match frames.next_frame() {
                Ok(None) => break,
                Ok(Some((kind, body))) => match HeadToAgent::decode(kind, body) {
                    Ok(message) => {
                        match &message {
                            HeadToAgent::Shutdown(end) if end.goes_on => dismissed.set(Dismissed::GoesOn),
                            HeadToAgent::Shutdown(_) | HeadToAgent::Refused(_) => dismissed.set(Dismissed::Ended),
                            _ => {}
                        }
                        let _ = out.send(message); // The agent is gone only when the process ends.
                    }
                    Err(error) => return tracing::error!(%error, "the head sent what is no message"),
                },
                Err(error) => return tracing::error!(%error, "the head sent what is no frame"),
            }
        }
    }
}
