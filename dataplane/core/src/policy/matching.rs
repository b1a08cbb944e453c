//! What a policy's match looks at.

use ipnet::IpNet;

use super::Connection;

/// Holds when all of its conditions do. One without conditions never holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Match {
    /// In the order of their cost.
    pub conditions: Box<[Condition]>,
}

/// Holds when one of the field's values matches, or, negated, when none does.
#[derive(Debug, PartialEq, Eq)]
pub struct Condition {
    /// A `not_` field.
    pub is_negated: bool,
    /// What is compared with what.
    pub field: Field,
}

/// The values of one field; never empty.
#[derive(Debug, PartialEq, Eq)]
pub enum Field {
    /// The application's port, sorted.
    DestinationPorts(Box<[u16]>),
    /// The peer's namespace; empty without an identity.
    Namespaces(Box<[StringMatch]>),
    /// The peer's service account.
    ServiceAccounts(Box<[ServiceAccount]>),
    /// The peer's identity without `spiffe://`.
    Principals(Box<[StringMatch]>),
    /// The client's address.
    SourceIps(Box<[IpNet]>),
    /// The pod's address.
    DestinationIps(Box<[IpNet]>),
}

/// A service account: both parts exactly.
#[derive(Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Box<str>,
    /// Its name.
    pub name: Box<str>,
}

/// How a text is compared.
#[derive(Debug, PartialEq, Eq, serde::Serialize)]
pub enum StringMatch {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Ends with.
    Suffix(Box<str>),
    /// Not empty.
    Presence,
}

impl Match {
    pub(super) fn holds(&self, connection: &Connection<'_>) -> bool {
        !self.conditions.is_empty()
            && self
                .conditions
                .iter()
                .all(|c| c.field.matches(connection) != c.is_negated)
    }
}

impl Field {
    fn matches(&self, connection: &Connection<'_>) -> bool {
        match self {
            Self::DestinationPorts(ports) => ports.binary_search(&connection.port).is_ok(),
            Self::Namespaces(values) => {
                let namespace = connection.peer.map_or("", |peer| peer.namespace());
                values.iter().any(|v| v.matches(namespace))
            }
            Self::ServiceAccounts(values) => connection.peer.is_some_and(|peer| {
                values
                    .iter()
                    .any(|v| *v.namespace == *peer.namespace() && *v.name == *peer.service_account())
            }),
            Self::Principals(values) => connection
                .peer
                .is_some_and(|peer| values.iter().any(|v| v.matches(peer.principal()))),
            Self::SourceIps(ranges) => ranges.iter().any(|r| r.contains(&connection.source.to_canonical())),
            Self::DestinationIps(ranges) => ranges
                .iter()
                .any(|r| r.contains(&connection.destination.to_canonical())),
        }
    }
}

impl StringMatch {
    fn matches(&self, text: &str) -> bool {
        match self {
            Self::Exact(value) => text == &**value,
            Self::Prefix(value) => text.starts_with(&**value),
            Self::Suffix(value) => text.ends_with(&**value),
            Self::Presence => !text.is_empty(),
        }
    }
}
