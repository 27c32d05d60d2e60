//! The client's side of the run's mutual TLS, as a ticket gives it: which authority to believe, which certificate to show.

use bridgehead_wire::Ticket;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// The configuration of a connection to the head with a ticket's certificate, speaking `alpn`.
///
/// # Errors
/// The ticket holds no certificate or key.
pub fn tls_config(ticket: &Ticket, alpn: &[u8]) -> Result<ClientConfig, Box<dyn std::error::Error>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ticket.authority.as_bytes())?)?;
    let certificate = CertificateDer::from_pem_slice(ticket.certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(ticket.key.as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![certificate], key)?;
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}
