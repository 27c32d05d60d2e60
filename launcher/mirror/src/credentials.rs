//! Certificates of the folder service: read from a folder, turned into TLS configurations. Makes none; a peer's role is its
//! certificate, as `docs/formats/folder-service.md` says.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// Application protocol of the folder service.
pub const ALPN_FOLDER: &[u8] = b"bridgehead-folder/1";

/// What one party shows and believes: PEM texts.
#[derive(Clone)]
pub struct Credentials {
    /// The authority that all parties' certificates are of.
    pub authority: String,
    /// This party's certificate.
    pub certificate: String,
    /// Its key; a secret.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)") // The key must not reach a log.
    }
}

impl Credentials {
    /// Reads `authority.pem`, `ROLE.pem` and `ROLE.key` from a folder, for example a mounted Secret, whose files are symbolic
    /// links. `role` is `head`, `agent` or `client`.
    ///
    /// # Errors
    /// A file is not there or is no text; the error names it.
    pub fn read(dir: &Path, role: &str) -> io::Result<Self> {
        let text = |name: String| {
            let path = dir.join(name);
            std::fs::read_to_string(&path)
                .map_err(|e| io::Error::new(e.kind(), format!("cannot read {}: {e}", path.display())))
        };
        Ok(Self {
            authority: text("authority.pem".to_owned())?,
            certificate: text(format!("{role}.pem"))?,
            key: text(format!("{role}.key"))?,
        })
    }

    fn parts(&self) -> io::Result<(Arc<RootCertStore>, CertificateDer<'static>, PrivateKeyDer<'static>)> {
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(&self.authority)?)
            .map_err(|e| unusable("the authority's certificate", &e))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| unusable("the key", &e))?;
        Ok((Arc::new(roots), certificate(&self.certificate)?, key))
    }

    /// What the service presents, and demands of its peers.
    pub(crate) fn server(&self) -> io::Result<ServerConfig> {
        let (roots, certificate, key) = self.parts()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone())
            .build()
            .map_err(|e| unusable("the authority's certificate", &e))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unusable("TLS 1.3", &e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(vec![certificate], key)
            .map_err(|e| unusable("the certificate and its key", &e))?;
        config.alpn_protocols = vec![ALPN_FOLDER.to_vec()];
        Ok(config)
    }

    /// What a client or an agent presents, and demands of the service.
    pub(crate) fn client(&self) -> io::Result<ClientConfig> {
        let (roots, certificate, key) = self.parts()?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| unusable("TLS 1.3", &e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|e| unusable("the certificate and its key", &e))?;
        config.alpn_protocols = vec![ALPN_FOLDER.to_vec()];
        Ok(config)
    }
}

/// A certificate of a PEM text.
pub(crate) fn certificate(pem: &str) -> io::Result<CertificateDer<'static>> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| unusable("a certificate", &e))
}

fn unusable(what: &str, error: &dyn std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{what} of the folder service cannot be used: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_not_shown() {
        let credentials = Credentials {
            authority: "a".to_owned(),
            certificate: "b".to_owned(),
            key: "secret".to_owned(),
        };
        assert!(!format!("{credentials:?}").contains("secret"));
    }

    #[test]
    fn files_are_read_by_role_and_through_links_and_what_lacks_is_named() {
        let dir = tempfile::TempDir::new().unwrap();
        for (name, text) in [("authority.pem", "A"), ("agent.pem", "B"), ("hidden", "C")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let error = Credentials::read(dir.path(), "agent").unwrap_err().to_string();
        assert!(error.contains("agent.key"), "{error}");
        std::os::unix::fs::symlink("hidden", dir.path().join("agent.key")).unwrap();
        let read = Credentials::read(dir.path(), "agent").unwrap();
        assert_eq!((&*read.authority, &*read.certificate, &*read.key), ("A", "B", "C"));
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let credentials = Credentials {
            authority: "a".to_owned(),
            certificate: "b".to_owned(),
            key: "c".to_owned(),
        };
        assert!(credentials.server().is_err() && credentials.client().is_err());
    }
}
