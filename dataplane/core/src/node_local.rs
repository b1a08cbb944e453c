//! Whether a connection between two pods of this node needs a tunnel.
//!
//! One process holds both identities there, the kernel says from which pod the connection came, and its bytes never leave
//! the machine: encrypting them would protect memory from the process that has the key. So they go directly, under the
//! same policies, and are reported as what they are. Who must have the tunnel says so: either end, or its namespace
//! (`ambit.dev/node-local: disabled`), or this ztunnel's setting.

use std::{net::IpAddr, sync::Arc};

use crate::{
    hbone::Authority,
    mesh_state::{MeshState, TunnelProtocol, Workload},
    upstream::Upstream,
};

/// A connection that can go without a tunnel, if this process serves the destination's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLocal {
    /// Where it leads.
    pub destination: Arc<Workload>,
    /// The address of the destination's pod.
    pub address: IpAddr,
    /// What a tunnel would have asked for.
    pub authority: Authority,
}

/// `None` when `upstream`, which was decided for `source`, needs a tunnel or has none anyway.
///
/// Not for waypoints and gateways, which the connection only passes through; not for workloads that speak HBONE
/// themselves or that have a proxy of their own beneath ztunnel, which learn from the tunnel who the client is.
pub fn decide_node_local(state: &MeshState, source: &Workload, upstream: &Upstream) -> Option<NodeLocal> {
    let Upstream::Hbone {
        authority,
        workload,
        is_direct: true,
        ..
    } = upstream
    else {
        return None;
    };
    let profile = &workload.profile;
    let is_possible = profile.tunnel == TunnelProtocol::Hbone
        && !profile.native_tunnel
        && !profile.is_host_network
        && profile.application_tunnel.is_none()
        && state.is_local(workload);
    // A tunnel's server refuses clients of another trust domain (facts/ztunnel.md section 1.3): one is made, and does.
    let is_trusted = match (source.identity(), workload.identity()) {
        (Some(client), Some(server)) => client.trust_domain() == server.trust_domain(),
        _ => false,
    };
    let is_welcome = is_trusted && !profile.demands_tunnel && !source.profile.demands_tunnel;
    (is_possible && is_welcome).then_some(NodeLocal {
        destination: Arc::clone(workload),
        address: upstream.target()?.ip(),
        authority: authority.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;
    use crate::upstream::decide_upstream;
    use crate::wire::workload as wire;

    fn with(mut change: impl FnMut(&mut wire::Workload)) -> wire::Workload {
        let mut workload = pod("shop", "server", &["192.0.2.2"]);
        change(&mut workload);
        workload
    }

    fn node_local(value: Option<bool>) -> Vec<wire::Extension> {
        let config = value.map(|value| prost_types::Any {
            type_url: "type.googleapis.com/google.protobuf.BoolValue".to_owned(),
            value: prost::Message::encode_to_vec(&value),
        });
        vec![wire::Extension {
            name: crate::mesh_state::NODE_LOCAL_EXTENSION.to_owned(),
            config,
        }]
    }

    #[test]
    fn only_what_may_go_without_a_tunnel_does() {
        let elsewhere = |w: &mut wire::Workload| w.node = "node-2".to_owned();
        let plain = |w: &mut wire::Workload| w.tunnel_protocol = wire::TunnelProtocol::None as i32;
        let waypoint = |w: &mut wire::Workload| w.waypoint = gateway_at("", "192.0.2.3");
        let native = |w: &mut wire::Workload| w.native_tunnel = true;
        let sandwich = |w: &mut wire::Workload| {
            w.application_tunnel = Some(wire::ApplicationTunnel {
                protocol: 1,
                port: 15088,
            });
        };
        let client = || pod("shop", "client", &["192.0.2.1"]);
        let reluctant = |extensions| wire::Workload { extensions, ..client() };
        let rows = [
            ("two pods of the node", client(), with(|_| {}), true),
            ("server elsewhere", client(), with(elsewhere), false),
            ("server outside the mesh", client(), with(plain), false),
            ("through a waypoint", client(), with(waypoint), false),
            ("server speaks HBONE itself", client(), with(native), false),
            ("server with its own proxy", client(), with(sandwich), false),
            (
                "server demands it",
                client(),
                with(|w| w.extensions = node_local(Some(false))),
                false,
            ),
            (
                "server allows it",
                client(),
                with(|w| w.extensions = node_local(Some(true))),
                true,
            ),
            (
                "another trust domain",
                client(),
                with(|w| w.trust_domain = "elsewhere.example".to_owned()),
                false,
            ),
            (
                "client demands it",
                reluctant(node_local(Some(false))),
                with(|_| {}),
                false,
            ),
            ("unreadable setting", reluctant(node_local(None)), with(|_| {}), false),
        ];
        for (row, client, server, expected) in rows {
            let proxy = pod("shop", "waypoint", &["192.0.2.3"]);
            let state = mesh(&[&client, &server, &proxy]);
            let source = known(&state, "shop", "client");
            let upstream = decide_upstream(&state, source, "192.0.2.2:8080".parse().unwrap(), &mut || 0).unwrap();
            let found = decide_node_local(&state, source, &upstream);
            assert_eq!(found.is_some(), expected, "{row}");
            if let Some(found) = found {
                assert_eq!(
                    (found.destination.name(), found.address),
                    ("server", "192.0.2.2".parse().unwrap())
                );
                assert_eq!(found.authority, Authority::Address("192.0.2.2:8080".parse().unwrap()));
            }
        }
    }
}
