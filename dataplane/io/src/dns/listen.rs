//! A pod's DNS sockets, and reading from UDP sockets without a buffer each.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use crate::settings::{DnsAddress, SocketSettings};
use crate::sockets;

/// The largest UDP datagram.
const DATAGRAM_BYTES: usize = 65_535;

thread_local! {
    /// One for all sockets of the worker: nothing waits while it is in use.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What is listened on.
pub(crate) struct Listeners {
    pub(crate) udp: Vec<std::net::UdpSocket>,
    pub(crate) tcp: Vec<std::net::TcpListener>,
}

impl Listeners {
    /// A predecessor's sockets; `None` when there are none.
    pub(crate) fn inherited(sockets: Vec<OwnedFd>) -> Option<Self> {
        let is_udp = |socket: &OwnedFd| SockRef::from(socket).r#type().is_ok_and(|kind| kind == Type::DGRAM);
        let (udp, tcp): (Vec<_>, Vec<_>) = sockets.into_iter().partition(is_udp);
        let listeners = Self {
            udp: udp.into_iter().map(Into::into).collect(),
            tcp: tcp.into_iter().map(Into::into).collect(),
        };
        (!listeners.udp.is_empty() && !listeners.tcp.is_empty()).then_some(listeners)
    }

    /// Open them in the namespace that the thread is in. IPv6 is left out where loopback has none.
    pub(crate) fn open(settings: &SocketSettings, address: DnsAddress) -> io::Result<Self> {
        let mut listeners = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        let addresses = match address {
            DnsAddress::Localhost(port) => vec![
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
                SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port),
            ],
            DnsAddress::At(address) => vec![address],
        };
        for address in addresses {
            if address.is_ipv6() && !settings.ipv6 {
                continue;
            }
            match open_udp(settings, address) {
                Ok(socket) => listeners.udp.push(socket),
                Err(error) if address.is_ipv6() && has_no_ipv6(&error) => continue,
                Err(error) => return Err(error),
            }
            listeners.tcp.push(sockets::listen_at(settings, address)?);
        }
        Ok(listeners)
    }
}

fn has_no_ipv6(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::EAFNOSUPPORT))
}

fn open_udp(settings: &SocketSettings, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = marked_udp(settings, address)?;
    socket.set_reuse_port(settings.port_reuse)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A UDP socket for `address`'s family, with the mark.
pub(super) fn marked_udp(settings: &SocketSettings, address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM.nonblocking(),
        Some(Protocol::UDP),
    )?;
    socket.set_mark(settings.mark)?;
    Ok(socket)
}

/// One datagram, if there is one.
pub(super) fn receive_from(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(DATAGRAM_BYTES, 0);
        let (length, sender) = socket.try_recv_from(buffer)?;
        Ok((buffer[..length].to_vec(), sender))
    })
}
