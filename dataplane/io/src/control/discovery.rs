//! One delta-ADS stream. What to subscribe to, and whether to accept a response, is decided in Python (`mesh.discovery`); the
//! bytes stay here.

use std::collections::HashMap;
use std::future::poll_fn;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue, TE};
use prost_types::Struct;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codec::{Codec, EncodeBody};
use tonic_prost::ProstCodec;

use super::messages::Messages;
use super::{ControlError, ControlPlane, method, summary, with_causes};

/// What is called.
const METHOD: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";

/// The largest response: 100,000 workloads come in one (ztunnel.md 4.1).
const MAX_RESPONSE: usize = 200 * 1024 * 1024;
/// Requests that wait for the stream; one a response, so more means that the stream hangs.
const REQUESTS: usize = 64;

/// envoy.service.discovery.v3.DeltaDiscoveryRequest.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryRequest {
    /// Who asks; in the first request of each type.
    #[prost(message, optional, tag = "1")]
    pub node: Option<Node>,
    /// Which type this is about.
    #[prost(string, tag = "2")]
    pub type_url: String,
    /// Names to add.
    #[prost(string, repeated, tag = "3")]
    pub resource_names_subscribe: Vec<String>,
    /// Names to drop.
    #[prost(string, repeated, tag = "4")]
    pub resource_names_unsubscribe: Vec<String>,
    /// What we have already, by name.
    #[prost(map = "string, string", tag = "5")]
    pub initial_resource_versions: HashMap<String, String>,
    /// Which response this answers.
    #[prost(string, tag = "6")]
    pub response_nonce: String,
    /// Set when it was not accepted.
    #[prost(message, optional, tag = "7")]
    pub error_detail: Option<RpcStatus>,
}

/// The part of envoy.config.core.v3.Node that the controller reads.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Node {
    /// `ztunnel~<ip>~<pod>.<namespace>~<namespace>.svc.cluster.local`.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Strings by name.
    #[prost(message, optional, tag = "3")]
    pub metadata: Option<Struct>,
}

/// google.rpc.Status.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// gRPC's code.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// What is wrong.
    #[prost(string, tag = "2")]
    pub message: String,
}

/// envoy.service.discovery.v3.DeltaDiscoveryResponse.
#[derive(Clone, PartialEq, prost::Message)]
pub struct DeltaDiscoveryResponse {
    /// New and changed ones.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<Resource>,
    /// Their type.
    #[prost(string, tag = "4")]
    pub type_url: String,
    /// To be answered with.
    #[prost(string, tag = "5")]
    pub nonce: String,
    /// Names that are no more.
    #[prost(string, repeated, tag = "6")]
    pub removed_resources: Vec<String>,
    /// Who answers.
    #[prost(message, optional, tag = "7")]
    pub control_plane: Option<ControlPlaneName>,
}

impl DeltaDiscoveryResponse {
    /// Whether it comes from a controller that understands a summary ([`super::summary`]).
    pub fn knows_summaries(&self) -> bool {
        let name = self.control_plane.as_ref().map(|found| found.identifier.as_str());
        name == Some(summary::CONTROL_PLANE)
    }
}

/// envoy.config.core.v3.ControlPlane.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ControlPlaneName {
    /// Whoever that is.
    #[prost(string, tag = "1")]
    pub identifier: String,
}

/// envoy.service.discovery.v3.Resource. Its parts stay where they are in the response: a large mesh has a hundred thousand
/// of these at once, and what is taken from the heap for each would leave holes.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Changes with the content. Text.
    #[prost(bytes = "bytes", tag = "1")]
    pub version: Bytes,
    /// The content.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its key. Text.
    #[prost(bytes = "bytes", tag = "3")]
    pub name: Bytes,
}

/// google.protobuf.Any, of which only the value is asked for: all resources of a response have its type.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// The serialised resource.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

/// A stream to the controller.
pub struct DiscoveryStream {
    address: String,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Messages,
}

impl DiscoveryStream {
    /// Open a stream; `first` are the requests that it begins with. The controller answers once it has the first of them.
    pub async fn open(controller: &ControlPlane, first: Vec<DeltaDiscoveryRequest>) -> Result<Self, ControlError> {
        let unreachable = |error: tonic::transport::Error| ControlError::Unreachable {
            address: controller.address.clone(),
            why: with_causes(&error),
        };
        let mut channel = controller.connect().await?;
        poll_fn(|context| GrpcService::<Body>::poll_ready(&mut channel, context))
            .await
            .map_err(unreachable)?;
        let (requests, receiver) = mpsc::channel(REQUESTS);
        for request in first {
            // The channel is new and longer than what a stream begins with.
            let _ = requests.try_send(request);
        }
        let encoder = ProstCodec::<DeltaDiscoveryRequest, DeltaDiscoveryResponse>::default().encoder();
        let body = EncodeBody::new_client(encoder, ReceiverStream::new(receiver).map(Ok), None, None);
        let mut call = http::Request::new(Body::new(body));
        *call.method_mut() = http::Method::POST;
        *call.version_mut() = http::Version::HTTP_2;
        *call.uri_mut() = http::Uri::from(method(METHOD));
        *call.headers_mut() = controller.metadata()?.into_headers();
        let headers = call.headers_mut();
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        let response = GrpcService::call(&mut channel, call).await.map_err(unreachable)?;
        // A call that is refused at once says so in the place of an answer.
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(controller.refused(&status));
        }
        if response.status() != http::StatusCode::OK {
            let text = format!("HTTP status {}, which is no gRPC", response.status());
            return Err(controller.refused(&Status::unknown(text)));
        }
        Ok(Self {
            address: controller.address.clone(),
            requests,
            responses: Messages::new(response.into_body(), MAX_RESPONSE),
        })
    }

    /// The next response.
    pub async fn receive(&mut self) -> Result<DeltaDiscoveryResponse, ControlError> {
        match self.responses.next().await {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(ControlError::Ended {
                address: self.address.clone(),
            }),
            Err(status) => Err(ControlError::Refused {
                address: self.address.clone(),
                code: status.code(),
                message: status.message().to_owned(),
            }),
        }
    }

    /// Where to put further requests.
    pub(crate) fn requests(&self) -> mpsc::Sender<DeltaDiscoveryRequest> {
        self.requests.clone()
    }

    /// Send another request.
    pub async fn send(&self, request: DeltaDiscoveryRequest) -> Result<(), ControlError> {
        self.requests.send(request).await.map_err(|_| ControlError::Ended {
            address: self.address.clone(),
        })
    }
}
