use proptest::prelude::*;

use super::*;
use crate::mesh_state::MeshState;
use crate::testing::{bytes, known, mesh, pod, service, serving};
use crate::wire::workload as wire;

const DOMAIN: &str = "cluster.local";

fn resolver() -> Resolver {
    Resolver {
        domain: DOMAIN.into(),
        preferred_namespace: None,
        ipv6: true,
    }
}

/// A query for an address of `name`, with more records after it.
fn query(name: &str, kind: u16, additional: &[u8]) -> Vec<u8> {
    let mut message = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!additional.is_empty())];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend(additional);
    message
}

const OPT_4096_DO: [u8; 11] = [0, 0, 41, 16, 0, 0, 0, 0x80, 0, 0, 0];

fn external(namespace: &str, hostname: &str, vips: &[&str]) -> wire::Service {
    wire::Service {
        hostname: hostname.to_owned(),
        ..with_vips(service(namespace, "external", "192.0.2.99", &[]), vips)
    }
}

fn with_vips(mut service: wire::Service, vips: &[&str]) -> wire::Service {
    let address = |ip: &&str| wire::NetworkAddress {
        address: bytes(ip),
        ..Default::default()
    };
    service.addresses = vips.iter().map(address).collect();
    service
}

fn state() -> MeshState {
    let headless = with_vips(service("shop", "db", "192.0.2.99", &[(80, 80)]), &[]);
    let mut v4_only = with_vips(
        service("shop", "four", "192.0.2.99", &[]),
        &["192.0.2.4", "2001:db8::4"],
    );
    v4_only.ip_families = wire::IpFamilies::Ipv4Only as i32;
    let mut elsewhere = service("shop", "far", "192.0.2.9", &[]);
    elsewhere.addresses[0].network = "other".to_owned();
    let mut private = external("bank", "private.example.com", &["192.0.2.30"]);
    private.visibility = 1;
    let mut sick = serving(pod("shop", "db-2", &["192.0.2.53"]), &headless, &[(80, 80)]);
    sick.status = 1;
    mesh(&[
        &pod("shop", "client", &["192.0.2.50"]),
        &serving(
            pod("shop", "db-0", &["192.0.2.51", "2001:db8::51"]),
            &headless,
            &[(80, 80)],
        ),
        &serving(pod("shop", "db-1", &["192.0.2.52"]), &headless, &[(80, 80)]),
        &sick,
        &headless,
        &v4_only,
        &elsewhere,
        &private,
        &service("shop", "web", "192.0.2.1", &[]),
        &service("bank", "till", "192.0.2.2", &[]),
        &external("shop", "example.com", &["192.0.2.20", "2001:db8::20"]),
        &external("shop", "*.wild.example.com", &["192.0.2.21"]),
        &external("shop", "one.wild.example.com", &["192.0.2.22"]),
        &external("shop", "without.example.com", &[]),
    ])
}

/// `forward`, or CNAME and sorted addresses.
fn told(resolver: &Resolver, name: &str, kind: QueryType) -> String {
    let state = state();
    let client = known(&state, "shop", "client");
    match resolver.decide(&state, client, name, kind, &mut || 7) {
        Decision::Forward => "forward".to_owned(),
        Decision::Answer(answer) => {
            let mut all: Vec<_> = answer.addresses.iter().map(ToString::to_string).collect();
            all.sort();
            let canonical = answer.canonical.map(|name| format!("{name} -> ")).unwrap_or_default();
            format!("{canonical}{}", all.join(" "))
        }
    }
}

#[test]
fn names_are_answered_as_the_table_says() {
    use QueryType::{V4, V6};
    let rows = [
        ("short", "web", V4, "192.0.2.1"),
        ("with-namespace", "web.shop", V4, "192.0.2.1"),
        ("with-svc", "web.shop.svc", V4, "192.0.2.1"),
        ("full", "web.shop.svc.cluster.local", V4, "192.0.2.1"),
        ("other-namespace-short", "till", V4, "forward"),
        ("other-namespace", "till.bank", V4, "192.0.2.2"),
        ("other-namespace-full", "till.bank.svc.cluster.local", V4, "192.0.2.2"),
        // The resolver of a client adds a search domain to what is short, and to what is full.
        (
            "searched",
            "till.bank.shop.svc.cluster.local",
            V4,
            "till.bank -> 192.0.2.2",
        ),
        (
            "searched-full",
            "till.bank.svc.cluster.local.shop.svc.cluster.local",
            V4,
            "till.bank.svc.cluster.local -> 192.0.2.2",
        ),
        (
            "searched-external",
            "example.com.svc.cluster.local",
            V4,
            "example.com -> 192.0.2.20",
        ),
        (
            "searched-domain",
            "example.com.cluster.local",
            V6,
            "example.com -> 2001:db8::20",
        ),
        ("searched-nothing", "shop.svc.cluster.local", V4, "forward"),
        ("no-such-family", "web", V6, ""),
        ("family-not-allowed", "four", V6, ""),
        ("family-allowed", "four", V4, "192.0.2.4"),
        ("external", "example.com", V4, "192.0.2.20"),
        ("external-v6", "example.com", V6, "2001:db8::20"),
        ("unknown", "example.net", V4, "forward"),
        ("unknown-in-cluster", "gone.shop.svc.cluster.local", V4, "forward"),
        ("wildcard", "a.wild.example.com", V4, "192.0.2.21"),
        ("wildcard-deep", "a.b.wild.example.com", V4, "192.0.2.21"),
        ("wildcard-specific", "one.wild.example.com", V4, "192.0.2.22"),
        ("wildcard-itself", "wild.example.com", V4, "forward"),
        (
            "wildcard-searched",
            "a.wild.example.com.svc.cluster.local",
            V4,
            "192.0.2.21",
        ),
        ("private", "private.example.com", V4, "forward"),
        ("external-without-address", "without.example.com", V4, "forward"),
        ("address-of-other-network", "far", V4, ""),
        ("headless", "db", V4, "192.0.2.51 192.0.2.52"),
        ("headless-v6", "db", V6, "2001:db8::51"),
        ("headless-pod", "db-0.db.shop.svc.cluster.local", V4, "192.0.2.51"),
        ("headless-pod-v6", "db-1.db.shop.svc.cluster.local", V6, ""),
        ("headless-pod-unready", "db-2.db.shop.svc.cluster.local", V4, "forward"),
        (
            "headless-dashed",
            "192-0-2-52.db.shop.svc.cluster.local",
            V4,
            "192.0.2.52",
        ),
        ("headless-stranger", "web-0.db.shop.svc.cluster.local", V4, "forward"),
        (
            "pod-of-service-with-address",
            "client.web.shop.svc.cluster.local",
            V4,
            "forward",
        ),
    ];
    for (id, name, kind, expected) in rows {
        assert_eq!(told(&resolver(), name, kind), expected, "{id}");
    }
}

#[test]
fn without_ipv6_no_such_address_is_told() {
    let resolver = Resolver {
        ipv6: false,
        ..resolver()
    };
    assert_eq!(told(&resolver, "example.com", QueryType::V6), "");
    assert_eq!(told(&resolver, "example.com", QueryType::V4), "192.0.2.20");
}

#[test]
fn only_plain_questions_for_addresses_are_ours() {
    let plain = query("Web.Shop", 1, &[]);
    let Received::Question(question) = parse_query(&plain) else {
        panic!("a question for an address");
    };
    assert_eq!((question.name.as_str(), question.kind), ("web.shop", QueryType::V4));
    let changed = |at: usize, value: u8| {
        let mut message = plain.clone();
        message[at] = value;
        message
    };
    let long = vec!["a".repeat(63); 4].join(".");
    let rows = [
        ("notify", changed(2, 0x20), Received::Other),
        ("update", changed(2, 0x28), Received::Other),
        ("two-questions", changed(5, 2), Received::Other),
        ("answer-inside", changed(7, 1), Received::Other),
        ("compressed-name", changed(12, 0xc0), Received::Other),
        ("dot-in-label", changed(13, b'.'), Received::Other),
        ("class-any", changed(plain.len() - 1, 255), Received::Other),
        ("txt", query("web", 16, &[]), Received::Other),
        ("name-too-long", query(&long, 1, &[]), Received::Other),
        ("trailing-byte", [&*plain, &[0]].concat(), Received::Other),
        ("edns-cut", query("web", 1, &OPT_4096_DO[..10]), Received::Other),
        (
            "edns-version-1",
            query("web", 1, &[0, 0, 41, 16, 0, 0, 1, 0, 0, 0, 0]),
            Received::Other,
        ),
        ("response", changed(2, 0x80), Received::Ignored),
        ("short", plain[..11].to_vec(), Received::Ignored),
    ];
    for (id, message, expected) in rows {
        assert_eq!(parse_query(&message), expected, "{id}");
    }
}

fn reply_to(message: &[u8], canonical: Option<&str>, count: u8, over_udp: bool) -> Vec<u8> {
    let Received::Question(question) = parse_query(message) else {
        panic!("a question for an address");
    };
    let addresses: Vec<_> = (0..count).map(|last| [192, 0, 2, last].into()).collect();
    build_reply(message, &question, canonical, &addresses, over_udp)
}

#[test]
fn an_answer_repeats_the_question_and_says_where_addresses_belong() {
    let message = query("Web.a", 1, &OPT_4096_DO);
    let reply = reply_to(&message, Some("web"), 1, true);
    assert_eq!(reply[..12], [0x12, 0x34, 0x85, 0x80, 0, 1, 0, 2, 0, 0, 0, 1]);
    let records = [
        &message[12..23],
        &[0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 30, 0, 5, 3, b'w', b'e', b'b', 0],
        &[0xc0, 35, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 0],
        &OPT_4096_DO,
    ];
    assert_eq!(reply[12..], records.concat());
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_and_marked() {
    let plain = query("web", 1, &[]);
    for (id, message, over_udp, room, is_cut) in [
        ("udp", plain.clone(), true, 512, true),
        ("edns", query("web", 1, &OPT_4096_DO), true, 1232, true),
        ("tcp", plain, false, 65535, false),
    ] {
        let reply = reply_to(&message, None, 200, over_udp);
        assert!(
            reply.len() <= room && reply.len() + 16 > room.min(3200),
            "{id}: {}",
            reply.len()
        );
        assert_eq!(reply[2] & 2 != 0, is_cut, "{id}");
        assert_eq!(u16::from_be_bytes([reply[6], reply[7]]) == 200, !is_cut, "{id}");
    }
}

#[test]
fn only_the_answer_to_this_very_query_is_believed() {
    let asked = query("web.example", 1, &[]);
    let changed = |changes: &[(usize, u8)]| {
        let mut reply = asked.clone();
        reply[2] |= 0x80;
        changes.iter().for_each(|&(at, value)| reply[at] = value);
        reply
    };
    let without_question = |code| changed(&[(3, code), (5, 0)])[..12].to_vec();
    let rows = [
        ("same", changed(&[]), true),
        ("other-case", changed(&[(13, b'W')]), true),
        ("nxdomain", changed(&[(3, 3)]), true),
        ("format-error-without-question", without_question(1), true),
        ("success-without-question", without_question(0), false),
        ("other-id", changed(&[(1, 0x35)]), false),
        ("query", changed(&[(2, 1)]), false),
        ("other-name", changed(&[(13, b'v')]), false),
        ("other-type", changed(&[(asked.len() - 3, 28)]), false),
        ("other-opcode", changed(&[(2, 0xa0)]), false),
        ("cut", changed(&[])[..20].to_vec(), false),
        ("empty", Vec::new(), false),
    ];
    for (id, reply, expected) in rows {
        assert_eq!(is_answer_to(&asked, &reply), expected, "{id}");
    }
}

#[test]
fn a_failure_keeps_id_and_question() {
    let asked = query("web", 16, &[]);
    let reply = build_failure(&asked);
    assert_eq!(reply[..12], [0x12, 0x34, 0x81, 0x82, 0, 1, 0, 0, 0, 0, 0, 0]);
    assert_eq!(reply[12..], asked[12..]);
    assert_eq!(type_label(&asked), "TXT");
}

proptest! {
    #[test]
    fn no_bytes_are_too_odd(message in prop::collection::vec(any::<u8>(), 0..80), reply in prop::collection::vec(any::<u8>(), 0..80)) {
        if let Received::Question(question) = parse_query(&message) {
            build_reply(&message, &question, None, &[], true);
        }
        build_failure(&message);
        type_label(&message);
        is_answer_to(&message, &reply);
        // Forwarding changes the id and nothing else, and gives it back.
        let there_and_back = with_id(&with_id(&message, 7), id_of(&message));
        prop_assert_eq!(there_and_back, message);
    }

    #[test]
    fn questions_with_changed_bytes_are_no_trouble(at in 0_usize..40, value: u8) {
        let mut message = query("web.shop.svc", 1, &OPT_4096_DO);
        if let Some(byte) = message.get_mut(at) {
            *byte = value;
        }
        if let Received::Question(question) = parse_query(&message) {
            let reply = build_reply(&message, &question, Some("web"), &[], true);
            prop_assert!(is_answer_to(&message, &reply));
        }
    }
}
