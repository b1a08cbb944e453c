//! TLS 1.3 as HBONE uses it: mutual, `h2` only, identities by SPIFFE URI instead of names.
//!
//! rustls does the handshake and owns the key schedule. After it, records are sealed and opened in place by `records`, in the
//! buffers that the kernel reads into and writes from: a byte of the application is copied by the kernel only. Read
//! `handshake` first, then `records`.

pub(crate) mod certificate;
pub(crate) mod handshake;
pub(crate) mod records;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod verify;

use std::sync::{Arc, OnceLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

/// HBONE's only application protocol.
pub(crate) const ALPN: &[u8] = b"h2";

/// The cryptography that the mesh allows: AES-GCM with TLS 1.3, post-quantum key exchange first (ztunnel.md 1.2).
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| {
        let suites = vec![
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ];
        Arc::new(CryptoProvider {
            cipher_suites: suites,
            ..aws_lc_rs::default_provider()
        })
    }))
}
