//! The DNS proxy of a pod: answers names of the mesh, hands everything else to the node's name servers (ztunnel.md 7).
//!
//! A pod's sockets are on one worker, so that an idle pod costs four descriptors (UDP and TCP, IPv4 and IPv6) however many
//! workers there are. Queries are forwarded from sockets of the pod's namespace that carry the mark, one per query: each has
//! a source port of the kernel's choosing and hears only the server that it was connected to. There is no cache: what is
//! forwarded is the client's bytes and the server's bytes, and name servers of a node are near.

mod forward;
mod listen;
mod resolve;
mod servers;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ambit_core::dns::{Decision, Received, build_failure, build_reply, parse_query, type_label};
use ambit_core::mesh_state::Workload;
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::logging::{self, Fields, Level};
use crate::proxy::{Accepted, PodProxy};
use crate::tcp_relay::write_all;
use crate::telemetry::{DnsLabels, DnsProtocol};
pub(crate) use listen::Listeners;
pub(crate) use resolve::resolve;
pub(crate) use servers::NameServers;

/// Queries of one pod that may wait for their answers. More are refused at once: each holds a socket.
pub(crate) const IN_FLIGHT: usize = 256;
/// A TCP client that asks nothing for this long is let go (ztunnel.md 7), and so is one that takes no answer.
const IDLE: Duration = Duration::from_secs(5);

/// Serve one UDP socket until the pod's listeners are closed.
pub(crate) async fn serve_udp(proxy: Rc<PodProxy>, socket: Rc<UdpSocket>) {
    loop {
        // An error is an ICMP message about an earlier answer, which tells nothing of this socket.
        if socket.readable().await.is_err() {
            return;
        }
        let Ok((message, client)) = listen::receive_from(&socket) else {
            continue;
        };
        let (socket, asked) = (Rc::clone(&socket), Rc::clone(&proxy));
        proxy.spawn(async move {
            if let Some(reply) = answer(&asked, &message, DnsProtocol::Udp).await {
                // A client that has gone hears nothing, as with any UDP.
                let _ = socket.send_to(&reply, client).await;
            }
        });
    }
}

/// Serve one TCP connection: messages with their lengths before them, one after the other (RFC 7766).
pub(crate) async fn serve_tcp(proxy: Rc<PodProxy>, accepted: Accepted) {
    let socket = accepted.socket;
    while let Ok(Ok(message)) = timeout(IDLE, forward::read_message(&socket)).await {
        let Some(reply) = answer(&proxy, &message, DnsProtocol::Tcp).await else {
            return;
        };
        if !matches!(timeout(IDLE, write_message(&socket, &reply)).await, Ok(Ok(()))) {
            return;
        }
    }
}

async fn write_message(socket: &TcpStream, message: &[u8]) -> std::io::Result<()> {
    write_all(socket, &forward::with_length(message)?).await
}

/// The answer to one message; `None` for what is no query.
async fn answer(proxy: &PodProxy, message: &[u8], protocol: DnsProtocol) -> Option<Vec<u8>> {
    let received = parse_query(message);
    if received == Received::Ignored {
        return None;
    }
    let Some(_place) = proxy.dns_places.enter() else {
        return Some(build_failure(message));
    };
    let metrics = &proxy.shared.metrics.dns;
    let workload = proxy.workload().await;
    let labels = DnsLabels::new(type_label(message), protocol, workload.as_deref().ok());
    metrics.series(&labels).requests.fetch_add(1, Relaxed);
    let workload = match workload {
        Ok(workload) => workload,
        Err(error) => {
            report(None, &labels, &received, &error, "");
            return Some(build_failure(message));
        }
    };
    if let Some(reply) = answer_of_mesh(proxy, &workload, message, &received, &labels) {
        return Some(reply);
    }
    let series = metrics.series(&labels);
    series.forwarded.fetch_add(1, Relaxed);
    let started = Instant::now();
    let result = forward::ask(proxy, message, protocol).await;
    series.duration.observe(started.elapsed());
    Some(match result {
        Ok(reply) => {
            report(Some(&workload), &labels, &received, "forwarded", "");
            reply
        }
        Err(error) => {
            series.failed.fetch_add(1, Relaxed);
            let text = format!("forwarding failed: {error}");
            report(Some(&workload), &labels, &received, &text, "");
            build_failure(message)
        }
    })
}

fn answer_of_mesh(
    proxy: &PodProxy,
    workload: &Arc<Workload>,
    message: &[u8],
    received: &Received,
    labels: &DnsLabels,
) -> Option<Vec<u8>> {
    let Received::Question(query) = received else {
        return None;
    };
    let settings = proxy.shared.settings.dns.as_ref()?;
    let mesh = proxy.shared.mesh();
    let decision = settings
        .resolver
        .decide(&mesh, workload, &query.name, query.kind, &mut || fastrand::u64(..));
    let Decision::Answer(found) = decision else {
        return None;
    };
    let result = if found.addresses.is_empty() {
        "no records"
    } else {
        "success"
    };
    if logging::is_enabled(Level::Debug, "dns") {
        let addresses: Vec<_> = found.addresses.iter().map(ToString::to_string).collect();
        report(Some(workload), labels, received, result, &addresses.join(","));
    }
    let over_udp = labels.protocol == DnsProtocol::Udp;
    let canonical = found.canonical.as_deref();
    Some(build_reply(message, query, canonical, &found.addresses, over_udp))
}

/// The log's line of one query (ztunnel.md 7).
fn report(workload: Option<&Workload>, labels: &DnsLabels, received: &Received, result: &str, endpoints: &str) {
    if !logging::is_enabled(Level::Debug, "dns") {
        return;
    }
    let domain = match received {
        Received::Question(query) => &*query.name,
        Received::Other | Received::Ignored => "",
    };
    let fields = Fields::default()
        .text("src.workload", workload.map(Workload::name).unwrap_or_default())
        .text("src.namespace", workload.map(Workload::namespace).unwrap_or_default())
        .text("query", labels.query_type)
        .text("domain", domain)
        .text("result", result)
        .text("endpoints", endpoints);
    logging::write(Level::Debug, "dns", "query complete", &fields);
}

/// Counts the queries that wait.
#[derive(Default)]
pub(crate) struct Places {
    taken: Rc<std::cell::Cell<usize>>,
}

/// One of them; it is free again when this is dropped.
pub(crate) struct Place(Rc<std::cell::Cell<usize>>);

impl Places {
    /// `None` when all are taken.
    pub(crate) fn enter(&self) -> Option<Place> {
        let taken = self.taken.get();
        (taken < IN_FLIGHT).then(|| {
            self.taken.set(taken + 1);
            Place(Rc::clone(&self.taken))
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
