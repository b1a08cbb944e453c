//! What does not go straight to its destination: through waypoints, and through the gateways of other networks.

use super::*;

/// A waypoint's service and its pod.
fn waypoint() -> (wire::Service, wire::Workload) {
    let service = service("shop", "waypoint", "203.0.113.9", &[(15008, 15008)]);
    let pod = serving(plain(pod("shop", "waypoint", &["192.0.2.9"])), &service, &[]);
    (service, pod)
}

#[test]
fn waypoints_are_used_for_what_they_are_attached_to() {
    let (waypoint_service, waypoint_pod) = waypoint();
    let by_name = gateway_named("shop", "waypoint.shop.svc.cluster.local", 15008);
    let service_with = |name: &str, n: u8, waypoint| {
        let mut service = service("shop", name, &format!("203.0.113.{n}"), &[(80, 80)]);
        service.waypoint = waypoint;
        service
    };
    let named = service_with("named", 1, by_name.clone());
    let addressed = service_with("addressed", 2, gateway_at("", "192.0.2.9"));
    let by_vip = service_with("by-vip", 3, gateway_at("", "203.0.113.9"));
    let broken = service_with("broken", 4, gateway_named("shop", "gone.shop.svc.cluster.local", 15008));
    let none = service_with("none", 5, None);
    let mut weighted = service_with(
        "weighted",
        6,
        gateway_named("shop", "gone.shop.svc.cluster.local", 15008),
    );
    weighted.weighted_waypoints = vec![wire::WeightedWaypoint {
        destination: by_name.clone(),
        weight: 1,
    }];
    let mut unweighted = service_with("unweighted", 7, by_name.clone());
    unweighted.weighted_waypoints = vec![wire::WeightedWaypoint {
        destination: gateway_at("", "192.0.2.200"),
        weight: 0,
    }];
    let mut server = serving(pod("shop", "server", &["192.0.2.2"]), &none, &[]);
    server.waypoint = by_name;
    let state = mesh(&[
        &client(),
        &server,
        &waypoint_service,
        &waypoint_pod,
        &named,
        &addressed,
        &by_vip,
        &broken,
        &none,
        &weighted,
        &unweighted,
    ]);
    for (id, source, dialled, expected) in [
        (
            "service, by name",
            "client",
            "203.0.113.1:80",
            "hbone 192.0.2.9:15008 for 203.0.113.1:80 named",
        ),
        (
            "service, by pod address",
            "client",
            "203.0.113.2:80",
            "hbone 192.0.2.9:15008 for 203.0.113.2:80 addressed",
        ),
        (
            "service, by vip",
            "client",
            "203.0.113.3:80",
            "hbone 192.0.2.9:15008 for 203.0.113.3:80 by-vip",
        ),
        (
            "service, waypoint unknown",
            "client",
            "203.0.113.4:80",
            "unknown_waypoint",
        ),
        (
            "service, weighted",
            "client",
            "203.0.113.6:80",
            "hbone 192.0.2.9:15008 for 203.0.113.6:80 weighted",
        ),
        (
            "service, weights all 0",
            "client",
            "203.0.113.7:80",
            "hbone 192.0.2.9:15008 for 203.0.113.7:80 unweighted",
        ),
        (
            "workload",
            "client",
            "192.0.2.2:80",
            "hbone 192.0.2.9:15008 for 192.0.2.2:80 -",
        ),
        (
            "a workload's is not for its service",
            "client",
            "203.0.113.5:80",
            "hbone 192.0.2.2:15008 for 192.0.2.2:80 none",
        ),
        (
            "workload, from the waypoint",
            "waypoint",
            "192.0.2.2:80",
            "hbone 192.0.2.2:15008 for 192.0.2.2:80 -",
        ),
        (
            "service, from the waypoint",
            "waypoint",
            "203.0.113.1:80",
            "no_healthy_upstream",
        ),
    ] {
        assert_eq!(decide_as(&state, source, dialled), expected, "{id}");
    }
}

#[test]
fn a_waypoint_that_is_a_workload_is_found_by_hostname_too() {
    let mut proxy = pod("shop", "proxy", &["192.0.2.8"]);
    proxy.hostname = "proxy.example.com".to_owned();
    let mut server = pod("shop", "server", &["192.0.2.2"]);
    server.waypoint = gateway_named("shop", "proxy.example.com", 15010);
    let state = mesh(&[&client(), &server, &proxy]);
    assert_eq!(
        decide(&state, "192.0.2.2:80"),
        "hbone 192.0.2.8:15010 for 192.0.2.2:80 -"
    );
}

#[test]
fn other_networks_are_reached_through_their_gateways_only() {
    let mut remote = service("shop", "remote", "203.0.113.1", &[(80, 80)]);
    remote.subject_alt_names = vec!["spiffe://cluster.local/ns/shop/sa/far".to_owned()];
    let mut far = on_network(serving(pod("shop", "far", &[]), &remote, &[]), "far");
    far.network_gateway = gateway_at("far", "192.0.2.7");
    let gateway = on_network(plain(pod("istio-system", "gateway", &["192.0.2.7"])), "far");
    let state = mesh(&[&client(), &remote, &far, &gateway]);
    let upstream = decide_upstream(
        &state,
        known(&state, "shop", "client"),
        "203.0.113.1:80".parse().unwrap(),
        &mut || 0,
    );
    let Ok(Upstream::DoubleHbone {
        to,
        accepted,
        inner_accepted,
        workload,
        authority,
        ..
    }) = upstream
    else {
        panic!("{upstream:?}")
    };
    assert_eq!(to, Dial::Address("192.0.2.7:15008".parse().unwrap()));
    assert_eq!(authority.to_string(), "remote.shop.svc.cluster.local:80");
    assert_eq!(
        accepted,
        [Identity::new("cluster.local", "istio-system", "default").unwrap()]
    );
    assert_eq!(inner_accepted, [Identity::new("cluster.local", "shop", "far").unwrap()]);
    assert_eq!(workload.name(), "gateway");
}

#[test]
fn what_crosses_networks_needs_a_service_and_a_known_gateway() {
    let remote = service("shop", "remote", "203.0.113.1", &[(80, 80)]);
    let far = on_network(serving(pod("shop", "far", &["192.0.2.5"]), &remote, &[]), "far");
    let state = mesh(&[&client(), &remote, &far]);
    assert_eq!(decide(&state, "203.0.113.1:80"), "no_network_gateway");
    let mut with_gateway = far.clone();
    with_gateway.network_gateway = gateway_at("far", "192.0.2.7");
    assert_eq!(
        decide(&mesh(&[&client(), &remote, &with_gateway]), "203.0.113.1:80"),
        "unknown_network_gateway"
    );
    // The workload's address means nothing on this network.
    assert_eq!(decide(&state, "192.0.2.5:80"), "passthrough 192.0.2.5:80");
}

#[test]
fn a_local_endpoint_goes_before_a_remote_one_and_the_remote_one_before_none() {
    let mut web = service("shop", "web", "203.0.113.1", &[(80, 80)]);
    web.load_balancing = load_balancing(Mode::Failover, &[Scope::Network]);
    let near = serving(pod("shop", "near", &["192.0.2.2"]), &web, &[]);
    let mut far = on_network(serving(pod("shop", "far", &[]), &web, &[]), "far");
    far.network_gateway = gateway_named("istio-system", "gateway.example.com", 15009);
    let mut gateway = service("istio-system", "gateway", "203.0.113.7", &[(15009, 15008)]);
    gateway.hostname = "gateway.example.com".to_owned();
    let gateway_pod = serving(plain(pod("istio-system", "gateway", &["192.0.2.7"])), &gateway, &[]);
    let with_near = mesh(&[&client(), &web, &near, &far, &gateway, &gateway_pod]);
    assert_eq!(
        decide(&with_near, "203.0.113.1:80"),
        "hbone 192.0.2.2:15008 for 192.0.2.2:80 web"
    );
    let without_near = mesh(&[&client(), &web, &far, &gateway, &gateway_pod]);
    let expected = "double 192.0.2.7:15008 for web.shop.svc.cluster.local:80 web";
    assert_eq!(decide(&without_near, "203.0.113.1:80"), expected);
}
