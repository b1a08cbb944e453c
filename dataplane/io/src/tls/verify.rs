//! Who is on the other side: the chain must lead to the mesh's roots, and the one URI SAN must be an identity we accept.

use std::sync::Arc;
use std::time::Duration;

use ambit_core::identity::Identity;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::revocation::RevocationRefusal;
use super::{TlsRules, algorithms};
use crate::telemetry::Direction;

/// The SPIFFE identity in a leaf certificate's URI SAN.
///
/// # Errors
/// A text saying what is wrong: no URI SAN, several, or one that is not a SPIFFE identity. Stock ztunnel takes the first of
/// several that parses; a certificate that claims two identities is refused here, because which one is meant is a guess.
pub(crate) fn identity_of(leaf: &CertificateDer<'_>) -> Result<Identity, String> {
    let (_, parsed) =
        X509Certificate::from_der(leaf).map_err(|error| format!("certificate does not parse: {error}"))?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| format!("subject alternative names do not parse: {error}"))?
        .map(|extension| extension.value.general_names.as_slice())
        .unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Identity::parse(uri).map_err(|error| error.to_string()),
        (None, _) => Err("certificate has no URI SAN, so no SPIFFE identity".to_owned()),
        (Some(first), Some(second)) => Err(format!(
            "certificate has several URI SANs ({first:?}, {second:?}); exactly one identity is accepted"
        )),
    }
}

fn refused(text: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(rustls::OtherError(Arc::new(Refused(text)))))
}

#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// How far a peer's clock may be ahead of ours: a certificate that is not valid yet, but will be by then, is accepted.
const CLOCK_SKEW: Duration = Duration::from_secs(60);

/// Verify at `now`; when the certificate is valid only from a little later on, at that time.
fn within_skew<T>(now: UnixTime, verify: impl Fn(UnixTime) -> Result<T, Error>) -> Result<T, Error> {
    match verify(now) {
        Err(Error::InvalidCertificate(CertificateError::NotValidYetContext { not_before, .. }))
            if not_before.as_secs().saturating_sub(now.as_secs()) <= CLOCK_SKEW.as_secs() =>
        {
            verify(not_before)
        }
        result => result,
    }
}

fn check_revocation(
    rules: &TlsRules,
    direction: Direction,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<(), Error> {
    rules.revocations.judge(leaf, intermediates).map_err(|refusal| {
        rules.counters.revoked(direction);
        Error::InvalidCertificate(match refusal {
            RevocationRefusal::Revoked => CertificateError::Revoked,
            RevocationRefusal::ListsUnusable(_) => CertificateError::Other(rustls::OtherError(Arc::new(refusal))),
        })
    })
}

/// Accepts servers that prove one of the expected identities (ztunnel.md 1.3, client side).
#[derive(Debug)]
pub(crate) struct ServerIdentityVerifier {
    /// Trust anchors of the workload that dials.
    pub roots: Arc<RootCertStore>,
    /// Any of these will do; none at all refuses everybody.
    pub expected: Vec<Identity>,
    /// What issuers took back.
    pub rules: Arc<TlsRules>,
}

impl ServerCertVerifier for ServerIdentityVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        within_skew(now, |time| {
            verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, time, algorithms().all)
        })?;
        check_revocation(&self.rules, Direction::Outbound, end_entity, intermediates)?;
        let identity = identity_of(end_entity).map_err(refused)?;
        if self.expected.contains(&identity) {
            return Ok(ServerCertVerified::assertion());
        }
        let expected: Vec<String> = self.expected.iter().map(ToString::to_string).collect();
        Err(refused(format!(
            "server proved {identity}, expected one of {expected:?}"
        )))
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        algorithms().supported_schemes()
    }
}

/// Accepts clients with one SPIFFE identity of our own trust domain (ztunnel.md 1.3, server side).
#[derive(Debug)]
pub(crate) struct ClientIdentityVerifier {
    chain: Arc<dyn ClientCertVerifier>,
    trust_domain: String,
    rules: Arc<TlsRules>,
}

impl ClientIdentityVerifier {
    /// Errors when `roots` is empty or does not parse.
    pub(crate) fn new(roots: Arc<RootCertStore>, own: &Identity, rules: &Arc<TlsRules>) -> Result<Self, Error> {
        let chain = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&rules.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        Ok(Self {
            chain,
            trust_domain: own.trust_domain().to_owned(),
            rules: Arc::clone(rules),
        })
    }
}

impl ClientCertVerifier for ClientIdentityVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Naming our roots would only tell strangers about the mesh, and cost bytes in every handshake.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = within_skew(now, |time| {
            self.chain.verify_client_cert(end_entity, intermediates, time)
        })?;
        check_revocation(&self.rules, Direction::Inbound, end_entity, intermediates)?;
        let identity = identity_of(end_entity).map_err(refused)?;
        if identity.trust_domain() == self.trust_domain {
            return Ok(verified);
        }
        Err(refused(format!(
            "client proved {identity}, which is not of trust domain {:?}",
            self.trust_domain
        )))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}
