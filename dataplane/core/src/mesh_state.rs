//! The mesh as this node knows it: an immutable snapshot that any number of threads read while one writer makes the next.
//!
//! A [`MeshState`] is a handful of persistent maps (balanced trees whose unchanged parts are shared between versions), so
//! cloning one is cheap, and a change copies the few tree nodes that it touches, however large the mesh is.
//! [`MeshWriter`] is the only thing that changes one. Values are shared: a workload is kept once, and what all pods of a
//! deployment have in common is kept once for all of them.
//!
//! Two properties hold everywhere. The state after some updates does not depend on their order or batching: ties that
//! Istio breaks by arrival are broken by key here, endpoints of a service that is not known yet wait beside it, and every
//! claimant of an address stays indexed, so that when the winner goes the next one takes over. And iteration is in key
//! order, so that a decision can be replayed from its inputs and its random samples.
//!
//! Read next: `workload.rs` and `service.rs` (the values), `index.rs` (what a change touches), `writer.rs`.

mod convert;
mod dump;
mod endpoints;
mod index;
mod intern;
mod service;
mod versions;
mod workload;
mod writer;

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use imbl::{OrdMap, OrdSet};
use ipnet::IpNet;

use crate::{
    policy::{Policy, PolicyKey},
    upstream::{ILLEGAL_PORTS, SOCKS5_PORT},
};
pub use convert::{NODE_LOCAL_EXTENSION, ResourceError};
pub(crate) use convert::{as_cidr, as_port};
pub use dump::ConfigDump;
use endpoints::{Endpoints, Members};
pub(crate) use endpoints::{Question, Row};
use index::{Claimants, VipHolder, ip_key};
pub use service::*;
use workload::ByUid;
pub use workload::{
    ApplicationProtocol, ApplicationTunnel, EndpointPorts, Place, PortMapping, Profile, TunnelProtocol, Workload,
    WorkloadType, target_port,
};
pub use writer::{Applied, MeshWriter, Rejected, Resource, ResourceType};

/// What of the process's settings the mesh's state depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeshSettings {
    /// The network that this node belongs to (`NETWORK`); often empty.
    pub network: Arc<str>,
    /// Workloads of this node are local (`NODE_NAME`). Without it all are.
    pub node_name: Option<Arc<str>>,
    /// Pods have a SOCKS5 port, which is then one of ztunnel's own.
    pub socks5: bool,
}

impl MeshSettings {
    /// Whether ztunnel itself listens on this port in pods: what leads there would lead round in a circle
    /// (facts/ztunnel.md section 0, 12).
    pub fn is_own_port(&self, port: u16) -> bool {
        ILLEGAL_PORTS.contains(&port) || (self.socks5 && port == SOCKS5_PORT)
    }
}

/// One version of the mesh. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MeshState {
    settings: MeshSettings,
    workloads: OrdSet<ByUid>,
    workloads_by_ip: OrdMap<std::net::Ipv6Addr, Claimants>,
    workloads_by_hostname: OrdMap<ServiceKey, Claimants>,
    local_workloads: OrdMap<Arc<str>, Claimants>,
    services: OrdMap<ServiceKey, Arc<Service>>,
    /// By service, whether that is known or not.
    endpoints: OrdMap<ServiceKey, Arc<Endpoints>>,
    services_by_vip: OrdMap<IpAddr, Arc<[VipHolder]>>,
    services_by_cidr: OrdMap<IpNet, Arc<[VipHolder]>>,
    /// How many ranges have this family (IPv6 or not) and prefix length.
    cidr_lengths: OrdMap<(bool, u8), usize>,
    services_by_hostname: OrdMap<Arc<str>, Arc<[Arc<Service>]>>,
    policies: OrdMap<PolicyKey, Arc<Policy>>,
    global_policies: Arc<[Arc<Policy>]>,
    namespace_policies: OrdMap<Arc<str>, Arc<[Arc<Policy>]>>,
    /// Grows with each change of a policy.
    policy_version: u64,
}

impl MeshState {
    /// What it was made with.
    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// The workload of this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid).map(|w| &w.0)
    }

    /// All workloads, by uid.
    pub fn workloads(&self) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|w| &w.0)
    }

    /// The workload that owns `ip` in `network`; of several, a pod before others, HBONE before plain TCP.
    /// Workloads in their host's network are never found this way (facts/ztunnel.md section 2.9).
    pub fn workload_by_ip(&self, network: &str, ip: IpAddr) -> Option<&Arc<Workload>> {
        self.workloads_by_ip
            .get(&ip_key(ip))?
            .iter()
            .find(|w| w.network() == network)
    }

    /// A workload that is reached by resolving this hostname, in this namespace.
    pub fn workload_by_hostname(&self, key: &ServiceKey) -> Option<&Arc<Workload>> {
        self.workloads_by_hostname.get(key)?.iter().next()
    }

    /// The workload of this node that the node agent announced by these names.
    pub fn local_workload(&self, namespace: &str, name: &str, service_account: &str) -> Option<&Arc<Workload>> {
        self.local_workloads
            .get(index::local_key(namespace, name, service_account).as_str())?
            .iter()
            .next()
    }

    /// The service of this key (`namespace/hostname`).
    pub fn service(&self, key: &str) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All services, by key.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The workloads that serve `service`, ready or not, by uid.
    pub fn endpoints(&self, service: &ServiceKey) -> impl ExactSizeIterator<Item = &Arc<Workload>> {
        static NONE: std::sync::LazyLock<Members> = std::sync::LazyLock::new(Members::default);
        self.endpoints.get(service).map_or(&*NONE, |e| e.members()).iter()
    }

    pub(crate) fn endpoint_set(&self, service: &ServiceKey) -> Option<&Endpoints> {
        self.endpoints.get(service).map(|e| &**e)
    }

    /// Whether the workload of this uid serves `service`.
    pub fn is_endpoint(&self, service: &ServiceKey, uid: &str) -> bool {
        self.endpoints.get(service).is_some_and(|e| e.members().contains(uid))
    }

    /// The service that owns this virtual address, for a client of `client_namespace` (`None`: without restriction).
    ///
    /// An exact address goes before a range. Of several services, one of the client's namespace goes first, then the
    /// longer range, then the canonical one, then by key (facts/ztunnel.md section 2.4).
    pub fn service_by_vip(&self, network: &str, ip: IpAddr, client_namespace: Option<&str>) -> Option<&Arc<Service>> {
        let ip = ip.to_canonical();
        let exact = self.services_by_vip.get(&ip).map_or(&[][..], |holders| holders);
        best_service(owners(exact, network), client_namespace, None)
            .or_else(|| self.service_by_range(network, ip, client_namespace))
    }

    /// The service of this hostname, for a client of `client_namespace`; `preferred_namespace` breaks ties that are left.
    pub fn service_by_hostname(
        &self,
        hostname: &str,
        client_namespace: Option<&str>,
        preferred_namespace: Option<&str>,
    ) -> Option<&Arc<Service>> {
        self.service_by_hostname_where(hostname, client_namespace, preferred_namespace, |_| true)
    }

    /// The same among those that `is_usable`.
    pub fn service_by_hostname_where(
        &self,
        hostname: &str,
        client_namespace: Option<&str>,
        preferred_namespace: Option<&str>,
        is_usable: impl Fn(&Service) -> bool,
    ) -> Option<&Arc<Service>> {
        let named = self.services_by_hostname.get(hostname)?.iter();
        best_service(named.filter(|s| is_usable(s)), client_namespace, preferred_namespace)
    }

    /// The policy of this key (`namespace/name`).
    pub fn policy(&self, key: &str) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// Equal in two versions of one mesh whose policies are equal: then what was judged for an unchanged workload still
    /// holds.
    pub fn policy_version(&self) -> u64 {
        self.policy_version
    }

    /// All policies, by key.
    pub fn policies(&self) -> impl ExactSizeIterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// The policies that apply by scope to every workload of `namespace`.
    pub fn scoped_policies(&self, namespace: &str) -> impl Iterator<Item = &Arc<Policy>> {
        let in_namespace = self
            .namespace_policies
            .get(namespace)
            .map_or(&[][..], |policies| policies);
        self.global_policies.iter().chain(in_namespace)
    }

    /// Whether `workload` runs on this node.
    pub fn is_local(&self, workload: &Workload) -> bool {
        self.settings
            .node_name
            .as_deref()
            .is_none_or(|node| node == workload.node())
    }

    fn service_by_range(&self, network: &str, ip: IpAddr, client_namespace: Option<&str>) -> Option<&Arc<Service>> {
        let ranges = self.cidr_lengths.keys().filter(|(is_v6, _)| *is_v6 == ip.is_ipv6());
        let candidates = ranges.filter_map(|(_, length)| {
            let cidr = IpNet::new(ip, *length).ok()?.trunc();
            let owners = owners(self.services_by_cidr.get(&cidr)?, network);
            Some((*length, best_service(owners, client_namespace, None)?))
        });
        candidates
            .max_by_key(|(length, s)| (is_in(s, client_namespace), *length))
            .map(|(_, service)| service)
    }
}

fn owners<'a, 'n>(holders: &'a [VipHolder], network: &'n str) -> impl Iterator<Item = &'a Arc<Service>> + use<'a, 'n> {
    holders
        .iter()
        .filter(move |h| *h.network == *network)
        .map(|h| &h.service)
}

fn best_service<'a>(
    candidates: impl Iterator<Item = &'a Arc<Service>>,
    client_namespace: Option<&str>,
    preferred_namespace: Option<&str>,
) -> Option<&'a Arc<Service>> {
    let rank = |s: &&Arc<Service>| (is_in(s, client_namespace), s.canonical, is_in(s, preferred_namespace));
    candidates
        .filter(|s| s.is_visible_to(client_namespace))
        .min_by_key(|s| Reverse(rank(s)))
}

fn is_in(service: &Service, namespace: Option<&str>) -> bool {
    namespace.is_some_and(|n| n == service.namespace())
}

#[cfg(test)]
mod tests;
