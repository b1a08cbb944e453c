use super::*;
use crate::hbone::Authority;
use crate::inbound::decide_target;
use crate::testing::*;
use crate::upstream::decide_upstream;
use crate::wire::workload as wire;

fn client() -> wire::Workload {
    pod("shop", "client", &["192.0.2.1"])
}

fn with_waypoint(name: &str, vip: &str, waypoint: Option<wire::GatewayAddress>) -> wire::Service {
    wire::Service {
        waypoint,
        ..service("shop", name, vip, &[(80, 80)])
    }
}

#[test]
fn an_outbound_decision_lacks_what_it_could_not_look_up() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 80)]);
    let mut open = service("shop", "open", "203.0.113.2", &[(80, 80)]);
    open.load_balancing = load_balancing(Mode::Passthrough, &[]);
    let by_name = with_waypoint(
        "by-name",
        "203.0.113.3",
        gateway_named("east", "way.east.svc.cluster.local", 15008),
    );
    let by_address = with_waypoint("by-address", "203.0.113.4", gateway_at("", "192.0.2.77"));
    let mut far = serving(pod("shop", "far", &["198.51.100.1"]), &web, &[]);
    far.network = "far".to_owned();
    far.network_gateway = gateway_at("far", "198.51.100.77");
    let server = pod("shop", "server", &["192.0.2.2"]);
    let state = mesh(&[&client(), &web, &open, &by_name, &by_address, &far, &server]);
    for (id, dialled, expected) in [
        ("nothing is known of it", "8.8.8.8:53", Some("/8.8.8.8")),
        ("in IPv6's form", "[::ffff:8.8.8.8]:53", Some("/8.8.8.8")),
        ("IPv6", "[2001:db8::9]:53", Some("/2001:db8::9")),
        ("a workload", "192.0.2.2:80", None),
        ("a service that passes through", "203.0.113.2:80", None),
        (
            "a waypoint's name",
            "203.0.113.3:80",
            Some("east/way.east.svc.cluster.local"),
        ),
        ("a waypoint's address", "203.0.113.4:80", Some("/192.0.2.77")),
        ("a gateway's address", "203.0.113.1:80", Some("far/198.51.100.77")),
        (
            "a port that there is not",
            "203.0.113.3:81",
            Some("east/way.east.svc.cluster.local"),
        ),
    ] {
        let (source, dialled) = (known(&state, "shop", "client"), dialled.parse().unwrap());
        let decided = decide_upstream(&state, source, dialled, &mut || 0);
        assert_eq!(
            missing_outbound(&state, source, dialled, &decided).as_deref(),
            expected,
            "{id}"
        );
    }
}

#[test]
fn an_inbound_decision_lacks_what_it_may_serve() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 80)]);
    let server = serving(pod("shop", "server", &["192.0.2.2"]), &web, &[(80, 8080)]);
    let state = mesh(&[&server]);
    let workload = known(&state, "shop", "server");
    for (id, authority, expected) in [
        ("somebody's address", "203.0.113.7:80", Some("/203.0.113.7")),
        (
            "a service of its own",
            "web.shop.svc.cluster.local:80",
            Some("shop/web.shop.svc.cluster.local"),
        ),
        ("a service that is not its own", "db.shop.svc.cluster.local:80", None),
        ("a port of ours", "192.0.2.2:15008", None),
    ] {
        let authority: Authority = authority.parse().unwrap();
        let refusal = decide_target(&state, workload, "192.0.2.2".parse().unwrap(), &authority).unwrap_err();
        assert_eq!(missing_inbound(workload, &refusal).as_deref(), expected, "{id}");
    }
}
