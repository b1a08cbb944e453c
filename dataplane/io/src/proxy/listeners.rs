//! What is listened on in a pod, and what is accepted there.

use std::io;
use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{HBONE_PORT, INBOUND_PLAINTEXT_PORT, OUTBOUND_PORT};
use crate::handover::Inherited;
use crate::settings::SocketSettings;
use crate::telemetry::OpenSocket;
use crate::{sockets, socks5};

/// What is listened on in a pod.
pub(super) struct Listeners {
    pub(super) hbone: Vec<std::net::TcpListener>,
    /// What the redirect rules lead to: from the pod, and in plaintext to it.
    pub(super) captured: Option<(Vec<std::net::TcpListener>, Vec<std::net::TcpListener>)>,
    pub(super) socks5: Option<Vec<std::net::TcpListener>>,
}

impl Listeners {
    /// Take what was inherited; open what was not, in the namespace that the thread is in.
    pub(super) fn open(
        settings: &SocketSettings,
        is_own: bool,
        socks5: bool,
        inherited: &mut Inherited,
    ) -> io::Result<Self> {
        let mut take_or_open = |port: u16, open: &dyn Fn() -> io::Result<std::net::TcpListener>| {
            let taken = inherited.take_listeners(port);
            if taken.is_empty() {
                Ok(vec![open()?])
            } else {
                Ok::<_, io::Error>(taken)
            }
        };
        let mut listen = |port| take_or_open(port, &|| sockets::listen(settings, port));
        let hbone = listen(HBONE_PORT)?;
        let captured = if is_own {
            None
        } else {
            Some((listen(OUTBOUND_PORT)?, listen(INBOUND_PLAINTEXT_PORT)?))
        };
        let socks5 = if socks5 && !is_own {
            let open = || sockets::listen_at(settings, socks5::ADDRESS);
            Some(take_or_open(socks5::ADDRESS.port(), &open)?)
        } else {
            None
        };
        Ok(Self {
            hbone,
            captured,
            socks5,
        })
    }
}

/// A connection that a listener accepted.
pub(crate) struct Accepted {
    /// The socket.
    pub(crate) socket: TcpStream,
    /// Who connected: never IPv4 that is mapped into IPv6.
    pub(crate) peer: SocketAddr,
    /// Counts it while it is open.
    pub(crate) open: OpenSocket,
}

impl Accepted {
    pub(super) fn new((socket, peer): (TcpStream, SocketAddr), open: OpenSocket) -> Self {
        let peer = SocketAddr::new(sockets::canonical(peer.ip()), peer.port());
        Self { socket, peer, open }
    }
}
