//! The three HTTP servers around the data path: admin (loopback only), metrics, readiness (ztunnel.md 8.1 to 8.3).

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ambit_core::mesh_state::ConfigDump;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::certificates::CertificateState;
use crate::handover::Inherited;
use crate::logging;
use crate::shared::Shared;

/// A client that takes longer for its request's head is cut off (ztunnel.md 8.1).
const HEADER_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_BUFFER: usize = 8 * 1024;
/// After a failed accept, so that running out of descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

type Reply = Response<Full<Bytes>>;

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
pub(crate) fn start(shared: &Arc<Shared>, ports: AdminPorts, inherited: &mut Inherited) -> io::Result<Vec<Server>> {
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
    let admins = admins.into_iter().map(|listener| serve(listener, shared, admin));
    let metrics = metrics.into_iter().map(|listener| serve(listener, shared, stats));
    let probes = probes.into_iter().map(|listener| serve(listener, shared, readiness));
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

fn serve(listener: TcpListener, shared: &Arc<Shared>, answer: fn(&Shared, &Request<Incoming>) -> Reply) -> Server {
    let (shared, listener) = (Arc::clone(shared), Arc::new(listener));
    let kept = Arc::clone(&listener);
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                let service = service_fn(|request| respond(answer(&shared, &request)));
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

fn respond(reply: Reply) -> impl Future<Output = Result<Reply, Infallible>> {
    std::future::ready(Ok(reply))
}

fn text(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(kind));
    reply
}

const PLAIN: &str = "text/plain; charset=utf-8";

fn readiness(shared: &Shared, request: &Request<Incoming>) -> Reply {
    if request.uri().path() != "/healthz/ready" {
        return text(StatusCode::NOT_FOUND, PLAIN, "not found; try /healthz/ready\n");
    }
    if request.method() != Method::GET {
        return text(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
    }
    let pending = shared.readiness.pending();
    let mut reply = if pending.is_empty() {
        text(StatusCode::OK, PLAIN, "ready\n")
    } else {
        let body = format!("not ready, pending: {}\n", pending.join(", "));
        text(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, body)
    };
    // While one ztunnel takes another's place, whoever waits for it must know which of the two answers.
    let process = http::HeaderValue::from(std::process::id());
    reply.headers_mut().insert("x-ambit-process", process);
    reply
}

fn stats(shared: &Shared, request: &Request<Incoming>) -> Reply {
    match request.uri().path() {
        "/metrics" | "/stats/prometheus" => text(
            StatusCode::OK,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            shared.metrics.render(),
        ),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "not found; try /metrics\n"),
    }
}

fn admin(shared: &Shared, request: &Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (_, "/config_dump") => {
            let body = serde_json::to_vec_pretty(&config_dump(shared)).unwrap_or_default();
            text(StatusCode::OK, "application/json", body)
        }
        (&Method::POST, "/logging") => change_level(request.uri().query().unwrap_or_default()),
        (_, "/logging") => text(
            StatusCode::METHOD_NOT_ALLOWED,
            PLAIN,
            "POST /logging?level=error|warn|info|debug\n",
        ),
        (_, "/") => text(
            StatusCode::OK,
            PLAIN,
            "/config_dump: what this ztunnel knows\n/logging?level=LEVEL (POST): change the log level\n",
        ),
        _ => text(StatusCode::NOT_FOUND, PLAIN, "not found; see /\n"),
    }
}

fn change_level(query: &str) -> Reply {
    match query.strip_prefix("level=").and_then(logging::Level::parse) {
        Some(level) => {
            logging::set_level(level);
            text(StatusCode::OK, PLAIN, format!("log level is {level:?} now\n"))
        }
        None => text(
            StatusCode::BAD_REQUEST,
            PLAIN,
            "write level=error, level=warn, level=info or level=debug\n",
        ),
    }
}

/// What this ztunnel knows, in the shape of stock ztunnel's dump. Keys are never part of it.
fn config_dump(shared: &Shared) -> Value {
    let mut dump = serde_json::to_value(ConfigDump(&shared.mesh())).unwrap_or_default();
    dump["version"] = json!({ "version": env!("CARGO_PKG_VERSION"), "component": "ambit-ztunnel" });
    dump["certificates"] = shared
        .certificates
        .all()
        .into_iter()
        .map(|(identity, state)| match state {
            CertificateState::Initializing => json!({ "identity": identity.to_string(), "state": "Initializing" }),
            CertificateState::Unavailable(why) => {
                json!({ "identity": identity.to_string(), "state": format!("Unavailable: {why}") })
            }
            CertificateState::Available(certificate) => json!({
                "identity": identity.to_string(),
                "state": "Available",
                "certChain": [{
                    "serialNumber": certificate.serial,
                    "validFrom": unix_seconds(certificate.not_before),
                    "expirationTime": unix_seconds(certificate.not_after),
                }],
            }),
        })
        .collect();
    dump
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
