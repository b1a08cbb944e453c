//! What a large mesh costs this process: resident bytes per workload, and the time to take in all and single changes.
//!
//! Run: `cargo run --release --example mesh_state_cost [WORKLOADS]`. Pods belong to deployments of 10, nodes have 100, and
//! every deployment is a service, in 50 namespaces: names as long as Kubernetes makes them.

use std::{net::SocketAddr, time::Instant};

use ambit_core::{
    mesh_state::{MeshSettings, MeshState, MeshWriter, Resource},
    upstream::decide_upstream,
    wire::workload as wire,
};
use prost::Message;

const PODS_PER_DEPLOYMENT: usize = 10;
const PODS_PER_NODE: usize = 100;
const NAMESPACES: usize = 50;
/// Sent per response, as a controller would.
const BATCH: usize = 1000;

fn main() {
    let count: usize = std::env::args()
        .nth(1)
        .and_then(|text| text.parse().ok())
        .unwrap_or(100_000);
    let resources: Vec<_> = (0..count.div_ceil(PODS_PER_DEPLOYMENT))
        .map(service)
        .chain((0..count).map(workload))
        .collect();
    let before = resident_kib();
    let mut writer = MeshWriter::new(MeshSettings {
        node_name: Some("node-0".into()),
        ..Default::default()
    });
    let started = Instant::now();
    for batch in resources.chunks(BATCH) {
        let batch: Vec<_> = batch.iter().map(as_resource).collect();
        assert_eq!(writer.apply_addresses(&batch, &[]).rejected, []);
    }
    let elapsed = started.elapsed();
    let grown = resident_kib() - before;
    println!("{count} workloads and {} services:", count / PODS_PER_DEPLOYMENT);
    println!("  all at once: {elapsed:?}, {:?} each", elapsed / count as u32);
    println!(
        "  memory: {grown} KiB, {} bytes per workload, its share of services included",
        grown * 1024 / count
    );
    measure_changes(&mut writer, count);
    measure_decisions(&writer.snapshot(), count);
}

/// One pod moves, and is published while the version before is still held.
fn measure_changes(writer: &mut MeshWriter, count: usize) {
    const CHANGES: usize = 1000;
    let changes: Vec<_> = (0..CHANGES)
        .map(|i| workload_at(i * (count / CHANGES).max(1), 200))
        .collect();
    let started = Instant::now();
    let mut held = writer.snapshot();
    for change in &changes {
        assert!(writer.apply_addresses(&[as_resource(change)], &[]).is_changed);
        held = writer.snapshot();
    }
    println!(
        "  one changed: {:?}, a version each ({} workloads in it)",
        started.elapsed() / CHANGES as u32,
        held.workloads().len()
    );
}

fn measure_decisions(state: &MeshState, count: usize) {
    const DECISIONS: u32 = 100_000;
    let source = state
        .local_workload("namespace-0", &name(0), "service-account")
        .expect("pod 0 is on node-0");
    let services = count / PODS_PER_DEPLOYMENT;
    let started = Instant::now();
    let mut sample = 1u64;
    for i in 0..DECISIONS {
        let dialled = SocketAddr::new(vip(i as usize % services).into(), 80);
        let mut draw = || {
            sample = sample
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            sample
        };
        assert!(decide_upstream(state, source, dialled, &mut draw).is_ok());
    }
    println!("  one outbound decision: {:?}", started.elapsed() / DECISIONS);
}

fn as_resource((name, value): &(String, Vec<u8>)) -> Resource<'_> {
    Resource {
        name,
        version: "1f3a5c7e9b2d4f60",
        value: Some(value),
    }
}

fn service(index: usize) -> (String, Vec<u8>) {
    let namespace = format!("namespace-{}", index % NAMESPACES);
    let hostname = hostname(index);
    let service = wire::Service {
        name: format!("deployment-{index}"),
        namespace: namespace.clone(),
        hostname: hostname.clone(),
        addresses: vec![wire::NetworkAddress {
            address: vip(index).to_vec(),
            ..Default::default()
        }],
        ports: vec![wire::Port {
            service_port: 80,
            target_port: 8080,
            app_protocol: 0,
        }],
        ..Default::default()
    };
    let address = wire::Address {
        r#type: Some(wire::address::Type::Service(service)),
    };
    (format!("{namespace}/{hostname}"), address.encode_to_vec())
}

fn workload(index: usize) -> (String, Vec<u8>) {
    workload_at(index, 0)
}

fn workload_at(index: usize, moved: u8) -> (String, Vec<u8>) {
    let deployment = index / PODS_PER_DEPLOYMENT;
    let namespace = format!("namespace-{}", deployment % NAMESPACES);
    let uid = format!("Kubernetes//Pod/{namespace}/{}", name(index));
    let node = index / PODS_PER_NODE;
    let ports = wire::PortList {
        ports: vec![wire::Port {
            service_port: 80,
            target_port: 8080,
            app_protocol: 0,
        }],
    };
    let workload = wire::Workload {
        uid: uid.clone(),
        name: name(index),
        namespace: namespace.clone(),
        addresses: vec![vec![10 + moved, (index >> 16) as u8, (index >> 8) as u8, index as u8]],
        tunnel_protocol: wire::TunnelProtocol::Hbone as i32,
        service_account: "service-account".to_owned(),
        node: format!("node-{node}"),
        canonical_name: format!("deployment-{deployment}"),
        canonical_revision: "latest".to_owned(),
        workload_name: format!("deployment-{deployment}"),
        workload_type: wire::WorkloadType::Pod as i32,
        services: [(format!("{namespace}/{}", hostname(deployment)), ports)].into(),
        locality: Some(wire::Locality {
            region: "region".to_owned(),
            zone: format!("zone-{}", node % 3),
            ..Default::default()
        }),
        ..Default::default()
    };
    (
        uid,
        wire::Address {
            r#type: Some(wire::address::Type::Workload(workload)),
        }
        .encode_to_vec(),
    )
}

/// As Kubernetes names the pods of a deployment.
fn name(index: usize) -> String {
    format!(
        "deployment-{}-{:010x}-{index:05}",
        index / PODS_PER_DEPLOYMENT,
        index / PODS_PER_DEPLOYMENT * 7919
    )
}

fn hostname(deployment: usize) -> String {
    format!(
        "deployment-{deployment}.namespace-{}.svc.cluster.local",
        deployment % NAMESPACES
    )
}

fn vip(deployment: usize) -> [u8; 4] {
    [
        172,
        16 + (deployment >> 16) as u8,
        (deployment >> 8) as u8,
        deployment as u8,
    ]
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has procfs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("procfs tells the resident size");
    line.trim().trim_end_matches(" kB").parse().expect("it is a number")
}
