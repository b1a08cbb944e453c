use super::*;
use crate::testing::*;
use crate::wire::workload as wire;

mod hops;

/// What `client` of namespace `shop` gets when it dials, as text, so that a table's rows can be read.
fn decide(state: &MeshState, dialled: &str) -> String {
    decide_as(state, "client", dialled)
}

fn decide_as(state: &MeshState, name: &str, dialled: &str) -> String {
    let source = known(state, "shop", name);
    match decide_upstream(state, source, dialled.parse().unwrap(), &mut || 0) {
        Ok(upstream) => describe(&upstream),
        Err(refusal) => refusal.reason().to_owned(),
    }
}

fn describe(upstream: &Upstream) -> String {
    let dial = match upstream.dial() {
        Dial::Address(address) => address.to_string(),
        Dial::Name {
            hostname,
            port,
            prefers_ipv6,
        } => format!("{hostname}:{port} v6={prefers_ipv6}"),
    };
    let service = upstream.service().map_or("-", |s| &s.name);
    match upstream {
        Upstream::Passthrough { .. } => format!("passthrough {dial}"),
        Upstream::Plain { .. } => format!("plain {dial} {service}"),
        Upstream::Hbone { authority, .. } => format!("hbone {dial} for {authority} {service}"),
        Upstream::DoubleHbone { authority, .. } => format!("double {dial} for {authority} {service}"),
    }
}

fn client() -> wire::Workload {
    pod("shop", "client", &["192.0.2.1", "2001:db8::1"])
}

fn plain(mut workload: wire::Workload) -> wire::Workload {
    workload.tunnel_protocol = wire::TunnelProtocol::None as i32;
    workload
}

fn on_network(mut workload: wire::Workload, network: &str) -> wire::Workload {
    workload.network = network.to_owned();
    workload
}

#[test]
fn addresses_lead_where_the_table_says() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 8080), (81, 0), (82, 0)]);
    let empty = service("shop", "empty", "203.0.113.2", &[(80, 8080)]);
    let mut open = service("shop", "open", "203.0.113.3", &[(80, 80)]);
    open.load_balancing = load_balancing(Mode::Passthrough, &[]);
    let mut range = service("shop", "range", "198.51.100.0", &[(80, 0)]);
    range.addresses[0].length = Some(24);
    let mut host = serving(pod("shop", "host", &["192.0.2.9"]), &range, &[(80, 9090)]);
    host.network_mode = wire::NetworkMode::HostNetwork as i32;
    let outside = service("shop", "outside", "203.0.113.4", &[(443, 443)]);
    let mut named = serving(plain(pod("shop", "named", &[])), &outside, &[]);
    named.hostname = "example.com".to_owned();
    let state = mesh(&[
        &client(),
        &web,
        &empty,
        &open,
        &range,
        &outside,
        &host,
        &named,
        &plain(pod("shop", "old", &["192.0.2.3"])),
        &serving(pod("shop", "web-1", &["192.0.2.2"]), &web, &[(81, 8181)]),
    ]);
    for (id, dialled, expected) in [
        ("unknown address", "8.8.8.8:53", "passthrough 8.8.8.8:53"),
        (
            "unknown address in IPv6's form",
            "[::ffff:8.8.8.8]:53",
            "passthrough 8.8.8.8:53",
        ),
        (
            "pod in the mesh",
            "192.0.2.2:99",
            "hbone 192.0.2.2:15008 for 192.0.2.2:99 -",
        ),
        ("pod outside of the mesh", "192.0.2.3:99", "plain 192.0.2.3:99 -"),
        (
            "the pod itself",
            "192.0.2.1:99",
            "hbone 192.0.2.1:15008 for 192.0.2.1:99 -",
        ),
        (
            "service, its own target",
            "203.0.113.1:80",
            "hbone 192.0.2.2:15008 for 192.0.2.2:8080 web",
        ),
        (
            "service, the endpoint's target",
            "203.0.113.1:81",
            "hbone 192.0.2.2:15008 for 192.0.2.2:8181 web",
        ),
        (
            "named port that no endpoint resolves",
            "203.0.113.1:82",
            "no_healthy_upstream",
        ),
        (
            "port that the service does not have",
            "203.0.113.1:99",
            "no_service_port",
        ),
        ("service without endpoints", "203.0.113.2:80", "no_healthy_upstream"),
        ("passthrough service", "203.0.113.3:80", "passthrough 203.0.113.3:80"),
        (
            "range; host-network endpoint",
            "198.51.100.7:80",
            "hbone 192.0.2.9:15008 for 192.0.2.9:9090 range",
        ),
        (
            "host-network pod by its address",
            "192.0.2.9:80",
            "passthrough 192.0.2.9:80",
        ),
        (
            "endpoint with a hostname only",
            "203.0.113.4:443",
            "plain example.com:443 v6=false outside",
        ),
        ("loopback, capture port", "127.0.0.1:15001", "loop"),
        ("loopback, inbound port, IPv6", "[::1]:15006", "loop"),
        (
            "loopback, HBONE port in IPv6's form",
            "[::ffff:127.0.0.1]:15008",
            "loop",
        ),
        ("loopback, another port", "127.0.0.1:80", "passthrough 127.0.0.1:80"),
    ] {
        assert_eq!(decide(&state, dialled), expected, "{id}");
    }
}

#[test]
fn the_family_is_the_one_that_was_dialled_unless_the_service_says_otherwise() {
    let vips = |name, families: wire::IpFamilies, n: u8| {
        let mut service = service("shop", name, &format!("203.0.113.{n}"), &[(80, 80)]);
        let v6 = wire::NetworkAddress {
            address: bytes(&format!("2001:db8:1::{n}")),
            ..Default::default()
        };
        service.addresses.push(v6);
        service.ip_families = families as i32;
        service
    };
    let services = [
        vips("any", wire::IpFamilies::Automatic, 1),
        vips("v4", wire::IpFamilies::Ipv4Only, 2),
        vips("v6", wire::IpFamilies::Ipv6Only, 3),
        vips("dual", wire::IpFamilies::Dual, 4),
    ];
    let server = services.iter().fold(
        plain(pod("shop", "server", &["192.0.2.2", "2001:db8::2"])),
        |pod, service| serving(pod, service, &[]),
    );
    let [any, v4, v6, dual] = &services;
    let state = mesh(&[&client(), &server, any, v4, v6, dual]);
    for (id, dialled, expected) in [
        ("any, IPv4", "203.0.113.1:80", "plain 192.0.2.2:80 any"),
        ("any, IPv6", "[2001:db8:1::1]:80", "plain [2001:db8::2]:80 any"),
        ("IPv4 only, IPv6 dialled", "[2001:db8:1::2]:80", "plain 192.0.2.2:80 v4"),
        ("IPv6 only, IPv4 dialled", "203.0.113.3:80", "plain [2001:db8::2]:80 v6"),
        ("dual, IPv6", "[2001:db8:1::4]:80", "plain [2001:db8::2]:80 dual"),
    ] {
        assert_eq!(decide(&state, dialled), expected, "{id}");
    }
}

#[test]
fn the_server_may_be_the_workload_or_whoever_the_service_accepts() {
    let mut web = service("shop", "web", "203.0.113.1", &[(80, 80)]);
    web.subject_alt_names = vec![
        "spiffe://cluster.local/ns/other/sa/web".to_owned(),
        "not an identity".to_owned(),
    ];
    let mut server = serving(pod("shop", "server", &["192.0.2.2"]), &web, &[]);
    server.service_account = "server".to_owned();
    let state = mesh(&[&client(), &web, &server]);
    let accepted = |dialled: &str| {
        let source = known(&state, "shop", "client");
        let upstream = decide_upstream(&state, source, dialled.parse().unwrap(), &mut || 0).unwrap();
        upstream
            .accepted()
            .iter()
            .map(|i| i.principal().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        accepted("203.0.113.1:80"),
        ["cluster.local/ns/other/sa/web", "cluster.local/ns/shop/sa/server"]
    );
    assert_eq!(accepted("192.0.2.2:80"), ["cluster.local/ns/shop/sa/server"]);
}

#[test]
fn a_service_of_another_namespace_may_be_invisible() {
    let mut hidden = service("other", "hidden", "203.0.113.1", &[(80, 80)]);
    hidden.visibility = wire::service::Visibility::Namespace as i32;
    let state = mesh(&[&client(), &hidden]);
    assert_eq!(decide(&state, "203.0.113.1:80"), "passthrough 203.0.113.1:80");
}

#[test]
fn a_name_that_was_resolved_is_dialled_and_asked_for() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    let mut server = serving(pod("shop", "server", &[]), &web, &[]);
    server.hostname = "server.example.com".to_owned();
    let state = mesh(&[&client(), &web, &server]);
    let source = known(&state, "shop", "client");
    let upstream = decide_upstream(&state, source, "203.0.113.1:80".parse().unwrap(), &mut || 0).unwrap();
    assert_eq!(upstream.target(), None);
    let resolved = upstream.with_ip("198.51.100.1".parse().unwrap());
    assert_eq!(
        describe(&resolved),
        "hbone 198.51.100.1:15008 for 198.51.100.1:8080 web"
    );
}

#[test]
fn a_refusal_names_the_service_and_where_to_look() {
    let empty = service("shop", "empty", "203.0.113.2", &[(80, 8080)]);
    let state = mesh(&[&client(), &empty]);
    let source = known(&state, "shop", "client");
    let text = |dialled: &str| {
        decide_upstream(&state, source, dialled.parse().unwrap(), &mut || 0)
            .unwrap_err()
            .to_string()
    };
    let no_endpoint = text("203.0.113.2:80");
    assert!(
        no_endpoint.contains("shop/empty.shop.svc.cluster.local (203.0.113.2:80) has 0 endpoints"),
        "{no_endpoint}"
    );
    assert!(text("203.0.113.2:81").ends_with("has no port 81; it has 80"));
}

#[test]
fn a_name_stands_for_a_services_address_or_an_endpoints() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    let mut headless = service("shop", "headless", "203.0.113.2", &[(80, 8080)]);
    headless.addresses.clear();
    let mut empty = service("shop", "empty", "203.0.113.3", &[(80, 8080)]);
    empty.addresses.clear();
    let mut hidden = service("other", "hidden", "203.0.113.4", &[(80, 80)]);
    hidden.visibility = wire::service::Visibility::Namespace as i32;
    let endpoint = serving(pod("shop", "endpoint", &["2001:db8::2", "192.0.2.2"]), &headless, &[]);
    let state = mesh(&[&client(), &web, &headless, &empty, &hidden, &endpoint]);
    let source = known(&state, "shop", "client");
    for (hostname, expected) in [
        ("web.shop.svc.cluster.local", "203.0.113.1:80"),
        ("headless.shop.svc.cluster.local", "192.0.2.2:80"),
        ("empty.shop.svc.cluster.local", "no_healthy_upstream"),
        ("hidden.other.svc.cluster.local", "unknown_name"),
        ("example.com", "unknown_name"),
    ] {
        let found = match decide_address(&state, source, hostname, 80, &mut || 0) {
            Ok(address) => address.to_string(),
            Err(refusal) => refusal.reason().to_owned(),
        };
        assert_eq!(found, expected, "{hostname}");
    }
}

#[test]
fn another_endpoint_is_of_the_same_service_or_there_is_none() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    let single = service("shop", "single", "203.0.113.2", &[(80, 8080)]);
    let waypoints = service("shop", "waypoint", "203.0.113.9", &[(15008, 15008)]);
    let mut behind = service("shop", "behind", "203.0.113.3", &[(80, 8080)]);
    behind.waypoint = gateway_named("shop", "waypoint.shop.svc.cluster.local", 15008);
    let state = mesh(&[
        &client(),
        &web,
        &single,
        &waypoints,
        &behind,
        &serving(pod("shop", "web-1", &["192.0.2.2"]), &web, &[]),
        &serving(pod("shop", "web-2", &["192.0.2.3"]), &web, &[]),
        &serving(pod("shop", "single-1", &["192.0.2.4"]), &single, &[]),
        &serving(pod("shop", "waypoint-1", &["192.0.2.5"]), &waypoints, &[]),
        &serving(pod("shop", "waypoint-2", &["192.0.2.6"]), &waypoints, &[]),
    ]);
    let source = known(&state, "shop", "client");
    for (id, dialled, first, second) in [
        (
            "a service of two",
            "203.0.113.1:80",
            "hbone 192.0.2.2:15008 for 192.0.2.2:8080 web",
            Some("hbone 192.0.2.3:15008 for 192.0.2.3:8080 web"),
        ),
        (
            "two waypoints",
            "203.0.113.3:80",
            "hbone 192.0.2.5:15008 for 203.0.113.3:80 behind",
            Some("hbone 192.0.2.6:15008 for 203.0.113.3:80 behind"),
        ),
        (
            "a service of one",
            "203.0.113.2:80",
            "hbone 192.0.2.4:15008 for 192.0.2.4:8080 single",
            None,
        ),
        (
            "a pod",
            "192.0.2.2:8080",
            "hbone 192.0.2.2:15008 for 192.0.2.2:8080 -",
            None,
        ),
        ("an unknown address", "8.8.8.8:53", "passthrough 8.8.8.8:53", None),
    ] {
        let dialled = dialled.parse().unwrap();
        let failed = decide_upstream(&state, source, dialled, &mut || 0).unwrap();
        assert_eq!(describe(&failed), first, "{id}");
        let another = decide_another(&state, source, dialled, &failed, &mut || 0);
        assert_eq!(another.as_ref().map(describe).as_deref(), second, "{id}");
    }
}
