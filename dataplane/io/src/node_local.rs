//! Between two pods of this node: no tunnel, the same policies, both sides' reports (see `ambit_core::node_local`).
//!
//! The connection belongs to the client's pod. The server's pod judges it, watches it while policies change, and ends it
//! when that pod leaves the mesh.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ambit_core::identity::Identity;
use ambit_core::inbound::decide_target;
use ambit_core::mesh_state::Workload;
use ambit_core::node_local::decide_node_local;
use ambit_core::upstream::Upstream;

use crate::inbound::{self, Refused};
use crate::labels;
use crate::live::Live;
use crate::outbound::{Application, OutboundError};
use crate::proxy::PodProxy;
use crate::tcp_relay;
use crate::telemetry::{Addresses, ConnectionReport, Direction, Flag, Moved, Pods, SecurityPolicy, TrafficLabels};

/// The other end of a connection that needs no tunnel.
pub(crate) struct Near {
    client: Arc<Workload>,
    identity: Identity,
    server: Arc<Workload>,
    server_proxy: Rc<PodProxy>,
    target: SocketAddr,
}

/// Who serves `upstream` on this node without a tunnel; `None` when a tunnel is due, or there is none anyway.
pub(crate) fn find(proxy: &PodProxy, client: &Arc<Workload>, upstream: &Upstream) -> Option<Near> {
    if !proxy.shared.settings.node_local {
        return None;
    }
    let mesh = proxy.shared.mesh();
    let found = decide_node_local(&mesh, client, upstream)?;
    let server_proxy = proxy.neighbour(&found.destination)?;
    // What cannot be reached at all, the ordinary way refuses, with its reason.
    let target = decide_target(&mesh, &found.destination, found.address, &found.authority).ok()?;
    Some(Near {
        client: Arc::clone(client),
        identity: client.identity()?.clone(),
        server: found.destination,
        server_proxy,
        target: target.application,
    })
}

impl Near {
    /// The application's address.
    pub(crate) fn target(&self) -> SocketAddr {
        self.target
    }

    /// Judge the connection, move its bytes, and report the server's side; the client's is the caller's.
    pub(crate) async fn carry(
        &self,
        application: &Application,
        upstream: &Upstream,
        started: Instant,
        outbound: &ConnectionReport,
    ) -> Result<(), OutboundError> {
        let live = Rc::new(Live::new(
            Arc::clone(&self.server),
            Some(self.identity.clone()),
            application.peer.ip(),
            self.target,
        ));
        let report = self.report_opened(application.peer, upstream, started);
        self.server_proxy.track(&live);
        let moved = Rc::new(Moved::default());
        report.count_in(&moved);
        outbound.count_in(&moved);
        let result = self.admit_and_relay(application, &live, &moved).await;
        let failure = result
            .as_ref()
            .err()
            .map(|refused| (refused.flag, refused.text.as_str()));
        report.complete(failure);
        result.map_err(OutboundError::NodeLocal)
    }

    async fn admit_and_relay(&self, application: &Application, live: &Rc<Live>, moved: &Moved) -> Result<(), Refused> {
        let denied = |text| Refused::new(401, Flag::Denied, text);
        live.admit(&self.server_proxy.shared).map_err(denied)?;
        let server = inbound::connect_application(&self.server_proxy, application.peer, self.target).await?;
        application.stands();
        tokio::select! {
            ended = tcp_relay::relay(&application.socket, &server, moved) => {
                ended.map_err(|error| Refused::new(503, Flag::None, error.to_string()))
            }
            (flag, why) = live.ended() => Err(Refused::new(401, flag, why)),
        }
    }

    fn report_opened(&self, client: SocketAddr, upstream: &Upstream, started: Instant) -> ConnectionReport {
        let labels = TrafficLabels {
            direction: Direction::Inbound,
            source: labels::peer(Some(&self.client)),
            destination: labels::peer(Some(&self.server)),
            service: labels::service(upstream.service().map(|service| &**service)),
            security: SecurityPolicy::NodeLocal,
        };
        let addresses = Addresses {
            source: client,
            destination: self.target,
            asked: self.target,
        };
        let pods = Pods {
            source: Some(Arc::clone(&self.client)),
            destination: Some(Arc::clone(&self.server)),
        };
        ConnectionReport::opened(&self.server_proxy.open, &labels, pods, addresses, None, started)
    }
}
