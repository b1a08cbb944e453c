//! To the pod's application: through a tunnel (15008) or in plaintext (15006), judged by the policies (ztunnel.md 3).

use std::fmt::Display;
use std::io::IoSlice;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use ambit_core::demand::missing_inbound;
use ambit_core::framing::{Connection, MalformedRequest, RequestHead};
use ambit_core::hbone::{Authority, Baggage, parse_forwarded_host};
use ambit_core::identity::Identity;
use ambit_core::inbound as decisions;
use ambit_core::mesh_state::Workload;
use ambit_core::proxy_protocol::ProxyHeader;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::busy_poll;
use crate::demand::Demand;
use crate::labels;
use crate::live::Live;
use crate::penalty;
use crate::pool::HANDSHAKE_TIMEOUT;
use crate::proxy::{Accepted, PodProxy};
use crate::settings::{ApplicationTunnelAddress, Baggage as BaggageSetting, OriginalSource};
use crate::sockets::{self, Source};
use crate::tcp_relay;
use crate::telemetry::{
    Addresses, ConnectionReport, Direction, Flag, Moved, Pods, SecurityPolicy, TrafficLabels, report_early_failure,
};
use crate::tls::{handshake, verify};
use crate::tunnel::allotment::Allotment;
use crate::tunnel::{Request, Stream, Tunnel, TunnelEnd, revocable};

/// What all streams of one inbound tunnel have in common.
struct Client {
    /// The pod that it leads to.
    workload: Arc<Workload>,
    identity: Identity,
    /// The client's address: the original one, since tunnels come from the client's own namespace.
    address: SocketAddr,
    /// Ours: the pod's address and 15008.
    local: SocketAddr,
}

/// Serve one tunnel.
pub(crate) async fn serve_hbone(proxy: Rc<PodProxy>, accepted: Accepted) {
    let Accepted {
        socket,
        peer,
        open: _open,
    } = accepted;
    let Ok(local) = sockets::local(&socket) else {
        return; // The connection is gone already.
    };
    let fail_early = |error: &str| {
        report_early_failure(&proxy.shared.metrics, Direction::Inbound, peer, local, error);
    };
    if let Err(refused) = penalty::serve_out(peer.ip()).await {
        return fail_early(&refused.to_string());
    }
    match accept_tunnel(&proxy, &socket, peer, local).await {
        Ok((client, established)) => {
            let revocations = &proxy.shared.tls.revocations;
            let links = established.links(revocations);
            let allotment = Allotment::of_client(&client.identity);
            let place = match allotment.enter_tunnel(&client.identity) {
                Ok(place) => place,
                Err(exhausted) => return fail_early(&exhausted.to_string()),
            };
            let framer = Connection::server(proxy.shared.settings.server());
            let (tunnel, early) = Tunnel::new(socket, established, framer, Rc::clone(&allotment));
            proxy.track_tunnel(&tunnel);
            revocable::track(&tunnel, links, revocations);
            let client = Rc::new(client);
            let accept = |request: Request| {
                let (serving, client) = (Rc::clone(&proxy), Rc::clone(&client));
                match allotment.enter_stream(&client.identity) {
                    Ok(place) => proxy.spawn(async move {
                        serve_connect(&serving, &client, request).await;
                        drop(place);
                    }),
                    Err(exhausted) => {
                        request.stream.refuse(503, None);
                        fail_early(&exhausted.to_string());
                    }
                }
            };
            let end = tunnel.drive(early, &accept).await;
            drop(place);
            if let TunnelEnd::Tls(_) | TunnelEnd::Http2(_) = end {
                penalty::punish(peer.ip());
            }
            if let TunnelEnd::Tls(_) | TunnelEnd::Http2(_) | TunnelEnd::Unresponsive = end {
                fail_early(&end.to_string());
            }
        }
        Err(error) => fail_early(&error),
    }
}

async fn accept_tunnel(
    proxy: &PodProxy,
    socket: &TcpStream,
    address: SocketAddr,
    local: SocketAddr,
) -> Result<(Client, handshake::Established), String> {
    let workload = proxy.workload().await?;
    let own = proxy.identity(&workload)?;
    let certificate = proxy
        .shared
        .certificates
        .get(&own)
        .await
        .map_err(|error| error.to_string())?;
    let established = timeout(
        HANDSHAKE_TIMEOUT,
        handshake::accept(socket, Arc::clone(&certificate.server)),
    )
    .await
    .map_err(|_| "the client did not finish the tls handshake in 10 s".to_owned())?
    .map_err(|error| error.to_string())?;
    let identity = verify::identity_of(&established.peer)?;
    Ok((
        Client {
            workload,
            identity,
            address,
            local,
        },
        established,
    ))
}

/// A request that cannot be served: what the client is told, and what the log is.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) flag: Flag,
    pub(crate) text: String,
}

impl Refused {
    pub(crate) fn new(status: u16, flag: Flag, text: String) -> Self {
        Self { status, flag, text }
    }
}

/// Serve one CONNECT.
async fn serve_connect(proxy: &Rc<PodProxy>, client: &Client, request: Request) {
    let started = Instant::now();
    busy_poll::note_connection(started);
    let Request { stream, head } = request;
    if let (Some(demand), Ok(head)) = (&proxy.shared.demand, &head) {
        // Boxed, so that other connections do not carry the room for it.
        Box::pin(learn_target(proxy, client, demand, head)).await;
    }
    let Some((live, report, header)) = open_report(proxy, client, &stream, head, started) else {
        return;
    };
    proxy.track(&live);
    report.count_in(&stream.moved);
    match admit_and_relay(proxy, client, &live, &stream, header).await {
        Ok(()) => report.complete(None),
        Err(refused) => report.complete(Some((refused.flag, &refused.text))),
    }
}

/// Ask the controller for what is meant, where the mesh is discovered on demand. What stays unknown is refused as ever.
async fn learn_target(proxy: &PodProxy, client: &Client, demand: &Demand, head: &RequestHead) {
    let Ok(authority) = head.authority.parse::<Authority>() else {
        return;
    };
    let decide = || {
        let (mesh, workload) = (proxy.shared.mesh(), &client.workload);
        let decided = decisions::decide_target(&mesh, workload, client.local.ip(), &authority);
        let missing = decided.err().and_then(|refusal| missing_inbound(workload, &refusal));
        ((), missing)
    };
    if let Err(unanswered) = demand.complete(decide).await {
        let metrics = &proxy.shared.metrics;
        report_early_failure(
            metrics,
            Direction::Inbound,
            client.address,
            client.local,
            &unanswered.to_string(),
        );
    }
}

/// Find out what is meant and report the connection as opened, or refuse it. The head's texts end here: an idle connection
/// has no use for them.
fn open_report(
    proxy: &PodProxy,
    client: &Client,
    stream: &Stream,
    head: Result<RequestHead, MalformedRequest>,
    started: Instant,
) -> Option<(Rc<Live>, ConnectionReport, Option<Vec<u8>>)> {
    match find_target(proxy, client, head) {
        Ok((head, target, header)) => {
            let peer = Some(client.identity.clone());
            let live = Live::new(Arc::clone(&client.workload), peer, client.address.ip(), target);
            let addresses = Addresses {
                source: client.address,
                destination: client.local,
                asked: target,
            };
            let report = report_opened(proxy, &live, Some(&head), addresses, started);
            Some((Rc::new(live), report, header))
        }
        Err(refused) => {
            stream.refuse(refused.status, None);
            let metrics = &proxy.shared.metrics;
            report_early_failure(metrics, Direction::Inbound, client.address, client.local, &refused.text);
            None
        }
    }
}

/// Which address of the application the client means, and the PROXY header that the application wants before all else;
/// also that the client may mean it at all.
fn find_target(
    proxy: &PodProxy,
    client: &Client,
    head: Result<RequestHead, MalformedRequest>,
) -> Result<(RequestHead, SocketAddr, Option<Vec<u8>>), Refused> {
    let head = head.map_err(|error| Refused::new(error.status(), Flag::None, format!("bad CONNECT: {error}")))?;
    let authority = head
        .authority
        .parse::<Authority>()
        .map_err(|error| Refused::new(400, Flag::None, format!("bad CONNECT: {error}")))?;
    let mesh = proxy.shared.mesh();
    let target = decisions::decide_target(&mesh, &client.workload, client.local.ip(), &authority)
        .map_err(|refusal| Refused::new(refusal.status(), Flag::None, refusal.to_string()))?;
    // ztunnel's namespace may be its node's, whose other ports are nobody's business.
    if let Some(ports) = proxy.pod.own_ports
        && !ports.contains(&target.application.port())
    {
        let text = format!(
            "only ports {ports:?} of ztunnel itself are served through the mesh, not {}",
            target.application
        );
        return Err(Refused::new(503, Flag::None, text));
    }
    let header = target.proxy_header.map(|destination| {
        let header = ProxyHeader {
            source: client.address,
            destination: destination.address,
            identity: Some(&client.identity),
            service: destination.service.as_ref().map(|service| service.hostname()),
        };
        header.encode()
    });
    Ok((head, target.application, header))
}

fn report_opened(
    proxy: &PodProxy,
    live: &Live,
    head: Option<&RequestHead>,
    addresses: Addresses,
    started: Instant,
) -> ConnectionReport {
    let mesh = proxy.shared.mesh();
    // Through a gateway the address is the gateway's; who is behind it says so itself (ztunnel.md 1.10).
    let is_foreign = head
        .and_then(|head| head.x_forwarded_network.as_deref())
        .is_some_and(|network| !network.eq_ignore_ascii_case(&mesh.settings().network));
    let source = mesh
        .workload_by_ip(&mesh.settings().network, live.source)
        .filter(|_| !is_foreign);
    let asked = head
        .and_then(|head| head.forwarded.as_deref())
        .and_then(parse_forwarded_host);
    let service = decisions::guess_service(&mesh, &live.workload, live.destination.port(), asked);
    let is_read = proxy.shared.settings.baggage == BaggageSetting::Exchanged;
    let baggage = head
        .filter(|_| is_read)
        .and_then(|head| head.baggage.as_deref())
        .map(Baggage::parse);
    let labels = TrafficLabels {
        direction: Direction::Inbound,
        source: labels::client(source.map(|source| &**source), baggage.as_ref(), live.peer.as_ref()),
        destination: labels::peer(Some(&live.workload)),
        service: labels::service(service.map(|service| &**service)),
        security: if live.peer.is_some() {
            SecurityPolicy::MutualTls
        } else {
            SecurityPolicy::Unknown
        },
    };
    let authority = head.map(|head| head.authority.clone());
    let pods = Pods {
        source: source.cloned(),
        destination: Some(Arc::clone(&live.workload)),
    };
    ConnectionReport::opened(&proxy.open, &labels, pods, addresses, authority, started)
}

async fn admit_and_relay(
    proxy: &PodProxy,
    client: &Client,
    live: &Rc<Live>,
    stream: &Rc<Stream>,
    header: Option<Vec<u8>>,
) -> Result<(), Refused> {
    let refuse = |refused: Refused| {
        // Which policy it was helps whoever reads the client's log. What else fails is this node's own business.
        let why = (refused.flag == Flag::Denied).then_some(refused.text.as_str());
        stream.refuse(refused.status, why);
        refused
    };
    live.admit(&proxy.shared)
        .map_err(|text| refuse(Refused::new(401, Flag::Denied, text)))?;
    let connect = async {
        match header {
            None => connect_application(proxy, client.address, live.destination).await,
            // Boxed, so that other connections do not carry the room for it.
            Some(header) => Box::pin(introduce(proxy, client.address, live.destination, header)).await,
        }
    };
    let application = tokio::select! {
        connected = connect => connected,
        end = stream.failed() => Err(Refused::new(503, end.flag(), end.to_string())),
        (flag, why) = live.ended() => Err(Refused::new(401, flag, why)),
    }
    .map_err(refuse)?;
    match proxy.shared.settings.baggage {
        BaggageSetting::Exchanged => {
            let baggage = labels::baggage(&client.workload).to_string();
            stream.respond(&[("baggage", &baggage)]);
        }
        BaggageSetting::Ignored => stream.respond(&[]),
    }
    tokio::select! {
        ended = stream.relay(Rc::new(application)) => {
            ended.map_err(|error| Refused::new(503, error.flag(), error.to_string()))
        }
        (flag, why) = live.ended() => Err(Refused::new(401, flag, why)),
    }
}

/// Connect to an application that learns from a PROXY header who its client is, and write that.
async fn introduce(
    proxy: &PodProxy,
    client: SocketAddr,
    target: SocketAddr,
    header: Vec<u8>,
) -> Result<TcpStream, Refused> {
    let application = match proxy.shared.settings.application_tunnel {
        ApplicationTunnelAddress::Pod => connect_application(proxy, client, target).await?,
        ApplicationTunnelAddress::Loopback => {
            let loopback: IpAddr = match target.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            };
            connect_as(proxy, SocketAddr::new(loopback, target.port()), Source::Own).await?
        }
    };
    // It fits into the empty buffer of a new socket.
    match sockets::write_now(&application, &[IoSlice::new(&header)]) {
        Ok(written) if written == header.len() => Ok(application),
        Ok(_) => Err(unreachable("it took only a part of the PROXY header")),
        Err(error) => Err(unreachable(error)),
    }
}

/// Connect to the application as if we were the client.
pub(crate) async fn connect_application(
    proxy: &PodProxy,
    client: SocketAddr,
    target: SocketAddr,
) -> Result<TcpStream, Refused> {
    let is_hidden = proxy.shared.settings.sockets.original_source == OriginalSource::Never;
    let source = if is_hidden || proxy.pod.is_own() || client.ip() == target.ip() {
        Source::Own
    } else {
        Source::Spoofed(client.ip())
    };
    connect_as(proxy, target, source).await
}

async fn connect_as(proxy: &PodProxy, target: SocketAddr, source: Source) -> Result<TcpStream, Refused> {
    proxy.connect(target, source).await.map_err(unreachable)
}

fn unreachable(why: impl Display) -> Refused {
    Refused::new(503, Flag::Connect, format!("the application does not answer: {why}"))
}

/// Serve one connection that came in plaintext.
pub(crate) async fn serve_plaintext(proxy: Rc<PodProxy>, accepted: Accepted) {
    let started = Instant::now();
    busy_poll::note_connection(started);
    let Ok(target) = sockets::original_destination(&accepted.socket, accepted.peer) else {
        return; // The connection is gone already.
    };
    let workload = match find_plaintext_workload(&proxy, target).await {
        Ok(workload) => workload,
        Err(error) => {
            sockets::reset_on_close(&accepted.socket);
            let metrics = &proxy.shared.metrics;
            return report_early_failure(metrics, Direction::Inbound, accepted.peer, target, &error);
        }
    };
    let live = Rc::new(Live::new(workload, None, accepted.peer.ip(), target));
    let addresses = Addresses {
        source: accepted.peer,
        destination: target,
        asked: target,
    };
    let report = report_opened(&proxy, &live, None, addresses, started);
    proxy.track(&live);
    let moved = Rc::new(Moved::default());
    report.count_in(&moved);
    match relay_plaintext(&proxy, &accepted, &live, &moved).await {
        Ok(()) => report.complete(None),
        Err(refused) => {
            sockets::reset_on_close(&accepted.socket);
            report.complete(Some((refused.flag, &refused.text)));
        }
    }
}

async fn find_plaintext_workload(proxy: &PodProxy, target: SocketAddr) -> Result<Arc<Workload>, String> {
    decisions::check_plaintext(&proxy.shared.mesh(), target).map_err(|refusal| refusal.to_string())?;
    proxy.workload().await
}

async fn relay_plaintext(proxy: &PodProxy, accepted: &Accepted, live: &Rc<Live>, moved: &Moved) -> Result<(), Refused> {
    live.admit(&proxy.shared)
        .map_err(|text| Refused::new(401, Flag::Denied, text))?;
    let application = connect_application(proxy, accepted.peer, live.destination).await?;
    tokio::select! {
        ended = tcp_relay::relay(&accepted.socket, &application, moved) => {
            ended.map_err(|error| Refused::new(503, Flag::None, error.to_string()))
        }
        (flag, why) = live.ended() => Err(Refused::new(401, flag, why)),
    }
}
