//! How an application's connection ended, and what the log says of it.

use std::io;
use std::time::Duration;

use ambit_core::framing::ErrorCode;

use super::TunnelEnd;
use crate::telemetry::Flag;

/// How an application connection through a tunnel ended, when not with an end from both sides.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RelayEnd {
    /// The application's socket failed.
    #[error("application: {0}")]
    Application(io::Error),
    /// The peer ended the stream before its time.
    #[error("the peer reset the stream ({0:?})")]
    PeerReset(ErrorCode),
    /// The tunnel under the stream went away.
    #[error(transparent)]
    Tunnel(TunnelEnd),
    /// The peer's answer to our CONNECT was not 200.
    #[error("the destination's proxy answered {0}{hint}", hint = explain_status(*.0, .1.as_deref()))]
    Refused(u16, Option<Box<str>>),
    /// The peer did not answer our CONNECT.
    #[error("the destination's proxy did not answer in {}s", .0.as_secs())]
    NoAnswer(Duration),
}

impl RelayEnd {
    /// The access log's flag for it.
    pub(crate) fn flag(&self) -> Flag {
        match self {
            Self::Refused(401, _) => Flag::Denied,
            Self::Refused(..) | Self::NoAnswer(_) => Flag::Connect,
            Self::Tunnel(TunnelEnd::Revoked) => Flag::CertificateRevoked,
            Self::Tunnel(TunnelEnd::Tls(_)) => Flag::TlsFailure,
            Self::Tunnel(TunnelEnd::Http2(_)) => Flag::Http2Failure,
            Self::Application(_) | Self::PeerReset(_) | Self::Tunnel(_) => Flag::None,
        }
    }
}

/// What the peer said of its refusal, else what the status means.
fn explain_status(status: u16, said: Option<&str>) -> String {
    let known = match status {
        401 => Some("a policy there denies the connection; its log names the policy"),
        503 => Some("it could not reach the application"),
        400 => Some("it refused the request as malformed"),
        _ => None,
    };
    said.or(known).map(|reason| format!(": {reason}")).unwrap_or_default()
}
