//! What a connection that arrives at a pod may reach, before the policies are asked (facts/ztunnel.md sections 3.2, 3.4).
//!
//! Whatever a client asks for inside a tunnel, the address that is connected to is the pod's own, the one that the tunnel
//! came to; the authority only says which of its ports. An authority that is another address is let through in two cases:
//! this pod is the waypoint of that address, or it has an application tunnel, and then its own proxy decides.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use crate::{
    balance::map_port,
    hbone::Authority,
    mesh_state::{ApplicationProtocol, GatewayAddress, GatewayDestination, MeshState, Service, ServiceKey, Workload},
};

/// Where an inbound connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboundTarget {
    /// The application: the pod's address, and the port that policies are asked about.
    pub application: SocketAddr,
    /// What a PROXY header says was asked for, if one has to be written before the client's bytes.
    pub proxy_header: Option<HeaderDestination>,
    /// The service that was addressed by name.
    pub service: Option<Arc<Service>>,
}

/// What a PROXY header says of the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeaderDestination {
    /// The address that was asked for, or one of the service that was.
    pub address: SocketAddr,
    /// The service that was asked for, by name or by its address.
    pub service: Option<Arc<Service>>,
}

/// Why a connection cannot be served, whoever it comes from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum InboundRefusal {
    #[error(
        "{authority} is not {local}, and workload {workload} is not its waypoint; the client's mesh state may be old"
    )]
    AddressMismatch {
        authority: SocketAddr,
        local: IpAddr,
        workload: Arc<str>,
    },
    #[error("there is no service {hostname} that workload {workload} could see")]
    UnknownService { hostname: String, workload: Arc<str> },
    #[error("service {service} has no port {port} that workload {workload} serves")]
    NoPort {
        service: ServiceKey,
        port: u16,
        workload: Arc<str>,
    },
    #[error("port {port} is ztunnel's own; a tunnel to it would lead in a circle")]
    IllegalPort { port: u16 },
    #[error("service {service} has no address that a PROXY header could name")]
    NoServiceAddress { service: ServiceKey },
}

impl InboundRefusal {
    /// What the client is answered, inside a tunnel (facts/ztunnel.md section 1.6).
    pub fn status(&self) -> u16 {
        match self {
            Self::AddressMismatch { .. } => 400,
            _ => 503,
        }
    }

    /// A stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::AddressMismatch { .. } => "address_mismatch",
            Self::UnknownService { .. } => "unknown_service",
            Self::NoPort { .. } => "no_service_port",
            Self::IllegalPort { .. } => "illegal_port",
            Self::NoServiceAddress { .. } => "no_service_address",
        }
    }
}

/// Decide where a CONNECT for `authority` goes, which came to `workload` at its address `local`.
pub fn decide_target(
    state: &MeshState,
    workload: &Workload,
    local: IpAddr,
    authority: &Authority,
) -> Result<InboundTarget, InboundRefusal> {
    let local = local.to_canonical();
    let tunnel = workload.profile.application_tunnel;
    let (port, service) = match authority {
        Authority::Address(address) => {
            let is_meant = address.ip().to_canonical() == local
                || tunnel.is_some()
                || is_waypoint_of(state, workload, local, address.ip());
            if !is_meant {
                return Err(InboundRefusal::AddressMismatch {
                    authority: *address,
                    local,
                    workload: workload.uid.clone(),
                });
            }
            (address.port(), None)
        }
        Authority::Service { hostname, port } => {
            let service = find_service(state, workload, hostname)?;
            // A tunnel with a port of its own needs none of the service's.
            let target = map_port(workload.ports_for(&service.key), *port, service.target_port(*port))
                .or_else(|| tunnel.and_then(|t| t.port))
                .ok_or_else(|| InboundRefusal::NoPort {
                    service: service.key.clone(),
                    port: *port,
                    workload: workload.uid.clone(),
                })?;
            (target, Some(service))
        }
    };
    let port = tunnel.and_then(|t| t.port).unwrap_or(port);
    if state.settings().is_own_port(port) {
        return Err(InboundRefusal::IllegalPort { port });
    }
    let needs_header = tunnel.is_some_and(|t| t.protocol == ApplicationProtocol::Proxy);
    let proxy_header = needs_header
        .then(|| header_destination(state, authority, service))
        .transpose()?;
    Ok(InboundTarget {
        application: SocketAddr::new(local, port),
        proxy_header,
        service: service.cloned(),
    })
}

/// Check a connection that came in plaintext and was meant for `dialled`; policies are then asked without an identity.
pub fn check_plaintext(state: &MeshState, dialled: SocketAddr) -> Result<(), InboundRefusal> {
    match state.settings().is_own_port(dialled.port()) {
        true => Err(InboundRefusal::IllegalPort { port: dialled.port() }),
        false => Ok(()),
    }
}

/// The service that a connection to `port` of `workload` is counted for: the one that the client says it asked for, if the
/// workload serves it there, else the first that has this target. Only metrics and logs go by it.
pub fn guess_service<'a>(
    state: &'a MeshState,
    workload: &Workload,
    port: u16,
    asked_hostname: Option<&str>,
) -> Option<&'a Arc<Service>> {
    let serves = |service: &&Arc<Service>| {
        let endpoint = workload.ports_for(&service.key);
        let declared = service
            .ports
            .iter()
            .filter(|p| !endpoint.iter().any(|e| e.service_port == p.service_port));
        endpoint.iter().chain(declared).any(|p| p.target_port == port)
    };
    let services = || {
        let known = workload
            .profile
            .services
            .iter()
            .filter_map(|s| state.service(s.service.as_str()));
        known.filter(serves)
    };
    let asked = asked_hostname.and_then(|hostname| services().find(|s| s.hostname() == hostname));
    asked.or_else(|| services().next())
}

fn find_service<'a>(
    state: &'a MeshState,
    workload: &Workload,
    hostname: &str,
) -> Result<&'a Arc<Service>, InboundRefusal> {
    state
        .service_by_hostname(hostname, Some(workload.namespace()), None)
        .ok_or_else(|| InboundRefusal::UnknownService {
            hostname: hostname.to_owned(),
            workload: workload.uid.clone(),
        })
}

/// Whether the waypoint of the workload or service at `ip` is `workload`, to which the connection came at `local`.
fn is_waypoint_of(state: &MeshState, workload: &Workload, local: IpAddr, ip: IpAddr) -> bool {
    let network = &state.settings().network;
    let of_workload = state
        .workload_by_ip(network, ip)
        .map(|w| w.profile.waypoint.iter().collect());
    let of_service = || {
        let service = state.service_by_vip(network, ip, None)?;
        let weighted = service.weighted_waypoints.iter().map(|w| &w.destination);
        Some(service.waypoint.iter().chain(weighted).collect())
    };
    let references: Vec<&GatewayAddress> = of_workload.or_else(of_service).unwrap_or_default();
    references
        .iter()
        .any(|reference| names(state, reference, workload, local))
}

fn names(state: &MeshState, reference: &GatewayAddress, workload: &Workload, local: IpAddr) -> bool {
    let (service, other) = match &reference.destination {
        GatewayDestination::Address(a) => (
            state.service_by_vip(&a.network, a.ip, None).map(|service| &service.key),
            state.workload_by_ip(&a.network, a.ip),
        ),
        // It serves it, whether the service itself is known or not: on demand it may not be.
        GatewayDestination::Hostname(key) => (Some(key), state.workload_by_hostname(key)),
    };
    service.is_some_and(|key| state.is_endpoint(key, &workload.uid))
        || other.is_some_and(|w| w.addresses().contains(&local))
}

/// What was addressed. Of a service's addresses, one of the local network before others, IPv4 before IPv6.
fn header_destination(
    state: &MeshState,
    authority: &Authority,
    service: Option<&Arc<Service>>,
) -> Result<HeaderDestination, InboundRefusal> {
    match (authority, service) {
        (Authority::Service { port, .. }, Some(service)) => {
            let rank =
                |vip: &&crate::mesh_state::NetworkIp| (vip.network != state.settings().network, vip.ip.is_ipv6());
            let vip = service.vips.iter().min_by_key(rank);
            let vip = vip.ok_or_else(|| InboundRefusal::NoServiceAddress {
                service: service.key.clone(),
            })?;
            Ok(HeaderDestination {
                address: SocketAddr::new(vip.ip, *port),
                service: Some(Arc::clone(service)),
            })
        }
        (Authority::Address(address), _) => Ok(HeaderDestination {
            address: *address,
            service: state
                .service_by_vip(&state.settings().network, address.ip().to_canonical(), None)
                .cloned(),
        }),
        // Not reached: a service authority was resolved to its service, or refused, before.
        (Authority::Service { hostname, .. }, None) => Err(InboundRefusal::UnknownService {
            hostname: hostname.clone(),
            workload: "".into(),
        }),
    }
}

#[cfg(test)]
mod tests;
