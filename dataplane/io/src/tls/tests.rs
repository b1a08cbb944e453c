//! Handshakes and records between real sockets, with certificates of a throw-away authority.

use std::sync::Arc;

use ambit_core::identity::Identity;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use rustls::NamedGroup;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use time::OffsetDateTime;
use tokio::net::{TcpListener, TcpStream};

use super::certificate::{CertificateRejected, PendingKey, WorkloadCertificate};
use super::handshake::{self, Established, HandshakeError};
use super::records::{HEAD, MAX_CONTENT, Opened, RecordLayer, TAIL};
use super::{KeyExchange, TlsRules};

pub(crate) struct Authority {
    pub(super) issuer: Issuer<'static, KeyPair>,
    root: String,
    pub(super) rules: Arc<TlsRules>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::with_rules(TlsRules::new(KeyExchange::default(), None))
    }

    pub(crate) fn with_rules(rules: Arc<TlsRules>) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&key).expect("a root").pem();
        Self {
            issuer: Issuer::new(parameters, key),
            root,
            rules,
        }
    }

    pub(super) fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from_pem_slice(self.root.as_bytes()).expect("a root")]
    }

    fn sign(&self, key: &KeyPair, uris: &[&str]) -> String {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("ascii")))
            .collect();
        parameters.signed_by(key, &self.issuer).expect("a leaf").pem()
    }

    fn certify_between(
        &self,
        who: &str,
        from: OffsetDateTime,
        until: OffsetDateTime,
    ) -> Result<WorkloadCertificate, CertificateRejected> {
        let pending = PendingKey::generate(identity(who)).expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = vec![SanType::URI(who.try_into().expect("ascii"))];
        (parameters.not_before, parameters.not_after) = (from, until);
        let leaf = parameters.signed_by(pending.key(), &self.issuer).expect("a leaf").pem();
        pending.certify(&[leaf, self.root.clone()], &self.rules)
    }

    pub(crate) fn certify(&self, asked: &str, uris: &[&str]) -> Result<WorkloadCertificate, CertificateRejected> {
        let pending = PendingKey::generate(identity(asked)).expect("a key");
        let leaf = self.sign(pending.key(), uris);
        pending.certify(&[leaf, self.root.clone()], &self.rules)
    }
}

pub(crate) fn identity(uri: &str) -> Identity {
    Identity::parse(uri).expect("an identity")
}

pub(crate) const CLIENT: &str = "spiffe://cluster.local/ns/a/sa/client";
pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/b/sa/server";

pub(crate) async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
    let address = listener.local_addr().expect("an address");
    let (client, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    (client.expect("a connection"), accepted.expect("a connection").0)
}

async fn shake(
    client: &WorkloadCertificate,
    server: &WorkloadCertificate,
    expected: &str,
) -> (Result<Established, HandshakeError>, Result<Established, HandshakeError>) {
    let (dialled, accepted) = pair().await;
    let config = client.client_config(vec![identity(expected)]).expect("a configuration");
    let dial = async {
        let result = handshake::connect(&dialled, Arc::new(config)).await;
        // The server's verdict on the client's certificate comes after the client's own handshake is done.
        (result, dialled)
    };
    let accept = async {
        let result = handshake::accept(&accepted, Arc::clone(&server.server)).await;
        (result, accepted)
    };
    let ((dialled, _client), (accepted, _server)) = tokio::join!(dial, accept);
    (dialled, accepted)
}

fn transfer(from: &mut RecordLayer, to: &mut RecordLayer, content: &[u8]) {
    let mut record = vec![0; HEAD + content.len() + TAIL];
    record[HEAD..HEAD + content.len()].copy_from_slice(content);
    let size = from.seal(&mut record, content.len()).expect("sealed");
    assert_eq!(size, record.len());
    assert!(!record.windows(content.len().max(16)).any(|window| window == content));
    match to.open(&mut record, 0).expect("authentic") {
        Some((opened, Opened::Content(range))) => {
            assert_eq!(opened, size);
            assert_eq!(&record[range], content);
        }
        _ => panic!("no content"),
    }
}

#[tokio::test(flavor = "current_thread")]
async fn both_sides_prove_their_identity_and_records_pass() {
    let authority = Authority::new();
    let client = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let server = authority.certify(SERVER, &[SERVER]).expect("certified");
    let (dialled, accepted) = shake(&client, &server, SERVER).await;
    let (mut dialled, mut accepted) = (dialled.expect("connected"), accepted.expect("accepted"));
    assert_eq!(super::verify::identity_of(&accepted.peer), Ok(identity(CLIENT)));
    assert_eq!(super::verify::identity_of(&dialled.peer), Ok(identity(SERVER)));
    transfer(&mut dialled.records, &mut accepted.records, b"hello over there");
    transfer(&mut accepted.records, &mut dialled.records, &vec![7; MAX_CONTENT]);
}

#[tokio::test(flavor = "current_thread")]
async fn a_key_update_of_one_side_is_followed_by_the_other() {
    let authority = Authority::new();
    let client = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let server = authority.certify(SERVER, &[SERVER]).expect("certified");
    let (dialled, accepted) = shake(&client, &server, SERVER).await;
    let (mut dialled, mut accepted) = (dialled.expect("connected").records, accepted.expect("accepted").records);
    let mut space = vec![0; 64];
    assert_eq!(
        dialled.seal_key_update(&mut space).expect("sealed"),
        0,
        "no change is due yet"
    );
    dialled.request_key_update();
    let size = dialled.seal_key_update(&mut space).expect("sealed");
    assert!(matches!(
        accepted.open(&mut space[..size], 0),
        Ok(Some((_, Opened::Nothing)))
    ));
    transfer(&mut dialled, &mut accepted, b"under the new key");
    transfer(&mut accepted, &mut dialled, b"the other way is unchanged");
}

#[tokio::test(flavor = "current_thread")]
async fn a_changed_byte_is_noticed() {
    let authority = Authority::new();
    let client = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let server = authority.certify(SERVER, &[SERVER]).expect("certified");
    let (dialled, accepted) = shake(&client, &server, SERVER).await;
    let (mut dialled, mut accepted) = (dialled.expect("connected").records, accepted.expect("accepted").records);
    let mut record = vec![1; HEAD + 5 + TAIL];
    let size = dialled.seal(&mut record, 5).expect("sealed");
    record[HEAD + 2] ^= 1;
    assert!(accepted.open(&mut record[..size], 0).is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn a_server_with_another_identity_is_refused() {
    let authority = Authority::new();
    let client = authority.certify(CLIENT, &[CLIENT]).expect("certified");
    let server = authority.certify(SERVER, &[SERVER]).expect("certified");
    let (dialled, _) = shake(&client, &server, "spiffe://cluster.local/ns/b/sa/other").await;
    let error = dialled.err().expect("refused").to_string();
    assert!(error.contains(SERVER), "{error}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_of_another_authority_is_refused() {
    let server = Authority::new().certify(SERVER, &[SERVER]).expect("certified");
    let client = Authority::new().certify(CLIENT, &[CLIENT]).expect("certified");
    let (dialled, accepted) = shake(&client, &server, SERVER).await;
    assert!(dialled.is_err() && accepted.is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn a_client_of_another_trust_domain_is_refused() {
    let authority = Authority::new();
    let foreign = "spiffe://elsewhere.example/ns/a/sa/client";
    let client = authority.certify(foreign, &[foreign]).expect("certified");
    let server = authority.certify(SERVER, &[SERVER]).expect("certified");
    let (_, accepted) = shake(&client, &server, SERVER).await;
    let error = accepted.err().expect("refused").to_string();
    assert!(error.contains("elsewhere.example"), "{error}");
}

#[test]
fn a_certificate_for_somebody_else_is_not_taken() {
    let error = Authority::new().certify(CLIENT, &[SERVER]).err().expect("rejected");
    assert!(matches!(error, CertificateRejected::WrongIdentity { .. }), "{error}");
}

#[test]
fn a_certificate_with_two_identities_is_not_taken() {
    let error = Authority::new()
        .certify(CLIENT, &[CLIENT, SERVER])
        .err()
        .expect("rejected")
        .to_string();
    assert!(error.contains("several URI SANs"), "{error}");
}

#[test]
fn a_chain_without_a_root_is_not_taken() {
    let authority = Authority::new();
    let pending = PendingKey::generate(identity(CLIENT)).expect("a key");
    let leaf = authority.sign(pending.key(), &[CLIENT]);
    assert!(matches!(
        pending.certify(&[leaf], &authority.rules),
        Err(CertificateRejected::Incomplete(1))
    ));
}

#[tokio::test(flavor = "current_thread")]
async fn two_of_ours_agree_on_keys_that_a_quantum_computer_does_not_break() {
    for demand in [KeyExchange::PostQuantumPreferred, KeyExchange::PostQuantumOnly] {
        let authority = Authority::with_rules(TlsRules::new(demand, None));
        let client = authority.certify(CLIENT, &[CLIENT]).expect("certified");
        let server = authority.certify(SERVER, &[SERVER]).expect("certified");
        let (dialled, accepted) = shake(&client, &server, SERVER).await;
        let negotiated = Some(NamedGroup::X25519MLKEM768);
        assert_eq!(dialled.expect("connected").key_exchange, negotiated, "{demand:?}");
        assert_eq!(accepted.expect("accepted").key_exchange, negotiated, "{demand:?}");
    }
}

/// A client that knows the classic groups only, as an older peer would.
fn classic(client: &WorkloadCertificate) -> rustls::ClientConfig {
    let mut config = client.client_config(vec![identity(SERVER)]).expect("a configuration");
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups.retain(|group| group.name() == NamedGroup::X25519);
    let resolver = Arc::clone(&config.client_auth_cert_resolver);
    let verifier = super::verify::ServerIdentityVerifier {
        roots: client.roots(),
        expected: vec![identity(SERVER)],
        rules: Arc::clone(&client.rules),
    };
    let alpn = std::mem::take(&mut config.alpn_protocols);
    config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(resolver);
    config.alpn_protocols = alpn;
    config.enable_secret_extraction = true;
    config
}

#[tokio::test(flavor = "current_thread")]
async fn a_peer_without_them_is_served_unless_they_are_demanded() {
    for (demand, is_served) in [
        (KeyExchange::PostQuantumPreferred, true),
        (KeyExchange::PostQuantumOnly, false),
    ] {
        let authority = Authority::with_rules(TlsRules::new(demand, None));
        let client = authority.certify(CLIENT, &[CLIENT]).expect("certified");
        let server = authority.certify(SERVER, &[SERVER]).expect("certified");
        let (dialled, accepted) = pair().await;
        let accept = handshake::accept(&accepted, Arc::clone(&server.server));
        let (client, server) = tokio::join!(handshake::connect(&dialled, Arc::new(classic(&client))), accept);
        assert_eq!(client.is_ok() && server.is_ok(), is_served, "{demand:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn while_roots_rotate_certificates_of_both_are_accepted() {
    let (old, new) = (Authority::new(), Authority::new());
    let bundle = format!("{}{}", old.root, new.root);
    let certify = |authority: &Authority, who: &str, bundle: &str| {
        let pending = PendingKey::generate(identity(who)).expect("a key");
        let leaf = authority.sign(pending.key(), &[who]);
        pending
            .certify(&[leaf, bundle.to_owned()], &authority.rules)
            .expect("certified")
    };
    for (client, server) in [(&old, &new), (&new, &old)] {
        let (dialled, accepted) = shake(
            &certify(client, CLIENT, &bundle),
            &certify(server, SERVER, &bundle),
            SERVER,
        )
        .await;
        assert!(dialled.is_ok() && accepted.is_ok());
    }
    let (_, accepted) = shake(
        &certify(&old, CLIENT, &bundle),
        &certify(&new, SERVER, &new.root),
        SERVER,
    )
    .await;
    assert!(accepted.is_err(), "the old root was taken out of the bundle");
}

#[test]
fn bad_roots_are_skipped_unless_none_is_left() {
    let authority = Authority::new();
    let bad = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let certify = |bundle: String| {
        let pending = PendingKey::generate(identity(CLIENT)).expect("a key");
        let leaf = authority.sign(pending.key(), &[CLIENT]);
        pending.certify(&[leaf, bundle], &authority.rules)
    };
    assert!(certify(format!("{bad}{}", authority.root)).is_ok());
    for bundle in [bad.to_owned(), String::new()] {
        let error = certify(bundle).err().expect("rejected").to_string();
        assert!(error.contains("no usable root"), "{error}");
    }
}

#[test]
fn an_element_of_the_chain_is_one_certificate() {
    let authority = Authority::new();
    let pending = PendingKey::generate(identity(CLIENT)).expect("a key");
    let leaf = authority.sign(pending.key(), &[CLIENT]);
    let twice = format!("{leaf}{leaf}");
    let error = pending.certify(&[twice, authority.root.clone()], &authority.rules);
    let error = error.err().expect("rejected").to_string();
    assert!(error.contains("several certificates"), "{error}");
}

fn in_seconds(seconds: i64) -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::seconds(seconds)
}

#[tokio::test(flavor = "current_thread")]
async fn a_peer_whose_clock_is_a_little_ahead_is_accepted() {
    for (ahead, is_accepted) in [(30, true), (300, false)] {
        let authority = Authority::new();
        let client = authority
            .certify_between(CLIENT, in_seconds(ahead), in_seconds(3600))
            .expect("certified");
        let server = authority.certify(SERVER, &[SERVER]).expect("certified");
        let (_, accepted) = shake(&client, &server, SERVER).await;
        assert_eq!(accepted.is_ok(), is_accepted, "{ahead} s");
    }
}

#[test]
fn a_certificate_that_has_ended_when_it_comes_blames_the_clocks() {
    let error = Authority::new()
        .certify_between(CLIENT, in_seconds(-7200), in_seconds(-3600))
        .err()
        .expect("rejected")
        .to_string();
    assert!(error.contains("clock"), "{error}");
}
