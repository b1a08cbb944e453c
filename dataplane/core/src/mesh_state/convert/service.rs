//! Services from the wire.

use super::{ResourceError, as_cidr, as_enum, as_gateway, as_ip, as_ports, as_service_key};
use crate::identity::Identity;
use crate::mesh_state::{
    IpFamilies, LoadBalancer, LoadBalancerMode, NetworkCidr, NetworkIp, Scope, Service, WeightedWaypoint,
    intern::Interner, versions::Version,
};
use crate::wire::workload as wire;

/// Validate `service`.
pub(in crate::mesh_state) fn to_service(
    service: &wire::Service,
    interner: &mut Interner,
) -> Result<Service, ResourceError> {
    let (vips, cidr_vips) = to_vips(&service.addresses, interner)?;
    let mut weighted_waypoints = Vec::with_capacity(service.weighted_waypoints.len());
    for waypoint in &service.weighted_waypoints {
        const FIELD: &str = "weighted_waypoints.destination";
        let destination = waypoint.destination.as_ref();
        let destination = destination.ok_or(ResourceError::GatewayWithoutDestination { field: FIELD })?;
        let destination = as_gateway(FIELD, destination, interner)?;
        weighted_waypoints.push(WeightedWaypoint {
            destination,
            weight: waypoint.weight,
        });
    }
    Ok(Service {
        key: as_service_key(&service.namespace, &service.hostname, interner)?,
        name: service.name.as_str().into(),
        vips,
        cidr_vips,
        ports: as_ports("ports", &service.ports)?,
        // What is no identity can never be presented either, so leaving it out refuses no less (section 1.3).
        accepted_identities: service
            .subject_alt_names
            .iter()
            .filter_map(|san| Identity::parse(san).ok())
            .collect(),
        waypoint: service
            .waypoint
            .as_ref()
            .map(|w| as_gateway("waypoint", w, interner))
            .transpose()?,
        weighted_waypoints: weighted_waypoints.into(),
        load_balancer: service
            .load_balancing
            .as_ref()
            .map(to_load_balancer)
            .transpose()?
            .unwrap_or_default(),
        ip_families: to_ip_families(service.ip_families)?,
        canonical: service.canonical,
        // An unknown visibility counts as public (section 4.5).
        is_namespace_private: service.visibility == wire::service::Visibility::Namespace as i32,
        version: Version::default(),
    })
}

type Vips = (Box<[NetworkIp]>, Box<[NetworkCidr]>);

fn to_vips(addresses: &[wire::NetworkAddress], interner: &mut Interner) -> Result<Vips, ResourceError> {
    let (mut vips, mut cidr_vips) = (Vec::new(), Vec::new());
    for address in addresses {
        let network = interner.text(&address.network);
        match address.length {
            None => vips.push(NetworkIp {
                network,
                ip: as_ip("addresses", &address.address)?,
            }),
            Some(length) => {
                let cidr = as_cidr("addresses", &address.address, length)?;
                if cidr.prefix_len() == cidr.max_prefix_len() {
                    vips.push(NetworkIp {
                        network,
                        ip: cidr.addr(),
                    });
                } else {
                    cidr_vips.push(NetworkCidr { network, cidr });
                }
            }
        }
    }
    vips.sort();
    vips.dedup();
    cidr_vips.sort();
    cidr_vips.dedup();
    Ok((vips.into(), cidr_vips.into()))
}

fn to_load_balancer(load_balancing: &wire::LoadBalancing) -> Result<LoadBalancer, ResourceError> {
    use wire::load_balancing::{HealthPolicy, Mode};
    let mode = match as_enum("load_balancing.mode", load_balancing.mode)? {
        Mode::UnspecifiedMode => LoadBalancerMode::Standard,
        Mode::Strict => LoadBalancerMode::Strict,
        Mode::Failover => LoadBalancerMode::Failover,
        Mode::Passthrough => LoadBalancerMode::Passthrough,
    };
    let health: HealthPolicy = as_enum("load_balancing.health_policy", load_balancing.health_policy)?;
    let preference = load_balancing.routing_preference.iter().map(|scope| to_scope(*scope));
    Ok(LoadBalancer {
        mode,
        preference: preference.collect::<Result<_, _>>()?,
        allow_unhealthy: health == HealthPolicy::AllowAll,
    })
}

fn to_scope(scope: i32) -> Result<Scope, ResourceError> {
    use wire::load_balancing::Scope as Wire;
    const FIELD: &str = "load_balancing.routing_preference";
    Ok(match as_enum(FIELD, scope)? {
        Wire::UnspecifiedScope => {
            return Err(ResourceError::UnknownEnumValue {
                field: FIELD,
                value: scope,
            });
        }
        Wire::Region => Scope::Region,
        Wire::Zone => Scope::Zone,
        Wire::Subzone => Scope::Subzone,
        Wire::Node => Scope::Node,
        Wire::Cluster => Scope::Cluster,
        Wire::Network => Scope::Network,
    })
}

fn to_ip_families(families: i32) -> Result<IpFamilies, ResourceError> {
    Ok(match as_enum("ip_families", families)? {
        wire::IpFamilies::Automatic => IpFamilies::Any,
        wire::IpFamilies::Ipv4Only => IpFamilies::V4,
        wire::IpFamilies::Ipv6Only => IpFamilies::V6,
        wire::IpFamilies::Dual => IpFamilies::Dual,
    })
}
