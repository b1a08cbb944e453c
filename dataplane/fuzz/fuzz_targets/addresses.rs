//! Any bytes as workloads and services: what is taken can be asked for, taken again, and removed without a trace.
#![no_main]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use ambit_core::mesh_state::{ConfigDump, MeshSettings, MeshWriter, Resource, ResourceType};
use ambit_core::upstream::decide_upstream;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|values: Vec<&[u8]>| {
    let mut writer = MeshWriter::new(MeshSettings::default());
    // Named as a controller would, where there is a name to be found.
    let named: Vec<_> = values.iter().map(|value| (name_of(value), *value)).collect();
    let resources: Vec<_> = named
        .iter()
        .map(|(name, value)| Resource {
            name,
            version: "1",
            value: Some(value),
        })
        .collect();
    let first = writer.apply_addresses(&resources, &[]);
    assert_eq!(first.accepted + first.rejected.len(), values.len());
    assert_eq!(first.error_detail().is_some(), !first.rejected.is_empty());
    let mesh = writer.snapshot();
    for workload in mesh.workloads() {
        let vips = mesh
            .services()
            .flat_map(|service| service.vips.iter().map(|vip| vip.ip));
        let targets = workload
            .addresses()
            .iter()
            .copied()
            .chain(vips)
            .chain([IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        for target in targets.take(8) {
            let _ = decide_upstream(&mesh, workload, SocketAddr::new(target, 80), &mut || 7);
        }
    }
    let _ = format!("{:?}", ConfigDump(&mesh));
    let names: Vec<_> = writer
        .versions(ResourceType::Address)
        .map(|(name, _)| name.to_owned())
        .collect();
    writer.apply_addresses(&[], &names);
    let keys: Vec<_> = {
        let mesh = writer.snapshot();
        let workloads = mesh.workloads().map(|one| one.uid.to_string());
        workloads
            .chain(mesh.services().map(|one| one.key.as_str().to_owned()))
            .collect()
    };
    // Those that had another name than their key.
    writer.apply_addresses(&[], &keys);
    let empty = writer.snapshot();
    assert_eq!((empty.workloads().len(), empty.services().len()), (0, 0));
    assert_eq!(writer.versions(ResourceType::Address).count(), 0);
});

/// The first field of the message that is a text: a workload's uid, a service's name.
fn name_of(value: &[u8]) -> String {
    let mut writer = MeshWriter::new(MeshSettings::default());
    let resource = Resource {
        name: "?",
        version: "",
        value: Some(value),
    };
    writer.apply_addresses(&[resource], &[]);
    let mesh = writer.snapshot();
    let workload = mesh.workloads().next().map(|one| one.uid.to_string());
    let service = mesh.services().next().map(|one| one.key.as_str().to_owned());
    workload.or(service).unwrap_or_else(|| "?".to_owned())
}
