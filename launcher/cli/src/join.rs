//! An agent joins a run: ticket, TLS, frames to and from the channels that the agent works with.

use bridgehead_agent::Link;
use bridgehead_wire::{ALPN_AGENT, AgentToHead, Frames, HEAD_NAME, HeadToAgent, Ticket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// How long an agent waits for its ticket and for the head to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for the ticket file, which the head writes once it listens, and that is not of an attempt before `not_before`.
pub(crate) async fn wait_ticket(path: &Path, not_before: std::time::SystemTime) -> Result<Ticket> {
    let end = tokio::time::Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        let fresh = std::fs::metadata(path)
            .and_then(|m| m.modified())
            .is_ok_and(|made| made >= not_before);
        if fresh {
            let ticket: Ticket = serde_json::from_slice(&std::fs::read(path)?)
                .map_err(|e| format!("the ticket {} is not valid: {e}", path.display()))?;
            if ticket.version != Ticket::VERSION {
                return Err(format!("the ticket {} has version {}", path.display(), ticket.version).into());
            }
            return Ok(ticket);
        }
        if tokio::time::Instant::now() > end {
            return Err(format!(
                "no ticket at {} after {PATIENCE:?}: did the head start?",
                path.display()
            )
            .into());
        }
        if bridgehead_local::head_is_gone() {
            return Err(format!("the head is gone and left no ticket at {}", path.display()).into());
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

fn tls_config(ticket: &Ticket) -> Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ticket.authority.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(ticket.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(ticket.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![ALPN_AGENT.to_vec()];
    Ok(config)
}

/// Connects to the head at one of the ticket's addresses. Must be called inside a `LocalSet`.
///
/// # Errors
/// No address answers with a certificate of the run.
pub(crate) async fn join(ticket: &Ticket) -> Result<Link> {
    let connector = TlsConnector::from(Arc::new(tls_config(ticket)?));
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

fn bridge(stream: TlsStream<TcpStream>) -> Link {
    let (read, write) = tokio::io::split(stream);
    let (to_head, outgoing) = unbounded_channel();
    let (incoming, from_head) = unbounded_channel();
    tokio::task::spawn_local(write_all(write, outgoing));
    tokio::task::spawn_local(read_all(read, incoming));
    Link { to_head, from_head }
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

async fn read_all(mut half: tokio::io::ReadHalf<TlsStream<TcpStream>>, out: UnboundedSender<HeadToAgent>) {
    let mut frames = Frames::new();
    loop {
        match half.read(frames.space(64 << 10)).await {
            Ok(n) if n > 0 => frames.filled(n),
            _ => return,
        }
        loop {
            match frames.next_frame() {
                Ok(None) => break,
                Ok(Some((kind, body))) => match HeadToAgent::decode(kind, body) {
                    Ok(message) => {
                        let _ = out.send(message); // The agent is gone only when the process ends.
                    }
                    Err(error) => return tracing::error!(%error, "the head sent what is no message"),
                },
                Err(error) => return tracing::error!(%error, "the head sent what is no frame"),
            }
        }
    }
}
