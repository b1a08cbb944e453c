//! From the pod's applications: whom the connection is for, and by which way (ztunnel.md 2).

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ambit_core::demand::missing_outbound;
use ambit_core::framing::{self, OpenError};
use ambit_core::hbone::{Forwarded, TraceParent};
use ambit_core::identity::Identity;
use ambit_core::mesh_state::{MeshState, Workload};
use ambit_core::socks5::{Reply, encode_reply};
use ambit_core::upstream::{Dial, Upstream, decide_another, decide_upstream};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use crate::busy_poll;
use crate::dns;
use crate::gateway::{self, FarEnd, GatewayError, InnerTunnel};
use crate::inbound::Refused;
use crate::labels;
use crate::node_local::{self, Near};
use crate::pool::{DialError, PoolKey};
use crate::proxy::{Accepted, PodProxy};
use crate::sockets::{self, Source};
use crate::tcp_relay;
use crate::telemetry::{
    Addresses, ConnectionReport, Direction, Flag, Moved, OpenSocket, Pods, SecurityPolicy, TrafficLabels,
    report_early_failure,
};
use crate::tunnel::{RelayEnd, Stream};

/// The other end connects to its application before it answers, for which it has 10 s; a little more for the way.
/// Stock ztunnel waits for ever (ztunnel.md 12.1, 7).
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// Why a connection through the mesh failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutboundError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("no stream in the tunnel: {0}")]
    Open(#[from] OpenError),
    #[error(transparent)]
    Relay(#[from] RelayEnd),
    #[error("{0}")]
    Plain(std::io::Error),
    #[error("{0}")]
    Identity(String),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error("{}", .0.text)]
    NodeLocal(Refused),
}

impl OutboundError {
    fn flag(&self) -> Flag {
        match self {
            Self::Dial(error) => error.flag(),
            Self::Relay(end) => end.flag(),
            Self::Open(_) => Flag::Connect,
            Self::Identity(_) => Flag::IdentityError,
            Self::Gateway(error) => error.flag(),
            Self::NodeLocal(refused) => refused.flag,
            Self::Plain(_) => Flag::None,
        }
    }

    /// What a client of SOCKS5 is told.
    fn reply(&self) -> Reply {
        match self.flag() {
            Flag::Denied => Reply::NotAllowed,
            Flag::Connect => Reply::Refused,
            _ => Reply::Failed,
        }
    }
}

/// A connection of an application, and whether that waits to hear that it stands.
pub(crate) struct Application {
    pub(crate) socket: Rc<TcpStream>,
    pub(crate) peer: SocketAddr,
    /// It asked by SOCKS5 and has no answer yet.
    awaits_reply: Cell<bool>,
    _open: OpenSocket,
}

impl Application {
    /// One that believes to be connected already.
    fn captured(accepted: Accepted) -> Self {
        Self {
            socket: Rc::new(accepted.socket),
            peer: accepted.peer,
            awaits_reply: Cell::new(false),
            _open: accepted.open,
        }
    }

    /// One that asked by SOCKS5.
    pub(crate) fn socks5(accepted: Accepted) -> Self {
        let application = Self::captured(accepted);
        application.awaits_reply.set(true);
        application
    }

    /// The connection stands: what follows is from the other end.
    pub(crate) fn stands(&self) {
        if self.awaits_reply.replace(false) {
            self.reply(Reply::Succeeded);
        }
    }

    /// There will be no connection: say why to who can hear it, reset the others.
    pub(crate) fn refuse(&self, reply: Reply) {
        if self.awaits_reply.replace(false) {
            self.reply(reply);
            sockets::close_in_order(&*self.socket);
        } else {
            sockets::reset_on_close(&*self.socket);
        }
    }

    fn reply(&self, reply: Reply) {
        // Ten bytes fit into the socket's empty buffer; when the client is gone, nobody waits for them.
        let _ = self.socket.try_write(&encode_reply(reply));
    }
}

/// Serve one connection of an application.
pub(crate) async fn serve(proxy: Rc<PodProxy>, accepted: Accepted) {
    let started = Instant::now();
    busy_poll::note_connection(started);
    let Ok(original) = sockets::original_destination(&accepted.socket, accepted.peer) else {
        return; // The connection is gone already.
    };
    serve_to(&proxy, &Application::captured(accepted), original, started).await;
}

/// Serve a connection that is meant for `dialled`.
pub(crate) async fn serve_to(proxy: &Rc<PodProxy>, application: &Application, dialled: SocketAddr, started: Instant) {
    let fail_early = |error: &str| {
        let metrics = &proxy.shared.metrics;
        report_early_failure(metrics, Direction::Outbound, application.peer, dialled, error);
    };
    let source = match proxy.workload().await {
        Ok(source) => source,
        Err(error) => {
            application.refuse(Reply::Failed);
            return fail_early(&error);
        }
    };
    let mut way = match Way::decide(proxy, &source, dialled).await {
        Ok(way) => way,
        Err(error) => {
            application.refuse(Reply::HostUnreachable);
            return fail_early(&error);
        }
    };
    // One other endpoint is tried: more would let a dead service cost its clients minutes.
    let mut may_try_another = true;
    while let Some(another) = carry(proxy, application, &source, &way, dialled, may_try_another, started).await {
        way = another;
        may_try_another = false;
    }
}

/// A decision with its address: what can be carried out at once.
struct Way {
    upstream: Upstream,
    target: SocketAddr,
}

impl Way {
    /// Decide by the mesh as it is now, which a long connection does not hold on to.
    async fn decide(proxy: &PodProxy, source: &Workload, dialled: SocketAddr) -> Result<Self, String> {
        let decide = |mesh: &MeshState| decide_upstream(mesh, source, dialled, &mut || fastrand::u64(..));
        let decided = match &proxy.shared.demand {
            None => decide(&proxy.shared.mesh()),
            // Boxed, so that other connections do not carry the room for it.
            Some(demand) => Box::pin(demand.complete(|| {
                let mesh = proxy.shared.mesh();
                let decided = decide(&mesh);
                let missing = missing_outbound(&mesh, source, dialled, &decided);
                (decided, missing)
            }))
            .await
            .map_err(|error| error.to_string())?,
        };
        Self::resolve(proxy, source, decided.map_err(|error| error.to_string())?).await
    }

    /// Another way for a connection to `dialled` that could not be connected by this one.
    async fn another(&self, proxy: &PodProxy, source: &Workload, dialled: SocketAddr) -> Option<Self> {
        let mesh = proxy.shared.mesh();
        let another = decide_another(&mesh, source, dialled, &self.upstream, &mut || fastrand::u64(..))?;
        Self::resolve(proxy, source, another).await.ok()
    }

    /// Find the address of an endpoint that has a name instead. Errors are texts for the log.
    async fn resolve(proxy: &PodProxy, source: &Workload, upstream: Upstream) -> Result<Self, String> {
        match upstream.dial() {
            Dial::Address(target) => Ok(Self { upstream, target }),
            Dial::Name {
                hostname,
                port,
                prefers_ipv6,
            } => {
                proxy
                    .shared
                    .metrics
                    .dns
                    .count_on_demand(labels::peer(Some(source)), &hostname);
                // Boxed, so that other connections do not carry the room for it.
                let resolved = Box::pin(dns::resolve(proxy, &hostname, prefers_ipv6)).await;
                let ip = resolved.map_err(|error| format!("endpoint {hostname} has no address: {error}"))?;
                Ok(Self {
                    upstream: upstream.with_ip(ip),
                    target: SocketAddr::new(ip, port),
                })
            }
        }
    }
}

/// Report the connection, move its bytes, report how it went. Returns another way to `dialled` when nothing could be
/// connected by this one and another may be tried.
async fn carry(
    proxy: &Rc<PodProxy>,
    application: &Application,
    source: &Arc<Workload>,
    way: &Way,
    dialled: SocketAddr,
    may_try_another: bool,
    started: Instant,
) -> Option<Way> {
    let near = node_local::find(proxy, source, &way.upstream);
    let addresses = Addresses {
        source: application.peer,
        destination: near.as_ref().map_or(way.target, Near::target),
        asked: dialled,
    };
    let report = report_opened(proxy, addresses, source, way, near.is_some(), started);
    let result = if let Some(near) = &near {
        // Boxed, so that other connections do not carry the room for it.
        Box::pin(near.carry(application, &way.upstream, started, &report)).await
    } else if let Upstream::DoubleHbone { .. } = &way.upstream {
        // Boxed, so that other connections do not carry the room for it.
        Box::pin(through_gateway(proxy, application, source, way, &report)).await
    } else if way.upstream.authority().is_some() {
        through_tunnel(proxy, application, source, way, &report).await
    } else {
        plainly(proxy, application, way.target, &report).await
    };
    let Err(error) = result else {
        report.complete(None);
        return None;
    };
    let is_unreachable = matches!(&error, OutboundError::Dial(error) if error.is_unreachable());
    let another = if may_try_another && is_unreachable {
        way.another(proxy, source, dialled).await
    } else {
        None
    };
    let text = match &another {
        Some(another) => format!("{error}; trying {} instead", another.target),
        None => error.to_string(),
    };
    let is_answered = report.is_answered();
    report.complete(Some((error.flag(), &text)));
    if another.is_none() && !is_answered {
        // The application heard nothing yet: a reset says that the connection never came about.
        application.refuse(error.reply());
    }
    another
}

fn report_opened(
    proxy: &PodProxy,
    addresses: Addresses,
    source: &Arc<Workload>,
    way: &Way,
    is_near: bool,
    started: Instant,
) -> ConnectionReport {
    let upstream = &way.upstream;
    let security = match upstream.authority() {
        _ if is_near => SecurityPolicy::NodeLocal,
        Some(_) => SecurityPolicy::MutualTls,
        None => SecurityPolicy::Unknown,
    };
    let labels = TrafficLabels {
        direction: Direction::Outbound,
        source: labels::peer(Some(source)),
        destination: labels::peer(upstream.workload().map(|workload| &**workload)),
        service: labels::service(upstream.service().map(|service| &**service)),
        security,
    };
    let authority = upstream.authority().filter(|_| !is_near).map(ToString::to_string);
    let is_known = !matches!(upstream, Upstream::DoubleHbone { .. });
    let open = if is_known {
        ConnectionReport::opened
    } else {
        ConnectionReport::pending
    };
    let pods = Pods {
        source: Some(Arc::clone(source)),
        destination: upstream.workload().cloned(),
    };
    open(&proxy.open, &labels, pods, addresses, authority, started)
}

async fn plainly(
    proxy: &PodProxy,
    application: &Application,
    target: SocketAddr,
    report: &ConnectionReport,
) -> Result<(), OutboundError> {
    let server = proxy.connect(target, Source::Own).await?;
    application.stands();
    let moved = Rc::new(Moved::default());
    report.count_in(&moved);
    let result = tcp_relay::relay(&application.socket, &server, &moved).await;
    result.map_err(OutboundError::Plain)
}

async fn through_tunnel(
    proxy: &Rc<PodProxy>,
    application: &Application,
    source: &Arc<Workload>,
    way: &Way,
    report: &ConnectionReport,
) -> Result<(), OutboundError> {
    // Boxed, as are the other steps before bytes move: an idle connection keeps no room for what it did to get there.
    let stream = Box::pin(ask(proxy, application, source, way)).await?;
    let socket = Rc::clone(&application.socket);
    let heard = |_: Option<&str>| application.stands();
    report.count_in(&stream.moved);
    Ok(stream.open_and_relay_with(socket, RESPONSE_TIMEOUT, heard).await?)
}

/// A stream that asks for the destination.
async fn ask(
    proxy: &Rc<PodProxy>,
    application: &Application,
    source: &Workload,
    way: &Way,
) -> Result<Rc<Stream>, OutboundError> {
    let key = pool_key(proxy, source, way)?;
    let head = HeadText::new(application.peer, source, &way.upstream);
    open_stream(proxy, &key, &head.connect_head(None)).await
}

/// Through the gateway of another network; `report` learns who serves there.
async fn through_gateway(
    proxy: &Rc<PodProxy>,
    application: &Application,
    source: &Arc<Workload>,
    way: &Way,
    report: &ConnectionReport,
) -> Result<(), OutboundError> {
    let head = HeadText::new(application.peer, source, &way.upstream);
    let network = Arc::clone(&proxy.shared.mesh().settings().network);
    let key = pool_key(proxy, source, way)?;
    let tls = inner_tls(proxy, &key.source, &way.upstream).await?;
    let outer = open_stream(proxy, &key, &head.connect_head(None)).await?;
    let inner = InnerTunnel {
        tls,
        rules: Arc::clone(&proxy.shared.tls),
        settings: proxy.shared.settings.client(),
        head: head.connect_head(Some(&network)),
        patience: RESPONSE_TIMEOUT,
    };
    let reports = gateway::Reports {
        opened: |moved: &Rc<Moved>| report.count_in(moved),
        heard: |far: FarEnd| {
            report.learn_destination(labels::far_end(far.baggage.as_ref(), &far.identity));
            application.stands();
        },
    };
    let spawn = |rest| proxy.spawn(rest);
    Ok(gateway::relay(outer, Rc::clone(&application.socket), inner, reports, spawn).await?)
}

/// How to prove `identity` to whoever serves behind the gateway, and whom to believe there.
async fn inner_tls(proxy: &PodProxy, identity: &Identity, upstream: &Upstream) -> Result<ClientConfig, OutboundError> {
    let Upstream::DoubleHbone {
        inner_accepted,
        service,
        ..
    } = upstream
    else {
        return Err(OutboundError::Identity(
            "the destination is behind no gateway".to_owned(),
        ));
    };
    if inner_accepted.is_empty() {
        return Err(GatewayError::NoIdentity(service.hostname().to_owned()).into());
    }
    let certificate = proxy.shared.certificates.get(identity).await.map_err(DialError::from)?;
    let config = certificate.client_config(inner_accepted.clone());
    config.map_err(|error| GatewayError::Handshake(error.to_string()).into())
}

fn pool_key(proxy: &PodProxy, source: &Workload, way: &Way) -> Result<PoolKey, OutboundError> {
    Ok(PoolKey {
        source: proxy.identity(source).map_err(OutboundError::Identity)?,
        accepted: way.upstream.accepted().to_vec(),
        target: way.target,
    })
}

/// What a CONNECT says; both layers of a double tunnel say the same (ztunnel.md 1.5, 1.10).
struct HeadText {
    authority: String,
    baggage: String,
    forwarded: String,
    traceparent: String,
}

impl HeadText {
    fn new(client: SocketAddr, source: &Workload, upstream: &Upstream) -> Self {
        let forwarded = Forwarded {
            client,
            host: upstream.service().map(|service| service.hostname()),
        };
        let traceparent = TraceParent {
            trace: fastrand::u128(..),
            span: fastrand::u64(..),
        };
        Self {
            authority: upstream.authority().map(ToString::to_string).unwrap_or_default(),
            baggage: labels::baggage(source).to_string(),
            forwarded: forwarded.to_string(),
            traceparent: traceparent.to_string(),
        }
    }

    /// `network` is ours, for whoever reads the head in another.
    fn connect_head<'a>(&'a self, network: Option<&'a str>) -> framing::ConnectHead<'a> {
        framing::ConnectHead {
            authority: &self.authority,
            baggage: Some(&self.baggage),
            forwarded: Some(&self.forwarded),
            traceparent: Some(&self.traceparent),
            x_forwarded_network: network,
        }
    }
}

async fn open_stream(
    proxy: &Rc<PodProxy>,
    key: &PoolKey,
    head: &framing::ConnectHead<'_>,
) -> Result<Rc<Stream>, OutboundError> {
    loop {
        let tunnel = proxy.pool.checkout(key).await?;
        match tunnel.open(head) {
            Ok(stream) => return Ok(stream),
            // Somebody was faster, or the tunnel ended just now: another one will do.
            Err(OpenError::TooManyStreams | OpenError::Draining) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::serve;

    /// What an idle connection of an application costs, besides its sockets. Grow it knowingly: nodes have thousands.
    #[test]
    fn an_outbound_connection_keeps_little() {
        fn size_of_result<A, B, F>(_: fn(A, B) -> F) -> usize {
            size_of::<F>()
        }
        assert!(size_of_result(serve) <= 1800, "{}", size_of_result(serve));
    }
}
