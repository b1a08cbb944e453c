//! Any client as a PROXY header: an independent reader finds each part again.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ambit_core::identity::Identity;
use ambit_core::proxy_protocol::ProxyHeader;
use libfuzzer_sys::fuzz_target;

type Input<'a> = (bool, bool, u128, u128, u16, u16, &'a str, Option<&'a str>);

fn address(is_ipv6: bool, bits: u128) -> IpAddr {
    if is_ipv6 {
        Ipv6Addr::from(bits).into()
    } else {
        Ipv4Addr::from(bits as u32).into()
    }
}

fuzz_target!(|input: Input<'_>| {
    let (source_v6, destination_v6, source, destination, source_port, destination_port, who, service) = input;
    let identity = Identity::parse(who).ok();
    let source = SocketAddr::new(address(source_v6, source), source_port);
    let destination = SocketAddr::new(address(destination_v6, destination), destination_port);
    let header = ProxyHeader {
        source,
        destination,
        identity: identity.as_ref(),
        service,
    }
    .encode();
    assert_eq!(&header[..12], b"\r\n\r\n\0\r\nQUIT\n");
    assert_eq!(header[12], 0x21);
    let length = usize::from(u16::from_be_bytes([header[14], header[15]]));
    assert_eq!(header.len(), 16 + length);
    let (wide, body) = (header[13] == 0x21, &header[16..]);
    let size = if wide { 16 } else { 4 };
    let read = |bytes: &[u8]| match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => IpAddr::from(bytes),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes).expect("sixteen bytes")).to_canonical(),
    };
    assert_eq!(read(&body[..size]), source.ip().to_canonical());
    assert_eq!(read(&body[size..2 * size]), destination.ip().to_canonical());
    let port = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
    assert_eq!((port(2 * size), port(2 * size + 2)), (source_port, destination_port));
    let mut fields = &body[2 * size + 4..];
    while let [kind, high, low, rest @ ..] = fields {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = std::str::from_utf8(&rest[..length]).expect("text");
        match kind {
            0xD0 => assert_eq!(Some(value), identity.as_ref().map(Identity::uri)),
            0xD1 => assert_eq!(Some(value), service),
            other => panic!("field {other:#x}"),
        }
        fields = &rest[length..];
    }
    assert!(fields.is_empty());
});
