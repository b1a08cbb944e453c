//! A service as the mesh knows it, without its endpoints: these are in [`super::MeshState`], by the service's key.

use std::{borrow::Borrow, fmt, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::versions::Version;
use super::workload::{PortMapping, target_port};
use crate::identity::Identity;

/// A service. Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and hostname.
    pub key: ServiceKey,
    /// The Kubernetes name.
    pub name: Arc<str>,
    /// Exact virtual addresses.
    pub vips: Box<[NetworkIp]>,
    /// Virtual address ranges.
    pub cidr_vips: Box<[NetworkCidr]>,
    /// Sorted by service port; a target of 0 is a named port, which only endpoints can resolve.
    pub ports: Box<[PortMapping]>,
    /// Accepted from a server of this service besides its workload's own identity.
    pub accepted_identities: Box<[Identity]>,
    /// The L7 proxy for what is addressed to this service.
    pub waypoint: Option<GatewayAddress>,
    /// Several of them, sampled per connection.
    pub weighted_waypoints: Box<[WeightedWaypoint]>,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// Which addresses of an endpoint may be used.
    pub ip_families: IpFamilies,
    /// Preferred among services that share a hostname or an address.
    pub canonical: bool,
    /// Only for clients of its own namespace.
    pub is_namespace_private: bool,
    pub(super) version: Version,
}

/// `namespace/hostname`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey(Arc<str>);

/// An address in a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkIp {
    /// Often empty.
    pub network: Arc<str>,
    /// Canonical.
    pub ip: IpAddr,
}

/// A range of addresses in a network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetworkCidr {
    /// Often empty.
    pub network: Arc<str>,
    /// With its host bits cleared.
    pub cidr: IpNet,
}

/// Names a waypoint or a network's gateway; resolved when a connection needs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// What is looked up.
    pub destination: GatewayDestination,
    /// Its HBONE port, as a service's port where it is a service.
    pub hbone_port: u16,
}

/// What a [`GatewayAddress`] names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// A service's or a workload's address.
    Address(NetworkIp),
    /// A service's, or else a workload's, namespace and hostname.
    Hostname(ServiceKey),
}

/// One of several waypoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// Which.
    pub destination: GatewayAddress,
    /// Its share of the connections; 0 is never chosen.
    pub weight: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancer {
    /// The kind of choice.
    pub mode: LoadBalancerMode,
    /// What to compare with the client, most important first.
    pub preference: Box<[Scope]>,
    /// Endpoints that are not ready may be chosen.
    pub allow_unhealthy: bool,
}

/// The kind of choice among endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoadBalancerMode {
    /// Any.
    Standard,
    /// Only what matches every scope.
    Strict,
    /// What matches most scopes.
    Failover,
    /// None: the address that was dialled.
    Passthrough,
}

/// A thing to compare between client and endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Scope {
    Region,
    Zone,
    Subzone,
    Node,
    Cluster,
    Network,
}

/// Which addresses of an endpoint may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IpFamilies {
    /// Whatever it has.
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// Both, as declared.
    Dual,
}

impl Service {
    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        self.key.namespace()
    }

    /// Fully qualified; may be a wildcard `*.example.com`.
    pub fn hostname(&self) -> &str {
        self.key.hostname()
    }

    /// The target of `service_port`: `None` if the service has no such port, `Some(0)` if only endpoints know it.
    pub fn target_port(&self, service_port: u16) -> Option<u16> {
        target_port(&self.ports, service_port)
    }

    /// Whether clients of `namespace` may use it; without a namespace everything is visible.
    pub fn is_visible_to(&self, namespace: Option<&str>) -> bool {
        !self.is_namespace_private || namespace.is_none_or(|n| n == self.namespace())
    }
}

impl ServiceKey {
    /// The key of `hostname` in `namespace`, which has no slash (checked where resources are converted).
    pub fn new(namespace: &str, hostname: &str) -> Self {
        Self(format!("{namespace}/{hostname}").into())
    }

    /// The namespace: what stands before the first slash.
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The hostname: what stands after it.
    pub fn hostname(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, hostname)| hostname)
    }

    /// `namespace/hostname`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn text(&self) -> Arc<str> {
        self.0.clone()
    }

    pub(super) fn from_text(text: Arc<str>) -> Self {
        Self(text)
    }
}

impl Borrow<str> for ServiceKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceKey({})", self.0)
    }
}

impl fmt::Display for GatewayAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.destination {
            GatewayDestination::Address(a) if a.network.is_empty() => write!(f, "{}", a.ip)?,
            GatewayDestination::Address(a) => write!(f, "{}/{}", a.network, a.ip)?,
            GatewayDestination::Hostname(key) => write!(f, "{key}")?,
        }
        write!(f, " port {}", self.hbone_port)
    }
}

impl Default for LoadBalancer {
    fn default() -> Self {
        Self {
            mode: LoadBalancerMode::Standard,
            preference: Box::default(),
            allow_unhealthy: false,
        }
    }
}
