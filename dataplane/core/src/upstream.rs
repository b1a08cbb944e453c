//! Where an application's connection goes, and how: the outbound decision (facts/ztunnel.md section 2.2).
//!
//! In order, for a source workload and the address that its application dialled:
//!
//! | step | when | then |
//! |---|---|---|
//! | loop | the address is loopback and the port one of ztunnel's | refuse |
//! | service waypoint | a service is addressed and has one | HBONE to it, authority stays the address that was dialled |
//! | service | the address is a service's | one endpoint, chosen by `balance`; none: refuse, never plain TCP |
//! | workload | the address is a workload's | that one, port unchanged |
//! | unknown | neither, or the service says passthrough | plain TCP to the address that was dialled |
//! | other network | the chosen workload is in another network | double HBONE through its gateway |
//! | workload waypoint | no service is addressed, and the workload has one | HBONE to it |
//! | direct | | HBONE to port 15008, or plain TCP if the workload is not in the mesh |
//!
//! Nothing here falls back to something less: a waypoint that cannot be resolved, or a service without endpoint, refuses.
//! Two departures from Istio's ztunnel, both on the safe side. A waypoint that is itself captured is not sent through
//! itself for services either (section 12.1, 17). And an address that is both a workload's and an endpoint-less service's
//! is refused instead of being dialled in plaintext.

mod refusal;
mod resolve;
mod values;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use crate::{
    balance::{Purpose, choose_endpoint, pick_by_weight},
    hbone::Authority,
    identity::Identity,
    mesh_state::{GatewayAddress, GatewayDestination, LoadBalancerMode, MeshState, Service, TunnelProtocol, Workload},
};
pub use refusal::OutboundRefusal;
use resolve::{Client, Found, Hop};
pub use values::{Dial, Upstream};

/// The port on which workloads take HBONE (facts/ztunnel.md section 1.1).
pub const HBONE_PORT: u16 = 15008;
/// Ports that ztunnel itself listens on in a pod: outbound capture, inbound plaintext, HBONE. To send a connection to one
/// of them on the same host would be to send it round in a circle (facts/ztunnel.md section 0, 12).
pub const ILLEGAL_PORTS: [u16; 3] = [15001, 15006, HBONE_PORT];
/// Where ztunnel takes SOCKS5, if it does (facts/ztunnel.md section 1.1).
pub const SOCKS5_PORT: u16 = 15080;

/// Decide where the connection that `source` opened to `dialled` goes.
///
/// `draw` gives uniform 64-bit numbers; one is drawn for each choice among waypoints or endpoints.
pub fn decide_upstream(
    state: &MeshState,
    source: &Workload,
    dialled: SocketAddr,
    draw: &mut dyn FnMut() -> u64,
) -> Result<Upstream, OutboundRefusal> {
    let dialled = SocketAddr::new(dialled.ip().to_canonical(), dialled.port());
    if dialled.ip().is_loopback() && state.settings().is_own_port(dialled.port()) {
        return Err(OutboundRefusal::Loop { dialled });
    }
    let client = Client {
        state,
        source,
        dialled,
        excluded: None,
    };
    Outbound { client, draw }.decide()
}

/// Decide anew for a connection that `failed` could not be connected for, before anything was sent: the way to another
/// endpoint of the same service, waypoint or gateway. `None` if there is no other (section 12.1, 14).
pub fn decide_another(
    state: &MeshState,
    source: &Workload,
    dialled: SocketAddr,
    failed: &Upstream,
    draw: &mut dyn FnMut() -> u64,
) -> Option<Upstream> {
    let excluded = &*failed.workload()?.uid;
    let client = Client {
        state,
        source,
        dialled: SocketAddr::new(dialled.ip().to_canonical(), dialled.port()),
        excluded: Some(excluded),
    };
    let another = Outbound { client, draw }.decide().ok()?;
    let is_another = another.workload().is_some_and(|workload| *workload.uid != *excluded);
    is_another.then_some(another)
}

/// The address that a name of the mesh stands for to `source`, as DNS would answer it (section 7): a service's own, one of
/// its endpoints' if it has none.
pub fn decide_address(
    state: &MeshState,
    source: &Workload,
    hostname: &str,
    port: u16,
    draw: &mut dyn FnMut() -> u64,
) -> Result<SocketAddr, OutboundRefusal> {
    let unknown = || OutboundRefusal::UnknownName {
        hostname: hostname.into(),
    };
    let service = state
        .service_by_hostname(hostname, Some(source.namespace()), None)
        .ok_or_else(unknown)?;
    let own = service.vips.iter().filter(|vip| *vip.network == *source.network());
    if let Some(vip) = own.min_by_key(|vip| vip.ip.is_ipv6()) {
        return Ok(SocketAddr::new(vip.ip, port));
    }
    let dialled = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
    let endpoint = choose_endpoint(state, &source.place, service, port, Purpose::Destination, draw())
        .map_err(|cause| OutboundRefusal::no_endpoint(service, dialled, cause))?;
    let address = endpoint.workload.addresses().iter().min_by_key(|ip| ip.is_ipv6());
    Ok(SocketAddr::new(*address.ok_or_else(unknown)?, port))
}

/// One decision on its way.
struct Outbound<'a, 'd> {
    client: Client<'a>,
    draw: &'d mut dyn FnMut() -> u64,
}

impl<'a> Outbound<'a, '_> {
    fn decide(&mut self) -> Result<Upstream, OutboundRefusal> {
        let service = self.addressed_service();
        if let Some(upstream) = service.map(|s| self.through_service_waypoint(s)).transpose()?.flatten() {
            return Ok(upstream);
        }
        let Client { source, dialled, .. } = self.client;
        match self
            .client
            .find(source.network(), dialled, Purpose::Destination, (self.draw)())
        {
            Found::Hop(hop) => self.reach(service, hop),
            Found::AsDialled => Ok(Upstream::Passthrough { to: dialled }),
            Found::NoEndpoint(found, cause) => Err(OutboundRefusal::no_endpoint(found, dialled, cause)),
            Found::Nothing => match service {
                Some(s) if s.load_balancer.mode != LoadBalancerMode::Passthrough => {
                    Err(OutboundRefusal::ServiceElsewhere {
                        service: s.key.clone(),
                        dialled,
                    })
                }
                _ => Ok(Upstream::Passthrough { to: dialled }),
            },
        }
    }

    /// The service that the application addressed; a workload of that address goes first (section 0, 15).
    fn addressed_service(&self) -> Option<&'a Arc<Service>> {
        let Client {
            state, source, dialled, ..
        } = self.client;
        let network = &state.settings().network;
        if state.workload_by_ip(network, dialled.ip()).is_some() {
            return None;
        }
        state.service_by_vip(network, dialled.ip(), Some(source.namespace()))
    }

    /// `None` if the service has no waypoint, or the source is it.
    fn through_service_waypoint(&mut self, service: &'a Arc<Service>) -> Result<Option<Upstream>, OutboundRefusal> {
        let Some(reference) = self.pick_waypoint(service) else {
            return Ok(None);
        };
        if self.client.is_source(reference) {
            return Ok(None);
        }
        let waypoint = self.resolve_waypoint(reference)?;
        if waypoint.workload.network() != self.client.source.network() {
            let inner = waypoint
                .service
                .map(|s| s.accepted_identities.to_vec())
                .unwrap_or_default();
            return self.through_gateway(service, &waypoint, inner).map(Some);
        }
        self.by_waypoint(&waypoint, Some(service)).map(Some)
    }

    /// One of the weighted waypoints, else the only one.
    fn pick_waypoint<'s>(&mut self, service: &'s Service) -> Option<&'s GatewayAddress> {
        let weighted = &service.weighted_waypoints;
        let total = weighted.iter().map(|w| u64::from(w.weight)).sum();
        let sample = if weighted.is_empty() { 0 } else { (self.draw)() };
        let picked = pick_by_weight(weighted.iter(), total, |w| w.weight, sample);
        picked.map(|w| &w.destination).or(service.waypoint.as_ref())
    }

    /// To the workload that was found: across networks, through its waypoint, or directly.
    fn reach(&mut self, addressed: Option<&Arc<Service>>, hop: Hop<'a>) -> Result<Upstream, OutboundRefusal> {
        let Client { source, dialled, .. } = self.client;
        if hop.workload.network() != source.network() {
            let service = addressed.ok_or_else(|| OutboundRefusal::NoServiceForNetwork {
                workload: hop.workload.uid.clone(),
                network: hop.workload.network().into(),
                dialled,
            })?;
            let inner = hop.service.unwrap_or(service).accepted_identities.to_vec();
            return self.through_gateway(service, &hop, inner);
        }
        let waypoint = hop
            .workload
            .profile
            .waypoint
            .as_ref()
            .filter(|_| addressed.is_none() && hop.service.is_none());
        match waypoint.filter(|reference| !self.client.is_source(reference)) {
            Some(reference) => {
                let waypoint = self.resolve_waypoint(reference)?;
                self.by_waypoint(&waypoint, None)
            }
            None => self.directly(&hop),
        }
    }

    fn directly(&self, hop: &Hop<'a>) -> Result<Upstream, OutboundRefusal> {
        let to = self.client.dial(hop, hop.port)?;
        let (workload, service) = (Arc::clone(hop.workload), hop.service.cloned());
        Ok(match workload.profile.tunnel {
            TunnelProtocol::Tcp => Upstream::Plain { to, workload, service },
            TunnelProtocol::Hbone => Upstream::Hbone {
                authority: to.authority(),
                to: to.with_port(HBONE_PORT),
                accepted: accepted(hop),
                workload,
                service,
                is_direct: true,
            },
        })
    }

    fn by_waypoint(&self, waypoint: &Hop<'a>, addressed: Option<&Arc<Service>>) -> Result<Upstream, OutboundRefusal> {
        Ok(Upstream::Hbone {
            to: self.client.dial(waypoint, waypoint.port)?,
            authority: Authority::Address(self.client.dialled),
            accepted: accepted(waypoint),
            workload: Arc::clone(waypoint.workload),
            service: addressed.cloned(),
            is_direct: false,
        })
    }

    /// Double HBONE to `hop` in another network (section 2.8). `inner` are the identities at the far end.
    fn through_gateway(
        &mut self,
        service: &Arc<Service>,
        hop: &Hop<'a>,
        inner: Vec<Identity>,
    ) -> Result<Upstream, OutboundRefusal> {
        let workload = hop.workload;
        let reference = workload
            .profile
            .network_gateway
            .as_ref()
            .ok_or_else(|| OutboundRefusal::NoGateway {
                workload: workload.uid.clone(),
                network: workload.network().into(),
            })?;
        let gateway = self
            .resolve(reference, Purpose::Destination)
            .ok_or_else(|| OutboundRefusal::UnknownGateway {
                gateway: reference.clone(),
                network: workload.network().into(),
            })?;
        Ok(Upstream::DoubleHbone {
            to: self.client.dial(&gateway, gateway.port)?,
            authority: Authority::Service {
                hostname: service.hostname().to_owned(),
                port: self.client.dialled.port(),
            },
            accepted: accepted(&gateway),
            inner_accepted: inner,
            workload: Arc::clone(gateway.workload),
            service: Arc::clone(service),
        })
    }

    fn resolve_waypoint(&mut self, reference: &'a GatewayAddress) -> Result<Hop<'a>, OutboundRefusal> {
        self.resolve(reference, Purpose::Waypoint)
            .ok_or_else(|| OutboundRefusal::UnknownWaypoint {
                waypoint: reference.clone(),
                dialled: self.client.dialled,
            })
    }

    fn resolve(&mut self, reference: &GatewayAddress, purpose: Purpose) -> Option<Hop<'a>> {
        let sample = (self.draw)();
        match &reference.destination {
            GatewayDestination::Address(address) => {
                let target = SocketAddr::new(address.ip, reference.hbone_port);
                match self.client.find(&address.network, target, purpose, sample) {
                    Found::Hop(hop) => Some(Hop {
                        family_of: address.ip,
                        ..hop
                    }),
                    _ => None,
                }
            }
            GatewayDestination::Hostname(key) => self.client.find_by_name(key, reference.hbone_port, purpose, sample),
        }
    }
}

/// Whom the other end of a hop may be: its workload, or whoever its service says (section 1.3).
fn accepted(hop: &Hop<'_>) -> Vec<Identity> {
    let of_service = hop.service.iter().flat_map(|s| s.accepted_identities.iter());
    of_service.chain(hop.workload.identity()).cloned().collect()
}

#[cfg(test)]
mod tests;
