use super::*;
use crate::testing::*;
use crate::wire::workload as wire;

const LOCAL: &str = "192.0.2.2";

/// What `shop/<name>` answers to a CONNECT for `authority` that came to `local`.
fn decide(state: &MeshState, name: &str, local: &str, authority: &str) -> String {
    let workload = known(state, "shop", name);
    match decide_target(state, workload, local.parse().unwrap(), &authority.parse().unwrap()) {
        Ok(InboundTarget {
            application,
            proxy_header: None,
            ..
        }) => application.to_string(),
        Ok(InboundTarget {
            application,
            proxy_header: Some(header),
            ..
        }) => format!("{application} header {}", header.address),
        Err(refusal) => format!("{} {}", refusal.status(), refusal.reason()),
    }
}

fn tunnel(mut workload: wire::Workload, protocol: wire::application_tunnel::Protocol, port: u32) -> wire::Workload {
    workload.application_tunnel = Some(wire::ApplicationTunnel {
        protocol: protocol as i32,
        port,
    });
    workload
}

#[test]
fn a_pod_serves_its_own_address_and_its_services() {
    let web = service(
        "shop",
        "web",
        "203.0.113.1",
        &[(80, 8080), (81, 0), (82, 0), (83, 15001)],
    );
    let mut hidden = service("other", "hidden", "203.0.113.2", &[(80, 80)]);
    hidden.visibility = wire::service::Visibility::Namespace as i32;
    let server = serving(pod("shop", "server", &[LOCAL]), &web, &[(81, 8181)]);
    let state = mesh(&[&web, &hidden, &server, &pod("shop", "other", &["192.0.2.3"])]);
    for (id, authority, expected) in [
        ("its address", "192.0.2.2:8080", "192.0.2.2:8080"),
        (
            "its address in IPv6's form",
            "[::ffff:192.0.2.2]:8080",
            "192.0.2.2:8080",
        ),
        ("another address", "192.0.2.3:8080", "400 address_mismatch"),
        ("an unknown address", "192.0.2.77:8080", "400 address_mismatch"),
        ("loopback", "127.0.0.1:8080", "400 address_mismatch"),
        (
            "its service's address, without being its waypoint",
            "203.0.113.1:80",
            "400 address_mismatch",
        ),
        ("capture port", "192.0.2.2:15001", "503 illegal_port"),
        ("plaintext port", "192.0.2.2:15006", "503 illegal_port"),
        ("HBONE port", "192.0.2.2:15008", "503 illegal_port"),
        ("its service by name", "web.shop.svc.cluster.local:80", "192.0.2.2:8080"),
        ("a named port", "web.shop.svc.cluster.local:81", "192.0.2.2:8181"),
        (
            "a named port that it does not resolve",
            "web.shop.svc.cluster.local:82",
            "503 no_service_port",
        ),
        (
            "a service port that leads to capture",
            "web.shop.svc.cluster.local:83",
            "503 illegal_port",
        ),
        (
            "a port that the service does not have",
            "web.shop.svc.cluster.local:99",
            "503 no_service_port",
        ),
        (
            "an unknown service",
            "gone.shop.svc.cluster.local:80",
            "503 unknown_service",
        ),
        (
            "a service that it cannot see",
            "hidden.other.svc.cluster.local:80",
            "503 unknown_service",
        ),
    ] {
        assert_eq!(decide(&state, "server", LOCAL, authority), expected, "{id}");
    }
}

#[test]
fn a_waypoint_serves_what_names_it() {
    let waypoint_service = service("shop", "waypoint", "203.0.113.9", &[(15008, 15008)]);
    let waypoint = serving(pod("shop", "waypoint", &["192.0.2.9"]), &waypoint_service, &[]);
    let by_name = gateway_named("shop", "waypoint.shop.svc.cluster.local", 15008);
    let attached = |name: &str, ip: &str, waypoint| wire::Workload {
        waypoint,
        ..pod("shop", name, &[ip])
    };
    let behind = |name: &str, vip: &str, waypoint| wire::Service {
        waypoint,
        ..service("shop", name, vip, &[(80, 80)])
    };
    let mut weighted = behind("weighted", "203.0.113.5", None);
    weighted.weighted_waypoints = vec![wire::WeightedWaypoint {
        destination: by_name.clone(),
        weight: 1,
    }];
    let state = mesh(&[
        &waypoint_service,
        &waypoint,
        &attached("by-name", "192.0.2.21", by_name.clone()),
        &attached("by-address", "192.0.2.22", gateway_at("", "192.0.2.9")),
        &attached("by-vip", "192.0.2.23", gateway_at("", "203.0.113.9")),
        &attached("elsewhere", "192.0.2.24", gateway_at("", "192.0.2.99")),
        &attached("nowhere", "192.0.2.25", None),
        &behind("service-by-name", "203.0.113.1", by_name),
        &behind("service-elsewhere", "203.0.113.2", gateway_at("", "192.0.2.99")),
        &weighted,
    ]);
    for (id, authority, expected) in [
        ("workload, by name", "192.0.2.21:80", "192.0.2.9:80"),
        ("workload, by address", "192.0.2.22:80", "192.0.2.9:80"),
        ("workload, by vip", "192.0.2.23:80", "192.0.2.9:80"),
        ("workload of another waypoint", "192.0.2.24:80", "400 address_mismatch"),
        ("workload without waypoint", "192.0.2.25:80", "400 address_mismatch"),
        ("service, by name", "203.0.113.1:80", "192.0.2.9:80"),
        ("service of another waypoint", "203.0.113.2:80", "400 address_mismatch"),
        ("service, weighted", "203.0.113.5:80", "192.0.2.9:80"),
    ] {
        assert_eq!(decide(&state, "waypoint", "192.0.2.9", authority), expected, "{id}");
    }
}

#[test]
fn an_application_tunnel_changes_the_port_and_asks_for_a_header() {
    use wire::application_tunnel::Protocol::{None, Proxy};
    let mut web = service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    let address = bytes("2001:db8:1::1");
    web.addresses.insert(
        0,
        wire::NetworkAddress {
            address,
            ..Default::default()
        },
    );
    let mut headless = service("shop", "headless", "203.0.113.2", &[(80, 8080)]);
    headless.addresses.clear();
    let server = |protocol, port| {
        let server = serving(serving(pod("shop", "server", &[LOCAL]), &web, &[]), &headless, &[]);
        mesh(&[&web, &headless, &tunnel(server, protocol, port)])
    };
    for (id, state, authority, expected) in [
        (
            "none, port of its own",
            server(None, 15088),
            "192.0.2.77:80",
            "192.0.2.2:15088",
        ),
        ("none, port kept", server(None, 0), "192.0.2.77:80", "192.0.2.2:80"),
        (
            "none, by name",
            server(None, 15088),
            "web.shop.svc.cluster.local:99",
            "192.0.2.2:15088",
        ),
        (
            "none, illegal port of its own",
            server(None, 15008),
            "192.0.2.77:80",
            "503 illegal_port",
        ),
        (
            "proxy, address",
            server(Proxy, 15088),
            "192.0.2.77:80",
            "192.0.2.2:15088 header 192.0.2.77:80",
        ),
        (
            "proxy, name",
            server(Proxy, 15088),
            "web.shop.svc.cluster.local:80",
            "192.0.2.2:15088 header 203.0.113.1:80",
        ),
        (
            "proxy, no address",
            server(Proxy, 15088),
            "headless.shop.svc.cluster.local:80",
            "503 no_service_address",
        ),
    ] {
        assert_eq!(decide(&state, "server", LOCAL, authority), expected, "{id}");
    }
}

#[test]
fn plaintext_to_ztunnels_own_ports_is_refused() {
    let socks5 = crate::mesh_state::MeshSettings {
        socks5: true,
        ..settings()
    };
    let (without, with) = (mesh(&[]), mesh_with(socks5, &[]));
    for (dialled, refused, refused_with_socks5) in [
        ("192.0.2.2:8080", false, false),
        ("192.0.2.2:15001", true, true),
        ("192.0.2.2:15006", true, true),
        ("192.0.2.2:15008", true, true),
        ("192.0.2.2:15080", false, true),
    ] {
        let is_refused = |state| check_plaintext(state, dialled.parse().unwrap()).is_err();
        assert_eq!(is_refused(&without), refused, "{dialled}");
        assert_eq!(is_refused(&with), refused_with_socks5, "{dialled} with SOCKS5");
    }
}

#[test]
fn a_connection_is_counted_for_the_service_that_was_asked_for() {
    let a = service("shop", "a", "203.0.113.1", &[(80, 8080)]);
    let b = service("shop", "b", "203.0.113.2", &[(80, 8080), (81, 8181)]);
    let server = serving(serving(pod("shop", "server", &[LOCAL]), &a, &[]), &b, &[(81, 9191)]);
    let state = mesh(&[&a, &b, &server]);
    let guess = |port, asked| guess_service(&state, known(&state, "shop", "server"), port, asked).map(|s| &*s.name);
    assert_eq!(guess(8080, None), Some("a"));
    assert_eq!(guess(8080, Some("b.shop.svc.cluster.local")), Some("b"));
    assert_eq!(guess(8080, Some("unknown.example.com")), Some("a"));
    assert_eq!(guess(9191, Some("a.shop.svc.cluster.local")), Some("b"));
    // The endpoint's own mapping replaces the service's.
    assert_eq!(guess(8181, None), None);
}
