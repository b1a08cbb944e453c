//! The three HTTP servers around the data path: admin (loopback only), metrics, readiness (ztunnel.md 8.1 to 8.3).

mod certificates;
mod negotiation;
mod pages;

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::handover::Inherited;
use crate::node::Node;

/// A client that takes longer for its request's head is cut off (ztunnel.md 8.1).
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BUFFER: usize = 8 * 1024;
/// After a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Reply = Response<Full<Bytes>>;
/// A page that is being made.
type Page<'a> = Pin<Box<dyn Future<Output = Reply> + Send + 'a>>;
/// What a server answers to a request.
type Pages = for<'a> fn(&'a Node, &'a Request<Incoming>) -> Page<'a>;

/// Ports of the three servers.
#[derive(Clone, Copy, Debug)]
pub struct AdminPorts {
    /// On loopback.
    pub admin: u16,
    /// On all addresses: scraped from outside.
    pub stats: u16,
    /// On all addresses: probed from outside.
    pub readiness: u16,
}

/// One listening socket and the task that accepts on it.
pub(crate) struct Server {
    listener: Arc<TcpListener>,
    accepting: AbortHandle,
}

impl Server {
    /// Stop; returns the socket, with whatever waits in its queue.
    pub(crate) fn hand_over(self) -> Option<OwnedFd> {
        self.accepting.abort();
        self.listener.as_fd().try_clone_to_owned().ok()
    }
}

/// Listen on all three, or take the sockets that a predecessor had. Errors name the port that is taken. Must run inside the
/// control runtime.
pub(crate) fn start(node: &Arc<Node>, ports: AdminPorts, inherited: &mut Inherited) -> io::Result<Vec<Server>> {
    let admins = take_or_open(inherited, ports.admin, || {
        let mut listeners = vec![listen(Ipv4Addr::LOCALHOST.into(), ports.admin)?];
        match listen(Ipv6Addr::LOCALHOST.into(), ports.admin) {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => {}
            Err(error) => return Err(error),
        }
        Ok(listeners)
    })?;
    let metrics = take_or_open(inherited, ports.stats, || Ok(vec![listen_everywhere(ports.stats)?]))?;
    let probes = take_or_open(inherited, ports.readiness, || {
        Ok(vec![listen_everywhere(ports.readiness)?])
    })?;
    let admins = admins.into_iter().map(|listener| serve(listener, node, pages::admin));
    let metrics = metrics.into_iter().map(|listener| serve(listener, node, pages::stats));
    let probes = probes
        .into_iter()
        .map(|listener| serve(listener, node, pages::readiness));
    Ok(admins.chain(metrics).chain(probes).collect())
}

fn take_or_open(
    inherited: &mut Inherited,
    port: u16,
    open: impl FnOnce() -> io::Result<Vec<TcpListener>>,
) -> io::Result<Vec<TcpListener>> {
    let taken = inherited.take_listeners(port);
    if taken.is_empty() {
        open()
    } else {
        taken.into_iter().map(TcpListener::from_std).collect()
    }
}

fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match listen(Ipv6Addr::UNSPECIFIED.into(), port) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => listen(Ipv4Addr::UNSPECIFIED.into(), port),
        result => result,
    }
}

fn listen(address: std::net::IpAddr, port: u16) -> io::Result<TcpListener> {
    let address = SocketAddr::new(address, port);
    let listener = std::net::TcpListener::bind(address).map_err(|error| {
        io::Error::new(
            error.kind(),
            OsError {
                text: format!("cannot listen on {address}: {error}"),
                error,
            },
        )
    })?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

/// Keeps the system's error below a message that names the address.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct OsError {
    text: String,
    #[source]
    error: io::Error,
}

fn serve(listener: TcpListener, node: &Arc<Node>, answer: Pages) -> Server {
    let (node, listener) = (Arc::clone(node), Arc::new(listener));
    let kept = Arc::clone(&listener);
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let node = Arc::clone(&node);
            tokio::spawn(async move {
                let node = &node;
                let service = service_fn(|request| async move { Ok::<_, Infallible>(answer(node, &request).await) });
                // A client that breaks its connection is its own loss.
                let _ = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .max_buf_size(MAX_BUFFER)
                    .half_close(true)
                    .serve_connection(TokioIo::new(socket), service)
                    .await;
            });
        }
    });
    Server {
        listener: kept,
        accepting: accepting.abort_handle(),
    }
}
