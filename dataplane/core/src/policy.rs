//! Who may connect to whom: L4 policies, compiled once, and the decision that they make together.
//!
//! Evaluated where a connection arrives, on the peer's identity, the addresses and the application's port
//! (facts/ztunnel.md section 3.6). In order: an enforced DENY that matches refuses; without an enforced ALLOW everything
//! else is permitted; an enforced ALLOW that matches permits; what is left is refused. Policies in dry run are evaluated
//! beside this and only reported.
//!
//! Nothing fails open here, where Istio's ztunnel does in four ways. A workload that lists a policy which is not known is
//! refused, until the policy arrives. A policy that could not be compiled (malformed range, string match without type,
//! unknown field) is refused as a resource instead of being broadened by leaving the part out; while there is no earlier
//! version of it to go on with, it refuses everything that it applies to, because what it would have denied is unknown.
//! Ports are not truncated. And an extension inside a match is refused rather than ignored.

mod compile;
mod decide;
mod matching;

use std::{borrow::Borrow, fmt, sync::Arc};

pub(crate) use compile::{Rejection, compile};
pub use decide::{Connection, Decision, DryRun, PolicyRefusal, Verdict, decide};
pub use matching::{Condition, Field, Match, ServiceAccount, StringMatch};

/// A policy's name as workloads list it and as the controller names the resource: `namespace/name`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyKey(Arc<str>);

/// A compiled policy. Immutable.
#[derive(Debug, PartialEq, Eq)]
pub struct Policy {
    /// The resource's name.
    pub key: PolicyKey,
    /// The policy's own name.
    pub name: Box<str>,
    /// Where it was applied.
    pub namespace: Arc<str>,
    /// Which workloads it applies to.
    pub scope: PolicyScope,
    /// What a match means.
    pub action: PolicyAction,
    /// Only reported, never enforced.
    pub dry_run: bool,
    /// One that matches is enough; with none the policy never matches.
    pub rules: Box<[Rule]>,
    /// Why it could not be compiled. Then it has no rules and refuses everything that it applies to.
    pub defect: Option<Box<str>>,
}

/// Which workloads a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyScope {
    /// All.
    Global,
    /// Those of the policy's namespace.
    Namespace,
    /// Those that list its key.
    WorkloadSelector,
}

/// What a policy's match means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyAction {
    /// Permit; and where a policy of this kind applies, refuse what none of them matches.
    Allow,
    /// Refuse.
    Deny,
}

/// Matches when all of its clauses do; without clauses it matches everything.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub clauses: Box<[Clause]>,
}

/// Holds when one of its matches does; without matches it holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    /// One is enough.
    pub matches: Box<[Match]>,
}

impl PolicyKey {
    /// `namespace/name`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: Into<Arc<str>>> From<T> for PolicyKey {
    fn from(key: T) -> Self {
        Self(key.into())
    }
}

impl Borrow<str> for PolicyKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PolicyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyKey({})", self.0)
    }
}

#[cfg(test)]
mod tests;
