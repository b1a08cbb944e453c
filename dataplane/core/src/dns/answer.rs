//! Who answers a name, and with which addresses (facts/ztunnel.md section 7).

use std::net::IpAddr;
use std::sync::Arc;

use super::message::QueryType;
use super::names::{Alias, aliases, wildcards};
use crate::mesh_state::{IpFamilies, MeshState, Service, Workload};

/// What of the process's settings answers depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolver {
    /// The cluster's DNS domain (`CLUSTER_DOMAIN`).
    pub domain: Arc<str>,
    /// Breaks ties among services of one hostname (`PREFERED_SERVICE_NAMESPACE`, as Istio spells it).
    pub preferred_namespace: Option<Arc<str>>,
    /// Whether IPv6 addresses are told (`IPV6_ENABLED`).
    pub ipv6: bool,
}

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The mesh has the name.
    Answer(Answer),
    /// It does not: the name servers know.
    Forward,
}

/// What the mesh says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The name that the addresses belong to, if it is not the one that was asked for.
    pub canonical: Option<String>,
    /// In random order. None: the name exists, without such an address; this is not asked elsewhere, where another
    /// cluster or the Internet might know the name.
    pub addresses: Vec<IpAddr>,
}

enum Found<'a> {
    Service(&'a Arc<Service>),
    Endpoint(&'a Arc<Workload>),
}

impl Resolver {
    /// Decide what `client` is told of `name`. `draw` gives uniform 64-bit numbers, to shuffle with.
    pub fn decide(
        &self,
        state: &MeshState,
        client: &Workload,
        name: &str,
        kind: QueryType,
        draw: &mut dyn FnMut() -> u64,
    ) -> Decision {
        let all = aliases(name, client.namespace(), &self.domain);
        let Some((found, canonical)) = all.iter().find_map(|alias| self.find(state, client, alias)) else {
            return Decision::Forward;
        };
        let mut addresses = if kind == QueryType::V6 && !self.ipv6 {
            Vec::new()
        } else {
            addresses_of(state, client, &found, kind)
        };
        shuffle(&mut addresses, draw);
        let canonical = canonical.filter(|_| !addresses.is_empty());
        Decision::Answer(Answer { canonical, addresses })
    }

    /// Whoever has this hostname: a service, one pod of a headless one, or a service with a wildcard.
    fn find<'a>(&self, state: &'a MeshState, client: &Workload, alias: &Alias) -> Option<(Found<'a>, Option<String>)> {
        let hostname = &alias.hostname;
        if let Some(service) = self.service(state, client, hostname) {
            return Some((Found::Service(service), alias.stripped.clone()));
        }
        if let Some(endpoint) = self.endpoint(state, client, hostname) {
            return Some((Found::Endpoint(endpoint), alias.stripped.clone()));
        }
        let wildcard = wildcards(hostname).find_map(|wildcard| self.service(state, client, &wildcard));
        wildcard.map(|service| (Found::Service(service), None))
    }

    fn service<'a>(&self, state: &'a MeshState, client: &Workload, hostname: &str) -> Option<&'a Arc<Service>> {
        let preferred = self.preferred_namespace.as_deref();
        // Without an address only a headless service of the cluster means something.
        let is_usable = |s: &Service| !s.vips.is_empty() || self.is_of_cluster(s.hostname());
        state.service_by_hostname_where(hostname, Some(client.namespace()), preferred, is_usable)
    }

    /// `<pod>.<service>` and `<dashed address>.<service>` of a headless service, as Kubernetes' DNS has them. Stock ztunnel
    /// does not know these (section 12.1, 21).
    fn endpoint<'a>(&self, state: &'a MeshState, client: &Workload, hostname: &str) -> Option<&'a Arc<Workload>> {
        let (label, rest) = hostname.split_once('.')?;
        let service = self.is_of_cluster(rest).then(|| self.service(state, client, rest))??;
        if !service.vips.is_empty() {
            return None;
        }
        let ip = dashed_address(label);
        let mut usable = endpoints(state, client, service);
        usable.find(|w| w.name() == label || ip.is_some_and(|ip| w.addresses().contains(&ip)))
    }

    fn is_of_cluster(&self, hostname: &str) -> bool {
        let rest = hostname.strip_suffix(&*self.domain);
        rest.is_some_and(|rest| rest.ends_with(".svc."))
    }
}

fn addresses_of(state: &MeshState, client: &Workload, found: &Found<'_>, kind: QueryType) -> Vec<IpAddr> {
    let first = |workload: &Arc<Workload>| workload.addresses().iter().copied().find(|ip| kind.fits(ip));
    match found {
        Found::Endpoint(workload) => first(workload).into_iter().collect(),
        Found::Service(service) if !has_family(service, kind) => Vec::new(),
        Found::Service(service) if service.vips.is_empty() => {
            endpoints(state, client, service).filter_map(first).collect()
        }
        Found::Service(service) => {
            let own = service.vips.iter().filter(|vip| *vip.network == *client.network());
            own.map(|vip| vip.ip).filter(|ip| kind.fits(ip)).collect()
        }
    }
}

/// Of a headless service: those that the client can reach, and that are ready unless the service wants all.
fn endpoints<'a>(
    state: &'a MeshState,
    client: &Workload,
    service: &Arc<Service>,
) -> impl Iterator<Item = &'a Arc<Workload>> {
    let (network, any) = (client.place.network.clone(), service.load_balancer.allow_unhealthy);
    let all = state.endpoints(&service.key);
    all.filter(move |w| *w.network() == *network && (any || w.is_healthy))
}

fn has_family(service: &Service, kind: QueryType) -> bool {
    match service.ip_families {
        IpFamilies::Any | IpFamilies::Dual => true,
        IpFamilies::V4 => kind == QueryType::V4,
        IpFamilies::V6 => kind == QueryType::V6,
    }
}

/// `192-0-2-1`, `2001-db8--1`.
fn dashed_address(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse();
    v4.or_else(|_| label.replace('-', ":").parse()).ok()
}

/// Fisher and Yates.
fn shuffle(addresses: &mut [IpAddr], draw: &mut dyn FnMut() -> u64) {
    for last in (1..addresses.len()).rev() {
        let count = u64::try_from(last).unwrap_or(u64::MAX) + 1;
        let other = usize::try_from(draw() % count).unwrap_or_default();
        addresses.swap(last, other);
    }
}
