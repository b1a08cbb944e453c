use proptest::prelude::*;

use super::*;
use crate::identity::Identity;
use crate::mesh_state::MeshState;
use crate::testing::*;
use crate::wire::{security as wire, workload};

use wire::string_match::MatchType;

mod fields;
mod reference;

fn string(match_type: MatchType) -> Vec<wire::StringMatch> {
    vec![wire::StringMatch {
        match_type: Some(match_type),
    }]
}

fn exact(text: &str) -> Vec<wire::StringMatch> {
    string(MatchType::Exact(text.to_owned()))
}

fn presence() -> Vec<wire::StringMatch> {
    string(MatchType::Presence(()))
}

fn range(ip: &str, length: u32) -> Vec<wire::Address> {
    vec![wire::Address {
        address: bytes(ip),
        length,
    }]
}

fn account(namespace: &str, name: &str) -> Vec<wire::ServiceAccountMatch> {
    vec![wire::ServiceAccountMatch {
        namespace: namespace.to_owned(),
        service_account: name.to_owned(),
    }]
}

/// A match of which one field is set.
fn with(set: impl FnOnce(&mut wire::Match)) -> wire::Match {
    let mut entry = wire::Match::default();
    set(&mut entry);
    entry
}

/// A policy of namespace `shop`, of one rule with one clause with one match.
fn policy(name: &str, action: wire::Action, entry: wire::Match) -> wire::Authorization {
    with_rules(
        name,
        action,
        vec![wire::Rule {
            clauses: vec![wire::Clause { matches: vec![entry] }],
        }],
    )
}

fn with_rules(name: &str, action: wire::Action, rules: Vec<wire::Rule>) -> wire::Authorization {
    let scope = wire::Scope::Namespace as i32;
    let (name, namespace) = (name.to_owned(), "shop".to_owned());
    wire::Authorization {
        name,
        namespace,
        scope,
        action: action as i32,
        rules,
        ..Default::default()
    }
}

/// The mesh of one pod, `shop/server` at 192.0.2.2, that lists `listed`, and of these policies.
fn state_of(policies: &[wire::Authorization], listed: &[&str]) -> MeshState {
    let mut server = pod("shop", "server", &["192.0.2.2"]);
    server.authorization_policies = listed.iter().map(|key| (*key).to_owned()).collect();
    let mut writer = writer();
    assert_eq!(apply(&mut writer, &[&server]).rejected, []);
    apply_policies(&mut writer, policies);
    writer.snapshot()
}

fn decide_for(state: &MeshState, peer: Option<&str>) -> Decision {
    let peer = peer.map(|uri| Identity::parse(uri).unwrap());
    let (source, destination) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
    let connection = Connection {
        peer: peer.as_ref(),
        source,
        destination,
        port: 8080,
    };
    decide(state, known(state, "shop", "server"), &connection)
}

const CLIENT: Option<&str> = Some("spiffe://cluster.local/ns/shop/sa/client");

fn outcome(state: &MeshState, peer: Option<&str>) -> String {
    match decide_for(state, peer).verdict {
        Verdict::Permit => "permit".to_owned(),
        Verdict::Refusal(refusal) => format!("{} {}", refusal.reason(), refusal.policy().map_or("-", |p| p.as_str())),
    }
}

fn everything() -> wire::Match {
    with(|m| m.not_destination_ports = vec![1])
}

fn nothing() -> wire::Match {
    with(|m| m.destination_ports = vec![1])
}

#[test]
fn policies_decide_in_their_order() {
    use wire::Action::{Allow, Deny};
    for (id, policies, expected) in [
        ("none", vec![], "permit"),
        (
            "deny that matches",
            vec![policy("d", Deny, everything())],
            "policy_denied shop/d",
        ),
        ("deny that does not", vec![policy("d", Deny, nothing())], "permit"),
        ("allow that matches", vec![policy("a", Allow, everything())], "permit"),
        (
            "allow that does not",
            vec![policy("a", Allow, nothing())],
            "policy_not_allowed -",
        ),
        (
            "deny before allow",
            vec![policy("a", Allow, everything()), policy("d", Deny, everything())],
            "policy_denied shop/d",
        ),
        (
            "one allow of two",
            vec![policy("a", Allow, nothing()), policy("b", Allow, everything())],
            "permit",
        ),
        (
            "deny that does not, allow that does not",
            vec![policy("a", Allow, nothing()), policy("d", Deny, nothing())],
            "policy_not_allowed -",
        ),
    ] {
        assert_eq!(outcome(&state_of(&policies, &[]), CLIENT), expected, "{id}");
    }
}

#[test]
fn scope_says_whom_a_policy_applies_to() {
    let scoped = |scope: wire::Scope, namespace: &str| {
        let mut policy = policy("d", wire::Action::Deny, everything());
        (policy.scope, policy.namespace) = (scope as i32, namespace.to_owned());
        policy
    };
    use wire::Scope::{Global, Namespace, WorkloadSelector};
    for (id, policy, listed, refused) in [
        (
            "global, of another namespace",
            scoped(Global, "istio-system"),
            vec![],
            true,
        ),
        ("the namespace's", scoped(Namespace, "shop"), vec![], true),
        ("another namespace's", scoped(Namespace, "other"), vec![], false),
        (
            "another namespace's, listed",
            scoped(Namespace, "other"),
            vec!["other/d"],
            true,
        ),
        (
            "by selector, not listed",
            scoped(WorkloadSelector, "shop"),
            vec![],
            false,
        ),
        (
            "by selector, listed",
            scoped(WorkloadSelector, "shop"),
            vec!["shop/d"],
            true,
        ),
        (
            "by selector, of another namespace, listed",
            scoped(WorkloadSelector, "istio-system"),
            vec!["istio-system/d"],
            true,
        ),
    ] {
        assert_eq!(
            outcome(&state_of(&[policy], &listed), CLIENT) != "permit",
            refused,
            "{id}"
        );
    }
}

#[test]
fn strict_mtls_refuses_plaintext_and_nothing_else() {
    let entry = with(|m| m.not_principals = presence());
    let mut strict = policy("istio_converted_static_strict", wire::Action::Deny, entry);
    strict.scope = wire::Scope::WorkloadSelector as i32;
    let state = state_of(&[strict], &["shop/istio_converted_static_strict"]);
    assert_eq!(outcome(&state, CLIENT), "permit");
    assert_eq!(
        outcome(&state, None),
        "policy_denied shop/istio_converted_static_strict"
    );
}

#[test]
fn a_policy_that_is_listed_but_not_known_refuses() {
    assert_eq!(
        outcome(&state_of(&[], &["shop/gone"]), CLIENT),
        "policy_unknown shop/gone"
    );
}

#[test]
fn a_dry_run_is_reported_and_not_enforced() {
    let dry = |mut policy: wire::Authorization| {
        policy.dry_run = true;
        policy
    };
    use wire::Action::{Allow, Deny};
    let would_deny = DryRun::WouldDeny {
        policy: "shop/d".into(),
        rule: 0,
    };
    let would_allow = DryRun::WouldAllow {
        policy: "shop/a".into(),
        rule: 0,
    };
    for (id, policy, expected) in [
        (
            "deny that matches",
            dry(policy("d", Deny, everything())),
            vec![would_deny],
        ),
        ("deny that does not", dry(policy("d", Deny, nothing())), vec![]),
        (
            "allow that matches",
            dry(policy("a", Allow, everything())),
            vec![would_allow],
        ),
        (
            "allow that does not",
            dry(policy("a", Allow, nothing())),
            vec![DryRun::WouldNotAllow],
        ),
    ] {
        let decision = decide_for(&state_of(&[policy], &[]), CLIENT);
        assert_eq!(
            decision,
            Decision {
                verdict: Verdict::Permit,
                dry_run: expected
            },
            "{id}"
        );
    }
}

fn malformed() -> Vec<(&'static str, wire::Match)> {
    let untyped = || vec![wire::StringMatch { match_type: None }];
    let extension = workload::Extension {
        name: "x".to_owned(),
        config: None,
    };
    vec![
        (
            "range of 3 bytes",
            with(|m| {
                m.source_ips = vec![wire::Address {
                    address: vec![1; 3],
                    length: 8,
                }]
            }),
        ),
        ("prefix of 33 bits", with(|m| m.not_source_ips = range("192.0.2.0", 33))),
        ("untyped principal", with(|m| m.principals = untyped())),
        ("untyped negated namespace", with(|m| m.not_namespaces = untyped())),
        (
            "port that would be truncated",
            with(|m| m.destination_ports = vec![65536 + 8080]),
        ),
        ("extension", with(|m| m.extensions = vec![extension])),
    ]
}

#[test]
fn a_policy_with_a_part_that_cannot_be_understood_is_refused_and_refuses() {
    for (id, entry) in malformed() {
        let broken = policy("p", wire::Action::Deny, entry);
        let mut writer = writer();
        apply(&mut writer, &[&pod("shop", "server", &["192.0.2.2"])]);
        let applied = apply_policies(&mut writer, std::slice::from_ref(&broken));
        let detail = applied.error_detail().unwrap();
        assert!(
            detail.starts_with("shop/p: rules[0].clauses[0].matches[0]."),
            "{id}: {detail}"
        );
        assert_eq!(outcome(&writer.snapshot(), CLIENT), "policy_defective shop/p", "{id}");
        // In a dry run nothing is lost by leaving it out.
        let dry = wire::Authorization {
            dry_run: true,
            ..broken
        };
        assert_eq!(outcome(&state_of(&[dry], &[]), CLIENT), "permit", "{id}, dry run");
    }
}

#[test]
fn an_earlier_version_goes_on_while_a_later_one_is_refused() {
    let good = policy("p", wire::Action::Deny, nothing());
    let mut bad = good.clone();
    bad.action = 7;
    let mut writer = writer();
    apply(&mut writer, &[&pod("shop", "server", &["192.0.2.2"])]);
    apply_policies(&mut writer, std::slice::from_ref(&good));
    let applied = apply_policies(&mut writer, std::slice::from_ref(&bad));
    assert_eq!(
        applied.error_detail().as_deref(),
        Some("shop/p: action: unknown value 7")
    );
    assert_eq!(outcome(&writer.snapshot(), CLIENT), "permit");
    writer.apply_authorizations(&[], &["shop/p".to_owned()]);
    apply_policies(&mut writer, std::slice::from_ref(&bad));
    assert_eq!(outcome(&writer.snapshot(), CLIENT), "policy_defective shop/p");
    apply_policies(&mut writer, std::slice::from_ref(&good));
    assert_eq!(outcome(&writer.snapshot(), CLIENT), "permit");
}

#[test]
fn a_field_that_this_version_does_not_know_is_not_ignored() {
    let (name, mut value) = policy("p", wire::Action::Allow, everything()).named();
    // Field 100, a number.
    value.extend([0xa0, 0x06, 0x01]);
    let mut writer = writer();
    apply(&mut writer, &[&pod("shop", "server", &["192.0.2.2"])]);
    let applied = writer.apply_authorizations(&as_resources(&[(name, value)]), &[]);
    assert_eq!(
        applied.rejected[0].error,
        crate::mesh_state::ResourceError::UnknownFields
    );
    assert_eq!(outcome(&writer.snapshot(), CLIENT), "policy_defective shop/p");
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_permit_what_they_broke(value in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut writer = writer();
        apply(&mut writer, &[&pod("shop", "server", &["192.0.2.2"])]);
        let applied = writer.apply_authorizations(&as_resources(&[("shop/p".to_owned(), value)]), &[]);
        prop_assert_eq!(applied.accepted + applied.rejected.len(), 1);
        let _ = decide_for(&writer.snapshot(), CLIENT);
    }
}
