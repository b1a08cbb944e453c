//! TLS 1.3 as HBONE uses it: mutual, `h2` only, identities by SPIFFE URI instead of names.
//!
//! rustls does the handshake and owns the key schedule. After it, records are sealed and opened in place by `records`, in the
//! buffers that the kernel reads into and writes from: a byte of the application is copied by the kernel only. Read
//! `handshake` first, then `records`.

pub(crate) mod certificate;
mod der;
pub(crate) mod handshake;
pub(crate) mod records;
pub(crate) mod revocation;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod verify;

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use rustls::NamedGroup;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};

use crate::telemetry::SecurityCounters;
use revocation::Revocations;

/// HBONE's only application protocol.
pub(crate) const ALPN: &[u8] = b"h2";

/// Which key exchanges are allowed (ztunnel.md 1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyExchange {
    /// X25519MLKEM768 where the peer has it, else a classic one.
    #[default]
    PostQuantumPreferred,
    /// X25519MLKEM768 only (`COMPLIANCE_POLICY=pqc`).
    PostQuantumOnly,
}

/// What all handshakes of the process go by.
#[derive(Debug)]
pub(crate) struct TlsRules {
    pub(crate) provider: Arc<CryptoProvider>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) counters: Arc<SecurityCounters>,
}

impl TlsRules {
    /// With the revocation lists in the file `crl`, if one is set.
    pub(crate) fn new(key_exchange: KeyExchange, crl: Option<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            provider: provider(key_exchange),
            revocations: Revocations::new(crl),
            counters: Arc::default(),
        })
    }
}

/// The cryptography that the mesh allows: AES-GCM with TLS 1.3, post-quantum key exchange first.
fn provider(key_exchange: KeyExchange) -> Arc<CryptoProvider> {
    let mut provider = CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ],
        ..aws_lc_rs::default_provider()
    };
    if key_exchange == KeyExchange::PostQuantumOnly {
        provider
            .kx_groups
            .retain(|group| group.name() == NamedGroup::X25519MLKEM768);
    }
    Arc::new(provider)
}

/// Signatures that are accepted, on certificates, revocation lists and handshakes.
fn algorithms() -> WebPkiSupportedAlgorithms {
    static ALGORITHMS: OnceLock<WebPkiSupportedAlgorithms> = OnceLock::new();
    *ALGORITHMS.get_or_init(|| aws_lc_rs::default_provider().signature_verification_algorithms)
}
