//! The decision that all policies of a workload make together.

use std::{net::IpAddr, sync::Arc};

use super::{Policy, PolicyAction, PolicyKey, PolicyScope};
use crate::{
    identity::Identity,
    mesh_state::{MeshState, Workload},
};

/// What wants to connect to what.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// The authenticated peer; `None` for plaintext.
    pub peer: Option<&'a Identity>,
    /// The client's address.
    pub source: IpAddr,
    /// The pod's address.
    pub destination: IpAddr,
    /// The application's port, not the service's.
    pub port: u16,
}

/// What is to be done, and what policies in dry run would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What is enforced.
    pub verdict: Verdict,
    /// What is only reported, for the caller to log and count.
    pub dry_run: Vec<DryRun>,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Connect.
    Permit,
    /// Close; 401 inside a tunnel.
    Refusal(PolicyRefusal),
}

/// Why policies refuse. The texts are what operators look for in the access log (docs/policies.md).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyRefusal {
    /// A DENY policy matched.
    #[error("explicitly denied by: {policy} (rule {rule})")]
    Denied {
        /// Which.
        policy: PolicyKey,
        /// Which of its rules, counted from 0.
        rule: usize,
    },
    /// There are ALLOW policies, and none matched.
    #[error("allow policies exist, but none allowed")]
    NotAllowed,
    /// The workload lists a policy that has not arrived.
    #[error("policy {policy} selects this workload but is not known; check that the controller sends it")]
    UnknownPolicy {
        /// Which.
        policy: PolicyKey,
    },
    /// A policy that applies could not be understood.
    #[error("policy {policy} could not be applied, so nothing is permitted: {defect}")]
    DefectivePolicy {
        /// Which.
        policy: PolicyKey,
        /// What is wrong with it.
        defect: Box<str>,
    },
}

/// What a policy in dry run would have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// A DENY policy matched.
    WouldDeny {
        /// Which.
        policy: PolicyKey,
        /// Which of its rules.
        rule: usize,
    },
    /// An ALLOW policy matched.
    WouldAllow {
        /// Which.
        policy: PolicyKey,
        /// Which of its rules.
        rule: usize,
    },
    /// There are ALLOW policies in dry run, and none matched.
    WouldNotAllow,
}

impl DryRun {
    /// A stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::WouldDeny { .. } => "would_deny",
            Self::WouldAllow { .. } => "would_allow",
            Self::WouldNotAllow => "would_not_allow",
        }
    }

    /// The policy that matched, where one did.
    pub fn policy(&self) -> Option<&PolicyKey> {
        match self {
            Self::WouldDeny { policy, .. } | Self::WouldAllow { policy, .. } => Some(policy),
            Self::WouldNotAllow => None,
        }
    }

    /// Which of the policy's rules matched, counted from 0.
    pub fn rule(&self) -> Option<usize> {
        match self {
            Self::WouldDeny { rule, .. } | Self::WouldAllow { rule, .. } => Some(*rule),
            Self::WouldNotAllow => None,
        }
    }
}

impl PolicyRefusal {
    /// A stable name for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Denied { .. } => "policy_denied",
            Self::NotAllowed => "policy_not_allowed",
            Self::UnknownPolicy { .. } => "policy_unknown",
            Self::DefectivePolicy { .. } => "policy_defective",
        }
    }

    /// The policy that refused, where it was one.
    pub fn policy(&self) -> Option<&PolicyKey> {
        match self {
            Self::Denied { policy, .. } | Self::UnknownPolicy { policy } | Self::DefectivePolicy { policy, .. } => {
                Some(policy)
            }
            Self::NotAllowed => None,
        }
    }
}

/// Decide whether `connection` may connect to `workload`.
///
/// For connections that are already open, look the workload up again first: the policies that select it may have changed
/// since (facts/ztunnel.md section 12.1, 3).
pub fn decide(state: &MeshState, workload: &Workload, connection: &Connection<'_>) -> Decision {
    let policies = match applicable(state, workload) {
        Ok(policies) => policies,
        Err(refusal) => {
            return Decision {
                verdict: Verdict::Refusal(refusal),
                dry_run: Vec::new(),
            };
        }
    };
    Decision {
        verdict: enforce(&policies, connection),
        dry_run: rehearse(&policies, connection),
    }
}

/// The policies of `workload`, each once.
fn applicable<'a>(state: &'a MeshState, workload: &Workload) -> Result<Vec<&'a Arc<Policy>>, PolicyRefusal> {
    let mut policies: Vec<_> = state.scoped_policies(workload.namespace()).collect();
    for key in &workload.profile.policies {
        let unknown = || PolicyRefusal::UnknownPolicy { policy: key.clone() };
        let policy = state.policy(key.as_str()).ok_or_else(unknown)?;
        if !applies_by_scope(policy, workload) {
            policies.push(policy);
        }
    }
    match policies
        .iter()
        .find_map(|policy| Some((policy, policy.defect.clone()?)))
    {
        Some((policy, defect)) => Err(PolicyRefusal::DefectivePolicy {
            policy: policy.key.clone(),
            defect,
        }),
        None => Ok(policies),
    }
}

fn applies_by_scope(policy: &Policy, workload: &Workload) -> bool {
    match policy.scope {
        PolicyScope::Global => true,
        PolicyScope::Namespace => *policy.namespace == *workload.namespace(),
        PolicyScope::WorkloadSelector => false,
    }
}

fn enforce(policies: &[&Arc<Policy>], connection: &Connection<'_>) -> Verdict {
    let enforced = |action| policies.iter().filter(move |p| !p.dry_run && p.action == action);
    let denied = enforced(PolicyAction::Deny).find_map(|p| Some((p, p.matching_rule(connection)?)));
    if let Some((policy, rule)) = denied {
        return Verdict::Refusal(PolicyRefusal::Denied {
            policy: policy.key.clone(),
            rule,
        });
    }
    let mut allowing = enforced(PolicyAction::Allow).peekable();
    if allowing.peek().is_none() || allowing.any(|p| p.matching_rule(connection).is_some()) {
        return Verdict::Permit;
    }
    Verdict::Refusal(PolicyRefusal::NotAllowed)
}

fn rehearse(policies: &[&Arc<Policy>], connection: &Connection<'_>) -> Vec<DryRun> {
    let rehearsed = |action| policies.iter().filter(move |p| p.dry_run && p.action == action);
    let matched = |p: &&Arc<Policy>| Some((p.key.clone(), p.matching_rule(connection)?));
    let mut results: Vec<_> = rehearsed(PolicyAction::Deny)
        .filter_map(matched)
        .map(|(policy, rule)| DryRun::WouldDeny { policy, rule })
        .collect();
    let mut allowing = rehearsed(PolicyAction::Allow).peekable();
    if allowing.peek().is_some() {
        let allowed = allowing
            .find_map(matched)
            .map(|(policy, rule)| DryRun::WouldAllow { policy, rule });
        results.push(allowed.unwrap_or(DryRun::WouldNotAllow));
    }
    results
}

impl Policy {
    /// The first rule that matches, counted from 0.
    fn matching_rule(&self, connection: &Connection<'_>) -> Option<usize> {
        self.rules.iter().position(|rule| {
            rule.clauses
                .iter()
                .all(|c| c.matches.is_empty() || c.matches.iter().any(|m| m.holds(connection)))
        })
    }
}
