//! Laws of the TLS port: only who holds a certificate of this very run's authority, in its time, and the right ticket is let
//! in; everybody else is refused and logged, and the next good agent is served. Tickets and keys reach no log.

#![allow(clippy::unwrap_used)] // A failed step is a failed test.

use super::{Tickets, accept_tls};
use crate::connection::Event;
use crate::core::ConnId;
use crate::tls::Authority;
use bridgehead_spec::RunId;
use bridgehead_wire::{ALPN_AGENT, ALPN_CLIENT, AgentJoin, AgentToHead, HEAD_NAME, Ticket};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_rustls::TlsConnector;

/// What the code under test logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// What a caller shows.
#[derive(Clone)]
struct Caller {
    ticket: Ticket,
    alpn: Vec<&'static [u8]>,
    /// Shows a certificate at all.
    certified: bool,
    /// What it sends once the channel is up; its join where this is left out.
    first: Option<Vec<u8>>,
}

impl Caller {
    fn new(ticket: Ticket) -> Self {
        Self {
            ticket,
            alpn: vec![ALPN_AGENT],
            certified: true,
            first: None,
        }
    }

    fn tls(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        roots.add(pem(&self.ticket.authority)).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let key = PrivateKeyDer::from_pem_slice(self.ticket.key.as_bytes()).unwrap();
        let mut config = if self.certified {
            builder
                .with_client_auth_cert(vec![pem(&self.ticket.certificate)], key)
                .unwrap()
        } else {
            builder.with_no_client_auth()
        };
        config.alpn_protocols = self.alpn.iter().map(|name| name.to_vec()).collect();
        config
    }

    fn first_bytes(&self) -> Vec<u8> {
        self.first.clone().unwrap_or_else(|| {
            let mut bytes = Vec::new();
            AgentToHead::from(AgentJoin {
                agent: self.ticket.agent,
                ticket: self.ticket.secret.clone().into(),
                run: self.ticket.run.clone(),
                ..AgentJoin::default()
            })
            .encode(&mut bytes);
            bytes
        })
    }
}

/// A listening head with the ticket of its agent 1, and what it logs.
struct Scene {
    authority: Authority,
    ticket: Ticket,
    client: Ticket,
    events: UnboundedReceiver<Event>,
    log: Log,
}

impl Scene {
    async fn open(log: Log) -> Self {
        let run = RunId::parse("this-run").unwrap();
        let authority = Authority::new(&run).unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ticket = authority.ticket(&run, 1, vec![address.clone()]).unwrap();
        let client = authority.client_ticket(&run, vec![address]).unwrap();
        let secrets = BTreeMap::from([(1, ticket.secret.clone())]);
        let tickets = Rc::new(Tickets::new(secrets, &client).unwrap());
        let (sender, events) = tokio::sync::mpsc::unbounded_channel();
        let config = Arc::new(authority.server_config().unwrap());
        let ids = super::ConnIds::remote();
        tokio::task::spawn_local(accept_tls(listener, config, run.to_string(), tickets, ids, sender));
        Self {
            authority,
            ticket,
            client,
            events,
            log,
        }
    }

    fn logged(&self) -> String {
        String::from_utf8(self.log.0.lock().unwrap().clone()).unwrap()
    }

    /// Calls and gives what was answered until the head hung up; nothing where it would not even shake hands.
    async fn call(caller: &Caller) -> Vec<u8> {
        let stream = TcpStream::connect(&caller.ticket.addresses[0]).await.unwrap();
        let connector = TlsConnector::from(Arc::new(caller.tls()));
        let mut answer = Vec::new();
        if let Ok(mut stream) = connector
            .connect(ServerName::try_from(HEAD_NAME).unwrap(), stream)
            .await
        {
            let _ = stream.write_all(&caller.first_bytes()).await; // It may have been refused already.
            let _ = stream.read_to_end(&mut answer).await; // Ends with an alert where the certificate was refused.
        }
        answer
    }

    /// Refused: no event of it reaches the head, the log has `reason`, and the right agent is served afterwards.
    async fn check_refused(&mut self, caller: &Caller, reason: &str) {
        let before = self.logged().len();
        let limit = Duration::from_secs(30);
        tokio::time::timeout(limit, Self::call(caller))
            .await
            .expect("the head hangs up");
        let log = tokio::time::timeout(limit, async {
            while self.logged().len() == before {
                tokio::task::yield_now().await;
            }
            self.logged()[before..].to_owned()
        });
        let log = log.await.expect("the refusal is logged");
        assert!(log.contains(reason), "{reason:?} is not in {log:?}");
        assert!(self.events.try_recv().is_err(), "somebody who was refused got through");
        self.check_serves().await;
    }

    async fn check_serves(&mut self) {
        let good = Caller::new(self.ticket.clone());
        let served = async {
            tokio::select! {
                answer = Self::call(&good) => panic!("the right agent was refused: {answer:?}"),
                event = self.events.recv() => event.unwrap(),
            }
        };
        match tokio::time::timeout(Duration::from_secs(30), served).await {
            Ok(Event::AgentCame { agent: 1, conn, .. }) => assert_ne!(conn, ConnId(0)),
            other => panic!("the right agent was not served: {other:?}"),
        }
        // It has hung up with the end of `served`.
        assert!(matches!(self.events.recv().await, Some(Event::AgentGone(..))));
    }
}

fn check(change: impl FnOnce(&Authority, &mut Caller), reason: &str) {
    on_scene(async |scene| {
        let mut caller = Caller::new(scene.ticket.clone());
        change(&scene.authority, &mut caller);
        scene.check_refused(&caller, reason).await;
        let logged = scene.logged();
        assert!(!logged.contains("PRIVATE KEY"));
        assert!(!logged.contains(&format!("{:?}", scene.ticket.secret)));
    });
}

fn on_scene(play: impl AsyncFnOnce(&mut Scene)) {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let mut scene = Scene::open(log).await;
        play(&mut scene).await;
    });
}

const NO_CERTIFICATE: &str = "no valid certificate of this run";

#[test]
fn nobody_without_a_certificate() {
    check(|_, caller| caller.certified = false, NO_CERTIFICATE);
}

#[test]
fn no_expired_certificate() {
    check(
        |authority, caller| {
            let past = SystemTime::now() - Duration::from_secs(60);
            (caller.ticket.certificate, caller.ticket.key) = authority.issue_until("agent-1", past).unwrap();
        },
        NO_CERTIFICATE,
    );
}

/// Shows a certificate of `run`'s authority that is not the one of the head, which it knows all the same.
fn foreign(run: &'static str) -> impl FnOnce(&Authority, &mut Caller) {
    move |_, caller| {
        let other = Authority::new(&RunId::parse(run).unwrap()).unwrap();
        (caller.ticket.certificate, caller.ticket.key) = other.issue("agent-1").unwrap();
    }
}

#[test]
fn no_certificate_of_another_run() {
    check(foreign("another-run"), NO_CERTIFICATE);
}

#[test]
fn no_certificate_of_another_attempt_at_this_run() {
    check(foreign("this-run"), NO_CERTIFICATE);
}

#[test]
fn no_certificate_that_signs_itself() {
    check(
        |_, caller| {
            let key = rcgen::KeyPair::generate().unwrap();
            let params = rcgen::CertificateParams::new(vec!["agent-1".to_owned()]).unwrap();
            caller.ticket.certificate = params.self_signed(&key).unwrap().pem();
            caller.ticket.key = key.serialize_pem();
        },
        NO_CERTIFICATE,
    );
}

#[test]
fn no_wrong_ticket() {
    check(|_, caller| caller.ticket.secret[31] ^= 1, "is not one of this attempt");
}

#[test]
fn no_empty_ticket() {
    check(|_, caller| caller.ticket.secret.clear(), "is not one of this attempt");
}

#[test]
fn no_ticket_of_another_rank() {
    check(|_, caller| caller.ticket.agent = 2, "ticket for agent 2");
}

#[test]
fn no_ticket_of_another_run() {
    check(
        |_, caller| caller.ticket.run = "another-run".to_owned(),
        "its ticket is for run another-run",
    );
}

#[test]
fn nobody_who_does_not_begin_with_a_ticket() {
    let mut heartbeat = Vec::new();
    AgentToHead::from(bridgehead_wire::Heartbeat::default()).encode(&mut heartbeat);
    check(
        |_, caller| caller.first = Some(heartbeat),
        "did not begin with its ticket",
    );
}

#[test]
fn no_garbage_inside_the_channel() {
    check(|_, caller| caller.first = Some(vec![0xff; 100]), "refused");
}

#[test]
fn nobody_who_speaks_another_protocol() {
    check(|_, caller| caller.alpn = vec![b"something-else"], NO_CERTIFICATE);
}

#[test]
fn no_agent_in_a_clients_place() {
    check(|_, caller| caller.alpn = vec![ALPN_CLIENT], "is for another role");
}

#[test]
fn no_client_in_an_agents_place() {
    on_scene(async |scene| {
        let mut caller = Caller::new(scene.ticket.clone());
        caller.ticket.certificate.clone_from(&scene.client.certificate);
        caller.ticket.key.clone_from(&scene.client.key);
        scene.check_refused(&caller, "is for another role").await;
    });
}

#[test]
fn a_client_with_the_clients_ticket_is_served() {
    on_scene(async |scene| {
        let mut caller = Caller::new(scene.client.clone());
        caller.alpn = vec![ALPN_CLIENT];
        caller.first = Some(Vec::new());
        let served = async {
            tokio::select! {
                answer = Scene::call(&caller) => panic!("the client was refused: {answer:?}"),
                event = scene.events.recv() => event.unwrap(),
            }
        };
        let event = tokio::time::timeout(Duration::from_secs(30), served).await;
        assert!(matches!(event, Ok(Event::ClientCame { .. })), "{event:?}");
    });
}
