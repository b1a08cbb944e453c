//! What is refused at the door, what empty fields mean, and how the mesh looks in a dump.

use super::*;

fn rejection(resource: &dyn ToNamed) -> String {
    let applied = apply(&mut writer(), &[resource]);
    assert_eq!((applied.accepted, applied.is_changed), (0, false));
    applied.error_detail().unwrap()
}

#[test]
fn a_workload_that_is_not_valid_is_refused_with_its_field() {
    let valid = || pod("shop", "a", &["192.0.2.1"]);
    let tunnel = |protocol, port| Some(wire::ApplicationTunnel { protocol, port });
    let port = |service_port, target_port| {
        let ports = vec![wire::Port {
            service_port,
            target_port,
            app_protocol: 0,
        }];
        [("shop/a".to_owned(), wire::PortList { ports })].into()
    };
    let nowhere = || {
        Some(wire::GatewayAddress {
            destination: None,
            hbone_mtls_port: 15008,
        })
    };
    let short = Some(wire::GatewayAddress {
        destination: Some(Destination::Address(wire::NetworkAddress::default())),
        hbone_mtls_port: 15008,
    });
    for (id, workload, expected) in [
        (
            "address",
            wire::Workload {
                addresses: vec![vec![1, 2, 3]],
                ..valid()
            },
            "addresses: 3 bytes",
        ),
        (
            "no uid",
            wire::Workload {
                uid: String::new(),
                ..valid()
            },
            "uid: empty",
        ),
        (
            "namespace",
            wire::Workload {
                namespace: "a/b".to_owned(),
                ..valid()
            },
            "namespace: \"a/b\"",
        ),
        (
            "tunnel",
            wire::Workload {
                tunnel_protocol: 9,
                ..valid()
            },
            "tunnel_protocol: unknown value 9",
        ),
        (
            "legacy tunnel",
            wire::Workload {
                tunnel_protocol: 2,
                ..valid()
            },
            "tunnel_protocol: LEGACY_ISTIO_MTLS",
        ),
        (
            "network mode",
            wire::Workload {
                network_mode: 9,
                ..valid()
            },
            "network_mode: unknown value 9",
        ),
        (
            "status",
            wire::Workload { status: 9, ..valid() },
            "status: unknown value 9",
        ),
        (
            "tunnel protocol",
            wire::Workload {
                application_tunnel: tunnel(9, 0),
                ..valid()
            },
            "application_tunnel.protocol",
        ),
        (
            "tunnel port",
            wire::Workload {
                application_tunnel: tunnel(0, 65536),
                ..valid()
            },
            "application_tunnel.port: 65536",
        ),
        (
            "waypoint",
            wire::Workload {
                waypoint: nowhere(),
                ..valid()
            },
            "waypoint: no destination",
        ),
        (
            "gateway",
            wire::Workload {
                network_gateway: short,
                ..valid()
            },
            "network_gateway: 0 bytes",
        ),
        (
            "service port",
            wire::Workload {
                services: port(70000, 1),
                ..valid()
            },
            "services: 70000 is no port",
        ),
        (
            "target port",
            wire::Workload {
                services: port(1, 70000),
                ..valid()
            },
            "services: 70000 is no port",
        ),
        (
            "service key",
            wire::Workload {
                services: [("web".to_owned(), wire::PortList::default())].into(),
                ..valid()
            },
            "services: \"web\" is not namespace/hostname",
        ),
    ] {
        let detail = rejection(&workload);
        assert!(
            detail.contains(&format!("{}: {expected}", workload.uid)),
            "{id}: {detail}"
        );
    }
}

#[test]
fn a_service_that_is_not_valid_is_refused_with_its_field() {
    let valid = || service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    let address = |address: &str, length| {
        vec![wire::NetworkAddress {
            address: bytes(address),
            length,
            ..Default::default()
        }]
    };
    let balanced = |mode, scope, health_policy| {
        Some(wire::LoadBalancing {
            mode,
            routing_preference: vec![scope],
            health_policy,
        })
    };
    let weighted = vec![wire::WeightedWaypoint {
        destination: None,
        weight: 1,
    }];
    for (id, service, expected) in [
        (
            "prefix",
            wire::Service {
                addresses: address("203.0.113.0", Some(33)),
                ..valid()
            },
            "addresses: 33 is no prefix",
        ),
        (
            "IPv6 prefix",
            wire::Service {
                addresses: address("2001:db8::", Some(129)),
                ..valid()
            },
            "addresses: 129",
        ),
        (
            "mapped prefix",
            wire::Service {
                addresses: address("::ffff:203.0.113.0", Some(24)),
                ..valid()
            },
            "addresses: 24",
        ),
        (
            "port",
            wire::Service {
                ports: ports(&[(80, 70000)]),
                ..valid()
            },
            "ports: 70000 is no port",
        ),
        (
            "families",
            wire::Service {
                ip_families: 9,
                ..valid()
            },
            "ip_families: unknown value 9",
        ),
        (
            "mode",
            wire::Service {
                load_balancing: balanced(9, 1, 0),
                ..valid()
            },
            "load_balancing.mode",
        ),
        (
            "scope",
            wire::Service {
                load_balancing: balanced(0, 9, 0),
                ..valid()
            },
            "load_balancing.routing_preference",
        ),
        (
            "no scope",
            wire::Service {
                load_balancing: balanced(0, 0, 0),
                ..valid()
            },
            "load_balancing.routing_preference",
        ),
        (
            "health",
            wire::Service {
                load_balancing: balanced(0, 1, 9),
                ..valid()
            },
            "load_balancing.health_policy",
        ),
        (
            "weighted",
            wire::Service {
                weighted_waypoints: weighted,
                ..valid()
            },
            "weighted_waypoints.destination",
        ),
        (
            "namespace",
            wire::Service {
                namespace: "a/b".to_owned(),
                ..valid()
            },
            "namespace: \"a/b\"",
        ),
    ] {
        let detail = rejection(&service);
        assert!(detail.contains(expected), "{id}: {detail}");
    }
}

#[test]
fn an_address_that_is_neither_is_refused_and_its_neighbours_are_taken() {
    let good = pod("shop", "a", &["192.0.2.1"]).named();
    let resources = [
        ("empty".to_owned(), vec![]),
        good,
        ("garbage".to_owned(), vec![0xff, 0xff]),
    ];
    let applied = writer().apply_addresses(&as_resources(&resources), &[]);
    assert_eq!(applied.accepted, 1);
    let detail = applied.error_detail().unwrap();
    let expected = "empty: the address is neither a workload nor a service; garbage: not a valid message: ";
    assert!(detail.starts_with(expected), "{detail}");
}

#[test]
fn unknown_visibility_and_workload_type_are_tolerated() {
    let odd_service = wire::Service {
        visibility: 9,
        ..service("shop", "web", "203.0.113.1", &[])
    };
    let odd_pod = wire::Workload {
        workload_type: 9,
        ..pod("shop", "a", &["192.0.2.1"])
    };
    let state = mesh(&[&odd_service, &odd_pod]);
    assert!(state.services().all(|s| !s.is_namespace_private));
    assert_eq!(known(&state, "shop", "a").profile.workload_type, WorkloadType::Pod);
}

#[test]
fn empty_fields_stand_for_their_defaults() {
    let state = mesh(&[&pod("shop", "a", &["::ffff:192.0.2.1"])]);
    let workload = known(&state, "shop", "a");
    assert_eq!(
        workload.identity().unwrap().to_string(),
        "spiffe://cluster.local/ns/shop/sa/default"
    );
    assert_eq!((&*workload.place.cluster, workload.capacity), ("Kubernetes", 1));
    assert_eq!(workload.addresses(), [ip("192.0.2.1")]);
}

#[test]
fn a_workload_whose_parts_form_no_identity_has_none() {
    let gateway = wire::Workload {
        uid: "NetworkGateway/far".to_owned(),
        ..pod("", "gateway", &["192.0.2.1"])
    };
    let state = mesh(&[&gateway]);
    let workload = state.workload("NetworkGateway/far").unwrap();
    assert_eq!((workload.identity(), workload.name()), (None, "gateway"));
}

#[test]
fn the_dump_has_the_names_that_tools_parse() {
    let mut web = service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    web.load_balancing = load_balancing(Mode::Failover, &[crate::testing::Scope::Zone]);
    web.waypoint = gateway_at("", "192.0.2.9");
    let mut writer = writer();
    let gone = service("shop", "gone", "203.0.113.2", &[]);
    apply(
        &mut writer,
        &[
            &web,
            &serving(serving(pod("shop", "a", &["192.0.2.1"]), &web, &[(80, 81)]), &gone, &[]),
        ],
    );
    let principals = vec![crate::wire::security::StringMatch {
        match_type: Some(crate::wire::security::string_match::MatchType::Presence(())),
    }];
    let entry = crate::wire::security::Match {
        not_principals: principals,
        ..Default::default()
    };
    let clause = crate::wire::security::Clause { matches: vec![entry] };
    let rule = crate::wire::security::Rule { clauses: vec![clause] };
    let policy = crate::wire::security::Authorization {
        name: "strict".to_owned(),
        namespace: "shop".to_owned(),
        action: 1,
        rules: vec![rule],
        ..Default::default()
    };
    apply_policies(&mut writer, &[policy]);
    let dump = serde_json::to_value(ConfigDump(&writer.snapshot())).unwrap();
    let key = "shop/web.shop.svc.cluster.local";
    let endpoint = serde_json::json!({
        "cluster//Pod/shop/a": { "workloadUid": "cluster//Pod/shop/a", "port": { "80": 81 }, "status": "Healthy" }
    });
    assert_eq!(
        dump["services"][0],
        serde_json::json!({
            "name": "web", "namespace": "shop", "hostname": "web.shop.svc.cluster.local", "vips": ["/203.0.113.1"],
            "ports": { "80": 8080 }, "endpoints": endpoint, "visibility": "Public",
            "waypoint": { "destination": "/192.0.2.9", "hboneMtlsPort": 15008 },
            "loadBalancer": { "routingPreferences": ["Zone"], "mode": "Failover", "healthPolicy": "OnlyHealthy" },
        })
    );
    let workload = &dump["workloads"][0];
    assert_eq!(workload["workloadIps"], serde_json::json!(["192.0.2.1"]));
    assert_eq!(workload["protocol"], "HBONE");
    assert_eq!(workload["services"][key], serde_json::json!({ "80": 81 }));
    assert_eq!(workload.get("hostname"), None);
    assert_eq!(
        dump["policies"][0]["rules"],
        serde_json::json!([[[{ "notPrincipals": ["Presence"] }]]])
    );
    assert_eq!(dump["policies"][0]["scope"], "Global");
    let staged = dump["stagedServices"].as_object().unwrap();
    assert_eq!(staged.keys().collect::<Vec<_>>(), ["shop/gone.shop.svc.cluster.local"]);
}
