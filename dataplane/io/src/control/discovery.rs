//! One delta-ADS stream. What to subscribe to, and whether to accept a response, is decided in Python (`mesh.discovery`); the
//! bytes stay here.

use std::collections::HashMap;

use prost_types::{Any, Struct};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use tonic::client::Grpc;
use tonic_prost::ProstCodec;

use super::{ControlError, ControlPlane, method};

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
}

/// envoy.service.discovery.v3.Resource.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Resource {
    /// Changes with the content.
    #[prost(string, tag = "1")]
    pub version: String,
    /// The content.
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Any>,
    /// Its key.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// A stream to the controller.
pub struct DiscoveryStream {
    address: String,
    requests: mpsc::Sender<DeltaDiscoveryRequest>,
    responses: Streaming<DeltaDiscoveryResponse>,
}

impl DiscoveryStream {
    /// Open a stream; `first` are the requests that it begins with. The controller answers once it has the first of them.
    pub async fn open(controller: &ControlPlane, first: Vec<DeltaDiscoveryRequest>) -> Result<Self, ControlError> {
        let channel = controller.connect().await?;
        let mut client = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE);
        client.ready().await.map_err(|error| ControlError::Unreachable {
            address: controller.address.clone(),
            why: error.to_string(),
        })?;
        let (requests, receiver) = mpsc::channel(REQUESTS);
        for request in first {
            // The channel is new and longer than what a stream begins with.
            let _ = requests.try_send(request);
        }
        let call = tonic::Request::from_parts(
            controller.metadata()?,
            tonic::Extensions::default(),
            ReceiverStream::new(receiver),
        );
        let codec: ProstCodec<DeltaDiscoveryRequest, DeltaDiscoveryResponse> = ProstCodec::default();
        let path = method("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources");
        let responses = client
            .streaming(call, path, codec)
            .await
            .map_err(|status| controller.refused(&status))?
            .into_inner();
        Ok(Self {
            address: controller.address.clone(),
            requests,
            responses,
        })
    }

    /// The next response.
    pub async fn receive(&mut self) -> Result<DeltaDiscoveryResponse, ControlError> {
        match self.responses.message().await {
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

    /// Send another request.
    pub async fn send(&self, request: DeltaDiscoveryRequest) -> Result<(), ControlError> {
        self.requests.send(request).await.map_err(|_| ControlError::Ended {
            address: self.address.clone(),
        })
    }
}
