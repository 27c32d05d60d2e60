//! The run's own certificate authority, made anew by each attempt; its key never leaves the head's memory.
//! Owns certificates, tickets and the TLS configurations of the head; both sides of the channel show a certificate of it.

use bridgehead_spec::{RunFolder, RunId};
use bridgehead_wire::Ticket;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use thiserror::Error;

/// What can go wrong while certificates are made.
#[derive(Debug, Error)]
pub enum TlsError {
    /// The certificate library refused.
    #[error("cannot make the run's certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The client verifier could not be built.
    #[error("cannot set up the check of client certificates: {0}")]
    Verifier(#[from] rustls::server::VerifierBuilderError),
    /// A ticket's certificate cannot be read.
    #[error("the certificate of a ticket cannot be read: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// No randomness.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
}

/// How long a run's certificates hold: longer than any allocation, short enough to be useless afterwards.
const LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// Clocks of nodes may differ by this much.
const SKEW: Duration = Duration::from_secs(3600);

/// `n` random bytes from the system.
///
/// # Errors
/// The system has none to give.
pub fn random<const N: usize>() -> Result<[u8; N], TlsError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| TlsError::Random(e.to_string()))?;
    Ok(bytes)
}

/// The authority of one attempt at a run.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority(..)") // The key must not reach a log.
    }
}

fn params(name: &str) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - SKEW).into();
    params.not_after = (now + LIFETIME).into();
    Ok(params)
}

impl Authority {
    /// A new authority for `run`.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn new(run: &RunId) -> Result<Self, TlsError> {
        let key = KeyPair::generate()?;
        let mut params = params(&format!("bridgehead run {run}"))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        let der = certificate.der().clone();
        Ok(Self {
            issuer: Issuer::new(params, key),
            certificate: der,
            pem,
        })
    }

    /// The authority's own certificate, as PEM text.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate and key for `name`, as PEM texts.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn issue(&self, name: &str) -> Result<(String, String), TlsError> {
        self.issue_until(name, SystemTime::now() + LIFETIME)
    }

    /// As [`Authority::issue`], for a certificate that holds until `end`.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn issue_until(&self, name: &str, end: SystemTime) -> Result<(String, String), TlsError> {
        let (certificate, key) = self.issue_pair(name, end)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    fn issue_pair(&self, name: &str, end: SystemTime) -> Result<(rcgen::Certificate, KeyPair), TlsError> {
        let key = KeyPair::generate()?;
        let mut params = params(name)?;
        params.not_after = end.into();
        params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
        Ok((params.signed_by(&key, &self.issuer)?, key))
    }

    /// The head's server configuration: client certificates of this authority are required.
    ///
    /// # Errors
    /// Keys cannot be made or the TLS library refuses.
    pub fn server_config(&self) -> Result<ServerConfig, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
        let (certificate, key) = self.issue_pair(HEAD_NAME, SystemTime::now() + LIFETIME)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![ALPN_AGENT.to_vec(), ALPN_CLIENT.to_vec()];
        Ok(config)
    }

    /// The ticket of the agent with `rank`.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn ticket(&self, run: &RunId, rank: u32, addresses: Vec<String>) -> Result<Ticket, TlsError> {
        self.ticket_for(&format!("agent-{rank}"), run, rank, addresses)
    }

    /// The ticket of clients on other machines. Its certificate is what lets them in; its agent is 0 and means nothing.
    ///
    /// # Errors
    /// Keys cannot be made.
    pub fn client_ticket(&self, run: &RunId, addresses: Vec<String>) -> Result<Ticket, TlsError> {
        self.ticket_for("client", run, 0, addresses)
    }

    fn ticket_for(&self, name: &str, run: &RunId, rank: u32, addresses: Vec<String>) -> Result<Ticket, TlsError> {
        let (certificate, key) = self.issue(name)?;
        let secret = random::<32>()?.to_vec();
        Ok(Ticket {
            version: Ticket::VERSION,
            run: run.to_string(),
            agent: rank,
            addresses,
            authority: self.pem.clone(),
            certificate,
            key,
            life: String::new(),
            attempt: 0,
            secret,
        })
    }
}

/// The name in the head's certificate; peers check it whatever address they dialled.
pub const HEAD_NAME: &str = bridgehead_wire::HEAD_NAME;
const ALPN_AGENT: &[u8] = bridgehead_wire::ALPN_AGENT;
const ALPN_CLIENT: &[u8] = bridgehead_wire::ALPN_CLIENT;

/// Writes a ticket (or another secret document) to `path` with mode 0600, whole or not at all.
///
/// # Errors
/// The file system refuses.
pub fn write_secret(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let part = path.with_extension("part");
    let _ = std::fs::remove_file(&part); // A part file of a dead head may stand in the way.
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)?;
    file.write_all(bytes)?;
    std::fs::rename(&part, path)
}

/// Makes `tls/` with mode 0700.
///
/// # Errors
/// The file system refuses.
pub fn secret_folder(folder: &RunFolder) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let path = folder.tls();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))
}
