//! Lists that `rcgen` signs, judged through real handshakes, files and tunnels' links.

use std::path::{Path, PathBuf};

use rcgen::{CertificateRevocationListParams, KeyIdMethod, RevokedCertParams, SerialNumber, date_time_ymd};

use super::{MAX_ISSUERS, RevocationRefusal, Revocations, parse_lists};
use crate::tls::certificate::WorkloadCertificate;
use crate::tls::tests::{Authority, CLIENT, SERVER};
use crate::tls::{KeyExchange, TlsRules};

/// A file of the test's own, gone at its end.
struct File(PathBuf);

impl File {
    fn new(name: &str, content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ambit-crl-{}-{name}", std::process::id()));
        let file = Self(path);
        file.write(content);
        file
    }

    fn write(&self, content: &str) {
        std::fs::write(&self.0, content).expect("written");
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.0.clone())
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn list(authority: &Authority, revoked: &[&WorkloadCertificate]) -> String {
    // Long over: that a list has expired does not matter.
    let parameters = CertificateRevocationListParams {
        this_update: date_time_ymd(2001, 1, 1),
        next_update: date_time_ymd(2001, 1, 2),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(|certificate| entry(certificate)).collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let signed = parameters.signed_by(&authority.issuer).expect("signed");
    signed.pem().expect("encoded")
}

fn entry(certificate: &WorkloadCertificate) -> RevokedCertParams {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let (_, parsed) = X509Certificate::from_der(&certificate.chain[0]).expect("a certificate");
    RevokedCertParams {
        serial_number: SerialNumber::from_slice(parsed.raw_serial()),
        revocation_time: date_time_ymd(2001, 1, 1),
        reason_code: None,
        invalidity_date: None,
    }
}

fn judge(revocations: &Revocations, certificate: &WorkloadCertificate) -> Result<(), RevocationRefusal> {
    revocations.judge(&certificate.chain[0], &certificate.chain[1..])
}

fn authority(crl: Option<PathBuf>) -> Authority {
    Authority::with_rules(TlsRules::new(KeyExchange::default(), crl))
}

#[test]
fn what_a_list_names_is_refused_and_nothing_else() {
    let file = File::new("named", "");
    let authority = authority(file.path());
    let revocations = &authority.rules.revocations;
    let good = authority.certify(SERVER, &[SERVER]).expect("certified");
    let bad = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    assert_eq!(judge(revocations, &bad), Ok(()), "an empty file revokes nothing");
    let links = revocations.links(&bad.chain[0], &[]);
    assert!(!revocations.revokes(&links));
    file.write(&list(&authority, &[&bad]));
    assert_eq!(revocations.reload(), Ok(true));
    assert_eq!(judge(revocations, &bad), Err(RevocationRefusal::Revoked));
    assert_eq!(judge(revocations, &good), Ok(()));
    assert!(revocations.revokes(&links), "a tunnel that is open is found");
}

#[test]
fn a_list_that_somebody_else_signed_under_the_same_name_counts_for_nothing() {
    let file = File::new("forged", "");
    let authority = authority(file.path());
    let certificate = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    file.write(&list(&Authority::new(), &[&certificate]));
    assert_eq!(authority.rules.revocations.reload(), Ok(true));
    assert_eq!(judge(&authority.rules.revocations, &certificate), Ok(()));
}

#[test]
fn a_list_that_was_there_before_its_issuer_was_known_counts() {
    let file = File::new("early", "");
    let elsewhere = authority(None);
    let certificate = elsewhere.certify(CLIENT, &[CLIENT]).expect("certified");
    file.write(&list(&elsewhere, &[&certificate]));
    let revocations = Revocations::new(file.path());
    assert_eq!(judge(&revocations, &certificate), Ok(()), "nobody vouches for the list");
    revocations.learn_roots(&elsewhere.roots());
    assert_eq!(judge(&revocations, &certificate), Err(RevocationRefusal::Revoked));
}

#[test]
fn lists_that_cannot_be_used_at_the_start_refuse_everybody_until_they_can() {
    let file = File::new("broken", "not a list");
    let authority = authority(file.path());
    let certificate = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let revocations = &authority.rules.revocations;
    let error = judge(revocations, &certificate).expect_err("refused").to_string();
    assert!(
        error.contains("CRL_PATH") && error.contains("neither PEM nor DER"),
        "{error}"
    );
    file.write(&list(&authority, &[]));
    assert_eq!(revocations.reload(), Ok(true));
    assert_eq!(judge(revocations, &certificate), Ok(()));
}

#[test]
fn what_was_revoked_stays_so_when_the_file_breaks_or_vanishes() {
    let file = File::new("kept", "");
    let authority = authority(file.path());
    let certificate = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let revocations = &authority.rules.revocations;
    file.write(&list(&authority, &[&certificate]));
    assert_eq!(revocations.reload(), Ok(true));
    file.write("-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    assert!(revocations.reload().is_err());
    assert_eq!(judge(revocations, &certificate), Err(RevocationRefusal::Revoked));
    std::fs::remove_file(&file.0).expect("removed");
    assert_eq!(revocations.reload(), Ok(false));
    assert_eq!(judge(revocations, &certificate), Err(RevocationRefusal::Revoked));
}

#[test]
fn a_file_that_is_not_there_revokes_nothing() {
    let authority = authority(Some(Path::new("/nowhere/ca-crl.pem").to_path_buf()));
    let certificate = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    assert_eq!(judge(&authority.rules.revocations, &certificate), Ok(()));
}

#[test]
fn several_lists_and_other_blocks_stand_in_one_file() {
    let (one, other) = (Authority::new(), Authority::new());
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let text = format!("{}{certificate}{}", list(&one, &[]), list(&other, &[]));
    assert_eq!(parse_lists(text.as_bytes()).expect("parsed").len(), 2);
    let der = parse_lists(text.as_bytes()).expect("parsed").remove(0);
    assert_eq!(parse_lists(&der).expect("parsed").len(), 1, "DER");
    assert!(parse_lists(certificate.as_bytes()).expect("parsed").is_empty());
    assert!(parse_lists(&der[..der.len() - 1]).is_err(), "a list that was cut");
}

#[test]
fn strangers_do_not_become_issuers() {
    let file = File::new("strangers", "");
    let authority = authority(file.path());
    let certificate = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let revocations = &authority.rules.revocations;
    let before = revocations.lock().issuers.len();
    for _ in 0..3 {
        let stranger = Authority::new().roots();
        assert_eq!(revocations.judge(&certificate.chain[0], &stranger), Ok(()));
    }
    assert_eq!(revocations.lock().issuers.len(), before);
    assert!(before < MAX_ISSUERS);
}

#[test]
fn without_a_setting_nothing_is_kept() {
    let authority = authority(None);
    let certificate = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    assert!(authority.rules.revocations.links(&certificate.chain[0], &[]).is_empty());
}
