//! Why an outbound connection is refused.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    balance::NoEndpoint,
    mesh_state::{GatewayAddress, Service, ServiceKey},
};

/// Each text names what was dialled and what an operator would look at next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum OutboundRefusal {
    #[error("{dialled} is ztunnel itself; an application has no reason to connect to it")]
    Loop { dialled: SocketAddr },
    #[error("service {service} ({dialled}) has no port {}; it has {}", dialled.port(), list(ports))]
    NoPort {
        service: ServiceKey,
        dialled: SocketAddr,
        ports: Vec<u16>,
    },
    #[error(
        "no healthy upstream: service {service} ({dialled}) has {total} endpoints, {unhealthy} of them not ready, and \
         none that can be used; check the pods that its selector names, their readiness and their ports"
    )]
    NoEndpoint {
        service: ServiceKey,
        dialled: SocketAddr,
        total: usize,
        unhealthy: usize,
    },
    #[error(
        "service {service} ({dialled}) is on this node's network but not on the network of the source; \
         check the network of both"
    )]
    ServiceElsewhere { service: ServiceKey, dialled: SocketAddr },
    #[error(
        "the waypoint of {dialled}, {waypoint}, is not known or has no endpoint; check that it is deployed and ready"
    )]
    UnknownWaypoint {
        waypoint: GatewayAddress,
        dialled: SocketAddr,
    },
    #[error(
        "the gateway of network {network:?}, {gateway}, is not known or has no endpoint; check that it is deployed"
    )]
    UnknownGateway { gateway: GatewayAddress, network: Arc<str> },
    #[error("workload {workload} is on network {network:?}, which has no gateway; configure one")]
    NoGateway { workload: Arc<str>, network: Arc<str> },
    #[error(
        "workload {workload} ({dialled}) is on network {network:?} and was dialled by its own address; \
         address a service, which is what crosses networks"
    )]
    NoServiceForNetwork {
        workload: Arc<str>,
        network: Arc<str>,
        dialled: SocketAddr,
    },
    #[error(
        "there is no service {hostname} that the pod could see; write its full name, like web.shop.svc.cluster.local"
    )]
    UnknownName { hostname: Arc<str> },
    #[error("workload {workload} has no address that can be dialled for {dialled}; check the service's ipFamilies")]
    NoAddress { workload: Arc<str>, dialled: SocketAddr },
}

impl OutboundRefusal {
    /// A stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Loop { .. } => "loop",
            Self::NoPort { .. } => "no_service_port",
            Self::NoEndpoint { .. } => "no_healthy_upstream",
            Self::ServiceElsewhere { .. } => "service_on_other_network",
            Self::UnknownWaypoint { .. } => "unknown_waypoint",
            Self::UnknownGateway { .. } => "unknown_network_gateway",
            Self::NoGateway { .. } => "no_network_gateway",
            Self::NoServiceForNetwork { .. } => "no_service_for_network",
            Self::UnknownName { .. } => "unknown_name",
            Self::NoAddress { .. } => "no_valid_address",
        }
    }

    pub(super) fn no_endpoint(service: &Service, dialled: SocketAddr, cause: NoEndpoint) -> Self {
        let service = service.key.clone();
        match cause {
            NoEndpoint::NoPort { ports } => Self::NoPort {
                service,
                dialled,
                ports,
            },
            NoEndpoint::NoneUsable { total, unhealthy } => Self::NoEndpoint {
                service,
                dialled,
                total,
                unhealthy,
            },
        }
    }
}

fn list(ports: &[u16]) -> String {
    match ports {
        [] => "none".to_owned(),
        ports => ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", "),
    }
}
