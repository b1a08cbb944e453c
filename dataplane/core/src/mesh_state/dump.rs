//! The mesh as `/config_dump` shows it (facts/ztunnel.md section 8.1): the names that `istioctl ztunnel-config` parses.
//!
//! One value at a time is built and written, so that a dump of a large mesh needs little memory of its own.

use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value, json};

use super::*;
use crate::policy::{Condition, Field, Match, PolicyAction, PolicyScope, ServiceAccount};

/// Serialises as an object with `workloads`, `services`, `policies` and `stagedServices`.
#[derive(Debug)]
pub struct ConfigDump<'a>(pub &'a MeshState);

impl Serialize for ConfigDump<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let state = self.0;
        let staged = state
            .endpoints
            .keys()
            .filter(|key| state.service(key.as_str()).is_none());
        let mut dump = serializer.serialize_map(Some(4))?;
        dump.serialize_entry("workloads", &Lazily(|| state.workloads().map(|w| workload(w))))?;
        dump.serialize_entry("services", &Lazily(|| state.services().map(|s| service(state, s))))?;
        dump.serialize_entry("policies", &Lazily(|| state.policies().map(|p| policy(p))))?;
        let staged: Map<_, _> = staged.map(|key| (key.to_string(), endpoints(state, key))).collect();
        dump.serialize_entry("stagedServices", &staged)?;
        dump.end()
    }
}

/// A sequence that is made while it is written.
struct Lazily<F>(F);

impl<F: Fn() -> I, I: Iterator<Item = Value>> Serialize for Lazily<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

fn workload(w: &Workload) -> Value {
    let p = &w.profile;
    let services = p
        .services
        .iter()
        .map(|s| (s.service.to_string(), ports(&s.ports)))
        .collect::<Map<_, _>>();
    compact(json!({
        "workloadIps": w.addresses(),
        "waypoint": p.waypoint.as_ref().map(gateway),
        "networkGateway": p.network_gateway.as_ref().map(gateway),
        "protocol": match p.tunnel { TunnelProtocol::Tcp => "TCP", TunnelProtocol::Hbone => "HBONE" },
        "networkMode": if p.is_host_network { "HostNetwork" } else { "Standard" },
        "uid": w.uid,
        "name": w.name(),
        "namespace": p.namespace,
        "trustDomain": p.trust_domain,
        "serviceAccount": p.service_account,
        "network": w.place.network,
        "workloadName": p.workload_name,
        "workloadType": match p.workload_type {
            WorkloadType::Deployment => "deployment",
            WorkloadType::CronJob => "cronjob",
            WorkloadType::Pod => "pod",
            WorkloadType::Job => "job",
        },
        "canonicalName": p.canonical_name,
        "canonicalRevision": p.canonical_revision,
        "hostname": p.hostname,
        "node": w.place.node,
        "nativeTunnel": p.native_tunnel,
        "applicationTunnel": p.application_tunnel.map(|tunnel| json!({
            "protocol": match tunnel.protocol { ApplicationProtocol::None => "NONE", ApplicationProtocol::Proxy => "PROXY" },
            "port": tunnel.port,
        })),
        "authorizationPolicies": p.policies.iter().map(PolicyKey::as_str).collect::<Vec<_>>(),
        "status": status(w),
        "clusterId": w.place.cluster,
        "locality": compact(json!({
            "region": w.place.region, "zone": w.place.zone, "subzone": w.place.subzone
        })),
        "services": services,
        "capacity": w.capacity,
    }))
}

fn service(state: &MeshState, s: &Service) -> Value {
    let weighted = s.weighted_waypoints.iter();
    compact(json!({
        "name": s.name,
        "namespace": s.namespace(),
        "hostname": s.hostname(),
        "vips": s.vips.iter().map(|vip| format!("{}/{}", vip.network, vip.ip)).collect::<Vec<_>>(),
        "cidrVips": s.cidr_vips.iter().map(|vip| format!("{}/{}", vip.network, vip.cidr)).collect::<Vec<_>>(),
        "ports": ports(&s.ports),
        "endpoints": endpoints(state, &s.key),
        "subjectAltNames": s.accepted_identities.iter().map(|i| i.uri()).collect::<Vec<_>>(),
        "waypoint": s.waypoint.as_ref().map(gateway),
        "weightedWaypoints": weighted
            .map(|w| json!({ "destination": gateway(&w.destination), "weight": w.weight }))
            .collect::<Vec<_>>(),
        "loadBalancer": (s.load_balancer != LoadBalancer::default()).then(|| json!({
            "routingPreferences": s.load_balancer.preference.iter().map(|p| format!("{p:?}")).collect::<Vec<_>>(),
            "mode": format!("{:?}", s.load_balancer.mode),
            "healthPolicy": if s.load_balancer.allow_unhealthy { "AllowAll" } else { "OnlyHealthy" },
        })),
        "ipFamilies": match s.ip_families {
            IpFamilies::Any => None,
            IpFamilies::V4 => Some("IPv4"),
            IpFamilies::V6 => Some("IPv6"),
            IpFamilies::Dual => Some("Dual"),
        },
        "canonical": s.canonical,
        "visibility": if s.is_namespace_private { "Namespace" } else { "Public" },
    }))
}

fn endpoints(state: &MeshState, key: &ServiceKey) -> Value {
    let endpoint = |w: &Arc<Workload>| {
        let value = json!({ "workloadUid": w.uid, "port": ports(w.ports_for(key)), "status": status(w) });
        (w.uid.to_string(), value)
    };
    state.endpoints(key).map(endpoint).collect::<Map<_, _>>().into()
}

fn policy(p: &Policy) -> Value {
    let matches = |c: &crate::policy::Clause| c.matches.iter().map(policy_match).collect::<Vec<_>>();
    let clauses = |r: &crate::policy::Rule| r.clauses.iter().map(matches).collect::<Vec<_>>();
    compact(json!({
        "name": p.name,
        "namespace": p.namespace,
        "scope": match p.scope {
            PolicyScope::Global => "Global",
            PolicyScope::Namespace => "Namespace",
            PolicyScope::WorkloadSelector => "WorkloadSelector",
        },
        "action": match p.action { PolicyAction::Allow => "Allow", PolicyAction::Deny => "Deny" },
        "rules": p.rules.iter().map(clauses).collect::<Vec<_>>(),
        "dryRun": p.dry_run,
        "defect": p.defect,
    }))
}

fn policy_match(m: &Match) -> Value {
    m.conditions.iter().map(condition).collect::<Map<_, _>>().into()
}

fn condition(c: &Condition) -> (String, Value) {
    let account = |a: &ServiceAccount| json!({ "namespace": a.namespace, "serviceAccount": a.name });
    let (name, values) = match &c.field {
        Field::DestinationPorts(values) => ("destinationPorts", json!(values)),
        Field::Namespaces(values) => ("namespaces", json!(values)),
        Field::ServiceAccounts(values) => ("serviceAccounts", values.iter().map(account).collect::<Vec<_>>().into()),
        Field::Principals(values) => ("principals", json!(values)),
        Field::SourceIps(ranges) => ("sourceIps", texts(ranges)),
        Field::DestinationIps(ranges) => ("destinationIps", texts(ranges)),
    };
    if !c.is_negated {
        return (name.to_owned(), values);
    }
    (format!("not{}{}", name[..1].to_uppercase(), &name[1..]), values)
}

fn gateway(g: &GatewayAddress) -> Value {
    let destination = match &g.destination {
        GatewayDestination::Address(a) => format!("{}/{}", a.network, a.ip),
        GatewayDestination::Hostname(key) => key.to_string(),
    };
    json!({ "destination": destination, "hboneMtlsPort": g.hbone_port })
}

fn ports(ports: &[PortMapping]) -> Value {
    ports
        .iter()
        .map(|p| (p.service_port.to_string(), p.target_port.into()))
        .collect::<Map<_, _>>()
        .into()
}

fn status(w: &Workload) -> &'static str {
    if w.is_healthy { "Healthy" } else { "Unhealthy" }
}

fn texts(values: &[impl ToString]) -> Value {
    values.iter().map(|v| Value::from(v.to_string())).collect()
}

/// Without what says nothing: null, "", false and empty lists and objects.
fn compact(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, field| match field {
            Value::Null | Value::Bool(false) => false,
            Value::String(text) => !text.is_empty(),
            Value::Array(values) => !values.is_empty(),
            Value::Object(values) => !values.is_empty(),
            Value::Bool(true) | Value::Number(_) => true,
        });
    }
    value
}
