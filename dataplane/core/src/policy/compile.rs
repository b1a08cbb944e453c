//! Policies from the wire, refused as a whole when any part of them cannot be understood.

use ipnet::IpNet;
use prost::Message;

use super::{
    Clause, Condition, Field, Match, Policy, PolicyAction, PolicyKey, PolicyScope, Rule, ServiceAccount, StringMatch,
};
use crate::mesh_state::{ResourceError, as_cidr, as_port};
use crate::wire::security as wire;

/// A policy that is refused.
#[derive(Debug)]
pub(crate) struct Rejection {
    pub(crate) error: ResourceError,
    /// Stands in for the policy where there is no earlier version: it refuses everything that the policy would have
    /// applied to. A policy in dry run has none.
    pub(crate) stand_in: Option<Box<Policy>>,
}

/// Compile the resource of this name.
pub(crate) fn compile(name: &str, value: Option<&[u8]>) -> Result<Policy, Rejection> {
    let value = value.ok_or_else(|| undecodable(name, ResourceError::MissingValue))?;
    let policy = wire::Authorization::decode(value).map_err(|e| undecodable(name, e.into()))?;
    let (scope, action) = (to_scope(policy.scope), to_action(policy.action));
    // What cannot be told must not apply to less than it might have.
    let stand_in_scope = scope.as_ref().copied().unwrap_or(PolicyScope::Namespace);
    let parts = || Ok((scope?, action?, to_rules(&policy, value.len())?));
    parts()
        .map(|(scope, action, rules)| Policy {
            rules,
            ..frame(name, &policy, scope, action)
        })
        .map_err(|error: ResourceError| {
            let defect = Some(error.to_string().into());
            let stand_in = Policy {
                defect,
                ..frame(name, &policy, stand_in_scope, PolicyAction::Deny)
            };
            Rejection {
                error,
                stand_in: (!policy.dry_run).then(|| Box::new(stand_in)),
            }
        })
}

fn frame(name: &str, policy: &wire::Authorization, scope: PolicyScope, action: PolicyAction) -> Policy {
    Policy {
        key: PolicyKey::from(name),
        name: policy.name.as_str().into(),
        namespace: policy.namespace.as_str().into(),
        scope,
        action,
        dry_run: policy.dry_run,
        rules: Box::default(),
        defect: None,
    }
}

/// Nothing is known of it but the resource's name, which has the namespace in it.
fn undecodable(name: &str, error: ResourceError) -> Rejection {
    let (namespace, own_name) = name.split_once('/').unwrap_or(("", name));
    let known = wire::Authorization {
        name: own_name.into(),
        namespace: namespace.into(),
        ..Default::default()
    };
    let defect = Some(error.to_string().into());
    let stand_in = Policy {
        defect,
        ..frame(name, &known, PolicyScope::Namespace, PolicyAction::Deny)
    };
    Rejection {
        error,
        stand_in: Some(Box::new(stand_in)),
    }
}

fn to_scope(scope: i32) -> Result<PolicyScope, ResourceError> {
    match wire::Scope::try_from(scope) {
        Ok(wire::Scope::Global) => Ok(PolicyScope::Global),
        Ok(wire::Scope::Namespace) => Ok(PolicyScope::Namespace),
        Ok(wire::Scope::WorkloadSelector) => Ok(PolicyScope::WorkloadSelector),
        Err(_) => Err(ResourceError::UnknownEnumValue {
            field: "scope",
            value: scope,
        }),
    }
}

fn to_action(action: i32) -> Result<PolicyAction, ResourceError> {
    match wire::Action::try_from(action) {
        Ok(wire::Action::Allow) => Ok(PolicyAction::Allow),
        Ok(wire::Action::Deny) => Ok(PolicyAction::Deny),
        Err(_) => Err(ResourceError::UnknownEnumValue {
            field: "action",
            value: action,
        }),
    }
}

fn to_rules(policy: &wire::Authorization, wire_length: usize) -> Result<Box<[Rule]>, ResourceError> {
    if policy.encoded_len() != wire_length {
        // prost skipped fields that it does not know: what is decoded and what came differ in length.
        return Err(ResourceError::UnknownFields);
    }
    let rule = |(r, rule): (usize, &wire::Rule)| {
        let clauses = rule.clauses.iter().enumerate().map(|(c, clause)| {
            let matches = clause.matches.iter().enumerate().map(|(m, entry)| {
                to_match(entry).map_err(|error| error.within(|| format!("rules[{r}].clauses[{c}].matches[{m}]")))
            });
            Ok::<_, ResourceError>(Clause {
                matches: matches.collect::<Result<_, _>>()?,
            })
        });
        Ok(Rule {
            clauses: clauses.collect::<Result<_, _>>()?,
        })
    };
    policy.rules.iter().enumerate().map(rule).collect()
}

fn to_match(entry: &wire::Match) -> Result<Match, ResourceError> {
    if let Some(extension) = entry.extensions.first() {
        return Err(ResourceError::MatchExtension(extension.name.clone()));
    }
    let mut conditions = Vec::new();
    let mut add = |is_negated, field: Option<Field>| {
        conditions.extend(field.map(|field| Condition { is_negated, field }));
    };
    let e = entry;
    add(false, ports("destination_ports", &e.destination_ports)?);
    add(true, ports("not_destination_ports", &e.not_destination_ports)?);
    add(false, strings("namespaces", &e.namespaces)?.map(Field::Namespaces));
    add(
        true,
        strings("not_namespaces", &e.not_namespaces)?.map(Field::Namespaces),
    );
    add(false, service_accounts(&e.service_accounts));
    add(true, service_accounts(&e.not_service_accounts));
    add(false, strings("principals", &e.principals)?.map(Field::Principals));
    add(
        true,
        strings("not_principals", &e.not_principals)?.map(Field::Principals),
    );
    add(false, ranges("source_ips", &e.source_ips)?.map(Field::SourceIps));
    add(true, ranges("not_source_ips", &e.not_source_ips)?.map(Field::SourceIps));
    add(
        false,
        ranges("destination_ips", &e.destination_ips)?.map(Field::DestinationIps),
    );
    add(
        true,
        ranges("not_destination_ips", &e.not_destination_ips)?.map(Field::DestinationIps),
    );
    Ok(Match {
        conditions: conditions.into(),
    })
}

fn ports(field: &'static str, ports: &[u32]) -> Result<Option<Field>, ResourceError> {
    let mut ports = ports
        .iter()
        .map(|p| as_port(field, *p))
        .collect::<Result<Vec<_>, _>>()?;
    ports.sort_unstable();
    Ok(non_empty(ports).map(Field::DestinationPorts))
}

fn strings(field: &'static str, values: &[wire::StringMatch]) -> Result<Option<Box<[StringMatch]>>, ResourceError> {
    use wire::string_match::MatchType;
    let value = |value: &wire::StringMatch| match &value.match_type {
        Some(MatchType::Exact(text)) => Ok(StringMatch::Exact(text.as_str().into())),
        Some(MatchType::Prefix(text)) => Ok(StringMatch::Prefix(text.as_str().into())),
        Some(MatchType::Suffix(text)) => Ok(StringMatch::Suffix(text.as_str().into())),
        Some(MatchType::Presence(_)) => Ok(StringMatch::Presence),
        None => Err(ResourceError::UntypedStringMatch { field }),
    };
    Ok(non_empty(values.iter().map(value).collect::<Result<_, _>>()?))
}

fn ranges(field: &'static str, values: &[wire::Address]) -> Result<Option<Box<[IpNet]>>, ResourceError> {
    Ok(non_empty(
        values
            .iter()
            .map(|v| as_cidr(field, &v.address, v.length))
            .collect::<Result<_, _>>()?,
    ))
}

fn service_accounts(values: &[wire::ServiceAccountMatch]) -> Option<Field> {
    let value = |v: &wire::ServiceAccountMatch| ServiceAccount {
        namespace: v.namespace.as_str().into(),
        name: v.service_account.as_str().into(),
    };
    non_empty(values.iter().map(value).collect()).map(Field::ServiceAccounts)
}

fn non_empty<T>(values: Vec<T>) -> Option<Box<[T]>> {
    (!values.is_empty()).then(|| values.into())
}
