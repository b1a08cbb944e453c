//! A workload's certificate, with everything a handshake needs built once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_core::identity::Identity;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, SanType};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::verify::{ClientIdentityVerifier, ServerIdentityVerifier, identity_of};
use super::{ALPN, TlsRules};
use crate::logging::{self, Fields, Level};

/// Why a signed certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateRejected {
    /// The authority's answer has too few elements: a leaf and the roots are the least.
    #[error("the authority sent {0} certificate(s); at least a leaf and a root are needed")]
    Incomplete(usize),
    /// Something in the answer does not parse.
    #[error("the authority's answer does not parse: {0}")]
    Malformed(String),
    /// The leaf is somebody else's.
    #[error("asked for a certificate of {asked}, got one that proves {got}")]
    WrongIdentity {
        /// The identity in the request.
        asked: Identity,
        /// What the leaf's URI SAN says.
        got: String,
    },
    /// Over before it began: one of the two clocks is wrong.
    #[error(
        "the certificate ended {}s ago by this node's clock; compare it with the authority's",
        .ago.as_secs()
    )]
    Expired {
        /// How long ago.
        ago: Duration,
    },
    /// rustls refuses the key or the chain.
    #[error("the certificate cannot be used: {0}")]
    Unusable(#[from] rustls::Error),
}

/// A private key that has not been certified yet. It never leaves this process's memory.
pub(crate) struct PendingKey {
    identity: Identity,
    key: KeyPair,
}

impl PendingKey {
    /// A new ECDSA P-256 key for `identity`. Errors when the system has no randomness to give.
    pub(crate) fn generate(identity: Identity) -> Result<Self, rcgen::Error> {
        Ok(Self {
            identity,
            key: KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        })
    }

    /// The key itself, to have it certified without a request.
    #[cfg(test)]
    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    /// The signing request in PEM: an empty subject and the identity as the only SAN (ztunnel.md 5.2).
    pub(crate) fn signing_request(&self) -> Result<String, rcgen::Error> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        parameters.subject_alt_names = vec![SanType::URI(self.identity.to_string().try_into()?)];
        parameters.serialize_request(&self.key)?.pem()
    }

    /// Join the key with the authority's answer: leaf, intermediates, and the root bundle as the last element.
    pub(crate) fn certify(
        self,
        chain: &[String],
        rules: &Arc<TlsRules>,
    ) -> Result<WorkloadCertificate, CertificateRejected> {
        WorkloadCertificate::new(self.identity, self.key.serialize_der(), chain, rules)
    }
}

/// An identity's certificate and what is derived from it.
pub struct WorkloadCertificate {
    /// Whom it proves.
    pub identity: Identity,
    /// Valid from.
    pub not_before: SystemTime,
    /// Valid until.
    pub not_after: SystemTime,
    /// For inbound handshakes.
    pub server: Arc<ServerConfig>,
    /// Leaf and intermediates in DER, for the configuration dump.
    pub chain: Vec<CertificateDer<'static>>,
    /// Whose certificates it trusts, in DER, for the configuration dump.
    pub root_certificates: Vec<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
    /// What its handshakes go by.
    pub(crate) rules: Arc<TlsRules>,
}

impl WorkloadCertificate {
    fn new(
        identity: Identity,
        key: Vec<u8>,
        pems: &[String],
        rules: &Arc<TlsRules>,
    ) -> Result<Self, CertificateRejected> {
        let [leaf, intermediates @ .., bundle] = pems else {
            return Err(CertificateRejected::Incomplete(pems.len()));
        };
        let mut chain = vec![parse_one(leaf)?];
        for pem in intermediates {
            chain.push(parse_one(pem)?);
        }
        let got = identity_of(&chain[0])
            .map(|got| got.to_string())
            .unwrap_or_else(|reason| reason);
        if got != identity.to_string() {
            return Err(CertificateRejected::WrongIdentity { asked: identity, got });
        }
        let (not_before, not_after) = validity(&chain[0])?;
        if let Ok(ago) = SystemTime::now().duration_since(not_after) {
            return Err(CertificateRejected::Expired { ago });
        }
        let (roots, root_certificates) = parse_roots(&identity, bundle, rules)?;
        let roots = Arc::new(roots);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key));
        let certified = Arc::new(CertifiedKey::from_der(chain.clone(), key, &rules.provider)?);
        let server = Arc::new(server_config(
            &identity,
            Arc::clone(&roots),
            Arc::clone(&certified),
            rules,
        )?);
        Ok(Self {
            identity,
            not_before,
            not_after,
            server,
            chain,
            root_certificates,
            roots,
            certified,
            rules: Arc::clone(rules),
        })
    }

    /// Whose certificates it trusts.
    #[cfg(test)]
    pub(super) fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// What a client of this identity needs to dial a server that must prove one of `expected`.
    pub fn client_config(&self, expected: Vec<Identity>) -> Result<ClientConfig, rustls::Error> {
        let verifier = ServerIdentityVerifier {
            roots: Arc::clone(&self.roots),
            expected,
            rules: Arc::clone(&self.rules),
        };
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.rules.provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(Arc::clone(
                &self.certified,
            ))));
        config.alpn_protocols = vec![ALPN.to_vec()];
        // Identities stand in the certificate; a server name would only tell the network who is called.
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        config.enable_secret_extraction = true;
        Ok(config)
    }
}

fn server_config(
    own: &Identity,
    roots: Arc<RootCertStore>,
    certified: Arc<CertifiedKey>,
    rules: &Arc<TlsRules>,
) -> Result<ServerConfig, rustls::Error> {
    let verifier = ClientIdentityVerifier::new(roots, own, rules)?;
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&rules.provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.enable_secret_extraction = true;
    Ok(config)
}

/// Exactly one certificate. A second one in the same element would be ignored silently otherwise.
fn parse_one(pem: &str) -> Result<CertificateDer<'static>, CertificateRejected> {
    let mut all = CertificateDer::pem_slice_iter(pem.as_bytes());
    match (all.next(), all.next()) {
        (Some(Ok(certificate)), None) => Ok(certificate),
        (Some(Err(error)), _) => Err(CertificateRejected::Malformed(error.to_string())),
        (None, _) => Err(CertificateRejected::Malformed(
            "an element holds no certificate".to_owned(),
        )),
        (Some(Ok(_)), Some(_)) => Err(CertificateRejected::Malformed(
            "an element of the chain holds several certificates; only the last one, the roots, may".to_owned(),
        )),
    }
}

/// The roots that can be used, ready and in DER; the others are skipped with a warning (ztunnel.md 5.3).
fn parse_roots(
    identity: &Identity,
    bundle: &str,
    rules: &TlsRules,
) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), CertificateRejected> {
    let mut roots = RootCertStore::empty();
    let mut usable = Vec::new();
    let mut problem = None;
    for found in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let added = found.map_err(|error| error.to_string()).and_then(|root| {
            roots
                .add(root.clone())
                .map(|()| root)
                .map_err(|error| error.to_string())
        });
        match added {
            Ok(root) => usable.push(root),
            Err(error) => {
                let fields = Fields::default()
                    .text("identity", &identity.to_string())
                    .text("error", &error);
                logging::write(
                    Level::Warn,
                    "certificates",
                    "a root of the authority is skipped",
                    &fields,
                );
                problem = Some(error);
            }
        }
    }
    if roots.is_empty() {
        let why = problem.map_or_else(
            || "it is empty".to_owned(),
            |problem| format!("the last problem: {problem}"),
        );
        return Err(CertificateRejected::Malformed(format!(
            "the root bundle has no usable root; {why}"
        )));
    }
    rules.revocations.learn_roots(&usable);
    Ok((roots, usable))
}

fn validity(leaf: &CertificateDer<'_>) -> Result<(SystemTime, SystemTime), CertificateRejected> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| CertificateRejected::Malformed(error.to_string()))?;
    let validity = parsed.validity();
    Ok((
        validity.not_before.to_datetime().into(),
        validity.not_after.to_datetime().into(),
    ))
}
