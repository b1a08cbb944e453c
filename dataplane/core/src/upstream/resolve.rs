//! From an address or a name to a workload, its port, and the address to dial.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use super::{Dial, OutboundRefusal};
use crate::{
    balance::{NoEndpoint, Purpose, Question, choose_another_endpoint, choose_endpoint},
    mesh_state::{
        GatewayAddress, GatewayDestination, IpFamilies, LoadBalancerMode, MeshState, Service, ServiceKey, Workload,
    },
};

/// Who is asking.
#[derive(Clone, Copy)]
pub(super) struct Client<'a> {
    pub(super) state: &'a MeshState,
    pub(super) source: &'a Workload,
    pub(super) dialled: SocketAddr,
    /// The uid of a workload that is not to be chosen: it was, and could not be connected to.
    pub(super) excluded: Option<&'a str>,
}

/// A workload to connect to.
#[derive(Clone, Copy)]
pub(super) struct Hop<'a> {
    pub(super) workload: &'a Arc<Workload>,
    /// The workload's own port.
    pub(super) port: u16,
    /// What it was chosen from.
    pub(super) service: Option<&'a Arc<Service>>,
    /// The address whose family, or if possible itself, is to be dialled.
    pub(super) family_of: IpAddr,
}

/// What an address stands for.
pub(super) enum Found<'a> {
    Hop(Hop<'a>),
    /// A service that leaves the choice to the client.
    AsDialled,
    /// A service that nothing serves. It never falls through to something else.
    NoEndpoint(&'a Arc<Service>, NoEndpoint),
    Nothing,
}

impl<'a> Client<'a> {
    /// What `target` stands for in `network`: a service before a workload (section 0, 15).
    pub(super) fn find(&self, network: &str, target: SocketAddr, purpose: Purpose, sample: u64) -> Found<'a> {
        if let Some(service) = self
            .state
            .service_by_vip(network, target.ip(), Some(self.source.namespace()))
        {
            return self.find_endpoint(service, target, purpose, sample);
        }
        match self.state.workload_by_ip(network, target.ip()) {
            Some(workload) => Found::Hop(Hop {
                workload,
                port: target.port(),
                service: None,
                family_of: target.ip(),
            }),
            None => Found::Nothing,
        }
    }

    /// A waypoint or gateway by name: a service's, else a workload's (section 2.6).
    pub(super) fn find_by_name(&self, key: &ServiceKey, port: u16, purpose: Purpose, sample: u64) -> Option<Hop<'a>> {
        let family_of = self.dialled.ip();
        if let Some(service) = self.state.service(key.as_str()) {
            let target = SocketAddr::new(family_of, port);
            return match self.find_endpoint(service, target, purpose, sample) {
                Found::Hop(hop) => Some(hop),
                _ => None,
            };
        }
        let workload = self.state.workload_by_hostname(key)?;
        Some(Hop {
            workload,
            port,
            service: None,
            family_of,
        })
    }

    fn find_endpoint(&self, service: &'a Arc<Service>, target: SocketAddr, purpose: Purpose, sample: u64) -> Found<'a> {
        if service.load_balancer.mode == LoadBalancerMode::Passthrough {
            return Found::AsDialled;
        }
        let (state, place, port) = (self.state, &self.source.place, target.port());
        let chosen = match self.excluded {
            None => choose_endpoint(state, place, service, port, purpose, sample),
            Some(excluded) => {
                let question = Question {
                    from: Arc::clone(place),
                    service_port: port,
                    purpose,
                };
                choose_another_endpoint(state, service, &question, excluded, sample)
            }
        };
        match chosen {
            Ok(endpoint) => Found::Hop(Hop {
                workload: endpoint.workload,
                port: endpoint.port,
                service: Some(service),
                family_of: target.ip(),
            }),
            Err(cause) => Found::NoEndpoint(service, cause),
        }
    }

    /// Whether the source is what `reference` names, or one of its endpoints. Compared by uid, which is more exact than
    /// the identity and address that Istio's ztunnel compares: the source is a workload here and no guess.
    pub(super) fn is_source(&self, reference: &GatewayAddress) -> bool {
        let service = match &reference.destination {
            GatewayDestination::Address(a) => {
                self.state
                    .service_by_vip(&a.network, a.ip, Some(self.source.namespace()))
            }
            GatewayDestination::Hostname(key) => self.state.service(key.as_str()),
        };
        if let Some(service) = service {
            return self.state.is_endpoint(&service.key, &self.source.uid);
        }
        let workload = match &reference.destination {
            GatewayDestination::Address(a) => self.state.workload_by_ip(&a.network, a.ip),
            GatewayDestination::Hostname(key) => self.state.workload_by_hostname(key),
        };
        workload.is_some_and(|w| w.uid == self.source.uid)
    }

    /// Which of the hop's addresses to dial (section 2.3): the one that was asked for, else the first of its family, else
    /// the first that the service's families allow, else its hostname.
    pub(super) fn dial(&self, hop: &Hop<'_>, port: u16) -> Result<Dial, OutboundRefusal> {
        let Hop {
            workload, family_of, ..
        } = hop;
        if workload.addresses().contains(family_of) {
            return Ok(Dial::Address(SocketAddr::new(*family_of, port)));
        }
        let families = hop.service.map_or(IpFamilies::Any, |s| s.ip_families);
        let allowed = || workload.addresses().iter().filter(|ip| is_allowed(families, **ip));
        let ip = allowed()
            .find(|ip| ip.is_ipv4() == family_of.is_ipv4())
            .or_else(|| allowed().next());
        if let Some(ip) = ip {
            return Ok(Dial::Address(SocketAddr::new(*ip, port)));
        }
        let hostname = &workload.profile.hostname;
        if hostname.is_empty() {
            return Err(OutboundRefusal::NoAddress {
                workload: workload.uid.clone(),
                dialled: self.dialled,
            });
        }
        Ok(Dial::Name {
            hostname: hostname.clone(),
            port,
            prefers_ipv6: family_of.is_ipv6(),
        })
    }
}

fn is_allowed(families: IpFamilies, ip: IpAddr) -> bool {
    match families {
        IpFamilies::Any | IpFamilies::Dual => true,
        IpFamilies::V4 => ip.is_ipv4(),
        IpFamilies::V6 => ip.is_ipv6(),
    }
}
