//! Handshakes and records between real sockets, with certificates of a throw-away authority.

use std::sync::Arc;

use ambit_core::identity::Identity;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use tokio::net::{TcpListener, TcpStream};

use super::certificate::{CertificateRejected, PendingKey, WorkloadCertificate};
use super::handshake::{self, Established, HandshakeError};
use super::records::{HEAD, MAX_CONTENT, Opened, RecordLayer, TAIL};

pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    root: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::default();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let root = parameters.self_signed(&key).expect("a root").pem();
        Self {
            issuer: Issuer::new(parameters, key),
            root,
        }
    }

    fn sign(&self, key: &KeyPair, uris: &[&str]) -> String {
        let mut parameters = CertificateParams::default();
        parameters.subject_alt_names = uris
            .iter()
            .map(|uri| SanType::URI((*uri).try_into().expect("ascii")))
            .collect();
        parameters.signed_by(key, &self.issuer).expect("a leaf").pem()
    }

    pub(crate) fn certify(&self, asked: &str, uris: &[&str]) -> Result<WorkloadCertificate, CertificateRejected> {
        let pending = PendingKey::generate(identity(asked)).expect("a key");
        let leaf = self.sign(pending.key(), uris);
        pending.certify(&[leaf, self.root.clone()])
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
        pending.certify(&[leaf]),
        Err(CertificateRejected::Incomplete(1))
    ));
}
