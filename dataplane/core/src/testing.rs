//! A mesh made of wire messages, for the tests of the decisions. Addresses are from the documentation ranges.

use prost::Message;

use crate::mesh_state::{Applied, MeshSettings, MeshState, MeshWriter, Resource, Workload};
use crate::wire::{security, workload as wire};

pub(crate) use wire::gateway_address::Destination;
pub(crate) use wire::load_balancing::{Mode, Scope};

/// A resource before it is sent.
pub(crate) type Named = (String, Vec<u8>);

/// A healthy pod in the mesh, on `node-1`, of service account `default`.
pub(crate) fn pod(namespace: &str, name: &str, ips: &[&str]) -> wire::Workload {
    wire::Workload {
        uid: format!("cluster//Pod/{namespace}/{name}"),
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        addresses: ips.iter().map(|ip| bytes(ip)).collect(),
        node: "node-1".to_owned(),
        tunnel_protocol: wire::TunnelProtocol::Hbone as i32,
        ..Default::default()
    }
}

/// Make `workload` an endpoint: ports are (service port, target port).
pub(crate) fn serving(mut workload: wire::Workload, service: &wire::Service, mapping: &[(u32, u32)]) -> wire::Workload {
    let key = format!("{}/{}", service.namespace, service.hostname);
    workload.services.insert(key, wire::PortList { ports: ports(mapping) });
    workload
}

/// A service with one virtual address. Its hostname is `<name>.<namespace>.svc.cluster.local`.
pub(crate) fn service(namespace: &str, name: &str, vip: &str, mapping: &[(u32, u32)]) -> wire::Service {
    wire::Service {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        hostname: format!("{name}.{namespace}.svc.cluster.local"),
        addresses: vec![wire::NetworkAddress {
            address: bytes(vip),
            ..Default::default()
        }],
        ports: ports(mapping),
        ..Default::default()
    }
}

pub(crate) fn load_balancing(mode: Mode, preference: &[Scope]) -> Option<wire::LoadBalancing> {
    let routing_preference = preference.iter().map(|s| *s as i32).collect();
    Some(wire::LoadBalancing {
        mode: mode as i32,
        routing_preference,
        health_policy: 0,
    })
}

pub(crate) fn ports(mapping: &[(u32, u32)]) -> Vec<wire::Port> {
    let port = |&(service_port, target_port)| wire::Port {
        service_port,
        target_port,
        app_protocol: 0,
    };
    mapping.iter().map(port).collect()
}

/// A waypoint or gateway by its address, port 15008.
pub(crate) fn gateway_at(network: &str, ip: &str) -> Option<wire::GatewayAddress> {
    let address = wire::NetworkAddress {
        network: network.to_owned(),
        address: bytes(ip),
        length: None,
    };
    Some(wire::GatewayAddress {
        destination: Some(Destination::Address(address)),
        hbone_mtls_port: 15008,
    })
}

/// A waypoint or gateway by its hostname.
pub(crate) fn gateway_named(namespace: &str, hostname: &str, port: u32) -> Option<wire::GatewayAddress> {
    let name = wire::NamespacedHostname {
        namespace: namespace.to_owned(),
        hostname: hostname.to_owned(),
    };
    Some(wire::GatewayAddress {
        destination: Some(Destination::Hostname(name)),
        hbone_mtls_port: port,
    })
}

pub(crate) fn bytes(ip: &str) -> Vec<u8> {
    match ip.parse().unwrap() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Whatever becomes an address resource.
pub(crate) trait ToNamed {
    fn named(&self) -> Named;
}

impl ToNamed for wire::Workload {
    fn named(&self) -> Named {
        let address = wire::Address {
            r#type: Some(wire::address::Type::Workload(self.clone())),
        };
        (self.uid.clone(), address.encode_to_vec())
    }
}

impl ToNamed for wire::Service {
    fn named(&self) -> Named {
        let address = wire::Address {
            r#type: Some(wire::address::Type::Service(self.clone())),
        };
        (format!("{}/{}", self.namespace, self.hostname), address.encode_to_vec())
    }
}

impl ToNamed for security::Authorization {
    fn named(&self) -> Named {
        (format!("{}/{}", self.namespace, self.name), self.encode_to_vec())
    }
}

pub(crate) fn as_resources(named: &[Named]) -> Vec<Resource<'_>> {
    named
        .iter()
        .map(|(name, value)| Resource {
            name,
            version: "1",
            value: Some(value),
        })
        .collect()
}

pub(crate) fn settings() -> MeshSettings {
    MeshSettings {
        node_name: Some("node-1".into()),
        ..MeshSettings::default()
    }
}

pub(crate) fn writer() -> MeshWriter {
    MeshWriter::new(settings())
}

pub(crate) fn apply(writer: &mut MeshWriter, resources: &[&dyn ToNamed]) -> Applied {
    let named: Vec<_> = resources.iter().map(|r| r.named()).collect();
    writer.apply_addresses(&as_resources(&named), &[])
}

pub(crate) fn apply_policies(writer: &mut MeshWriter, policies: &[security::Authorization]) -> Applied {
    let named: Vec<_> = policies.iter().map(|p| p.named()).collect();
    writer.apply_authorizations(&as_resources(&named), &[])
}

/// The mesh of these workloads and services, all of which are valid.
pub(crate) fn mesh(resources: &[&dyn ToNamed]) -> MeshState {
    mesh_with(settings(), resources)
}

/// The same on a node with other settings.
pub(crate) fn mesh_with(settings: MeshSettings, resources: &[&dyn ToNamed]) -> MeshState {
    let mut writer = MeshWriter::new(settings);
    assert_eq!(apply(&mut writer, resources).rejected, []);
    writer.snapshot()
}

/// The pod that `pod` made.
pub(crate) fn known<'a>(state: &'a MeshState, namespace: &str, name: &str) -> &'a Workload {
    state.workload(&format!("cluster//Pod/{namespace}/{name}")).unwrap()
}
