//! A workload as the mesh knows it. What pods of one deployment, or of one node, have in common is kept once.

use std::{borrow::Borrow, net::IpAddr, sync::Arc};

use super::{GatewayAddress, ServiceKey, versions::Version};
use crate::identity::Identity;
use crate::policy::PolicyKey;

/// One endpoint of the mesh: a pod, a VM, an address outside. Immutable, and shared by every index.
#[derive(Debug, PartialEq, Eq)]
pub struct Workload {
    /// Unique over the whole mesh, `<cluster>//Pod/<namespace>/<name>` for a pod.
    pub uid: Arc<str>,
    /// The pod's name, see [`Workload::name`].
    pub(super) name: WorkloadName,
    pub(super) addresses: Addresses,
    /// Load-balancing weight; 0 is never chosen.
    pub capacity: u32,
    /// Ready to serve.
    pub is_healthy: bool,
    /// Where it runs.
    pub place: Arc<Place>,
    /// What it is.
    pub profile: Arc<Profile>,
    pub(super) version: Version,
}

/// A pod's uid ends with its name, so that it need not be kept twice: with 100,000 pods that is 6 MiB.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WorkloadName {
    /// From here to the uid's end.
    InUid(u32),
    Own(Box<str>),
}

/// Nearly always one, which then costs no allocation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Addresses {
    One(IpAddr),
    Several(Box<[IpAddr]>),
}

/// Where a workload runs: what load balancing compares. Shared by all workloads of one node.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The Kubernetes node's name.
    pub node: Arc<str>,
    /// Topology, widest first.
    pub region: Arc<str>,
    /// Topology, within the region.
    pub zone: Arc<str>,
    /// Topology, within the zone.
    pub subzone: Arc<str>,
    /// The cluster's id.
    pub cluster: Arc<str>,
    /// The network that its addresses belong to; often empty.
    pub network: Arc<str>,
}

/// What a workload is. Shared by all workloads that only differ in name, address and place.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Profile {
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The service account's name.
    pub service_account: Arc<str>,
    /// The trust domain of its identity.
    pub trust_domain: Arc<str>,
    /// Absent when the three parts above form no identity: such a workload can never be authenticated.
    pub identity: Option<Identity>,
    /// `canonical_service` in metrics.
    pub canonical_name: Arc<str>,
    /// `canonical_revision` in metrics.
    pub canonical_revision: Arc<str>,
    /// The name of what made it: the deployment, the job.
    pub workload_name: Arc<str>,
    /// What made it.
    pub workload_type: WorkloadType,
    /// Resolved when connecting, for a workload without addresses; else empty.
    pub hostname: Arc<str>,
    /// How it is reached.
    pub tunnel: TunnelProtocol,
    /// It speaks HBONE itself (waypoints, gateways).
    pub native_tunnel: bool,
    /// It must not be spoken to without a tunnel, not even from its own node.
    pub demands_tunnel: bool,
    /// Its address is the node's, so an address does not tell which workload it is.
    pub is_host_network: bool,
    /// The L7 proxy for what is addressed to this workload.
    pub waypoint: Option<GatewayAddress>,
    /// How other networks reach it.
    pub network_gateway: Option<GatewayAddress>,
    /// How an L7 proxy beneath ztunnel wants to be spoken to.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Policies that select it.
    pub policies: Box<[PolicyKey]>,
    /// The services that it is an endpoint of, sorted by key.
    pub services: Box<[EndpointPorts]>,
}

/// One service of a workload, and which of its ports serve it.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct EndpointPorts {
    /// Which service.
    pub service: ServiceKey,
    /// Sorted by the service's port.
    pub ports: Box<[PortMapping]>,
}

/// A service's port and the application's port that serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PortMapping {
    /// What clients dial.
    pub service_port: u16,
    /// What the application listens on; 0 in a service means that only its endpoints know.
    pub target_port: u16,
}

/// How a workload is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// Plain TCP.
    Tcp,
    /// mTLS and HTTP/2 CONNECT.
    Hbone,
}

/// What made a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadType {
    /// A Deployment.
    Deployment,
    /// A CronJob.
    CronJob,
    /// A bare pod, and what istiod says of every pod nowadays.
    Pod,
    /// A Job.
    Job,
}

/// How ztunnel hands connections to an L7 proxy that it stands before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// What is written before the client's bytes.
    pub protocol: ApplicationProtocol,
    /// Replaces the destination port, if set.
    pub port: Option<u16>,
}

/// What an application tunnel writes before the client's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ApplicationProtocol {
    /// Nothing.
    None,
    /// A PROXY protocol v2 header.
    Proxy,
}

impl Workload {
    /// The pod's name.
    pub fn name(&self) -> &str {
        match &self.name {
            WorkloadName::InUid(start) => &self.uid[*start as usize..],
            WorkloadName::Own(name) => name,
        }
    }

    /// Its addresses, canonical: no IPv4 address in IPv6's form.
    pub fn addresses(&self) -> &[IpAddr] {
        match &self.addresses {
            Addresses::One(address) => std::slice::from_ref(address),
            Addresses::Several(addresses) => addresses,
        }
    }

    /// The Kubernetes namespace.
    pub fn namespace(&self) -> &str {
        &self.profile.namespace
    }

    /// The network that its addresses belong to.
    pub fn network(&self) -> &str {
        &self.place.network
    }

    /// The node that it runs on.
    pub fn node(&self) -> &str {
        &self.place.node
    }

    /// Its identity, if its parts form one.
    pub fn identity(&self) -> Option<&Identity> {
        self.profile.identity.as_ref()
    }

    /// Its ports for `service`; empty if it is no endpoint of it.
    pub fn ports_for(&self, service: &ServiceKey) -> &[PortMapping] {
        let services = &self.profile.services;
        services
            .binary_search_by(|s| s.service.cmp(service))
            .map_or(&[], |at| &services[at].ports)
    }

    /// Whether it can be dialled from `network`: by address, by name, or through its gateway.
    pub(crate) fn is_reachable_from(&self, network: &str) -> bool {
        !self.addresses().is_empty()
            || !self.profile.hostname.is_empty()
            || (self.network() != network && self.profile.network_gateway.is_some())
    }

    /// Smaller is better among workloads that claim one address: pods, then HBONE, then by uid so that the order of
    /// arrival does not matter (facts/ztunnel.md section 2.9).
    pub(super) fn claim_rank(&self) -> (bool, bool, &str) {
        (
            !self.uid.contains("//Pod/"),
            self.profile.tunnel != TunnelProtocol::Hbone,
            &self.uid,
        )
    }
}

impl WorkloadName {
    pub(super) fn new(uid: &str, name: &str) -> Self {
        let start = uid.strip_suffix(name).and_then(|head| u32::try_from(head.len()).ok());
        start.map_or_else(|| Self::Own(name.into()), Self::InUid)
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<T: IntoIterator<Item = IpAddr>>(addresses: T) -> Self {
        let addresses: Vec<_> = addresses.into_iter().collect();
        match addresses[..] {
            [address] => Self::One(address),
            _ => Self::Several(addresses.into()),
        }
    }
}

/// The target of `service_port` in a sorted list.
pub fn target_port(ports: &[PortMapping], service_port: u16) -> Option<u16> {
    ports
        .binary_search_by_key(&service_port, |p| p.service_port)
        .ok()
        .map(|at| ports[at].target_port)
}

/// A workload in a set that is ordered by uid.
#[derive(Clone, Debug)]
pub(super) struct ByUid(pub(super) Arc<Workload>);

impl Borrow<str> for ByUid {
    fn borrow(&self) -> &str {
        &self.0.uid
    }
}

impl PartialEq for ByUid {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for ByUid {}

impl PartialOrd for ByUid {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByUid {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.uid.cmp(&other.0.uid)
    }
}
