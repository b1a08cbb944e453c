use proptest::prelude::*;

use super::*;
use crate::testing::*;
use crate::wire::workload as wire;

mod conversion;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn vip_owner<'a>(state: &'a MeshState, address: &str, namespace: Option<&str>) -> Option<&'a str> {
    state.service_by_vip("", ip(address), namespace).map(|s| &*s.name)
}

fn names<'a>(workloads: impl Iterator<Item = &'a Arc<Workload>>) -> Vec<&'a str> {
    workloads.map(|w| w.name()).collect()
}

#[test]
fn of_several_claimants_of_an_address_the_best_is_found_and_the_next_takes_over() {
    let entry = wire::Workload {
        uid: "cluster/WorkloadEntry/a".to_owned(),
        ..pod("shop", "entry", &["192.0.2.2"])
    };
    let plain = wire::Workload {
        tunnel_protocol: 0,
        ..pod("shop", "a-plain", &["192.0.2.2"])
    };
    let hbone = pod("shop", "b-hbone", &["192.0.2.2", "2001:db8::2"]);
    let other_network = wire::Workload {
        network: "far".to_owned(),
        ..pod("shop", "0-far", &["192.0.2.2"])
    };
    let host = wire::Workload {
        network_mode: 1,
        ..pod("shop", "0-host", &["192.0.2.2"])
    };
    let mut writer = writer();
    apply(&mut writer, &[&entry, &plain, &hbone, &other_network, &host]);
    let owner = |writer: &MeshWriter| {
        writer
            .snapshot()
            .workload_by_ip("", ip("::ffff:192.0.2.2"))
            .map(|w| w.name().to_owned())
    };
    for expected in [Some("b-hbone"), Some("a-plain"), Some("entry"), None] {
        let found = owner(&writer);
        assert_eq!(found.as_deref(), expected);
        let uid = match found.as_deref() {
            Some("entry") => entry.uid.clone(),
            name => format!("cluster//Pod/shop/{}", name.unwrap_or_default()),
        };
        writer.apply_addresses(&[], &[uid]);
    }
    let state = writer.snapshot();
    assert_eq!(
        state.workload_by_ip("far", ip("192.0.2.2")).map(|w| w.name()),
        Some("0-far")
    );
    assert!(state.workload_by_ip("", ip("2001:db8::2")).is_none());
}

#[test]
fn services_that_share_an_address_do_not_lose_it_with_one_another() {
    let [a, b] = ["a", "b"].map(|name| service("shop", name, "203.0.113.1", &[(80, 80)]));
    let mut writer = writer();
    apply(&mut writer, &[&a, &b]);
    assert_eq!(vip_owner(&writer.snapshot(), "203.0.113.1", Some("shop")), Some("a"));
    let moved = service("shop", "a", "203.0.113.2", &[(80, 80)]);
    apply(&mut writer, &[&moved]);
    assert_eq!(vip_owner(&writer.snapshot(), "203.0.113.1", Some("shop")), Some("b"));
    writer.apply_addresses(&[], &["shop/b.shop.svc.cluster.local".to_owned()]);
    assert_eq!(vip_owner(&writer.snapshot(), "203.0.113.1", Some("shop")), None);
    assert_eq!(vip_owner(&writer.snapshot(), "203.0.113.2", Some("shop")), Some("a"));
}

#[test]
fn services_are_ranked_by_namespace_then_canonical_then_key() {
    let of = |namespace: &str| service(namespace, namespace, "203.0.113.1", &[]);
    let canonical = wire::Service {
        canonical: true,
        ..of("c")
    };
    let private = wire::Service {
        visibility: 1,
        ..of("private")
    };
    let state = mesh(&[&of("a"), &of("b"), &canonical, &private]);
    for (id, namespace, expected) in [
        ("the client's own", Some("b"), Some("b")),
        ("the canonical one", Some("elsewhere"), Some("c")),
        ("a private one, in its namespace", Some("private"), Some("private")),
        ("without a namespace", None, Some("c")),
    ] {
        assert_eq!(vip_owner(&state, "203.0.113.1", namespace), expected, "{id}");
    }
    let only_private = mesh(&[&private]);
    assert_eq!(vip_owner(&only_private, "203.0.113.1", Some("shop")), None);
    assert_eq!(vip_owner(&only_private, "203.0.113.1", None), Some("private"));
    assert!(state.service_by_vip("far", ip("203.0.113.1"), None).is_none());
}

#[test]
fn hostnames_are_ranked_as_addresses_are() {
    let of = |namespace: &str| wire::Service {
        hostname: "api.example.com".to_owned(),
        ..service(namespace, namespace, "203.0.113.1", &[])
    };
    let state = mesh(&[&of("a"), &of("b"), &of("c")]);
    let found = |client, preferred| {
        state
            .service_by_hostname("api.example.com", client, preferred)
            .map(|s| &*s.name)
    };
    assert_eq!(found(Some("b"), Some("c")), Some("b"));
    assert_eq!(found(Some("x"), Some("c")), Some("c"));
    assert_eq!(found(Some("x"), None), Some("a"));
    assert!(state.service_by_hostname("other.example.com", None, None).is_none());
}

#[test]
fn the_longest_range_is_found_and_none_lingers() {
    let range = |name: &str, address: &str, length| {
        let mut service = service("shop", name, address, &[]);
        service.addresses[0].length = Some(length);
        service
    };
    let mut writer = writer();
    let wide = range("wide", "203.0.113.77", 24);
    let narrow = range("narrow", "203.0.113.16", 28);
    let exact = range("exact", "203.0.113.17", 32);
    let v6 = range("v6", "2001:db8::", 32);
    let foreign = wire::Service {
        namespace: "other".to_owned(),
        ..range("foreign", "203.0.113.16", 30)
    };
    apply(&mut writer, &[&wide, &narrow, &exact, &v6, &foreign]);
    let state = writer.snapshot();
    for (id, address, expected) in [
        ("exact", "203.0.113.17", Some("exact")),
        (
            "the client's namespace before the longer one",
            "203.0.113.18",
            Some("narrow"),
        ),
        ("narrow", "203.0.113.31", Some("narrow")),
        ("wide", "203.0.113.32", Some("wide")),
        ("outside", "203.0.112.1", None),
        ("other family", "2001:db8:1::1", Some("v6")),
    ] {
        assert_eq!(vip_owner(&state, address, Some("shop")), expected, "{id}");
    }
    assert_eq!(vip_owner(&state, "203.0.113.18", None), Some("foreign"));
    apply(&mut writer, &[&range("narrow", "198.51.100.0", 28)]);
    assert_eq!(
        vip_owner(&writer.snapshot(), "203.0.113.31", Some("shop")),
        Some("wide")
    );
    let keys: Vec<_> = writer.snapshot().services().map(|s| s.key.to_string()).collect();
    writer.apply_addresses(&[], &keys);
    let empty = writer.snapshot();
    assert!(empty.cidr_lengths.is_empty() && empty.services_by_cidr.is_empty() && empty.services_by_vip.is_empty());
}

#[test]
fn endpoints_wait_for_their_service_and_leave_with_their_workload() {
    let web = service("shop", "web", "203.0.113.1", &[(80, 8080)]);
    let key = ServiceKey::new("shop", &web.hostname);
    let mut writer = writer();
    apply(&mut writer, &[&serving(pod("shop", "a", &["192.0.2.1"]), &web, &[])]);
    apply(
        &mut writer,
        &[&web, &serving(pod("shop", "b", &["192.0.2.2"]), &web, &[])],
    );
    assert_eq!(names(writer.snapshot().endpoints(&key)), ["a", "b"]);
    apply(&mut writer, &[&pod("shop", "a", &["192.0.2.1"])]);
    assert_eq!(names(writer.snapshot().endpoints(&key)), ["b"]);
    let changed = wire::Service {
        canonical: true,
        ..web.clone()
    };
    apply(&mut writer, &[&changed]);
    assert_eq!(names(writer.snapshot().endpoints(&key)), ["b"]);
    writer.apply_addresses(&[], &["cluster//Pod/shop/b".to_owned()]);
    assert_eq!(writer.snapshot().endpoints(&key).len(), 0);
}

#[test]
fn what_readers_hold_does_not_change() {
    let mut writer = writer();
    apply(&mut writer, &[&pod("shop", "a", &["192.0.2.1"])]);
    let held = writer.snapshot();
    let before = format!("{held:?}");
    apply(
        &mut writer,
        &[&pod("shop", "a", &["192.0.2.9"]), &pod("shop", "b", &["192.0.2.2"])],
    );
    writer.apply_addresses(&[], &["cluster//Pod/shop/a".to_owned()]);
    assert_eq!(format!("{held:?}"), before);
}

#[test]
fn local_workloads_are_those_of_this_node() {
    let elsewhere = wire::Workload {
        node: "node-2".to_owned(),
        ..pod("shop", "b", &["192.0.2.2"])
    };
    let state = mesh(&[&pod("shop", "a", &["192.0.2.1"]), &elsewhere]);
    assert_eq!(
        state.local_workload("shop", "a", "default").map(|w| w.name()),
        Some("a")
    );
    assert!(state.local_workload("shop", "a", "other").is_none());
    assert!(state.local_workload("shop", "b", "default").is_none());
    let mut everywhere = MeshWriter::new(MeshSettings::default());
    apply(&mut everywhere, &[&elsewhere]);
    assert!(everywhere.snapshot().local_workload("shop", "b", "default").is_some());
}

#[test]
fn certificates_are_wanted_for_local_workloads_of_the_mesh_and_forgotten_with_the_last() {
    let of = |name: &str, account: &str| wire::Workload {
        service_account: account.to_owned(),
        ..pod("shop", name, &["192.0.2.1"])
    };
    let plain = wire::Workload {
        tunnel_protocol: 0,
        ..of("plain", "plain")
    };
    let elsewhere = wire::Workload {
        node: "node-2".to_owned(),
        ..of("far", "far")
    };
    let accounts = |identities: &[crate::identity::Identity]| {
        identities
            .iter()
            .map(|i| i.service_account().to_owned())
            .collect::<Vec<_>>()
    };
    let mut writer = writer();
    let applied = apply(&mut writer, &[&of("a", "web"), &of("b", "web"), &plain, &elsewhere]);
    assert_eq!(accounts(&applied.wanted_identities), ["web"]);
    let applied = writer.apply_addresses(&[], &["cluster//Pod/shop/a".to_owned()]);
    assert_eq!(
        (applied.wanted_identities.len(), applied.forgotten_identities.len()),
        (0, 0)
    );
    let applied = apply(&mut writer, &[&of("b", "other")]);
    assert_eq!(accounts(&applied.wanted_identities), ["other"]);
    assert_eq!(accounts(&applied.forgotten_identities), ["web"]);
}

#[test]
fn removals_come_last_and_unknown_ones_are_told() {
    let mut writer = writer();
    let named = [pod("shop", "a", &["192.0.2.1"]).named()];
    let removed = ["cluster//Pod/shop/a", "shop/gone.example.com", "cluster//Pod/shop/gone"].map(str::to_owned);
    let applied = writer.apply_addresses(&as_resources(&named), &removed);
    assert_eq!((applied.accepted, applied.removed), (1, 1));
    assert_eq!(applied.unknown_removals, removed[1..]);
    assert_eq!(writer.snapshot().workloads().len(), 0);
    assert_eq!(writer.versions(ResourceType::Address).count(), 0);
}

#[test]
fn versions_are_those_of_accepted_resources() {
    let mut writer = writer();
    let (name, value) = pod("shop", "a", &["192.0.2.1"]).named();
    let resource = |version, value| Resource {
        name: &name,
        version,
        value,
    };
    assert!(
        writer
            .apply_addresses(&[resource("1", Some(&value[..]))], &[])
            .is_changed
    );
    assert!(
        !writer
            .apply_addresses(&[resource("2", Some(&value[..]))], &[])
            .is_changed
    );
    let applied = writer.apply_addresses(&[resource("3", Some(&[0xff][..])), resource("4", None)], &[]);
    assert_eq!(
        (applied.accepted, applied.rejected.len(), applied.is_changed),
        (0, 2, false)
    );
    assert_eq!(
        writer.versions(ResourceType::Address).collect::<Vec<_>>(),
        [(&*name, "2".to_owned())]
    );
    assert_eq!(writer.snapshot().workloads().len(), 1);
    assert_eq!(writer.versions(ResourceType::Authorization).count(), 0);
}

#[test]
fn pods_of_a_deployment_share_what_they_have_in_common() {
    let state = mesh(&[&pod("shop", "a", &["192.0.2.1"]), &pod("shop", "b", &["192.0.2.2"])]);
    let [a, b] = ["a", "b"].map(|name| known(&state, "shop", name));
    assert!(Arc::ptr_eq(&a.profile, &b.profile) && Arc::ptr_eq(&a.place, &b.place));
}

/// A mesh small enough that random changes meet each other: names, addresses and services are shared.
fn resource(index: usize, variant: usize) -> Named {
    let web = |n: usize| {
        let mut service = service("shop", &format!("web-{n}"), "203.0.113.1", &[(80, 8080)]);
        service.addresses[0].length = (n == 0).then_some(24);
        service
    };
    match index {
        0..4 => {
            let name = format!("pod-{index}");
            let mut workload = pod("shop", &name, &[["192.0.2.1", "192.0.2.2"][variant % 2]]);
            (workload.hostname, workload.network_mode) = ("same.example.com".to_owned(), i32::from(variant == 3));
            workload = serving(workload, &web(variant % 3), &[(80, variant as u32)]);
            workload.named()
        }
        _ => wire::Service {
            canonical: variant.is_multiple_of(2),
            ip_families: variant as i32,
            ..web(index - 4)
        }
        .named(),
    }
}

proptest! {
    #[test]
    fn order_and_batching_do_not_matter(
        batches in prop::collection::vec(prop::collection::vec((0..7usize, 0..4usize, any::<bool>()), 0..6), 0..8),
        reversed in any::<bool>(),
    ) {
        let mut writer = writer();
        let mut left = std::collections::BTreeMap::new();
        for batch in &batches {
            let updates: Vec<_> = batch.iter().filter(|op| op.2).map(|op| resource(op.0, op.1)).collect();
            let removals: Vec<_> = batch.iter().filter(|op| !op.2).map(|op| resource(op.0, op.1).0).collect();
            prop_assert_eq!(writer.apply_addresses(&as_resources(&updates), &removals).rejected.len(), 0);
            left.extend(updates);
            removals.iter().for_each(|name| { left.remove(name); });
        }
        let mut expected: Vec<_> = left.into_iter().collect();
        if reversed {
            expected.reverse();
        }
        let mut at_once = MeshWriter::new(writer.snapshot().settings().clone());
        at_once.apply_addresses(&as_resources(&expected), &[]);
        prop_assert_eq!(format!("{:?}", writer.snapshot()), format!("{:?}", at_once.snapshot()));
    }

    #[test]
    fn no_bytes_make_it_panic(value in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut writer = writer();
        let applied = writer.apply_addresses(&as_resources(&[("name".to_owned(), value)]), &[]);
        prop_assert_eq!(applied.accepted + applied.rejected.len(), 1);
    }

    #[test]
    fn no_damage_to_a_resource_makes_it_panic(at in 0..400usize, byte in any::<u8>(), index in 0..7usize) {
        let (name, mut value) = resource(index, 1);
        let at = at % value.len();
        value[at] = byte;
        let mut writer = writer();
        let applied = writer.apply_addresses(&as_resources(&[(name, value)]), &[]);
        prop_assert_eq!(applied.accepted + applied.rejected.len(), 1);
        serde_json::to_string(&ConfigDump(&writer.snapshot())).unwrap();
    }
}
