//! The engine against thirty lines that say the same, on random policies and connections (facts/ztunnel.md section 3.6).

use std::net::IpAddr;

use super::*;
use crate::policy::{Connection, Verdict, decide};

const POD: &str = "192.0.2.2";
const NAMESPACES: [&str; 3] = ["shop", "shopping", "bank"];
const ACCOUNTS: [&str; 2] = ["client", "default"];
const SOURCES: [&str; 3] = ["192.0.2.1", "198.51.100.7", "2001:db8::1"];

fn holds(entry: &wire::Match, c: &Connection<'_>) -> bool {
    let text = |values: &[wire::StringMatch], text: Option<&str>| {
        let one = |value: &wire::StringMatch, text: &str| match value.match_type.as_ref().expect("typed") {
            MatchType::Exact(v) => text == v,
            MatchType::Prefix(v) => text.starts_with(v.as_str()),
            MatchType::Suffix(v) => text.ends_with(v.as_str()),
            MatchType::Presence(()) => !text.is_empty(),
        };
        text.is_some_and(|text| values.iter().any(|value| one(value, text)))
    };
    let within = |values: &[wire::Address], ip: IpAddr| {
        let bits = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
            IpAddr::V6(ip) => u128::from(ip),
        };
        values.iter().any(|value| {
            let range: IpAddr = match <[u8; 4]>::try_from(&value.address[..]) {
                Ok(four) => four.into(),
                Err(_) => <[u8; 16]>::try_from(&value.address[..]).expect("16 bytes").into(),
            };
            let differing = (bits(range) ^ bits(ip)).leading_zeros();
            range.is_ipv4() == ip.is_ipv4() && differing >= value.length
        })
    };
    let account = |values: &[wire::ServiceAccountMatch]| {
        let is = |v: &wire::ServiceAccountMatch, p: &Identity| {
            v.namespace == p.namespace() && v.service_account == p.service_account()
        };
        c.peer.is_some_and(|peer| values.iter().any(|value| is(value, peer)))
    };
    let namespace = Some(c.peer.map_or("", |peer| peer.namespace()));
    let principal = c.peer.map(|peer| peer.principal());
    let port = u32::from(c.port);
    // Per field: is it set, does it match, and the same of its negation.
    let m = entry;
    let fields = [
        (
            m.namespaces.len(),
            text(&m.namespaces, namespace),
            m.not_namespaces.len(),
            text(&m.not_namespaces, namespace),
        ),
        (
            m.principals.len(),
            text(&m.principals, principal),
            m.not_principals.len(),
            text(&m.not_principals, principal),
        ),
        (
            m.service_accounts.len(),
            account(&m.service_accounts),
            m.not_service_accounts.len(),
            account(&m.not_service_accounts),
        ),
        (
            m.source_ips.len(),
            within(&m.source_ips, c.source),
            m.not_source_ips.len(),
            within(&m.not_source_ips, c.source),
        ),
        (
            m.destination_ips.len(),
            within(&m.destination_ips, c.destination),
            m.not_destination_ips.len(),
            within(&m.not_destination_ips, c.destination),
        ),
        (
            m.destination_ports.len(),
            m.destination_ports.contains(&port),
            m.not_destination_ports.len(),
            m.not_destination_ports.contains(&port),
        ),
    ];
    let is_empty = fields.iter().all(|(positive, _, negative, _)| positive + negative == 0);
    !is_empty
        && fields
            .iter()
            .all(|(positive, yes, negative, no)| (*positive == 0 || *yes) && (*negative == 0 || !no))
}

fn matches(policy: &wire::Authorization, c: &Connection<'_>) -> bool {
    let clause = |clause: &wire::Clause| clause.matches.is_empty() || clause.matches.iter().any(|m| holds(m, c));
    policy.rules.iter().any(|rule| rule.clauses.iter().all(clause))
}

/// Whether `policies`, all of which apply, permit the connection.
fn permits(policies: &[wire::Authorization], c: &Connection<'_>) -> bool {
    let enforced = |action: wire::Action| policies.iter().filter(move |p| !p.dry_run && p.action == action as i32);
    let allows = enforced(wire::Action::Allow).count() == 0 || enforced(wire::Action::Allow).any(|p| matches(p, c));
    allows && !enforced(wire::Action::Deny).any(|p| matches(p, c))
}

fn texts(whole: Vec<String>) -> impl Strategy<Value = Vec<wire::StringMatch>> {
    let one = (prop::sample::select(whole), 0..4, 0..12usize).prop_map(|(text, kind, cut)| {
        let cut = cut.min(text.len());
        wire::StringMatch {
            match_type: Some(match kind {
                0 => MatchType::Exact(text),
                1 => MatchType::Prefix(text[..cut].to_owned()),
                2 => MatchType::Suffix(text[cut..].to_owned()),
                _ => MatchType::Presence(()),
            }),
        }
    });
    sparse(one)
}

/// Mostly nothing: a match with all of its fields set never matches.
fn sparse<S: Strategy>(one: S) -> impl Strategy<Value = Vec<S::Value>> {
    (prop::bool::weighted(0.15), prop::collection::vec(one, 1..3)).prop_map(|(is_set, values)| match is_set {
        true => values,
        false => Vec::new(),
    })
}

fn ranges() -> impl Strategy<Value = Vec<wire::Address>> {
    let one = (prop::sample::select(SOURCES.to_vec()), 0..=4u32).prop_map(|(ip, quarter)| {
        let address = bytes(ip);
        let length = quarter * u32::try_from(address.len()).expect("small") * 2;
        wire::Address { address, length }
    });
    sparse(one)
}

fn accounts() -> impl Strategy<Value = Vec<wire::ServiceAccountMatch>> {
    let one = (
        prop::sample::select(NAMESPACES.to_vec()),
        prop::sample::select(ACCOUNTS.to_vec()),
    );
    sparse(one.prop_map(|(namespace, name)| account(namespace, name).remove(0)))
}

fn entry() -> impl Strategy<Value = wire::Match> {
    let namespaces = || texts(NAMESPACES.map(str::to_owned).to_vec());
    let principals = || {
        let all = NAMESPACES
            .iter()
            .flat_map(|n| ACCOUNTS.iter().map(move |a| format!("cluster.local/ns/{n}/sa/{a}")));
        texts(all.collect())
    };
    let ports = || sparse(prop::sample::select(vec![80u32, 8080]));
    let of = (namespaces(), principals(), accounts(), ranges(), ranges(), ports());
    let not = (namespaces(), principals(), accounts(), ranges(), ranges(), ports());
    (of, not).prop_map(|(of, not)| wire::Match {
        namespaces: of.0,
        principals: of.1,
        service_accounts: of.2,
        source_ips: of.3,
        destination_ips: of.4,
        destination_ports: of.5,
        not_namespaces: not.0,
        not_principals: not.1,
        not_service_accounts: not.2,
        not_source_ips: not.3,
        not_destination_ips: not.4,
        not_destination_ports: not.5,
        ..Default::default()
    })
}

fn policies() -> impl Strategy<Value = Vec<wire::Authorization>> {
    let clause = prop::collection::vec(entry(), 0..3).prop_map(|matches| wire::Clause { matches });
    let rule = prop::collection::vec(clause, 0..3).prop_map(|clauses| wire::Rule { clauses });
    let rules = prop::collection::vec(rule, 0..3);
    let one = (rules, any::<bool>(), prop::bool::weighted(0.2));
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let named = all.into_iter().enumerate().map(|(number, (rules, denies, dry_run))| {
            let action = if denies {
                wire::Action::Deny
            } else {
                wire::Action::Allow
            };
            wire::Authorization {
                dry_run,
                ..with_rules(&format!("p{number}"), action, rules)
            }
        });
        named.collect()
    })
}

fn peers() -> impl Strategy<Value = Option<Identity>> {
    let (namespaces, accounts) = (NAMESPACES.to_vec(), ACCOUNTS.to_vec());
    let one = (prop::sample::select(namespaces), prop::sample::select(accounts));
    prop::option::of(one.prop_map(|(namespace, account)| {
        Identity::parse(&format!("spiffe://cluster.local/ns/{namespace}/sa/{account}")).expect("an identity")
    }))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn the_engine_decides_as_the_reference_does(
        policies in policies(),
        peer in peers(),
        source in prop::sample::select(SOURCES.to_vec()),
        port in prop::sample::select(vec![80u16, 8080, 9090]),
    ) {
        let connection = Connection {
            peer: peer.as_ref(),
            source: source.parse().expect("an address"),
            destination: POD.parse().expect("an address"),
            port,
        };
        let state = state_of(&policies, &[]);
        let server = state.workload("cluster//Pod/shop/server").expect("the pod").clone();
        let decided = decide(&state, &server, &connection).verdict == Verdict::Permit;
        prop_assert_eq!(decided, permits(&policies, &connection));
    }
}
