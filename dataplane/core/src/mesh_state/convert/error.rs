//! Why a resource is refused at the door.

use std::net::IpAddr;

/// Why a resource is refused. Its text is the reason that the controller is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum ResourceError {
    #[error("not a valid message: {0}")]
    Decode(#[from] prost::DecodeError),
    #[error("the resource has no value")]
    MissingValue,
    #[error("the address is neither a workload nor a service")]
    EmptyAddress,
    #[error("uid: empty")]
    EmptyUid,
    #[error("{field}: {length} bytes are no IP address, which has 4 or 16")]
    AddressBytes { field: &'static str, length: usize },
    #[error("{field}: {prefix_length} is no prefix length for {ip}")]
    Cidr {
        field: &'static str,
        ip: IpAddr,
        prefix_length: u32,
    },
    #[error("{field}: {port} is no port")]
    Port { field: &'static str, port: u32 },
    #[error("{field}: unknown value {value}")]
    UnknownEnumValue { field: &'static str, value: i32 },
    #[error("{field}: no destination")]
    GatewayWithoutDestination { field: &'static str },
    #[error("services: {0:?} is not namespace/hostname")]
    ServiceKey(String),
    #[error("namespace: {0:?} has a slash")]
    Namespace(String),
    #[error("tunnel_protocol: LEGACY_ISTIO_MTLS is not supported; use HBONE")]
    LegacyTunnel,
    #[error("{field}: a string match without a type")]
    UntypedStringMatch { field: &'static str },
    #[error("extensions: none is supported in a match, and ignoring {0:?} would change what it matches")]
    MatchExtension(String),
    #[error("it has fields that this version does not know, and ignoring them would change what it matches")]
    UnknownFields,
    #[error("{path}.{cause}")]
    At { path: String, cause: Box<ResourceError> },
}

impl ResourceError {
    /// A stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Decode(_) | Self::MissingValue | Self::EmptyAddress => "malformed_resource",
            Self::LegacyTunnel | Self::MatchExtension(_) | Self::UnknownFields => "unsupported_resource",
            Self::At { cause, .. } => cause.reason(),
            _ => "invalid_resource",
        }
    }

    /// The same error, further up.
    pub(crate) fn within(self, path: impl FnOnce() -> String) -> Self {
        Self::At {
            path: path(),
            cause: Box::new(self),
        }
    }
}
