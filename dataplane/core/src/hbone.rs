//! What HBONE writes into the head of a CONNECT: where to, from where and from whom (facts/ztunnel.md section 1.5).
//!
//! All of it is text for `framing::ConnectHead` and out of `framing::RequestHead`. Nothing that a client says here is
//! trusted for access decisions: identity comes from its certificate. `baggage.rs` describes a workload for metrics.

mod authority;
mod baggage;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::SocketAddr;

pub use authority::{Authority, InvalidAuthority};
pub use baggage::Baggage;

/// The value of `forwarded`: the address of the client, and the service it asked for if it is a known one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded<'a> {
    /// The application's socket.
    pub client: SocketAddr,
    /// The service's hostname.
    pub host: Option<&'a str>,
}

impl fmt::Display for Forwarded<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "for=\"{}\"", self.client)?;
        match self.host {
            Some(host) => write!(f, ";host={host}"),
            None => Ok(()),
        }
    }
}

/// The service's hostname in a `forwarded` value. It only names the service in metrics and logs.
pub fn parse_forwarded_host(value: &str) -> Option<&str> {
    let host = value.split(';').find_map(|part| part.trim().strip_prefix("host="))?;
    let host = host.strip_prefix('"').unwrap_or(host);
    let host = host.strip_suffix('"').unwrap_or(host);
    (!host.is_empty() && host.is_ascii()).then_some(host)
}

/// The value of `traceparent`, which ties the log lines of both ends together. The sampled flag is never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// Names the connection.
    pub trace: u128,
    /// Names this hop.
    pub span: u64,
}

impl TraceParent {
    /// Parse a value of exactly 55 characters in four hexadecimal parts; anything else is `None`, and the caller
    /// makes up an id of its own.
    pub fn parse(value: &str) -> Option<Self> {
        if value.len() != 55 {
            return None;
        }
        let mut parts = value.split('-');
        hexadecimal(parts.next()?, 2)?;
        let trace = hexadecimal(parts.next()?, 32)?;
        let span = hexadecimal(parts.next()?, 16)?;
        hexadecimal(parts.next()?, 2)?;
        Some(Self {
            trace,
            span: u64::try_from(span).ok()?,
        })
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-00", self.trace, self.span)
    }
}

fn hexadecimal(text: &str, digits: usize) -> Option<u128> {
    // from_str_radix alone would take a sign.
    let is_hexadecimal = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u128::from_str_radix(text, 16).ok().filter(|_| is_hexadecimal)
}
