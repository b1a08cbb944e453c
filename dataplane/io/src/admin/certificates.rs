//! The certificates of the configuration dump, as `istioctl ztunnel-config certificates` reads them (ztunnel.md 8.1).

use std::time::{Duration, SystemTime};

use ambit_core::identity::Identity;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificates::CertificateState;
use crate::rfc3339;

/// Base64 in a PEM file has lines of this length.
const PEM_LINE: usize = 64;

/// By identity.
pub(super) fn dump(mut all: Vec<(Identity, CertificateState)>) -> Value {
    all.sort_by_key(|(identity, _)| identity.to_string());
    all.into_iter().map(|(identity, state)| one(&identity, state)).collect()
}

fn one(identity: &Identity, state: CertificateState) -> Value {
    let (state, chain, roots) = match state {
        CertificateState::Initializing => ("Initializing".to_owned(), vec![], vec![]),
        CertificateState::Unavailable(why) => (format!("Unavailable: {why}"), vec![], vec![]),
        CertificateState::Available(certificate) => (
            "Available".to_owned(),
            certificate.chain.iter().map(describe).collect(),
            certificate.root_certificates.iter().map(describe).collect(),
        ),
    };
    json!({ "identity": identity.to_string(), "state": state, "certChain": chain, "rootCerts": roots })
}

fn describe(der: &CertificateDer<'_>) -> Value {
    let mut described = json!({ "pem": BASE64_STANDARD.encode(pem(der)) });
    // What is kept here has been read before.
    if let Ok((_, certificate)) = X509Certificate::from_der(der) {
        let at = |seconds: i64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds.max(0).unsigned_abs());
        let validity = certificate.validity();
        described["serialNumber"] = certificate.serial.to_string().into();
        described["validFrom"] = rfc3339::seconds(at(validity.not_before.timestamp())).into();
        described["expirationTime"] = rfc3339::seconds(at(validity.not_after.timestamp())).into();
    }
    described
}

fn pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut text = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in encoded.as_bytes().chunks(PEM_LINE) {
        text.extend(line.iter().map(|byte| char::from(*byte)));
        text.push('\n');
    }
    text + "-----END CERTIFICATE-----\n"
}
