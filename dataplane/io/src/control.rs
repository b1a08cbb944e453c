//! The way to the controller: gRPC over TLS for discovery (`discovery`) and certificates (`signing`).

pub mod discovery;
mod messages;
pub mod signing;
pub mod summary;

use std::path::PathBuf;
use std::time::Duration;

use http::uri::PathAndQuery;
pub use tonic::Code;
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Timeouts and keepalives towards the controller (ztunnel.md 4.1).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where the controller is and how we prove who we are to it.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// `https://host:port`.
    pub address: String,
    /// PEM file with the roots that its certificate must lead to; read at every connect.
    pub root_ca: PathBuf,
    /// A name in its certificate, when it is not the address's host.
    pub server_name: Option<String>,
    /// File with our token; read at every call, so that a rotated token is used at once.
    pub token: Option<PathBuf>,
    /// Sent as `clusterid`.
    pub cluster_id: String,
}

/// Why a call to the controller failed. The messages name the address or file.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A file of ours is missing or unreadable.
    #[error("cannot read {path}: {error}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The settings do not make sense.
    #[error("controller address {address:?}: {why}")]
    Address {
        /// What was set.
        address: String,
        /// Why it will not do.
        why: String,
    },
    /// No connection.
    #[error("cannot reach the controller at {address}: {why}")]
    Unreachable {
        /// Where we tried.
        address: String,
        /// The transport's error, with its causes.
        why: String,
    },
    /// The controller answered with an error.
    #[error("the controller at {address} answered {code:?}: {message}")]
    Refused {
        /// Who answered.
        address: String,
        /// gRPC's code.
        code: Code,
        /// Its text.
        message: String,
    },
    /// The controller ended the stream.
    #[error("the controller at {address} ended the stream")]
    Ended {
        /// Who ended it.
        address: String,
    },
}

impl ControlError {
    /// Why a stream ended, in Istio's words (`reason` of istio_xds_connection_terminations).
    pub(crate) fn termination(&self) -> &'static str {
        match self {
            Self::Ended { .. } => "Complete",
            Self::Refused { .. } => "Error",
            Self::File { .. } | Self::Address { .. } | Self::Unreachable { .. } => "ConnectionError",
        }
    }
}

impl ControlPlane {
    /// Connect; the channel is ready for calls.
    pub async fn connect(&self) -> Result<Channel, ControlError> {
        let roots = read_file(&self.root_ca)?;
        let bad = |why: String| ControlError::Address {
            address: self.address.clone(),
            why,
        };
        let endpoint = Endpoint::from_shared(self.address.clone()).map_err(|error| bad(error.to_string()))?;
        let host = endpoint.uri().host().ok_or_else(|| bad("it has no host".to_owned()))?;
        let name = self
            .server_name
            .clone()
            .unwrap_or_else(|| host.trim_matches(['[', ']']).to_owned());
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(roots))
            .domain_name(name);
        let endpoint = endpoint
            .tls_config(tls)
            .map_err(|error| bad(with_causes(&error)))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        endpoint.connect().await.map_err(|error| ControlError::Unreachable {
            address: self.address.clone(),
            why: with_causes(&error),
        })
    }

    /// What every call carries.
    fn metadata(&self) -> Result<MetadataMap, ControlError> {
        let mut metadata = MetadataMap::new();
        if let Some(path) = &self.token {
            let token = String::from_utf8_lossy(&read_file(path)?).trim().to_owned();
            metadata.insert("authorization", self.ascii(&format!("Bearer {token}"))?);
        }
        metadata.insert("clusterid", self.ascii(&self.cluster_id)?);
        Ok(metadata)
    }

    fn ascii(&self, value: &str) -> Result<MetadataValue<Ascii>, ControlError> {
        value.parse().map_err(|_| ControlError::Address {
            address: self.address.clone(),
            why: "the token or the cluster id has characters that a header cannot carry".to_owned(),
        })
    }

    fn refused(&self, status: &Status) -> ControlError {
        ControlError::Refused {
            address: self.address.clone(),
            code: status.code(),
            message: status.message().to_owned(),
        }
    }
}

fn read_file(path: &PathBuf) -> Result<Vec<u8>, ControlError> {
    std::fs::read(path).map_err(|error| ControlError::File {
        path: path.clone(),
        error,
    })
}

/// tonic's errors say little by themselves; their causes do.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// The path of a gRPC method.
fn method(path: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(path)
}
