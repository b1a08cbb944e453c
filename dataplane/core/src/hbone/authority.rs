//! `:authority`: what the client wants to reach.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

/// DNS names have at most 253 characters (RFC 1035 section 3.1, in text form).
const MAX_HOSTNAME_BYTES: usize = 253;

/// The destination of a tunnel. On the wire `ip:port`, `[v6]:port` or `hostname:port`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// A pod's address, or a service's VIP.
    Address(SocketAddr),
    /// A service in another network, reached through a gateway.
    Service {
        /// In lower case.
        hostname: String,
        /// The service's port, not the application's.
        port: u16,
    },
}

impl Authority {
    /// The port, whatever it is a port of.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Service { port, .. } => *port,
        }
    }
}

/// The text is not `ip:port`, `[v6]:port` or `hostname:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the authority is not an address or hostname with a port")]
pub struct InvalidAuthority;

impl FromStr for Authority {
    type Err = InvalidAuthority;

    fn from_str(text: &str) -> Result<Self, InvalidAuthority> {
        let (hostname, port) = text.rsplit_once(':').ok_or(InvalidAuthority)?;
        let port = parse_port(port)?;
        // A zone (`fe80::1%2`) means nothing outside its host.
        if let Ok(address) = text.parse::<SocketAddr>()
            && !hostname.contains('%')
        {
            return Ok(Self::Address(address));
        }
        let is_hostname = !hostname.is_empty() && hostname.len() <= MAX_HOSTNAME_BYTES;
        if !is_hostname
            || !hostname
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
        {
            return Err(InvalidAuthority);
        }
        Ok(Self::Service {
            hostname: hostname.to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Service { hostname, port } => write!(f, "{hostname}:{port}"),
        }
    }
}

/// Port 0 is no destination; `u16::from_str` alone would take a plus sign.
fn parse_port(text: &str) -> Result<u16, InvalidAuthority> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|&port| is_number && port != 0)
        .ok_or(InvalidAuthority)
}
