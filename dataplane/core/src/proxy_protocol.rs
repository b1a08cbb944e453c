//! The PROXY protocol, version 2: what is written to an application before the first byte of its client, so that it learns
//! who that is (HAProxy's "The PROXY protocol", section 2.2; facts/ztunnel.md section 3.3).
//!
//! ```text
//! signature(12) | version 2, command PROXY | family, STREAM | length(2) | source, destination, two ports | TLVs
//! ```
//! Only the writing side is here: ztunnel never takes such a header.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::identity::Identity;

const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2, command PROXY.
const PROXY: u8 = 0x21;
/// TCP over IPv4, and over IPv6.
const FAMILIES: [u8; 2] = [0x11, 0x21];
/// The two fields that Istio's waypoints read.
const IDENTITY_TLV: u8 = 0xD0;
const SERVICE_TLV: u8 = 0xD1;

/// What an application that takes the header is told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProxyHeader<'a> {
    /// The client, as its tunnel's connection says.
    pub source: SocketAddr,
    /// What the client asked for.
    pub destination: SocketAddr,
    /// Who the client proved to be.
    pub identity: Option<&'a Identity>,
    /// The hostname of the service that it asked for.
    pub service: Option<&'a str>,
}

impl ProxyHeader<'_> {
    /// The bytes to write. Of two IP versions the IPv4 address is written in IPv6's form.
    ///
    /// A text of more than [`crate::identity::MAX_IDENTITY_BYTES`] is left out: neither an identity nor a hostname is that
    /// long, and the whole then stays far below the 65,535 bytes that the length can say.
    pub fn encode(&self) -> Vec<u8> {
        let (source, destination) = (self.source.ip().to_canonical(), self.destination.ip().to_canonical());
        let mut body = Vec::with_capacity(128);
        let family = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                body.extend_from_slice(&source.octets());
                body.extend_from_slice(&destination.octets());
                FAMILIES[0]
            }
            _ => {
                body.extend_from_slice(&as_v6(source).octets());
                body.extend_from_slice(&as_v6(destination).octets());
                FAMILIES[1]
            }
        };
        body.extend_from_slice(&self.source.port().to_be_bytes());
        body.extend_from_slice(&self.destination.port().to_be_bytes());
        for (kind, text) in [
            (IDENTITY_TLV, self.identity.map(Identity::uri)),
            (SERVICE_TLV, self.service),
        ] {
            push_tlv(&mut body, kind, text.unwrap_or_default());
        }
        let mut header = Vec::with_capacity(SIGNATURE.len() + 4 + body.len());
        header.extend_from_slice(&SIGNATURE);
        header.extend_from_slice(&[PROXY, family]);
        let length = u16::try_from(body.len()).expect("addresses and two bounded texts");
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(&body);
        header
    }
}

/// Type, two bytes of length, value; nothing for an empty text.
fn push_tlv(body: &mut Vec<u8>, kind: u8, text: &str) {
    let length = u16::try_from(text.len()).unwrap_or(u16::MAX);
    if text.is_empty() || usize::from(length) > crate::identity::MAX_IDENTITY_BYTES {
        return;
    }
    body.push(kind);
    body.extend_from_slice(&length.to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn as_v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Tlv = (u8, Vec<u8>);

    /// A reader after the specification's text, section 2.2, that shares nothing with the writer.
    /// Returns the family, the addresses and the TLVs.
    fn read(header: &[u8]) -> (u8, Vec<u8>, Vec<Tlv>) {
        assert_eq!(
            &header[..12],
            [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
        );
        assert_eq!(header[12] >> 4, 2, "the version");
        assert_eq!(header[12] & 0xF, 1, "the command");
        let length = usize::from(header[14]) * 256 + usize::from(header[15]);
        assert_eq!(header.len(), 16 + length);
        let addresses = if header[13] >> 4 == 1 { 12 } else { 36 };
        assert_eq!(header[13] & 0xF, 1, "STREAM");
        let mut rest = &header[16 + addresses..];
        let mut tlvs = Vec::new();
        while let [kind, high, low, after @ ..] = rest {
            let (value, next) = after.split_at(usize::from(*high) * 256 + usize::from(*low));
            tlvs.push((*kind, value.to_vec()));
            rest = next;
        }
        assert!(rest.is_empty());
        (header[13] >> 4, header[16..16 + addresses].to_vec(), tlvs)
    }

    fn header<'a>(source: &str, destination: &str) -> ProxyHeader<'a> {
        ProxyHeader {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            identity: None,
            service: None,
        }
    }

    #[test]
    fn the_addresses_stand_where_the_specification_says() {
        let v4 = header("192.0.2.1:4660", "203.0.113.2:80").encode();
        assert_eq!(
            v4,
            [
                &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0C"[..],
                &[192, 0, 2, 1, 203, 0, 113, 2, 0x12, 0x34, 0, 80]
            ]
            .concat()
        );
        let (family, addresses, tlvs) = read(&header("[2001:db8::1]:1", "[2001:db8::2]:65535").encode());
        assert_eq!((family, tlvs.len()), (2, 0));
        assert_eq!(addresses[..4], [0x20, 0x01, 0x0D, 0xB8]);
        assert_eq!((addresses[15], addresses[31]), (1, 2));
        assert_eq!(addresses[32..], [0, 1, 255, 255]);
    }

    #[test]
    fn two_ip_versions_are_written_as_ipv6() {
        let (family, addresses, _) = read(&header("192.0.2.1:1", "[2001:db8::2]:2").encode());
        assert_eq!(family, 2);
        assert_eq!(addresses[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 192, 0, 2, 1]);
        let (family, ..) = read(&header("[::ffff:192.0.2.1]:1", "203.0.113.2:2").encode());
        assert_eq!(family, 1, "an IPv4 address in IPv6's form is IPv4");
    }

    #[test]
    fn identity_and_service_are_told_in_istios_fields() {
        let identity = Identity::new("cluster.local", "shop", "client").unwrap();
        let told = ProxyHeader {
            identity: Some(&identity),
            service: Some("web.shop.svc.cluster.local"),
            ..header("192.0.2.1:1", "203.0.113.2:2")
        };
        let (_, _, tlvs) = read(&told.encode());
        assert_eq!(
            tlvs,
            [
                (0xD0, b"spiffe://cluster.local/ns/shop/sa/client".to_vec()),
                (0xD1, b"web.shop.svc.cluster.local".to_vec())
            ]
        );
    }

    proptest! {
        #[test]
        fn every_header_can_be_read(source: (IpAddr, u16), destination: (IpAddr, u16), service in "[a-z.]{0,3000}") {
            let header = ProxyHeader {
                source: source.into(),
                destination: destination.into(),
                identity: None,
                service: Some(&service),
            };
            let (_, _, tlvs) = read(&header.encode());
            let is_told = !service.is_empty() && service.len() <= 2048;
            prop_assert_eq!(tlvs, if is_told { vec![(0xD1, service.into_bytes())] } else { vec![] });
        }
    }
}
