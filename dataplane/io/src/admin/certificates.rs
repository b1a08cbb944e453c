//! The certificates of the configuration dump, as `istioctl ztunnel-config certificates` reads them (ztunnel.md 8.1).

use ambit_core::identity::Identity;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use pem::{EncodeConfig, LineEnding, Pem};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::certificates::CertificateState;
use crate::rfc3339;

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
    let mut described = json!({ "pem": BASE64_STANDARD.encode(encode_pem(der)) });
    // What is kept here has been read before.
    if let Ok((_, certificate)) = X509Certificate::from_der(der) {
        let validity = certificate.validity();
        described["serialNumber"] = certificate.serial.to_string().into();
        described["validFrom"] = rfc3339::seconds(validity.not_before.to_datetime().into()).into();
        described["expirationTime"] = rfc3339::seconds(validity.not_after.to_datetime().into()).into();
    }
    described
}

fn encode_pem(der: &[u8]) -> String {
    let block = Pem::new("CERTIFICATE", der);
    pem::encode_config(&block, EncodeConfig::new().set_line_ending(LineEnding::LF))
}
