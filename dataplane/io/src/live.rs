//! An inbound connection that is open: judged again whenever the mesh changes.

use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ambit_core::identity::Identity;
use ambit_core::mesh_state::{MeshState, Workload};
use ambit_core::policy::{self, Decision, DryRun, PolicyKey, Verdict};

use crate::logging::{self, Fields};
use crate::shared::Shared;
use crate::signal::Signal;
use crate::telemetry::Flag;

/// What policies judge a connection by.
pub(crate) struct Live {
    /// The pod it came to, as it was known then.
    pub(crate) workload: Arc<Workload>,
    /// Who proved to be on the other side; nobody in plaintext.
    pub(crate) peer: Option<Identity>,
    /// The client's address.
    pub(crate) source: IpAddr,
    /// The application's address.
    pub(crate) destination: SocketAddr,
    end: RefCell<Option<(Flag, String)>>,
    ended: Signal,
}

impl Live {
    pub(crate) fn new(
        workload: Arc<Workload>,
        peer: Option<Identity>,
        source: IpAddr,
        destination: SocketAddr,
    ) -> Self {
        Self {
            workload,
            peer,
            source,
            destination,
            end: RefCell::default(),
            ended: Signal::default(),
        }
    }

    /// Whether the connection may be made; what policies in dry run say of it is logged and counted.
    pub(crate) fn admit(&self, shared: &Shared) -> Result<(), String> {
        let decision = self.decide(&shared.mesh());
        for outcome in &decision.dry_run {
            self.tell(outcome, shared);
        }
        permitted(decision.verdict)
    }

    fn tell(&self, outcome: &DryRun, shared: &Shared) {
        let policy = outcome.policy().map_or("", PolicyKey::as_str);
        shared.metrics.security.dry_run(policy, outcome.reason());
        if !logging::is_enabled(shared.dry_run_level, "policy") {
            return;
        }
        let peer = self.peer.as_ref().map(ToString::to_string);
        let fields = Fields::default()
            .text("outcome", outcome.reason())
            .text("policy", policy)
            .text("rule", &outcome.rule().map(|rule| rule.to_string()).unwrap_or_default())
            .plain("src.addr", self.source)
            .text("src.identity", &peer.unwrap_or_default())
            .plain("dst.addr", self.destination);
        logging::write(shared.dry_run_level, "policy", "dry run", &fields);
    }

    /// End the connection if `mesh` no longer permits it.
    pub(crate) fn re_evaluate(&self, mesh: &MeshState) {
        if let Err(refusal) = permitted(self.decide(mesh).verdict) {
            self.end(Flag::Denied, format!("closed due to policy change: {refusal}"));
        }
    }

    /// End the connection, saying why.
    pub(crate) fn end(&self, flag: Flag, why: String) {
        self.end.borrow_mut().get_or_insert((flag, why));
        self.ended.raise();
    }

    /// Judge the connection by `mesh`. The workload is looked up anew, so that a policy that came to select it counts.
    fn decide(&self, mesh: &MeshState) -> Decision {
        let current = mesh.workload(&self.workload.uid).unwrap_or(&self.workload);
        let connection = policy::Connection {
            peer: self.peer.as_ref(),
            source: self.source,
            destination: self.destination.ip(),
            port: self.destination.port(),
        };
        policy::decide(mesh, current, &connection)
    }

    /// Wait until the connection has to end; returns why.
    pub(crate) async fn ended(&self) -> (Flag, String) {
        loop {
            if let Some(end) = self.end.borrow().clone() {
                return end;
            }
            self.ended.wait().await;
        }
    }
}

fn permitted(verdict: Verdict) -> Result<(), String> {
    match verdict {
        Verdict::Permit => Ok(()),
        Verdict::Refusal(refusal) => Err(refusal.to_string()),
    }
}
