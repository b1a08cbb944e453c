//! SOCKS5 (RFC 1928) as far as a TCP proxy on loopback needs it: no authentication, CONNECT only (facts/ztunnel.md 1.1).
//!
//! ```text
//! client                                  ztunnel
//!   5, n, n methods                 -->
//!                                   <--   5, 0 (no authentication)
//!   5, CONNECT, 0, kind, address, port -->
//!                                   <--   5, reply, 0, kind, address, port; then the connection's bytes
//! ```
//! The reader asks for exactly as many bytes as a message still lacks, so that nothing of what follows is taken, and never
//! for more than the two lengths on the wire allow: 262 bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const VERSION: u8 = 5;
const NO_AUTHENTICATION: u8 = 0;
const CONNECT: u8 = 1;
const IPV4: u8 = 1;
const HOSTNAME: u8 = 3;
const IPV6: u8 = 4;

/// The longest message of a client: head, a hostname of 255 bytes with its length, and a port.
pub const MAX_MESSAGE_BYTES: usize = 4 + 1 + 255 + 2;

/// How far a message has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress<T> {
    /// It lacks at least so many bytes, and more may be asked for after those.
    Lacks(usize),
    /// It is whole.
    Whole(T),
}

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An address.
    Address(SocketAddr),
    /// A name, which we resolve; in lower case, without a final dot.
    Hostname {
        /// The name.
        hostname: String,
        /// The port there.
        port: u16,
    },
}

/// Why a client cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Socks5Error {
    /// Not SOCKS5: perhaps SOCKS4, perhaps HTTP.
    #[error("version {0} of SOCKS is not spoken here, only 5")]
    Version(u8),
    /// The client wants to be authenticated, which a proxy on loopback has no use for.
    #[error("the client offers no way of authentication that is taken; it must offer none at all (0)")]
    Method,
    /// BIND or UDP ASSOCIATE, or a number that means nothing.
    #[error("command {0} is not served, only CONNECT (1)")]
    Command(u8),
    /// Not an address.
    #[error("address kind {0} is not known")]
    AddressKind(u8),
    /// A name that DNS does not have, or port 0.
    #[error("the destination is no hostname or address with a port")]
    Destination,
}

/// What a client is told of its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reply {
    /// The connection stands.
    Succeeded = 0,
    /// It failed, for a reason that has no number of its own.
    Failed = 1,
    /// A policy does not allow it.
    NotAllowed = 2,
    /// Nobody knows where that is.
    HostUnreachable = 4,
    /// There is nobody.
    Refused = 5,
    /// Not CONNECT.
    CommandNotSupported = 7,
    /// Not an address.
    AddressKindNotSupported = 8,
}

impl Socks5Error {
    /// What to answer before closing: to a greeting that no method is acceptable, to a request why.
    pub fn answer(&self) -> Option<Vec<u8>> {
        match self {
            Self::Version(_) => None,
            Self::Method => Some(vec![VERSION, 0xFF]),
            Self::Command(_) => Some(encode_reply(Reply::CommandNotSupported)),
            Self::AddressKind(_) => Some(encode_reply(Reply::AddressKindNotSupported)),
            Self::Destination => Some(encode_reply(Reply::Failed)),
        }
    }
}

/// Our answer to a greeting: go on, without authentication.
pub const GREETING_ANSWER: [u8; 2] = [VERSION, NO_AUTHENTICATION];

/// Read a client's first message.
pub fn read_greeting(message: &[u8]) -> Result<Progress<()>, Socks5Error> {
    if let [version, ..] = message
        && *version != VERSION
    {
        return Err(Socks5Error::Version(*version));
    }
    let [_, count, methods @ ..] = message else {
        return Ok(Progress::Lacks(2 - message.len()));
    };
    if methods.len() < usize::from(*count) {
        return Ok(Progress::Lacks(usize::from(*count) - methods.len()));
    }
    match methods.contains(&NO_AUTHENTICATION) {
        true => Ok(Progress::Whole(())),
        false => Err(Socks5Error::Method),
    }
}

/// Read a client's request.
pub fn read_request(message: &[u8]) -> Result<Progress<Destination>, Socks5Error> {
    // Five bytes say how long the whole is.
    let [version, command, _reserved, kind, first, ..] = message else {
        return Ok(Progress::Lacks(5 - message.len()));
    };
    match (*version, *command) {
        (VERSION, CONNECT) => {}
        (VERSION, other) => return Err(Socks5Error::Command(other)),
        (other, _) => return Err(Socks5Error::Version(other)),
    }
    let address = match *kind {
        IPV4 => 4..8,
        IPV6 => 4..20,
        HOSTNAME => 5..5 + usize::from(*first),
        other => return Err(Socks5Error::AddressKind(other)),
    };
    let port = address.end..address.end + 2;
    if message.len() < port.end {
        return Ok(Progress::Lacks(port.end - message.len()));
    }
    let (address, port) = (
        &message[address],
        u16::from_be_bytes([message[port.start], message[port.start + 1]]),
    );
    if port == 0 {
        return Err(Socks5Error::Destination);
    }
    let ip = match *kind {
        IPV4 => <[u8; 4]>::try_from(address)
            .ok()
            .map(|bytes| IpAddr::from(Ipv4Addr::from(bytes))),
        IPV6 => <[u8; 16]>::try_from(address)
            .ok()
            .map(|bytes| IpAddr::from(Ipv6Addr::from(bytes))),
        _ => std::str::from_utf8(address).ok().and_then(|text| text.parse().ok()),
    };
    let destination = match ip {
        Some(ip) => Destination::Address(SocketAddr::new(ip.to_canonical(), port)),
        None => Destination::Hostname {
            hostname: parse_hostname(address).ok_or(Socks5Error::Destination)?,
            port,
        },
    };
    Ok(Progress::Whole(destination))
}

/// A name as DNS has them (RFC 1123, 2.1; underscores are common in practice).
fn parse_hostname(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let text = text.strip_suffix('.').unwrap_or(text);
    let is_label = |label: &str| {
        let is_known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(is_known)
    };
    (text.len() <= 253 && text.split('.').all(is_label)).then(|| text.to_ascii_lowercase())
}

/// The answer to a request. The address in it means nothing to a CONNECT's client (RFC 1928, 6 leaves that open), so it is
/// not told which address of the pod was used.
pub fn encode_reply(reply: Reply) -> Vec<u8> {
    vec![VERSION, reply as u8, 0, IPV4, 0, 0, 0, 0, 0, 0]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(kind: u8, address: &[u8], port: u16) -> Vec<u8> {
        [&[5, 1, 0, kind], address, &port.to_be_bytes()].concat()
    }

    fn named(name: &str, port: u16) -> Vec<u8> {
        request(3, &[&[name.len() as u8], name.as_bytes()].concat(), port)
    }

    #[test]
    fn greetings_are_judged() {
        for (id, message, expected) in [
            ("nothing yet", &[][..], Ok(Progress::Lacks(2))),
            ("the version only", &[5], Ok(Progress::Lacks(1))),
            ("methods to come", &[5, 3, 1], Ok(Progress::Lacks(2))),
            ("no authentication", &[5, 1, 0], Ok(Progress::Whole(()))),
            ("among others", &[5, 3, 1, 2, 0], Ok(Progress::Whole(()))),
            ("passwords only", &[5, 1, 2], Err(Socks5Error::Method)),
            ("no method", &[5, 0], Err(Socks5Error::Method)),
            ("SOCKS4", &[4], Err(Socks5Error::Version(4))),
            ("HTTP", b"GET / HTTP/1.1", Err(Socks5Error::Version(b'G'))),
        ] {
            assert_eq!(read_greeting(message), expected, "{id}");
        }
    }

    #[test]
    fn requests_lead_to_addresses_and_names() {
        let address = |text: &str| Ok(Progress::Whole(Destination::Address(text.parse().unwrap())));
        let hostname = |name: &str, port| {
            let hostname = name.to_owned();
            Ok(Progress::Whole(Destination::Hostname { hostname, port }))
        };
        let v6: Ipv6Addr = "2001:db8::1".parse().unwrap();
        let mapped: Ipv6Addr = "::ffff:192.0.2.1".parse().unwrap();
        for (id, message, expected) in [
            ("IPv4", request(1, &[192, 0, 2, 1], 80), address("192.0.2.1:80")),
            ("IPv6", request(4, &v6.octets(), 443), address("[2001:db8::1]:443")),
            (
                "IPv4 in IPv6's form",
                request(4, &mapped.octets(), 80),
                address("192.0.2.1:80"),
            ),
            ("a name", named("Web.shop.svc", 80), hostname("web.shop.svc", 80)),
            ("a final dot", named("web.", 80), hostname("web", 80)),
            ("an address as a name", named("192.0.2.1", 80), address("192.0.2.1:80")),
            ("port 0", request(1, &[192, 0, 2, 1], 0), Err(Socks5Error::Destination)),
            ("no name", named("", 80), Err(Socks5Error::Destination)),
            ("an empty label", named("a..b", 80), Err(Socks5Error::Destination)),
            ("not DNS", named("a b", 80), Err(Socks5Error::Destination)),
            ("not text", request(3, &[1, 0xFF], 80), Err(Socks5Error::Destination)),
            ("BIND", vec![5, 2, 0, 1, 0], Err(Socks5Error::Command(2))),
            ("UDP", vec![5, 3, 0, 1, 0], Err(Socks5Error::Command(3))),
            ("an unknown kind", vec![5, 1, 0, 2, 0], Err(Socks5Error::AddressKind(2))),
            ("another version", vec![4, 1, 0, 1, 0], Err(Socks5Error::Version(4))),
        ] {
            assert_eq!(read_request(&message), expected, "{id}");
        }
    }

    #[test]
    fn every_refusal_has_an_answer_but_to_strangers() {
        assert_eq!(Socks5Error::Version(4).answer(), None);
        assert_eq!(Socks5Error::Method.answer(), Some(vec![5, 0xFF]));
        assert_eq!(Socks5Error::Command(2).answer().unwrap()[..2], [5, 7]);
        assert_eq!(Socks5Error::AddressKind(2).answer().unwrap()[..2], [5, 8]);
        assert_eq!(encode_reply(Reply::Succeeded), [5, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        /// Whatever a client says, reading ends, and takes no byte past the message.
        #[test]
        fn reading_is_bounded_and_exact(bytes in prop::collection::vec(any::<u8>(), 0..600), starts_well: bool) {
            let mut bytes = bytes;
            if starts_well && bytes.len() > 4 {
                bytes[..3].copy_from_slice(&[5, 1, 0]);
                bytes[3] = [1, 3, 4][usize::from(bytes[3]) % 3];
            }
            for read in [
                |message: &[u8]| read_greeting(message).map(|progress| matches!(progress, Progress::Lacks(_)).then(|| lacks(&progress))),
                |message: &[u8]| read_request(message).map(|progress| matches!(progress, Progress::Lacks(_)).then(|| lacks(&progress))),
            ] {
                let mut length = 0;
                while let Ok(Some(more)) = read(&bytes[..length]) {
                    prop_assert!(more > 0);
                    length += more;
                    prop_assert!(length <= MAX_MESSAGE_BYTES);
                    if length > bytes.len() {
                        break;
                    }
                }
            }
        }
    }

    fn lacks<T>(progress: &Progress<T>) -> usize {
        match progress {
            Progress::Lacks(count) => *count,
            Progress::Whole(_) => 0,
        }
    }
}
