//! To another network: a tunnel inside a stream of a tunnel, through that network's gateway (ztunnel.md 1.10).
//!
//! The gateway hands bytes on and sees none of them: inside the stream that it opens stands a second TLS connection, from the
//! client's certificate to that of whoever serves at the far end. Both layers are the ones that `tunnel` has; between them is
//! a pair of connected sockets, one end of which the outer stream takes for its application while the inner tunnel takes the
//! other for its connection. An inner tunnel carries one stream and ends with it: shared, it would pin all connections to the
//! one endpoint that the gateway chose for the first.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ambit_core::framing::{self, Connection, OpenError};
use ambit_core::hbone::Baggage;
use ambit_core::identity::Identity;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::pool::HANDSHAKE_TIMEOUT;
use crate::telemetry::{Flag, Moved};
use crate::tls::TlsRules;
use crate::tls::handshake::{self, Established, HandshakeError};
use crate::tls::verify;
use crate::tunnel::allotment::Allotment;
use crate::tunnel::{RelayEnd, Stream, Tunnel, revocable};

/// How long the gateway may take to end the outer stream after we did.
const GOODBYE: Duration = Duration::from_secs(2);

/// Why a connection through a gateway failed; at which of the two hops is part of the text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GatewayError {
    /// Without an identity everybody behind the gateway could answer.
    #[error("service {0} names no identity of its servers, so that nobody behind the gateway can be believed")]
    NoIdentity(String),
    /// No socket pair.
    #[error("no socket for the inner tunnel: {0}")]
    Socket(#[from] io::Error),
    /// The outer stream.
    #[error("at the gateway: {0}")]
    Outer(RelayEnd),
    /// The gateway closed the stream before its time.
    #[error("at the gateway: it ended the stream before there was a tunnel through it")]
    OuterEnded,
    /// The inner tunnel.
    #[error("behind the gateway: {0}")]
    Handshake(String),
    /// The inner tunnel.
    #[error("behind the gateway: the server's certificate is revoked")]
    Revoked,
    /// The inner tunnel's stream.
    #[error("behind the gateway: {0}")]
    Open(OpenError),
    /// The inner tunnel's stream.
    #[error("behind the gateway: {0}")]
    Inner(RelayEnd),
}

impl GatewayError {
    pub(crate) fn flag(&self) -> Flag {
        match self {
            Self::NoIdentity(_) | Self::Handshake(_) => Flag::TlsFailure,
            Self::Revoked => Flag::CertificateRevoked,
            Self::Outer(end) | Self::Inner(end) => end.flag(),
            Self::Socket(_) | Self::OuterEnded | Self::Open(_) => Flag::Connect,
        }
    }
}

/// Who serves at the far end, as it proved and as it says.
pub(crate) struct FarEnd {
    /// From its certificate.
    pub identity: Identity,
    /// What its agent tells of it.
    pub baggage: Option<Baggage>,
}

/// What the inner tunnel needs.
pub(crate) struct InnerTunnel<'a> {
    /// How to prove who we are, and whom to accept.
    pub tls: ClientConfig,
    /// What its handshake goes by.
    pub rules: Arc<TlsRules>,
    /// What to announce.
    pub settings: framing::Settings,
    /// What to ask for.
    pub head: framing::ConnectHead<'a>,
    /// How long an answer may take, on either layer.
    pub patience: Duration,
}

/// Who is told when a stream is opened, where its bytes are counted; and when it is answered, by whom.
pub(crate) struct Reports<O, H> {
    pub(crate) opened: O,
    pub(crate) heard: H,
}

/// Relay `application` through `outer`, a stream to the gateway that is not answered yet. `report` is told what comes
/// about. `spawn` runs what is left to do for the outer stream when the connection has ended.
///
pub(crate) async fn relay(
    outer: Rc<Stream>,
    application: Rc<TcpStream>,
    inner: InnerTunnel<'_>,
    report: Reports<impl FnOnce(&Rc<Moved>), impl FnOnce(FarEnd)>,
    spawn: impl FnOnce(Pin<Box<dyn Future<Output = ()>>>),
) -> Result<(), GatewayError> {
    let (near, far) = socket_pair()?;
    let patience = inner.patience;
    let mut outer = Box::pin(async move { outer.open_and_relay(Rc::new(near), patience).await });
    let mut carried = Box::pin(carry(far, application, inner, report));
    tokio::select! {
        biased;
        ended = &mut outer => match ended {
            Err(end) => Err(GatewayError::Outer(end)),
            // The last bytes are in the socket pair.
            Ok(()) => match timeout(GOODBYE, &mut carried).await {
                Ok(result) => result,
                Err(_) => Err(GatewayError::OuterEnded),
            },
        },
        result = &mut carried => {
            spawn(Box::pin(async move {
                // Whoever waited for the connection has been told how it ended; nothing more can go wrong with it.
                let _ = timeout(GOODBYE, outer).await;
            }));
            result
        }
    }
}

async fn carry(
    socket: TcpStream,
    application: Rc<TcpStream>,
    inner: InnerTunnel<'_>,
    report: Reports<impl FnOnce(&Rc<Moved>), impl FnOnce(FarEnd)>,
) -> Result<(), GatewayError> {
    let refused = |why: String| GatewayError::Handshake(why);
    let established: Established = timeout(HANDSHAKE_TIMEOUT, handshake::connect(&socket, Arc::new(inner.tls)))
        .await
        .map_err(|_| refused("the server did not finish the tls handshake in 10 s".to_owned()))?
        .map_err(|error| match error {
            HandshakeError::Revoked => GatewayError::Revoked,
            error => refused(error.to_string()),
        })?;
    let links = established.links(&inner.rules.revocations);
    let identity = verify::identity_of(&established.peer).map_err(refused)?;
    let framer = Connection::client(inner.settings);
    let (tunnel, early) = Tunnel::new(socket, established, framer, Allotment::of_server(&identity));
    revocable::track(&tunnel, links, &inner.rules.revocations);
    let work = async {
        let stream = tunnel.open(&inner.head).map_err(GatewayError::Open)?;
        (report.opened)(&stream.moved);
        let heard = |baggage: Option<&str>| {
            (report.heard)(FarEnd {
                identity,
                baggage: baggage.map(Baggage::parse),
            });
        };
        let result = stream.open_and_relay_with(application, inner.patience, heard).await;
        tunnel.retire();
        result.map_err(GatewayError::Inner)
    };
    let (_, result) = tokio::join!(tunnel.drive(early, &|_| {}), work);
    result
}

/// Two connected sockets. They are Unix ones: nothing here asks for an address, and they cost no port.
fn socket_pair() -> io::Result<(TcpStream, TcpStream)> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (near, far) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
    let open = |descriptor| TcpStream::from_std(StdTcpStream::from(descriptor));
    Ok((open(near)?, open(far)?))
}
