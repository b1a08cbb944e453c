//! Certificates from the controller's authority (ztunnel.md 5).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ambit_core::identity::Identity;
use ambit_core::wire::citadel::{IstioCertificateRequest, IstioCertificateResponse};
use prost_types::{Struct, Value, value::Kind};
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::{ControlError, ControlPlane, method};
use crate::tls::TlsRules;
use crate::tls::certificate::{PendingKey, WorkloadCertificate};

/// An authority that takes longer is as good as away.
const DEADLINE: Duration = Duration::from_secs(10);

/// Get a certificate for `identity`, which must belong to a pod on this node, asking for `lifetime` (ztunnel.md 5.1). The
/// controller's root file and our token are read for each, so that changed ones are used at once.
///
/// # Errors
/// A text saying which step failed.
pub(crate) async fn fetch(
    controller: &ControlPlane,
    identity: &Identity,
    lifetime: Duration,
    rules: &Arc<TlsRules>,
) -> Result<WorkloadCertificate, String> {
    let key = PendingKey::generate(identity.clone()).map_err(|error| format!("cannot make a key: {error}"))?;
    let csr = key
        .signing_request()
        .map_err(|error| format!("cannot make a signing request: {error}"))?;
    let chain = tokio::time::timeout(DEADLINE, sign(controller, identity, csr, lifetime))
        .await
        .map_err(|_| format!("the authority at {} did not answer in 10 s", controller.address))?
        .map_err(|error| error.to_string())?;
    key.certify(&chain, rules).map_err(|error| error.to_string())
}

async fn sign(
    controller: &ControlPlane,
    identity: &Identity,
    csr: String,
    lifetime: Duration,
) -> Result<Vec<String>, ControlError> {
    let mut client = Grpc::new(controller.connect().await?);
    client.ready().await.map_err(|error| ControlError::Unreachable {
        address: controller.address.clone(),
        why: error.to_string(),
    })?;
    let impersonated = Value {
        kind: Some(Kind::StringValue(identity.to_string())),
    };
    let message = IstioCertificateRequest {
        csr,
        validity_duration: i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX),
        metadata: Some(Struct {
            fields: BTreeMap::from([("ImpersonatedIdentity".to_owned(), impersonated)]),
        }),
    };
    let request = tonic::Request::from_parts(controller.metadata()?, tonic::Extensions::default(), message);
    let codec: ProstCodec<IstioCertificateRequest, IstioCertificateResponse> = ProstCodec::default();
    let response = client
        .unary(
            request,
            method("/istio.v1.auth.IstioCertificateService/CreateCertificate"),
            codec,
        )
        .await
        .map_err(|status| controller.refused(&status))?;
    Ok(response.into_inner().cert_chain)
}
