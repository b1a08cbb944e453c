//! The serving side's TLS: one certificate at a time, replaced while connections go on, and no client certificates.
//!
//! TLS 1.2 is served beside 1.3: Envoy's clients speak at most that unless they are told otherwise.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ServerError;
use crate::tls::ALPN;

/// What handshakes show at present.
#[derive(Debug)]
pub(super) struct Certificate(ArcSwap<CertifiedKey>);

impl Certificate {
    /// From a key and a chain in PEM. Errors when they are none, or do not belong together.
    pub(super) fn new(key: &[u8], chain: &[u8]) -> Result<Self, ServerError> {
        Ok(Self(ArcSwap::from_pointee(parse(key, chain)?)))
    }

    /// Show this from the next handshake on.
    pub(super) fn replace(&self, key: &[u8], chain: &[u8]) -> Result<(), ServerError> {
        self.0.store(Arc::new(parse(key, chain)?));
        Ok(())
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

fn parse(key: &[u8], chain: &[u8]) -> Result<CertifiedKey, ServerError> {
    let wrong = |what: &str, why: String| ServerError::Certificate(format!("{what}: {why}"));
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| wrong("key", error.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| wrong("chain", error.to_string()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(|error| wrong("pair", error.to_string()))
}

/// How connections with this certificate are taken.
pub(super) fn config(certificate: Arc<Certificate>) -> Result<Arc<ServerConfig>, ServerError> {
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| ServerError::Certificate(error.to_string()))?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(Arc::new(config))
}
