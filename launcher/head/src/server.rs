//! What listens: a Unix socket for clients of this user, a TLS port for agents and clients elsewhere.
//! Owns accepting and authenticating; nothing is answered before a peer is known.

use crate::connection::{Event, first_frame, read_frames, serve_client, spawn_writer};
use crate::core::ConnId;
use crate::tls::TlsError;
use bridgehead_wire::{ALPN_CLIENT, AgentToHead, Frames, HeadToAgent, Refused, Ticket};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ServerConfig, ServerConnection};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio_rustls::TlsAcceptor;

/// A peer has this long to say who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Connections that are being authenticated at a time; more are refused, so that a flood cannot fill the memory.
const PENDING: usize = 256;

/// Numbers connections.
#[derive(Debug, Clone, Default)]
pub struct ConnIds(Rc<RefCell<u64>>);

impl ConnIds {
    /// Numbers of another listener, which never meet those of the default.
    #[must_use]
    pub fn remote() -> Self {
        Self(Rc::new(RefCell::new(1 << 32)))
    }

    fn next(&self) -> ConnId {
        let mut n = self.0.borrow_mut();
        *n += 1;
        ConnId(*n)
    }
}

/// Binds the clients' socket at `path` (in a folder of mode 0700).
///
/// # Errors
/// The system refuses; a socket that a dead head left is replaced.
pub fn bind_clients(path: &Path) -> std::io::Result<UnixListener> {
    let _ = std::fs::remove_file(path);
    UnixListener::bind(path)
}

/// Accepts clients of this user for ever.
pub async fn accept_clients(listener: UnixListener, ids: ConnIds, events: UnboundedSender<Event>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if same_user(&stream) => {
                tokio::task::spawn_local(serve_client(stream, ids.next(), events.clone()));
            }
            Ok(_) => tracing::warn!("refused a client of another user"),
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a client");
                tokio::time::sleep(Duration::from_millis(50)).await; // Out of descriptors: others must close first.
            }
        }
    }
}

fn same_user(stream: &UnixStream) -> bool {
    rustix::net::sockopt::socket_peercred(stream.as_fd()).is_ok_and(|peer| peer.uid == rustix::process::geteuid())
}

/// The tickets that were given out.
#[derive(Debug)]
pub struct Tickets {
    /// Secrets by agent.
    agents: BTreeMap<u32, Vec<u8>>,
    /// The certificate of clients; every other one is an agent's.
    client: CertificateDer<'static>,
}

impl Tickets {
    /// The secrets of the agents' tickets, and the ticket of clients.
    ///
    /// # Errors
    /// The client's certificate cannot be read.
    pub fn new(agents: BTreeMap<u32, Vec<u8>>, client: &Ticket) -> Result<Self, TlsError> {
        let client = CertificateDer::from_pem_slice(client.certificate.as_bytes())?;
        Ok(Self { agents, client })
    }
}

/// Who a peer says that it is, if its certificate is for that.
enum Role {
    Client,
    Agent,
}

/// An agent's certificate must not open a client's session, nor the other way round.
fn role(connection: &ServerConnection, tickets: &Tickets) -> Option<Role> {
    let certified = connection.peer_certificates()?.first()? == &tickets.client;
    let wanted = connection.alpn_protocol() == Some(ALPN_CLIENT);
    match (certified, wanted) {
        (true, true) => Some(Role::Client),
        (false, false) => Some(Role::Agent),
        _ => None,
    }
}

/// Accepts agents and remote clients for ever.
pub async fn accept_tls(
    listener: TcpListener,
    config: Arc<ServerConfig>,
    run: String,
    tickets: Rc<Tickets>,
    ids: ConnIds,
    events: UnboundedSender<Event>,
) {
    let acceptor = TlsAcceptor::from(config);
    let pending = Arc::new(tokio::sync::Semaphore::new(PENDING));
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(error = %e, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await; // Out of descriptors: others must close first.
                continue;
            }
        };
        let Ok(permit) = pending.clone().try_acquire_owned() else {
            tracing::warn!(%peer, "refused a connection: {PENDING} others are being authenticated");
            continue;
        };
        let (acceptor, run, tickets, ids, events) = (
            acceptor.clone(),
            run.clone(),
            tickets.clone(),
            ids.clone(),
            events.clone(),
        );
        tokio::task::spawn_local(async move {
            let greeted = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
            drop(permit);
            match greeted {
                Ok(Ok(stream)) => match role(stream.get_ref().1, &tickets) {
                    Some(Role::Client) => serve_client(stream, ids.next(), events).await,
                    Some(Role::Agent) => serve_agent(stream, ids.next(), &run, &tickets, events).await,
                    None => tracing::warn!(%peer, "refused a connection: its certificate is for another role"),
                },
                Ok(Err(e)) => {
                    tracing::warn!(%peer, error = %e, "refused a connection: no valid certificate of this run")
                }
                Err(_) => tracing::warn!(%peer, "refused a connection: it did not authenticate in time"),
            }
        });
    }
}

type AgentStream = tokio_rustls::server::TlsStream<TcpStream>;

async fn serve_agent(
    mut stream: AgentStream,
    conn: ConnId,
    run: &str,
    tickets: &Tickets,
    events: UnboundedSender<Event>,
) {
    let _ = stream.get_ref().0.set_nodelay(true);
    let mut frames = Frames::new();
    let join = match first_frame(&mut stream, &mut frames, HANDSHAKE).await {
        Some((kind, body)) => match AgentToHead::decode(kind, &body) {
            Ok(AgentToHead::Join(join)) => join,
            _ => return tracing::warn!("refused an agent: it did not begin with its ticket"),
        },
        None => return tracing::warn!("refused an agent: it said nothing"),
    };
    if let Err(message) = check_ticket(&join, run, tickets) {
        tracing::warn!(agent = join.agent, message, "refused an agent");
        let mut bytes = Vec::new();
        HeadToAgent::from(Refused {
            kind: "ticket".to_owned(),
            message,
        })
        .encode(&mut bytes);
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        return;
    }
    let agent = join.agent;
    let (mut read, write) = tokio::io::split(stream);
    let out = spawn_writer(write);
    let _ = events.send(Event::AgentCame { conn, agent, join, out });
    let end = read_frames(&mut read, &mut frames, |kind, body| {
        let message = AgentToHead::decode(kind, body)?;
        let _ = events.send(Event::Agent(conn, message));
        Ok(())
    })
    .await;
    let _ = events.send(Event::AgentGone(conn, end.to_string()));
}

fn check_ticket(join: &bridgehead_wire::AgentJoin, run: &str, tickets: &Tickets) -> Result<(), String> {
    if join.run != run {
        return Err(format!("its ticket is for run {}, this is the head of {run}", join.run));
    }
    let good = tickets
        .agents
        .get(&join.agent)
        .is_some_and(|secret| same_bytes(secret, &join.ticket));
    good.then_some(())
        .ok_or_else(|| format!("its ticket for agent {} is not one of this attempt", join.agent))
}

/// Compares without telling by its time where the first difference is.
fn same_bytes(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |acc, (x, y)| acc | (x ^ y)) == 0
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
