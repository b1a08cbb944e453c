//! What each field of a match looks at, and how matches, clauses and rules nest.

use super::*;

#[test]
fn each_field_matches_what_it_should() {
    type Row = (&'static str, wire::Match, bool, bool);
    let prefix = |text: &str| string(MatchType::Prefix(text.to_owned()));
    let suffix = |text: &str| string(MatchType::Suffix(text.to_owned()));
    let other_port = with(|m| (m.principals, m.destination_ports) = (presence(), vec![9090]));
    let this_port = with(|m| (m.principals, m.destination_ports) = (presence(), vec![9090, 8080]));
    // Matches (with an identity, in plaintext).
    let rows: Vec<Row> = vec![
        ("empty", wire::Match::default(), false, false),
        ("namespace", with(|m| m.namespaces = exact("shop")), true, false),
        ("other namespace", with(|m| m.namespaces = exact("sho")), false, false),
        (
            "empty namespace is plaintext's",
            with(|m| m.namespaces = exact("")),
            false,
            true,
        ),
        ("namespace, presence", with(|m| m.namespaces = presence()), true, false),
        ("not namespace", with(|m| m.not_namespaces = exact("shop")), false, true),
        (
            "principal",
            with(|m| m.principals = exact("cluster.local/ns/shop/sa/client")),
            true,
            false,
        ),
        (
            "principal with scheme",
            with(|m| m.principals = exact("spiffe://cluster.local/ns/shop/sa/client")),
            false,
            false,
        ),
        (
            "principal, prefix",
            with(|m| m.principals = prefix("cluster.local/ns/shop/")),
            true,
            false,
        ),
        (
            "principal, suffix",
            with(|m| m.principals = suffix("/sa/client")),
            true,
            false,
        ),
        (
            "principal, other suffix",
            with(|m| m.principals = suffix("/sa/clien")),
            false,
            false,
        ),
        ("principal, presence", with(|m| m.principals = presence()), true, false),
        (
            "not principal, presence",
            with(|m| m.not_principals = presence()),
            false,
            true,
        ),
        (
            "service account",
            with(|m| m.service_accounts = account("shop", "client")),
            true,
            false,
        ),
        (
            "service account of another namespace",
            with(|m| m.service_accounts = account("x", "client")),
            false,
            false,
        ),
        (
            "not service account",
            with(|m| m.not_service_accounts = account("shop", "client")),
            false,
            true,
        ),
        ("source", with(|m| m.source_ips = range("192.0.2.1", 32)), true, true),
        (
            "source range",
            with(|m| m.source_ips = range("192.0.2.77", 24)),
            true,
            true,
        ),
        (
            "other source range",
            with(|m| m.source_ips = range("192.0.2.128", 25)),
            false,
            false,
        ),
        (
            "source range of the other family",
            with(|m| m.source_ips = range("2001:db8::", 32)),
            false,
            false,
        ),
        (
            "source range in IPv6's form",
            with(|m| m.source_ips = range("::ffff:192.0.2.0", 120)),
            true,
            true,
        ),
        (
            "not source",
            with(|m| m.not_source_ips = range("192.0.2.1", 32)),
            false,
            false,
        ),
        (
            "destination",
            with(|m| m.destination_ips = range("192.0.2.2", 32)),
            true,
            true,
        ),
        (
            "not destination",
            with(|m| m.not_destination_ips = range("192.0.2.2", 32)),
            false,
            false,
        ),
        ("one of the ports", this_port, true, false),
        ("another port", other_port, false, false),
        ("not port", with(|m| m.not_destination_ports = vec![8080]), false, false),
        (
            "not another port",
            with(|m| m.not_destination_ports = vec![9090]),
            true,
            true,
        ),
    ];
    for (id, entry, with_identity, in_plaintext) in rows {
        let state = state_of(&[policy("p", wire::Action::Deny, entry)], &[]);
        assert_eq!(
            outcome(&state, CLIENT) != "permit",
            with_identity,
            "{id}, with an identity"
        );
        assert_eq!(outcome(&state, None) != "permit", in_plaintext, "{id}, in plaintext");
    }
}

#[test]
fn rules_clauses_and_matches_nest_as_or_and_or() {
    let yes = || with(|m| m.principals = presence());
    let no = || with(|m| m.namespaces = exact("x"));
    let clause = |matches: Vec<wire::Match>| wire::Clause { matches };
    let rule = |clauses: Vec<wire::Clause>| wire::Rule { clauses };
    for (id, rules, matches) in [
        ("no rules", vec![], false),
        ("a rule without clauses", vec![rule(vec![])], true),
        ("a clause without matches", vec![rule(vec![clause(vec![])])], true),
        (
            "an empty match",
            vec![rule(vec![clause(vec![wire::Match::default()])])],
            false,
        ),
        (
            "an empty match beside one that holds",
            vec![rule(vec![clause(vec![wire::Match::default(), yes()])])],
            true,
        ),
        ("one match of two", vec![rule(vec![clause(vec![no(), yes()])])], true),
        (
            "one clause of two",
            vec![rule(vec![clause(vec![yes()]), clause(vec![no()])])],
            false,
        ),
        (
            "one rule of two",
            vec![rule(vec![clause(vec![no()])]), rule(vec![clause(vec![yes()])])],
            true,
        ),
    ] {
        let denying = state_of(&[with_rules("p", wire::Action::Deny, rules.clone())], &[]);
        assert_eq!(outcome(&denying, CLIENT) != "permit", matches, "{id}, DENY");
        let allowing = state_of(&[with_rules("p", wire::Action::Allow, rules)], &[]);
        assert_eq!(outcome(&allowing, CLIENT) == "permit", matches, "{id}, ALLOW");
    }
}
