//! Discovery on demand: what has to be asked for before a decision counts (facts/ztunnel.md section 4.3).
//!
//! A ztunnel that does not know the whole mesh decides by what it knows, and here learns by which key to ask for what the
//! decision lacked. Asked and answered, the decision is made again; a key that leads to nothing makes it final.

use std::net::{IpAddr, SocketAddr};

use crate::{
    inbound::InboundRefusal,
    mesh_state::{GatewayAddress, GatewayDestination, MeshState, Workload},
    upstream::{OutboundRefusal, Upstream},
};

/// The key of what has this address: `network/ip`, the network often empty.
pub fn address_key(network: &str, ip: IpAddr) -> String {
    format!("{network}/{}", ip.to_canonical())
}

/// The key that the decision about a connection of `source` to `dialled` lacked; `None` when it can be carried out.
pub fn missing_outbound(
    state: &MeshState,
    source: &Workload,
    dialled: SocketAddr,
    decided: &Result<Upstream, OutboundRefusal>,
) -> Option<String> {
    match decided {
        Ok(Upstream::Passthrough { .. }) => {
            let (network, ip) = (source.network(), dialled.ip().to_canonical());
            let is_known = state.workload_by_ip(network, ip).is_some()
                || state.service_by_vip(network, ip, Some(source.namespace())).is_some();
            (!is_known).then(|| address_key(network, ip))
        }
        Err(OutboundRefusal::UnknownWaypoint { waypoint, .. }) => Some(gateway_key(waypoint)),
        Err(OutboundRefusal::UnknownGateway { gateway, .. }) => Some(gateway_key(gateway)),
        Ok(_) | Err(_) => None,
    }
}

/// The same of a CONNECT that came to `workload`: it may serve what is not known here, as a waypoint or by a service's name.
pub fn missing_inbound(workload: &Workload, refusal: &InboundRefusal) -> Option<String> {
    match refusal {
        InboundRefusal::AddressMismatch { authority, .. } => Some(address_key(workload.network(), authority.ip())),
        InboundRefusal::UnknownService { hostname, .. } => {
            let mut own = workload.profile.services.iter().map(|ports| ports.service.as_str());
            own.find(|key| key.split_once('/').is_some_and(|(_, name)| name == hostname))
                .map(str::to_owned)
        }
        _ => None,
    }
}

fn gateway_key(gateway: &GatewayAddress) -> String {
    match &gateway.destination {
        GatewayDestination::Address(address) => address_key(&address.network, address.ip),
        GatewayDestination::Hostname(key) => key.as_str().to_owned(),
    }
}

#[cfg(test)]
mod tests;
