//! From the wire to values, each resource validated by itself: what is refused names its field, and only that resource is
//! refused (facts/ztunnel.md section 4.5 lists the causes).
//!
//! Stricter than Istio's ztunnel in three places, because a truncated or ambiguous value would mean something else: ports
//! above 65535, a namespace with a slash, and a workload without uid are refused.

mod error;
mod service;
mod workload;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::{GatewayAddress, GatewayDestination, NetworkIp, PortMapping, ServiceKey, intern::Interner};
use crate::wire::workload as wire;
pub use error::ResourceError;
pub(super) use service::to_service;
pub use workload::NODE_LOCAL_EXTENSION;
pub(super) use workload::to_workload;

/// An address of 4 or 16 bytes, canonical.
fn as_ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, ResourceError> {
    let ip = match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).map(|b| IpAddr::V4(Ipv4Addr::from(b))).ok(),
        16 => <[u8; 16]>::try_from(bytes).map(|b| IpAddr::V6(Ipv6Addr::from(b))).ok(),
        _ => None,
    };
    ip.map(|ip| ip.to_canonical()).ok_or(ResourceError::AddressBytes {
        field,
        length: bytes.len(),
    })
}

/// A range: the address and its prefix length, host bits cleared.
pub(crate) fn as_cidr(field: &'static str, bytes: &[u8], prefix_length: u32) -> Result<IpNet, ResourceError> {
    let ip = as_ip(field, bytes)?;
    let invalid = || ResourceError::Cidr {
        field,
        ip,
        prefix_length,
    };
    // An IPv4 address in IPv6's form became IPv4 above, and its prefix counts from there.
    let mapped_bits = if bytes.len() == 16 && ip.is_ipv4() { 96 } else { 0 };
    let prefix_length = prefix_length.checked_sub(mapped_bits).ok_or_else(invalid)?;
    let prefix_length = u8::try_from(prefix_length).map_err(|_| invalid())?;
    IpNet::new(ip, prefix_length)
        .map(|cidr| cidr.trunc())
        .map_err(|_| invalid())
}

/// A TCP port; 0 is let through, because it has meanings of its own.
pub(crate) fn as_port(field: &'static str, port: u32) -> Result<u16, ResourceError> {
    u16::try_from(port).map_err(|_| ResourceError::Port { field, port })
}

/// A known value of an enum.
fn as_enum<E: TryFrom<i32>>(field: &'static str, value: i32) -> Result<E, ResourceError> {
    E::try_from(value).map_err(|_| ResourceError::UnknownEnumValue { field, value })
}

/// Ports in order; of several with one service port, the last counts.
fn as_ports(field: &'static str, ports: &[wire::Port]) -> Result<Box<[PortMapping]>, ResourceError> {
    let mut by_port = std::collections::BTreeMap::new();
    for port in ports {
        by_port.insert(as_port(field, port.service_port)?, as_port(field, port.target_port)?);
    }
    Ok(by_port
        .into_iter()
        .map(|(service_port, target_port)| PortMapping {
            service_port,
            target_port,
        })
        .collect())
}

fn as_service_key(namespace: &str, hostname: &str, interner: &mut Interner) -> Result<ServiceKey, ResourceError> {
    if namespace.contains('/') {
        return Err(ResourceError::Namespace(namespace.to_owned()));
    }
    Ok(ServiceKey::from_text(interner.text(&format!("{namespace}/{hostname}"))))
}

fn as_gateway(
    field: &'static str,
    gateway: &wire::GatewayAddress,
    interner: &mut Interner,
) -> Result<GatewayAddress, ResourceError> {
    use wire::gateway_address::Destination;
    let destination = match gateway
        .destination
        .as_ref()
        .ok_or(ResourceError::GatewayWithoutDestination { field })?
    {
        Destination::Hostname(name) => {
            GatewayDestination::Hostname(as_service_key(&name.namespace, &name.hostname, interner)?)
        }
        Destination::Address(address) => GatewayDestination::Address(NetworkIp {
            network: interner.text(&address.network),
            ip: as_ip(field, &address.address)?,
        }),
    };
    Ok(GatewayAddress {
        destination,
        hbone_port: as_port(field, gateway.hbone_mtls_port)?,
    })
}
