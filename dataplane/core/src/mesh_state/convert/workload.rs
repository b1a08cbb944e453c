//! Workloads from the wire.

use std::sync::Arc;

use prost::Message;

use super::{ResourceError, as_enum, as_gateway, as_ip, as_port, as_ports, as_service_key};
use crate::identity::{DEFAULT_SERVICE_ACCOUNT, DEFAULT_TRUST_DOMAIN, Identity};
use crate::mesh_state::{
    ApplicationProtocol, ApplicationTunnel, EndpointPorts, Place, Profile, TunnelProtocol, Workload, WorkloadType,
    intern::Interner, versions::Version, workload::WorkloadName,
};
use crate::policy::PolicyKey;
use crate::wire::workload as wire;

/// Whether connections of a workload may go without a tunnel on its node: a `google.protobuf.BoolValue`. Ours; stock
/// ztunnels ignore extensions (facts/ztunnel.md section 4.9).
pub const NODE_LOCAL_EXTENSION: &str = "ambit.dev/node-local";

/// What an empty cluster id stands for (facts/ztunnel.md section 0, 30).
const DEFAULT_CLUSTER: &str = "Kubernetes";

/// Validate `workload`.
pub(in crate::mesh_state) fn to_workload(
    workload: &wire::Workload,
    interner: &mut Interner,
) -> Result<Workload, ResourceError> {
    if workload.uid.is_empty() {
        return Err(ResourceError::EmptyUid);
    }
    if workload.namespace.contains('/') {
        return Err(ResourceError::Namespace(workload.namespace.clone()));
    }
    let status: wire::WorkloadStatus = as_enum("status", workload.status)?;
    Ok(Workload {
        uid: workload.uid.as_str().into(),
        name: WorkloadName::new(&workload.uid, &workload.name),
        addresses: workload
            .addresses
            .iter()
            .map(|a| as_ip("addresses", a))
            .collect::<Result<_, _>>()?,
        capacity: workload.capacity.unwrap_or(1),
        is_healthy: status == wire::WorkloadStatus::Healthy,
        place: to_place(workload, interner),
        profile: to_profile(workload, interner)?,
        version: Version::default(),
    })
}

fn to_place(workload: &wire::Workload, interner: &mut Interner) -> Arc<Place> {
    let locality = workload.locality.clone().unwrap_or_default();
    let place = Place {
        node: interner.text(&workload.node),
        region: interner.text(&locality.region),
        zone: interner.text(&locality.zone),
        subzone: interner.text(&locality.subzone),
        cluster: interner.text(or_default(&workload.cluster_id, DEFAULT_CLUSTER)),
        network: interner.text(&workload.network),
    };
    interner.places.intern(place)
}

fn to_profile(workload: &wire::Workload, interner: &mut Interner) -> Result<Arc<Profile>, ResourceError> {
    let trust_domain = interner.text(or_default(&workload.trust_domain, DEFAULT_TRUST_DOMAIN));
    let namespace = interner.text(&workload.namespace);
    let service_account = interner.text(or_default(&workload.service_account, DEFAULT_SERVICE_ACCOUNT));
    let gateway = |field, gateway: &Option<wire::GatewayAddress>, interner: &mut Interner| {
        gateway.as_ref().map(|g| as_gateway(field, g, interner)).transpose()
    };
    let network_mode: wire::NetworkMode = as_enum("network_mode", workload.network_mode)?;
    let profile = Profile {
        identity: Identity::new(&trust_domain, &namespace, &service_account).ok(),
        trust_domain,
        namespace,
        service_account,
        canonical_name: interner.text(&workload.canonical_name),
        canonical_revision: interner.text(&workload.canonical_revision),
        workload_name: interner.text(&workload.workload_name),
        workload_type: to_workload_type(workload.workload_type),
        hostname: interner.text(&workload.hostname),
        tunnel: to_tunnel(workload.tunnel_protocol)?,
        native_tunnel: workload.native_tunnel,
        demands_tunnel: demands_tunnel(&workload.extensions),
        is_host_network: network_mode == wire::NetworkMode::HostNetwork,
        waypoint: gateway("waypoint", &workload.waypoint, interner)?,
        network_gateway: gateway("network_gateway", &workload.network_gateway, interner)?,
        application_tunnel: workload
            .application_tunnel
            .as_ref()
            .map(to_application_tunnel)
            .transpose()?,
        policies: workload
            .authorization_policies
            .iter()
            .map(|key| PolicyKey::from(interner.text(key)))
            .collect(),
        services: to_endpoints(workload, interner)?,
    };
    Ok(interner.profiles.intern(profile))
}

/// Anything but a plain `true` demands a tunnel: more protection than was meant harms nobody.
fn demands_tunnel(extensions: &[wire::Extension]) -> bool {
    let found = extensions.iter().find(|e| e.name == NODE_LOCAL_EXTENSION);
    found.is_some_and(|extension| {
        let value = extension
            .config
            .as_ref()
            .map(|config| bool::decode(config.value.as_slice()));
        !matches!(value, Some(Ok(true)))
    })
}

fn to_endpoints(workload: &wire::Workload, interner: &mut Interner) -> Result<Box<[EndpointPorts]>, ResourceError> {
    let mut services = Vec::with_capacity(workload.services.len());
    for (key, ports) in &workload.services {
        let (namespace, hostname) = key
            .split_once('/')
            .ok_or_else(|| ResourceError::ServiceKey(key.clone()))?;
        let service = as_service_key(namespace, hostname, interner)?;
        services.push(EndpointPorts {
            service,
            ports: as_ports("services", &ports.ports)?,
        });
    }
    // The wire's map came in the order of its keys, which is also ours.
    Ok(services.into())
}

fn to_tunnel(protocol: i32) -> Result<TunnelProtocol, ResourceError> {
    match as_enum("tunnel_protocol", protocol)? {
        wire::TunnelProtocol::None => Ok(TunnelProtocol::Tcp),
        wire::TunnelProtocol::Hbone => Ok(TunnelProtocol::Hbone),
        wire::TunnelProtocol::LegacyIstioMtls => Err(ResourceError::LegacyTunnel),
    }
}

fn to_workload_type(workload_type: i32) -> WorkloadType {
    match wire::WorkloadType::try_from(workload_type) {
        Ok(wire::WorkloadType::Deployment) => WorkloadType::Deployment,
        Ok(wire::WorkloadType::Cronjob) => WorkloadType::CronJob,
        Ok(wire::WorkloadType::Job) => WorkloadType::Job,
        // It is a label only, so an unknown value is no reason to refuse a pod (section 4.5 does not list it).
        Ok(wire::WorkloadType::Pod) | Err(_) => WorkloadType::Pod,
    }
}

fn to_application_tunnel(tunnel: &wire::ApplicationTunnel) -> Result<ApplicationTunnel, ResourceError> {
    use wire::application_tunnel::Protocol;
    let protocol = match as_enum("application_tunnel.protocol", tunnel.protocol)? {
        Protocol::None => ApplicationProtocol::None,
        Protocol::Proxy => ApplicationProtocol::Proxy,
    };
    let port = as_port("application_tunnel.port", tunnel.port)?;
    Ok(ApplicationTunnel {
        protocol,
        port: (port != 0).then_some(port),
    })
}

fn or_default<'a>(value: &'a str, default: &'a str) -> &'a str {
    if value.is_empty() { default } else { value }
}
