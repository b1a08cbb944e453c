//! Any bytes as policies: each connection is judged, the same each time, and nothing unreadable permits.
#![no_main]

use std::net::IpAddr;

use ambit_core::identity::Identity;
use ambit_core::mesh_state::{MeshSettings, MeshWriter, Resource, ResourceType};
use ambit_core::policy::{Connection, Verdict, decide};
use ambit_core::wire::workload as wire;
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// A pod that policies may select.
fn pod() -> Vec<u8> {
    let workload = wire::Workload {
        uid: "uid".to_owned(),
        name: "pod".to_owned(),
        namespace: "ns".to_owned(),
        addresses: vec![vec![10, 0, 0, 1]],
        authorization_policies: (0..4).map(|number| format!("ns/policy-{number}")).collect(),
        ..wire::Workload::default()
    };
    let address = wire::Address {
        r#type: Some(wire::address::Type::Workload(workload)),
    };
    address.encode_to_vec()
}

fuzz_target!(|values: Vec<&[u8]>| {
    let mut writer = MeshWriter::new(MeshSettings::default());
    let pod = pod();
    let workload = Resource {
        name: "uid",
        version: "1",
        value: Some(&pod),
    };
    assert_eq!(writer.apply_addresses(&[workload], &[]).accepted, 1);
    let names: Vec<_> = (0..values.len()).map(|number| format!("ns/policy-{number}")).collect();
    let resources: Vec<_> = names
        .iter()
        .zip(&values)
        .map(|(name, value)| Resource {
            name,
            version: "1",
            value: Some(value),
        })
        .collect();
    let applied = writer.apply_authorizations(&resources, &[]);
    assert_eq!(applied.accepted + applied.rejected.len(), values.len());
    let mesh = writer.snapshot();
    let defects = mesh.policies().filter(|policy| policy.defect.is_some()).count();
    let peer = Identity::new("cluster.local", "ns", "client").expect("an identity");
    for workload in mesh.workloads() {
        for peer in [None, Some(&peer)] {
            for ip in ["10.0.0.2", "2001:db8::1"] {
                let connection = Connection {
                    peer,
                    source: ip.parse::<IpAddr>().expect("an address"),
                    destination: [10, 0, 0, 1].into(),
                    port: 80,
                };
                let decision = decide(&mesh, workload, &connection);
                assert_eq!(decide(&mesh, workload, &connection), decision);
                if let Verdict::Refusal(refusal) = &decision.verdict {
                    assert!(!refusal.reason().is_empty());
                }
            }
        }
    }
    assert!(defects <= applied.rejected.len());
    let all: Vec<_> = mesh.policies().map(|policy| policy.key.as_str().to_owned()).collect();
    writer.apply_authorizations(&[], &all);
    writer.apply_authorizations(&[], &names);
    assert_eq!(writer.snapshot().policies().len(), 0);
    assert_eq!(writer.versions(ResourceType::Authorization).count(), 0);
});
