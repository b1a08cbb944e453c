use super::*;
use crate::testing::*;
use crate::wire::workload as wire;

fn web() -> wire::Service {
    service("shop", "web", "203.0.113.1", &[(80, 8080)])
}

fn endpoint(name: &str, service: &wire::Service) -> wire::Workload {
    serving(pod("shop", name, &["192.0.2.2"]), service, &[])
}

/// How often each endpoint is chosen by 100 samples that are spread evenly.
fn shares(service: &wire::Service, workloads: &[wire::Workload]) -> Vec<(String, usize)> {
    let mut resources: Vec<&dyn ToNamed> = vec![service];
    resources.extend(workloads.iter().map(|w| w as &dyn ToNamed));
    let mut client = pod("shop", "client", &["192.0.2.1"]);
    (client.network, client.locality) = ("home".to_owned(), locality("r1", "z1", "s1"));
    resources.push(&client);
    let state = mesh(&resources);
    let mut shares = std::collections::BTreeMap::new();
    for i in 0..100u64 {
        let sample = i * (u64::MAX / 100) + (u64::MAX / 200);
        let known_service = state.services().next().unwrap();
        let place = &known(&state, "shop", "client").place;
        if let Ok(endpoint) = choose_endpoint(&state, place, known_service, 80, Purpose::Destination, sample) {
            *shares.entry(endpoint.workload.name().to_owned()).or_default() += 1;
        }
    }
    shares.into_iter().collect()
}

fn locality(region: &str, zone: &str, subzone: &str) -> Option<wire::Locality> {
    Some(wire::Locality {
        region: region.to_owned(),
        zone: zone.to_owned(),
        subzone: subzone.to_owned(),
    })
}

fn chosen(service: &wire::Service, workloads: &[wire::Workload]) -> Vec<String> {
    shares(service, workloads).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn weights_decide_the_shares() {
    let weighted = |name: &str, capacity| wire::Workload {
        capacity,
        ..endpoint(name, &web())
    };
    let shares = shares(
        &web(),
        &[weighted("a", None), weighted("b", Some(3)), weighted("c", Some(0))],
    );
    assert_eq!(shares, [("a".to_owned(), 25), ("b".to_owned(), 75)]);
}

#[test]
fn weights_of_zero_leave_nothing() {
    let none = wire::Workload {
        capacity: Some(0),
        ..endpoint("a", &web())
    };
    assert_eq!(chosen(&web(), &[none]), [""; 0]);
}

#[test]
fn unready_endpoints_are_left_out_unless_the_service_takes_them() {
    let unready = wire::Workload {
        status: wire::WorkloadStatus::Unhealthy as i32,
        ..endpoint("unready", &web())
    };
    let workloads = [unready, endpoint("ready", &web())];
    assert_eq!(chosen(&web(), &workloads), ["ready"]);
    let mut all = web();
    all.load_balancing = load_balancing(Mode::UnspecifiedMode, &[]);
    all.load_balancing.as_mut().unwrap().health_policy = 1;
    assert_eq!(chosen(&all, &workloads), ["ready", "unready"]);
}

#[test]
fn endpoints_that_cannot_be_dialled_are_left_out() {
    let without_address = wire::Workload {
        addresses: vec![],
        ..endpoint("nowhere", &web())
    };
    let by_name = wire::Workload {
        hostname: "example.com".to_owned(),
        ..endpoint("named", &web())
    };
    let behind_gateway = wire::Workload {
        network: "far".to_owned(),
        network_gateway: gateway_at("far", "192.0.2.7"),
        ..without_address.clone()
    };
    assert_eq!(chosen(&web(), &[without_address]), [""; 0]);
    assert_eq!(chosen(&web(), &[by_name]), ["named"]);
    assert_eq!(chosen(&web(), &[behind_gateway]), ["nowhere"]);
}

#[test]
fn places_are_preferred_as_the_mode_says() {
    use crate::testing::Scope::{Cluster, Network, Node, Region, Subzone, Zone};
    // The client is on node-1, cluster Kubernetes, network home, in r1/z1/s1.
    let at = |name: &str, network: &str, (region, zone, subzone): (&str, &str, &str), node: &str| wire::Workload {
        network: network.to_owned(),
        locality: locality(region, zone, subzone),
        node: node.to_owned(),
        network_gateway: gateway_at("far", "192.0.2.7"),
        ..endpoint(name, &web())
    };
    let workloads = [
        at("near", "home", ("r1", "z1", "s1"), "node-1"),
        at("other-node", "home", ("r1", "z1", "s1"), "node-2"),
        at("other-zone", "home", ("r1", "z2", "s1"), "node-3"),
        at("far-network", "far", ("r1", "z1", "s1"), "node-1"),
    ];
    let all: &[&str] = &["far-network", "near", "other-node", "other-zone"];
    for (id, mode, preference, without, expected) in [
        (
            "standard ignores preferences",
            Mode::UnspecifiedMode,
            &[Node][..],
            0,
            all,
        ),
        ("failover without preferences", Mode::Failover, &[], 0, all),
        (
            "failover, node",
            Mode::Failover,
            &[Network, Region, Zone, Subzone, Node],
            0,
            &["near"],
        ),
        (
            "failover, one less",
            Mode::Failover,
            &[Network, Region, Zone, Subzone, Node],
            1,
            &["other-node"],
        ),
        (
            "failover, a nearer zone on another network",
            Mode::Failover,
            &[Network, Region, Zone],
            2,
            &["other-zone"],
        ),
        (
            "failover, the last resort",
            Mode::Failover,
            &[Network, Region, Zone],
            3,
            &["far-network"],
        ),
        (
            "failover stops at the first mismatch",
            Mode::Failover,
            &[Zone, Node],
            2,
            &["far-network"],
        ),
        ("failover, each scope by itself", Mode::Failover, &[Subzone], 0, all),
        ("failover, cluster", Mode::Failover, &[Cluster], 0, all),
        ("strict, node", Mode::Strict, &[Network, Node], 0, &["near"]),
        ("strict, nothing matches", Mode::Strict, &[Network, Node], 1, &[]),
        ("strict, zone", Mode::Strict, &[Zone], 1, &["far-network", "other-node"]),
    ] {
        let mut service = web();
        service.load_balancing = load_balancing(mode, preference);
        assert_eq!(chosen(&service, &workloads[without..]), expected, "{id}");
    }
}

#[test]
fn a_port_is_the_endpoints_before_the_services() {
    let service = service("shop", "web", "203.0.113.1", &[(80, 8080), (81, 0)]);
    let mut tunnelled = pod("shop", "proxy", &["192.0.2.3"]);
    tunnelled.application_tunnel = Some(wire::ApplicationTunnel {
        protocol: 1,
        port: 15088,
    });
    for (id, workload, mapping, port, purpose, expected) in [
        (
            "the service's",
            endpoint("a", &service),
            &[][..],
            80,
            Purpose::Destination,
            Some(8080),
        ),
        (
            "the endpoint's",
            endpoint("a", &service),
            &[(80, 9090)],
            80,
            Purpose::Destination,
            Some(9090),
        ),
        (
            "a named one",
            endpoint("a", &service),
            &[(81, 9191)],
            81,
            Purpose::Destination,
            Some(9191),
        ),
        (
            "a named one that is not resolved",
            endpoint("a", &service),
            &[],
            81,
            Purpose::Destination,
            None,
        ),
        (
            "one that the service does not have",
            endpoint("a", &service),
            &[(99, 99)],
            99,
            Purpose::Destination,
            None,
        ),
        (
            "a waypoint's tunnel needs none",
            tunnelled.clone(),
            &[],
            15008,
            Purpose::Waypoint,
            Some(15008),
        ),
        (
            "a destination's tunnel needs one",
            tunnelled.clone(),
            &[],
            15008,
            Purpose::Destination,
            None,
        ),
    ] {
        let state = mesh(&[&service, &serving(workload, &service, mapping)]);
        let workload = state.workloads().next().unwrap();
        let service = state.services().next().unwrap();
        let result = choose_endpoint(&state, &workload.place, service, port, purpose, 0);
        assert_eq!(result.ok().map(|endpoint| endpoint.port), expected, "{id}");
    }
}

/// A mesh of `count` endpoints of different weights, zones and health, some of which cannot be chosen.
fn large(service: &wire::Service, count: u32) -> crate::mesh_state::MeshWriter {
    let mut writer = writer();
    apply(&mut writer, &[service]);
    for i in 0..count {
        let workload = wire::Workload {
            capacity: Some(i % 4),
            status: i32::from(i % 5 == 0),
            locality: locality("r1", ["z1", "z2"][i as usize % 2], "s1"),
            ..endpoint(&format!("pod-{i:03}"), service)
        };
        apply(&mut writer, &[&workload]);
    }
    writer
}

/// What is chosen for samples that are spread evenly, by the remembered table and by walking.
fn both_ways(state: &MeshState, place: &Arc<Place>, port: u16) -> [Vec<Option<String>>; 2] {
    let service = state.services().next().unwrap();
    let question = Question {
        from: place.clone(),
        service_port: port,
        purpose: Purpose::Destination,
    };
    let candidates = Candidates {
        state,
        service,
        question: &question,
        excluded: None,
    };
    let samples = || (0..500u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let name = |endpoint: Endpoint<'_>| format!("{} {}", endpoint.workload.name(), endpoint.port);
    let chosen = |s| {
        choose_endpoint(state, place, service, port, Purpose::Destination, s)
            .ok()
            .map(name)
    };
    [
        samples().map(chosen).collect(),
        samples().map(|s| candidates.pick(s).map(name)).collect(),
    ]
}

#[test]
fn what_is_remembered_of_many_endpoints_chooses_as_walking_over_them_does() {
    let mut preferring = web();
    preferring.load_balancing = load_balancing(Mode::Failover, &[crate::testing::Scope::Zone]);
    for (id, service) in [("standard", web()), ("failover", preferring)] {
        let state = large(&service, 40).snapshot();
        // Each place is another question, and there are more of them than are kept.
        for place in state.workloads().map(|w| &w.place) {
            let [remembered, walked] = both_ways(&state, place, 80);
            assert_eq!(remembered, walked, "{id}");
            assert!(remembered.iter().all(Option::is_some), "{id}");
        }
        for port in 70..80 {
            let [remembered, walked] = both_ways(&state, &state.workloads().next().unwrap().place, port);
            assert_eq!(remembered, walked, "{id}, port {port}");
        }
        let [remembered, walked] = both_ways(&state, &state.workloads().next().unwrap().place, 80);
        assert_eq!(remembered, walked, "{id}, again");
    }
}

#[test]
fn what_is_remembered_does_not_outlive_a_change() {
    let mut writer = large(&web(), 40);
    let place = writer.snapshot().workloads().next().unwrap().place.clone();
    let [before, _] = both_ways(&writer.snapshot(), &place, 80);
    let gone = before[0].clone().unwrap().split(' ').next().unwrap().to_owned();
    writer.apply_addresses(&[], &[format!("cluster//Pod/shop/{gone}")]);
    let [after, walked] = both_ways(&writer.snapshot(), &place, 80);
    assert_eq!(after, walked);
    assert!(after.iter().flatten().all(|chosen| !chosen.starts_with(&gone)));
    apply(
        &mut writer,
        &[&wire::Service {
            ports: ports(&[(80, 9999)]),
            ..web()
        }],
    );
    let [after, walked] = both_ways(&writer.snapshot(), &place, 80);
    assert_eq!(after, walked);
    assert!(after.iter().flatten().all(|chosen| chosen.ends_with(" 9999")));
    let weighted = wire::Workload {
        capacity: Some(1_000_000),
        ..endpoint("pod-001", &web())
    };
    apply(&mut writer, &[&weighted]);
    let [after, walked] = both_ways(&writer.snapshot(), &place, 80);
    assert_eq!(after, walked);
    assert!(
        after
            .iter()
            .flatten()
            .filter(|chosen| chosen.starts_with("pod-001"))
            .count()
            > 490
    );
}
