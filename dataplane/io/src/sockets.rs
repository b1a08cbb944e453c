//! The data path's sockets: which options each kind needs, and why.
//!
//! Every socket carries the mark, so that the pod's redirect rules let it pass (cni.md 6). All functions are called with the
//! thread inside the pod's network namespace (`Netns::within`) and return at once.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::task::{Context, Waker};
use std::time::Duration;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::settings::{OriginalSource, SocketSettings};

/// Length of a listener's accept queue. Stock ztunnel has 128; bursts of short connections overflow that, a full second of
/// SYN retransmission each.
const BACKLOG: i32 = 1024;

/// What `connect` does with the source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The namespace's own address.
    Own,
    /// This address, foreign to the namespace: how an application keeps seeing its original client.
    Spoofed(IpAddr),
}

/// A listener on all addresses of the namespace, IPv4 through an IPv6 socket where IPv6 exists and is wanted.
///
/// `SO_REUSEPORT` lets every worker, and a successor during an upgrade, listen beside it. What is accepted inherits the
/// options, keepalive included (stock ztunnel leaves it out on 15008: ztunnel.md 12.1, 10).
pub(crate) fn listen(settings: &SocketSettings, port: u16) -> io::Result<std::net::TcpListener> {
    let any_v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    if !settings.ipv6 {
        return listen_at(settings, any_v4);
    }
    match listen_at(settings, any_v6) {
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => listen_at(settings, any_v4),
        result => result,
    }
}

/// A listener on one address.
pub(crate) fn listen_at(settings: &SocketSettings, address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_mark(settings.mark)?;
    socket.set_reuse_port(settings.port_reuse)?;
    // A connection of a predecessor that ended a moment ago does not keep the port.
    socket.set_reuse_address(!settings.port_reuse)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // For destinations that arrive by TPROXY rather than by redirect.
    match (settings.original_source, socket.set_ip_transparent_v4(true)) {
        (OriginalSource::Always, result) => result?,
        // Not permitted here: then nothing arrives that way either.
        (OriginalSource::WherePermitted | OriginalSource::Never, _) => {}
    }
    socket.set_tcp_nodelay(true)?;
    set_keepalive(settings, &socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Start connecting to `target`; the result is a non-blocking socket whose connection is under way.
pub(crate) fn connect(
    settings: &SocketSettings,
    target: SocketAddr,
    source: Source,
) -> io::Result<std::net::TcpStream> {
    let socket = Socket::new(
        Domain::for_address(target),
        Type::STREAM.nonblocking(),
        Some(Protocol::TCP),
    )?;
    socket.set_mark(settings.mark)?;
    socket.set_tcp_nodelay(true)?;
    set_keepalive(settings, &socket)?;
    if let Source::Spoofed(address) = source {
        match (settings.original_source, bind_foreign(&socket, address)) {
            (OriginalSource::WherePermitted, Err(error)) if error.raw_os_error() == Some(libc::EPERM) => {}
            (_, result) => result?,
        }
    }
    match socket.connect(&SockAddr::from(target)) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        result => result?,
    }
    Ok(socket.into())
}

fn bind_foreign(socket: &Socket, address: IpAddr) -> io::Result<()> {
    match address {
        IpAddr::V4(_) => {
            socket.set_ip_transparent_v4(true)?;
            socket.set_freebind_v4(true)?;
        }
        IpAddr::V6(_) => {
            socket.set_ip_transparent_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    // The port is chosen when connecting, so that it has to be free only towards that one application.
    setsockopt(socket, sockopt::IpBindAddressNoPort, &true)?;
    socket.bind(&SocketAddr::new(address, 0).into())
}

fn set_keepalive(settings: &SocketSettings, socket: &Socket) -> io::Result<()> {
    let Some(keepalive) = settings.keepalive else {
        return Ok(());
    };
    if settings.user_timeout {
        socket.set_tcp_user_timeout(Some(keepalive.patience()))?;
    }
    let options = TcpKeepalive::new()
        .with_time(keepalive.time)
        .with_interval(keepalive.interval)
        .with_retries(keepalive.retries);
    socket.set_tcp_keepalive(&options)
}

/// Where the client meant to connect before the redirect: `SO_ORIGINAL_DST`, or the socket's own address (TPROXY).
///
/// A mapped IPv4 address comes back as IPv4. Errors when the connection is gone already.
pub(crate) fn original_destination(socket: &TcpStream, peer: SocketAddr) -> io::Result<SocketAddr> {
    let fd = socket.as_fd();
    let original = match canonical(peer.ip()) {
        IpAddr::V4(_) => getsockopt(&fd, sockopt::OriginalDst).ok().map(|found| {
            let address = Ipv4Addr::from(u32::from_be(found.sin_addr.s_addr));
            SocketAddr::from((address, u16::from_be(found.sin_port)))
        }),
        IpAddr::V6(_) => getsockopt(&fd, sockopt::Ip6tOriginalDst)
            .ok()
            .map(|found| SocketAddr::from((Ipv6Addr::from(found.sin6_addr.s6_addr), u16::from_be(found.sin6_port)))),
    };
    original.map_or_else(|| local(socket), Ok)
}

/// The socket's own address; a mapped IPv4 address comes back as IPv4.
pub(crate) fn local(socket: &TcpStream) -> io::Result<SocketAddr> {
    let address = socket.local_addr()?;
    Ok(SocketAddr::new(canonical(address.ip()), address.port()))
}

/// The IPv4 address inside a mapped IPv6 one; others as they are.
pub(crate) fn canonical(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// Wait until `socket` may have something to read. One task at a time may wait for this: tokio's own `readable` lets any
/// number wait, and each such wait takes 200 bytes of its connection, as long as that lasts.
pub(crate) async fn readable(socket: &TcpStream) -> io::Result<()> {
    poll_fn(|context| socket.poll_read_ready(context)).await
}

/// Wait until `socket` may take something to write. One task at a time, as with `readable`.
pub(crate) async fn writable(socket: &TcpStream) -> io::Result<()> {
    poll_fn(|context| socket.poll_write_ready(context)).await
}

/// Write as much of `pieces` as the socket takes now.
///
/// A socket that we connected ourselves can be written to before the first event says so, which tokio's own `try_write`
/// waits for: that is a turn of the worker's loop for each new connection.
pub(crate) fn write_now(socket: &TcpStream, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let socket_ref = SockRef::from(socket);
    let written = match pieces {
        [piece] => socket_ref.send(piece),
        _ => socket_ref.send_vectored(pieces),
    };
    if written
        .as_ref()
        .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    {
        let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
        // The next wait is for new room. The error is ours.
        let _ = socket.try_io(Interest::WRITABLE, nothing);
    }
    written
}

/// Take note that a read got less than it asked for: the socket is empty, and the next wait is for new bytes.
///
/// Without it every wait is preceded by a read that finds nothing. tokio's own `poll_read` does the same; an end of the
/// stream stays visible, and with edge-triggered readiness bytes that come later announce themselves.
pub(crate) fn note_drained(socket: &TcpStream) {
    let nothing = || Err::<(), _>(io::ErrorKind::WouldBlock.into());
    // The error is ours.
    let _ = socket.try_io(Interest::READABLE, nothing);
}

/// Whether the last event said that the peer has ended its direction. What it sent before that may still be there to read.
/// Only for the task that waits for the socket to be readable.
pub(crate) fn has_peer_ended(socket: &TcpStream) -> bool {
    // All else that makes a socket readable has been noted as read.
    socket
        .poll_read_ready(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

/// Make closing the socket a clean end again: what was written last is for the peer to read.
pub(crate) fn close_in_order<'a>(socket: impl Into<SockRef<'a>>) {
    // It fails only for a socket that is closed already.
    let _ = socket.into().set_linger(None);
}

/// Make closing the socket send a reset instead of a clean end, so that a cut transfer never looks complete.
pub(crate) fn reset_on_close<'a>(socket: impl Into<SockRef<'a>>) {
    // It fails only for a socket that is closed already.
    let _ = socket.into().set_linger(Some(Duration::ZERO));
}
