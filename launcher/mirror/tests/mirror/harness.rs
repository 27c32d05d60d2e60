//! A head's folder with its service, certificates of a run, and requests written by hand.

use bridgehead_mirror::{ALPN_FOLDER, Credentials, Mirror, Remote, ServeOptions, Service};
use bridgehead_spec::RunFolder;
use bridgehead_wire::{HEAD_NAME, Ticket};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const LIFE: &str = "life-1";
/// No case takes nearly as long.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The authority of a run.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    pub fn issue(&self, name: &str) -> Credentials {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        Credentials {
            authority: self.pem.clone(),
            certificate: params.signed_by(&key, &self.issuer).unwrap().pem(),
            key: key.serialize_pem(),
        }
    }
}

/// A head's folder and its service.
pub struct Bench {
    pub dir: TempDir,
    pub head: Credentials,
    pub agent: Credentials,
    pub client: Credentials,
    pub service: Option<Service>,
}

impl Bench {
    pub fn new() -> Self {
        let mut bench = Self::silent();
        bench.start("127.0.0.1:0".parse().unwrap());
        bench
    }

    /// Without a service yet.
    pub fn silent() -> Self {
        let authority = Authority::new();
        let bench = Self {
            dir: TempDir::new().unwrap(),
            head: authority.issue(HEAD_NAME),
            agent: authority.issue("agent"),
            client: authority.issue("client"),
            service: None,
        };
        for folder in ["journal", "logs", "results", "blobs", "mailbox", "tls"] {
            std::fs::create_dir(bench.dir.path().join(folder)).unwrap();
        }
        bench
    }

    pub fn start(&mut self, listen: SocketAddr) {
        let options = ServeOptions {
            folder: self.folder(),
            listen,
            head: self.head.clone(),
            client_certificate: self.client.certificate.clone(),
            life: LIFE.to_owned(),
            agents: 4,
        };
        self.service = Some(Service::start(options).unwrap());
    }

    pub fn service(&self) -> &Service {
        self.service.as_ref().unwrap()
    }

    pub fn folder(&self) -> RunFolder {
        RunFolder::new(self.dir.path())
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.dir.path().join(name), text).unwrap();
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }

    pub fn ticket(&self, rank: u32) -> Ticket {
        let ticket = Ticket {
            version: Ticket::VERSION,
            run: "r".to_owned(),
            agent: rank,
            addresses: vec!["h:1".to_owned()],
            authority: String::new(),
            certificate: String::new(),
            key: String::new(),
            life: LIFE.to_owned(),
            attempt: 1,
            secret: vec![7; 32],
        };
        self.write(&format!("tls/agent-{rank}.json"), serde_json::to_vec(&ticket).unwrap());
        ticket
    }

    pub fn remote(&self) -> Remote {
        self.remote_at(self.service().address())
    }

    pub fn remote_at(&self, address: SocketAddr) -> Remote {
        Remote::new(vec![address.to_string()], &self.agent, LIFE)
            .unwrap()
            .with_patience(LIMIT)
    }

    pub fn mirror(&self) -> Mirror {
        mirror(&self.client, self.service().address()).unwrap()
    }

    /// What is answered to a request of an agent of this life, written by hand.
    pub fn agent_asks(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        let headers = format!("bridgehead-life: {LIFE}\r\n{headers}");
        self.ask(&self.agent, line, &headers, body)
    }

    pub fn client_asks(&self, line: &str, headers: &str, body: &[u8]) -> Answer {
        self.ask(&self.client, line, headers, body)
    }

    fn ask(&self, who: &Credentials, line: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = dial(who, ALPN_FOLDER, self.service().address());
        let length = if line.starts_with("GET") || line.starts_with("HEAD") || headers.contains("ength") {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let head = format!("{line} HTTP/1.1\r\nhost: h\r\nconnection: close\r\n{headers}{length}\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        answer(&mut stream)
    }
}

/// A mirror's connection over plain sockets.
pub fn mirror(client: &Credentials, address: SocketAddr) -> std::io::Result<Mirror> {
    Mirror::over(client, || {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        tokio::net::TcpStream::from_std(stream)
    })
}

pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// A connection that speaks a protocol, or names none; its handshake is still to come.
pub fn dial(who: &Credentials, alpn: &[u8], address: SocketAddr) -> Stream {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(who.authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(who.certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(who.key.as_bytes()).unwrap(),
        )
        .unwrap();
    if !alpn.is_empty() {
        config.alpn_protocols = vec![alpn.to_vec()];
    }
    let session = ClientConnection::new(Arc::new(config), ServerName::try_from(HEAD_NAME).unwrap()).unwrap();
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(LIMIT)).unwrap();
    StreamOwned::new(session, socket)
}

/// Reads an answer to the end of the connection.
pub fn answer(stream: &mut Stream) -> Answer {
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes); // A service that hangs up does not always take its leave.
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        body: bytes[end + 4..].to_vec(),
        head,
    }
}

/// Waits until a condition holds.
pub fn wait_until(what: &str, met: impl Fn() -> bool) {
    let end = Instant::now() + LIMIT;
    while !met() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// All files below a folder that are not hidden, with what is in them.
pub fn tree(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.file_name().unwrap().to_string_lossy().starts_with('.') {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, std::fs::read(path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Numbers that look random and are the same each time.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
