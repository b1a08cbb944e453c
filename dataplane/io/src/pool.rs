//! Tunnels that are open, by whom they connect; shared by the connections of one pod on one worker.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_core::framing::Connection;
use ambit_core::identity::Identity;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::certificates::{CertificateMissing, Certificates};
use crate::netns::Netns;
use crate::proxy::HBONE_PORT;
use crate::settings::{SocketSettings, TrafficSettings};
use crate::sockets::{self, Source};
use crate::telemetry::Flag;
use crate::tls::handshake::{self, HandshakeError};
use crate::tls::verify;
use crate::tunnel::allotment::Allotment;
use crate::tunnel::{Tunnel, revocable};

/// Deadline of a TCP connect (ztunnel.md 1.8).
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Deadline of a TLS handshake. Stock ztunnel has none and can be held up for ever (ztunnel.md 12.1, 7).
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Which tunnels can be shared: same client identity, same acceptable servers, same address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PoolKey {
    /// Who dials.
    pub source: Identity,
    /// Who may answer.
    pub accepted: Vec<Identity>,
    /// Where.
    pub target: SocketAddr,
}

/// Why no tunnel could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No certificate of our own.
    #[error(transparent)]
    Certificate(#[from] CertificateMissing),
    /// No TCP connection.
    #[error("cannot connect to {target}: {why}")]
    Connect {
        /// Where.
        target: SocketAddr,
        /// The error.
        why: String,
    },
    /// No answer to SYN.
    #[error("connecting to {0} took longer than 10 s; does a NetworkPolicy or a firewall block port 15008?")]
    ConnectTimeout(SocketAddr),
    /// The server's certificate was taken back.
    #[error("no tunnel to {0}: the server's certificate is revoked")]
    Revoked(SocketAddr),
    /// One side refused the other's certificate, or the peer does not speak HBONE.
    #[error("no tunnel to {target}: {why}")]
    Handshake {
        /// Where.
        target: SocketAddr,
        /// The error.
        why: String,
    },
}

impl DialError {
    /// Nobody was there: another address might do better.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::ConnectTimeout(_))
    }

    /// The access log's flag for it.
    pub(crate) fn flag(&self) -> Flag {
        match self {
            Self::Certificate(_) => Flag::IdentityError,
            Self::ConnectTimeout(target) if target.port() == HBONE_PORT => Flag::NetworkPolicy,
            Self::Connect { .. } | Self::ConnectTimeout(_) => Flag::Connect,
            Self::Revoked(_) => Flag::CertificateRevoked,
            Self::Handshake { .. } => Flag::TlsFailure,
        }
    }
}

/// How a dial that others wait for too went.
type DialResult = Option<Result<(), DialError>>;

#[derive(Default)]
struct Entry {
    tunnels: Vec<Rc<Tunnel>>,
    dialling: Option<watch::Receiver<DialResult>>,
    used_at: Option<Instant>,
}

/// One pod's tunnels.
pub(crate) struct Pool {
    certificates: Arc<Certificates>,
    settings: Arc<TrafficSettings>,
    netns: Arc<Netns>,
    entries: RefCell<HashMap<PoolKey, Entry>>,
}

impl Pool {
    /// An empty pool whose sockets are opened in `netns`.
    pub(crate) fn new(certificates: Arc<Certificates>, settings: Arc<TrafficSettings>, netns: Arc<Netns>) -> Rc<Self> {
        Rc::new(Self {
            certificates,
            settings,
            netns,
            entries: RefCell::default(),
        })
    }

    /// A tunnel with room for another stream; dials when there is none.
    ///
    /// Whoever comes while a dial is under way waits for that one, and shares its failure at once.
    pub(crate) async fn checkout(self: &Rc<Self>, key: &PoolKey) -> Result<Rc<Tunnel>, DialError> {
        loop {
            let mut dial = match self.find(key) {
                Found::Tunnel(tunnel) => return Ok(tunnel),
                Found::Dialling(dial) => dial,
                Found::Nothing => self.start_dial(key),
            };
            let result = match dial.wait_for(Option::is_some).await {
                Ok(result) => result.clone(),
                // The dial's task was aborted with the pod's other tasks.
                Err(_) => Some(Err(DialError::Connect {
                    target: key.target,
                    why: "the pod was removed".to_owned(),
                })),
            };
            if let Some(Err(error)) = result {
                return Err(error);
            }
        }
    }

    fn find(&self, key: &PoolKey) -> Found {
        let mut entries = self.entries.borrow_mut();
        let Some(entry) = entries.get_mut(key) else {
            return Found::Nothing;
        };
        entry.used_at = Some(Instant::now());
        entry.tunnels.retain(|tunnel| !tunnel.is_over());
        match (entry.tunnels.iter().find(|tunnel| tunnel.can_open()), &entry.dialling) {
            (Some(tunnel), _) => Found::Tunnel(Rc::clone(tunnel)),
            (None, Some(dial)) => Found::Dialling(dial.clone()),
            (None, None) => Found::Nothing,
        }
    }

    fn start_dial(self: &Rc<Self>, key: &PoolKey) -> watch::Receiver<DialResult> {
        let (done, waiting) = watch::channel(None);
        self.entries.borrow_mut().entry(key.clone()).or_default().dialling = Some(waiting.clone());
        let (pool, key) = (Rc::clone(self), key.clone());
        tokio::task::spawn_local(async move {
            let result = pool.dial(&key).await;
            let mut entries = pool.entries.borrow_mut();
            let entry = entries.entry(key).or_default();
            entry.dialling = None;
            entry.used_at = Some(Instant::now());
            let result = result.map(|tunnel| entry.tunnels.push(tunnel));
            done.send_replace(Some(result));
        });
        waiting
    }

    async fn dial(&self, key: &PoolKey) -> Result<Rc<Tunnel>, DialError> {
        let certificate = self.certificates.get(&key.source).await?;
        let target = key.target;
        let failed = |why: String| DialError::Handshake { target, why };
        let config = certificate
            .client_config(key.accepted.clone())
            .map_err(|error| failed(error.to_string()))?;
        let socket = connect(&self.settings.sockets, &self.netns, target, Source::Own).await?;
        let established = timeout(HANDSHAKE_TIMEOUT, handshake::connect(&socket, Arc::new(config)))
            .await
            .map_err(|_| failed("the peer did not finish the tls handshake in 10 s".to_owned()))?
            .map_err(|error| match error {
                HandshakeError::Revoked => DialError::Revoked(target),
                // As stock ztunnel counts it (ztunnel.md 8.3).
                HandshakeError::Io(why) => DialError::Connect {
                    target,
                    why: format!("the peer broke off the tls handshake: {why}"),
                },
                error => failed(error.to_string()),
            })?;
        let links = established.links(&certificate.rules.revocations);
        let server = verify::identity_of(&established.peer).map_err(failed)?;
        let framer = Connection::client(self.settings.client());
        let (tunnel, early) = Tunnel::new(socket, established, framer, Allotment::of_server(&server));
        revocable::track(&tunnel, links, &certificate.rules.revocations);
        let driven = Rc::clone(&tunnel);
        tokio::task::spawn_local(async move {
            // A peer cannot open streams towards a client: the framer refuses them.
            driven.drive(early, &|_| {}).await;
        });
        Ok(tunnel)
    }

    /// Close what nobody asked for in the set time, five minutes, and all but one of the tunnels that carry nothing: a burst needs
    /// several, and should not keep them. Streams that are open go on.
    pub(crate) fn release_unused(&self) {
        let now = Instant::now();
        self.entries.borrow_mut().retain(|_, entry| {
            entry.tunnels.retain(|tunnel| !tunnel.is_over());
            let is_unused = entry
                .used_at
                .is_none_or(|used| now >= used + self.settings.pool.unused_release);
            let mut spare = usize::from(!is_unused || entry.dialling.is_some());
            entry.tunnels.retain(|tunnel| {
                let is_spared = !tunnel.has_streams() && spare > 0;
                spare -= usize::from(is_spared);
                let is_kept = tunnel.has_streams() || is_spared;
                if !is_kept {
                    tunnel.retire();
                }
                is_kept
            });
            !entry.tunnels.is_empty() || entry.dialling.is_some()
        });
    }

    /// Give up all tunnels: at once, or when their streams have ended.
    pub(crate) fn close(&self, at_once: bool) {
        for (_, mut entry) in self.entries.borrow_mut().drain() {
            for tunnel in entry.tunnels.drain(..) {
                if at_once { tunnel.abort() } else { tunnel.retire() }
            }
        }
    }
}

enum Found {
    Tunnel(Rc<Tunnel>),
    Dialling(watch::Receiver<DialResult>),
    Nothing,
}

/// Connect to `target` from inside `netns`.
pub(crate) async fn connect(
    settings: &SocketSettings,
    netns: &Netns,
    target: SocketAddr,
    source: Source,
) -> Result<TcpStream, DialError> {
    let failed = |error: std::io::Error| DialError::Connect {
        target,
        why: error.to_string(),
    };
    let socket = netns
        .within(|| sockets::connect(settings, target, source))
        .map_err(failed)?;
    // Towards the pod itself the handshake is over already.
    let stands = socket.peer_addr().is_ok();
    let socket = TcpStream::from_std(socket).map_err(failed)?;
    if stands {
        return Ok(socket);
    }
    timeout(CONNECT_TIMEOUT, socket.writable())
        .await
        .map_err(|_| DialError::ConnectTimeout(target))?
        .map_err(failed)?;
    match socket.take_error().map_err(failed)? {
        Some(error) => Err(failed(error)),
        None => Ok(socket),
    }
}
